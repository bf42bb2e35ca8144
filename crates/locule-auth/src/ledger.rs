use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant, SystemTime};

use locule_identity::{Grant, Identity, Party};
use locule_journal::{AppendError, Journal, ReplayError};
use locule_message::{Fqcn, Message, key};
use locule_switch::Now;
use thiserror::Error;

use crate::record::{Change, End, Fingerprint, Record, TokenKey, VERSION, unix};
use crate::state::{Entry, Holder, State};

/// Which tokens are in force: for whom, from which cell on, until when.
///
/// Every change is in the journal before it counts, so the tokens outlive the process: a stock site does
/// not register again by itself. Checks share a lock that is never held while the journal writes. The
/// methods that change something write to the journal and so may block; call them where that is allowed.
///
/// A site is *alive* after its registration and with each heartbeat, and *dropped* when it was silent too
/// long or the server has just started. A dropped site's token stays good; its next heartbeat, from the
/// cell it registered from and from nowhere else, makes it alive again. A token that was replaced, given
/// back, removed or revoked is gone for good.
pub struct TokenLedger {
    limits: LedgerLimits,
    state: RwLock<State>,
    book: Mutex<Book>,
}

/// The journal and how much of it is out of date.
#[derive(Debug)]
struct Book {
    journal: Box<dyn Journal>,
    records: usize,
}

/// Bounds of a [`TokenLedger`].
#[derive(Debug, Clone, Copy)]
pub struct LedgerLimits {
    /// Sites that are alive at one time.
    pub sites: usize,
    /// Sites that have a token, alive or dropped; the one dropped first makes room.
    pub known_sites: usize,
    /// Administrators' sessions at one time; the oldest makes room.
    pub admin_sessions: usize,
    /// Sessions of one administrator at one time; the oldest makes room.
    pub sessions_per_admin: usize,
    /// Registrations of one name that may follow each other at once.
    pub registrations_per_name: u32,
    /// How often one name may register for long.
    pub registration_interval: Duration,
    /// The same for an administrator, each of whose commands may be a visit of its own.
    pub admin_interval: Duration,
    /// Whether a name that is alive keeps its token against a newcomer. The wire's own rule is that the
    /// newcomer wins.
    pub first_wins: bool,
}

impl Default for LedgerLimits {
    fn default() -> Self {
        Self {
            sites: 100,
            known_sites: 1_000,
            admin_sessions: 64,
            sessions_per_admin: 8,
            registrations_per_name: 30,
            registration_interval: Duration::from_secs(10),
            admin_interval: Duration::from_secs(1),
            first_wins: false,
        }
    }
}

/// Records out of date that are kept before the journal is written anew.
const STALE_RECORDS: usize = 1_024;

/// What came of a grant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Issued {
    /// Whether the name had a token before, which is no longer good.
    pub replaced: bool,
    /// Whether that token's holder was alive: two processes may be fighting for one name.
    pub replaced_alive: bool,
}

/// What a heartbeat means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pulse {
    /// The site was alive already.
    Alive,
    /// The site was dropped and is back.
    Back,
}

impl TokenLedger {
    /// Takes up what the journal holds. Every site in it is dropped until it is heard of.
    ///
    /// # Errors
    /// [`LedgerError`] if the journal cannot be read or says what this version does not understand; a
    /// ledger with holes would let in whom it should not.
    pub fn open(mut journal: Box<dyn Journal>, limits: LedgerLimits) -> Result<Self, LedgerError> {
        let records = journal.replay()?;
        let mut state = State::default();
        for (index, bytes) in records.iter().enumerate() {
            let record = Record::read(bytes).map_err(|source| LedgerError::Record { index, source })?;
            if record.v != VERSION {
                return Err(LedgerError::Version { index, version: record.v });
            }
            state.apply(record.change, None);
        }
        let book = Mutex::new(Book { journal, records: records.len() });
        Ok(Self { limits, state: RwLock::new(state), book })
    }

    /// Puts a grant's token in force. An older token of the same site is no longer good; an administrator
    /// may have several sessions.
    ///
    /// # Errors
    /// [`IssueRefused`]; the grant must not be sent to its holder.
    pub fn issue(&self, grant: &Grant, now: Now) -> Result<Issued, IssueRefused> {
        let mut book = self.book();
        self.write().check_pace(grant, &self.limits, now.instant)?;
        let (changes, issued) = self.read().plan_issue(grant, &self.limits, now.wall)?;
        self.commit(&mut book, changes, Some(now.instant))?;
        if issued.replaced_alive {
            tracing::warn!(site = grant.name(), "site registered again while alive, its older token is void");
        }
        Ok(issued)
    }

    /// Checks the token that a message carries, and that the message comes from where the token is good.
    ///
    /// # Errors
    /// [`TokenRefused`]; the message must not be acted on.
    pub fn check(&self, message: &Message, now: Now) -> Result<Arc<Holder>, TokenRefused> {
        let header = |key| message.headers.str(key).ok_or(TokenRefused::Missing);
        let name = header(key::CLIENT_NAME)?;
        let token = TokenKey::new(name, header(key::TOKEN)?, header(key::TOKEN_SIGNATURE)?);
        let origin = message.origin().ok_or(TokenRefused::Missing)?;
        let state = self.read();
        let entry = state.tokens.get(&token).ok_or(TokenRefused::Unknown)?;
        if !entry.holder.origin.contains(&origin) {
            return Err(TokenRefused::Origin);
        }
        if entry.has_expired(now.wall) {
            return Err(TokenRefused::Expired);
        }
        Ok(Arc::clone(&entry.holder))
    }

    /// Whether somebody of this name has a token in force, granted to that cell, one above or one below.
    pub fn knows(&self, name: &str, cell: &Fqcn, now: Now) -> bool {
        let state = self.read();
        state.tokens.values().any(|entry| {
            let Holder { name: holder, origin, .. } = &*entry.holder;
            holder == name && (origin.contains(cell) || cell.contains(origin)) && !entry.has_expired(now.wall)
        })
    }

    /// Notes a heartbeat of the site `name` that came from the cell `origin`, after the gate.
    ///
    /// # Errors
    /// [`TokenRefused`] if that site has no token in force or registered from another cell, if its
    /// certificate has ended, or if as many sites are alive as may be.
    pub fn heartbeat(&self, name: &str, origin: &Fqcn, now: Now) -> Result<Pulse, TokenRefused> {
        let mut state = self.write();
        let is_back = state.site(name).is_some_and(|entry| !entry.holder.alive);
        let full = is_back && state.alive_sites() >= self.limits.sites;
        let entry = state.site_mut(name).ok_or(TokenRefused::Unknown)?;
        if entry.holder.origin != *origin {
            return Err(TokenRefused::Origin);
        }
        if entry.has_expired(now.wall) {
            return Err(TokenRefused::Expired);
        }
        if full {
            return Err(TokenRefused::Full);
        }
        entry.seen(now.instant);
        Ok(if is_back { Pulse::Back } else { Pulse::Alive })
    }

    /// Drops the sites that were silent for longer than `timeout`, and names them.
    pub fn drop_silent(&self, timeout: Duration, now: Instant) -> Vec<String> {
        let mut dropped = Vec::new();
        for entry in self.write().tokens.values_mut() {
            if entry.last_seen.is_some_and(|at| now.saturating_duration_since(at) > timeout) {
                entry.drop_out();
                dropped.push(entry.holder.name.clone());
            }
        }
        dropped.sort();
        dropped
    }

    /// Ends the tokens whose certificates have ended, and names their holders. Checks refuse them from
    /// their last moment on; this makes room.
    ///
    /// # Errors
    /// [`AppendError`] when the journal does not take it; nothing changed then.
    pub fn drop_expired(&self, wall: SystemTime) -> Result<Vec<String>, AppendError> {
        self.end(End::Expired, |entry| entry.has_expired(wall))
    }

    /// The site quits: its token is no longer good. Gives whether it had one.
    ///
    /// # Errors
    /// [`AppendError`] when the journal does not take it; nothing changed then.
    pub fn quit(&self, name: &str) -> Result<bool, AppendError> {
        let is_site = |entry: &Entry| entry.holder.name == name && entry.holder.party == Party::Site;
        Ok(!self.end(End::Quit, is_site)?.is_empty())
    }

    /// An administrator leaves the cell that it registered from: that cell's token is no longer good, and makes room
    /// for another. Gives whether it had one.
    ///
    /// # Errors
    /// [`AppendError`] when the journal does not take it; nothing changed then.
    pub fn leave(&self, name: &str, cell: &Fqcn) -> Result<bool, AppendError> {
        let is_theirs = |entry: &Entry| {
            let holder = &entry.holder;
            holder.party == Party::Admin && holder.name == name && holder.origin == *cell
        };
        Ok(!self.end(End::Quit, is_theirs)?.is_empty())
    }

    /// An operator removes a site or an administrator: its tokens are no longer good. It may register
    /// again; see [`TokenLedger::disable`]. Gives whether it had any.
    ///
    /// # Errors
    /// [`AppendError`] when the journal does not take it; nothing changed then.
    pub fn remove(&self, name: &str) -> Result<bool, AppendError> {
        Ok(!self.end(End::Removed, |entry| entry.holder.name == name)?.is_empty())
    }

    /// Removes a name and keeps it out until it is enabled.
    ///
    /// # Errors
    /// [`AppendError`] when the journal does not take it; nothing changed then.
    pub fn disable(&self, name: &str) -> Result<(), AppendError> {
        self.commit(&mut self.book(), vec![Change::Disabled { name: name.to_owned() }], None)
    }

    /// Lets a disabled name register again.
    ///
    /// # Errors
    /// [`AppendError`] when the journal does not take it; nothing changed then.
    pub fn enable(&self, name: &str) -> Result<(), AppendError> {
        self.commit(&mut self.book(), vec![Change::Enabled { name: name.to_owned() }], None)
    }

    /// Whether a name is kept out.
    pub fn is_disabled(&self, name: &str) -> bool {
        self.read().is_disabled(name)
    }

    /// Revokes a certificate, by the SHA-256 of its DER: its holder's tokens are no longer good, and it
    /// registers nobody any more.
    ///
    /// # Errors
    /// [`AppendError`] when the journal does not take it; nothing changed then.
    pub fn revoke(&self, fingerprint: [u8; 32]) -> Result<(), AppendError> {
        let change = Change::Revoked { fingerprint: Fingerprint(fingerprint) };
        self.commit(&mut self.book(), vec![change], None)
    }

    /// Adds a renewed certificate, verified by the caller, to those of the site that it names. Gives
    /// whether that site has a token.
    ///
    /// # Errors
    /// [`AppendError`] when the journal does not take it; nothing changed then.
    pub fn enrol(&self, renewed: &Identity) -> Result<bool, AppendError> {
        let mut book = self.book();
        let Some(token) = self.read().site_token(&renewed.common_name) else { return Ok(false) };
        let fingerprint = Fingerprint(renewed.fingerprint);
        let change = Change::Enrolled { token, fingerprint, not_after: unix(renewed.not_after) };
        self.commit(&mut book, vec![change], None)?;
        Ok(true)
    }

    /// The site of that name, alive or dropped.
    pub fn site(&self, name: &str) -> Option<Arc<Holder>> {
        self.read().site(name).map(|entry| Arc::clone(&entry.holder))
    }

    /// When the site of that name was heard of last; `None` if it is not alive.
    pub fn last_seen(&self, site: &str) -> Option<Instant> {
        self.read().site(site).and_then(|entry| entry.last_seen)
    }

    /// The administrator of that name who registered from that very cell.
    pub fn admin(&self, name: &str, cell: &Fqcn) -> Option<Arc<Holder>> {
        let state = self.read();
        let mut holders = state.tokens.values().map(|entry| &entry.holder);
        let is_theirs = |holder: &&Arc<Holder>| {
            holder.party == Party::Admin && holder.name == name && holder.origin == *cell
        };
        holders.find(is_theirs).map(Arc::clone)
    }

    /// Everybody who holds a token, by name and cell.
    pub fn holders(&self) -> Vec<Arc<Holder>> {
        let mut holders: Vec<_> =
            self.read().tokens.values().map(|entry| Arc::clone(&entry.holder)).collect();
        holders.sort_by(|a, b| (&a.name, &a.origin).cmp(&(&b.name, &b.origin)));
        holders
    }

    fn end(&self, why: End, which: impl Fn(&Entry) -> bool) -> Result<Vec<String>, AppendError> {
        let mut book = self.book();
        let (mut names, mut changes) = (Vec::new(), Vec::new());
        for (token, entry) in self.read().tokens.iter().filter(|(_, entry)| which(entry)) {
            names.push(entry.holder.name.clone());
            changes.push(Change::Ended { token: *token, why });
        }
        self.commit(&mut book, changes, None)?;
        names.sort();
        names.dedup();
        Ok(names)
    }

    /// Writes changes down, then makes them. The book stays locked from the moment that the changes were
    /// decided on, so no other change comes between; readers wait for no disk.
    fn commit(
        &self,
        book: &mut Book,
        changes: Vec<Change>,
        seen: Option<Instant>,
    ) -> Result<(), AppendError> {
        for change in changes {
            let record = Record { v: VERSION, change };
            book.journal.append(&record.to_bytes())?;
            book.records += 1;
            self.write().apply(record.change, seen);
        }
        let state = self.read();
        if book.records > state.live() + STALE_RECORDS {
            let live: Vec<_> = state.to_changes().map(|change| Record { v: VERSION, change }).collect();
            drop(state);
            // What was changed is on disk either way; a journal that is longer than need be is no fault.
            match book.journal.rewrite(&live.iter().map(Record::to_bytes).collect::<Vec<_>>()) {
                Ok(()) => book.records = live.len(),
                Err(error) => tracing::warn!(%error, "token journal was not shortened"),
            }
        }
        Ok(())
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for TokenLedger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenLedger").field("holders", &self.read().tokens.len()).finish_non_exhaustive()
    }
}

/// Why a ledger cannot be taken up.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// The journal cannot be read, or not be trusted.
    #[error("token journal is not readable")]
    Replay(#[from] ReplayError),
    /// A record is not one of a ledger.
    #[error("record {index} of the token journal is malformed")]
    Record {
        /// Its place, from 0 on.
        index: usize,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// A record is of another format; a newer version of the software wrote it.
    #[error("record {index} of the token journal has format {version}, not {VERSION}")]
    Version {
        /// Its place, from 0 on.
        index: usize,
        /// Its format.
        version: u32,
    },
}

/// Why a grant is not put in force.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum IssueRefused {
    /// The name is disabled.
    #[error("client is disabled")]
    Disabled,
    /// The certificate is revoked.
    #[error("certificate is revoked")]
    Revoked,
    /// The certificate has ended.
    #[error("certificate has expired")]
    Expired,
    /// As many sites are alive as may be.
    #[error("maximum number of clients reached")]
    Full,
    /// The name is alive, and the first holder keeps it.
    #[error("name is in use")]
    InUse,
    /// The name registers too often.
    #[error("too many registrations")]
    Busy {
        /// When it may be worth trying again.
        retry_after: Duration,
    },
    /// The cell that registers has no valid name.
    #[error("cell that registers has no valid name")]
    Origin,
    /// The journal did not take it.
    #[error("token could not be written down")]
    Journal(#[from] AppendError),
}

impl IssueRefused {
    /// Whether the same participant may be accepted later without anybody changing anything.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Full | Self::InUse | Self::Busy { .. } => true,
            Self::Journal(error) => error.is_retryable(),
            Self::Disabled | Self::Revoked | Self::Expired | Self::Origin => false,
        }
    }
}

/// Why a token does not let a message in.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TokenRefused {
    /// The message has no name, token, token signature or valid origin.
    #[error("message carries no token")]
    Missing,
    /// No such token is in force: never issued, or given back, replaced, removed or revoked.
    #[error("token is not in force: register again, as a site of nvflare does when it is started again")]
    Unknown,
    /// The token was granted to another cell.
    #[error("token was granted to another cell")]
    Origin,
    /// The certificate of the token's holder has ended.
    #[error("certificate has expired")]
    Expired,
    /// As many sites are alive as may be.
    #[error("maximum number of clients reached")]
    Full,
}
