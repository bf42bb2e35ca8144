//! A policy check: which gates a site's configuration makes, and that a typing error stops it.

use std::error::Error;
use std::path::Path;

use locule_component::{BuildCx, ConstructionCount, Registry, Side};
use locule_config::Document;
use locule_policy::{NoCheckerFiles, RefuseComponents, gates_from_site_config};

fn main() -> Result<(), Box<dyn Error>> {
    let mut registry = Registry::new();
    registry.register::<RefuseComponents>();
    let (kit, count) = (Path::new("kit"), ConstructionCount::new());
    let cx = BuildCx::new(Side::Site, "site-1", "", kit, kit, &count);
    let gates = |path: &str| {
        let text = format!(
            r#"{{ "class_allow_list": ["locule.demo."], "components": [
                 {{ "id": "no-scripts", "path": "{path}", "args": {{ "names": ["*.Script*"] }} }}] }}"#
        );
        gates_from_site_config(
            &Document::parse_json("job_resources.json", &text)?,
            &registry,
            &NoCheckerFiles,
            &cx,
        )
    };
    let found = gates("locule.policy.RefuseComponents")?;
    assert_eq!(found.iter().map(|gate| gate.id()).collect::<Vec<_>>(), ["class-allow-list", "no-scripts"]);
    assert!(gates("locule.policy.RefuseComponent").is_err());
    Ok(())
}
