//! Links through a NATS broker, to which both ends connect outwards.
//!
//! Nobody needs an open port but the broker, which an organisation may have already: a cluster, leaf nodes between
//! sites and it. The broker is not trusted. With TLS configured, each link carries a TLS 1.3 session of its own from end
//! to end, in which frames lie as they do over TCP; the broker sees ciphertext, and the certificate at the other end
//! is the peer's. It can still end links, delay them, and see who talks how much.
//!
//! The crate keeps no state at the broker: no JetStream, nothing is stored. It does not start a broker either, and
//! stock nvflare has no such carrier. Without TLS, whoever may subscribe at the broker reads along.
//!
//! ```no_run
//! use futures_util::{SinkExt, StreamExt};
//! use locule_transport::{Endpoint, OutFrame, Transport};
//! use locule_transport_nats::NatsTransport;
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! let nats = NatsTransport::clear();
//! let at = Endpoint::parse("nats://broker.example.org:4222/project/server")?;
//! let mut listener = nats.listen(&at).await?;
//!
//! let mut near = nats.dial(&at).await?;
//! near.outgoing.send(OutFrame::new(&b"\0\0\0\x15 and twelve:"[..], "hello")).await?;
//! let mut far = listener.accept().await?;
//! assert!(far.incoming.next().await.unwrap()?.ends_with(b"hello"));
//! # Ok::<(), Box<dyn std::error::Error>>(()) })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Subjects
//!
//! The path of an endpoint names the listener: usually a project and the name of a cell.
//! `nats://broker:4222/project/hospital.relay-1` means the broker, and these subjects, which are all that a user of
//! the broker needs a right to publish and subscribe to:
//!
//! | subject | who subscribes |
//! |---|---|
//! | `locule.project.hospital.relay-1.dial` | the listener |
//! | `locule.project.hospital.relay-1.link.<128 random bits in hex>` | one end of one link |
//!
//! # The wire
//!
//! The dialling end subscribes to a fresh subject and publishes `locule/1 dial` to the listener's, with its own as
//! the reply. The listener subscribes to a fresh one in turn, over a connection of its own, and answers
//! `locule/1 here`. From then on, each end publishes to the other's subject; integers are big-endian:
//!
//! | bytes | field | meaning |
//! |---|---|---|
//! | 0 | `kind` | 0: bytes; 1: still here; 2: no bytes follow; 3: the link is given up |
//! | 1–8 | `number` | how many messages of kind 0 its sender sent before this one |
//! | 9–16 | `allowance` | what its sender takes in all, since the link began |
//! | 17– | | of kind 0 only: 1 to 65,536 bytes of the stream |
//!
//! A message of kind 0 uses up its bytes and 512 more of the allowance, which is always 2 MiB above what was passed
//! on: NATS itself knows no back-pressure, it drops what a slow subscriber does not take. A number that is not the
//! next means that something was dropped, and ends the link. Each end says every 5 s that it is there, in a way that
//! has the broker answer if the other is not; after 20 s of silence, the link ends. `locule/1 anybody` asks for a
//! listener, which answers `locule/1 taken`.
//!
//! In the stream lie a TLS session, or in clear the frames, as they do over TCP.
//!
//! Start reading at [`NatsTransport`] and [`Login`].

mod broker;
mod listen;
mod message;
mod stream;
mod subjects;

pub use broker::Login;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_nats::StatusCode;
use bytes::Bytes;
use futures_util::StreamExt as _;
use locule_socket::{Connection, LengthFirst, Sockets};
use locule_transport::{
    BoxFuture, DialError, Endpoint, Link, ListenError, Listener, PeerInfo, ReceiveLimit, Transport,
};
use rustls::{ClientConfig, ProtocolVersion, ServerConfig};
use tokio::time::timeout;

use crate::broker::{Broker, dial_error};
use crate::message::{DIAL, HERE};
use crate::stream::{Ends, NatsStream};
use crate::subjects::Subjects;

/// How long dialling may take, the TLS handshake included.
const DIAL_TIME: Duration = Duration::from_secs(10);

/// Dials and listens for links through a NATS broker, under the scheme `nats`.
///
/// Each link has a connection of its own to the broker, so that none waits for another and the broker never holds
/// more for one than its 2 MiB; one whose owner does not read takes some 4 MiB here. A link ends when that connection
/// does, and can be dialled again; a listener connects again by itself. No host name is sent in a handshake and none
/// checked, as the peer has none here.
///
/// The limits on what a stranger at the broker may do before there is a link: 5 s to answer and for its TLS
/// handshake, 256 of them at a time. Inside a frame, it must send 1 KiB/s. One that may publish and subscribe there
/// can keep these places busy, and so delay new links, but neither end those that are there nor read them.
#[derive(Clone, Debug)]
pub struct NatsTransport {
    sockets: Sockets,
    login: Login,
    max_links: usize,
    max_frame_len: usize,
}

impl NatsTransport {
    /// Largest frame, in bytes; the same as the stock carriers have.
    pub const MAX_FRAME_LEN: usize = LengthFirst::MAX_FRAME_LEN;
    /// Smallest frame, in bytes.
    pub const MIN_FRAME_LEN: usize = LengthFirst::MIN_FRAME_LEN;

    /// Without encryption between the ends of a link: for a broker that may read all.
    pub fn clear() -> Self {
        Self::over(Sockets::clear())
    }

    /// With TLS from end to end; without a `client` configuration it cannot dial, without a `server` one not listen.
    ///
    /// Both are used as they are, except that no host name is sent. How the broker itself is reached is another
    /// matter: [`with_login`](Self::with_login).
    pub fn tls(client: Option<Arc<ClientConfig>>, server: Option<Arc<ServerConfig>>) -> Self {
        let client = client.map(|config| {
            let mut config = Arc::unwrap_or_clone(config);
            config.enable_sni = false;
            Arc::new(config)
        });
        Self::over(Sockets::tls(client, server))
    }

    fn over(sockets: Sockets) -> Self {
        let login = Login::anonymous();
        Self { sockets, login, max_links: Sockets::MAX_CONNECTIONS, max_frame_len: Self::MAX_FRAME_LEN }
    }

    /// The same with a name at the broker, or TLS on the way to it.
    #[must_use]
    pub fn with_login(mut self, login: Login) -> Self {
        self.login = login;
        self
    }

    /// The same with a smaller largest frame, in bytes, in both directions.
    #[must_use]
    pub fn with_max_frame_len(mut self, bytes: usize) -> Self {
        self.max_frame_len = bytes.min(Self::MAX_FRAME_LEN);
        self
    }

    /// The same with another number of links that a listener serves at a time; who dials beyond that hears nothing.
    #[must_use]
    pub fn with_max_links(mut self, links: usize) -> Self {
        self.max_links = links;
        self
    }

    async fn reach(&self, to: &Endpoint) -> Result<Link, DialError> {
        let subjects = Subjects::of(to).map_err(|reason| DialError::invalid(to, reason))?;
        if to.is_all_interfaces() {
            return Err(DialError::invalid(to, "its host must be a broker's"));
        }
        self.sockets.to_connect(to)?;
        let broker = Broker::connect(to, &self.login).await.map_err(|error| dial_error(to, error))?;
        let stream = NatsStream::start(call(to, broker, &subjects).await?, None);
        let connection = self.sockets.open(to, stream, to.to_string()).await?;
        self.link(connection).map_err(|fault| {
            let endpoint = to.clone();
            DialError::Untrusted { endpoint, source: fault.into() }
        })
    }

    /// Older versions of TLS would show the broker whose certificates they are.
    fn link(&self, connection: Connection<NatsStream>) -> Result<Link, Fault> {
        if connection.tls_version().is_some_and(|version| version != ProtocolVersion::TLSv1_3) {
            return Err(Fault::OldTls);
        }
        let peer = connection.peer();
        let common_name = peer.certificates.first().and_then(|leaf| locule_tls::common_name(leaf));
        let peer = PeerInfo { common_name, ..peer.clone() };
        let (most, limit) = (self.max_frame_len, ReceiveLimit::new(self.max_frame_len));
        Ok(locule_socket::link(connection, LengthFirst, peer, most, limit))
    }
}

impl Transport for NatsTransport {
    fn schemes(&self) -> &[&'static str] {
        &["nats"]
    }

    fn dial<'a>(&'a self, to: &'a Endpoint) -> BoxFuture<'a, Result<Link, DialError>> {
        Box::pin(async move {
            match timeout(DIAL_TIME, self.reach(to)).await {
                Ok(outcome) => outcome,
                Err(_) => Err(DialError::TimedOut { endpoint: to.clone(), after: DIAL_TIME }),
            }
        })
    }

    fn listen<'a>(&'a self, on: &'a Endpoint) -> BoxFuture<'a, Result<Box<dyn Listener>, ListenError>> {
        Box::pin(async move {
            let listener = listen::bind(on, self.clone()).await?;
            Ok(Box::new(listener) as Box<dyn Listener>)
        })
    }
}

/// Calls a listener, and waits until it answers.
async fn call(to: &Endpoint, mut broker: Broker, subjects: &Subjects) -> Result<Ends, DialError> {
    let failed = |fault| failed(to, fault);
    let own = subjects.fresh();
    let mut subscriber = broker.subscribe(&own).await.map_err(failed)?;
    broker.ask(&subjects.dial(), &own, Bytes::from_static(DIAL)).await.map_err(failed)?;
    let answer = tokio::select! {
        answer = subscriber.next() => answer.ok_or_else(|| failed(Fault::BrokerGone))?,
        fault = broker.ended() => return Err(failed(fault)),
    };
    if answer.status == Some(StatusCode::NO_RESPONDERS) {
        return Err(DialError::Refused { endpoint: to.clone() });
    }
    match answer.reply.filter(|peer| answer.payload == HERE && subjects.is_link(peer)) {
        Some(peer) => Ok(Ends { broker, subscriber, own, peer: peer.to_string() }),
        None => {
            let reason = "its answer is not `locule/1 here`".to_owned();
            Err(DialError::NotOurProtocol { endpoint: to.clone(), reason })
        }
    }
}

fn failed(to: &Endpoint, fault: Fault) -> DialError {
    let (endpoint, complains) = (to.clone(), matches!(fault, Fault::BrokerSays(_)));
    let source = fault.into();
    if complains {
        DialError::Untrusted { endpoint, source }
    } else {
        DialError::Unreachable { endpoint, source }
    }
}

/// Why a link, or a connection to a broker, has ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum Fault {
    #[error("the connection to the broker has ended")]
    BrokerGone,
    #[error("the broker complains ({0}); look at what its configuration allows this user")]
    BrokerSays(String),
    #[error("nothing was heard of the peer for {} s", .0.as_secs())]
    Silent(Duration),
    #[error("messages were lost at the broker: number {due} was due, and {came} came")]
    Lost { due: u64, came: u64 },
    #[error("the peer does not keep to the protocol: {0}")]
    Protocol(&'static str),
    #[error("the peer speaks no TLS 1.3")]
    OldTls,
    #[error("the peer has gone")]
    Gone,
}

impl From<Fault> for io::Error {
    fn from(fault: Fault) -> Self {
        let kind = match fault {
            Fault::Gone => io::ErrorKind::ConnectionReset,
            Fault::Silent(_) => io::ErrorKind::TimedOut,
            Fault::BrokerGone
            | Fault::BrokerSays(_)
            | Fault::Lost { .. }
            | Fault::Protocol(_)
            | Fault::OldTls => io::ErrorKind::Other,
        };
        io::Error::new(kind, fault)
    }
}
