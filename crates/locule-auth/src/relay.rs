use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use locule_identity::{Identity, Verifier, decode_signature, token_text};
use locule_message::{Fqcn, Message, ReturnCode, key};
use locule_switch::{IncomingFilter, LinkFacts, LinkSecurity, Now, Refusal};
use sha2::{Digest as _, Sha256};

use crate::gate::is_bye;
use crate::stamp::before_any_token;

/// Tokens whose signature was checked and is remembered, good ones and bad ones.
const REMEMBERED: usize = 65_536;
/// Longest name, token and signature that are looked at, in bytes each.
const MAX_FIELD: usize = 2048;

/// A relay's gate: lets through from below only what carries a token that the server signed, for the
/// site that the message says it comes from.
///
/// Without a token come only challenges and registrations for the server, and a neighbour's `bye` to this
/// cell. What comes from above has passed the server, or the relay above, whose certificate the link has
/// shown. Until the relay has itself heard the server's proof it knows no key to check tokens with, and
/// lets nothing else through.
///
/// Each token costs one verification of a signature, some 30 µs, and a look into a table from then on.
/// Unlike the server a relay cannot know that a token was withdrawn: the server refuses it.
///
/// # Source
/// nvflare 2.9.0, `nvflare.private.fed.app.relay.relay`, `nvflare.fuel.sec.authn`. Stricter: there a token
/// may come from any cell.
pub struct RelayGate {
    own: Fqcn,
    parent: Fqcn,
    verifier: Arc<dyn Verifier>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    server: Option<Identity>,
    tokens: HashMap<[u8; 32], bool>,
    in_order: VecDeque<[u8; 32]>,
    /// Whose tokens were good.
    names: HashSet<String>,
}

impl RelayGate {
    /// The gate of the relay `own`, which is linked upwards to `parent`.
    pub fn new(own: Fqcn, parent: Fqcn, verifier: Arc<dyn Verifier>) -> Self {
        Self { own, parent, verifier, known: Mutex::default() }
    }

    /// Checks tokens with the key of this server from now on: it has proved who it is.
    pub fn trust(&self, server: Identity) {
        *self.known() = Known { server: Some(server), ..Known::default() };
    }

    fn check_token(&self, origin: &Fqcn, message: &Message) -> Result<(), Refusal> {
        let field = |key| message.headers.str(key).filter(|text| text.len() <= MAX_FIELD);
        let fields = (field(key::CLIENT_NAME), field(key::TOKEN), field(key::TOKEN_SIGNATURE));
        let (Some(name), Some(token), Some(signature)) = fields else {
            return Err(refused("message carries no token"));
        };
        // a job's cell, or what it starts, shows the token of the site that it is below of
        let below = origin.segments().skip(self.own.generation());
        if !below.into_iter().any(|segment| segment == name) {
            return Err(refused("token is not of the site that the message comes from"));
        }
        let mut hash = Sha256::new();
        for field in [name, token, signature] {
            hash.update((field.len() as u64).to_be_bytes());
            hash.update(field);
        }
        if self.is_signed(hash.finalize().into(), name, token, signature)? {
            Ok(())
        } else {
            Err(refused("token is not signed by the server"))
        }
    }

    fn is_signed(&self, hash: [u8; 32], name: &str, token: &str, signature: &str) -> Result<bool, Refusal> {
        let mut known = self.known();
        if let Some(good) = known.tokens.get(&hash) {
            return Ok(*good);
        }
        let Some(server) = known.server.as_ref() else {
            return Err(refused("this relay has not registered itself yet"));
        };
        let signature = decode_signature(signature);
        let good = signature.is_some_and(|signature| {
            self.verifier.verify(server, &token_text(name, token), &signature).is_ok()
        });
        if known.in_order.len() >= REMEMBERED
            && let Some(oldest) = known.in_order.pop_front()
        {
            known.tokens.remove(&oldest);
        }
        if good && (known.names.len() < REMEMBERED || known.names.contains(name)) {
            known.names.insert(name.to_owned());
        }
        known.in_order.push_back(hash);
        known.tokens.insert(hash, good);
        Ok(good)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl IncomingFilter for RelayGate {
    fn check(&self, _now: Now, from: &LinkFacts, message: &Message) -> Result<(), Refusal> {
        if from.peer == self.parent {
            return Ok(());
        }
        let origin = message.origin().ok_or_else(|| refused("message has no valid origin"))?;
        if !self.own.is_ancestor_of(&from.peer) || !from.peer.contains(&origin) {
            return Err(refused("link does not lead to the message's origin"));
        }
        let to = message.destination();
        if to == Some(Fqcn::server()) && before_any_token(message)
            || to.as_ref() == Some(&self.own) && is_bye(message) && from.peer == origin
        {
            return Ok(());
        }
        self.check_token(&origin, message)
    }

    fn knows(&self, _now: Now, link: &LinkFacts) -> bool {
        let common_name = link.common_name.as_deref().filter(|_| link.security == LinkSecurity::Mutual);
        let mut below = link.peer.segments().skip(self.own.generation());
        common_name.is_some_and(|common_name| {
            self.own.is_ancestor_of(&link.peer)
                && below.any(|segment| segment == common_name)
                && self.known().names.contains(common_name)
        })
    }
}

impl fmt::Debug for RelayGate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelayGate")
            .field("own", &self.own)
            .field("parent", &self.parent)
            .finish_non_exhaustive()
    }
}

fn refused(reason: &str) -> Refusal {
    Refusal::new(ReturnCode::Unauthenticated, reason)
}
