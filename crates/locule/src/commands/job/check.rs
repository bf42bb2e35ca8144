//! `locule job check --kit`: what the checkers of kits on this machine would say of a job, before anybody submits it.

use std::path::Path;
use std::time::SystemTime;

use anyhow::{Context as _, anyhow};
use locule_assembly::{Admission, AssemblyError, Deployed, Program, Rehearsal, rehearse};
use locule_component::{Side, one_line};
use locule_identity::{Identity, Usage};
use locule_identity_openssl::OpensslVerifier;
use locule_job::JobFolder;
use locule_kit::{AdminKit, KitFiles, ServerKit, SiteKit, Workspace};
use serde::Serialize;
use serde_json::{Value, json};

use super::super::{say, table::table};
use crate::arguments::{CheckJob, Output};
use crate::exit::{Code, Failure, OrExit as _};
use crate::mistakes::{Sites, check_half};
use crate::wire;

/// Asks the checkers of kits on this machine.
pub(super) fn check(CheckJob { job: folder, kits, submitter, output, .. }: &CheckJob) -> Result<(), Failure> {
    let job = JobFolder::read(folder).map_err(|error| Failure::from(error).about(folder))?;
    let submitter = submitter.as_deref().map(identity_of_admin).transpose()?;
    let hosts = kits.iter().map(|kit| Host::open(kit)).collect::<Result<Vec<_>, _>>()?;
    let meta = meta(&job, submitter.as_ref());
    let (registry, checkers) = (wire::registry(), wire::checkers()?);
    let program = Program { registry: &registry, checkers: &*checkers };
    let mut found: Vec<Found> = hosts.iter().flat_map(|host| host.judge(&job, &meta, program)).collect();
    let half = |side, there: bool| there && !hosts.iter().any(|host| host.side == side);
    for (app, to) in &job.meta.deploy_map {
        for (side, there) in [(Side::Server, to.has_server()), (Side::Site, to.has_sites())] {
            if half(side, there) {
                let checked = check_half(&job, app, side, Sites::Elsewhere);
                found.extend(checked.err().map(|error| Found::mistake(side, &error)));
            }
        }
    }
    match output {
        Output::Json => say(&json!({ "job": job.meta.name, "found": found }).to_string()),
        Output::Text => show(&found),
    }
    verdict(&found)
}

/// The gravest of what was found is how the command ends.
fn verdict(found: &[Found]) -> Result<(), Failure> {
    let count = |verdict: Verdict| found.iter().filter(|one| one.verdict == verdict).count();
    let fail = |code, text: String| Err(Failure::new(code, anyhow!(text)));
    match (count(Verdict::Mistake), count(Verdict::CannotJudge), count(Verdict::Refused)) {
        (0, 0, 0) => Ok(()),
        (0, 0, refused) => {
            fail(Code::JobFailed, format!("the job would be refused, for {refused} reason(s)"))
        }
        (0, _, _) => fail(Code::Config, "a kit cannot judge jobs".to_owned()),
        (mistakes, _, _) => fail(Code::Data, format!("the job has mistakes in {mistakes} place(s)")),
    }
}

fn show(found: &[Found]) {
    if found.is_empty() {
        return say("no mistakes; no kit was asked");
    }
    let rows: Vec<[String; 6]> = found
        .iter()
        .map(|one| {
            let reason = match one.verdict {
                Verdict::Mistake | Verdict::CannotJudge => "see below".to_owned(),
                Verdict::Allowed | Verdict::Warned | Verdict::Refused | Verdict::NoApp if one.public => {
                    one.reason.clone()
                }
                Verdict::Allowed | Verdict::Warned | Verdict::Refused | Verdict::NoApp => {
                    format!("{} (the submitter does not see this)", one.reason)
                }
            };
            [&one.site, one.verdict.as_str(), &one.component, &one.path, &one.code, &one_line(&reason)]
                .map(|cell: &str| cell.to_owned())
        })
        .collect();
    say(&table(["site", "verdict", "component", "path", "code", "reason"], &rows));
    for one in found.iter().filter(|one| matches!(one.verdict, Verdict::Mistake | Verdict::CannotJudge)) {
        say(&format!("\n{}: {}", one.site, one.reason.trim_end()));
    }
}

/// One thing that a participant says of the job.
#[derive(Debug, Serialize)]
struct Found {
    site: String,
    verdict: Verdict,
    component: String,
    file: String,
    path: String,
    code: String,
    reason: String,
    public: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Verdict {
    Allowed,
    Warned,
    Refused,
    /// No app of the job goes there.
    NoApp,
    Mistake,
    CannotJudge,
}

impl Verdict {
    fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Warned => "warned",
            Self::Refused => "refused",
            Self::NoApp => "no app",
            Self::Mistake => "mistake",
            Self::CannotJudge => "cannot judge",
        }
    }
}

impl Found {
    fn new(site: &str, verdict: Verdict) -> Self {
        let empty = String::new;
        let (component, file, path, code, reason) = (empty(), empty(), empty(), empty(), empty());
        Self { site: site.to_owned(), verdict, component, file, path, code, reason, public: true }
    }

    /// In a half for which no kit was given.
    fn mistake(side: Side, error: &AssemblyError) -> Self {
        let who = if side == Side::Server { "server" } else { "(sites)" };
        Self { reason: chain(error), ..Self::new(who, Verdict::Mistake) }
    }
}

/// A participant whose kit is here.
struct Host {
    side: Side,
    name: String,
    org: String,
    kit: Workspace,
    /// Whether it takes signed jobs only.
    strict: bool,
}

impl Host {
    fn open(folder: &Path) -> Result<Self, Failure> {
        let is_server = folder.join("startup/fed_server.json").exists();
        let (side, kit, files, strict) = if is_server {
            let kit = ServerKit::open(folder)?;
            (Side::Server, kit.workspace, kit.files, kit.require_signed_jobs)
        } else {
            let kit = SiteKit::open(folder)?;
            (Side::Site, kit.workspace, kit.files, kit.require_signed_jobs)
        };
        let usage = if is_server { Usage::Server } else { Usage::Client };
        let Identity { common_name, organization, .. } = identity(&files, usage)?;
        let name = if is_server { "server".to_owned() } else { common_name };
        Ok(Self { side, name, org: organization.unwrap_or_default(), kit, strict })
    }

    /// What its gates say; at least one row.
    fn judge(&self, job: &JobFolder, meta: &Value, program: Program<'_>) -> Vec<Found> {
        let Some(app) = job.meta.app_of(&self.name) else {
            return vec![Found::new(&self.name, Verdict::NoApp)];
        };
        let deployed = Deployed {
            side: self.side,
            participant: self.name.clone(),
            org: self.org.clone(),
            job_id: "job-check".to_owned(),
            kit: self.kit.clone(),
            app_dir: job.app_dir(app),
            meta: meta.clone(),
        };
        if let Some(refused) = self.admit(&deployed) {
            return vec![refused];
        }
        match rehearse(&deployed, program) {
            Ok(Rehearsal { remarks, plan }) => {
                let warned = remarks.into_iter().map(|(_, finding)| {
                    let spec = plan.component(&finding.path);
                    Found {
                        component: spec.map(|spec| spec.requested.clone()).unwrap_or_default(),
                        file: spec.map(|spec| spec.file.clone()).unwrap_or_default(),
                        path: finding.path.to_string(),
                        code: finding.code,
                        reason: finding.message,
                        public: finding.public,
                        ..Found::new(&self.name, Verdict::Warned)
                    }
                });
                let warned: Vec<Found> = warned.collect();
                if warned.is_empty() { vec![Found::new(&self.name, Verdict::Allowed)] } else { warned }
            }
            Err(AssemblyError::Refused(refusal)) => {
                let told = refusal.for_submitter(&self.name).into_iter().zip(&refusal.denials);
                told.map(|(told, (_, denial))| Found {
                    component: told.component,
                    file: told.file,
                    path: told.path,
                    code: told.code,
                    reason: denial.message.clone(),
                    public: denial.public,
                    ..Found::new(&self.name, Verdict::Refused)
                })
                .collect()
            }
            Err(error @ (AssemblyError::Config(_) | AssemblyError::Read { .. })) => {
                vec![Found { reason: chain(&error), ..Found::new(&self.name, Verdict::Mistake) }]
            }
            Err(error) => {
                vec![Found { reason: chain(&error), ..Found::new(&self.name, Verdict::CannotJudge) }]
            }
        }
    }
}

impl Host {
    /// Why its privacy scopes or, of a submitter who is known, its rights do not let the job in.
    fn admit(&self, deployed: &Deployed) -> Option<Found> {
        let Deployed { kit, participant, org, app_dir, meta, .. } = deployed;
        let admission = Admission { kit, participant, org, strict: self.strict };
        let submitter_is_known = meta.get("submitter_name").is_some();
        let admitted = if submitter_is_known {
            admission.admit(app_dir, meta, &[], true)
        } else {
            admission.scope(meta)
        };
        let error = admitted.err()?;
        Some(match error.own_mistake() {
            Some(mistake) => Found { reason: mistake, ..Found::new(&self.name, Verdict::CannotJudge) },
            None => Found { reason: error.to_string(), ..Found::new(&self.name, Verdict::Refused) },
        })
    }
}

/// The job's meta as a server would send it.
fn meta(job: &JobFolder, submitter: Option<&Identity>) -> Value {
    let mut meta = job.meta.to_json(job.byoc);
    meta["job_id"] = json!("job-check");
    if let Some(Identity { common_name, organization, role, .. }) = submitter {
        meta["submitter_name"] = json!(common_name);
        meta["submitter_org"] = json!(organization.as_deref().unwrap_or_default());
        meta["submitter_role"] = json!(role.as_deref().unwrap_or_default());
    }
    meta
}

fn identity_of_admin(folder: &Path) -> Result<Identity, Failure> {
    identity(&AdminKit::open(folder)?.files, Usage::Client)
}

fn identity(files: &KitFiles, usage: Usage) -> Result<Identity, Failure> {
    let verifier = OpensslVerifier::new(&files.read_ca()?);
    let verifier = verifier.with_context(|| format!("the root {} is not usable", files.ca.display()));
    Ok(files.identify(&verifier.or_exit(Code::Config)?, usage, SystemTime::now())?)
}

fn chain(error: &AssemblyError) -> String {
    Failure::new(Code::Data, anyhow!(error.to_string())).text()
}
