//! Challenge, verify, register.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use locule_cell::RequestError;
use locule_component::Event;
use locule_identity::{
    Challenge, ChallengeError, NameError, Registration, RegistrationError, Secret, ServerProof, Session,
    SignError, Signer, Token, Verifier,
};
use locule_message::ReturnCode;
use locule_protocol::{
    ChallengeReply, ChallengeRequest, ClientType, DecodeError, EncodeError, RegisterReply, RegisterRequest,
    RegistrationProof,
};

use crate::address::local_address;
use crate::communicator::Communicator;
use crate::conversation::request;
use crate::redact::redact;

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

/// A registration that may be sent: with proofs in secure mode, without outside of it.
enum Ready {
    Proven(Registration),
    Plain,
}

impl Communicator {
    /// Registers the site and puts the session's token on every message of its cell from now on.
    ///
    /// Waits for the cell's link first, then challenges the server until it can be reached, without limit.
    /// `credentials` may be absent only outside of secure mode.
    ///
    /// # Errors
    /// [`RegisterError`]; none of them gets better by trying again at once.
    ///
    /// # Source
    /// nvflare 2.9.0, `nvflare.private.fed.authenticator`.
    pub async fn register(&self, credentials: Option<&Credentials>) -> Result<Session, RegisterError> {
        self.fire(&Event::BeforeClientRegister);
        let registering = async {
            self.wait_for_cell().await;
            let ready = match credentials.filter(|_| self.settings.secure) {
                Some(credentials) => Ready::Proven(self.prove(credentials).await?),
                None if self.settings.secure => return Err(RegisterError::NoCredentials),
                None => Ready::Plain,
            };
            self.send_registration(ready, credentials).await
        };
        let session = tokio::select! {
            session = registering => session?,
            () = self.cancel.cancelled() => return Err(RegisterError::Cancelled),
        };
        self.stamp.set(session.clone());
        self.fire(&Event::AfterClientRegister);
        Ok(session)
    }

    /// The first link may take a while; a challenge before it would only be answered "unreachable".
    async fn wait_for_cell(&self) {
        let server = &self.conversation.with;
        if !self.conversation.cell.wait_linked(server, self.settings.cell_wait).await {
            tracing::warn!(
                waited_s = self.settings.cell_wait.as_secs(),
                "no link to the server yet; trying on"
            );
        }
    }

    /// Challenges the server until it answers, and signs what it asks for.
    async fn prove(&self, credentials: &Credentials) -> Result<Registration, RegisterError> {
        let proven = loop {
            let challenge = Challenge::new(credentials.signer.identity(), &mut rand::rng())?;
            let parts = ChallengeRequest {
                common_name: challenge.cn().to_owned(),
                nonce: challenge.nonce().to_owned(),
            }
            .to_parts()?;
            let (channel, topic) = (ChallengeRequest::CHANNEL, ChallengeRequest::TOPIC);
            let ask = request(channel, topic, parts, self.settings.maintenance_timeout).optional();
            match self.conversation.send(ask).await {
                Ok(reply) => {
                    let reply = ChallengeReply::from_parts(&reply.headers, &reply.payload)?;
                    let proof = ServerProof {
                        nonce: reply.nonce,
                        cn: reply.common_name,
                        cert: reply.certificate.to_vec(),
                        signature: reply.signature.to_vec(),
                    };
                    let (expected, verifier) = (&self.settings.expected_server, &*credentials.verifier);
                    break challenge.prove_server(&proof, expected, verifier, SystemTime::now())?;
                }
                Err(error) if may_pass(&error) => {
                    tracing::info!(
                        reason = redact(&error.to_string()),
                        again_s = self.settings.register_interval.as_secs(),
                        "server not reached; challenging again"
                    );
                    tokio::time::sleep(self.settings.register_interval).await;
                }
                Err(error) => return Err(RegisterError::refused("challenge", &error)),
            }
        };
        tracing::info!(peer = %proven.server().common_name, "server proved its identity");
        let signer = credentials.signer.clone();
        let signed = tokio::task::spawn_blocking(move || proven.register(&*signer)).await;
        signed.map_err(|_| RegisterError::Cancelled)?.map_err(RegisterError::Sign)
    }

    async fn send_registration(
        &self,
        ready: Ready,
        credentials: Option<&Credentials>,
    ) -> Result<Session, RegisterError> {
        let settings = &self.settings;
        let proof = match &ready {
            Ready::Proven(registration) => {
                let proof = registration.proof();
                Some(RegistrationProof {
                    certificate: proof.cert.clone().into(),
                    common_name: proof.cn.clone(),
                    signature: proof.signature.clone().into(),
                })
            }
            Ready::Plain => None,
        };
        let register = RegisterRequest {
            client_name: settings.site_name.clone(),
            client_type: ClientType::Regular,
            client_ip: local_address(),
            project_name: settings.project_name.clone(),
            peer: self.peer(),
            proof,
            site_config: settings.site_config.clone(),
        };
        let (channel, topic) = (RegisterRequest::CHANNEL, RegisterRequest::TOPIC);
        let ask = request(channel, topic, register.to_parts()?, settings.maintenance_timeout).optional();
        let reply = match self.conversation.send(ask).await {
            Ok(reply) => reply,
            Err(error) => return Err(RegisterError::refused("registration", &error)),
        };
        let RegisterReply::Granted { token, signature, ssid, .. } =
            RegisterReply::from_parts(&reply.headers, &reply.payload)?
        else {
            return Err(RegisterError::Refused {
                what: "registration",
                code: ReturnCode::Unauthenticated,
                reason: "server gave no reason: name, certificate or signature is not as it expects".into(),
            });
        };
        let token = Token { token: Secret::from(token), signature: Secret::from(signature), ssid };
        Ok(match (ready, credentials) {
            (Ready::Proven(registration), Some(credentials)) => {
                registration.accept(token, &*credentials.verifier)?
            }
            (Ready::Proven(_) | Ready::Plain, _) => Session::unproven(&settings.site_name, token)?,
        })
    }
}

/// Whether the server may simply not be there yet.
fn may_pass(error: &RequestError) -> bool {
    matches!(error.code(), ReturnCode::TargetUnreachable | ReturnCode::CommError | ReturnCode::Timeout)
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
        Self::Refused { what, code: error.code(), reason: redact(&error.to_string()) }
    }
}
