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

mod environment;

use std::io;
use std::path::{Path, PathBuf};

use locule_component::{
    Assembled, BadSetting, BuildCx, BuildError, ConstructionCount, Denial, JobFacts, Phase, Plan, Refused,
    Registry, Side, SiteFacts,
};
use locule_config::{Diagnostics, Document, Variables};
use locule_job::{ConfigFile, ReadConfigError};
use locule_kit::{KitError, Workspace, job_resources};
use locule_policy::{DEADLINE, Occasion, gates_from_site_config, review};

mod app_files;

pub use app_files::{MAX_APP_BYTES, MAX_APP_FILES, app_files};
pub use locule_policy::{CheckerFiles, NoCheckerFiles};

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
        match self.side {
            Side::Server => "fed_server.json",
            Side::Site => "fed_client.json",
        }
    }

    fn occasion(&self) -> Result<Occasion, AssemblyError> {
        let text =
            |key: &str| self.meta.get(key).and_then(|value| value.as_str()).unwrap_or_default().to_owned();
        let job = JobFacts {
            job_id: self.job_id.clone(),
            name: text("name"),
            submitter_name: text("submitter_name"),
            submitter_org: text("submitter_org"),
            submitter_role: text("submitter_role"),
            byoc: self.app_dir.join("custom").symlink_metadata().is_ok(),
            meta: self.meta.clone(),
            files: app_files(&self.app_dir)?,
        };
        let site = SiteFacts {
            name: self.participant.clone(),
            org: self.org.clone(),
            side: self.side,
            workspace: self.kit.root().to_owned(),
        };
        Ok(Occasion { job, site, phase: Phase::Launch })
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

/// Reads, plans, reviews and builds an app.
///
/// The site's gates are read from the kit each time, so what an operator edits counts from the next job on.
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
    let Program { registry, checkers } = program.into();
    let context = |count| {
        let (participant, job) = (&deployed.participant, &deployed.job_id);
        BuildCx::new(deployed.side, participant, job, deployed.kit.root(), &deployed.app_dir, count)
    };
    let site = job_resources(&deployed.kit, deployed.kit_file())?;
    let plan = plan_at(deployed, &site, registry);
    let uncounted = ConstructionCount::new(); // a site's own checkers are no part of the job
    let gates = gates_from_site_config(&site, registry, checkers, &context(&uncounted))
        .map_err(AssemblyError::Policy)?;
    let plan = plan?;
    for warning in plan.warnings().iter() {
        tracing::warn!(job = deployed.job_id, site = deployed.participant, %warning, "configuration is doubtful");
    }
    let approved = review(plan.clone(), &deployed.occasion()?, &gates, DEADLINE).map_err(|refused| {
        tracing::warn!(
            job = deployed.job_id,
            site = deployed.participant,
            constructed = constructed.get(),
            reason = %refused,
            "job refused before anything was built"
        );
        AssemblyError::Refused(Refusal::new(&plan, refused))
    })?;
    let mut assembled = approved.build(registry, &context(constructed))?;
    let settings = std::mem::take(&mut assembled.settings);
    assembled.settings = settings.or_environment(deployed.side, |name| std::env::var(name).ok())?;
    Ok(assembled)
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
    plan_at(deployed, &job_resources(&deployed.kit, deployed.kit_file())?, registry)
}

fn plan_at(deployed: &Deployed, site: &Document, registry: &Registry) -> Result<Plan, AssemblyError> {
    let document = read(&deployed.app_dir.join("config"), deployed.config_name())?;
    let variables = environment::visible(site).map_err(AssemblyError::Policy)?;
    let variables = variables
        .into_iter()
        .fold(deployed.variables(), |known, (name, value)| known.environment(name, value));
    let document = document.substitute(&variables).map_err(AssemblyError::Config)?;
    Plan::from_document(&document, deployed.side, registry).map_err(AssemblyError::Config)
}

/// A refused plan: each denial with the full name of the component that it is about.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// Every denial, with the component's dotted name, or nothing if it is about the plan as a whole.
    pub denials: Vec<(Option<String>, Denial)>,
}

impl Refusal {
    fn new(plan: &Plan, refused: Refused) -> Self {
        let name = |denial: &Denial| {
            let found = plan.components().iter().find(|spec| spec.label() == denial.component);
            found.map(|spec| spec.requested.clone())
        };
        let denials = refused.findings.into_iter();
        Self { denials: denials.map(|denial| (name(&denial), denial)).collect() }
    }
}

/// Why an app was not assembled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AssemblyError {
    /// The kit's own configuration cannot be read.
    #[error(transparent)]
    Kit(#[from] KitError),
    /// The kit names checkers that do not exist or do not fit. Nothing runs until that is mended.
    #[error("the site's checkers cannot be used\n\n{0}")]
    Policy(Diagnostics),
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
    /// A checker of the site refuses it.
    #[error("refused: {}", first_reason(.0))]
    Refused(Refusal),
    /// A setting in the environment of the process makes no sense.
    #[error(transparent)]
    Setting(#[from] BadSetting),
    /// A constructor failed.
    #[error("{}", with_causes(.0))]
    Build(#[from] BuildError),
}

fn first_reason(refusal: &Refusal) -> &str {
    refusal.denials.first().map_or("no reason given", |(_, denial)| denial.public_reason())
}

fn with_causes(error: &BuildError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
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
