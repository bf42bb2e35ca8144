//! What every component states about itself, and what it is given when it is built.

use std::any::Any;
use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{Checker, ConfigPath, Executor, Gate, Observer, TaskFilter, Workflow};

/// A kind of thing that a configuration may name: its names, its typed arguments, and how it is made.
///
/// Derive `Deserialize` with `deny_unknown_fields` for [`Component::Args`]: a misspelt argument is then reported
/// at its place in the file, with a suggestion. Keep `flatten` and `untagged` out of it, both lose the place.
pub trait Component: Sized {
    /// Where in a configuration it may stand.
    const KIND: Kind;
    /// Its dotted name, for example `locule.demo.LogisticRegression`.
    const NAME: &'static str;
    /// Other names that mean the same, for example nvflare's class path.
    const ALIASES: &'static [&'static str] = &[];
    /// The arguments, as the configuration writes them.
    type Args: DeserializeOwned;

    /// JSON Schema of the arguments, for editors and people: `Some(args_schema::<Self::Args>())` where they derive
    /// [`JsonSchema`].
    fn schema() -> Option<schemars::Schema> {
        None
    }

    /// Makes the component. Runs only for a plan that every checker has let pass.
    ///
    /// # Errors
    /// A [`BuildError`] ends the start of the job; what was built before is dropped.
    fn build(args: Self::Args, cx: &BuildCx<'_>) -> Result<Built, BuildError>;
}

/// JSON Schema of a type of arguments.
pub fn args_schema<T: JsonSchema>() -> schemars::Schema {
    schemars::schema_for!(T)
}

/// What a component is good for; it decides where in a configuration it may stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Works on tasks at a site.
    Executor,
    /// Conducts a job at the server.
    Workflow,
    /// Changes payloads on their way.
    Filter,
    /// Judges plans; named by a site, never by a job.
    Checker,
    /// Hears of events.
    Observer,
    /// Says yes or no at a moment of a site's or server's life; named by its kit, never by a job.
    Gate,
    /// Serves other components of its half of the job, which find it by id or type: keeps a model, say.
    Service,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 7] = [
        Kind::Executor,
        Kind::Workflow,
        Kind::Filter,
        Kind::Checker,
        Kind::Observer,
        Kind::Gate,
        Kind::Service,
    ];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Executor => "executor",
            Kind::Workflow => "workflow",
            Kind::Filter => "filter",
            Kind::Checker => "checker",
            Kind::Observer => "observer",
            Kind::Gate => "gate",
            Kind::Service => "service",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which half of a job a configuration describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// `config_fed_server`.
    Server,
    /// `config_fed_client`.
    Site,
}

impl Side {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Side::Server => "server",
            Side::Site => "site",
        }
    }
}

/// A component that has been made.
pub enum Built {
    /// See [`Executor`].
    Executor(Box<dyn Executor>),
    /// See [`Workflow`].
    Workflow(Box<dyn Workflow>),
    /// See [`TaskFilter`].
    Filter(Box<dyn TaskFilter>),
    /// See [`Checker`].
    Checker(Arc<dyn Checker>),
    /// See [`Observer`].
    Observer(Box<dyn Observer>),
    /// See [`Gate`].
    Gate(Arc<dyn Gate>),
    /// What [`BuildCx::service`] hands out to those who know its type.
    Service(Arc<dyn Any + Send + Sync>),
}

impl Built {
    /// What it is.
    pub fn kind(&self) -> Kind {
        match self {
            Built::Executor(_) => Kind::Executor,
            Built::Workflow(_) => Kind::Workflow,
            Built::Filter(_) => Kind::Filter,
            Built::Checker(_) => Kind::Checker,
            Built::Observer(_) => Kind::Observer,
            Built::Gate(_) => Kind::Gate,
            Built::Service(_) => Kind::Service,
        }
    }

    /// The service of this type, if that is what it is.
    pub fn into_service<T: Any + Send + Sync>(self) -> Option<Arc<T>> {
        match self {
            Built::Service(service) => service.downcast().ok(),
            Built::Executor(_)
            | Built::Workflow(_)
            | Built::Filter(_)
            | Built::Checker(_)
            | Built::Observer(_)
            | Built::Gate(_) => None,
        }
    }
}

impl fmt::Debug for Built {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Built").field(&self.kind()).finish()
    }
}

/// Counts constructors that ran, so that "nothing of a refused job was built" is a number and not a belief.
#[derive(Debug, Default)]
pub struct ConstructionCount(AtomicUsize);

impl ConstructionCount {
    /// Starts at zero.
    pub fn new() -> Self {
        ConstructionCount::default()
    }

    /// How many constructors have run.
    pub fn get(&self) -> usize {
        self.0.load(Ordering::Acquire)
    }

    pub(crate) fn increment(&self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}

/// What a component may know while it is made, and the components among its arguments.
#[derive(Debug)]
#[non_exhaustive]
pub struct BuildCx<'a> {
    /// Which half of the job is being built.
    pub side: Side,
    /// Name of the site, or `server`.
    pub site: &'a str,
    /// The job; empty for a component of the site itself.
    pub job_id: &'a str,
    /// The startup kit.
    pub kit_dir: &'a Path,
    /// The unpacked app of the job; the kit again for a component of the site itself.
    pub app_dir: &'a Path,
    /// Counts every constructor that runs.
    pub constructed: &'a ConstructionCount,
    /// The component's id, or its path in the configuration when it has none.
    pub id: &'a str,
    children: Mutex<Vec<Option<Built>>>,
    services: Vec<(String, Arc<dyn Any + Send + Sync>)>,
}

impl<'a> BuildCx<'a> {
    /// Where and for which job components are made.
    pub fn new(
        side: Side,
        site: &'a str,
        job_id: &'a str,
        kit_dir: &'a Path,
        app_dir: &'a Path,
        constructed: &'a ConstructionCount,
    ) -> Self {
        let (children, services) = (Mutex::default(), Vec::new());
        BuildCx { side, site, job_id, kit_dir, app_dir, constructed, id: "", children, services }
    }

    /// The component that an argument stands for. It can be taken once.
    ///
    /// # Errors
    /// [`BuildError::NoChild`] when it was taken before.
    pub fn take(&self, child: &Child) -> Result<Built, BuildError> {
        let mut children = self.children.lock().unwrap_or_else(PoisonError::into_inner);
        children.get_mut(child.number).and_then(Option::take).ok_or(BuildError::NoChild)
    }

    /// The service with this id, if it is of type `T`.
    ///
    /// Services are built before the other components, in file order, so that all others find them wherever they
    /// stand; a service finds those before it.
    pub fn service<T: Any + Send + Sync>(&self, id: &str) -> Option<Arc<T>> {
        self.services::<T>().find(|(known, _)| *known == id).map(|(_, service)| service)
    }

    /// What the component's chance begins with, if the program wants runs that can be repeated: it then has
    /// [provided](crate::Registry::provide) a [`Seed`]. Another for every component and every site.
    pub fn seed(&self) -> Option<[u8; 32]> {
        let (_, seed) = self.services::<Seed>().next()?;
        let mut hash = Sha256::new();
        hash.update(seed.0.to_le_bytes());
        for part in [self.site, self.id] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        Some(hash.finalize().into())
    }

    /// Every service of type `T` under its id, in file order.
    pub fn services<T: Any + Send + Sync>(&self) -> impl Iterator<Item = (&str, Arc<T>)> {
        self.services.iter().filter_map(|(id, service)| {
            Arc::clone(service).downcast::<T>().ok().map(|service| (id.as_str(), service))
        })
    }

    /// The same, with one more service.
    #[must_use]
    pub fn with_service(mut self, id: impl Into<String>, service: Arc<dyn Any + Send + Sync>) -> Self {
        self.services.push((id.into(), service));
        self
    }

    /// The same, for the component with this id.
    #[must_use]
    pub fn for_component(&self, id: &'a str) -> BuildCx<'a> {
        self.with_children(id, Vec::new())
    }

    pub(crate) fn with_children(&self, id: &'a str, children: Vec<Option<Built>>) -> BuildCx<'a> {
        let BuildCx { side, site, job_id, kit_dir, app_dir, constructed, .. } = *self;
        let (children, services) = (Mutex::new(children), self.services.clone());
        BuildCx { side, site, job_id, kit_dir, app_dir, constructed, id, children, services }
    }
}

/// The seed of everything random in a run that can be repeated. Nothing that must surprise anybody comes from it:
/// nonces, tokens and keys do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed(pub u64);

/// An argument that is itself a component: the field's type in [`Component::Args`]. `Option<Child>` is one that
/// may be missing or disabled, `Vec<Child>` a list of them.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Child {
    #[serde(rename = "$component")]
    number: usize,
}

impl JsonSchema for Child {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Component".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "object",
            "description": "A component: its name under `path`, and its `args`.",
            "properties": { "path": { "type": "string" }, "args": { "type": "object" } }
        })
    }
}

impl Child {
    /// What stands in the arguments for a component that is built already.
    pub(crate) fn placeholder(number: usize) -> serde_json::Value {
        serde_json::json!({ "$component": number })
    }
}

/// Why a component could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The arguments parse, but do not make sense.
    #[error("argument `{argument}`: {reason}")]
    Argument {
        /// Name of the argument.
        argument: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Something that the component needs at the site is not there.
    #[error("{0}")]
    Unavailable(String),
    /// An argument's component was taken twice.
    #[error("the component of an argument was taken already")]
    NoChild,
    /// The constructor panicked.
    #[error("the constructor panicked: {0}")]
    Panicked(String),
    /// The constructor made something else than its component promises.
    #[error("`{name}` promises {promised} and made {made}")]
    WrongKind {
        /// Name of the component.
        name: &'static str,
        /// What it promises.
        promised: Kind,
        /// What it made.
        made: Kind,
    },
    /// The registry that builds does not know what the registry that planned did.
    #[error("`{0}` is not registered")]
    NotRegistered(String),
    /// One component of a plan could not be made.
    #[error("cannot build {path} ({file}:{line})")]
    Component {
        /// Where it stands in the configuration.
        path: ConfigPath,
        /// The file that names it.
        file: String,
        /// Counted from 1.
        line: usize,
        /// Why.
        source: Box<BuildError>,
    },
}
