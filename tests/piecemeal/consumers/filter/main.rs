//! A model without its head, before it leaves the house.

use std::error::Error;
use std::path::Path;

use locule_component::{
    BuildCx, Built, Chain, ConstructionCount, Direction, FilterCx, Registry, RunContext, Side,
};
use locule_fobs::{Array, DataKind, Dxo, Map, Shareable};

fn main() -> Result<(), Box<dyn Error>> {
    let mut registry = Registry::new();
    locule_filter::register(&mut registry);
    let (kit, count) = (Path::new("kit"), ConstructionCount::new());
    let cx = BuildCx::new(Side::Site, "hospital-1", "job-7", kit, kit, &count);
    let args = serde_json::json!({ "exclude_vars": "^head\\." });
    let Built::Filter(mut filter) = registry.build("locule.filter.ExcludeVars", args, &cx)? else {
        return Err("it is no filter".into());
    };

    let weights = Map::from_iter([("body.w", Array::from(&[1.0][..])), ("head.w", Array::from(&[2.0][..]))]);
    let result = Shareable::with_dxo(Dxo::new(DataKind::Weights, weights));
    let context = RunContext::new("hospital-1", "job-7").open();
    let (site, job_id, task) = ("hospital-1", "job-7", "train");
    let (chain, direction) = (Chain::TaskResult, Direction::Out);
    let cx = FilterCx { site, job_id, task, chain, direction, context: &context };
    let left = filter.apply(result, &cx)?.dxo()?.ok_or("it carries one")?;
    assert!(left.data.contains("body.w") && !left.data.contains("head.w"));
    Ok(())
}
