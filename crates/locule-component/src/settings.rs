//! What a job's configuration sets besides its components.

use std::collections::BTreeMap;
use std::time::Duration;

use locule_config::{Diagnostic, Document, Node, NodeKind};

use crate::Side;
use crate::read::{Reader, code};

/// Waits that one half of a job sets, each in the outermost object of its configuration or in the environment.
///
/// Names and defaults are those of nvflare 2.9.0, `nvflare.apis.fl_constant.ConfigVarName`. All of them are checked;
/// who runs the job decides which of them mean something to it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Settings {
    waits: BTreeMap<&'static str, Duration>,
}

impl Settings {
    /// Every name that is known, of one side.
    pub fn names(side: Side) -> &'static [&'static str] {
        match side {
            Side::Site => &[
                "default_task_fetch_interval",
                "runner_sync_timeout",
                "max_runner_sync_timeout",
                "task_check_timeout",
                "task_check_interval",
                "job_heartbeat_interval",
                "get_task_timeout",
                "submit_task_result_timeout",
                "end_run_readiness_timeout",
                "end_run_readiness_check_interval",
                "rm_query_interval",
                "cell_wait_timeout",
                "notify_cp_msg_timeout",
                "notify_cp_retry_timeout",
                "streaming_per_request_timeout",
                "min_download_timeout",
            ],
            Side::Server => &[
                "end_run_readiness_timeout",
                "end_run_readiness_check_interval",
                "rm_query_interval",
                "cell_wait_timeout",
                "dead_client_grace_period",
                "dead_client_check_lead_time",
                "client_outcome_wait_timeout",
                "streaming_per_request_timeout",
                "min_download_timeout",
            ],
        }
    }

    /// Names that are no waits, and are passed over.
    const OTHERS: [&str; 9] = [
        "rm_max_request_workers",
        "strict_start_job_reply_check",
        "sync_client_jobs_require_previous_report",
        "nvflare_decomposers",
        "download_chunk_size",
        "np_min_download_timeout",
        "np_download_chunk_size",
        "min_file_size_for_streaming",
        "handlers",
    ];

    /// A wait, if it is set.
    pub fn wait(&self, name: &str) -> Option<Duration> {
        self.waits.get(name).copied()
    }

    /// The same, with what `environment` has under `NVFLARE_<NAME>` for names that the configuration does not set.
    ///
    /// # Errors
    /// The first name whose value is no positive number of seconds.
    ///
    /// # Source
    /// nvflare 2.9.0, `nvflare.fuel.utils.config_service`.
    pub fn or_environment(
        mut self,
        side: Side,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Settings, BadSetting> {
        for name in Self::names(side).iter().filter(|name| **name != "default_task_fetch_interval") {
            let variable = format!("NVFLARE_{}", name.to_uppercase());
            if self.waits.contains_key(name) {
                continue;
            }
            if let Some(value) = environment(&variable) {
                let wait = value.trim().parse().ok().and_then(positive);
                self.waits.insert(name, wait.ok_or(BadSetting { variable })?);
            }
        }
        Ok(self)
    }
}

/// A variable of the environment that must be a positive number of seconds and is not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the environment variable {variable} must be a positive number of seconds")]
pub struct BadSetting {
    /// Its name.
    pub variable: String,
}

impl Reader<'_> {
    /// Reads an outermost entry that is no section: a setting, or a variable of the document.
    pub(crate) fn setting(&mut self, document: &Document, key: &str, node: &Node, side: Side) {
        if let Some(name) = Settings::names(side).iter().find(|name| **name == key) {
            if node.kind() == NodeKind::Null {
                return;
            }
            if let Some(wait) = self.seconds(node) {
                self.settings.waits.insert(name, wait);
            }
            return;
        }
        let known = crate::read::SECTIONS.iter().chain(Settings::names(side)).copied();
        let other = match side {
            Side::Site => Side::Server,
            Side::Server => Side::Site,
        };
        let means_something = document.is_referred_to(key)
            || Settings::OTHERS.contains(&key)
            || Settings::names(other).contains(&key);
        if means_something {
            return;
        }
        let message = format!("nothing refers to `{key}`, and it is no section of a configuration");
        let mut found = Diagnostic::at_key(node, code::UNKNOWN_KEY, message).warning();
        if let Some(near) = locule_config::suggest(key, known) {
            found = found.label(format!("did you mean `{near}`?"));
        }
        self.warn(found);
    }
}

/// A positive number of seconds.
pub(crate) fn positive(seconds: f64) -> Option<Duration> {
    Some(seconds)
        .filter(|seconds| *seconds > 0.0)
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_counts_where_the_configuration_is_silent() {
        let mut settings = Settings::default();
        settings.waits.insert("task_check_interval", Duration::from_secs(1));
        let environment = |name: &str| match name {
            "NVFLARE_TASK_CHECK_INTERVAL" => Some("9".to_owned()),
            "NVFLARE_JOB_HEARTBEAT_INTERVAL" => Some(" 2.5 ".to_owned()),
            _ => None,
        };
        let settings = settings.or_environment(Side::Site, environment).expect("they are numbers");
        assert_eq!(settings.wait("task_check_interval"), Some(Duration::from_secs(1)));
        assert_eq!(settings.wait("job_heartbeat_interval"), Some(Duration::from_millis(2500)));
        for bad in ["", "0", "-1", "soon", "inf", "1e300"] {
            let error = Settings::default().or_environment(Side::Site, |_| Some(bad.to_owned()));
            assert!(error.is_err_and(|error| error.variable == "NVFLARE_RUNNER_SYNC_TIMEOUT"), "{bad}");
        }
    }
}
