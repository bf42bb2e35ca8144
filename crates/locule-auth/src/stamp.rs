use std::fmt;
use std::sync::{PoisonError, RwLock};

use locule_identity::{Secret, Session, SignError, Signer, UNSIGNED, encode_signature, token_text};
use locule_message::{Fqcn, Message, MessageKind, key};
use locule_switch::{Now, OutgoingFilter, Refusal};

/// Puts a site's token on what its cells send.
///
/// Until a session is set nothing is stamped. Challenge and registration never are: they come before
/// the token and must not carry an old one. Requests are always stamped; replies only when they touch
/// the server or leave the site's family, as at the peer, so that a token is not shown needlessly.
///
/// # Source
/// nvflare 2.9.0, `nvflare.private.fed.authenticator`, `nvflare.fuel.sec.authn`.
#[derive(Debug, Default)]
pub struct SessionStamp {
    session: RwLock<Option<Session>>,
}

impl SessionStamp {
    /// A stamp that does not stamp yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Stamps with this session from now on, in place of an older one.
    pub fn set(&self, session: Session) {
        *self.session.write().unwrap_or_else(PoisonError::into_inner) = Some(session);
    }

    /// Stamps nothing any more.
    pub fn clear(&self) {
        *self.session.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Whether there is a session to stamp with.
    pub fn is_set(&self) -> bool {
        self.session.read().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}

impl OutgoingFilter for SessionStamp {
    fn stamp(&self, _now: Now, message: &mut Message, next_hop: &Fqcn) -> Result<(), Refusal> {
        let session = self.session.read().unwrap_or_else(PoisonError::into_inner);
        let Some(session) = session.as_ref() else { return Ok(()) };
        let way = Way::of(message, next_hop);
        if before_any_token(message) || way.stays_here || (!way.is_request && !way.leaves_family) {
            return Ok(());
        }
        message.headers.set(key::CLIENT_NAME, session.site_name());
        message.headers.set(key::TOKEN, session.token().expose());
        message.headers.set(key::TOKEN_SIGNATURE, session.token_signature().expose());
        message.headers.set(key::SSID, session.ssid());
        if way.crosses_sites {
            message.headers.set(key::SERVER_TRANSIT_REQUIRED, true);
        }
        Ok(())
    }
}

/// Puts the server's own token on what its cells send, which relays and administrators check.
///
/// # Source
/// nvflare 2.9.0, `nvflare.private.fed.server.fed_server`, `nvflare.private.fed.server.server_engine`.
pub struct ServerStamp {
    name: &'static str,
    token: Secret,
    signature: Secret,
    ssid: Option<&'static str>,
}

impl ServerStamp {
    /// For the server itself: name `server`, token `server`. Signs once, blocking.
    ///
    /// # Errors
    /// [`SignError`] when the key refuses.
    pub fn parent(signer: &dyn Signer) -> Result<Self, SignError> {
        Self::signed("server", "server", None, signer)
    }

    /// For one job's cell at the server: name `server_job`, the job's id as token. Signs once, blocking;
    /// the parent makes it, so that a job needs no key.
    ///
    /// # Errors
    /// [`SignError`] when the key refuses.
    pub fn job(job_id: &str, signer: &dyn Signer) -> Result<Self, SignError> {
        Self::signed("server_job", job_id, Some(locule_identity::SSID), signer)
    }

    /// For the server of a federation that does not prove identities.
    pub fn unsigned() -> Self {
        Self { name: "server", token: "server".into(), signature: UNSIGNED.into(), ssid: None }
    }

    /// [`ServerStamp::parent`] in a process that the server started and handed its signature to.
    pub fn handed_on(signature: Secret) -> Self {
        Self { name: "server", token: "server".into(), signature, ssid: None }
    }

    /// The signature, to be handed on in confidence.
    pub fn signature(&self) -> &Secret {
        &self.signature
    }

    fn signed(
        name: &'static str,
        token: &str,
        ssid: Option<&'static str>,
        signer: &dyn Signer,
    ) -> Result<Self, SignError> {
        let signature = encode_signature(&signer.sign(&token_text(name, token))?);
        Ok(Self { name, token: token.into(), signature: signature.into(), ssid })
    }
}

impl OutgoingFilter for ServerStamp {
    fn stamp(&self, _now: Now, message: &mut Message, next_hop: &Fqcn) -> Result<(), Refusal> {
        // The answer to a registration carries the site's own token where older sites look for it.
        let grants = message.channel() == "task" && message.topic() == "register";
        if Way::of(message, next_hop).stays_here || grants {
            return Ok(());
        }
        message.headers.set(key::CLIENT_NAME, self.name);
        message.headers.set(key::TOKEN, self.token.expose());
        message.headers.set(key::TOKEN_SIGNATURE, self.signature.expose());
        if let Some(ssid) = self.ssid {
            message.headers.set(key::SSID, ssid);
        }
        Ok(())
    }
}

impl fmt::Debug for ServerStamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerStamp").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What a stamp needs to know of a message's way.
struct Way {
    is_request: bool,
    stays_here: bool,
    /// Origin, destination or next hop is on the server, or the message goes to another family.
    leaves_family: bool,
    /// From one site to another, neither of them the server: must pass the server.
    crosses_sites: bool,
}

impl Way {
    fn of(message: &Message, next_hop: &Fqcn) -> Self {
        let (origin, destination) = (message.origin(), message.destination());
        let families = origin.as_ref().zip(destination.as_ref());
        let on_server = |name: &Option<Fqcn>| name.as_ref().is_some_and(Fqcn::is_on_server);
        let touches_server = on_server(&origin) || on_server(&destination) || next_hop.is_on_server();
        let other_family = families.is_none_or(|(from, to)| !from.same_family(to));
        Self {
            is_request: message.kind() == Some(MessageKind::Request),
            stays_here: origin.as_ref() == Some(next_hop),
            leaves_family: touches_server || other_family,
            crosses_sites: !on_server(&origin) && !on_server(&destination) && other_family,
        }
    }
}

/// Challenge and registration: what a participant says before it has a token.
pub(crate) fn before_any_token(message: &Message) -> bool {
    message.kind() == Some(MessageKind::Request)
        && message.channel() == "task"
        && matches!(message.topic(), "challenge" | "register")
}
