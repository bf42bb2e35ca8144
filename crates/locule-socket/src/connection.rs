//! One connection: its bytes, and who is at its other end.

use std::fmt;
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use locule_transport::{DialError, Endpoint, PeerInfo, Security};
use rustls::{ClientConfig, ProtocolVersion};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use tokio_util::either::Either;

use crate::{DISCARD_TIME, HANDSHAKE_TIME, Place};

/// A connection over a byte stream, TCP unless told otherwise; clear or under TLS.
pub struct Connection<S = TcpStream> {
    io: Either<S, TlsStream<S>>,
    /// Bytes to be read before those of `io`.
    unread: BytesMut,
    peer: PeerInfo,
    /// A listener's connection keeps its place as long as it exists.
    _place: Option<Place>,
}

impl<S> Connection<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    /// Who is at the other end: address, protection and certificates, but no common name.
    pub fn peer(&self) -> &PeerInfo {
        &self.peer
    }

    /// The version of TLS that the ends have agreed on; none in clear.
    pub fn tls_version(&self) -> Option<ProtocolVersion> {
        match &self.io {
            Either::Left(_) => None,
            Either::Right(secured) => secured.get_ref().1.protocol_version(),
        }
    }

    /// Gives back bytes that were read too far; they are read again, before all others.
    pub fn unread(&mut self, bytes: BytesMut) {
        self.unread = bytes;
    }

    /// Ends the connection in a way that lets the peer read what was written before.
    pub async fn leave(self) {
        leave(self).await;
    }

    /// Brings an accepted stream through its TLS handshake.
    pub(crate) async fn accepted(
        io: S,
        address: String,
        tls: Option<TlsAcceptor>,
        place: Place,
    ) -> io::Result<Self> {
        let (io, peer) = match tls {
            None => (Either::Left(io), PeerInfo::new(address, Security::Clear)),
            Some(acceptor) => {
                let handshake = acceptor.accept(io).into_fallible();
                let secured = match timeout(HANDSHAKE_TIME, handshake).await? {
                    Ok(secured) => secured,
                    Err((error, io)) => {
                        // The peer is to read why.
                        leave(io).await;
                        return Err(error);
                    }
                };
                let certificates = certificates(secured.get_ref().1.peer_certificates());
                let security = if certificates.is_empty() { Security::ServerOnly } else { Security::Mutual };
                let peer = PeerInfo { certificates, ..PeerInfo::new(address, security) };
                (Either::Right(secured.into()), peer)
            }
        };
        Ok(Self { io, unread: BytesMut::new(), peer, _place: Some(place) })
    }

    /// Brings a stream that was opened to `to` through its TLS handshake. A host that cannot stand in a
    /// certificate is known by its address: not every carrier checks names.
    pub(crate) async fn opened(
        to: &Endpoint,
        io: S,
        address: String,
        host: IpAddr,
        tls: Option<&Arc<ClientConfig>>,
    ) -> Result<Self, DialError> {
        let (io, peer) = match tls {
            None => (Either::Left(io), PeerInfo::new(address, Security::Clear)),
            Some(config) => {
                let secured = secure(to, io, host, config).await?;
                let certificates = certificates(secured.get_ref().1.peer_certificates());
                let shows_ours = config.client_auth_cert_resolver.has_certs();
                let security = if shows_ours { Security::Mutual } else { Security::ServerOnly };
                let peer = PeerInfo { certificates, ..PeerInfo::new(address, security) };
                (Either::Right(secured.into()), peer)
            }
        };
        Ok(Self { io, unread: BytesMut::new(), peer, _place: None })
    }
}

/// Says that nothing more comes, and discards what the peer still sends: a system that closes a connection
/// with something unread discards what was written, too.
pub(crate) async fn leave(mut io: impl AsyncRead + AsyncWrite + Unpin) {
    let leaving = async {
        io.shutdown().await?;
        let mut discarded = vec![0; 16 << 10];
        while io.read(&mut discarded).await? > 0 {}
        io::Result::Ok(())
    };
    // Whether the peer has ended or not, it is over.
    let _: bool = timeout(DISCARD_TIME, leaving).await.is_ok();
}

pub(crate) async fn connect(to: &Endpoint, tls: Option<&Arc<ClientConfig>>) -> Result<Connection, DialError> {
    let (tcp, address) = connect_tcp(to).await?;
    Connection::opened(to, tcp, shown(address), address.ip(), tls).await
}

async fn connect_tcp(to: &Endpoint) -> Result<(TcpStream, SocketAddr), DialError> {
    if to.is_all_interfaces() {
        return Err(DialError::invalid(to, "host 0 means all interfaces and can only be listened on"));
    }
    let port = match to.port() {
        None | Some(0) => return Err(DialError::invalid(to, "the port is missing")),
        Some(port) => port,
    };
    let addresses = lookup_host((to.host(), port))
        .await
        .map_err(|source| DialError::UnknownHost { endpoint: to.clone(), source })?;
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(tcp) => {
                tcp.set_nodelay(true).map_err(|error| DialError::from_io(to, error))?;
                return Ok((tcp, address));
            }
            Err(error) => last = error,
        }
    }
    Err(DialError::from_io(to, last))
}

async fn secure<S>(
    to: &Endpoint,
    io: S,
    host: IpAddr,
    config: &Arc<ClientConfig>,
) -> Result<tokio_rustls::client::TlsStream<S>, DialError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let name =
        ServerName::try_from(to.host().to_owned()).unwrap_or_else(|_| ServerName::IpAddress(host.into()));
    let handshake = TlsConnector::from(Arc::clone(config)).connect(name, io);
    match timeout(HANDSHAKE_TIME, handshake).await {
        Ok(Ok(secured)) => Ok(secured),
        Ok(Err(error)) => Err(dial_error(to, error)),
        Err(_) => Err(DialError::TimedOut { endpoint: to.clone(), after: HANDSHAKE_TIME }),
    }
}

/// Sorts an error of a connection that is not a link yet: a peer that does not accept our certificate may
/// say so only when it is read from.
pub fn dial_error(to: &Endpoint, error: io::Error) -> DialError {
    match error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidMessage(_)) => {
            DialError::NotOurProtocol { endpoint: to.clone(), reason: "it does not speak TLS".to_owned() }
        }
        Some(_) => DialError::Untrusted { endpoint: to.clone(), source: error.into() },
        None => DialError::from_io(to, error),
    }
}

/// An address for a person: an IPv4 peer of a socket for both kinds looks like one.
pub(crate) fn shown(address: SocketAddr) -> String {
    SocketAddr::new(address.ip().to_canonical(), address.port()).to_string()
}

fn certificates(chain: Option<&[CertificateDer<'_>]>) -> Vec<Bytes> {
    chain.unwrap_or_default().iter().map(|der| Bytes::copy_from_slice(der)).collect()
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Connection<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.unread.is_empty() {
            let part = self.unread.len().min(buf.remaining());
            buf.put_slice(&self.unread[..part]);
            self.unread.advance(part);
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

impl<S> fmt::Debug for Connection<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("peer", &self.peer.address).finish_non_exhaustive()
    }
}
