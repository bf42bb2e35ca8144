//! Challenge, verify, register.

use std::fmt;
use std::sync::{Arc, PoisonError};
use std::time::SystemTime;

use locule_cell::RequestError;
use locule_component::Event;
use locule_identity::{
    Challenge, ChallengeError, NameError, RegistrationError, Secret, ServerProof, ServerProven, Session,
    SignError, Signer, Token, Verifier,
};
use locule_message::ReturnCode;
use locule_protocol::{
    ChallengeReply, ChallengeRequest, DecodeError, Dialect, EncodeError, NVFLARE_VERSION, RegisterReply,
    RegisterRequest, RegistrationProof, UnspokenVersion,
};

use crate::address::local_address;
use crate::communicator::Communicator;
use crate::conversation::request;
use crate::redact::{reason_of, redact};

/// What a site proves itself with, lent for the time of a registration.
#[derive(Clone)]
pub struct Credentials {
    /// Signs with the site's key.
    pub signer: Arc<dyn Signer>,
    /// Judges the server's certificate and signatures.
    pub verifier: Arc<dyn Verifier>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

impl Communicator {
    /// Registers the site and puts the session's token on every message of its cell from now on.
    ///
    /// Waits for a link of the cell first (`cell_wait`), then challenges the server and registers. While the
    /// server cannot be reached, or says that it is not ready, it begins anew every `register_interval`,
    /// without limit. `credentials` may be absent only outside of secure mode.
    ///
    /// # Errors
    /// [`RegisterError`]; none of them gets better by trying again at once.
    ///
    /// # Source
    /// nvflare 2.9.0, `nvflare.private.fed.authenticator`.
    pub async fn register(&self, credentials: Option<&Credentials>) -> Result<Session, RegisterError> {
        if self.settings.secure && credentials.is_none() {
            return Err(RegisterError::NoCredentials);
        }
        self.fire(&Event::BeforeClientRegister);
        let registering = async {
            self.wait_for_cell().await;
            loop {
                let ended = match credentials.filter(|_| self.settings.secure) {
                    Some(credentials) => self.register_proven(credentials).await,
                    None => self.register_unproven().await,
                };
                match ended {
                    Err(error) if error.may_pass() => {
                        let again_s = self.settings.register_interval.as_secs_f64();
                        tracing::info!(%error, again_s, "server not reached; registering again");
                        tokio::time::sleep(self.settings.register_interval).await;
                    }
                    ended => return ended,
                }
            }
        };
        let session = tokio::select! {
            session = registering => session?,
            () = self.cancel.cancelled() => return Err(RegisterError::Cancelled),
        };
        self.stamp.set(session.clone());
        self.fire(&Event::AfterClientRegister);
        Ok(session)
    }

    /// A challenge before the first link would only be answered "unreachable". The link may lead to a relay;
    /// a link to one of the site's own jobs leads nowhere.
    async fn wait_for_cell(&self) {
        let cell = &self.conversation.cell;
        let mut links = cell.links();
        let linked = links.wait_for(|peers| peers.iter().any(|peer| !cell.name().contains(peer)));
        if tokio::time::timeout(self.settings.cell_wait, linked).await.is_err() {
            let waited_s = self.settings.cell_wait.as_secs_f64();
            tracing::warn!(waited_s, "no link to the server yet; trying on");
        }
    }

    async fn register_proven(&self, credentials: &Credentials) -> Result<Session, RegisterError> {
        let proven = self.challenge(credentials).await?;
        tracing::info!(peer = proven.server().common_name, "server proved its identity");
        let signer = credentials.signer.clone();
        let signed = tokio::task::spawn_blocking(move || proven.register(&*signer)).await;
        let registration = signed.map_err(|_| RegisterError::Cancelled)?.map_err(RegisterError::Sign)?;
        let proof = registration.proof();
        let proof = RegistrationProof {
            certificate: proof.cert.clone().into(),
            common_name: proof.cn.clone(),
            signature: proof.signature.clone().into(),
        };
        let token = self.ask_for_token(Some(proof)).await?;
        Ok(registration.accept(token, &*credentials.verifier)?)
    }

    async fn register_unproven(&self) -> Result<Session, RegisterError> {
        let token = self.ask_for_token(None).await?;
        Ok(Session::unproven(&self.settings.site_name, token)?)
    }

    async fn challenge(&self, credentials: &Credentials) -> Result<ServerProven, RegisterError> {
        let challenge = Challenge::new(credentials.signer.identity(), &mut rand::rng())?;
        let (common_name, nonce) = (challenge.cn().to_owned(), challenge.nonce().to_owned());
        let parts = ChallengeRequest { common_name, nonce }.to_parts()?;
        let (channel, topic) = (ChallengeRequest::CHANNEL, ChallengeRequest::TOPIC);
        let ask = request(channel, topic, parts, self.settings.maintenance_timeout).optional();
        let reply = self.conversation.send(ask).await;
        let reply = reply.map_err(|error| RegisterError::refused("challenge", &error))?;
        let reply = ChallengeReply::from_parts(&reply.headers, &reply.payload)?;
        let proof = ServerProof {
            nonce: reply.nonce,
            cn: reply.common_name,
            cert: reply.certificate.to_vec(),
            signature: reply.signature.to_vec(),
        };
        let (expected, verifier) = (&self.settings.expected_server, &*credentials.verifier);
        Ok(challenge.prove_server(&proof, expected, verifier, SystemTime::now())?)
    }

    async fn ask_for_token(&self, proof: Option<RegistrationProof>) -> Result<Token, RegisterError> {
        let settings = &self.settings;
        let register = RegisterRequest {
            client_name: settings.site_name.clone(),
            client_type: settings.client_type,
            client_ip: local_address(),
            project_name: settings.project_name.clone(),
            peer: self.peer(),
            proof,
            site_config: settings.site_config.clone(),
            version: Some(NVFLARE_VERSION.to_owned()),
        };
        let (channel, topic) = (RegisterRequest::CHANNEL, RegisterRequest::TOPIC);
        let ask = request(channel, topic, register.to_parts()?, settings.maintenance_timeout).optional();
        let reply = self.conversation.send(ask).await;
        let reply = reply.map_err(|error| RegisterError::refused("registration", &error))?;
        match RegisterReply::from_parts(&reply.headers, &reply.payload)? {
            RegisterReply::Granted { token, signature, ssid, version } => {
                let dialect = Dialect::of_server(version.as_deref())?;
                tracing::info!(
                    version = version.as_deref().map(redact),
                    dialect = dialect.name,
                    "server grants a token"
                );
                *self.dialect.write().unwrap_or_else(PoisonError::into_inner) = dialect;
                Ok(Token { token: Secret::from(token), signature: Secret::from(signature), ssid })
            }
            RegisterReply::Refused => Err(RegisterError::Refused {
                what: "registration",
                code: ReturnCode::Unauthenticated,
                reason: "server gave no reason: name, certificate or signature is not as it expects".into(),
            }),
        }
    }
}

/// Why a site could not register.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// In secure mode a site needs a key and a root certificate.
    #[error("secure mode needs the site's credentials")]
    NoCredentials,
    /// The site's own name cannot be registered.
    #[error("site cannot register under its name")]
    Name(#[from] NameError),
    /// The server did not prove that it is the one expected.
    #[error("server did not prove its identity")]
    Server(#[from] ChallengeError),
    /// The site's key could not sign.
    #[error("proof could not be signed")]
    Sign(#[from] SignError),
    /// The server refused.
    #[error("{what} refused: {code}: {reason}")]
    Refused {
        /// Which step.
        what: &'static str,
        /// The server's code.
        code: ReturnCode,
        /// The server's reason, escaped and without secrets.
        reason: String,
    },
    /// The server granted a token that it did not sign.
    #[error("granted token is not valid")]
    Grant(#[from] RegistrationError),
    /// The server is of a version that is not spoken here.
    #[error("server cannot be spoken with")]
    Version(#[from] UnspokenVersion),
    /// The server's answer made no sense.
    #[error("server's answer is not understood")]
    Answer(#[from] DecodeError),
    /// The question cannot be put on the wire.
    #[error("registration cannot be encoded")]
    Encode(#[from] EncodeError),
    /// The site was stopped meanwhile.
    #[error("registration was cancelled")]
    Cancelled,
}

impl RegisterError {
    fn refused(what: &'static str, error: &RequestError) -> Self {
        if *error == RequestError::Closed {
            return Self::Cancelled;
        }
        Self::Refused { what, code: error.code(), reason: reason_of(error) }
    }

    /// Whether the server may simply not be there yet.
    fn may_pass(&self) -> bool {
        use ReturnCode::{CommError, ServiceUnavailable, TargetUnreachable, Timeout};
        matches!(
            self,
            Self::Refused { code: CommError | ServiceUnavailable | TargetUnreachable | Timeout, .. }
        )
    }
}
