//! Proves sites and server to each other by message; does no cryptography and no I/O of its own.
//!
//! A relay may end the TLS connection, so who is who cannot rest on connections. Before anything else a
//! site challenges the server, checks its proof, proves itself in turn and gets a token that goes with
//! every later message. Each step here is a type that is consumed by the next, so a conversation out of
//! order, or a nonce used twice, does not compile:
//!
//! | side | steps |
//! |---|---|
//! | site | [`Challenge`] → [`ServerProven`] → [`Registration`] → [`Session`] |
//! | server | [`Admission`] → [`Opening`] and [`OpenChallenge`] → [`Proven`] → [`Grant`] |
//!
//! Signing and certificates come in through two traits, [`Signer`] and [`Verifier`]; the crate
//! `locule-identity-openssl` implements both with OpenSSL, a hardware module would be another. Time and
//! randomness are parameters. A generator given to this crate must be cryptographically secure; in a
//! simulation it is a seeded one.
//!
//! The whole conversation, with any signer and verifier:
//!
//! ```
//! use locule_identity::*;
//! use std::time::{Instant, SystemTime};
//!
//! fn converse(
//!     site: &dyn Signer,
//!     server: &dyn Signer,
//!     verifier: &dyn Verifier,
//!     rng: &mut dyn rand_core::RngCore,
//! ) -> Result<Session, Box<dyn std::error::Error>> {
//!     let (now, wall) = (Instant::now(), SystemTime::now());
//!     let mut admission = Admission::new(server.identity().clone(), AdmissionLimits::default());
//!
//!     let challenge = Challenge::new(site.identity(), rng)?;                              // site
//!     let opening = admission.open(7, "site-1", challenge.cn(), challenge.nonce(), rng, now)?; // server
//!     let server_proof = opening.prove(server)?;
//!
//!     let server_proven = challenge.prove_server(&server_proof, "server.example", verifier, wall)?;
//!     let registration = server_proven.register(site)?;
//!
//!     let open = admission.take(7, "site-1", now).ok_or("no such challenge")?;
//!     let proven = open.verify(registration.proof(), "site-1", verifier, wall)?;
//!     let grant = proven.grant(server, rng)?;
//!
//!     Ok(registration.accept(grant.to_token(), verifier)?)
//! }
//! ```
//!
//! # What does not compile
//!
//! Registering before the server has proved itself: [`Challenge`] has no such method.
//!
//! ```compile_fail,E0599
//! # use locule_identity::*;
//! fn hasty(challenge: Challenge, signer: &dyn Signer) -> Result<Registration, SignError> {
//!     challenge.register(signer)
//! }
//! ```
//!
//! A [`ServerProven`] cannot be made by hand, only by [`Challenge::prove_server`].
//!
//! ```compile_fail,E0451
//! # use locule_identity::*;
//! fn forge(server: Identity) -> ServerProven {
//!     ServerProven { server, ..panic!() }
//! }
//! ```
//!
//! Using the site's nonce for two proofs, the server's nonce for two registrations, or an open challenge
//! for two verifications: each call consumes what it uses.
//!
//! ```compile_fail,E0382
//! # use locule_identity::*;
//! fn twice(c: Challenge, proof: &ServerProof, v: &dyn Verifier, now: std::time::SystemTime) {
//!     let first = c.prove_server(proof, "server.example", v, now);
//!     let second = c.prove_server(proof, "server.example", v, now);
//! }
//! ```
//! ```compile_fail,E0382
//! # use locule_identity::*;
//! fn twice(server: ServerProven, signer: &dyn Signer) {
//!     let first = server.register(signer);
//!     let second = server.register(signer);
//! }
//! ```
//! ```compile_fail,E0382
//! # use locule_identity::*;
//! fn twice(open: OpenChallenge, proof: &RegistrationProof, v: &dyn Verifier, now: std::time::SystemTime) {
//!     let first = open.verify(proof, "site-1", v, now);
//!     let second = open.verify(proof, "site-1", v, now);
//! }
//! ```
//!
//! Granting a token to somebody who has not proved anything:
//!
//! ```compile_fail,E0599
//! # use locule_identity::*;
//! fn gullible(open: OpenChallenge, signer: &dyn Signer, rng: &mut dyn rand_core::RngCore) {
//!     open.grant(signer, rng);
//! }
//! ```
//!
//! # Messages between two cells alone
//!
//! A [`Cipher`] seals a message for the holder of a certificate and opens what others sealed for us, so that no
//! cell on the way reads it. It stands beside the conversation: both need a key and a certificate, neither needs
//! the other.
//!
//! # Source
//! nvflare 2.9.0, `nvflare.private.fed.authenticator`, `nvflare.private.fed.utils.identity_utils`,
//! `nvflare.private.fed.server.cred_keeper`; vectors in `tests/vectors/registration.json`.

mod admission;
mod certificate;
mod cipher;
mod grant;
mod name;
mod pace;
mod secret;
mod site;
mod statement;

pub use admission::{Admission, AdmissionLimits, ChallengeRefused, Opening};
pub use certificate::{ChainError, Identity, SignError, SignatureError, Signer, Usage, Verifier};
pub use cipher::{Cipher, ENVELOPE_LEN, OpenError, SealError};
pub use grant::{Grant, OpenChallenge, Party, Proven, RegistrationRefused};
pub use name::{MAX_NAME_LEN, NameError, check_name, check_name_against_server};
pub use secret::Secret;
pub use site::{
    Challenge, ChallengeError, Registration, RegistrationError, RegistrationProof, ServerProof, ServerProven,
    Session, Token,
};
pub use statement::{
    SSID, UNSIGNED, decode_signature, encode_signature, is_canonical_uuid, proof_text, random_uuid,
    token_text,
};
