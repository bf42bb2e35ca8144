use std::fmt;

use bytes::Bytes;
use locule_fobs::{Map, PeerContext, Shareable, Value, header};
use locule_message::{Headers, Payload, key};

use crate::{
    channel,
    parts::{self, DecodeError, EncodeError, Parts},
};

const CN: &str = "cn";
const NONCE: &str = "nonce";
const CERT: &str = "cert";
const SIGNATURE: &str = "signature";
const CLIENT_TYPE: &str = "client_type";
const CLIENT_IP: &str = "client_ip";
const PROJECT_NAME: &str = "project_name";
const PROTOCOL_VERSION: &str = "federation_protocol_version";
/// What it says of itself, and what is spoken here.
const PROTOCOL: u64 = 1;
const VERSION: &str = "nvflare_version";
const SITE_CONFIG: &str = "site_config";
/// The token that the server's own messages carry.
const SERVER_TOKEN: &str = "server";

/// A site asks the server to prove who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChallengeRequest {
    /// The site's name.
    pub common_name: String,
    /// What the server is to sign: a UUID in its canonical form.
    pub nonce: String,
}

impl ChallengeRequest {
    /// Its channel.
    pub const CHANNEL: &str = channel::TASK;
    /// Its topic.
    pub const TOPIC: &str = "challenge";

    /// To the wire.
    ///
    /// # Errors
    /// [`EncodeError`] never, so far.
    pub fn to_parts(&self) -> Result<Parts, EncodeError> {
        let mut headers = Headers::new();
        headers.set(CN, &self.common_name);
        headers.set(NONCE, &self.nonce);
        Ok(Parts::only_headers(headers))
    }

    /// From the wire. Neither name nor nonce is checked.
    ///
    /// # Errors
    /// [`DecodeError::Field`] when one is missing.
    pub fn from_parts(headers: &Headers, _payload: &Payload) -> Result<Self, DecodeError> {
        Ok(Self { common_name: parts::header(headers, CN)?, nonce: parts::header(headers, NONCE)? })
    }
}

/// The server proves who it is and asks the same in return.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChallengeReply {
    /// What the site is to sign.
    pub nonce: String,
    /// The server's common name.
    pub common_name: String,
    /// The server's certificate, PEM, leaf first.
    pub certificate: Bytes,
    /// The server's signature over its common name and the site's nonce.
    pub signature: Bytes,
}

impl ChallengeReply {
    /// To the wire.
    ///
    /// # Errors
    /// [`EncodeError`] never in practice.
    pub fn to_parts(&self) -> Result<Parts, EncodeError> {
        let mut reply = Shareable::new();
        reply.fields.insert(NONCE, &self.nonce);
        reply.fields.insert(SIGNATURE, self.signature.clone());
        reply.fields.insert(CN, &self.common_name);
        reply.fields.insert(CERT, self.certificate.clone());
        Parts::new(Headers::new(), reply)
    }

    /// From the wire. Nothing is verified.
    ///
    /// # Errors
    /// [`DecodeError`] when the payload is no shareable with all four.
    pub fn from_parts(_headers: &Headers, payload: &Payload) -> Result<Self, DecodeError> {
        let fields = parts::shareable(payload)?.fields;
        Ok(Self {
            nonce: parts::text(&fields, NONCE)?,
            common_name: parts::text(&fields, CN)?,
            certificate: parts::bytes(&fields, CERT)?,
            signature: parts::bytes(&fields, SIGNATURE)?,
        })
    }
}

/// What registers.
///
/// It is a claim: what a peer may be follows from its certificate and from provisioning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ClientType {
    /// A site; also what a peer is that says nothing, as older ones do.
    Regular,
    /// A relay.
    Relay,
    /// An administrator's console.
    Admin,
}

impl ClientType {
    /// The type as it stands on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Regular => "regular",
            Self::Relay => "relay",
            Self::Admin => "admin",
        }
    }

    fn parse(text: &str) -> Result<Self, DecodeError> {
        let all = [Self::Regular, Self::Relay, Self::Admin];
        all.into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| DecodeError::value(CLIENT_TYPE, text))
    }
}

/// A site proves who it is and asks for a token.
#[derive(Debug, Clone, PartialEq)]
pub struct RegisterRequest {
    /// The site's name; in secure mode the common name of its certificate.
    pub client_name: String,
    /// What it claims to be.
    pub client_type: ClientType,
    /// Its address as text, for information. A stock server insists on it.
    pub client_ip: String,
    /// The project.
    pub project_name: String,
    /// What the site says of itself.
    pub peer: PeerContext,
    /// The proof; `None` in non-secure mode.
    pub proof: Option<RegistrationProof>,
    /// Configuration that the site makes known to jobs. What is no map counts as none.
    pub site_config: Option<Map>,
    /// Its version of nvflare, as those before 2.9 do not say; see [`Dialect`](crate::Dialect).
    pub version: Option<String>,
}

/// A site's proof of its identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistrationProof {
    /// The site's certificate, PEM, leaf first.
    pub certificate: Bytes,
    /// The common name that it claims.
    pub common_name: String,
    /// Its signature over its common name and the server's nonce.
    pub signature: Bytes,
}

impl RegisterRequest {
    /// Its channel.
    pub const CHANNEL: &str = channel::TASK;
    /// Its topic.
    pub const TOPIC: &str = "register";

    /// To the wire.
    ///
    /// # Errors
    /// [`EncodeError`] when the context or site configuration cannot be encoded.
    pub fn to_parts(&self) -> Result<Parts, EncodeError> {
        let mut headers = Headers::new();
        headers.set(key::CLIENT_NAME, &self.client_name);
        headers.set(CLIENT_TYPE, self.client_type.as_str());
        headers.set(CLIENT_IP, &self.client_ip);
        headers.set(PROJECT_NAME, &self.project_name);
        if let Some(version) = &self.version {
            headers.set(PROTOCOL_VERSION, PROTOCOL);
            headers.set(VERSION, version);
        }
        let mut request = Shareable::new();
        request.set_peer_context(self.peer.clone());
        if let Some(proof) = &self.proof {
            request.fields.insert(CERT, proof.certificate.clone());
            request.fields.insert(SIGNATURE, proof.signature.clone());
            request.fields.insert(CN, &proof.common_name);
        }
        if let Some(config) = &self.site_config {
            request.fields.insert(SITE_CONFIG, config.clone());
        }
        Parts::new(headers, request)
    }

    /// From the wire. Nothing is verified.
    ///
    /// # Errors
    /// [`DecodeError`] when name, project or context is missing, the type is unknown, the proof is
    /// there in part, or the sender speaks another protocol.
    pub fn from_parts(headers: &Headers, payload: &Payload) -> Result<Self, DecodeError> {
        check_protocol(headers.u64(PROTOCOL_VERSION), headers.str(VERSION))?;
        let request = parts::shareable(payload)?;
        let fields = &request.fields;
        let proof = if [CERT, SIGNATURE, CN].iter().any(|key| fields.get(key).is_some_and(|v| !v.is_none())) {
            Some(RegistrationProof {
                certificate: parts::bytes(fields, CERT)?,
                common_name: parts::text(fields, CN)?,
                signature: parts::bytes(fields, SIGNATURE)?,
            })
        } else {
            None
        };
        Ok(Self {
            client_name: parts::header(headers, key::CLIENT_NAME)?,
            client_type: headers.str(CLIENT_TYPE).map_or(Ok(ClientType::Regular), ClientType::parse)?,
            client_ip: headers.str(CLIENT_IP).unwrap_or_default().to_owned(),
            project_name: parts::header(headers, PROJECT_NAME)?,
            peer: request.peer_context().cloned().ok_or(DecodeError::Field(header::PEER_CONTEXT))?,
            proof,
            site_config: fields.map(SITE_CONFIG).cloned(),
            version: headers.str(VERSION).map(str::to_owned),
        })
    }
}

/// The server's answer to a registration. `Debug` shows no secret.
#[derive(Clone, PartialEq, Eq)]
pub enum RegisterReply {
    /// The site is in.
    Granted {
        /// The site's token; a secret.
        token: String,
        /// The server's signature over the site's name and token, base64; `NA` in non-secure mode.
        signature: String,
        /// The server's session; `NA`.
        ssid: String,
        /// The server's version, where it says it.
        version: Option<String>,
    },
    /// The proof was not good enough. The server says no more than this.
    Refused,
}

impl RegisterReply {
    /// To the wire, in the form of nvflare 2.9.
    ///
    /// # Errors
    /// [`EncodeError`] never in practice.
    pub fn to_parts(&self) -> Result<Parts, EncodeError> {
        let mut reply = Map::new();
        match self {
            Self::Granted { token, signature, ssid, version } => {
                reply.insert(key::TOKEN, token);
                reply.insert(key::TOKEN_SIGNATURE, signature);
                reply.insert(key::SSID, ssid);
                reply.insert(PROTOCOL_VERSION, 1);
                if let Some(version) = version {
                    reply.insert(VERSION, version);
                }
            }
            Self::Refused => {}
        }
        Parts::new(Headers::new(), reply)
    }

    /// From the wire: the token is in the payload, or with older servers in the headers.
    ///
    /// A token `server` is never a site's. It stands in the headers of everything that a server of
    /// nvflare 2.9 sends, a refusal included.
    ///
    /// # Errors
    /// [`DecodeError`] when there is a token without its signature, the payload cannot be decoded, or the
    /// server speaks another protocol.
    pub fn from_parts(headers: &Headers, payload: &Payload) -> Result<Self, DecodeError> {
        let reply = parts::value(payload)?;
        let none = Map::new();
        let fields = if let Value::Shareable(shareable) = &reply {
            &shareable.fields
        } else {
            reply.as_map().unwrap_or(&none)
        };
        let protocol = fields.int(PROTOCOL_VERSION).and_then(|protocol| protocol.try_into().ok());
        check_protocol(protocol, fields.str(VERSION))?;
        if let Some(token) = fields.str(key::TOKEN).filter(|token| is_site_token(token)) {
            return Ok(Self::Granted {
                token: token.to_owned(),
                signature: parts::text(fields, key::TOKEN_SIGNATURE)?,
                ssid: fields.str(key::SSID).unwrap_or("NA").to_owned(),
                version: fields.str(VERSION).map(str::to_owned),
            });
        }
        if let Some(token) = headers.str(key::TOKEN).filter(|token| is_site_token(token)) {
            return Ok(Self::Granted {
                token: token.to_owned(),
                signature: parts::header(headers, key::TOKEN_SIGNATURE)?,
                ssid: headers.str(key::SSID).unwrap_or("NA").to_owned(),
                version: headers.str(VERSION).map(str::to_owned),
            });
        }
        Ok(Self::Refused)
    }
}

/// What says nothing is older than the question.
fn check_protocol(protocol: Option<u64>, software: Option<&str>) -> Result<(), DecodeError> {
    match protocol {
        None | Some(PROTOCOL) => Ok(()),
        Some(protocol) => {
            Err(DecodeError::Protocol { protocol, software: parts::shown(software.unwrap_or("?")) })
        }
    }
}

fn is_site_token(token: &str) -> bool {
    !token.is_empty() && token != SERVER_TOKEN
}

impl fmt::Debug for RegisterReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Granted { ssid, version, .. } => f
                .debug_struct("Granted")
                .field("ssid", ssid)
                .field("version", version)
                .finish_non_exhaustive(),
            Self::Refused => f.write_str("Refused"),
        }
    }
}
