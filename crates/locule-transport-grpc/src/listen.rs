//! The listening end: accepts connections, and each call on them as a link.

use std::convert::Infallible;
use std::fmt;
use std::future::ready;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::stream::{self, Stream, StreamExt as _};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use locule_socket::{Place, Reception};
use locule_transport::{AcceptError, BoxFuture, Endpoint, Link, ListenError, Listener, PeerInfo, Security};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::either::Either;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Status;
use tonic::body::Body;
use tonic::transport::Server;
use tower::service_fn;
use tracing::{debug, warn};

use crate::call::{Call, Incoming};
use crate::connection::Connection;
use crate::dial::{certificates, identified};
use crate::{
    CONNECTION_WINDOW, GRPC, HANDSHAKE_TIME, HEADER_LIST, HTTP2_FRAME, IDLE_TIME, METHOD, STREAM_WINDOW,
};

/// Links that wait to be accepted; more are told to come again.
const BACKLOG: usize = 1024;
/// Calls on one connection at a time: the cells of one process may share a connection.
const CALLS: u32 = 1024;

pub(crate) async fn bind(
    on: &Endpoint,
    tls: Option<Arc<ServerConfig>>,
    max_frame_len: usize,
    max_connections: usize,
) -> Result<GrpcListener, ListenError> {
    let host = if on.is_all_interfaces() { "0.0.0.0" } else { on.host() };
    let port =
        on.port().ok_or_else(|| ListenError::invalid(on, "the port is missing; 0 takes a free one"))?;
    let socket = TcpListener::bind((host, port)).await.map_err(|error| ListenError::from_io(on, error))?;
    let bound = socket.local_addr().map_err(|error| ListenError::from_io(on, error))?;
    let (arrivals, links) = mpsc::channel(BACKLOG);
    let closed = CancellationToken::new();
    let serving = serve(connections(socket, tls, max_connections), Door { max_frame_len, arrivals });
    tokio::spawn(closed.clone().run_until_cancelled_owned(serving));
    let local = on.clone().with_port(bound.port());
    Ok(GrpcListener { local, links, _closed: closed.drop_guard() })
}

pub(crate) struct GrpcListener {
    local: Endpoint,
    links: mpsc::Receiver<Link>,
    _closed: DropGuard,
}

impl Listener for GrpcListener {
    fn local(&self) -> Endpoint {
        self.local.clone()
    }

    fn accept<'a>(&'a mut self) -> BoxFuture<'a, Result<Link, AcceptError>> {
        Box::pin(async move { self.links.recv().await.ok_or(AcceptError::Closed) })
    }
}

impl fmt::Debug for GrpcListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrpcListener").field("local", &self.local.to_string()).finish_non_exhaustive()
    }
}

/// Who is at the other end of a connection, and how many links it has.
#[derive(Clone)]
struct Caller {
    peer: Arc<PeerInfo>,
    links: watch::Sender<usize>,
}

/// Connections that have come through their handshakes, as they do: nobody waits for another's.
fn connections(
    socket: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    max_connections: usize,
) -> impl Stream<Item = Connection<impl AsyncRead + AsyncWrite + Unpin + Send + 'static, Caller>> {
    let tls = tls.map(TlsAcceptor::from);
    let reception = Reception::new(socket, max_connections);
    let welcomed = stream::unfold((reception, tls), |(mut reception, tls)| async {
        let welcomed = reception.next(|tcp, address, place| welcome(tcp, address, tls.clone(), place)).await;
        Some((welcomed, (reception, tls)))
    });
    welcomed.filter_map(ready)
}

/// Brings a connection through its TLS handshake.
async fn welcome(
    tcp: TcpStream,
    address: SocketAddr,
    tls: Option<TlsAcceptor>,
    place: Place,
) -> Option<Connection<Either<TcpStream, tokio_rustls::server::TlsStream<TcpStream>>, Caller>> {
    let ended = |error: io::Error| debug!(link = %address, %error, "connection ended");
    tcp.set_nodelay(true).map_err(ended).ok()?;
    let Some(acceptor) = tls else {
        let peer = PeerInfo::new(address.to_string(), Security::Clear);
        return Some(in_use(Either::Left(tcp), peer, place));
    };
    let handshake = timeout(HANDSHAKE_TIME, acceptor.accept(tcp)).await;
    let secured = handshake.map_err(io::Error::from).flatten().map_err(ended).ok()?;
    let certificates = certificates(secured.get_ref().1.peer_certificates());
    let security = if certificates.is_empty() { Security::ServerOnly } else { Security::Mutual };
    Some(in_use(Either::Right(secured), identified(address.to_string(), certificates, security), place))
}

/// A connection that keeps its place as long as it exists, and exists as long as it has links.
fn in_use<I>(io: I, peer: PeerInfo, place: Place) -> Connection<I, Caller> {
    let (links, number) = watch::channel(0);
    Connection::new(io, Caller { peer: Arc::new(peer), links }, async move {
        idle(number).await;
        drop(place);
    })
}

/// Waits until a connection has had no link for too long.
async fn idle(mut links: watch::Receiver<usize>) {
    while timeout(IDLE_TIME, links.wait_for(|links| *links > 0)).await.is_ok_and(|used| used.is_ok()) {
        let _ = links.wait_for(|links| *links == 0).await.is_ok();
    }
}

/// Turns the calls on connections into links.
async fn serve<I>(connections: impl Stream<Item = Connection<I, Caller>>, door: Door)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let server = Server::builder()
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(HTTP2_FRAME)
        .http2_max_header_list_size(HEADER_LIST)
        .max_concurrent_streams(CALLS);
    let service = service_fn(move |request| ready(Ok::<_, Infallible>(door.answer(request))));
    let connections = connections.map(Ok::<_, Infallible>);
    if let Err(error) = server.serve_with_incoming(service, connections).await {
        warn!(%error, "no connection is accepted any more");
    }
}

/// Where links come in.
#[derive(Clone)]
struct Door {
    max_frame_len: usize,
    arrivals: mpsc::Sender<Link>,
}

impl Door {
    fn answer(&self, request: Request<Body>) -> Response<Body> {
        let is_grpc = |value: &HeaderValue| value.as_bytes().starts_with(b"application/grpc");
        if !request.headers().get(header::CONTENT_TYPE).is_some_and(is_grpc) {
            let mut answer = Response::new(Body::empty());
            *answer.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            return answer;
        }
        self.admit(request).unwrap_or_else(Status::into_http)
    }

    fn admit(&self, mut request: Request<Body>) -> Result<Response<Body>, Status> {
        if request.method() != Method::POST || request.uri().path() != METHOD {
            return Err(Status::unimplemented("only /streamer.Streamer/Stream is served"));
        }
        let place = self.arrivals.try_reserve().map_err(|error| match error {
            TrySendError::Full(()) => Status::resource_exhausted("too many links wait to be accepted"),
            TrySendError::Closed(()) => Status::unavailable("service closed"),
        })?;
        let Caller { peer, links } =
            request.extensions_mut().remove().ok_or_else(|| Status::internal("a call from nowhere"))?;
        let (call, outgoing) = Call::new(true);
        let incoming = Incoming::Request(request.into_body());
        place.send(call.link(incoming, PeerInfo::clone(&peer), self.max_frame_len, Counted::new(links)));
        let mut answer = Response::new(outgoing);
        answer.headers_mut().insert(header::CONTENT_TYPE, GRPC);
        Ok(answer)
    }
}

/// One of a connection's links, as long as it exists.
struct Counted(watch::Sender<usize>);

impl Counted {
    fn new(links: watch::Sender<usize>) -> Self {
        links.send_modify(|links| *links += 1);
        Self(links)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.send_modify(|links| *links -= 1);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use bytes::Bytes;
    use h2::SendStream;
    use h2::client::{ResponseFuture, SendRequest};
    use tokio::io::{AsyncReadExt, DuplexStream, duplex};
    use tokio::sync::Semaphore;
    use tokio::task::JoinHandle;
    use tokio::time::{Instant, sleep};

    /// The dialer's end of a connection over memory, and the links that come of it.
    fn connection() -> (DuplexStream, mpsc::Receiver<Link>) {
        let (near, far) = duplex(1 << 20);
        let (arrivals, links) = mpsc::channel(1);
        let place = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let far = in_use(far, PeerInfo::new("memory", Security::Internal), Place::new(place));
        tokio::spawn(serve(stream::iter([far]), Door { max_frame_len: 1 << 20, arrivals }));
        (near, links)
    }

    async fn http2(near: DuplexStream) -> (SendRequest<Bytes>, JoinHandle<Result<(), h2::Error>>) {
        let (requests, connection) = h2::client::handshake(near).await.unwrap();
        (requests, tokio::spawn(connection))
    }

    async fn request(requests: SendRequest<Bytes>) -> (SendStream<Bytes>, ResponseFuture) {
        let request = Request::post(METHOD).header(header::CONTENT_TYPE, "application/grpc+proto");
        let mut requests = requests.ready().await.unwrap();
        let (response, outgoing) = requests.send_request(request.body(()).unwrap(), false).unwrap();
        (outgoing, response)
    }

    /// A call over memory: the raw sending half of its dialer, and the listener's link.
    pub(crate) async fn call() -> (SendStream<Bytes>, ResponseFuture, Link) {
        let (near, mut links) = connection();
        let (requests, _connection) = http2(near).await;
        let (outgoing, response) = request(requests).await;
        (outgoing, response, links.recv().await.unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_says_nothing_is_dropped_in_time() {
        let (mut near, _links) = connection();
        let start = Instant::now();
        near.read_to_end(&mut Vec::new()).await.unwrap();
        assert_eq!(start.elapsed(), IDLE_TIME);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_nobody_uses_is_closed_in_time() {
        let (near, _links) = connection();
        let start = Instant::now();
        let (_requests, connection) = http2(near).await;
        let _ = connection.await.unwrap();
        assert_eq!(start.elapsed(), IDLE_TIME);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_lives_as_long_as_its_link() {
        let (near, mut links) = connection();
        let (requests, connection) = http2(near).await;
        let (_outgoing, _response) = request(requests.clone()).await;
        let link = links.recv().await.unwrap();
        sleep(IDLE_TIME * 100).await;
        assert!(!connection.is_finished());
        drop(link);
        let start = Instant::now();
        let _ = connection.await.unwrap();
        assert_eq!(start.elapsed(), IDLE_TIME);
        drop(requests);
    }
}
