//! The listening end: accepts connections, and each call on them as a link.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use h2::server::{self, SendResponse};
use h2::{Reason, RecvStream};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use locule_transport::{AcceptError, BoxFuture, Endpoint, Link, ListenError, Listener, PeerInfo, Security};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{debug, warn};

use crate::call::{self, Incoming, Piece};
use crate::dial::{certificates, identified};
use crate::status::{Code, trailers};
use crate::{
    CONNECTION_WINDOW, HANDSHAKE_TIME, HEADER_LIST, HTTP2_FRAME, IDLE_TIME, LINGER_TIME, METHOD, SEND_BUFFER,
    STREAM_WINDOW,
};

/// Handshakes under way at a time.
const HANDSHAKES: usize = 1024;
/// Links that wait to be accepted; more are told to come again.
const BACKLOG: usize = 1024;
/// Calls on one connection at a time: the cells of one process may share a connection.
const CALLS: u32 = 1024;
/// Pause when the operating system has no more connections to give.
const PAUSE: Duration = Duration::from_millis(100);

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
    let door = Arc::new(Door { tls: tls.map(TlsAcceptor::from), max_frame_len, arrivals });
    tokio::spawn({
        let closed = closed.clone();
        async move {
            tokio::select! {
                () = closed.cancelled() => {}
                () = accept_connections(socket, door, max_connections) => {}
            }
        }
    });
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

/// What every connection of a listener needs.
struct Door {
    tls: Option<TlsAcceptor>,
    max_frame_len: usize,
    arrivals: mpsc::Sender<Link>,
}

async fn accept_connections(socket: TcpListener, door: Arc<Door>, max_connections: usize) {
    let connections = Arc::new(Semaphore::new(max_connections));
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
    loop {
        let Ok(connection) = Arc::clone(&connections).acquire_owned().await else { return };
        let Ok(handshake) = Arc::clone(&handshakes).acquire_owned().await else { return };
        match socket.accept().await {
            Ok((tcp, address)) => {
                let door = Arc::clone(&door);
                tokio::spawn(async move {
                    if let Err(error) = door.welcome(tcp, address, handshake).await {
                        debug!(link = %address, error, "connection ended");
                    }
                    drop(connection);
                });
            }
            Err(error) if is_the_peers(&error) => debug!(%error, "connection lost before it was accepted"),
            Err(error) => {
                warn!(%error, "no connection can be accepted at the moment");
                sleep(PAUSE).await;
            }
        }
    }
}

fn is_the_peers(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset)
}

type ConnectionError = Box<dyn std::error::Error + Send + Sync>;

impl Door {
    /// Brings a connection through its handshakes, then serves it.
    async fn welcome(
        &self,
        tcp: TcpStream,
        address: SocketAddr,
        handshake: OwnedSemaphorePermit,
    ) -> Result<(), ConnectionError> {
        tcp.set_nodelay(true)?;
        let address = address.to_string();
        match &self.tls {
            None => self.serve(tcp, PeerInfo::new(address, Security::Clear), handshake).await,
            Some(acceptor) => {
                let secured = timeout(HANDSHAKE_TIME, acceptor.accept(tcp)).await??;
                let certificates = certificates(secured.get_ref().1.peer_certificates());
                let security = if certificates.is_empty() { Security::ServerOnly } else { Security::Mutual };
                self.serve(secured, identified(address, certificates, security), handshake).await
            }
        }
    }

    /// Turns the calls of a connection into links, until it ends or nobody uses it.
    async fn serve(
        &self,
        io: impl AsyncRead + AsyncWrite + Unpin,
        peer: PeerInfo,
        handshake: OwnedSemaphorePermit,
    ) -> Result<(), ConnectionError> {
        let preface = server::Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(HTTP2_FRAME)
            .max_header_list_size(HEADER_LIST)
            .max_send_buffer_size(SEND_BUFFER)
            .max_concurrent_streams(CALLS)
            .handshake::<_, Piece>(io);
        let mut connection = timeout(HANDSHAKE_TIME, preface).await??;
        drop(handshake);
        let users = Arc::new(Users::default());
        let mut idle_since = Instant::now();
        loop {
            let is_idle = users.number.load(Ordering::SeqCst) == 0;
            let call = tokio::select! {
                call = connection.accept() => call,
                () = users.changed.notified() => {
                    idle_since = Instant::now();
                    continue;
                }
                () = sleep_until(idle_since + IDLE_TIME), if is_idle => break,
            };
            match call {
                None => return Ok(()),
                Some(call) => {
                    let (request, respond) = call?;
                    self.admit(request, respond, &peer, &users);
                }
            }
        }
        connection.graceful_shutdown();
        timeout(LINGER_TIME, std::future::poll_fn(|cx| connection.poll_closed(cx))).await??;
        Ok(())
    }

    fn admit(
        &self,
        request: Request<RecvStream>,
        mut respond: SendResponse<Piece>,
        peer: &PeerInfo,
        users: &Arc<Users>,
    ) {
        if let Err(answer) = check(&request) {
            refuse(&mut respond, answer);
            return;
        }
        let place = match self.arrivals.try_reserve() {
            Ok(place) => place,
            Err(TrySendError::Full(())) => {
                refuse(&mut respond, end(Code::ResourceExhausted, "too many links wait to be accepted"));
                return;
            }
            Err(TrySendError::Closed(())) => {
                refuse(&mut respond, end(Code::Unavailable, "service closed"));
                return;
            }
        };
        let mut answer = Response::new(());
        answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        match respond.send_response(answer, false) {
            Ok(outgoing) => place.send(call::link(
                outgoing,
                Incoming::Body(request.into_body()),
                peer.clone(),
                self.max_frame_len,
                Users::enter(users),
            )),
            Err(error) => debug!(link = peer.address, %error, "call ended before it was answered"),
        }
    }
}

/// Whether a request calls our one method, else the answer.
fn check(request: &Request<RecvStream>) -> Result<(), Response<()>> {
    let content_type = request.headers().get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    if !content_type.starts_with(b"application/grpc") {
        let mut answer = Response::new(());
        *answer.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return Err(answer);
    }
    if request.method() != Method::POST || request.uri().path() != METHOD {
        return Err(end(Code::Unimplemented, "only /streamer.Streamer/Stream is served"));
    }
    Ok(())
}

/// An answer that ends the call at once.
fn end(code: Code, message: &'static str) -> Response<()> {
    let mut answer = Response::new(());
    *answer.headers_mut() = trailers(code, message);
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    answer
}

fn refuse(respond: &mut SendResponse<Piece>, answer: Response<()>) {
    if respond.send_response(answer, true).is_err() {
        respond.send_reset(Reason::CANCEL);
    }
}

/// The links of a connection, counted.
#[derive(Default)]
struct Users {
    number: AtomicUsize,
    changed: Notify,
}

struct User(Arc<Users>);

impl Users {
    fn enter(users: &Arc<Self>) -> User {
        users.number.fetch_add(1, Ordering::SeqCst);
        User(Arc::clone(users))
    }
}

impl Drop for User {
    fn drop(&mut self) {
        self.0.number.fetch_sub(1, Ordering::SeqCst);
        self.0.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use tokio::io::duplex;

    fn door() -> (Door, mpsc::Receiver<Link>) {
        let (arrivals, links) = mpsc::channel(1);
        (Door { tls: None, max_frame_len: 1000, arrivals }, links)
    }

    async fn permit() -> OwnedSemaphorePermit {
        Arc::new(Semaphore::new(1)).acquire_owned().await.unwrap()
    }

    fn peer() -> PeerInfo {
        PeerInfo::new("memory", Security::Internal)
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_says_nothing_is_dropped_in_time() {
        let (_near, far) = duplex(1 << 16);
        let start = Instant::now();
        let outcome = door().0.serve(far, peer(), permit().await).await;
        assert!(outcome.is_err());
        assert_eq!(start.elapsed(), HANDSHAKE_TIME);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_nobody_uses_is_closed_in_time() {
        let (near, far) = duplex(1 << 16);
        let start = Instant::now();
        let (_requests, connection) = h2::client::handshake::<_>(near).await.unwrap();
        tokio::spawn(connection);
        let (door, _links) = door();
        let _ = door.serve(far, peer(), permit().await).await;
        assert!(start.elapsed() >= IDLE_TIME && start.elapsed() <= IDLE_TIME + LINGER_TIME);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_lives_as_long_as_its_link() {
        let (near, far) = duplex(1 << 16);
        let (requests, connection) = h2::client::handshake(near).await.unwrap();
        tokio::spawn(connection);
        let (door, mut links) = door();
        let serving = tokio::spawn(async move {
            let _ = door.serve(far, peer(), permit().await).await;
        });
        let request = Request::post(METHOD).header(header::CONTENT_TYPE, "application/grpc+proto");
        let mut requests = requests.ready().await.unwrap();
        let (_response, _outgoing): (_, h2::SendStream<Bytes>) =
            requests.send_request(request.body(()).unwrap(), false).unwrap();
        let link = links.recv().await.unwrap();
        sleep(IDLE_TIME * 100).await;
        assert!(!serving.is_finished());
        drop(link);
        serving.await.unwrap();
    }
}
