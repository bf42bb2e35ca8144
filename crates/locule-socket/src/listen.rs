//! The listening end: accepts connections and has them opened as links, none waiting for another.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use locule_transport::{AcceptError, BoxFuture, Endpoint, Link, ListenError, Listener};
use rustls::ServerConfig;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream, lookup_host};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::debug;

use crate::connection::shown;
use crate::{Connection, HANDSHAKE_TIME, Reception};

/// Links that wait to be accepted; more wait where they are.
const BACKLOG: usize = 1024;
/// Connections that wait in the operating system.
const SYSTEM_BACKLOG: i32 = 1024;

pub(crate) async fn bind<O, F>(
    on: &Endpoint,
    tls: Option<Arc<ServerConfig>>,
    max_connections: usize,
    open: O,
) -> Result<SocketListener, ListenError>
where
    O: Fn(Connection) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = io::Result<Link>> + Send + 'static,
{
    let port =
        on.port().ok_or_else(|| ListenError::invalid(on, "the port is missing; 0 takes a free one"))?;
    let socket = bind_socket(on, port).await.map_err(|error| ListenError::from_io(on, error))?;
    let bound = socket.local_addr().map_err(|error| ListenError::from_io(on, error))?;
    let (arrivals, links) = mpsc::channel(BACKLOG);
    let closed = CancellationToken::new();
    let reception = Reception::new(socket, max_connections);
    let serving = serve(reception, tls.map(TlsAcceptor::from), open, arrivals);
    tokio::spawn(closed.clone().run_until_cancelled_owned(serving));
    let local = on.clone().with_port(bound.port());
    Ok(SocketListener { local, links, _closed: closed.drop_guard() })
}

async fn bind_socket(on: &Endpoint, port: u16) -> io::Result<TcpListener> {
    if on.is_all_interfaces() {
        return all_interfaces(port);
    }
    let mut last = io::Error::new(io::ErrorKind::AddrNotAvailable, "the name has no address");
    for address in lookup_host((on.host(), port)).await? {
        match listening(address) {
            Ok(socket) => return Ok(socket),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// One socket for both kinds of addresses, where the machine has both.
fn all_interfaces(port: u16) -> io::Result<TcpListener> {
    match listening((Ipv6Addr::UNSPECIFIED, port).into()) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(error),
        Err(_) => listening((Ipv4Addr::UNSPECIFIED, port).into()),
        both => both,
    }
}

fn listening(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(SYSTEM_BACKLOG)?;
    TcpListener::from_std(socket.into())
}

pub(crate) struct SocketListener {
    local: Endpoint,
    links: mpsc::Receiver<Link>,
    _closed: DropGuard,
}

impl Listener for SocketListener {
    fn local(&self) -> Endpoint {
        self.local.clone()
    }

    fn accept<'a>(&'a mut self) -> BoxFuture<'a, Result<Link, AcceptError>> {
        Box::pin(async move { self.links.recv().await.ok_or(AcceptError::Closed) })
    }
}

impl fmt::Debug for SocketListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SocketListener").field("local", &self.local.to_string()).finish_non_exhaustive()
    }
}

async fn serve<O, F>(
    mut reception: Reception<()>,
    tls: Option<TlsAcceptor>,
    open: O,
    arrivals: mpsc::Sender<Link>,
) where
    O: Fn(Connection) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = io::Result<Link>> + Send + 'static,
{
    let greet = |tcp: TcpStream, address, place| {
        let (tls, open, arrivals) = (tls.clone(), open.clone(), arrivals.clone());
        async move {
            let welcomed = async {
                tcp.set_nodelay(true)?;
                let connection = Connection::accepted(tcp, shown(address), tls, place).await?;
                timeout(HANDSHAKE_TIME, open(connection)).await?
            };
            match welcomed.await {
                // Fails when the listener is gone, and the link goes with it.
                Ok(link) => drop(arrivals.send(link).await),
                Err(error) => debug!(link = %address, %error, "connection ended"),
            }
        }
    };
    loop {
        reception.next(greet).await;
    }
}
