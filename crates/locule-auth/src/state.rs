//! The ledger's table: what follows from the records, and nothing else but who was heard of lately.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use locule_identity::{Grant, Party};
use locule_message::Fqcn;

use crate::ledger::{IssueRefused, Issued, LedgerLimits};
use crate::record::{CellName, Change, End, Fingerprint, IssuedToken, TokenKey, from_unix, unix};

/// Certificates that one holder may have enrolled, renewals included; the first makes room.
const MAX_FINGERPRINTS: usize = 8;

/// Who holds a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The name that it was granted to.
    pub name: String,
    /// The cell that registered; the token is good from there and below.
    pub origin: Fqcn,
    /// As what it registered.
    pub party: Party,
    /// The organisation in its certificate.
    pub organization: Option<String>,
    /// An administrator's role.
    pub role: Option<String>,
    /// When its certificate ends; `None` without certificate.
    pub not_after: Option<SystemTime>,
    /// The dialect that it speaks, by name; `None` for the newest.
    pub dialect: Option<String>,
    /// Whether a site was heard of lately. An administrator's session sends no heartbeats and always
    /// counts as alive.
    pub alive: bool,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) tokens: HashMap<TokenKey, Entry>,
    disabled: BTreeSet<String>,
    revoked: BTreeSet<Fingerprint>,
    sites: HashMap<String, TokenKey>,
    issued: u64,
    /// For each name that registered lately, when its allowance is whole again.
    paces: HashMap<String, Instant>,
}

#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) holder: Arc<Holder>,
    pub(crate) last_seen: Option<Instant>,
    /// In order of enrolment.
    fingerprints: Vec<Fingerprint>,
    /// Place in the order of issue.
    order: u64,
}

impl Entry {
    pub(crate) fn has_expired(&self, wall: SystemTime) -> bool {
        self.holder.not_after.is_some_and(|end| wall > end)
    }

    pub(crate) fn seen(&mut self, at: Instant) {
        self.last_seen = Some(at);
        self.set_alive(true);
    }

    pub(crate) fn drop_out(&mut self) {
        self.last_seen = None;
        self.set_alive(false);
    }

    fn set_alive(&mut self, alive: bool) {
        if self.holder.alive != alive {
            Arc::make_mut(&mut self.holder).alive = alive;
        }
    }

    fn enrol(&mut self, fingerprint: Fingerprint, not_after: u64) {
        if self.fingerprints.contains(&fingerprint) {
            return;
        }
        if self.fingerprints.len() == MAX_FINGERPRINTS {
            self.fingerprints.remove(0);
        }
        self.fingerprints.push(fingerprint);
        let holder = Arc::make_mut(&mut self.holder);
        holder.not_after = holder.not_after.max(Some(from_unix(not_after)));
    }

    fn to_issued(&self, token: TokenKey) -> IssuedToken {
        IssuedToken {
            token,
            name: self.holder.name.clone(),
            origin: CellName(self.holder.origin.clone()),
            admin: self.holder.party == Party::Admin,
            relay: self.holder.party == Party::Relay,
            organization: self.holder.organization.clone(),
            role: self.holder.role.clone(),
            fingerprints: self.fingerprints.clone(),
            not_after: self.holder.not_after.map(unix),
            dialect: self.holder.dialect.clone(),
        }
    }
}

/// A grant as it is written down.
fn to_record(grant: &Grant) -> Result<IssuedToken, IssueRefused> {
    let origin = Fqcn::parse(grant.origin()).map_err(|_| IssueRefused::Origin)?;
    let identity = grant.identity();
    Ok(IssuedToken {
        token: TokenKey::new(grant.name(), grant.token().expose(), grant.signature().expose()),
        name: grant.name().to_owned(),
        origin: CellName(origin),
        admin: grant.party() == Party::Admin,
        relay: grant.party() == Party::Relay,
        organization: identity.and_then(|identity| identity.organization.clone()),
        role: identity.and_then(|identity| identity.role.clone()),
        fingerprints: identity.map(|identity| Fingerprint(identity.fingerprint)).into_iter().collect(),
        not_after: identity.map(|identity| unix(identity.not_after)),
        dialect: grant.dialect().map(str::to_owned),
    })
}

impl State {
    /// Makes a change. `seen` is the moment at which a token is issued; `None` for what a journal says.
    pub(crate) fn apply(&mut self, change: Change, seen: Option<Instant>) {
        match change {
            Change::Issued(issued) => self.insert(issued, seen),
            Change::Ended { token, why: _ } => self.delete(token),
            Change::Disabled { name } => {
                self.delete_where(|entry| entry.holder.name == name);
                self.disabled.insert(name);
            }
            Change::Enabled { name } => {
                self.disabled.remove(&name);
            }
            Change::Revoked { fingerprint } => {
                self.delete_where(|entry| entry.fingerprints.contains(&fingerprint));
                self.revoked.insert(fingerprint);
            }
            Change::Enrolled { token, fingerprint, not_after } => {
                if let Some(entry) = self.tokens.get_mut(&token) {
                    entry.enrol(fingerprint, not_after);
                }
            }
        }
    }

    /// The changes that lead from an empty table to this one.
    pub(crate) fn to_changes(&self) -> impl Iterator<Item = Change> {
        let mut entries: Vec<_> = self.tokens.iter().collect();
        entries.sort_by_key(|(_, entry)| entry.order);
        let disabled = self.disabled.iter().map(|name| Change::Disabled { name: name.clone() });
        let revoked = self.revoked.iter().map(|fingerprint| Change::Revoked { fingerprint: *fingerprint });
        let issued = entries.into_iter().map(|(token, entry)| Change::Issued(entry.to_issued(*token)));
        disabled.chain(revoked).chain(issued)
    }

    /// How many changes [`State::to_changes`] gives.
    pub(crate) fn live(&self) -> usize {
        self.tokens.len() + self.disabled.len() + self.revoked.len()
    }

    /// Counts one registration.
    pub(crate) fn check_pace(
        &mut self,
        grant: &Grant,
        limits: &LedgerLimits,
        now: Instant,
    ) -> Result<(), IssueRefused> {
        self.paces.retain(|_, whole_again| *whole_again > now);
        let (name, interval) = match grant.party() {
            Party::Admin => (grant.name(), limits.admin_interval),
            Party::Site | Party::Relay => (grant.name(), limits.registration_interval),
        };
        let burst = interval * limits.registrations_per_name.saturating_sub(1);
        let at = self.paces.get(name).copied().unwrap_or(now);
        let wait = at.saturating_duration_since(now).saturating_sub(burst);
        let full = self.paces.len() >= limits.known_sites + limits.admin_sessions;
        if !wait.is_zero() || (full && !self.paces.contains_key(name)) {
            return Err(IssueRefused::Busy { retry_after: wait.max(Duration::from_secs(1)) });
        }
        self.paces.insert(name.to_owned(), at + interval);
        Ok(())
    }

    /// What has to be written down to put a grant in force.
    pub(crate) fn plan_issue(
        &self,
        grant: &Grant,
        limits: &LedgerLimits,
        wall: SystemTime,
    ) -> Result<(Vec<Change>, Issued), IssueRefused> {
        let issued = to_record(grant)?;
        if self.disabled.contains(grant.name()) {
            return Err(IssueRefused::Disabled);
        }
        if issued.fingerprints.iter().any(|fingerprint| self.revoked.contains(fingerprint)) {
            return Err(IssueRefused::Revoked);
        }
        if issued.not_after.is_some_and(|end| wall > from_unix(end)) {
            return Err(IssueRefused::Expired);
        }
        let (mut changes, outcome) = match grant.party() {
            Party::Site => self.room_for_site(grant.name(), limits)?,
            Party::Relay => (self.earlier_of_relay(grant.name()), Issued::default()),
            Party::Admin => (self.room_for_session(grant.name(), limits), Issued::default()),
        };
        changes.push(Change::Issued(issued));
        Ok((changes, outcome))
    }

    pub(crate) fn is_disabled(&self, name: &str) -> bool {
        self.disabled.contains(name)
    }

    pub(crate) fn site_token(&self, name: &str) -> Option<TokenKey> {
        self.sites.get(name).copied()
    }

    pub(crate) fn site(&self, name: &str) -> Option<&Entry> {
        self.tokens.get(self.sites.get(name)?)
    }

    pub(crate) fn site_mut(&mut self, name: &str) -> Option<&mut Entry> {
        self.tokens.get_mut(self.sites.get(name)?)
    }

    pub(crate) fn alive_sites(&self) -> usize {
        self.all_sites().filter(|(_, entry)| entry.holder.alive).count()
    }

    fn all_sites(&self) -> impl Iterator<Item = (TokenKey, &Entry)> {
        self.sites.values().filter_map(|token| Some((*token, self.tokens.get(token)?)))
    }

    /// Whether one more site may be alive, and which dropped one has to go for it.
    fn room_for_site(
        &self,
        name: &str,
        limits: &LedgerLimits,
    ) -> Result<(Vec<Change>, Issued), IssueRefused> {
        let old = self.site(name);
        let replaced_alive = old.is_some_and(|entry| entry.holder.alive);
        if replaced_alive && limits.first_wins {
            return Err(IssueRefused::InUse);
        }
        if !replaced_alive && self.alive_sites() >= limits.sites {
            return Err(IssueRefused::Full);
        }
        let mut displaced = Vec::new();
        if old.is_none() && self.sites.len() >= limits.known_sites {
            let dropped = self.all_sites().filter(|(_, entry)| !entry.holder.alive);
            let (token, _) = dropped.min_by_key(|(_, entry)| entry.order).ok_or(IssueRefused::Full)?;
            displaced.push(Change::Ended { token, why: End::Displaced });
        }
        Ok((displaced, Issued { replaced: old.is_some(), replaced_alive }))
    }

    /// The token that a relay had before.
    fn earlier_of_relay(&self, name: &str) -> Vec<Change> {
        let of_it = |entry: &Entry| entry.holder.party == Party::Relay && entry.holder.name == name;
        let tokens = self.tokens.iter().filter(|(_, entry)| of_it(entry)).map(|(token, _)| *token);
        tokens.map(|token| Change::Ended { token, why: End::Displaced }).collect()
    }

    /// The oldest sessions that have to go for one more of `name`.
    fn room_for_session(&self, name: &str, limits: &LedgerLimits) -> Vec<Change> {
        let mut all: Vec<_> =
            self.tokens.iter().filter(|(_, entry)| entry.holder.party == Party::Admin).collect();
        all.sort_by_key(|(_, entry)| entry.order);
        let own: Vec<_> = all.iter().filter(|(_, entry)| entry.holder.name == name).copied().collect();
        let beyond = |sessions: &[_], most: usize| (sessions.len() + 1).saturating_sub(most.max(1));
        let own_excess = beyond(&own, limits.sessions_per_admin);
        let all_excess = beyond(&all, limits.admin_sessions);
        let displaced = own.iter().take(own_excess).chain(all.iter().take(all_excess));
        let tokens: BTreeSet<TokenKey> = displaced.map(|(token, _)| **token).collect();
        tokens.into_iter().map(|token| Change::Ended { token, why: End::Displaced }).collect()
    }

    fn insert(&mut self, issued: IssuedToken, seen: Option<Instant>) {
        let party = match (issued.admin, issued.relay) {
            (true, _) => Party::Admin,
            (false, true) => Party::Relay,
            (false, false) => Party::Site,
        };
        if party == Party::Site
            && let Some(old) = self.sites.insert(issued.name.clone(), issued.token)
        {
            self.tokens.remove(&old);
        }
        let last_seen = seen.filter(|_| party == Party::Site);
        let holder = Holder {
            name: issued.name,
            origin: issued.origin.0,
            party,
            organization: issued.organization,
            role: issued.role,
            not_after: issued.not_after.map(from_unix),
            dialect: issued.dialect,
            alive: party != Party::Site || last_seen.is_some(),
        };
        let order = self.issued;
        self.issued += 1;
        let fingerprints = issued.fingerprints;
        let entry = Entry { holder: Arc::new(holder), last_seen, fingerprints, order };
        self.tokens.insert(issued.token, entry);
    }

    fn delete(&mut self, token: TokenKey) {
        let Some(entry) = self.tokens.remove(&token) else { return };
        if self.sites.get(&entry.holder.name) == Some(&token) {
            self.sites.remove(&entry.holder.name);
        }
    }

    fn delete_where(&mut self, which: impl Fn(&Entry) -> bool) {
        self.tokens.retain(|_, entry| !which(entry));
        let tokens = &self.tokens;
        self.sites.retain(|_, token| tokens.contains_key(token));
    }
}
