use std::sync::Arc;
use std::time::SystemTime;

use rand_core::RngCore;
use thiserror::Error;

use crate::certificate::{ChainError, Identity, SignError, SignatureError, Signer, Usage, Verifier};
use crate::name::{NameError, check_name, shown};
use crate::secret::Secret;
use crate::site::{RegistrationProof, Token};
use crate::statement::{SSID, UNSIGNED, encode_signature, proof_text, random_uuid, token_text};

/// As what a participant registers. Its cell and its certificate decide, never a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Party {
    /// A site: a cell whose last segment is the certificate's common name, and a certificate
    /// without a role.
    Site,
    /// A relay: certificate and cell are as a site's, so only provisioning can say that it is one; see
    /// [`Proven::into_relay`].
    Relay,
    /// An administrator's session: a cell `_admin_<uuid>`, and a certificate with a role.
    Admin,
}

/// A challenge that was opened and is now used up; the registration that it belongs to is at hand.
#[derive(Debug)]
pub struct OpenChallenge {
    pub(crate) own: Arc<Identity>,
    pub(crate) origin: String,
    pub(crate) claimed: String,
    pub(crate) party: Party,
    pub(crate) nonce: String,
}

impl OpenChallenge {
    /// Checks a site's proof: one name in challenge, registration, proof and certificate; a certificate
    /// under our root that may act as a client at `now`, of the right kind and not our own; a signature
    /// over our nonce. Blocking: some 0.2 ms of RSA.
    ///
    /// # Errors
    /// [`RegistrationRefused`]; nobody was registered.
    pub fn verify(
        self,
        proof: &RegistrationProof,
        claimed_name: &str,
        verifier: &dyn Verifier,
        now: SystemTime,
    ) -> Result<Proven, RegistrationRefused> {
        let claimed = self.claimed;
        let other_name = |asserted: &str| RegistrationRefused::OtherName {
            expected: claimed.clone(),
            asserted: shown(asserted),
        };
        for asserted in [claimed_name, &proof.cn] {
            if asserted != claimed {
                return Err(other_name(asserted));
            }
        }
        let identity = verifier.identify(&proof.cert, Usage::Client, now)?;
        if identity.same_holder(&self.own) {
            return Err(RegistrationRefused::Reflected);
        }
        if identity.common_name != claimed {
            return Err(other_name(&identity.common_name));
        }
        if identity.is_admin() != (self.party == Party::Admin) {
            return Err(RegistrationRefused::WrongParty(self.party));
        }
        verifier.verify(&identity, &proof_text(&claimed, &self.nonce), &proof.signature)?;
        Ok(Proven { own: self.own, origin: self.origin, party: self.party, identity })
    }
}

/// A participant that has proved itself; the server may now admit it, or not.
#[derive(Debug)]
pub struct Proven {
    own: Arc<Identity>,
    origin: String,
    party: Party,
    identity: Identity,
}

impl Proven {
    /// Who it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// As what it registers.
    pub fn party(&self) -> Party {
        self.party
    }

    /// The same participant as a relay, which provisioning says it is. An administrator stays one.
    #[must_use]
    pub fn into_relay(self) -> Self {
        let party = match self.party {
            Party::Site | Party::Relay => Party::Relay,
            Party::Admin => Party::Admin,
        };
        Self { party, ..self }
    }

    /// The cell it registers from; its token will be good from there and below.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Makes and signs a token. Blocking, as [`Signer::sign`] is. The token counts once the ledger has
    /// recorded the grant.
    ///
    /// # Errors
    /// [`SignError`] when the key refuses or is not this server's.
    pub fn grant(self, signer: &dyn Signer, rng: &mut dyn RngCore) -> Result<Grant, SignError> {
        if signer.identity().fingerprint != self.own.fingerprint {
            return Err(SignError::OtherSigner);
        }
        let token = Secret::from(random_uuid(rng));
        let signature = signer.sign(&token_text(&self.identity.common_name, token.expose()))?;
        Ok(Grant {
            name: self.identity.common_name.clone(),
            origin: self.origin,
            party: self.party,
            token,
            signature: Secret::from(encode_signature(&signature)),
            identity: Some(self.identity),
            dialect: None,
        })
    }
}

/// A token granted to a participant.
#[derive(Debug)]
pub struct Grant {
    name: String,
    origin: String,
    party: Party,
    token: Secret,
    signature: Secret,
    identity: Option<Identity>,
    dialect: Option<&'static str>,
}

impl Grant {
    /// A token in a federation that does not prove identities: unsigned, and as good as the network it
    /// travels on.
    ///
    /// # Errors
    /// [`NameError`] if the name cannot be a participant's.
    pub fn unproven(name: &str, origin: &str, rng: &mut dyn RngCore) -> Result<Self, NameError> {
        check_name(name)?;
        Ok(Self {
            name: name.to_owned(),
            origin: origin.to_owned(),
            party: Party::Site,
            token: Secret::from(random_uuid(rng)),
            signature: Secret::from(UNSIGNED),
            identity: None,
            dialect: None,
        })
    }

    /// The same to a participant that speaks as an older version does, by the name of its dialect.
    #[must_use]
    pub fn in_dialect(self, name: &'static str) -> Self {
        Self { dialect: Some(name), ..self }
    }

    /// The name it was granted to.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The cell from which, and from below which, the token is good.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// As what the participant registered.
    pub fn party(&self) -> Party {
        self.party
    }

    /// The token.
    pub fn token(&self) -> &Secret {
        &self.token
    }

    /// The signature over name and token, base64, or [`UNSIGNED`].
    pub fn signature(&self) -> &Secret {
        &self.signature
    }

    /// The session id; always [`SSID`].
    pub fn ssid(&self) -> &'static str {
        SSID
    }

    /// Who proved itself; `None` in a federation without proofs.
    pub fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// The name of the dialect that its holder speaks, if it is not the newest.
    pub fn dialect(&self) -> Option<&'static str> {
        self.dialect
    }

    /// What is sent to the participant.
    pub fn to_token(&self) -> Token {
        Token { token: self.token.clone(), signature: self.signature.clone(), ssid: SSID.to_owned() }
    }
}

/// Why a registration is refused.
#[derive(Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum RegistrationRefused {
    /// Challenge, registration, proof and certificate do not say one name.
    #[error("challenge was opened for \"{expected}\" and the registration says {asserted}")]
    OtherName {
        /// The name in the challenge.
        expected: String,
        /// The other name, escaped and shortened.
        asserted: String,
    },
    /// The certificate is ours: somebody sends our own proofs back to us.
    #[error("participant presented the server's own certificate or key")]
    Reflected,
    /// A site's certificate registers as an administrator, or the other way round.
    #[error("certificate may not register as {0:?}")]
    WrongParty(Party),
    /// The certificate chain does not hold.
    #[error("participant certificate is not acceptable")]
    Chain(#[from] ChainError),
    /// The participant does not hold the key of its certificate, or signed another nonce.
    #[error("participant proof does not hold")]
    Signature(#[from] SignatureError),
}
