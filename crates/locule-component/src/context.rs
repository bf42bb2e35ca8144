//! Properties of a run: private or public, of this moment or of the whole run.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use locule_fobs::{PeerContext, Prop, Value};

/// What all contexts of one run share: its sticky properties.
///
/// | flag | meaning |
/// |---|---|
/// | public | goes to the peer with every request and reply; a private property never does |
/// | sticky | lives in the run: set in one context, it is read in all; others live in one context only |
///
/// # Source
/// nvflare 2.9.0, `nvflare.apis.fl_context`.
#[derive(Debug, Clone, Default)]
pub struct RunContext {
    identity: String,
    sticky: Arc<Mutex<Props>>,
}

impl RunContext {
    /// The properties of a run, under the name that this side shows to peers. A parent has the empty job id.
    pub fn new(identity: impl Into<String>, job_id: impl Into<String>) -> Self {
        let run = RunContext { identity: identity.into(), sticky: Arc::default() };
        let job_id = Value::from(job_id.into());
        run.sticky().put(key::RUN_NUM, Entry { value: job_id, flags: Flags::PUBLIC_STICKY });
        run
    }

    /// A context of this run that has the run's sticky properties and no others.
    pub fn open(&self) -> Context {
        let mut local = Props::default();
        if !self.identity.is_empty() {
            let value = Value::from(self.identity.clone());
            local.put(key::IDENTITY_NAME, Entry { value, flags: Flags::PUBLIC });
        }
        for (name, entry) in &self.sticky().0 {
            local.put(name, entry.clone());
        }
        Context { run: self.clone(), local, peer: None }
    }

    fn sticky(&self) -> MutexGuard<'_, Props> {
        self.sticky.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Properties as one activity of a run sees them: a task, an event, a request.
///
/// ```
/// use locule_component::{Flags, RunContext};
/// use locule_fobs::Value;
///
/// let run = RunContext::new("hospital-1", "job-7");
/// let mut task = run.open();
/// let other = run.open();
///
/// task.set("best_round", Value::from(3_i64), Flags::PUBLIC_STICKY)?;
/// assert_eq!(other.get("best_round"), Some(Value::from(3_i64)));
///
/// task.set("scratch", Value::from("mine"), Flags::PRIVATE)?;
/// assert_eq!(other.get("scratch"), None);
/// assert!(task.peer_context().get("scratch").is_none());
/// # Ok::<(), locule_component::FlagConflict>(())
/// ```
#[derive(Debug, Clone)]
pub struct Context {
    run: RunContext,
    local: Props,
    peer: Option<PeerContext>,
}

impl Context {
    /// The value of a property, or `None` when there is none of that name.
    ///
    /// A property of this context hides the run's of the same name; what is sticky is read from the run.
    pub fn get(&self, name: &str) -> Option<Value> {
        match self.local.find(name) {
            Some(entry) if !entry.flags.sticky => Some(entry.value.clone()),
            Some(entry) => {
                let shared = self.run.sticky().find(name).map(|entry| entry.value.clone());
                Some(shared.unwrap_or_else(|| entry.value.clone()))
            }
            None => self.run.sticky().find(name).map(|entry| entry.value.clone()),
        }
    }

    /// Sets a property.
    ///
    /// # Errors
    /// [`FlagConflict`] when the property exists with other flags; it keeps its value.
    pub fn set(&mut self, name: &str, value: Value, flags: Flags) -> Result<(), FlagConflict> {
        let conflict = |has: Flags| FlagConflict { name: name.to_owned(), has, wanted: flags };
        if let Some(entry) = self.local.find(name).filter(|entry| entry.flags != flags) {
            return Err(conflict(entry.flags));
        }
        let entry = Entry { value, flags };
        if flags.sticky {
            let mut shared = self.run.sticky();
            if let Some(entry) = shared.find(name).filter(|entry| entry.flags != flags) {
                return Err(conflict(entry.flags));
            }
            shared.put(name, entry.clone());
        }
        self.local.put(name, entry);
        Ok(())
    }

    /// Takes a property out of this context and says whether it was there. What the run keeps under the same
    /// name is read again afterwards; reserved names, those with two leading underscores, stay.
    pub fn remove(&mut self, name: &str) -> bool {
        if name.starts_with("__") {
            return false;
        }
        let before = self.local.0.len();
        self.local.0.retain(|(known, _)| known != name);
        self.local.0.len() != before
    }

    /// The job of the run; empty in a parent.
    pub fn job_id(&self) -> String {
        self.local.text(key::RUN_NUM)
    }

    /// The name that this side shows to peers.
    pub fn identity(&self) -> String {
        self.local.text(key::IDENTITY_NAME)
    }

    /// What the other side said of itself in the message that this context belongs to.
    pub fn peer(&self) -> Option<&PeerContext> {
        self.peer.as_ref()
    }

    /// Remembers what the other side said of itself.
    pub fn set_peer(&mut self, peer: PeerContext) {
        self.peer = Some(peer);
    }

    /// What the other side is told: every public property with its present value, none of them sticky.
    pub fn peer_context(&self) -> PeerContext {
        let mut peer = PeerContext::default();
        let shared = self.run.sticky();
        let only_shared = shared.0.iter().filter(|(name, _)| self.local.find(name).is_none());
        for (name, entry) in self.local.0.iter().chain(only_shared) {
            if entry.flags.private || key::NEVER_SENT.contains(&name.as_str()) {
                continue;
            }
            let value = match shared.find(name) {
                Some(shared) if entry.flags.sticky => shared.value.clone(),
                Some(_) | None => entry.value.clone(),
            };
            peer.props.push((name.clone(), Prop { value, sticky: false, private: false }));
        }
        peer
    }
}

/// Whom a property is for, and how long it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Flags {
    /// Never sent to a peer.
    pub private: bool,
    /// Shared by all contexts of the run.
    pub sticky: bool,
}

impl Flags {
    /// For this context only.
    pub const PRIVATE: Flags = Flags { private: true, sticky: false };
    /// For this context and its peer.
    pub const PUBLIC: Flags = Flags { private: false, sticky: false };
    /// For the whole run.
    pub const PRIVATE_STICKY: Flags = Flags { private: true, sticky: true };
    /// For the whole run and its peers.
    pub const PUBLIC_STICKY: Flags = Flags { private: false, sticky: true };
}

/// As nvflare has it when nothing is said: private and sticky.
impl Default for Flags {
    fn default() -> Self {
        Flags::PRIVATE_STICKY
    }
}

/// A property exists already, for other readers or for another time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("property `{name}` has {has:?} and cannot be set with {wanted:?}")]
pub struct FlagConflict {
    /// Name of the property.
    pub name: String,
    /// The flags it has.
    pub has: Flags,
    /// The flags it was to be set with.
    pub wanted: Flags,
}

/// Names of properties with a meaning of their own.
///
/// # Source
/// nvflare 2.9.0, `nvflare.apis.fl_constant.ReservedKey` and `FLContextKey`.
pub mod key {
    /// The name that a side shows to peers: public, not sticky.
    pub const IDENTITY_NAME: &str = "__identity_name__";
    /// The job: public, sticky.
    pub const RUN_NUM: &str = "__run_num__";
    /// A site's name: public, sticky.
    pub const CLIENT_NAME: &str = "__client_name__";
    /// The job, once more: public, sticky.
    pub const CURRENT_JOB_ID: &str = "__current_job_id__";
    /// Fully qualified name of a site in its hierarchy: public, sticky.
    pub const FQSN: &str = "__fqsn__";
    /// Whether a site has no children: public, sticky.
    pub const IS_LEAF: &str = "__is_leaf__";
    /// Properties that a peer is never told, even when they are public.
    pub const NEVER_SENT: [&str; 8] = [
        "__engine__",
        "__manager__",
        "__runner__",
        "__scope_props__",
        "__scope_object__",
        "__workspace_object__",
        "__task_data__",
        "__shareable__",
    ];
}

#[derive(Debug, Clone)]
struct Entry {
    value: Value,
    flags: Flags,
}

/// Properties in the order in which they were first set; a handful, so a list.
#[derive(Debug, Clone, Default)]
struct Props(Vec<(String, Entry)>);

impl Props {
    fn find(&self, name: &str) -> Option<&Entry> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, entry)| entry)
    }

    fn put(&mut self, name: &str, entry: Entry) {
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => *old = entry,
            None => self.0.push((name.to_owned(), entry)),
        }
    }

    fn text(&self, name: &str) -> String {
        match self.find(name).map(|entry| &entry.value) {
            Some(Value::Str(text)) => text.to_string(),
            Some(_) | None => String::new(),
        }
    }
}
