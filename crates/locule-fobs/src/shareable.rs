//! Shareable, DXO and the peer context: what tasks and results are made of.

use std::fmt;

use crate::error::shown;
use crate::{Map, Value};

const DXO: &str = "DXO";

/// Keys of [`Shareable::headers`] that have a meaning.
pub mod header {
    /// Topic of an auxiliary message.
    pub const TOPIC: &str = "__topic__";
    /// Return code; absent means `OK`.
    pub const RETURN_CODE: &str = "__rc__";
    /// What the server wants echoed with the result.
    pub const COOKIE_JAR: &str = "__cookie_jar__";
    /// Properties of the peer, where no whole context is sent.
    pub const PEER_PROPS: &str = "__peer_props__";
    /// Context of the peer.
    pub const PEER_CONTEXT: &str = "__peer_ctx__";
    /// Name of the task.
    pub const TASK_NAME: &str = "__task_name__";
    /// Identifier of the task.
    pub const TASK_ID: &str = "__task_id__";
    /// Workflow that the task belongs to.
    pub const WORKFLOW: &str = "__workflow__";
    /// What the body holds; `DXO` where it is one.
    pub const CONTENT_TYPE: &str = "__content_type__";
    /// Why something did not work.
    pub const ERROR: &str = "__error__";
    /// A reply that came after its deadline.
    pub const REPLY_IS_LATE: &str = "__reply_is_late__";
    /// Event in an audit log.
    pub const AUDIT_EVENT_ID: &str = "__audit_event_id__";
    /// Root of a tree of messages.
    pub const MSG_ROOT_ID: &str = "__msg_root_id__";
    /// Lifetime of that tree, in seconds.
    pub const MSG_ROOT_TTL: &str = "__msg_root_ttl__";
    /// Asks a cell on the way to pass references on without downloading.
    pub const PASS_THROUGH: &str = "__pass_through__";
}

/// A dictionary with headers: what tasks and results travel in.
///
/// # Source
/// nvflare 2.9.0, `nvflare.apis.shareable`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Shareable {
    /// The headers, on the wire under `__headers__`; see [`header`].
    pub headers: Map,
    /// All other entries.
    pub fields: Map,
}

impl Shareable {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// One that only says how something went.
    pub fn with_return_code(code: impl Into<String>) -> Self {
        let mut shareable = Self::new();
        shareable.set_return_code(code);
        shareable
    }

    /// One that carries this DXO.
    pub fn with_dxo(dxo: Dxo) -> Self {
        let mut shareable = Self::new();
        shareable.set_dxo(dxo);
        shareable
    }

    /// A header.
    pub fn header(&self, name: &str) -> Option<&Value> {
        self.headers.get(name)
    }

    /// Sets a header.
    pub fn set_header(&mut self, name: impl Into<String>, value: impl Into<Value>) {
        self.headers.insert(name, value);
    }

    /// The return code; `OK` where there is none.
    pub fn return_code(&self) -> &str {
        self.headers.str(header::RETURN_CODE).unwrap_or("OK")
    }

    /// Sets the return code.
    pub fn set_return_code(&mut self, code: impl Into<String>) {
        self.set_header(header::RETURN_CODE, code.into());
    }

    /// The context of the peer that sent this.
    pub fn peer_context(&self) -> Option<&PeerContext> {
        if let Some(Value::Context(context)) = self.headers.get(header::PEER_CONTEXT) {
            return Some(context);
        }
        None
    }

    /// Attaches a context.
    pub fn set_peer_context(&mut self, context: PeerContext) {
        self.set_header(header::PEER_CONTEXT, context);
    }

    /// What the server wants echoed with the result.
    pub fn cookies(&self) -> Option<&Map> {
        self.headers.map(header::COOKIE_JAR)
    }

    /// Sets what is to be echoed.
    pub fn set_cookies(&mut self, cookies: Map) {
        self.set_header(header::COOKIE_JAR, cookies);
    }

    /// Puts a DXO into this, in the place of one that is there.
    pub fn set_dxo(&mut self, dxo: Dxo) {
        self.set_header(header::CONTENT_TYPE, DXO);
        let body = Map::from_iter([
            ("kind", Value::from(dxo.kind.as_str())),
            ("data", dxo.data.into()),
            ("meta", dxo.meta.into()),
        ]);
        self.fields.insert(DXO, body);
    }

    /// A copy of the DXO in this; `None` where the content type is another. Arrays are shared, not copied.
    ///
    /// # Errors
    /// [`DxoError`] when the content type promises a DXO and the body does not hold one.
    pub fn dxo(&self) -> Result<Option<Dxo>, DxoError> {
        if !self.holds_dxo() {
            return Ok(None);
        }
        Dxo::from_body(self.fields.get(DXO).cloned()).map(Some)
    }

    /// Takes the DXO out of this; `None` where the content type is another.
    ///
    /// # Errors
    /// [`DxoError`] when the content type promises a DXO and the body does not hold one.
    pub fn take_dxo(&mut self) -> Result<Option<Dxo>, DxoError> {
        if !self.holds_dxo() {
            return Ok(None);
        }
        self.headers.remove(header::CONTENT_TYPE);
        Dxo::from_body(self.fields.remove(DXO)).map(Some)
    }

    fn holds_dxo(&self) -> bool {
        self.headers.str(header::CONTENT_TYPE) == Some(DXO)
    }
}

/// A data exchange object: weights, metrics and the like, with what is to be known about them.
///
/// # Source
/// nvflare 2.9.0, `nvflare.apis.dxo`.
#[derive(Debug, Clone, PartialEq)]
pub struct Dxo {
    /// What the data are.
    pub kind: DataKind,
    /// The data, such as arrays by name.
    pub data: Map,
    /// Facts about the data, such as `NUM_STEPS_CURRENT_ROUND`.
    pub meta: Map,
}

impl Dxo {
    /// A DXO without meta data.
    pub fn new(kind: DataKind, data: Map) -> Self {
        Self { kind, data, meta: Map::new() }
    }

    fn from_body(body: Option<Value>) -> Result<Self, DxoError> {
        let Some(Value::Map(mut body)) = body else { return Err(DxoError::NoBody) };
        let mut part = |name| body.remove(name).unwrap_or_default();
        let (kind, mut data, mut meta) = (part("kind"), part("data"), part("meta"));
        Self::from_parts(&kind, &mut data, &mut meta)
    }

    /// Makes a DXO of its parts as they travel; takes data and meta only when they fit.
    pub(crate) fn from_parts(kind: &Value, data: &mut Value, meta: &mut Value) -> Result<Self, DxoError> {
        let Some(kind) = kind.as_str().and_then(DataKind::parse) else {
            return Err(DxoError::Kind(shown(kind.as_str().unwrap_or(kind.kind()))));
        };
        if data.as_map().is_none() {
            return Err(DxoError::Part { part: "data", found: data.kind() });
        }
        if meta.as_map().is_none() && !meta.is_none() {
            return Err(DxoError::Part { part: "meta", found: meta.kind() });
        }
        let map = |value| if let Value::Map(map) = std::mem::take(value) { map } else { Map::new() };
        Ok(Self { kind, data: map(data), meta: map(meta) })
    }
}

/// What the data of a [`Dxo`] are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DataKind {
    /// A model's weights.
    Weights,
    /// The difference to the weights that training began with.
    WeightDiff,
    /// Metrics by name.
    Metrics,
    /// Metrics as they are streamed.
    Analytic,
    /// DXOs by name.
    Collection,
    /// Statistics of data.
    Statistics,
    /// A whole model object.
    FlModel,
    /// Private set intersection.
    Psi,
    /// Known to the application only.
    AppDefined,
}

impl DataKind {
    const ALL: [DataKind; 9] = [
        DataKind::Weights,
        DataKind::WeightDiff,
        DataKind::Metrics,
        DataKind::Analytic,
        DataKind::Collection,
        DataKind::Statistics,
        DataKind::FlModel,
        DataKind::Psi,
        DataKind::AppDefined,
    ];

    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            DataKind::Weights => "WEIGHTS",
            DataKind::WeightDiff => "WEIGHT_DIFF",
            DataKind::Metrics => "METRICS",
            DataKind::Analytic => "ANALYTIC",
            DataKind::Collection => "COLLECTION",
            DataKind::Statistics => "STATISTICS",
            DataKind::FlModel => "FL_MODEL",
            DataKind::Psi => "PSI",
            DataKind::AppDefined => "APP_DEFINED",
        }
    }

    /// The kind with this name on the wire.
    pub fn parse(name: &str) -> Option<DataKind> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

impl fmt::Display for DataKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The context a peer attaches to its messages: named properties.
///
/// # Source
/// nvflare 2.9.0, `nvflare.apis.fl_context`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PeerContext {
    /// The properties in order; what peers send are the public ones.
    pub props: Vec<(String, Prop)>,
}

/// One property of a context.
#[derive(Debug, Clone, PartialEq)]
pub struct Prop {
    /// Its value.
    pub value: Value,
    /// Whether it outlives the context that it was set in.
    pub sticky: bool,
    /// Whether it stays at home; a peer should never send one.
    pub private: bool,
}

impl PeerContext {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// The value of a property.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.props.iter().find(|(own, _)| own == name).map(|(_, prop)| &prop.value)
    }

    /// The text of a property; `None` also when it is something else.
    pub fn str(&self, name: &str) -> Option<&str> {
        self.get(name)?.as_str()
    }

    /// Sets a public property that is not sticky.
    pub fn set_public(&mut self, name: impl Into<String>, value: impl Into<Value>) {
        let (name, prop) = (name.into(), Prop { value: value.into(), sticky: false, private: false });
        match self.props.iter_mut().find(|(own, _)| *own == name) {
            Some((_, old)) => *old = prop,
            None => self.props.push((name, prop)),
        }
    }
}

/// Why a [`Shareable`] that promises a DXO does not hold one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DxoError {
    /// There is no dictionary under `DXO`.
    #[error("content type is DXO, but the body holds none")]
    NoBody,
    /// The kind is not one of [`DataKind`].
    #[error("unknown kind of DXO: {0}")]
    Kind(String),
    /// Data or meta data are not a dictionary.
    #[error("{part} of a DXO must be a map and is of type {found}")]
    Part {
        /// `data` or `meta`.
        part: &'static str,
        /// What was found.
        found: &'static str,
    },
}
