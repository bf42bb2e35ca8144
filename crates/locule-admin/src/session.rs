//! Sessions of administrators: who is logged in, from which cell, and for how long.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use locule_auth::Holder;
use locule_identity::{SignError, Signer, Verifier, decode_signature, encode_signature};
use locule_message::Fqcn;
use serde::{Deserialize, Serialize};

use locule_rights::Who;

/// Longest token that is looked at, in bytes.
const MAX_TOKEN: usize = 8 << 10;

/// Ended sessions that are remembered, so that their tokens do not bring them back.
const ENDED: usize = 4_096;

/// The only study there is.
pub(crate) const STUDY: &str = "default";

/// What a session's token says; the server's signature over this text makes it one.
///
/// # Source
/// nvflare 2.9.0, `nvflare.fuel.hci.server.sess`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Claim {
    #[serde(rename = "n")]
    pub(crate) name: String,
    #[serde(rename = "r")]
    pub(crate) role: String,
    #[serde(rename = "o")]
    pub(crate) org: String,
    #[serde(rename = "s")]
    pub(crate) session: String,
    pub(crate) study: String,
    /// When the certificate ends, in seconds since the Unix epoch.
    #[serde(rename = "ce", default, skip_serializing_if = "Option::is_none")]
    pub(crate) expires: Option<f64>,
    /// When the session began, in seconds since the Unix epoch. Ours.
    #[serde(rename = "b", default)]
    pub(crate) began: f64,
}

impl Claim {
    /// The claim of a new session of whoever registered so.
    pub(crate) fn new(holder: &Holder, session: String, now: SystemTime) -> Self {
        Self {
            name: holder.name.clone(),
            role: holder.role.clone().unwrap_or_default(),
            org: holder.organization.clone().unwrap_or_default(),
            session,
            study: STUDY.to_owned(),
            expires: holder.not_after.map(seconds),
            began: seconds(now),
        }
    }

    /// The token. Blocking, as [`Signer::sign`] is.
    pub(crate) fn sign(&self, signer: &dyn Signer) -> Result<String, SignError> {
        let text = serde_json::to_string(self).expect("a claim has only text keys");
        let signature = signer.sign(text.as_bytes())?;
        Ok(format!("{}:{}", STANDARD.encode(&text), encode_signature(&signature)))
    }

    /// What a token says, if this server signed it.
    pub(crate) fn verify(token: &str, own: &dyn Signer, verifier: &dyn Verifier) -> Option<Self> {
        let (text, signature) = token.split_once(':').filter(|_| token.len() <= MAX_TOKEN)?;
        let (text, signature) = (STANDARD.decode(text).ok()?, decode_signature(signature)?);
        verifier.verify(own.identity(), &text, &signature).ok()?;
        serde_json::from_slice(&text).ok()
    }
}

/// A user who is logged in.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Session {
    pub(crate) claim: Claim,
    /// The cell that logged in; the session is good from there only.
    pub(crate) cell: Fqcn,
    pub(crate) last_active: Instant,
}

impl Session {
    pub(crate) fn who(&self) -> Who<'_> {
        Who { name: &self.claim.name, org: &self.claim.org, role: &self.claim.role }
    }
}

/// Bounds of the table of sessions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SessionLimits {
    /// At one time; the one that was idle for longest makes room.
    pub(crate) sessions: usize,
    /// Of one user.
    pub(crate) per_user: usize,
    /// A session ends when nothing is asked for so long.
    pub(crate) idle: Duration,
}

/// The sessions of now.
///
/// A token of an earlier run of the server counts as long as its certificate and the cell's registration do,
/// since a stock console does not log in again. A session that ended in this run stays ended.
#[derive(Debug)]
pub(crate) struct Sessions {
    limits: SessionLimits,
    /// When this run of the server began.
    began: f64,
    by_id: HashMap<String, Session>,
    ended: VecDeque<String>,
}

impl Sessions {
    pub(crate) fn new(limits: SessionLimits, began: SystemTime) -> Self {
        Self { limits, began: seconds(began), by_id: HashMap::new(), ended: VecDeque::new() }
    }

    /// Begins a session; those that had to make room.
    pub(crate) fn begin(&mut self, claim: Claim, cell: Fqcn, now: Instant) -> Vec<Session> {
        let mut displaced = Vec::new();
        let of_user = |session: &Session| session.claim.name == claim.name;
        while self.by_id.values().filter(|session| of_user(session)).count() >= self.limits.per_user.max(1) {
            displaced.extend(self.end_idlest(of_user));
        }
        while self.by_id.len() >= self.limits.sessions.max(1) {
            displaced.extend(self.end_idlest(|_| true));
        }
        self.by_id.insert(claim.session.clone(), Session { claim, cell, last_active: now });
        displaced
    }

    /// The session of a token that was verified, for whoever registered from `cell` as `holder`.
    pub(crate) fn check(
        &mut self,
        claim: Claim,
        holder: &Holder,
        cell: &Fqcn,
        now: Instant,
        wall: SystemTime,
    ) -> Option<Session> {
        let theirs = claim.name == holder.name
            && Some(claim.role.as_str()) == holder.role.as_deref()
            && claim.org == holder.organization.as_deref().unwrap_or_default();
        let expired = claim.expires.is_some_and(|end| seconds(wall) >= end);
        if !theirs || expired {
            return None;
        }
        if let Some(session) = self.by_id.get_mut(&claim.session) {
            let idle = now.saturating_duration_since(session.last_active) > self.limits.idle;
            if idle || session.cell != *cell {
                return None;
            }
            session.last_active = now;
            return Some(session.clone());
        }
        if claim.began >= self.began || self.ended.contains(&claim.session) {
            return None;
        }
        let id = claim.session.clone();
        self.begin(claim, cell.clone(), now);
        self.by_id.get(&id).cloned()
    }

    /// Something goes on in a session, such as a download.
    pub(crate) fn touch(&mut self, id: &str, now: Instant) {
        if let Some(session) = self.by_id.get_mut(id) {
            session.last_active = now;
        }
    }

    pub(crate) fn end(&mut self, id: &str) -> Option<Session> {
        let session = self.by_id.remove(id)?;
        if self.ended.len() == ENDED {
            self.ended.pop_front();
        }
        self.ended.push_back(id.to_owned());
        Some(session)
    }

    /// Ends the sessions that were idle for too long or whose certificate has ended.
    pub(crate) fn sweep(&mut self, now: Instant, wall: SystemTime) -> Vec<Session> {
        let over = |session: &Session| {
            now.saturating_duration_since(session.last_active) > self.limits.idle
                || session.claim.expires.is_some_and(|end| seconds(wall) >= end)
        };
        let over: Vec<String> =
            self.by_id.iter().filter(|(_, session)| over(session)).map(|(id, _)| id.clone()).collect();
        over.iter().filter_map(|id| self.end(id)).collect()
    }

    /// All sessions, by user.
    pub(crate) fn all(&self) -> Vec<&Session> {
        let mut sessions: Vec<&Session> = self.by_id.values().collect();
        sessions.sort_by(|a, b| (&a.claim.name, &a.claim.session).cmp(&(&b.claim.name, &b.claim.session)));
        sessions
    }

    fn end_idlest(&mut self, among: impl Fn(&Session) -> bool) -> Option<Session> {
        let candidates = self.by_id.values().filter(|session| among(session));
        let id = candidates.min_by_key(|session| session.last_active)?.claim.session.clone();
        self.end(&id)
    }
}

fn seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).map_or(0.0, |elapsed| elapsed.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use locule_identity::Party;

    use super::*;

    const LIMITS: SessionLimits =
        SessionLimits { sessions: 3, per_user: 2, idle: Duration::from_secs(1_800) };
    const CELL: &str = "_admin_1f9257b4-7111-42d0-84a4-5beac975f581";

    fn holder(name: &str) -> Holder {
        Holder {
            name: name.into(),
            origin: CELL.parse().unwrap(),
            party: Party::Admin,
            organization: Some("ward".into()),
            role: Some("lead".into()),
            not_after: Some(at(10_000)),
            dialect: None,
            alive: true,
        }
    }

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn sessions() -> Sessions {
        Sessions::new(LIMITS, at(100))
    }

    fn claim(name: &str, session: &str, began: u64) -> Claim {
        Claim::new(&holder(name), session.into(), at(began))
    }

    fn check(sessions: &mut Sessions, claim: &Claim, name: &str, cell: &str, now: Instant) -> bool {
        sessions.check(claim.clone(), &holder(name), &cell.parse().unwrap(), now, at(200)).is_some()
    }

    #[test]
    fn a_session_is_good_for_its_user_at_its_cell_until_it_was_idle_too_long() {
        let (mut sessions, now) = (sessions(), Instant::now());
        let claim = claim("ann", "s1", 150);
        sessions.begin(claim.clone(), CELL.parse().unwrap(), now);
        assert!(check(&mut sessions, &claim, "ann", CELL, now));
        assert!(!check(&mut sessions, &claim, "bob", CELL, now), "registered as another");
        assert!(!check(&mut sessions, &claim, "ann", "_admin_0", now), "from another cell");
        let later = now + LIMITS.idle;
        assert!(check(&mut sessions, &claim, "ann", CELL, later), "just in time, and the clock starts anew");
        assert!(!check(&mut sessions, &claim, "ann", CELL, later + LIMITS.idle + Duration::from_secs(1)));
    }

    #[test]
    fn what_ended_stays_ended() {
        let (mut sessions, now) = (sessions(), Instant::now());
        let old = claim("ann", "s1", 50);
        assert!(check(&mut sessions, &old, "ann", CELL, now), "of an earlier run of the server");
        assert!(sessions.end("s1").is_some());
        assert!(!check(&mut sessions, &old, "ann", CELL, now));
        let unknown = claim("ann", "s2", 150);
        assert!(!check(&mut sessions, &unknown, "ann", CELL, now), "of this run, and yet not known");
    }

    #[test]
    fn a_session_ends_with_its_certificate() {
        let (mut sessions, now) = (sessions(), Instant::now());
        let claim = claim("ann", "s1", 150);
        sessions.begin(claim.clone(), CELL.parse().unwrap(), now);
        let late = at(10_000);
        assert!(sessions.check(claim, &holder("ann"), &CELL.parse().unwrap(), now, late).is_none());
        assert_eq!(sessions.sweep(now, late).len(), 1);
        assert!(sessions.all().is_empty());
    }

    #[test]
    fn the_table_is_bounded_for_each_user_and_for_all() {
        let (mut sessions, now) = (sessions(), Instant::now());
        let begin = |sessions: &mut Sessions, user: &str, id: &str, after: u64| {
            let now = now + Duration::from_secs(after);
            let displaced = sessions.begin(claim(user, id, 150), CELL.parse().unwrap(), now);
            displaced.into_iter().map(|session| session.claim.session).collect::<Vec<_>>()
        };
        assert!(begin(&mut sessions, "ann", "a1", 0).is_empty());
        assert!(begin(&mut sessions, "ann", "a2", 1).is_empty());
        assert_eq!(begin(&mut sessions, "ann", "a3", 2), ["a1"], "two of one user");
        assert!(begin(&mut sessions, "bob", "b1", 3).is_empty());
        assert_eq!(begin(&mut sessions, "eve", "e1", 4), ["a2"], "three in all");
    }
}
