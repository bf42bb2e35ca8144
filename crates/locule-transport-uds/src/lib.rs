//! Links over Unix domain sockets, between processes of one user on one machine.
//!
//! Frames lie in the stream as they do over TCP. Who may connect is the operating system's affair, twice: a socket is
//! a file with mode 0600 in a folder with mode 0700, and each end asks the kernel for the other's user and takes no
//! stranger. It encrypts nothing, knows no certificates, crosses no network, and has no abstract names, which
//! permissions do not protect.
//!
//! ```
//! use futures_util::{SinkExt, StreamExt};
//! use locule_transport::{OutFrame, Transport};
//! use locule_transport_uds::UdsTransport;
//!
//! # let dir = tempfile::tempdir()?;
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! let uds = UdsTransport::new();
//! let at = UdsTransport::endpoint(&dir.path().join("private/parent.sock"))?;
//! let mut listener = uds.listen(&at).await?;
//!
//! let mut near = uds.dial(&at).await?;
//! near.outgoing.send(OutFrame::new(&b"\0\0\0\x15 and twelve:"[..], "hello")).await?;
//! let mut far = listener.accept().await?;
//! assert!(far.incoming.next().await.unwrap()?.ends_with(b"hello"));
//! # Ok::<(), Box<dyn std::error::Error>>(()) })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Start reading at [`UdsTransport`].

#![cfg(unix)]

mod address;
mod listen;

use std::io;
use std::path::{Path, PathBuf};

use locule_socket::LengthFirst;
use locule_transport::{
    BoxFuture, DialError, Endpoint, EndpointError, Link, ListenError, Listener, PeerInfo, ReceiveLimit,
    Security, Transport,
};
use tokio::net::UnixStream;

/// Dials and listens for links over Unix domain sockets, under the scheme `uds`.
///
/// | endpoint | socket |
/// |---|---|
/// | `uds://jobs/kit/state/parent.sock` | `/kit/state/parent.sock`; the host says nothing, `%20` is a blank |
/// | `uds://localhost:8002` | `localhost-8002.sock` in the folder given to [`UdsTransport::within`] |
///
/// A listener makes the folder of its socket if it is not there, and refuses one that others can enter. A socket
/// that a process left behind is taken over, one that somebody listens at is not; when the listener is dropped the
/// file goes, and the folders that were made for it. Inside a frame, a peer must send 1 KiB/s.
#[derive(Clone, Debug)]
pub struct UdsTransport {
    folder: Option<PathBuf>,
    security: Security,
    max_frame_len: usize,
}

impl UdsTransport {
    /// Largest frame, in bytes; the same as the stock carriers have.
    pub const MAX_FRAME_LEN: usize = LengthFirst::MAX_FRAME_LEN;
    /// Smallest frame, in bytes.
    pub const MIN_FRAME_LEN: usize = LengthFirst::MIN_FRAME_LEN;
    /// Longest path of a socket that the operating system takes, in bytes.
    pub const MAX_PATH: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

    /// A carrier for endpoints with a path, whose links say that they never leave the machine.
    pub fn new() -> Self {
        Self { folder: None, security: Security::Internal, max_frame_len: Self::MAX_FRAME_LEN }
    }

    /// The same for endpoints without a path as well, whose sockets lie in `folder`.
    #[must_use]
    pub fn within(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = Some(folder.into());
        self
    }

    /// The same with links that say that they have this protection: where others of the same user are as foreign as
    /// over a network, [`Security::Clear`].
    #[must_use]
    pub fn pretending(mut self, security: Security) -> Self {
        self.security = security;
        self
    }

    /// The same with a smaller largest frame, in bytes, in both directions.
    #[must_use]
    pub fn with_max_frame_len(mut self, bytes: usize) -> Self {
        self.max_frame_len = bytes.min(Self::MAX_FRAME_LEN);
        self
    }

    /// The endpoint of the socket at an absolute path: `uds://jobs/…`, with what a URL cannot hold as `%20`.
    ///
    /// # Errors
    /// [`EndpointError`] if the path is longer than any endpoint.
    pub fn endpoint(path: &Path) -> Result<Endpoint, EndpointError> {
        address::to_endpoint(path)
    }

    fn link(&self, io: UnixStream, address: String) -> Link {
        let peer = PeerInfo::new(address, self.security);
        locule_socket::link(io, LengthFirst, peer, self.max_frame_len, ReceiveLimit::new(self.max_frame_len))
    }
}

impl Default for UdsTransport {
    fn default() -> Self {
        Self::new()
    }
}

impl Transport for UdsTransport {
    fn schemes(&self) -> &[&'static str] {
        &["uds"]
    }

    fn dial<'a>(&'a self, to: &'a Endpoint) -> BoxFuture<'a, Result<Link, DialError>> {
        Box::pin(async move {
            let path = address::to_path(to, self.folder.as_deref());
            let path = path.map_err(|reason| DialError::invalid(to, reason))?;
            let io = UnixStream::connect(&path).await.map_err(|error| {
                if error.kind() == io::ErrorKind::NotFound {
                    DialError::Refused { endpoint: to.clone() }
                } else {
                    DialError::from_io(to, error)
                }
            })?;
            match stranger(&io) {
                Ok(None) => Ok(self.link(io, to.to_string())),
                Ok(Some(uid)) => {
                    let source = format!("it belongs to user {uid}").into();
                    Err(DialError::Untrusted { endpoint: to.clone(), source })
                }
                Err(error) => Err(DialError::from_io(to, error)),
            }
        })
    }

    fn listen<'a>(&'a self, on: &'a Endpoint) -> BoxFuture<'a, Result<Box<dyn Listener>, ListenError>> {
        Box::pin(async move {
            let listener = listen::bind(on, self.clone())?;
            Ok(Box::new(listener) as Box<dyn Listener>)
        })
    }
}

/// The user of the other end, if that is not ours.
fn stranger(io: &UnixStream) -> io::Result<Option<u32>> {
    let (theirs, ours) = (io.peer_cred()?.uid(), rustix::process::geteuid().as_raw());
    Ok((theirs != ours).then_some(theirs))
}
