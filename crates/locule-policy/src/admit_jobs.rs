//! Who may run jobs here, and when.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use locule_component::{
    Answer, BuildCx, BuildError, Built, Component, Gate, GateCx, GateError, JobFacts, Kind, Question,
    glob_matches,
};
use serde::Deserialize;

/// Admits jobs by their submitter's organization and role, by the job's name, and by the time of day.
///
/// At the server it judges submissions and, by the hours, when sites may be asked; at a site it judges when the
/// server asks for resources: a job that comes outside of the hours waits at the server, and its history says why.
///
/// ```
/// use locule_component::{Answer, BuildCx, Built, Component, ConstructionCount, GateCx, JobFacts, Question, Side};
/// use locule_policy::AdmitJobs;
/// # use std::{path::Path, time::{Duration, UNIX_EPOCH}};
///
/// let args = serde_json::from_str(r#"{ "orgs": ["hospital-*"], "hours_utc": { "from": 20, "to": 6 } }"#)?;
/// # let (kit, count) = (Path::new("kit"), ConstructionCount::new());
/// # let cx = BuildCx::new(Side::Site, "site-1", "", kit, kit, &count);
/// let Ok(Built::Gate(gate)) = AdmitJobs::build(args, &cx) else { panic!("the arguments are good") };
///
/// let job = JobFacts { submitter_org: "hospital-a".into(), ..JobFacts::default() };
/// let question = Question::CheckResources { job: Box::new(job) };
/// let at = |hour: u64| GateCx::new("site-1", Side::Site, UNIX_EPOCH + Duration::from_secs(3600 * hour));
/// assert_eq!(gate.judge(&question, &at(23)), Ok(Answer::Yes));
/// assert_eq!(gate.judge(&question, &at(12)), Ok(Answer::no("site-1 runs jobs from 20 to 6 o'clock UTC")));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdmitJobs {
    args: AdmitJobsArgs,
}

/// Arguments of [`AdmitJobs`]; at least one must be there. All patterns are shell-style: `hospital-*`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AdmitJobsArgs {
    /// Organizations whose members may run jobs.
    pub orgs: Option<Vec<String>>,
    /// Roles that may.
    pub roles: Option<Vec<String>>,
    /// Names of jobs that may run.
    pub jobs: Option<Vec<String>>,
    /// When jobs may start.
    pub hours_utc: Option<Hours>,
}

/// Hours of the day, UTC. From 20 to 6 is overnight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Hours {
    /// The first, 0 to 23.
    pub from: u8,
    /// The one that it is over with, 0 to 24.
    pub to: u8,
}

impl Hours {
    fn contain(self, time: SystemTime) -> bool {
        let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let hour = u8::try_from(seconds / 3600 % 24).unwrap_or_default();
        if self.from < self.to {
            (self.from..self.to).contains(&hour)
        } else {
            hour >= self.from || hour < self.to
        }
    }
}

impl Component for AdmitJobs {
    const KIND: Kind = Kind::Gate;
    const NAME: &'static str = "locule.policy.AdmitJobs";
    type Args = AdmitJobsArgs;

    fn schema() -> Option<locule_component::Schema> {
        Some(locule_component::args_schema::<Self::Args>())
    }

    fn build(args: AdmitJobsArgs, _: &BuildCx<'_>) -> Result<Built, BuildError> {
        let wrong = |argument: &str, reason: &str| {
            Err(BuildError::Argument { argument: argument.to_owned(), reason: reason.to_owned() })
        };
        let lists = [("orgs", &args.orgs), ("roles", &args.roles), ("jobs", &args.jobs)];
        if lists.iter().all(|(_, list)| list.is_none()) && args.hours_utc.is_none() {
            return wrong("orgs", "a gate without any condition would refuse nothing");
        }
        for (name, list) in lists {
            if list.as_ref().is_some_and(|list| list.iter().any(String::is_empty)) {
                return wrong(name, "an empty pattern matches nothing");
            }
        }
        if let Some(hours) = args.hours_utc
            && (hours.from > 23 || hours.to > 24 || hours.from == hours.to)
        {
            return wrong("hours_utc", "expected two different hours of the day");
        }
        Ok(Built::Gate(Arc::new(AdmitJobs { args })))
    }
}

impl Gate for AdmitJobs {
    fn judge(&self, question: &Question, cx: &GateCx) -> Result<Answer, GateError> {
        let answer = match question {
            Question::SubmitJob { job } => self.whose(job, &cx.own_name),
            Question::CheckClientResources { .. } => self.when(cx),
            Question::CheckResources { job } => self.whose(job, &cx.own_name).or_else(|| self.when(cx)),
            Question::SystemBootstrap
            | Question::ClientRegister { .. }
            | Question::AuthorizeCommand { .. }
            | _ => None,
        };
        Ok(answer.map_or(Answer::Yes, Answer::no))
    }
}

impl AdmitJobs {
    /// Why the job may not run, whenever that be.
    fn whose(&self, job: &JobFacts, own_name: &str) -> Option<String> {
        let AdmitJobsArgs { orgs, roles, jobs, .. } = &self.args;
        let is_out = |list: &Option<Vec<String>>, word: &str| {
            list.as_ref().is_some_and(|list| !list.iter().any(|pattern| glob_matches(pattern, word)))
        };
        if is_out(orgs, &job.submitter_org) {
            return Some(format!("{own_name} runs no jobs of the organization {:?}", job.submitter_org));
        }
        if is_out(roles, &job.submitter_role) {
            return Some(format!(
                "{own_name} runs no jobs of submitters in the role {:?}",
                job.submitter_role
            ));
        }
        is_out(jobs, &job.name).then(|| format!("{own_name} runs no jobs of the name {:?}", job.name))
    }

    fn when(&self, cx: &GateCx) -> Option<String> {
        let hours = self.args.hours_utc.filter(|hours| !hours.contain(cx.now))?;
        Some(format!("{} runs jobs from {} to {} o'clock UTC", cx.own_name, hours.from, hours.to))
    }
}
