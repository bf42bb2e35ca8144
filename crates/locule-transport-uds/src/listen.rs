//! The listening end: a socket in a private folder, for its own user only.

use std::fmt;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use locule_transport::{AcceptError, BoxFuture, Endpoint, Link, ListenError, Listener};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::UnixListener;
use tracing::debug;

use crate::{UdsTransport, address, stranger};

/// How often a folder may vanish while a socket is bound in it: its maker takes it away when it ends.
const TRIES: usize = 3;

pub(crate) fn bind(on: &Endpoint, carrier: UdsTransport) -> Result<UdsListener, ListenError> {
    let path = address::to_path(on, carrier.folder.as_deref());
    let path = path.map_err(|reason| ListenError::invalid(on, reason))?;
    let folder = path.parent().ok_or_else(|| ListenError::invalid(on, "its path has no folder"))?;
    let mut tries = 0;
    loop {
        tries += 1;
        let made = Made::at(folder).map_err(|error| ListenError::from_io(on, error))?;
        match bind_in(folder, &path, on) {
            Ok((socket, inode)) => {
                return Ok(UdsListener { local: on.clone(), carrier, socket, path, inode, made });
            }
            Err(ListenError::Io { source, .. })
                if source.kind() == io::ErrorKind::NotFound && tries < TRIES => {}
            Err(error) => return Err(error),
        }
    }
}

fn bind_in(folder: &Path, path: &Path, on: &Endpoint) -> Result<(UnixListener, u64), ListenError> {
    let failed = |error| ListenError::from_io(on, error);
    check_private(folder).map_err(failed)?.map_err(|reason| ListenError::invalid(on, reason))?;
    // Nobody else looks for a socket that was left behind, or binds one, until this one is bound.
    let _alone = alone_in(folder).map_err(failed)?;
    match left_behind(path).map_err(failed)? {
        There::Nothing => {}
        There::LeftBehind => fs::remove_file(path).map_err(failed)?,
        There::InUse => return Err(ListenError::AddressInUse { endpoint: on.clone() }),
        There::NoSocket => return Err(ListenError::invalid(on, "there is a file that is no socket")),
    }
    let socket = UnixListener::bind(path).map_err(failed)?;
    fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(failed)?;
    Ok((socket, fs::symlink_metadata(path).map_err(failed)?.ino()))
}

/// Folders that were made for a socket, the innermost first; dropped, those go again that hold nothing.
struct Made(Vec<PathBuf>);

impl Made {
    fn at(folder: &Path) -> io::Result<Made> {
        let missing = folder.ancestors().take_while(|folder| !folder.exists());
        let made = Made(missing.map(Path::to_owned).collect());
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        Ok(made)
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for folder in &self.0 {
            if fs::remove_dir(folder).is_err() {
                return;
            }
        }
    }
}

/// What is wrong with a folder that others can enter.
fn check_private(folder: &Path) -> io::Result<Result<(), String>> {
    let meta = fs::metadata(folder)?;
    let (mode, ours) = (meta.mode() & 0o7777, rustix::process::geteuid().as_raw());
    Ok(if meta.uid() != ours {
        Err(format!("its folder {} belongs to user {}", folder.display(), meta.uid()))
    } else if mode & 0o077 != 0 {
        Err(format!("its folder {} is open to others (mode {mode:o}); it must be 700", folder.display()))
    } else {
        Ok(())
    })
}

/// Holds a folder against others who bind sockets in it, until the file is dropped.
fn alone_in(folder: &Path) -> io::Result<File> {
    let folder = File::open(folder)?;
    folder.lock()?;
    Ok(folder)
}

enum There {
    Nothing,
    /// A socket that nobody listens at.
    LeftBehind,
    InUse,
    NoSocket,
}

fn left_behind(path: &Path) -> io::Result<There> {
    match fs::symlink_metadata(path) {
        Ok(meta) if !meta.file_type().is_socket() => return Ok(There::NoSocket),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(There::Nothing),
        Err(error) => return Err(error),
    }
    let knock = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    knock.set_nonblocking(true)?; // whoever listens may have no room at the moment
    match knock.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(There::LeftBehind),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(There::Nothing),
        Ok(()) | Err(_) => Ok(There::InUse),
    }
}

pub(crate) struct UdsListener {
    local: Endpoint,
    carrier: UdsTransport,
    socket: UnixListener,
    path: PathBuf,
    inode: u64,
    made: Made,
}

impl Listener for UdsListener {
    fn local(&self) -> Endpoint {
        self.local.clone()
    }

    fn accept<'a>(&'a mut self) -> BoxFuture<'a, Result<Link, AcceptError>> {
        Box::pin(async move {
            loop {
                let (io, _) = match self.socket.accept().await {
                    Ok(accepted) => accepted,
                    Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                    Err(source) => return Err(AcceptError::Exhausted { source }),
                };
                match stranger(&io) {
                    Ok(None) => {
                        let pid = io.peer_cred().ok().and_then(|peer| peer.pid());
                        let peer = pid.map_or_else(|| "uds".to_owned(), |pid| format!("process {pid}"));
                        return Ok(self.carrier.link(io, peer));
                    }
                    Ok(Some(user)) => debug!(user, "connection of another user ended"),
                    Err(error) => debug!(%error, "connection ended"),
                }
            }
        })
    }
}

impl Drop for UdsListener {
    fn drop(&mut self) {
        let Some(_alone) = self.path.parent().and_then(|folder| alone_in(folder).ok()) else { return };
        // Only its own: whoever found this one dead may have bound another.
        if fs::symlink_metadata(&self.path).is_ok_and(|meta| meta.ino() == self.inode) {
            fs::remove_file(&self.path).ok();
        }
        // `made` goes last, and with it what was made for this socket alone.
    }
}

impl fmt::Debug for UdsListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UdsListener")
            .field("path", &self.path)
            .field("made", &self.made.0)
            .finish_non_exhaustive()
    }
}
