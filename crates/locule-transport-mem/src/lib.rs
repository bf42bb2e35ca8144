//! In-process links with scriptable faults.
//!
//! A [`MemTransport`] is a namespace of `mem://name` listeners: its clones reach each other, two that
//! were made apart do not. Links keep the promises of every carrier (order, framing, bounded queues),
//! so a cell over them behaves as it does over a network, and a test can cut, hold and delay them
//! through [`Faults`]. It carries nothing out of the process and knows no certificates; a name can be
//! claimed instead, see [`MemTransport::claiming`].
//!
//! ```
//! use futures_util::{SinkExt, StreamExt};
//! use locule_transport::{Endpoint, OutFrame, Transport};
//! use locule_transport_mem::MemTransport;
//!
//! # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
//! let network = MemTransport::new();
//! let hospital = Endpoint::parse("mem://hospital")?;
//! let mut listener = network.listen(&hospital).await?;
//!
//! let mut near = network.dial(&hospital).await?;
//! let mut far = listener.accept().await?;
//! near.outgoing.send(OutFrame::new("hel", "lo")).await?;
//! assert_eq!(far.incoming.next().await.unwrap()?, "hello");
//!
//! network.faults().at("hospital").cut();
//! assert!(near.outgoing.send(OutFrame::new("", "anyone?")).await.is_err());
//! # Ok::<(), Box<dyn std::error::Error>>(()) })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod fault;
mod wire;

pub use fault::Faults;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use locule_transport::{
    AcceptError, BoxFuture, DialError, Endpoint, Link, ListenError, Listener, PeerInfo, Security, Transport,
};
use tokio::sync::mpsc;

use fault::Script;
use wire::Bounds;

/// A namespace of `mem://name` listeners and the links between them.
#[derive(Clone)]
pub struct MemTransport {
    network: Arc<Network>,
    bounds: Bounds,
    common_name: Option<String>,
    security: Security,
}

impl MemTransport {
    /// Largest frame by default, in bytes: the same as the stock carriers have.
    pub const MAX_FRAME_LEN: usize = 2_145_386_496;
    /// What one direction of a link holds by default before its writer waits, in bytes.
    pub const QUEUE_LEN: usize = 4 << 20;
    /// Links that wait to be accepted before dialling waits.
    pub const BACKLOG: usize = 64;

    /// A new, empty namespace.
    pub fn new() -> Self {
        Self {
            network: Arc::default(),
            bounds: Bounds { max_frame_len: Self::MAX_FRAME_LEN, queue_len: Self::QUEUE_LEN },
            common_name: None,
            security: Security::Internal,
        }
    }

    /// The same namespace for somebody whose links say that its certificate's common name is this.
    ///
    /// Nothing checks the claim: what a carrier with certificates would have found out is given here.
    #[must_use]
    pub fn claiming(mut self, common_name: impl Into<String>) -> Self {
        self.common_name = Some(common_name.into());
        self
    }

    /// The same namespace for somebody whose peers are told that its links have this protection.
    #[must_use]
    pub fn pretending(mut self, security: Security) -> Self {
        self.security = security;
        self
    }

    /// The same namespace with another largest frame, in bytes, for the links dialled through this.
    #[must_use]
    pub fn with_max_frame_len(mut self, bytes: usize) -> Self {
        self.bounds.max_frame_len = bytes;
        self
    }

    /// The same namespace with other queues, in bytes, for the links dialled through this.
    ///
    /// A queue takes a frame whenever it holds less than this, so it exceeds it by at most one frame.
    #[must_use]
    pub fn with_queue_len(mut self, bytes: usize) -> Self {
        self.bounds.queue_len = bytes.max(1);
        self
    }

    /// The faults of every link of this namespace.
    pub fn faults(&self) -> Faults {
        Faults::everywhere(Arc::clone(&self.network))
    }

    /// How this end appears to the other.
    fn appearance(&self, address: String) -> PeerInfo {
        PeerInfo { common_name: self.common_name.clone(), ..PeerInfo::new(address, self.security) }
    }
}

impl Default for MemTransport {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemTransport")
            .field("listeners", &self.network.lock().listeners.keys().collect::<Vec<_>>())
            .field("common_name", &self.common_name)
            .field("security", &self.security)
            .finish_non_exhaustive()
    }
}

impl Transport for MemTransport {
    fn schemes(&self) -> &[&'static str] {
        &["mem"]
    }

    fn dial<'a>(&'a self, to: &'a Endpoint) -> BoxFuture<'a, Result<Link, DialError>> {
        Box::pin(async move {
            let name = name_of(to);
            let refused = || DialError::Refused { endpoint: to.clone() };
            let door = self.network.lock().door(&name).ok_or_else(refused)?;
            let place = door.queue.reserve().await.map_err(|_| refused())?;
            let (near, far) = self.network.lock().script.connect(
                name,
                self.bounds,
                door.appearance,
                self.appearance("mem".to_owned()),
            );
            place.send(far);
            Ok(near)
        })
    }

    fn listen<'a>(&'a self, on: &'a Endpoint) -> BoxFuture<'a, Result<Box<dyn Listener>, ListenError>> {
        Box::pin(async move {
            let name = name_of(on);
            let (queue, arrivals) = mpsc::channel(Self::BACKLOG);
            let door = Door { queue, appearance: self.appearance(on.to_string()) };
            let mut network = self.network.lock();
            if network.listeners.contains_key(&name) {
                return Err(ListenError::AddressInUse { endpoint: on.clone() });
            }
            network.listeners.insert(name.clone(), door);
            let network = Arc::clone(&self.network);
            Ok(Box::new(MemListener { local: on.clone(), name, network, arrivals }) as Box<dyn Listener>)
        })
    }
}

struct MemListener {
    local: Endpoint,
    name: String,
    network: Arc<Network>,
    arrivals: mpsc::Receiver<Link>,
}

impl Listener for MemListener {
    fn local(&self) -> Endpoint {
        self.local.clone()
    }

    fn accept<'a>(&'a mut self) -> BoxFuture<'a, Result<Link, AcceptError>> {
        Box::pin(async move { self.arrivals.recv().await.ok_or(AcceptError::Closed) })
    }
}

impl Drop for MemListener {
    fn drop(&mut self) {
        self.network.lock().listeners.remove(&self.name);
    }
}

impl fmt::Debug for MemListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemListener").field("local", &self.local.to_string()).finish_non_exhaustive()
    }
}

/// What the clones of a transport share.
#[derive(Default)]
struct Network(Mutex<Map>);

#[derive(Default)]
struct Map {
    listeners: HashMap<String, Door>,
    script: Script,
}

#[derive(Clone)]
struct Door {
    queue: mpsc::Sender<Link>,
    appearance: PeerInfo,
}

impl Network {
    fn lock(&self) -> MutexGuard<'_, Map> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Map {
    fn door(&self, name: &str) -> Option<Door> {
        if self.script.is_unreachable(name) { None } else { self.listeners.get(name).cloned() }
    }
}

/// Listeners are told apart by all that follows the scheme.
fn name_of(endpoint: &Endpoint) -> String {
    endpoint.authority() + endpoint.path()
}
