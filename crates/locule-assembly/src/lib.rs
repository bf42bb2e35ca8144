//! From a deployed app to what was built of it: read, plan, review, build.
//!
//! [`assemble`] reads an app's configuration, resolves it into a plan, puts the whole plan to the gates of
//! the kit that it was deployed to, and only then runs constructors. A refused plan is never built; whatever
//! goes wrong on the way is an [`AssemblyError`] with the reason and the code that the server is told. It
//! starts nothing and sends nothing: to run what was built, use `locule-executor` or `locule-server`.
//!
//! ```
//! use locule_assembly::{AssemblyError, Deployed, assemble};
//! use locule_component::{Registry, Side};
//! use locule_kit::Workspace;
//!
//! # let dir = tempfile::tempdir()?;
//! # let kit = dir.path().join("site-1");
//! # let app = kit.join("job-7/app_site-1");
//! # std::fs::create_dir_all(app.join("config"))?;
//! # for sub in ["startup", "local"] { std::fs::create_dir_all(kit.join(sub))?; }
//! # std::fs::write(kit.join("startup/fed_client.json"), r#"{"format_version": 2}"#)?;
//! # std::fs::write(kit.join("local/resources.json"), r#"{"class_allow_list": ["*"]}"#)?;
//! # std::fs::write(app.join("config/config_fed_client.json"), r#"{"format_version": 2, "executors":
//! #     [{"tasks": ["train"], "executor": {"path": "no.such.Trainer"}}]}"#)?;
//! let deployed = Deployed {
//!     side: Side::Site,
//!     participant: "site-1".into(),
//!     org: "hospital-a".into(),
//!     job_id: "job-7".into(),
//!     kit: Workspace::new(&kit),
//!     app_dir: app,
//!     meta: serde_json::json!({ "name": "training" }),
//! };
//! let error = assemble(&deployed, &Registry::new()).unwrap_err();
//! assert!(matches!(error, AssemblyError::Config(_))); // nothing is registered under that name
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! Start with [`assemble`], [`Deployed`], [`Program`] and [`AssemblyError`].

mod admission;
mod environment;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use locule_audit::{AppendError, AuditLog, Judged, Review};
use locule_component::{
    ApprovedPlan, Assembled, BadSetting, BuildCx, BuildError, Checker, CheckerOrigin, CheckerReport,
    ConstructionCount, Denial, Finding, JobFacts, Phase, Plan, PlanDigest, PrivacyScopes, Refused, Registry,
    ScopeNotAllowed, Side, SiteFacts, with_causes,
};
use locule_config::{Diagnostics, Document, Variables};
use locule_config_file::{ConfigFile, ReadConfigError};
use locule_kit::{KitError, Workspace, job_resources};
use locule_policy::{DEADLINE, Occasion, ask_all, gates_from_site_config};

use crate::approval::policy_digest;

mod app_files;
mod approval;
mod kept;
mod refusal;

pub use app_files::{MAX_APP_BYTES, MAX_APP_FILES, app_files};
pub use approval::Approval;
pub use kept::KeptPlan;
pub use locule_policy::{CheckerFiles, NoCheckerFiles};
pub use refusal::Refusal;

/// What the program brings along: the components that it knows, and what opens checkers that are files of the
/// site. Of a registry alone it is a program in which every checker is registered.
#[derive(Debug, Clone, Copy)]
pub struct Program<'a> {
    /// Components that jobs and sites may name.
    pub registry: &'a Registry,
    /// Opens the checkers in a kit's `local/custom`.
    pub checkers: &'a dyn CheckerFiles,
}

impl<'a> From<&'a Registry> for Program<'a> {
    fn from(registry: &'a Registry) -> Self {
        Program { registry, checkers: &NoCheckerFiles }
    }
}

use admission::scope_of;
pub use admission::{Admission, NotAdmitted};

/// An app as it lies in a workspace, and whose it is.
#[derive(Debug, Clone)]
pub struct Deployed {
    /// Which half of the app is meant.
    pub side: Side,
    /// `server`, or the name of the site.
    pub participant: String,
    /// Organisation of the participant.
    pub org: String,
    /// Id of the job.
    pub job_id: String,
    /// The kit that it was deployed to.
    pub kit: Workspace,
    /// The unpacked app, with `config` in it.
    pub app_dir: PathBuf,
    /// The job's meta, as the server sent it.
    pub meta: serde_json::Value,
}

impl Deployed {
    fn config_name(&self) -> &'static str {
        match self.side {
            Side::Server => "config_fed_server",
            Side::Site => "config_fed_client",
        }
    }

    fn kit_file(&self) -> &'static str {
        kit_file(self.side)
    }

    /// What is known of the job whose app lies in `at`.
    fn occasion(&self, at: &Path, phase: Phase) -> Result<Occasion, AssemblyError> {
        let text =
            |key: &str| self.meta.get(key).and_then(|value| value.as_str()).unwrap_or_default().to_owned();
        let job = JobFacts {
            job_id: self.job_id.clone(),
            name: text("name"),
            submitter_name: text("submitter_name"),
            submitter_org: text("submitter_org"),
            submitter_role: text("submitter_role"),
            byoc: at.join("custom").symlink_metadata().is_ok(),
            meta: self.meta.clone(),
            files: app_files(at)?,
        };
        let site = SiteFacts {
            name: self.participant.clone(),
            org: self.org.clone(),
            side: self.side,
            workspace: self.kit.root().to_owned(),
        };
        Ok(Occasion { job, site, phase })
    }

    fn build_cx<'a>(&'a self, count: &'a ConstructionCount) -> BuildCx<'a> {
        BuildCx::new(self.side, &self.participant, &self.job_id, self.kit.root(), &self.app_dir, count)
    }

    /// The kit's log of verdicts.
    fn log(&self) -> Result<AuditLog, AssemblyError> {
        audit_log(&self.kit)
    }

    /// The system variables of nvflare 2.9.0, `nvflare.private.json_configer`, as far as they exist here.
    fn variables(&self) -> Variables {
        let path = |path: &Path| path.display().to_string();
        Variables::new()
            .set("SITE_NAME", self.participant.as_str())
            .set("JOB_ID", self.job_id.as_str())
            .set("WORKSPACE", path(self.kit.root()))
            .set("SECURE_MODE", true)
            .set("JOB_CUSTOM_DIR", path(&self.app_dir.join("custom")))
            .set("JOB_CONFIG_DIR", path(&self.app_dir.join("config")))
    }
}

fn audit_log(kit: &Workspace) -> Result<AuditLog, AssemblyError> {
    let folder = kit.make_state_dir();
    let folder = folder.map_err(|source| AppendError::Write { file: kit.state_dir(), source })?;
    Ok(AuditLog::new(folder))
}

fn kit_file(side: Side) -> &'static str {
    match side {
        Side::Server => "fed_server.json",
        Side::Site => "fed_client.json",
    }
}

/// Reads, plans, reviews and builds an app.
///
/// An app that was [reviewed](review_app) when it arrived is compared with what was approved then, and reviewed again
/// if the site's policy, the variables or what is known of the job differ. An app whose files were changed since is
/// refused, with code [`Denial::PLAN_CHANGED`]. The participants of a job, which only its start brings, are not
/// compared.
///
/// The site's gates are read from the kit each time, so what an operator edits counts from the next job on.
/// Every verdict is in the kit's audit log before it counts.
/// Blocks while checkers judge and constructors run; in async code call it where blocking is allowed.
///
/// # Errors
/// [`AssemblyError`]. After [`AssemblyError::Refused`] not a single constructor has run.
pub fn assemble<'a>(
    deployed: &Deployed,
    program: impl Into<Program<'a>>,
) -> Result<Assembled, AssemblyError> {
    let constructed = ConstructionCount::new();
    assemble_counted(deployed, program, &constructed)
}

/// [`assemble`], counting every constructor of the app that runs.
///
/// # Errors
/// As [`assemble`].
pub fn assemble_counted<'a>(
    deployed: &Deployed,
    program: impl Into<Program<'a>>,
    constructed: &ConstructionCount,
) -> Result<Assembled, AssemblyError> {
    let program = program.into();
    let approved = judge_start(deployed, program, None)?;
    build(deployed, program, approved, constructed)
}

/// The first half of [`assemble`]: judges an app that is about to be started, and builds nothing of it. With what it
/// gives, [`assemble_approved`] builds in another process, which asks no checker and writes into no log.
///
/// # Errors
/// As [`assemble`].
pub fn approve_start<'a>(
    deployed: &Deployed,
    program: impl Into<Program<'a>>,
) -> Result<PlanDigest, AssemblyError> {
    let approved = judge_start(deployed, program.into(), None)?;
    Ok(approved.plan().digest().clone())
}

/// The second half of [`assemble`]: builds an app whose plan [`approve_start`] has just approved, by the digest `plan`.
/// One with another plan is refused, with code [`Denial::PLAN_CHANGED`].
///
/// # Errors
/// As [`assemble`].
pub fn assemble_approved<'a>(
    deployed: &Deployed,
    program: impl Into<Program<'a>>,
    plan: &str,
) -> Result<Assembled, AssemblyError> {
    let program = program.into();
    let approved = judge_start(deployed, program, Some(plan))?;
    build(deployed, program, approved, &ConstructionCount::new())
}

/// By comparison with what was approved at its deployment, by a review, or because its plan is the `approved` one.
fn judge_start(
    deployed: &Deployed,
    program: Program<'_>,
    approved: Option<&str>,
) -> Result<ApprovedPlan, AssemblyError> {
    let site = job_resources(&deployed.kit, deployed.kit_file())?;
    let policy = policy_digest(&deployed.kit, &site)?;
    let scopes = privacy_scopes(&deployed.kit, deployed.side, program.registry)?;
    scopes.as_ref().map(|scopes| scopes.effective(scope_of(&deployed.meta))).transpose()?;
    let plan = plan_with_warnings(deployed, &site, &deployed.app_dir, program.registry)?;
    let known = plan.digest().clone();
    if approved == Some(known.as_str()) {
        return plan.clone().approve_like(&known).map_err(|refused| {
            AssemblyError::Refused(Refusal::new(&plan, refused)) // it is like itself
        });
    }
    let occasion = deployed.occasion(&deployed.app_dir, Phase::Launch)?;
    let gatehouse = Gatehouse { deployed, program, site: &site, policy: &policy, log: Some(deployed.log()?) };
    if approved.is_some() {
        let changed = "the app's plan is not the one that was approved for this start".to_owned();
        return Err(gatehouse.refuse_changed(&plan, &occasion, changed));
    }
    match Approval::beside(&deployed.app_dir)? {
        Some(approval) => gatehouse.compare(plan, &occasion, &approval),
        None => gatehouse.review(plan, &occasion),
    }
}

fn build(
    deployed: &Deployed,
    program: Program<'_>,
    approved: ApprovedPlan,
    constructed: &ConstructionCount,
) -> Result<Assembled, AssemblyError> {
    let scopes = privacy_scopes(&deployed.kit, deployed.side, program.registry)?;
    let scope = scopes.as_ref().map(|scopes| scopes.effective(scope_of(&deployed.meta))).transpose()?;
    // What the participant puts before the job is made first: if it cannot be, nothing of the job is.
    let uncounted = ConstructionCount::new();
    let own = scopes.as_ref().zip(scope).map(|(scopes, scope)| {
        tracing::info!(
            job = deployed.job_id,
            site = deployed.participant,
            scope = scope.name,
            "privacy scope is in force"
        );
        scopes.build(scope, program.registry, &deployed.build_cx(&uncounted))
    });
    let own = own.transpose().map_err(AssemblyError::Privacy)?;
    let mut assembled = approved.build(program.registry, &deployed.build_cx(constructed))?;
    if let Some(own) = own {
        own.precede(&mut assembled);
    }
    let settings = std::mem::take(&mut assembled.settings);
    assembled.settings = settings.or_environment(deployed.side, |name| std::env::var(name).ok())?;
    Ok(assembled)
}

/// Reads, plans and reviews an app, and builds nothing of it.
///
/// `at` is where the app lies now, if it is not yet at its place. What is approved belongs
/// [beside the app](Approval::write), so that its start is compared and not reviewed again. Blocks as [`assemble`] does.
///
/// # Errors
/// As [`assemble`].
pub fn review_app<'a>(
    deployed: &Deployed,
    at: &Path,
    phase: Phase,
    program: impl Into<Program<'a>>,
) -> Result<Approval, AssemblyError> {
    let log = deployed.log()?;
    let (approved, occasion, policy) = review_at(deployed, at, phase, program.into(), Some(log))?;
    Ok(Approval::new(approved.plan().digest(), policy, &occasion.job))
}

/// What a rehearsal said of a plan that would pass.
#[derive(Debug)]
pub struct Rehearsal {
    /// The plan.
    pub plan: Plan,
    /// What checkers remark without refusing, under their ids.
    pub remarks: Vec<(String, Finding)>,
}

/// Reads, plans and reviews an app as if it were submitted, and leaves no trace in the kit.
///
/// # Errors
/// As [`assemble`].
pub fn rehearse<'a>(
    deployed: &Deployed,
    program: impl Into<Program<'a>>,
) -> Result<Rehearsal, AssemblyError> {
    let (approved, ..) = review_at(deployed, &deployed.app_dir, Phase::Submit, program.into(), None)?;
    Ok(Rehearsal { plan: approved.plan().clone(), remarks: approved.remarks().to_vec() })
}

/// Reads an app and asks every gate of the kit about it, as if it were submitted: what each of them says, and
/// nothing follows from it.
///
/// # Errors
/// As [`assemble`], but for a refusal.
pub fn explain<'a>(
    deployed: &Deployed,
    program: impl Into<Program<'a>>,
) -> Result<(Plan, Vec<(CheckerOrigin, CheckerReport)>), AssemblyError> {
    let program = program.into();
    let gates = gates(&deployed.kit, deployed.side, &deployed.participant, program)?;
    let site = job_resources(&deployed.kit, deployed.kit_file())?;
    let plan = plan_with_warnings(deployed, &site, &deployed.app_dir, program.registry)?;
    let occasion = deployed.occasion(&deployed.app_dir, Phase::Submit)?;
    let reports = ask_all(&plan, &occasion, &gates, DEADLINE);
    Ok((plan, gates.iter().map(|gate| gate.origin()).zip(reports).collect()))
}

/// The variables of this process that a kit lets its jobs see: what a process of a job has to be given.
///
/// # Errors
/// [`AssemblyError::Kit`] and [`AssemblyError::Policy`].
pub fn visible_environment(kit: &Workspace, side: Side) -> Result<Vec<(String, String)>, AssemblyError> {
    let site = job_resources(kit, kit_file(side))?;
    environment::visible(&site).map_err(AssemblyError::Policy)
}

/// Opens every gate of a kit, as it is done for each job: a participant whose gates cannot be used had better not
/// start.
///
/// # Errors
/// [`AssemblyError::Kit`] and [`AssemblyError::Policy`].
pub fn gates<'a>(
    kit: &Workspace,
    side: Side,
    participant: &str,
    program: impl Into<Program<'a>>,
) -> Result<Vec<Arc<dyn Checker>>, AssemblyError> {
    let Program { registry, checkers } = program.into();
    let site = job_resources(kit, kit_file(side))?;
    let uncounted = ConstructionCount::new(); // a site's own checkers are no part of the job
    let cx = BuildCx::new(side, participant, "", kit.root(), kit.root(), &uncounted);
    gates_from_site_config(&site, registry, checkers, &cx).map_err(AssemblyError::Policy)
}

fn review_at(
    deployed: &Deployed,
    at: &Path,
    phase: Phase,
    program: Program<'_>,
    log: Option<AuditLog>,
) -> Result<(ApprovedPlan, Occasion, String), AssemblyError> {
    let site = job_resources(&deployed.kit, deployed.kit_file())?;
    let policy = policy_digest(&deployed.kit, &site)?;
    privacy_scopes(&deployed.kit, deployed.side, program.registry)?; // a start would find it closed
    let plan = plan_with_warnings(deployed, &site, at, program.registry)?;
    let occasion = deployed.occasion(at, phase)?;
    let gatehouse = Gatehouse { deployed, program, site: &site, policy: &policy, log };
    let approved = gatehouse.review(plan, &occasion)?;
    Ok((approved, occasion, policy))
}

fn plan_with_warnings(
    deployed: &Deployed,
    site: &Document,
    at: &Path,
    registry: &Registry,
) -> Result<Plan, AssemblyError> {
    let plan = plan_at(deployed, site, at, registry)?;
    for warning in plan.warnings().iter() {
        tracing::warn!(job = deployed.job_id, site = deployed.participant, %warning, "configuration is doubtful");
    }
    Ok(plan)
}

/// Where plans are judged: with whose gates, and by which policy. Every verdict is in the log before it counts.
struct Gatehouse<'a> {
    deployed: &'a Deployed,
    program: Program<'a>,
    site: &'a Document,
    policy: &'a str,
    log: Option<AuditLog>,
}

impl Gatehouse<'_> {
    /// By the gates.
    fn review(&self, plan: Plan, occasion: &Occasion) -> Result<ApprovedPlan, AssemblyError> {
        let uncounted = ConstructionCount::new(); // a site's own checkers are no part of the job
        let (registry, checkers) = (self.program.registry, self.program.checkers);
        let gates =
            gates_from_site_config(self.site, registry, checkers, &self.deployed.build_cx(&uncounted))
                .map_err(AssemblyError::Policy)?;
        let reports = ask_all(&plan, occasion, &gates, DEADLINE);
        let origins: Vec<CheckerOrigin> = gates.iter().map(|gate| gate.origin()).collect();
        let about: Vec<_> =
            origins.iter().map(|origin| (origin.back_end, origin.digest.as_deref())).collect();
        self.record(Review::by_checkers(self.judged(&plan, occasion), &reports, &about))?;
        if self.log.is_some()
            && let Err(error) = kept::keep(&self.deployed.kit, &plan, occasion)
        {
            tracing::warn!(job = self.deployed.job_id, %error, "the plan is not kept for a replay");
        }
        plan.clone().approve(reports).map_err(|refused| self.refused(&plan, refused))
    }

    /// By comparison with what was approved; by another review if something else than its files differs.
    fn compare(
        &self,
        plan: Plan,
        occasion: &Occasion,
        approval: &Approval,
    ) -> Result<ApprovedPlan, AssemblyError> {
        if let Some(changed) = approval.changed_files(&occasion.job.files) {
            return Err(self.refuse_changed(&plan, occasion, changed));
        }
        if let Some(differs) = approval.difference(plan.digest(), self.policy, &occasion.job) {
            tracing::info!(job = self.deployed.job_id, differs, "reviewed again: something differs since");
            return self.review(plan, occasion);
        }
        self.record(Review::by_comparison(self.judged(&plan, occasion), &[]))?;
        plan.clone().approve_like(&approval.plan).map_err(|refused| self.refused(&plan, refused))
    }

    fn refuse_changed(&self, plan: &Plan, occasion: &Occasion, changed: String) -> AssemblyError {
        let denial = Denial::plan_changed(changed);
        let review = Review::by_comparison(self.judged(plan, occasion), std::slice::from_ref(&denial));
        if let Err(error) = self.record(review) {
            return error;
        }
        self.refused(plan, Refused { plan: plan.digest().clone(), findings: vec![denial] })
    }

    fn judged<'a>(&'a self, plan: &'a Plan, occasion: &'a Occasion) -> Judged<'a> {
        let Occasion { job, site, phase } = occasion;
        Judged { plan, job, site, phase: *phase, policy: self.policy }
    }

    fn record(&self, review: Review) -> Result<(), AssemblyError> {
        let Some(log) = &self.log else { return Ok(()) };
        log.append(&review.into(), SystemTime::now())?;
        Ok(())
    }

    fn refused(&self, plan: &Plan, refused: Refused) -> AssemblyError {
        let Deployed { job_id, participant, .. } = self.deployed;
        tracing::warn!(
            job = job_id,
            site = participant,
            reason = %refused,
            "job refused before anything was built"
        );
        AssemblyError::Refused(Refusal::new(plan, refused))
    }
}

/// The privacy scopes of a kit, every filter in them checked; nothing if its operator wrote no `privacy.json`.
///
/// # Errors
/// [`AssemblyError::Kit`] and [`AssemblyError::Policy`]. Nothing may run until that is mended.
pub fn privacy_scopes(
    kit: &Workspace,
    side: Side,
    registry: &Registry,
) -> Result<Option<PrivacyScopes>, AssemblyError> {
    let document = locule_kit::privacy(kit)?;
    let scopes = document.map(|document| PrivacyScopes::from_document(&document, side, registry));
    scopes.transpose().map_err(AssemblyError::Policy)
}

/// Reads an app's configuration into a plan, and neither judges nor builds anything.
///
/// The configuration is `config_fed_client` or `config_fed_server` in or below the app's folder `config`, in any
/// language of [`locule_config::Format`]. Of the environment it sees the variables that the site's configuration
/// lists under `environment_allow_list`, by name or pattern: `"{$DATA_ROOT}"`.
///
/// # Errors
/// [`AssemblyError::Kit`], [`AssemblyError::Policy`], [`AssemblyError::Read`] and [`AssemblyError::Config`].
pub fn plan(deployed: &Deployed, registry: &Registry) -> Result<Plan, AssemblyError> {
    let site = job_resources(&deployed.kit, deployed.kit_file())?;
    plan_at(deployed, &site, &deployed.app_dir, registry)
}

/// [`plan`] before it is known where the app will go: whoever's kit it is, nothing of it is read, and the app sees
/// nothing of the environment.
///
/// # Errors
/// [`AssemblyError::Read`] and [`AssemblyError::Config`].
pub fn plan_anywhere(deployed: &Deployed, registry: &Registry) -> Result<Plan, AssemblyError> {
    let nobody = Document::parse_json("no kit", "{}").map_err(AssemblyError::Policy)?;
    plan_at(deployed, &nobody, &deployed.app_dir, registry)
}

/// The plan of an app that lies in `at` and will lie where `deployed` says.
fn plan_at(
    deployed: &Deployed,
    site: &Document,
    at: &Path,
    registry: &Registry,
) -> Result<Plan, AssemblyError> {
    let document = read(&at.join("config"), deployed.config_name())?;
    let variables = environment::visible(site).map_err(AssemblyError::Policy)?;
    let variables = variables
        .into_iter()
        .fold(deployed.variables(), |known, (name, value)| known.environment(name, value));
    let document = document.substitute(&variables).map_err(AssemblyError::Config)?;
    Plan::from_document(&document, deployed.side, registry).map_err(AssemblyError::Config)
}

/// Why an app was not assembled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AssemblyError {
    /// The kit's own configuration cannot be read.
    #[error(transparent)]
    Kit(#[from] KitError),
    /// The kit names checkers or privacy filters that do not exist or do not fit. Nothing runs until that is mended.
    #[error("the site's checkers or privacy scopes cannot be used\n\n{0}")]
    Policy(Diagnostics),
    /// A file of the site's policy cannot be read.
    #[error("cannot read {}, which is part of the site's policy", file.display())]
    PolicyFile {
        /// The file or folder.
        file: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The verdict cannot be written into the kit's audit log, and does not count.
    #[error("the verdict cannot be recorded")]
    Audit(#[from] AppendError),
    /// The job names a privacy scope that the kit does not have, or none where it must.
    #[error(transparent)]
    Scope(#[from] ScopeNotAllowed),
    /// A filter or observer of the kit's privacy policy cannot be made.
    #[error("the site's privacy policy cannot be used: {}", with_causes(.0))]
    Privacy(BuildError),
    /// A file of the app cannot be read.
    #[error("cannot read {}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The app's configuration has mistakes.
    #[error("mistakes in the job's configuration\n\n{0}")]
    Config(Diagnostics),
    /// A plan that was kept is another one as this program reads it.
    #[error("this program reads the plan {plan} otherwise than the one that kept it")]
    OtherPlan {
        /// Digest of the plan.
        plan: String,
    },
    /// A checker of the site refuses it.
    #[error("refused: {}", .0.first_reason())]
    Refused(Refusal),
    /// A setting in the environment of the process makes no sense.
    #[error(transparent)]
    Setting(#[from] BadSetting),
    /// A constructor failed.
    #[error("{}", with_causes(.0))]
    Build(#[from] BuildError),
}

fn read(folder: &Path, name: &str) -> Result<Document, AssemblyError> {
    let unreadable = |source| AssemblyError::Read { file: folder.join(format!("{name}.json")), source };
    let found = ConfigFile::find_below(&[folder], name).map_err(unreadable)?;
    let found = found.ok_or_else(|| {
        let names: Vec<String> = ConfigFile::candidates(name).collect();
        unreadable(io::Error::new(io::ErrorKind::NotFound, format!("there is none of {}", names.join(", "))))
    })?;
    found.read().map_err(|error| match error {
        ReadConfigError::Mistakes(mistakes) => AssemblyError::Config(mistakes),
        ReadConfigError::Read { file, source } => AssemblyError::Read { file, source },
        error => unreadable(io::Error::other(error)),
    })
}
