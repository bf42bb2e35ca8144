//! When jobs begin: `scheduler` in a server's `resources.json`, and what a site has to give to them in its own.

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use anyhow::anyhow;
use locule_config::{Document, Node};
use locule_server::ServerSettings;
use locule_site::SiteResources;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::exit::{Code, Failure};
use crate::setting;

/// nvflare's component whose arguments count where the key is missing.
const STOCK: &str = "nvflare.app_common.job_schedulers.job_scheduler.DefaultJobScheduler";

/// When a server lets jobs begin. The names are those of nvflare's `DefaultJobScheduler`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct SchedulerSettings {
    /// Jobs that may run at once; 4 if it is not said.
    max_jobs: Option<NonZeroUsize>,
    /// How often a job's sites are asked before it is given up; 10 if it is not said.
    max_schedule_count: Option<NonZeroU32>,
    /// Seconds until sites that refused are asked again, which double each time; 10 if it is not said.
    min_schedule_interval: Option<f64>,
    /// The most seconds until they are asked again; 600 if it is not said.
    max_schedule_interval: Option<f64>,
}

impl SchedulerSettings {
    /// The key of them.
    pub(crate) const KEY: &str = "scheduler";

    /// Reads them from a server's merged configuration: its own key, or nvflare's component.
    pub(crate) fn read(resources: &Document) -> Result<Self, Failure> {
        let components = resources.root().get("components").map(Node::items).unwrap_or_default();
        let mut stock =
            components.iter().filter(|node| node.get("path").and_then(Node::as_str) == Some(STOCK));
        let node = resources.root().get(Self::KEY).or_else(|| stock.next()?.get("args"));
        let Some(node) = node else { return Ok(Self::default()) };
        let settings: Self = setting::read(node, Self::KEY)?;
        for seconds in [settings.min_schedule_interval, settings.max_schedule_interval].into_iter().flatten()
        {
            if seconds <= 0.0 || Duration::try_from_secs_f64(seconds).is_err() {
                return Err(setting::mistake(
                    node,
                    Self::KEY,
                    "an interval must be a number of seconds above 0",
                ));
            }
        }
        Ok(settings)
    }

    /// Puts them in the place of the defaults.
    pub(crate) fn apply(self, settings: &mut ServerSettings) {
        let Self { max_jobs, max_schedule_count, min_schedule_interval, max_schedule_interval } = self;
        let seconds = |said: Option<f64>| Duration::try_from_secs_f64(said?).ok();
        settings.max_jobs = max_jobs.map_or(settings.max_jobs, NonZeroUsize::get);
        settings.schedule_tries = max_schedule_count.map_or(settings.schedule_tries, NonZeroU32::get);
        settings.schedule_pause = seconds(min_schedule_interval).unwrap_or(settings.schedule_pause);
        let longest = seconds(max_schedule_interval).unwrap_or(settings.longest_schedule_pause);
        settings.longest_schedule_pause = longest;
    }
}

/// What a site has to give to jobs.
pub(crate) fn site_resources(resources: &Document) -> Result<SiteResources, Failure> {
    let visible = std::env::var("CUDA_VISIBLE_DEVICES").ok();
    let read = SiteResources::read(resources, visible.as_deref());
    let all = read.map_err(|mistake| {
        Failure::new(Code::Config, anyhow!("the site's resources cannot be used\n\n{mistake}"))
    })?;
    tracing::info!(gpus = all.gpus.len(), amounts = ?all.amounts, units = ?all.units, "resources for jobs");
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<ServerSettings, String> {
        let document = Document::parse_json("local/resources.json", text).unwrap();
        let mut settings = ServerSettings::new("ward-7");
        SchedulerSettings::read(&document).map_err(|failure| failure.text())?.apply(&mut settings);
        Ok(settings)
    }

    #[test]
    fn the_servers_own_key_counts_before_nvflares_component() {
        let component = format!(
            r#""components": [{{ "id": "job_scheduler", "path": "{STOCK}", "args": {{ "max_jobs": 2,
            "max_schedule_interval": 30.5 }} }}]"#
        );
        let stock = read(&format!("{{ {component} }}")).unwrap();
        assert_eq!((stock.max_jobs, stock.longest_schedule_pause), (2, Duration::from_millis(30_500)));
        let own = read(&format!(r#"{{ "scheduler": {{ "max_jobs": 7 }}, {component} }}"#)).unwrap();
        assert_eq!((own.max_jobs, own.longest_schedule_pause), (7, Duration::from_secs(600)));
        let (none, default) = (read("{}").unwrap(), ServerSettings::new("ward-7"));
        assert_eq!((none.max_jobs, none.schedule_tries), (default.max_jobs, default.schedule_tries));
    }

    #[test]
    fn what_is_not_known_is_a_mistake_with_its_place() {
        for (bad, why) in [
            (r#"{ "jobs": 1 }"#, "`jobs`"),
            (r#"{ "max_jobs": 0 }"#, "max_jobs"),
            (r#"{ "min_schedule_interval": -1 }"#, "above 0"),
        ] {
            let error = read(&format!("{{\n\"scheduler\": {bad} }}")).unwrap_err();
            assert!(error.contains(why) && error.contains("resources.json:2:"), "{error}");
        }
    }
}
