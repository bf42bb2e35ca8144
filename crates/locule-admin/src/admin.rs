//! The desk for administrators of a running server.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use locule_auth::TokenLedger;
use locule_cell::Cell;
use locule_identity::{Signer, Verifier};
use locule_job::Limits;
use locule_server::Server;
use tokio::sync::Semaphore;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::desk::{self, Desk, lock};
use crate::download::{FileSource, SourceLimits};
use crate::session::{SessionLimits, Sessions};
use crate::upload::{UploadLimits, Uploads};
use locule_rights::Rights;

/// From one look at what takes too long to the next.
const SWEEP: Duration = Duration::from_secs(5);

/// Signatures made or checked at the same time.
const SIGNERS: usize = 2;

/// Bounds and waits of a desk.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct AdminSettings {
    /// A session ends when nothing is asked for so long (1800 s).
    pub idle_timeout: Duration,
    /// Sessions at one time (64).
    pub sessions: usize,
    /// Sessions of one user (8).
    pub sessions_per_user: usize,
    /// How long sites may take to answer what a command asks them, unless it says so itself (4 s): a console
    /// waits for 5.
    pub order_timeout: Duration,
    /// Bytes of a job that is sent (1 GiB).
    pub upload_bytes: u64,
    /// Jobs that are being sent at one time (8), 2 of one console.
    pub uploads: usize,
    /// Bytes of the results that are packed to be fetched (64 GiB).
    pub result_bytes: u64,
    /// Bounds of what waits to be fetched.
    pub downloads: SourceLimits,
}

impl Default for AdminSettings {
    fn default() -> Self {
        Self {
            idle_timeout: Duration::from_secs(1_800),
            sessions: 64,
            sessions_per_user: 8,
            order_timeout: Duration::from_secs(4),
            upload_bytes: Limits::default().max_bytes,
            uploads: 8,
            result_bytes: 64 << 30,
            downloads: SourceLimits::default(),
        }
    }
}

/// What a desk is made of.
pub struct AdminParts {
    /// The server.
    pub server: Server,
    /// Its cell.
    pub cell: Cell,
    /// Signs with the server's key.
    pub signer: Arc<dyn Signer>,
    /// Judges certificates under the project's root.
    pub verifier: Arc<dyn Verifier>,
    /// Who registered; the cell's gate asks the same ledger.
    pub ledger: Arc<TokenLedger>,
    /// Who may do what.
    pub rights: Rights,
    /// The server's state folder; what is sent and fetched is spooled below it.
    pub state: PathBuf,
    /// Cancelled when an administrator shuts the server down.
    pub stop: CancellationToken,
}

impl fmt::Debug for AdminParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminParts").field("state", &self.state).finish_non_exhaustive()
    }
}

/// An open desk. It closes when this is dropped.
#[derive(Debug)]
pub struct Admin {
    _desk: Arc<Desk>,
    _sweeping: DropGuard,
}

impl Admin {
    /// Opens a desk at a server. Must be called in a tokio runtime.
    ///
    /// What an earlier run of the server had spooled is removed.
    ///
    /// # Errors
    /// If the folders for spooling cannot be made.
    pub fn open(settings: AdminSettings, parts: AdminParts) -> io::Result<Self> {
        let AdminParts { server, cell, signer, verifier, ledger, rights, state, stop } = parts;
        let (inbox, outbox) = (empty(&state.join("uploads"))?, empty(&state.join("downloads"))?);
        let sessions = SessionLimits {
            sessions: settings.sessions,
            per_user: settings.sessions_per_user,
            idle: settings.idle_timeout,
        };
        let uploads = UploadLimits {
            uploads: settings.uploads,
            per_cell: 2,
            bytes: settings.upload_bytes,
            idle: Duration::from_secs(60),
            whole: Duration::from_secs(3_600),
        };
        let desk = Arc::new(Desk {
            settings,
            org: signer.identity().organization.clone().unwrap_or_default(),
            server,
            cell,
            signer,
            verifier,
            ledger,
            rights,
            inbox,
            outbox,
            stop,
            signing: Arc::new(Semaphore::new(SIGNERS)),
            sessions: Mutex::new(Sessions::new(sessions, SystemTime::now())),
            uploads: Mutex::new(Uploads::new(uploads)),
            downloads: Mutex::new(FileSource::new(settings.downloads)),
            news: Mutex::default(),
            leaving: Mutex::default(),
        });
        desk::open(&desk);
        let over = CancellationToken::new();
        tokio::spawn(sweep(Arc::clone(&desk), over.clone()));
        tokio::spawn(listen(Arc::clone(&desk), over.clone()));
        tokio::spawn(see_off(Arc::clone(&desk), over.clone()));
        Ok(Self { _desk: desk, _sweeping: over.drop_guard() })
    }
}

/// Makes a folder that is empty, and open to its owner only.
fn empty(folder: &Path) -> io::Result<PathBuf> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(folder)?;
    Ok(folder.to_owned())
}

/// Waits for the links of those who have logged out to go down.
async fn see_off(desk: Arc<Desk>, over: CancellationToken) {
    let mut links = desk.cell.links();
    loop {
        tokio::select! {
            changed = links.changed() => if changed.is_err() { return },
            () = over.cancelled() => return,
        }
        let neighbours = links.borrow_and_update().clone();
        desk.see_off(&neighbours).await;
    }
}

/// Keeps what the server tells of its jobs.
async fn listen(desk: Arc<Desk>, over: CancellationToken) {
    let mut events = desk.server.events();
    loop {
        let event = tokio::select! {
            event = events.recv() => event,
            () = over.cancelled() => return,
        };
        match event {
            Ok(event) => lock(&desk.news).hear(&event),
            // What was missed is told again by what comes next.
            Err(RecvError::Lagged(missed)) => tracing::debug!(missed, "events were not heard"),
            Err(RecvError::Closed) => return,
        }
    }
}

/// Ends what takes too long.
async fn sweep(desk: Arc<Desk>, over: CancellationToken) {
    let mut ticks = tokio::time::interval(SWEEP);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = over.cancelled() => return,
        }
        let now = desk::now();
        let ended = lock(&desk.sessions).sweep(now, SystemTime::now());
        for session in ended {
            desk.dismiss(session).await;
        }
        let late = lock(&desk.uploads).sweep(now);
        lock(&desk.downloads).sweep(now);
        desk.clear(late).await;
    }
}
