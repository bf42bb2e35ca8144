//! The dialling end of a connection.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Uri, header};
use hyper_util::rt::TokioIo;
use locule_transport::{DialError, Endpoint, Link, PeerInfo, Security};
use rustls::ClientConfig;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tower::{Service as _, ServiceExt as _, service_fn};

use crate::call::{Call, Incoming};
use crate::connection::Connection;
use crate::{
    CONNECTION_WINDOW, DIAL_TIME, GRPC, HANDSHAKE_TIME, HEADER_LIST, HTTP2_FRAME, LINGER_TIME, METHOD,
    STREAM_WINDOW,
};

pub(crate) async fn dial(
    to: &Endpoint,
    tls: Option<&Arc<ClientConfig>>,
    max_frame_len: usize,
) -> Result<Link, DialError> {
    let attempt = async {
        let tcp = connect(to).await?;
        let address = tcp.peer_addr().map_or_else(|_| to.authority(), |address| address.to_string());
        match tls {
            None => open(to, tcp, PeerInfo::new(address, Security::Clear), max_frame_len).await,
            Some(config) => {
                let secured = secure(to, tcp, config).await?;
                let certificates = certificates(secured.get_ref().1.peer_certificates());
                let security = if config.client_auth_cert_resolver.has_certs() {
                    Security::Mutual
                } else {
                    Security::ServerOnly
                };
                let peer = identified(address, certificates, security);
                open(to, secured, peer, max_frame_len).await
            }
        }
    };
    match timeout(DIAL_TIME, attempt).await {
        Ok(outcome) => outcome,
        Err(_) => Err(DialError::TimedOut { endpoint: to.clone(), after: DIAL_TIME }),
    }
}

async fn connect(to: &Endpoint) -> Result<TcpStream, DialError> {
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
                return Ok(tcp);
            }
            Err(error) => last = error,
        }
    }
    Err(DialError::from_io(to, last))
}

async fn secure(
    to: &Endpoint,
    tcp: TcpStream,
    config: &Arc<ClientConfig>,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, DialError> {
    let name = ServerName::try_from(to.host().to_owned())
        .map_err(|_| DialError::invalid(to, "its host cannot be the name in a certificate"))?;
    let handshake = TlsConnector::from(Arc::clone(config)).connect(name, tcp);
    match timeout(HANDSHAKE_TIME, handshake).await {
        Ok(Ok(secured)) => Ok(secured),
        Ok(Err(error)) => Err(tls_error(to, error)),
        Err(_) => Err(DialError::TimedOut { endpoint: to.clone(), after: HANDSHAKE_TIME }),
    }
}

fn tls_error(to: &Endpoint, error: io::Error) -> DialError {
    match error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidMessage(_)) => {
            DialError::NotOurProtocol { endpoint: to.clone(), reason: "it does not speak TLS".to_owned() }
        }
        Some(_) => DialError::Untrusted { endpoint: to.clone(), source: error.into() },
        None => DialError::from_io(to, error),
    }
}

/// Opens the one call of a connection, without waiting for what the peer says to it.
async fn open(
    to: &Endpoint,
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: PeerInfo,
    max_frame_len: usize,
) -> Result<Link, DialError> {
    let unreachable = |error: tonic::transport::Error| DialError::Unreachable {
        endpoint: to.clone(),
        source: error.into(),
    };
    let in_use = CancellationToken::new();
    let guard = in_use.clone().drop_guard();
    let io = Connection::new(io, (), async move {
        in_use.cancelled().await;
        sleep(LINGER_TIME).await;
    });
    let mut only = Some(TokioIo::new(io));
    let connector = service_fn(move |_| {
        std::future::ready(only.take().ok_or_else(|| io::Error::other("the connection has ended")))
    });
    let mut channel =
        endpoint(to, peer.security)?.connect_with_connector(connector).await.map_err(unreachable)?;
    let (call, outgoing) = Call::new(false);
    let mut request = Request::new(outgoing);
    *request.method_mut() = Method::POST;
    *request.uri_mut() = Uri::from_static(METHOD);
    request.headers_mut().insert(header::CONTENT_TYPE, GRPC);
    request.headers_mut().insert(header::TE, HeaderValue::from_static("trailers"));
    let response = channel.ready().await.map_err(unreachable)?.call(request);
    Ok(call.link(Incoming::Awaited(response), peer, max_frame_len, guard))
}

/// The settings of a connection. Its TLS is ours, so tonic sees the `https` as a name only.
fn endpoint(to: &Endpoint, security: Security) -> Result<tonic::transport::Endpoint, DialError> {
    let invalid = |error: &dyn std::error::Error| DialError::invalid(to, error.to_string());
    let authority = to.authority();
    let scheme = if security == Security::Clear { "http" } else { "https" };
    let origin: Uri = format!("{scheme}://{authority}").parse().map_err(|error| invalid(&error))?;
    let endpoint = Channel::from_shared(format!("http://{authority}")).map_err(|error| invalid(&error))?;
    let endpoint = endpoint
        .origin(origin)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(HTTP2_FRAME)
        .http2_max_header_list_size(HEADER_LIST)
        .user_agent(concat!("grpc-locule/", env!("CARGO_PKG_VERSION")))
        .map_err(|error| invalid(&error))?;
    Ok(endpoint)
}

/// Certificates as a link shows them.
pub(crate) fn certificates(chain: Option<&[CertificateDer<'_>]>) -> Vec<Bytes> {
    chain.unwrap_or_default().iter().map(|der| Bytes::copy_from_slice(der)).collect()
}

/// A peer with the certificates that it showed.
pub(crate) fn identified(address: String, certificates: Vec<Bytes>, security: Security) -> PeerInfo {
    let common_name = certificates.first().and_then(|leaf| locule_tls::common_name(leaf));
    PeerInfo { address, certificates, common_name, security }
}
