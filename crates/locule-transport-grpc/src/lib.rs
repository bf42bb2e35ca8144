//! Links over gRPC bidirectional streams.
//!
//! One call of `/streamer.Streamer/Stream` (`proto/streamer.proto`) is one link, and one gRPC message is
//! one frame, as stock nvflare cells speak it. HTTP/2, its connections and the statuses are tonic's, the
//! message is prost's. What is ours is the cutting of the stream into messages, because tonic's codec cannot
//! keep three promises: a large frame is sent without being copied, an announced length reserves no memory,
//! and the largest frame that is received can be changed while a link is up. This crate looks into no
//! frame, and it makes no TLS configuration: that is handed in, see `locule-tls`.
//!
//! ```
//! use futures_util::{SinkExt, StreamExt};
//! use locule_transport::{Endpoint, OutFrame, Transport};
//! use locule_transport_grpc::GrpcTransport;
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! let grpc = GrpcTransport::clear();
//! let mut listener = grpc.listen(&Endpoint::parse("grpc://127.0.0.1:0")?).await?;
//!
//! let mut near = grpc.dial(&listener.local()).await?;
//! near.outgoing.send(OutFrame::new("hel", "lo")).await?;
//! let mut far = listener.accept().await?;
//! assert_eq!(far.incoming.next().await.unwrap()?, "hello");
//! # Ok::<(), Box<dyn std::error::Error>>(()) })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Start reading at [`GrpcTransport`].
//!
//! # Source
//! nvflare 2.9.0, `nvflare.fuel.f3.drivers.grpc_driver` and `nvflare.fuel.f3.drivers.grpc.streamer_pb2`.

mod call;
mod connection;
mod dial;
mod listen;
#[expect(unreachable_pub, reason = "generated from proto/streamer.proto")]
mod streamer;
mod wire;

pub use wire::Deframer;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use locule_transport::{BoxFuture, DialError, Endpoint, Link, ListenError, Listener, Transport};
use rustls::{ClientConfig, ServerConfig};

/// Path of the one method.
const METHOD: &str = "/streamer.Streamer/Stream";
/// The content type of a call and of its answer.
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
/// How long a TLS handshake may take.
const HANDSHAKE_TIME: Duration = Duration::from_secs(5);
/// How long dialling may take, name resolution and connecting included.
const DIAL_TIME: Duration = Duration::from_secs(10);
/// How long a connection may exist without any call.
const IDLE_TIME: Duration = Duration::from_secs(10);
/// How long the last bytes of a link that was dropped may take to leave.
const LINGER_TIME: Duration = Duration::from_secs(5);

/// HTTP/2 window of one link, in bytes: what a peer may send ahead of a reader that stalls.
const STREAM_WINDOW: u32 = 4 << 20;
/// HTTP/2 window of a connection, in bytes; far above one link's, so that a stalled link of a
/// connection that carries several does not stall the others.
const CONNECTION_WINDOW: u32 = 64 << 20;
/// Largest HTTP/2 frame that is received, in bytes.
const HTTP2_FRAME: u32 = 256 << 10;
/// Largest header list, in bytes.
const HEADER_LIST: u32 = 16 << 10;

/// Dials and listens for gRPC links, under the schemes `grpc`, `grpcs`, `agrpc` and `agrpcs`.
///
/// With TLS configured, all of them are encrypted: which scheme a startup kit names says nothing about
/// it. Without, `grpcs` and `agrpcs` are refused.
///
/// A dialled link is up when the connection is: a peer that refuses the call, or our certificate, is
/// seen on the link's first read. The limits on what a peer may do before it has opened a link: 5 s for
/// its TLS handshake, 1,024 of them at a time, 10 s to open a call. Inside a frame, it must send 1 KiB/s.
#[derive(Clone)]
pub struct GrpcTransport {
    tls: Option<Tls>,
    max_frame_len: usize,
    max_connections: usize,
}

#[derive(Clone)]
struct Tls {
    client: Option<Arc<ClientConfig>>,
    server: Option<Arc<ServerConfig>>,
}

impl GrpcTransport {
    /// Largest frame, in bytes: what a stock peer's limit of 2 GiB − 2 MiB for a gRPC message leaves
    /// when the message's own 12 bytes are taken off.
    pub const MAX_FRAME_LEN: usize = 2_145_386_496 - 12;
    /// Connections that a listener serves at a time, unless told otherwise.
    pub const MAX_CONNECTIONS: usize = 16_384;

    /// Without encryption.
    pub fn clear() -> Self {
        Self { tls: None, max_frame_len: Self::MAX_FRAME_LEN, max_connections: Self::MAX_CONNECTIONS }
    }

    /// With TLS; without a `client` configuration it cannot dial, without a `server` one not listen.
    ///
    /// Both are used as they are, except that the protocol `h2` is offered.
    pub fn tls(client: Option<Arc<ClientConfig>>, server: Option<Arc<ServerConfig>>) -> Self {
        let tls = Tls {
            client: client.map(|config| {
                let mut config = Arc::unwrap_or_clone(config);
                config.alpn_protocols = vec![b"h2".to_vec()];
                Arc::new(config)
            }),
            server: server.map(|config| {
                let mut config = Arc::unwrap_or_clone(config);
                config.alpn_protocols = vec![b"h2".to_vec()];
                Arc::new(config)
            }),
        };
        Self { tls: Some(tls), ..Self::clear() }
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
        self.max_connections = connections.max(1);
        self
    }
}

impl Transport for GrpcTransport {
    fn schemes(&self) -> &[&'static str] {
        &["grpc", "grpcs", "agrpc", "agrpcs"]
    }

    fn dial<'a>(&'a self, to: &'a Endpoint) -> BoxFuture<'a, Result<Link, DialError>> {
        Box::pin(async move {
            let tls = match &self.tls {
                Some(Tls { client: Some(config), .. }) => Some(config),
                Some(Tls { client: None, .. }) => {
                    return Err(DialError::invalid(to, "no TLS configuration to dial with"));
                }
                None if is_secure(to) => {
                    return Err(DialError::invalid(to, "its scheme asks for TLS, and none is configured"));
                }
                None => None,
            };
            dial::dial(to, tls, self.max_frame_len).await
        })
    }

    fn listen<'a>(&'a self, on: &'a Endpoint) -> BoxFuture<'a, Result<Box<dyn Listener>, ListenError>> {
        Box::pin(async move {
            let tls = match &self.tls {
                Some(Tls { server: Some(config), .. }) => Some(Arc::clone(config)),
                Some(Tls { server: None, .. }) => {
                    return Err(ListenError::invalid(on, "no TLS configuration to listen with"));
                }
                None if is_secure(on) => {
                    return Err(ListenError::invalid(on, "its scheme asks for TLS, and none is configured"));
                }
                None => None,
            };
            let listener = listen::bind(on, tls, self.max_frame_len, self.max_connections).await?;
            Ok(Box::new(listener) as Box<dyn Listener>)
        })
    }
}

fn is_secure(endpoint: &Endpoint) -> bool {
    endpoint.scheme().ends_with("grpcs")
}

impl fmt::Debug for GrpcTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tls = self.tls.as_ref();
        f.debug_struct("GrpcTransport")
            .field("dials_with_tls", &tls.is_some_and(|tls| tls.client.is_some()))
            .field("listens_with_tls", &tls.is_some_and(|tls| tls.server.is_some()))
            .field("max_frame_len", &self.max_frame_len)
            .field("max_connections", &self.max_connections)
            .finish()
    }
}
