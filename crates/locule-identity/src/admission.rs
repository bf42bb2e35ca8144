use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand_core::RngCore;
use thiserror::Error;

use crate::certificate::{Identity, SignError, Signer};
use crate::grant::{OpenChallenge, Party};
use crate::name::{NameError, check_name, check_name_against_server, shown};
use crate::pace::Pace;
use crate::site::ServerProof;
use crate::statement::{is_canonical_uuid, proof_text, random_uuid};

/// Longest cell name that may open a challenge, in bytes.
const MAX_ORIGIN_LEN: usize = 255;

/// The server's table of open challenges: bounded, paced, each nonce good for one registration.
///
/// Entries are keyed by link *and* origin, so nobody spoils another's registration by opening a
/// challenge under its name, and a registration must come the way its challenge came. The table does no
/// signing: [`Admission::open`] gives an [`Opening`], to be proved on another thread while the table
/// serves others.
#[derive(Debug)]
pub struct Admission {
    own: Arc<Identity>,
    limits: AdmissionLimits,
    open: HashMap<(u64, String), Pending>,
    open_per_link: HashMap<u64, usize>,
    swept: Option<Instant>,
    pace: Pace<()>,
    pace_per_link: Pace<u64>,
    pace_per_origin: Pace<(u64, String)>,
}

#[derive(Debug)]
struct Pending {
    claimed: String,
    party: Party,
    nonce: String,
    opened: Instant,
}

/// Bounds of an [`Admission`].
#[derive(Debug, Clone, Copy)]
pub struct AdmissionLimits {
    /// Open challenges in all. An entry is at most 512 bytes.
    pub open: usize,
    /// Open challenges that came over one link.
    pub open_per_link: usize,
    /// How long a nonce is good.
    pub life: Duration,
    /// Challenges a second, in all. Each costs an RSA signature.
    pub rate: u32,
    /// Challenges a second over one link; a link to a relay carries many sites.
    pub rate_per_link: u32,
    /// Challenges a second of one origin over one link.
    pub rate_per_origin: u32,
}

impl Default for AdmissionLimits {
    fn default() -> Self {
        Self {
            open: 4_096,
            open_per_link: 1_024,
            life: Duration::from_secs(60),
            rate: 200,
            rate_per_link: 100,
            rate_per_origin: 10,
        }
    }
}

impl Admission {
    /// A table without open challenges, of the server that holds the certificate `own`.
    pub fn new(own: Identity, limits: AdmissionLimits) -> Self {
        Self {
            own: Arc::new(own),
            limits,
            open: HashMap::new(),
            open_per_link: HashMap::new(),
            swept: None,
            pace: Pace::per_second(limits.rate),
            pace_per_link: Pace::per_second(limits.rate_per_link),
            pace_per_origin: Pace::per_second(limits.rate_per_origin),
        }
    }

    /// Opens a challenge that arrived over `link` from the cell `origin`, in place of an older one of
    /// the two.
    ///
    /// `origin` must be the claimant's cell: its last segment is `claimed_cn`, or it is the session of
    /// an administrator, `_admin_<uuid>`. That the cell at the other end of the link may speak for
    /// `origin` is for the gate to check.
    ///
    /// # Errors
    /// [`ChallengeRefused`]; nothing was recorded, and nothing was signed.
    pub fn open(
        &mut self,
        link: u64,
        origin: &str,
        claimed_cn: &str,
        client_nonce: &str,
        rng: &mut dyn RngCore,
        now: Instant,
    ) -> Result<Opening, ChallengeRefused> {
        check_name(claimed_cn)?;
        check_name_against_server(claimed_cn, &self.own.common_name)?;
        let party = party_at(origin, claimed_cn)
            .ok_or_else(|| ChallengeRefused::Origin { origin: shown(origin), claimed: shown(claimed_cn) })?;
        if !is_canonical_uuid(client_nonce) {
            return Err(ChallengeRefused::Nonce);
        }
        self.sweep(now);
        let key = (link, origin.to_owned());
        self.check_pace(&key, now)?;
        self.check_room(&key)?;

        self.pace.count((), now);
        self.pace_per_link.count(link, now);
        self.pace_per_origin.count(key.clone(), now);
        let nonce = random_uuid(rng);
        let pending = Pending { claimed: claimed_cn.to_owned(), party, nonce: nonce.clone(), opened: now };
        if self.open.insert(key, pending).is_none() {
            *self.open_per_link.entry(link).or_default() += 1;
        }
        Ok(Opening { own: Arc::clone(&self.own), client_nonce: client_nonce.to_owned(), nonce })
    }

    /// Takes the open challenge of `origin` over `link`. Whatever becomes of the registration, its nonce
    /// is used up.
    ///
    /// `None` if there is none: no challenge, another link or origin, taken before, or too old.
    pub fn take(&mut self, link: u64, origin: &str, now: Instant) -> Option<OpenChallenge> {
        let key = (link, origin.to_owned());
        let pending = self.open.remove(&key)?;
        self.closed(link);
        if now.saturating_duration_since(pending.opened) > self.limits.life {
            return None;
        }
        Some(OpenChallenge {
            own: Arc::clone(&self.own),
            origin: key.1,
            claimed: pending.claimed,
            party: pending.party,
            nonce: pending.nonce,
        })
    }

    /// Forgets what a link that is gone had opened.
    pub fn link_down(&mut self, link: u64) {
        self.open.retain(|key, _| key.0 != link);
        self.open_per_link.remove(&link);
    }

    /// How many challenges are open, those too old included until they are swept.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether no challenge is open.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    fn check_pace(&self, key: &(u64, String), now: Instant) -> Result<(), ChallengeRefused> {
        let wait = (self.pace_per_origin.wait(key, now))
            .max(self.pace_per_link.wait(&key.0, now))
            .max(self.pace.wait(&(), now));
        if wait.is_zero() { Ok(()) } else { Err(ChallengeRefused::Busy { retry_after: wait }) }
    }

    fn check_room(&self, key: &(u64, String)) -> Result<(), ChallengeRefused> {
        let on_link = self.open_per_link.get(&key.0).copied().unwrap_or_default();
        let full = self.open.len() >= self.limits.open || on_link >= self.limits.open_per_link;
        if full && !self.open.contains_key(key) {
            return Err(ChallengeRefused::Busy { retry_after: self.limits.life });
        }
        Ok(())
    }

    /// Drops what is too old, at most once a second, so that a flood does not pay for it each time.
    fn sweep(&mut self, now: Instant) {
        if self.swept.is_some_and(|at| now.saturating_duration_since(at) < Duration::from_secs(1)) {
            return;
        }
        self.swept = Some(now);
        let life = self.limits.life;
        self.open.retain(|_, pending| now.saturating_duration_since(pending.opened) <= life);
        self.open_per_link.clear();
        for (link, _) in self.open.keys() {
            *self.open_per_link.entry(*link).or_default() += 1;
        }
        self.pace_per_link.forget_idle(now);
        self.pace_per_origin.forget_idle(now);
    }

    fn closed(&mut self, link: u64) {
        if let Some(count) = self.open_per_link.get_mut(&link) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.open_per_link.remove(&link);
            }
        }
    }
}

/// A challenge that was recorded and still has to be signed.
#[derive(Debug)]
pub struct Opening {
    own: Arc<Identity>,
    client_nonce: String,
    nonce: String,
}

impl Opening {
    /// Signs the site's nonce. Blocking, as [`Signer::sign`] is.
    ///
    /// # Errors
    /// [`SignError`] when the key refuses or is not this server's.
    pub fn prove(self, signer: &dyn Signer) -> Result<ServerProof, SignError> {
        if signer.identity().fingerprint != self.own.fingerprint {
            return Err(SignError::OtherSigner);
        }
        let cn = self.own.common_name.clone();
        let signature = signer.sign(&proof_text(&cn, &self.client_nonce))?;
        Ok(ServerProof { nonce: self.nonce, cn, cert: signer.certificate_pem().to_vec(), signature })
    }
}

/// Why a challenge is not opened.
#[derive(Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChallengeRefused {
    /// The claimed name cannot be a participant's here.
    #[error("claimed name is not usable")]
    Name(#[from] NameError),
    /// The cell that asks is not the claimant's.
    #[error("cell {origin} may not register {claimed}")]
    Origin {
        /// Name of the cell, escaped and shortened.
        origin: String,
        /// Claimed name, escaped and shortened.
        claimed: String,
    },
    /// The nonce is not a canonical UUID, so signing it could mean something else.
    #[error("nonce is not a canonical uuid")]
    Nonce,
    /// Too many challenges, of this origin, over this link or in all. A stock site tries again after
    /// the return code `comm_error`, and gives up after any other.
    #[error("too many challenges")]
    Busy {
        /// When it may be worth trying again.
        retry_after: Duration,
    },
}

impl ChallengeRefused {
    /// Whether the same challenge may be accepted later.
    pub fn is_retryable(&self) -> bool {
        match self {
            ChallengeRefused::Busy { .. } => true,
            ChallengeRefused::Name(_) | ChallengeRefused::Origin { .. } | ChallengeRefused::Nonce => false,
        }
    }
}

/// Which party a cell of that name can register for `claimed_cn`.
fn party_at(origin: &str, claimed_cn: &str) -> Option<Party> {
    if origin.len() > MAX_ORIGIN_LEN {
        return None;
    }
    if let Some(session) = origin.strip_prefix("_admin_") {
        return is_canonical_uuid(session).then_some(Party::Admin);
    }
    let mut segments = origin.split('.');
    let root = segments.next()?;
    let leaf = segments.next_back().unwrap_or(root);
    (root != "server" && leaf == claimed_cn).then_some(Party::Site)
}
