//! Links over plain TCP or TLS streams.
//!
//! Frames follow each other with nothing between them: the first four bytes of a frame are its length, as
//! stock nvflare cells send it, and this is all that the crate knows of one. It cannot carry others, and
//! it makes no TLS configuration: that is handed in, see `locule-tls`. Connections, handshakes and the
//! pump are `locule-socket`'s.
//!
//! ```
//! use futures_util::{SinkExt, StreamExt};
//! use locule_transport::{Endpoint, OutFrame, Transport};
//! use locule_transport_tcp::TcpTransport;
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! let tcp = TcpTransport::clear();
//! let mut listener = tcp.listen(&Endpoint::parse("tcp://127.0.0.1:0")?).await?;
//!
//! let mut near = tcp.dial(&listener.local()).await?;
//! near.outgoing.send(OutFrame::new(&b"\0\0\0\x15 and twelve:"[..], "hello")).await?;
//! let mut far = listener.accept().await?;
//! assert!(far.incoming.next().await.unwrap()?.ends_with(b"hello"));
//! # Ok::<(), Box<dyn std::error::Error>>(()) })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Start reading at [`TcpTransport`].
//!
//! # Source
//! nvflare 2.9.0, `nvflare.fuel.f3.drivers.tcp_driver` and `nvflare.fuel.f3.drivers.socket_conn`.

use std::sync::Arc;

use locule_socket::{Connection, Framing, LengthFirst, Sockets};
use locule_transport::{
    BoxFuture, DialError, Endpoint, Link, ListenError, Listener, PeerInfo, ReceiveLimit, Transport,
};
use rustls::{ClientConfig, ServerConfig};

/// Dials and listens for links over TCP, under the schemes `tcp`, `stcp`, `atcp` and `satcp`.
///
/// With TLS configured, all of them are encrypted: which scheme a startup kit names says nothing about
/// it. Without, `stcp` and `satcp` are refused. No host name is sent in a handshake; whether the server's
/// is checked, the configuration says (stock peers check none).
///
/// The limits on what a peer may do before there is a link: 5 s for its TLS handshake, 1,024 of them at a
/// time. Inside a frame, it must send 1 KiB/s.
#[derive(Clone, Debug)]
pub struct TcpTransport {
    sockets: Sockets,
    max_frame_len: usize,
}

impl TcpTransport {
    /// Largest frame, in bytes: a stock peer's limit of 2 GiB − 2 MiB.
    pub const MAX_FRAME_LEN: usize = LengthFirst::MAX_FRAME_LEN;
    /// Smallest frame, in bytes: a stock peer reads as much before it looks at the length.
    pub const MIN_FRAME_LEN: usize = LengthFirst::MIN_FRAME_LEN;

    /// Without encryption.
    pub fn clear() -> Self {
        Self { sockets: Sockets::clear(), max_frame_len: Self::MAX_FRAME_LEN }
    }

    /// With TLS; without a `client` configuration it cannot dial, without a `server` one not listen.
    ///
    /// Both are used as they are, except that no host name is sent.
    pub fn tls(client: Option<Arc<ClientConfig>>, server: Option<Arc<ServerConfig>>) -> Self {
        let client = client.map(|config| {
            let mut config = Arc::unwrap_or_clone(config);
            config.enable_sni = false;
            Arc::new(config)
        });
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

    /// How frames lie in a connection, for those who have the bytes from elsewhere: with
    /// [`locule_socket::link`] any byte stream is such a link.
    pub fn framing() -> impl Framing {
        LengthFirst
    }

    fn lacks_tls(&self, endpoint: &Endpoint) -> bool {
        matches!(endpoint.scheme(), "stcp" | "satcp") && !self.sockets.is_secure()
    }
}

const NO_TLS: &str = "its scheme asks for TLS, and none is configured";

impl Transport for TcpTransport {
    fn schemes(&self) -> &[&'static str] {
        &["tcp", "stcp", "atcp", "satcp"]
    }

    fn dial<'a>(&'a self, to: &'a Endpoint) -> BoxFuture<'a, Result<Link, DialError>> {
        Box::pin(async move {
            if self.lacks_tls(to) {
                return Err(DialError::invalid(to, NO_TLS));
            }
            Ok(link(self.sockets.connect(to).await?, self.max_frame_len))
        })
    }

    fn listen<'a>(&'a self, on: &'a Endpoint) -> BoxFuture<'a, Result<Box<dyn Listener>, ListenError>> {
        Box::pin(async move {
            if self.lacks_tls(on) {
                return Err(ListenError::invalid(on, NO_TLS));
            }
            let max_frame_len = self.max_frame_len;
            self.sockets
                .listen(on, move |connection| async move { Ok(link(connection, max_frame_len)) })
                .await
        })
    }
}

fn link(connection: Connection, max_frame_len: usize) -> Link {
    let peer = connection.peer();
    let common_name = peer.certificates.first().and_then(|leaf| locule_tls::common_name(leaf));
    let peer = PeerInfo { common_name, ..peer.clone() };
    locule_socket::link(connection, LengthFirst, peer, max_frame_len, ReceiveLimit::new(max_frame_len))
}
