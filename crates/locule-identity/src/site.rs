use std::fmt;
use std::time::SystemTime;

use rand_core::RngCore;
use thiserror::Error;

use crate::certificate::{ChainError, Identity, SignError, SignatureError, Signer, Usage, Verifier};
use crate::name::{NameError, check_name, shown};
use crate::secret::Secret;
use crate::statement::{UNSIGNED, decode_signature, is_canonical_uuid, proof_text, random_uuid, token_text};

/// A site's question to the server: sign this nonce.
///
/// Send [`Challenge::cn`] and [`Challenge::nonce`] on channel `task`, topic `challenge`.
#[derive(Debug)]
pub struct Challenge {
    own: Identity,
    nonce: String,
}

impl Challenge {
    /// Begins a registration of the holder of `own`, the certificate that will be presented.
    ///
    /// # Errors
    /// [`NameError`] if the certificate's common name cannot be a participant's.
    pub fn new(own: &Identity, rng: &mut dyn RngCore) -> Result<Self, NameError> {
        check_name(&own.common_name)?;
        Ok(Self { own: own.clone(), nonce: random_uuid(rng) })
    }

    /// Our own name, to be sent as `cn`.
    pub fn cn(&self) -> &str {
        &self.own.common_name
    }

    /// Our nonce, to be sent as `nonce`.
    pub fn nonce(&self) -> &str {
        &self.nonce
    }

    /// Checks the server's answer: the expected name, a certificate under our root that may act as a
    /// server at `now`, and a signature over our nonce.
    ///
    /// # Errors
    /// [`ChallengeError`]; whoever answered is not our server and must not learn anything from us.
    pub fn prove_server(
        self,
        reply: &ServerProof,
        expected_cn: &str,
        verifier: &dyn Verifier,
        now: SystemTime,
    ) -> Result<ServerProven, ChallengeError> {
        if reply.cn != expected_cn {
            return Err(ChallengeError::OtherName {
                expected: expected_cn.to_owned(),
                asserted: shown(&reply.cn),
            });
        }
        if !is_canonical_uuid(&reply.nonce) {
            return Err(ChallengeError::Nonce);
        }
        let server = verifier.identify(&reply.cert, Usage::Server, now)?;
        if server.common_name != expected_cn {
            return Err(ChallengeError::OtherName {
                expected: expected_cn.to_owned(),
                asserted: shown(&server.common_name),
            });
        }
        if server.same_holder(&self.own) || server.common_name == self.own.common_name {
            return Err(ChallengeError::Reflected);
        }
        verifier.verify(&server, &proof_text(&reply.cn, &self.nonce), &reply.signature)?;
        Ok(ServerProven { own: self.own, server, server_nonce: reply.nonce.clone() })
    }
}

/// The server's answer to a [`Challenge`], as it travels.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerProof {
    /// The server's own nonce, which a registration must sign.
    pub nonce: String,
    /// Common name that the server asserts.
    pub cn: String,
    /// Its certificate file: PEM, leaf first.
    pub cert: Vec<u8>,
    /// Signature over `<server CN><our nonce>`.
    pub signature: Vec<u8>,
}

impl fmt::Debug for ServerProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerProof").field("cn", &shown(&self.cn)).finish_non_exhaustive()
    }
}

/// The server has proved itself; now the site may.
#[derive(Debug)]
pub struct ServerProven {
    own: Identity,
    server: Identity,
    server_nonce: String,
}

impl ServerProven {
    /// Who the server is.
    pub fn server(&self) -> &Identity {
        &self.server
    }

    /// Signs the server's nonce. Blocking, as [`Signer::sign`] is.
    ///
    /// # Errors
    /// [`SignError`] when the key refuses, or `signer` holds another certificate than the one that this
    /// conversation began with.
    pub fn register(self, signer: &dyn Signer) -> Result<Registration, SignError> {
        if signer.identity().fingerprint != self.own.fingerprint {
            return Err(SignError::OtherSigner);
        }
        let cn = self.own.common_name;
        let signature = signer.sign(&proof_text(&cn, &self.server_nonce))?;
        let proof = RegistrationProof { cert: signer.certificate_pem().to_vec(), cn, signature };
        Ok(Registration { server: self.server, proof })
    }
}

/// What a site shows to be registered, as it travels.
#[derive(Clone, PartialEq, Eq)]
pub struct RegistrationProof {
    /// The site's certificate file: PEM, leaf first.
    pub cert: Vec<u8>,
    /// Common name that the site asserts.
    pub cn: String,
    /// Signature over `<site CN><server nonce>`.
    pub signature: Vec<u8>,
}

impl fmt::Debug for RegistrationProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistrationProof").field("cn", &shown(&self.cn)).finish_non_exhaustive()
    }
}

/// A registration under way: the proof is to be sent, the server's token is awaited.
#[derive(Debug)]
pub struct Registration {
    server: Identity,
    proof: RegistrationProof,
}

impl Registration {
    /// The proof to send with the registration.
    pub fn proof(&self) -> &RegistrationProof {
        &self.proof
    }

    /// Takes the token that the server granted, if the server that proved itself really signed it.
    ///
    /// # Errors
    /// [`RegistrationError`]; there is no session, and a new challenge is needed.
    pub fn accept(self, token: Token, verifier: &dyn Verifier) -> Result<Session, RegistrationError> {
        let site_name = self.proof.cn;
        if !is_canonical_uuid(token.token.expose()) {
            return Err(RegistrationError::Token);
        }
        let signature =
            decode_signature(token.signature.expose()).ok_or(RegistrationError::Signature(SignatureError))?;
        verifier.verify(&self.server, &token_text(&site_name, token.token.expose()), &signature)?;
        Session::new(site_name, token, Some(self.server))
    }
}

/// What a server answers to a registration, as it travels; shows nothing of itself.
#[derive(Clone, Debug)]
pub struct Token {
    /// The token, a UUID.
    pub token: Secret,
    /// The server's signature over `<name><token>` in base64, or [`UNSIGNED`].
    pub signature: Secret,
    /// Session id; [`SSID`](crate::SSID) since nvflare 2.9.
    pub ssid: String,
}

/// A registered site: what it puts on every message from now on.
#[derive(Clone, Debug)]
pub struct Session {
    site_name: String,
    token: Token,
    server: Option<Identity>,
}

impl Session {
    /// A session in a federation that does not prove identities; the token is taken as it is.
    ///
    /// # Errors
    /// [`RegistrationError`] if the name, the token or its signature field cannot be such a session's.
    pub fn unproven(site_name: &str, token: Token) -> Result<Self, RegistrationError> {
        check_name(site_name)?;
        if !is_canonical_uuid(token.token.expose()) || token.signature.expose() != UNSIGNED {
            return Err(RegistrationError::Token);
        }
        Self::new(site_name.to_owned(), token, None)
    }

    /// A session that a site hands to a process of its own: the site has seen the server's proof, and the process
    /// takes its word for it.
    ///
    /// # Errors
    /// [`RegistrationError`] if the name or the session id cannot be a session's.
    pub fn handed_on(site_name: &str, token: Token) -> Result<Self, RegistrationError> {
        check_name(site_name)?;
        Self::new(site_name.to_owned(), token, None)
    }

    fn new(site_name: String, token: Token, server: Option<Identity>) -> Result<Self, RegistrationError> {
        if token.ssid.len() > 64 || !token.ssid.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(RegistrationError::Ssid);
        }
        Ok(Self { site_name, token, server })
    }

    /// The name the token was granted to.
    pub fn site_name(&self) -> &str {
        &self.site_name
    }

    /// The token.
    pub fn token(&self) -> &Secret {
        &self.token.token
    }

    /// The server's signature over name and token, base64, or [`UNSIGNED`].
    pub fn token_signature(&self) -> &Secret {
        &self.token.signature
    }

    /// The session id.
    pub fn ssid(&self) -> &str {
        &self.token.ssid
    }

    /// The server that proved itself, `None` in a federation without proofs. Its certificate's end is
    /// `not_after`; look at it again before trusting a long session.
    pub fn server(&self) -> Option<&Identity> {
        self.server.as_ref()
    }
}

/// Why a server's answer to a challenge is not accepted.
#[derive(Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChallengeError {
    /// Asserted name or certificate is not the server's that the startup kit names.
    #[error("server should be \"{expected}\" and calls itself {asserted}")]
    OtherName {
        /// The name in our startup kit.
        expected: String,
        /// What the peer said, escaped and shortened.
        asserted: String,
    },
    /// The server's nonce is not a canonical UUID, so signing it could mean something else.
    #[error("server nonce is not a canonical uuid")]
    Nonce,
    /// The certificate is our own: somebody sends our proofs back to us.
    #[error("server presented our own certificate, key or name")]
    Reflected,
    /// The certificate chain does not hold.
    #[error("server certificate is not acceptable")]
    Chain(#[from] ChainError),
    /// The server does not hold the key of the certificate it showed, or signed another nonce.
    #[error("server proof does not hold")]
    Signature(#[from] SignatureError),
}

/// Why a granted token is not accepted.
#[derive(Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum RegistrationError {
    /// The name cannot be a participant's.
    #[error("site name is not usable")]
    Name(#[from] NameError),
    /// The token is not a canonical UUID, or is signed where nothing is.
    #[error("token has a forbidden form")]
    Token,
    /// The server that proved itself did not sign this token for us.
    #[error("token signature does not hold")]
    Signature(#[from] SignatureError),
    /// The session id is longer than 64 bytes or has forbidden characters.
    #[error("session id has a forbidden form")]
    Ssid,
}
