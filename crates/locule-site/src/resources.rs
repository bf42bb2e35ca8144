//! What a site has to give to its jobs, and what is left of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use locule_config::{Diagnostic, Diagnostics, Document, Node, NodeKind};
use locule_fobs::Map;
use serde_json::{Value as Json, json};

/// Key of them in a kit's `resources.json`.
const KEY: &str = "resources";
const GPUS: &str = "num_of_gpus";
const GPU_MEMORY: &str = "mem_per_gpu_in_GiB";
/// Units that are graphics processors, at nvflare's `ListResourceManager`.
const GPU_UNITS: &str = "gpu";

const GPU_MANAGER: &str = "nvflare.app_common.resource_managers.gpu_resource_manager.GPUResourceManager";
const LIST_MANAGER: &str = "nvflare.app_common.resource_managers.list_resource_manager.ListResourceManager";
const NO_MANAGER: &str =
    "nvflare.app_common.resource_managers.passthrough_resource_manager.PassthroughResourceManager";

/// Most of one kind, and most kinds.
const MOST: u64 = 4_096;
/// Jobs that are named as those that use something.
const NAMED: usize = 3;
/// Characters of a job's id that are enough for a person.
const ID: usize = 8;
/// Amounts that differ by less are the same.
const TINY: f64 = 1e-9;

/// What a site has to give to jobs: GPUs by number and memory, units of a kind by name, and amounts.
///
/// ```
/// use locule_config::Document;
/// use locule_site::SiteResources;
///
/// let text = r#"{ "resources": { "num_of_gpus": 2, "mem_per_gpu_in_GiB": 24, "cpus": 16, "licence": ["a", "b"] } }"#;
/// let resources = SiteResources::read(&Document::parse_json("local/resources.json", text)?, None)?;
/// assert_eq!(resources.gpus.len(), 2);
/// assert_eq!(resources.amounts["cpus"], 16.0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct SiteResources {
    /// GPUs by what `CUDA_VISIBLE_DEVICES` calls them, with their memory in GiB; 0 if that is not said. The first are
    /// given out first.
    pub gpus: Vec<(String, f64)>,
    /// What jobs call the number of GPUs and the memory that they want of each, if not `num_of_gpus` and
    /// `mem_per_gpu_in_GiB`.
    pub gpu_keys: Option<(String, String)>,
    /// Amounts by their names: `cpus`, `memory_gib`, whatever a job's `resource_spec` may name.
    pub amounts: BTreeMap<String, f64>,
    /// Named units of a kind. Those of the kind `gpu` are GPUs.
    pub units: BTreeMap<String, Vec<String>>,
    /// Whatever a job wants is granted, and nothing is counted.
    pub unlimited: bool,
    /// How long they stay reserved for a job that does not start.
    pub reservation: Option<Duration>,
}

impl SiteResources {
    /// Reads them from a kit's configuration: `resources`, or else the arguments of nvflare's `GPUResourceManager`,
    /// `ListResourceManager` or `PassthroughResourceManager` under `components`. `visible` is the daemon's own
    /// `CUDA_VISIBLE_DEVICES`, which says what the first GPUs are called.
    ///
    /// Whether the machine has what is said is not looked at.
    ///
    /// # Errors
    /// The first mistake, with its place.
    ///
    /// # Source
    /// nvflare 2.9.0, `nvflare.app_common.resource_managers`.
    pub fn read(resources: &Document, visible: Option<&str>) -> Result<Self, Diagnostics> {
        if let Some(node) = resources.root().get(KEY) {
            return Self::of_object(node, visible);
        }
        let components = resources.root().get("components").map(Node::items).unwrap_or_default();
        let manager = components.iter().find_map(|node| {
            let path = node.get("path")?.as_str()?;
            [GPU_MANAGER, LIST_MANAGER, NO_MANAGER].contains(&path).then_some((path, node))
        });
        let Some((path, node)) = manager else { return Ok(Self::default()) };
        let Some(args) = node.get("args") else {
            return Ok(Self { unlimited: path == NO_MANAGER, ..Self::default() });
        };
        let mut all = match path {
            GPU_MANAGER => Self::of_gpu_manager(args, visible)?,
            LIST_MANAGER => {
                let lists = args.get(KEY).unwrap_or(args);
                let units = lists.entries().map(|(kind, node)| Ok((kind.to_owned(), units(node)?)));
                Self { units: units.collect::<Result<_, Diagnostics>>()?, ..Self::default() }
            }
            _ => Self { unlimited: true, ..Self::default() },
        };
        if let Some(period) = args.get("expiration_period") {
            let seconds = period.as_f64().filter(|seconds| *seconds > 0.0).map(Duration::try_from_secs_f64);
            let Some(Ok(period)) = seconds else { return Err(wrong(period, "must be a number above 0")) };
            all.reservation = Some(period);
        }
        Ok(all)
    }

    fn of_object(node: &Node, visible: Option<&str>) -> Result<Self, Diagnostics> {
        if node.kind() != NodeKind::Object {
            return Err(wrong(node, "must be an object"));
        }
        let mut all = Self { gpus: gpus(node, visible)?, ..Self::default() };
        for (name, node) in node.entries().filter(|(name, _)| ![GPUS, GPU_MEMORY].contains(name)) {
            if node.kind() == NodeKind::List {
                all.units.insert(name.to_owned(), units(node)?);
            } else {
                all.amounts.insert(name.to_owned(), amount(node)?);
            }
        }
        Ok(all)
    }

    fn of_gpu_manager(args: &Node, visible: Option<&str>) -> Result<Self, Diagnostics> {
        let key = |name: &str| args.get(name).and_then(Node::as_str).map(str::to_owned);
        let keys = (key("num_gpu_key"), key("gpu_mem_key"));
        let gpu_keys = (keys.0.is_some() || keys.1.is_some())
            .then(|| (keys.0.unwrap_or_else(|| GPUS.into()), keys.1.unwrap_or_else(|| GPU_MEMORY.into())));
        Ok(Self { gpus: gpus(args, visible)?, gpu_keys, ..Self::default() })
    }

    /// Finds what a job wants among what the others have left.
    pub(crate) fn find(&self, wanted: &Map, others: &[(&str, &Grant)]) -> Result<Grant, Lack> {
        let mut grant = Grant::default();
        if self.unlimited {
            return Ok(grant);
        }
        let (gpus, memory) =
            self.gpu_keys.as_ref().map_or((GPUS, GPU_MEMORY), |(gpus, memory)| (gpus, memory));
        for (name, value) in wanted.iter_str().filter(|(name, _)| *name != memory) {
            let Some(number) = value.as_f64().filter(|number| *number > 0.0) else { continue };
            if name == gpus {
                let each = wanted.get(memory).and_then(|value| value.as_f64()).unwrap_or(0.0);
                grant.gpus = self.find_gpus(number, each, others)?;
            } else if let Some(all) = self.units.get(name) {
                let own = |grant: &Grant| grant.units.get(name).map_or(0, Vec::len) as f64;
                let used: BTreeSet<&String> = others
                    .iter()
                    .flat_map(|(_, other)| other.units.get(name).into_iter().flatten())
                    .collect();
                let free: Vec<&String> = all.iter().filter(|unit| !used.contains(unit)).collect();
                let stock = Stock { name, all: all.len() as f64, free: free.len() as f64 };
                stock.check(number.ceil(), others, own)?;
                let units = free.into_iter().take(number.ceil() as usize).cloned().collect();
                grant.units.insert(name.to_owned(), units);
            } else {
                let own = |grant: &Grant| grant.amounts.get(name).copied().unwrap_or(0.0);
                let all = self.amounts.get(name).copied().unwrap_or(0.0);
                let used: f64 = others.iter().map(|(_, other)| own(other)).sum();
                Stock { name, all, free: (all - used).max(0.0) }.check(number, others, own)?;
                grant.amounts.insert(name.to_owned(), number);
            }
        }
        Ok(grant)
    }

    /// GPUs with so much memory each that nobody uses; whole ones if no memory is named.
    fn find_gpus(
        &self,
        number: f64,
        memory: f64,
        others: &[(&str, &Grant)],
    ) -> Result<Vec<(String, f64)>, Lack> {
        let name = if memory > 0.0 { format!("GPUs with {memory} GiB") } else { "GPUs".to_owned() };
        let fit: Vec<&(String, f64)> = self.gpus.iter().filter(|(_, all)| all + TINY >= memory).collect();
        let is_free = |(gpu, all): &&(String, f64)| {
            let shares = others.iter().flat_map(|(_, other)| &other.gpus);
            let mut shares = shares.filter(|(other, _)| other == gpu).map(|(_, share)| *share);
            if memory > 0.0 {
                // A share without memory is the whole.
                shares.clone().all(|share| share > 0.0) && shares.sum::<f64>() + memory <= all + TINY
            } else {
                shares.next().is_none()
            }
        };
        let free: Vec<_> = fit.iter().copied().filter(is_free).collect();
        let stock = Stock { name: &name, all: fit.len() as f64, free: free.len() as f64 };
        stock.check(number.ceil(), others, |grant| grant.gpus.len() as f64)?;
        Ok(free.into_iter().take(number.ceil() as usize).map(|(gpu, _)| (gpu.clone(), memory)).collect())
    }

    /// All of it and who has what, for administrators.
    pub(crate) fn report(&self, jobs: &[(&str, &Grant)]) -> Json {
        let gpus: Vec<Json> =
            self.gpus.iter().map(|(gpu, memory)| json!({ "gpu_id": gpu, "memory": memory })).collect();
        let in_use = jobs.iter().filter(|(_, grant)| **grant != Grant::default()).map(|(job, grant)| {
            json!({ "job": job, "gpus": grant.gpus, "amounts": grant.amounts, "units": grant.units })
        });
        json!({
            "resources": { "gpus": gpus, "amounts": self.amounts, "units": self.units },
            "unlimited": self.unlimited,
            "in_use": in_use.collect::<Vec<_>>(),
        })
    }
}

/// What a job has of a site's resources, from its reservation until its end.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Grant {
    /// GPUs, with the memory that it has of each; 0 for the whole.
    gpus: Vec<(String, f64)>,
    amounts: BTreeMap<String, f64>,
    units: BTreeMap<String, Vec<String>>,
}

impl Grant {
    /// What the job's process is told of it.
    ///
    /// # Source
    /// nvflare 2.9.0, `nvflare.app_common.resource_consumers`.
    pub(crate) fn environment(&self) -> BTreeMap<String, String> {
        let units = self.units.get(GPU_UNITS).into_iter().flatten();
        let gpus: Vec<&str> = self.gpus.iter().map(|(gpu, _)| gpu).chain(units).map(String::as_str).collect();
        if gpus.is_empty() {
            return BTreeMap::new();
        }
        BTreeMap::from([
            ("CUDA_DEVICE_ORDER".to_owned(), "PCI_BUS_ID".to_owned()),
            ("CUDA_VISIBLE_DEVICES".to_owned(), gpus.join(",")),
        ])
    }
}

/// Why a site cannot give what a job wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lack {
    reason: String,
    /// Whether it never can.
    pub(crate) never: bool,
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

/// How much there is of one thing.
struct Stock<'a> {
    name: &'a str,
    all: f64,
    free: f64,
}

impl Stock<'_> {
    fn check(&self, wanted: f64, others: &[(&str, &Grant)], of: impl Fn(&Grant) -> f64) -> Result<(), Lack> {
        let name: String = self.name.chars().take(60).flat_map(char::escape_debug).collect();
        let Self { all, free, .. } = self;
        if wanted > all + TINY {
            return Err(Lack {
                reason: format!("it has {all} {name}, and the job wants {wanted}"),
                never: true,
            });
        }
        if wanted <= free + TINY {
            return Ok(());
        }
        let users: Vec<String> = others
            .iter()
            .map(|(job, grant)| (job, of(grant)))
            .filter(|(_, used)| *used > 0.0)
            .map(|(job, used)| format!("job {} uses {used}", job.chars().take(ID).collect::<String>()))
            .collect();
        let more = if users.len() > NAMED { ", …" } else { "" };
        let users = users.into_iter().take(NAMED).collect::<Vec<_>>().join(", ");
        let reason =
            format!("it has {free} of {all} {name} free, and the job wants {wanted} ({users}{more})");
        Err(Lack { reason, never: false })
    }
}

/// So many GPUs with so much memory each.
fn gpus(node: &Node, visible: Option<&str>) -> Result<Vec<(String, f64)>, Diagnostics> {
    let number = match node.get(GPUS) {
        Some(node) => {
            let number = node.as_i64().and_then(|number| u64::try_from(number).ok());
            number
                .filter(|number| *number <= MOST)
                .ok_or_else(|| wrong(node, &format!("must be a whole number from 0 to {MOST}")))?
        }
        None => 0,
    };
    let memory = node.get(GPU_MEMORY).map(amount).transpose()?.unwrap_or(0.0);
    let visible: Vec<&str> =
        visible.unwrap_or_default().split(',').map(str::trim).filter(|gpu| !gpu.is_empty()).collect();
    let name = |index: u64| match visible.get(index as usize) {
        Some(gpu) => (*gpu).to_owned(),
        None => index.to_string(),
    };
    let seen: BTreeSet<&&str> = visible.iter().collect();
    if !seen.is_empty() && (seen.len() < visible.len() || (seen.len() as u64) < number) {
        let node = node.get(GPUS).unwrap_or(node);
        return Err(wrong(node, "is more than the GPUs that CUDA_VISIBLE_DEVICES lets the site see"));
    }
    Ok((0..number).map(|index| (name(index), memory)).collect())
}

fn units(node: &Node) -> Result<Vec<String>, Diagnostics> {
    let name = |item: &Node| match (item.as_str(), item.as_i64()) {
        (Some(text), _) => Ok(text.to_owned()),
        (None, Some(number)) => Ok(number.to_string()),
        (None, None) => Err(wrong(item, "must be a name or a whole number")),
    };
    let all: Vec<String> = node.items().iter().map(name).collect::<Result<_, _>>()?;
    if node.kind() != NodeKind::List || all.iter().collect::<BTreeSet<_>>().len() != all.len() {
        return Err(wrong(node, "must be a list of names, each once"));
    }
    Ok(all)
}

fn amount(node: &Node) -> Result<f64, Diagnostics> {
    let amount = node.as_f64().filter(|amount| amount.is_finite() && *amount >= 0.0);
    amount.ok_or_else(|| wrong(node, "must be a number from 0 on, or a list of names"))
}

fn wrong(node: &Node, why: &str) -> Diagnostics {
    Diagnostic::at(node, KEY, format!("what the site has to give {why}")).into()
}

#[cfg(test)]
mod tests {
    use locule_fobs::Value;

    use super::*;

    fn read(text: &str) -> Result<SiteResources, String> {
        let document = Document::parse_json("local/resources.json", text).unwrap();
        SiteResources::read(&document, None).map_err(|mistake| mistake.to_string())
    }

    fn site() -> SiteResources {
        read(r#"{ "resources": { "num_of_gpus": 2, "mem_per_gpu_in_GiB": 16, "cpus": 8, "licence": ["x", "y"] } }"#)
            .unwrap()
    }

    fn wanted(entries: &[(&str, f64)]) -> Map {
        Map::from_iter(entries.iter().map(|(name, number)| (*name, Value::from(*number))))
    }

    #[track_caller]
    fn lack(of: &SiteResources, wanted: Map, others: &[(&str, &Grant)], said: &str, never: bool) {
        assert_eq!(of.find(&wanted, others).unwrap_err(), Lack { reason: said.into(), never });
    }

    #[test]
    fn what_nvflares_kits_say_is_read() {
        let component = |class: &str, args: &str| {
            let path = format!("nvflare.app_common.resource_managers.{class}");
            read(&format!(
                r#"{{ "components": [{{ "id": "resource_manager", "path": "{path}", "args": {args} }}] }}"#
            ))
        };
        let gpu = "gpu_resource_manager.GPUResourceManager";
        let none =
            component(gpu, r#"{ "num_of_gpus": 0, "mem_per_gpu_in_GiB": 0, "expiration_period": 300 }"#);
        let period = Some(Duration::from_secs(300));
        assert_eq!(none, Ok(SiteResources { reservation: period, ..SiteResources::default() }));
        let two =
            component(gpu, r#"{ "num_of_gpus": 2, "mem_per_gpu_in_GiB": 24.5, "num_gpu_key": "cards" }"#)
                .unwrap();
        assert_eq!(two.gpus, [("0".into(), 24.5), ("1".into(), 24.5)]);
        assert_eq!(two.find(&wanted(&[("cards", 1.0)]), &[]).unwrap().gpus.len(), 1);
        let list =
            component("list_resource_manager.ListResourceManager", r#"{ "resources": { "gpu": [4, 5] } }"#);
        let grant = list.unwrap().find(&wanted(&[("gpu", 2.0)]), &[]).unwrap();
        assert_eq!(grant.environment()["CUDA_VISIBLE_DEVICES"], "4,5");
        let all = component("passthrough_resource_manager.PassthroughResourceManager", "{}").unwrap();
        assert_eq!(all.find(&wanted(&[("anything", 1e9)]), &[]), Ok(Grant::default()));
        assert_eq!(read("{}"), Ok(SiteResources::default()));
    }

    #[test]
    fn mistakes_have_their_place() {
        for (resources, why) in [
            ("3", "must be an object"),
            (r#"{ "num_of_gpus": -1 }"#, "from 0 to 4096"),
            (r#"{ "num_of_gpus": 1.5 }"#, "from 0 to 4096"),
            (r#"{ "cpus": "many" }"#, "must be a number"),
            (r#"{ "licence": ["a", "a"] }"#, "each once"),
        ] {
            let error = read(&format!("{{\n\"resources\": {resources} }}")).unwrap_err();
            assert!(error.contains(why) && error.contains("resources.json:2:"), "{error}");
        }
    }

    #[test]
    fn gpus_are_those_that_the_site_sees() {
        let text = r#"{ "resources": { "num_of_gpus": 2 } }"#;
        let document = Document::parse_json("local/resources.json", text).unwrap();
        let seen = |visible| {
            SiteResources::read(&document, visible)
                .map(|all| all.gpus.into_iter().map(|(gpu, _)| gpu).collect())
        };
        assert_eq!(seen(Some("15, GPU-ab,7")), Ok(vec!["15".to_owned(), "GPU-ab".to_owned()]));
        assert!(seen(Some("5")).unwrap_err().to_string().contains("CUDA_VISIBLE_DEVICES"));
    }

    #[test]
    fn a_gpu_without_a_word_about_memory_is_the_jobs_own() {
        let site = site();
        let one = site.find(&wanted(&[("num_of_gpus", 1.0)]), &[]).unwrap();
        assert_eq!(one.environment()["CUDA_VISIBLE_DEVICES"], "0");
        let two = site.find(&wanted(&[("num_of_gpus", 1.0)]), &[("a", &one)]).unwrap();
        assert_eq!(two.environment()["CUDA_VISIBLE_DEVICES"], "1");
        let said = "it has 1 of 2 GPUs free, and the job wants 2 (job a uses 1)";
        lack(&site, wanted(&[("num_of_gpus", 2.0)]), &[("a", &one)], said, false);
        lack(
            &site,
            wanted(&[("num_of_gpus", 3.0)]),
            &[("a", &one)],
            "it has 2 GPUs, and the job wants 3",
            true,
        );
    }

    #[test]
    fn gpus_are_shared_by_their_memory() {
        let site = site();
        let shared = wanted(&[("num_of_gpus", 2.0), ("mem_per_gpu_in_GiB", 10.0)]);
        let ten = site.find(&shared, &[]).unwrap();
        let six = wanted(&[("num_of_gpus", 1.0), ("mem_per_gpu_in_GiB", 6.0)]);
        let more = site.find(&six, &[("a", &ten)]).unwrap();
        assert_eq!(more.environment()["CUDA_VISIBLE_DEVICES"], "0");
        let others = [("a", &ten), ("b", &more)];
        assert_eq!(site.find(&six, &others).unwrap().environment()["CUDA_VISIBLE_DEVICES"], "1");
        let said = "it has 0 of 2 GPUs with 10 GiB free, and the job wants 2 (job a uses 2, job b uses 1)";
        lack(&site, shared, &others, said, false);
        let too_large = wanted(&[("num_of_gpus", 1.0), ("mem_per_gpu_in_GiB", 17.0)]);
        lack(&site, too_large, &[], "it has 0 GPUs with 17 GiB, and the job wants 1", true);
        let whole = site.find(&wanted(&[("num_of_gpus", 2.0)]), &[]).unwrap();
        assert!(!site.find(&six, &[("c", &whole)]).unwrap_err().never, "whole is whole");
    }

    #[test]
    fn amounts_and_units_are_counted() {
        let site = site();
        let much = site.find(&wanted(&[("cpus", 6.5), ("licence", 1.0)]), &[]).unwrap();
        let said = "it has 1.5 of 8 cpus free, and the job wants 2 (job a uses 6.5)";
        lack(&site, wanted(&[("cpus", 2.0)]), &[("a", &much)], said, false);
        let other = site.find(&wanted(&[("licence", 1.0)]), &[("a", &much)]).unwrap();
        assert_eq!(other.units["licence"], ["y"]);
        lack(&site, wanted(&[("tapes", 1.0)]), &[], "it has 0 tapes, and the job wants 1", true);
        assert_eq!(site.find(&wanted(&[("tapes", 0.0), ("cpus", -1.0)]), &[]), Ok(Grant::default()));
    }
}
