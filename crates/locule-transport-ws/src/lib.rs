//! Links over WebSocket.
//!
//! One binary message is one frame, on a connection that was upgraded by `GET /f3`, as stock nvflare cells
//! do under the scheme `http`. The handshake and the headers of WebSocket's own frames are tungstenite's,
//! connections and the pump `locule-socket`'s. The pump is not tungstenite's, because a message's announced
//! length must reserve no memory, the largest message that is received can be changed while a link is up,
//! and one direction of a link can end before the other. This crate looks into no frame, and it makes no
//! TLS configuration: that is handed in, see `locule-tls`.
//!
//! ```
//! use futures_util::{SinkExt, StreamExt};
//! use locule_transport::{Endpoint, OutFrame, Transport};
//! use locule_transport_ws::WsTransport;
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! let ws = WsTransport::clear();
//! let mut listener = ws.listen(&Endpoint::parse("http://127.0.0.1:0")?).await?;
//!
//! let mut near = ws.dial(&listener.local()).await?;
//! near.outgoing.send(OutFrame::new("hel", "lo")).await?;
//! let mut far = listener.accept().await?;
//! assert_eq!(far.incoming.next().await.unwrap()?, "hello");
//! # Ok::<(), Box<dyn std::error::Error>>(()) })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Start reading at [`WsTransport`].
//!
//! # Source
//! nvflare 2.9.0, `nvflare.fuel.f3.drivers.aio_http_driver`; RFC 6455.

mod messages;
mod upgrade;

use std::sync::Arc;

use locule_socket::{Connection, Framing, Sockets};
use locule_transport::{
    BoxFuture, DialError, Endpoint, Link, ListenError, Listener, PeerInfo, ReceiveLimit, Transport,
};
use rustls::{ClientConfig, ServerConfig};

pub use crate::messages::Side;

use crate::messages::Messages;

/// Dials and listens for links over WebSocket, under the schemes `http`, `https`, `ws` and `wss`.
///
/// With TLS configured, all of them are encrypted: which scheme a startup kit names says nothing about
/// it. Without, `https` and `wss` are refused. Whether the server's host name is checked, the configuration
/// says (stock peers check none). The path is always `/f3`; what an endpoint says of it is ignored.
///
/// A stock dialer breaks the connection when it is sent a message of 4 MiB or more. A listener's link
/// therefore has a [`Link::max_frame_len`] of [`Self::STOCK_DIALER_MAX_FRAME_LEN`], unless the dialer is one
/// of ours: it says so in its upgrade, by `User-Agent: locule/…`.
///
/// The limits on what a peer may do before there is a link: 5 s for its TLS handshake, 5 s and 8 KiB for the
/// upgrade, 1,024 peers at a time in either. Inside a message, it must send 1 KiB/s.
#[derive(Clone, Debug)]
pub struct WsTransport {
    sockets: Sockets,
    max_frame_len: usize,
}

impl WsTransport {
    /// Largest frame, in bytes: a stock peer's limit of 2 GiB − 2 MiB.
    pub const MAX_FRAME_LEN: usize = 2_145_386_496;
    /// Largest frame that a stock dialer takes, in bytes.
    pub const STOCK_DIALER_MAX_FRAME_LEN: usize = (4 << 20) - 1;

    /// Without encryption.
    pub fn clear() -> Self {
        Self { sockets: Sockets::clear(), max_frame_len: Self::MAX_FRAME_LEN }
    }

    /// With TLS; without a `client` configuration it cannot dial, without a `server` one not listen.
    pub fn tls(client: Option<Arc<ClientConfig>>, server: Option<Arc<ServerConfig>>) -> Self {
        Self { sockets: Sockets::tls(client, server), ..Self::clear() }
    }

    /// The same with a smaller largest frame, in bytes, in both directions.
    #[must_use]
    pub fn with_max_frame_len(mut self, bytes: usize) -> Self {
        self.max_frame_len = bytes.min(Self::MAX_FRAME_LEN);
        self
    }

    /// The same with another number of connections that a listener serves at a time; more wait in the
    /// operating system's queue.
    #[must_use]
    pub fn with_max_connections(mut self, connections: usize) -> Self {
        self.sockets = self.sockets.with_max_connections(connections);
        self
    }

    /// How frames lie in a connection behind its upgrade, for those who have the bytes from elsewhere: with
    /// [`locule_socket::link`] any byte stream is such a link.
    pub fn framing(side: Side) -> impl Framing {
        Messages::new(side)
    }

    fn lacks_tls(&self, endpoint: &Endpoint) -> bool {
        matches!(endpoint.scheme(), "https" | "wss") && !self.sockets.is_secure()
    }
}

const NO_TLS: &str = "its scheme asks for TLS, and none is configured";

impl Transport for WsTransport {
    fn schemes(&self) -> &[&'static str] {
        &["http", "https", "ws", "wss"]
    }

    fn dial<'a>(&'a self, to: &'a Endpoint) -> BoxFuture<'a, Result<Link, DialError>> {
        Box::pin(async move {
            if self.lacks_tls(to) {
                return Err(DialError::invalid(to, NO_TLS));
            }
            let connection = upgrade::ask(to, self.sockets.connect(to).await?).await?;
            Ok(link(connection, Side::Dialer, self.max_frame_len, self.max_frame_len))
        })
    }

    fn listen<'a>(&'a self, on: &'a Endpoint) -> BoxFuture<'a, Result<Box<dyn Listener>, ListenError>> {
        Box::pin(async move {
            if self.lacks_tls(on) {
                return Err(ListenError::invalid(on, NO_TLS));
            }
            let max_incoming = self.max_frame_len;
            let open = move |connection| async move {
                let (connection, dialer) = upgrade::answer(connection).await?;
                let max_outgoing = if dialer.is_ours { usize::MAX } else { Self::STOCK_DIALER_MAX_FRAME_LEN };
                Ok(link(connection, Side::Listener, max_incoming.min(max_outgoing), max_incoming))
            };
            self.sockets.listen(on, open).await
        })
    }
}

fn link(connection: Connection, side: Side, max_outgoing: usize, max_incoming: usize) -> Link {
    let peer = connection.peer();
    let common_name = peer.certificates.first().and_then(|leaf| locule_tls::common_name(leaf));
    let peer = PeerInfo { common_name, ..peer.clone() };
    locule_socket::link(connection, Messages::new(side), peer, max_outgoing, ReceiveLimit::new(max_incoming))
}
