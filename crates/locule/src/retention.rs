//! How long jobs that are over are kept: `retention` in a kit's `resources.json`.

use std::num::{NonZeroU64, NonZeroUsize};
use std::time::Duration;

use locule_config::Document;
use locule_job::Retention;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::exit::Failure;
use crate::setting;

/// How long every job is kept, lest its result be gone before anybody could fetch it.
const AT_LEAST: Duration = Duration::from_secs(600);

/// What is kept of jobs that are over. Each bound counts by itself, from the job that ended last, which stays whatever
/// it takes up until it is too old; what is beyond one is removed, ten minutes after its end at the earliest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RetentionSettings {
    /// So many jobs. Without it, a site keeps 500, and a server all of them.
    jobs: Option<NonZeroUsize>,
    /// So many days after a job's end.
    days: Option<NonZeroU64>,
    /// So many GiB on disk, of all of them together.
    gib: Option<NonZeroU64>,
}

impl RetentionSettings {
    /// The key of them.
    pub(crate) const KEY: &str = "retention";

    /// Reads them from a kit's merged configuration; what it does not say is as in `default`.
    pub(crate) fn read(resources: &Document, default: Retention) -> Result<Retention, Failure> {
        let said = resources.root().get(Self::KEY).map(|node| setting::read(node, Self::KEY));
        let Self { jobs, days, gib } = said.transpose()?.unwrap_or_default();
        Ok(Retention {
            jobs: jobs.map_or(default.jobs, |jobs| Some(jobs.get())),
            age: days
                .map_or(default.age, |days| Some(Duration::from_secs(days.get().saturating_mul(86_400)))),
            bytes: gib.map_or(default.bytes, |gib| Some(gib.get().saturating_mul(1 << 30))),
            at_least: AT_LEAST,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Retention, String> {
        let document = Document::parse_json("local/resources.json", text).unwrap();
        let default = Retention { jobs: Some(500), ..Retention::default() };
        RetentionSettings::read(&document, default).map_err(|failure| failure.text())
    }

    #[test]
    fn what_the_kit_does_not_say_is_as_ever() {
        assert_eq!(read("{}").unwrap().jobs, Some(500));
        let said = read(r#"{ "retention": { "days": 30, "gib": 20 } }"#).unwrap();
        let days = Duration::from_secs(30 * 86_400);
        assert_eq!(
            said,
            Retention { jobs: Some(500), age: Some(days), bytes: Some(20 << 30), at_least: AT_LEAST }
        );
    }

    #[test]
    fn what_is_not_known_is_a_mistake_with_its_place() {
        for (bad, why) in [
            (r#"{ "weeks": 1 }"#, "`weeks`"),
            (r#"{ "jobs": 0 }"#, "nonzero"),
            ("3", "expected an object"),
            ("[]", "expected an object"),
        ] {
            let error = read(&format!("{{\n\"retention\": {bad} }}")).unwrap_err();
            assert!(error.contains(why) && error.contains("resources.json:2:"), "{error}");
        }
    }
}
