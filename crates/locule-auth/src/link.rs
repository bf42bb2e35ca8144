use std::collections::BTreeMap;

use locule_message::{Fqcn, ReturnCode};
use locule_switch::{LinkFacts, LinkPolicy, LinkSecurity, Refusal};

/// Lets a neighbour bear only the name that its certificate allows.
///
/// Over a link on which both ends showed certificates, the common name must be the one that the claimed
/// name requires: the one given with [`expect`](Self::expect) for the longest prefix of it, or its first
/// segment, or, for a name below this cell, the segment that follows this cell's. So a job's cell
/// presents the certificate of its site. A carrier that checked the listener's name by itself may leave
/// the common name out when we dialed.
///
/// A link that crosses no network carries only names below or above this cell. Names of the server side
/// are for such links alone, at the server.
///
/// # Source
/// nvflare 2.9.0, `nvflare.fuel.f3.cellnet.identity`.
#[derive(Debug, Clone)]
pub struct CertificateLinkPolicy {
    own: Fqcn,
    expected: BTreeMap<Fqcn, String>,
    admits_admins: bool,
    needs_certificates: bool,
}

impl CertificateLinkPolicy {
    /// The policy of the cell `own`: every network link shows certificates, administrators are not
    /// admitted.
    pub fn new(own: Fqcn) -> Self {
        Self { own, expected: BTreeMap::new(), admits_admins: false, needs_certificates: true }
    }

    /// Requires this common name of the cell `prefix` and those below it. A site gives the server's
    /// identity for `server`.
    #[must_use]
    pub fn expect(mut self, prefix: Fqcn, common_name: impl Into<String>) -> Self {
        self.expected.insert(prefix, common_name.into());
        self
    }

    /// Admits administrators' sessions, `_admin_<uuid>`, to listeners. Their certificate may bear any
    /// name here; the gate compares it with their token.
    #[must_use]
    pub fn admit_admins(mut self) -> Self {
        self.admits_admins = true;
        self
    }

    /// Admits network links on which the neighbour showed no certificate, as a startup kit with
    /// connection security `tls` or `clear` asks for. Then only tokens tell who is who.
    #[must_use]
    pub fn admit_without_certificate(mut self) -> Self {
        self.needs_certificates = false;
        self
    }

    fn check_network(&self, link: &LinkFacts) -> Result<(), Refusal> {
        if link.peer == self.own || (self.own.is_on_server() && link.peer.is_on_server()) {
            return Err(refused(format!("{} is no name for a neighbour over a network", link.peer)));
        }
        match link.security {
            LinkSecurity::Mutual => self.check_certificate(link),
            LinkSecurity::ServerOnly | LinkSecurity::Clear if self.needs_certificates => {
                Err(refused(format!("{} showed no certificate", link.peer)))
            }
            LinkSecurity::ServerOnly | LinkSecurity::Clear | LinkSecurity::Internal => Ok(()),
        }
    }

    fn check_certificate(&self, link: &LinkFacts) -> Result<(), Refusal> {
        let Some(common_name) = link.common_name.as_deref() else {
            if link.accepted {
                return Err(refused(format!("certificate of {} has no common name", link.peer)));
            }
            return Ok(());
        };
        self.check_name(&link.peer, common_name, link.accepted)
    }

    fn check_name(&self, name: &Fqcn, common_name: &str, may_be_admin: bool) -> Result<(), Refusal> {
        if name.root().starts_with("_admin_") {
            if may_be_admin && self.admits_admins && name.generation() == 1 {
                return Ok(());
            }
            return Err(refused("administrators are not admitted here".to_owned()));
        }
        let required = self.required(name);
        if required == Some(common_name) {
            return Ok(());
        }
        let (shows, needs) = (shown(common_name), shown(required.unwrap_or("nobody")));
        Err(refused(format!("its certificate is for {shows}, and the cell {name} must show one for {needs}")))
    }

    /// The common name that a cell's certificate must have.
    fn required<'a>(&'a self, claimed: &'a Fqcn) -> Option<&'a str> {
        let below_us = self.own.is_ancestor_of(claimed);
        let matching = self.expected.iter().filter(|(prefix, _)| prefix.contains(claimed));
        let usable = matching.filter(|(prefix, _)| !(below_us && prefix.contains(&self.own)));
        if let Some((_, common_name)) = usable.max_by_key(|(prefix, _)| prefix.generation()) {
            return Some(common_name);
        }
        let depth = if below_us { self.own.generation() } else { 0 };
        claimed.segments().nth(depth)
    }
}

impl LinkPolicy for CertificateLinkPolicy {
    fn admit(&self, link: &LinkFacts) -> Result<(), Refusal> {
        if link.security != LinkSecurity::Internal {
            return self.check_network(link);
        }
        if self.own.is_ancestor_of(&link.peer) || link.peer.is_ancestor_of(&self.own) {
            return Ok(());
        }
        Err(refused(format!("{} is neither above nor below this cell", link.peer)))
    }

    fn admit_certificate(&self, name: &Fqcn, common_name: &str) -> Result<(), Refusal> {
        self.check_name(name, common_name, true)
    }
}

fn refused(reason: String) -> Refusal {
    Refusal::new(ReturnCode::Unauthenticated, reason)
}

/// A common name, fit for a log: quoted, escaped, at most 48 characters of it.
fn shown(text: &str) -> String {
    let head: String = text.chars().take(48).flat_map(char::escape_default).collect();
    format!("\"{head}\"")
}
