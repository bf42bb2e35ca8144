//! What carriers over TCP share: connections, clear or under TLS, and links over any byte stream.
//!
//! [`Sockets`] connects and listens, brings connections through TLS beside each other and bounds what a
//! stranger may cost. [`link`] makes a [`Link`] of a byte stream, told by a
//! [`Framing`] where the frames in it begin and end; closing, dropping, receive limits and slow peers are
//! its affair. The crate is no carrier: it knows no scheme and no wire, and it makes no TLS configuration.
//!
//! A carrier whose frames end with a line feed is this much:
//!
//! ```
//! use bytes::Bytes;
//! use futures_util::{SinkExt, StreamExt};
//! use locule_socket::{Framing, Header, Outgoing, Sockets, Step, link};
//! use locule_transport::{Endpoint, Link, LinkError, OutFrame, ReceiveLimit};
//!
//! struct Lines;
//!
//! impl Framing for Lines {
//!     fn write(&mut self, frame: OutFrame, out: &mut Outgoing) -> Result<(), LinkError> {
//!         out.put(frame.head);
//!         out.put(frame.body);
//!         out.put(Bytes::from_static(b"\n"));
//!         Ok(())
//!     }
//!     fn header(&mut self, arrived: &[u8], max: usize) -> Result<Option<Header>, LinkError> {
//!         let line = arrived.iter().position(|byte| *byte == b'\n').map(|end| end + 1);
//!         match line.unwrap_or(arrived.len()) {
//!             len if len > max => Err(LinkError::FrameTooLarge { len, max }),
//!             len => Ok(line.map(|_| Header { skip: 0, len })),
//!         }
//!     }
//!     fn body(&mut self, line: Vec<u8>) -> Result<Step, LinkError> {
//!         Ok(Step::Frame(line.into()))
//!     }
//! }
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! let sockets = Sockets::clear();
//! let at = Endpoint::parse("lines://127.0.0.1:0")?;
//! let mut listener = sockets
//!     .listen(&at, |connection| async {
//!         let peer = connection.peer().clone();
//!         Ok(link(connection, Lines, peer, 1 << 10, ReceiveLimit::new(1 << 10)))
//!     })
//!     .await?;
//! let connection = sockets.connect(&listener.local()).await?;
//! let peer = connection.peer().clone();
//! let mut near: Link = link(connection, Lines, peer, 1 << 10, ReceiveLimit::new(1 << 10));
//!
//! near.outgoing.send(OutFrame::new("hel", "lo")).await?;
//! let mut far = listener.accept().await?;
//! assert_eq!(far.incoming.next().await.unwrap()?, "hello\n");
//! # Ok::<(), Box<dyn std::error::Error>>(()) })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Start reading at [`Sockets`], [`link`] and [`Framing`].

mod connection;
mod length_first;
mod link;
mod listen;
mod reception;
mod wire;

pub use connection::{Connection, dial_error};
pub use length_first::LengthFirst;
pub use link::link;
pub use reception::{Place, Reception, places};
pub use wire::{Framing, Header, Outgoing, Step};

use std::fmt;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use locule_transport::{DialError, Endpoint, Link, ListenError, Listener};
use rustls::{ClientConfig, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;

/// How long a TLS handshake may take, and what a carrier does after it until there is a link.
const HANDSHAKE_TIME: Duration = Duration::from_secs(5);
/// How long connecting may take, name resolution and the TLS handshake included.
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// How long the last bytes of a link that was dropped may take to leave.
const LEAVE_TIME: Duration = Duration::from_secs(5);
/// How long a peer may go on to send after them.
const DISCARD_TIME: Duration = Duration::from_secs(1);

/// Connects and listens over TCP, clear or under TLS; cheap to clone.
///
/// Connections have `TCP_NODELAY`. The limits on what a peer may do before there is a link: 5 s for its
/// TLS handshake, 5 s for what the carrier does then; of how many do so at a time see [`Reception`].
#[derive(Clone)]
pub struct Sockets {
    tls: Option<Tls>,
    max_connections: usize,
}

#[derive(Clone)]
struct Tls {
    client: Option<Arc<ClientConfig>>,
    server: Option<Arc<ServerConfig>>,
}

impl Sockets {
    /// Connections that a listener serves at a time, unless told otherwise or there are fewer
    /// [file descriptors](Reception).
    pub const MAX_CONNECTIONS: usize = 16_384;

    /// Without encryption.
    pub fn clear() -> Self {
        Self { tls: None, max_connections: Self::MAX_CONNECTIONS }
    }

    /// With TLS; without a `client` configuration it cannot connect, without a `server` one not listen.
    pub fn tls(client: Option<Arc<ClientConfig>>, server: Option<Arc<ServerConfig>>) -> Self {
        Self { tls: Some(Tls { client, server }), ..Self::clear() }
    }

    /// The same with another number of connections that a listener serves at a time; more wait in the
    /// operating system's queue.
    #[must_use]
    pub fn with_max_connections(mut self, connections: usize) -> Self {
        self.max_connections = connections.max(1);
        self
    }

    /// Whether connections are encrypted.
    pub fn is_secure(&self) -> bool {
        self.tls.is_some()
    }

    /// Opens a connection, within ten seconds.
    ///
    /// Each address of the host is tried in turn. With TLS, the configuration says whether the host's
    /// name is checked and sent.
    ///
    /// # Errors
    /// [`DialError`], as [`Transport::dial`](locule_transport::Transport::dial) gives it.
    pub async fn connect(&self, to: &Endpoint) -> Result<Connection, DialError> {
        let tls = self.to_connect(to)?;
        match tokio::time::timeout(CONNECT_TIME, connection::connect(to, tls)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(DialError::TimedOut { endpoint: to.clone(), after: CONNECT_TIME }),
        }
    }

    /// Binds an endpoint; host `0` means every interface, IPv4 and IPv6 alike.
    ///
    /// `open` makes a link of each connection that has come through its TLS handshake. Connections do not
    /// wait for each other in either, and one that fails or takes too long is dropped.
    ///
    /// # Errors
    /// [`ListenError`], as [`Transport::listen`](locule_transport::Transport::listen) gives it.
    pub async fn listen<O, F>(&self, on: &Endpoint, open: O) -> Result<Box<dyn Listener>, ListenError>
    where
        O: Fn(Connection) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = std::io::Result<Link>> + Send + 'static,
    {
        let tls = self.to_listen(on)?.cloned();
        let listener = listen::bind(on, tls, self.max_connections, open).await?;
        Ok(Box::new(listener))
    }

    /// The dialling end's connection over a byte stream that leads to `to`: through a TLS handshake, if there
    /// is TLS, within five seconds. `address` is what a person is told of the peer.
    ///
    /// # Errors
    /// [`DialError`], as [`Transport::dial`](locule_transport::Transport::dial) gives it.
    pub async fn open<S>(&self, to: &Endpoint, io: S, address: String) -> Result<Connection<S>, DialError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        Connection::opened(to, io, address, Ipv4Addr::UNSPECIFIED.into(), self.to_connect(to)?).await
    }

    /// The listening end's connection over a byte stream, in the same way; it keeps its place as long as it
    /// exists.
    ///
    /// # Errors
    /// What the handshake says; and if there is no TLS configuration to listen with.
    pub async fn welcome<S>(&self, io: S, address: String, place: Place) -> std::io::Result<Connection<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let tls = match &self.tls {
            Some(Tls { server, .. }) => Some(server.clone().ok_or_else(|| std::io::Error::other(NO_SERVER))?),
            None => None,
        };
        Connection::accepted(io, address, tls.map(TlsAcceptor::from), place).await
    }

    /// The configuration to dial with, if there is TLS.
    ///
    /// # Errors
    /// [`DialError::Invalid`] if it lacks one for that.
    pub fn to_connect(&self, to: &Endpoint) -> Result<Option<&Arc<ClientConfig>>, DialError> {
        match &self.tls {
            Some(Tls { client: Some(config), .. }) => Ok(Some(config)),
            Some(Tls { client: None, .. }) => Err(DialError::invalid(to, NO_CLIENT)),
            None => Ok(None),
        }
    }

    /// The configuration to listen with, if there is TLS.
    ///
    /// # Errors
    /// [`ListenError::Invalid`] if it lacks one for that.
    pub fn to_listen(&self, on: &Endpoint) -> Result<Option<&Arc<ServerConfig>>, ListenError> {
        match &self.tls {
            Some(Tls { server: Some(config), .. }) => Ok(Some(config)),
            Some(Tls { server: None, .. }) => Err(ListenError::invalid(on, NO_SERVER)),
            None => Ok(None),
        }
    }
}

const NO_CLIENT: &str = "no TLS configuration to dial with";
const NO_SERVER: &str = "no TLS configuration to listen with";

impl fmt::Debug for Sockets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tls = self.tls.as_ref();
        f.debug_struct("Sockets")
            .field("connects_with_tls", &tls.is_some_and(|tls| tls.client.is_some()))
            .field("listens_with_tls", &tls.is_some_and(|tls| tls.server.is_some()))
            .field("max_connections", &self.max_connections)
            .finish()
    }
}
