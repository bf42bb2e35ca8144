use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use locule_identity::Party;
use locule_message::{Fqcn, Message, MessageKind, ReturnCode, key};
use locule_switch::{IncomingFilter, LinkFacts, LinkSecurity, Now, Refusal};

use crate::ledger::TokenLedger;
use crate::stamp::before_any_token;

/// The server's gate: lets in only what carries a token in force, from the cell that the token was
/// granted to or from below, over a link whose own name lies at or above that cell.
///
/// Without a token come only: a challenge or registration addressed to this cell, a neighbour's `bye` to
/// this cell, and everything from this cell's own jobs over links that cross no network. A heartbeat must
/// come from exactly the cell that registered: that is what brings a dropped site back.
///
/// What it refuses is answered with [`ReturnCode::Unauthenticated`] by the switch, where somebody waits.
/// Checking costs a hash and a look into a table.
///
/// # Source
/// nvflare 2.9.0, `nvflare.private.fed.server.fed_server`, `nvflare.private.fed.authenticator`. Stricter:
/// there every token that the server's key ever signed is good.
pub struct ServerGate {
    own: Fqcn,
    ledger: Arc<TokenLedger>,
    relays: BTreeSet<String>,
}

impl ServerGate {
    /// The gate of the cell `own`, the server, over its ledger. Sites register directly, through no relay.
    pub fn new(own: Fqcn, ledger: Arc<TokenLedger>) -> Self {
        Self { own, ledger, relays: BTreeSet::new() }
    }

    /// Names the relays below which sites may register, as provisioned.
    #[must_use]
    pub fn relays(mut self, names: impl IntoIterator<Item = String>) -> Self {
        self.relays.extend(names);
        self
    }

    fn check_registration(&self, from: &LinkFacts, origin: &Fqcn, message: &Message) -> Result<(), Refusal> {
        let above = origin.parent();
        let through_relays =
            above.iter().flat_map(|above| above.segments()).all(|relay| self.relays.contains(relay));
        if !through_relays {
            return Err(refused("site does not register through a provisioned relay"));
        }
        // An administrator's session may bear any name of its kind, so here the certificate is compared.
        let claimed = if message.topic() == "challenge" { "cn" } else { key::CLIENT_NAME };
        let carrier = from.common_name.as_deref().filter(|_| from.peer == *origin);
        if carrier.is_some_and(|common_name| message.headers.str(claimed) != Some(common_name)) {
            return Err(refused("link belongs to another name than the one that registers"));
        }
        Ok(())
    }

    fn check_token(
        &self,
        now: Now,
        from: &LinkFacts,
        origin: &Fqcn,
        message: &Message,
    ) -> Result<(), Refusal> {
        let holder = self.ledger.check(message, now).map_err(|error| refused(&error.to_string()))?;
        let carrier = from.common_name.as_deref().filter(|_| holder.origin.contains(&from.peer));
        if carrier.is_some_and(|common_name| common_name != holder.name) {
            return Err(refused("link belongs to another name than the token"));
        }
        if is_heartbeat(message) && (holder.party != Party::Site || holder.origin != *origin) {
            return Err(refused("heartbeat does not come from the cell that registered"));
        }
        Ok(())
    }

    fn is_own_job(&self, from: &LinkFacts) -> bool {
        from.security == LinkSecurity::Internal && self.own.is_ancestor_of(&from.peer)
    }
}

impl IncomingFilter for ServerGate {
    fn check(&self, now: Now, from: &LinkFacts, message: &Message) -> Result<(), Refusal> {
        let origin = message.origin().ok_or_else(|| refused("message has no valid origin"))?;
        if !from.peer.contains(&origin) {
            return Err(refused("link does not lead to the message's origin"));
        }
        if self.is_own_job(from) {
            return Ok(());
        }
        if origin.is_on_server() {
            return Err(refused("name belongs to the server"));
        }
        let for_us = message.destination().as_ref() == Some(&self.own);
        if for_us && before_any_token(message) {
            return self.check_registration(from, &origin, message);
        }
        if for_us && is_bye(message) && from.peer == origin {
            return Ok(());
        }
        self.check_token(now, from, &origin, message)
    }

    fn knows(&self, now: Now, link: &LinkFacts) -> bool {
        let common_name = link.common_name.as_deref().filter(|_| link.security == LinkSecurity::Mutual);
        common_name.is_some_and(|common_name| self.ledger.knows(common_name, &link.peer, now))
    }
}

impl fmt::Debug for ServerGate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerGate")
            .field("own", &self.own)
            .field("relays", &self.relays)
            .finish_non_exhaustive()
    }
}

fn is_heartbeat(message: &Message) -> bool {
    message.kind() == Some(MessageKind::Request)
        && message.channel() == "task"
        && message.topic() == "heart_beat"
}

pub(crate) fn is_bye(message: &Message) -> bool {
    message.kind() == Some(MessageKind::Request)
        && message.channel() == "cellnet.channel"
        && message.topic() == "bye"
}

fn refused(reason: &str) -> Refusal {
    Refusal::new(ReturnCode::Unauthenticated, reason)
}
