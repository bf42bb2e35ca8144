//! Site and server prove themselves to each other, and everybody else fails to.

use std::time::{Duration, Instant};

use crate::support::{self, authority, now, signer, verifier};
use locule_identity::{
    Admission, AdmissionLimits, Challenge, ChallengeError, ChallengeRefused, Grant, Party, Registration,
    RegistrationError, RegistrationProof, RegistrationRefused, Secret, ServerProof, Session, SignError,
    Signer, Token, Usage, Verifier, proof_text, token_text,
};
use locule_identity_openssl::{CertificateAuthority, OpensslSigner, OpensslVerifier, Subject};
use rand_chacha::ChaCha20Rng;

const SERVER: &str = "server.example";
const LINK: u64 = 7;

/// A project with a server and two sites.
struct Project {
    root: CertificateAuthority,
    verifier: OpensslVerifier,
    server: OpensslSigner,
    site: OpensslSigner,
    other: OpensslSigner,
    admission: Admission,
    clock: Instant,
    rng: ChaCha20Rng,
}

impl Project {
    fn new() -> Self {
        let root = authority("project");
        let server = signer(&root, &Subject::new(SERVER), Usage::Server);
        Self {
            verifier: verifier(&root),
            site: signer(&root, &Subject::new("site-1"), Usage::Client),
            other: signer(&root, &Subject::new("site-2"), Usage::Client),
            admission: Admission::new(server.identity().clone(), AdmissionLimits::default()),
            server,
            root,
            clock: Instant::now(),
            rng: support::rng(1),
        }
    }

    fn challenge(&mut self) -> Challenge {
        Challenge::new(self.site.identity(), &mut self.rng).unwrap()
    }

    fn answer(&mut self, challenge: &Challenge) -> ServerProof {
        let open = self.admission.open(
            LINK,
            challenge.cn(),
            challenge.cn(),
            challenge.nonce(),
            &mut self.rng,
            self.clock,
        );
        open.unwrap().prove(&self.server).unwrap()
    }

    fn registration(&mut self) -> Registration {
        let challenge = self.challenge();
        let proof = self.answer(&challenge);
        let proven = challenge.prove_server(&proof, SERVER, &self.verifier, now()).unwrap();
        proven.register(&self.site).unwrap()
    }

    fn admit(&mut self, proof: &RegistrationProof, name: &str) -> Result<Grant, RegistrationRefused> {
        let open = self.admission.take(LINK, "site-1", self.clock).expect("a challenge is open");
        let proven = open.verify(proof, name, &self.verifier, now())?;
        Ok(proven.grant(&self.server, &mut self.rng).unwrap())
    }

    fn prove_server(
        &mut self,
        alter: impl FnOnce(&mut Self, &Challenge, &mut ServerProof),
    ) -> ChallengeError {
        let challenge = self.challenge();
        let mut proof = self.answer(&challenge);
        alter(self, &challenge, &mut proof);
        challenge.prove_server(&proof, SERVER, &self.verifier, now()).unwrap_err()
    }

    fn refuse(&mut self, alter: impl FnOnce(&mut Self, &mut RegistrationProof)) -> RegistrationRefused {
        let mut proof = self.registration().proof().clone();
        alter(self, &mut proof);
        self.admit(&proof, "site-1").unwrap_err()
    }
}

#[test]
fn a_site_and_its_server_agree_on_a_session() {
    let mut project = Project::new();
    let registration = project.registration();
    let grant = project.admit(registration.proof(), "site-1").unwrap();
    assert_eq!((grant.name(), grant.origin(), grant.party()), ("site-1", "site-1", Party::Site));
    assert_eq!(grant.identity(), Some(project.site.identity()));

    let session = registration.accept(grant.to_token(), &project.verifier).unwrap();
    assert_eq!(session.site_name(), "site-1");
    assert_eq!(session.token().expose(), grant.token().expose());
    assert_eq!(session.ssid(), "NA");
    assert_eq!(session.server(), Some(project.server.identity()));
    let shown = format!("{session:?} {grant:?} {:?}", grant.to_token());
    for secret in [grant.token(), grant.signature()] {
        assert!(!shown.contains(secret.expose()));
    }
}

#[test]
fn a_server_under_another_name_is_refused() {
    let mut project = Project::new();
    let error = project.prove_server(|_, _, proof| proof.cn = "evil.example".into());
    assert!(matches!(error, ChallengeError::OtherName { .. }));

    let evil = signer(&project.root, &Subject::new("evil.example"), Usage::Server);
    let error = project.prove_server(|_, challenge, proof| {
        proof.cert = evil.certificate_pem().to_vec();
        proof.signature = evil.sign(&proof_text(SERVER, challenge.nonce())).unwrap();
    });
    assert!(matches!(error, ChallengeError::OtherName { .. }));
}

#[test]
fn a_site_cannot_play_the_server() {
    let mut project = Project::new();
    let error = project.prove_server(|project, challenge, proof| {
        proof.cert = project.other.certificate_pem().to_vec();
        proof.signature = project.other.sign(&proof_text(SERVER, challenge.nonce())).unwrap();
    });
    assert_eq!(error, ChallengeError::Chain(locule_identity::ChainError::WrongUsage(Usage::Server)));
}

#[test]
fn a_server_of_another_project_is_refused() {
    let mut project = Project::new();
    let elsewhere = signer(&authority("project"), &Subject::new(SERVER), Usage::Server);
    let error = project.prove_server(|_, challenge, proof| {
        proof.cert = elsewhere.certificate_pem().to_vec();
        proof.signature = elsewhere.sign(&proof_text(SERVER, challenge.nonce())).unwrap();
    });
    assert!(matches!(error, ChallengeError::Chain(_)));
}

#[test]
fn a_proof_over_another_nonce_is_refused() {
    let mut project = Project::new();
    let error = project.prove_server(|project, _, proof| {
        let other = project.challenge();
        proof.signature = project.server.sign(&proof_text(SERVER, other.nonce())).unwrap();
    });
    assert!(matches!(error, ChallengeError::Signature(_)));
}

#[test]
fn a_server_nonce_that_could_mean_something_else_is_not_signed() {
    let mut project = Project::new();
    for nonce in ["", "x", "1F9257B4-7111-42D0-84A4-5BEAC975F581", "meta.json"] {
        let error = project.prove_server(|_, _, proof| proof.nonce = nonce.to_owned());
        assert_eq!(error, ChallengeError::Nonce);
    }
}

#[test]
fn our_own_certificate_sent_back_to_us_is_refused() {
    // A kit without extended key usage, as stock provisioning makes them, and one name for both sides.
    let root = authority("project");
    let pair = support::Pair::of(&root);
    let own = support::Forged::under(&pair, "both").sign();
    let key = own.key.private_key_to_pem_pkcs8().unwrap();
    let own = OpensslSigner::from_pem(&own.pem(), &key).unwrap();
    let challenge = Challenge::new(own.identity(), &mut support::rng(1)).unwrap();
    let reflected = ServerProof {
        nonce: challenge.nonce().to_owned(),
        cn: "both".into(),
        cert: own.certificate_pem().to_vec(),
        signature: own.sign(&proof_text("both", challenge.nonce())).unwrap(),
    };
    let error = challenge.prove_server(&reflected, "both", &verifier(&root), now()).unwrap_err();
    assert_eq!(error, ChallengeError::Reflected);
}

#[test]
fn the_servers_certificate_sent_back_to_it_is_refused() {
    let root = authority("project");
    let pair = support::Pair::of(&root);
    let server = support::Forged::under(&pair, "hub").sign();
    // Another certificate over the server's key, in the name of a site.
    let disguised = support::Forged::under(&pair, "site-1").sign();
    let key = server.key.private_key_to_pem_pkcs8().unwrap();
    let own = OpensslSigner::from_pem(&server.pem(), &key).unwrap();
    let disguised = OpensslSigner::from_pem(&disguised.pem(), &key).unwrap();
    let mut admission = Admission::new(own.identity().clone(), AdmissionLimits::default());
    let mut rng = support::rng(1);
    let challenge = Challenge::new(disguised.identity(), &mut rng).unwrap();
    let clock = Instant::now();
    let opening = admission.open(LINK, "site-1", "site-1", challenge.nonce(), &mut rng, clock).unwrap();
    let answer = opening.prove(&own).unwrap();
    let proof = RegistrationProof {
        cert: disguised.certificate_pem().to_vec(),
        cn: "site-1".into(),
        signature: disguised.sign(&proof_text("site-1", &answer.nonce)).unwrap(),
    };
    let open = admission.take(LINK, "site-1", clock).unwrap();
    let error = open.verify(&proof, "site-1", &verifier(&root), now()).unwrap_err();
    assert_eq!(error, RegistrationRefused::Reflected);
}

#[test]
fn a_site_cannot_register_another() {
    let mut project = Project::new();
    let error = project.refuse(|project, proof| {
        proof.cert = project.other.certificate_pem().to_vec();
    });
    assert!(matches!(error, RegistrationRefused::OtherName { .. }));
    let error = project.refuse(|_, proof| proof.cn = "site-2".into());
    assert!(matches!(error, RegistrationRefused::OtherName { .. }));
    let proof = project.registration().proof().clone();
    let error = project.admit(&proof, "site-2").unwrap_err();
    assert!(matches!(error, RegistrationRefused::OtherName { .. }));
}

#[test]
fn a_proof_by_another_key_or_over_another_nonce_is_refused() {
    let mut project = Project::new();
    let mut old = None;
    let error = project.refuse(|project, proof| {
        old = Some(proof.clone());
        proof.signature = project.other.sign(&proof_text("site-1", "x")).unwrap();
    });
    assert!(matches!(error, RegistrationRefused::Signature(_)));
    let old = old.unwrap();
    let error = project.refuse(|_, proof| *proof = old);
    assert!(matches!(error, RegistrationRefused::Signature(_)), "a registration played again");
    let error = project.refuse(|_, proof| proof.signature.clear());
    assert!(matches!(error, RegistrationRefused::Signature(_)));
}

#[test]
fn a_certificate_of_another_project_does_not_register() {
    let mut project = Project::new();
    let elsewhere = signer(&authority("project"), &Subject::new("site-1"), Usage::Client);
    let error = project.refuse(|_, proof| proof.cert = elsewhere.certificate_pem().to_vec());
    assert!(matches!(error, RegistrationRefused::Chain(_)));
}

#[test]
fn a_certificate_that_has_expired_does_not_register() {
    let mut project = Project::new();
    let registration = project.registration();
    let open = project.admission.take(LINK, "site-1", project.clock).unwrap();
    let later = now() + support::YEAR + Duration::from_secs(1);
    let error = open.verify(registration.proof(), "site-1", &project.verifier, later).unwrap_err();
    assert_eq!(error, RegistrationRefused::Chain(locule_identity::ChainError::Expired));
}

#[test]
fn what_a_participant_is_comes_from_its_certificate_and_cell() {
    let mut project = Project::new();
    let admin = signer(&project.root, &Subject::new("bob").role("lead"), Usage::Client);
    let session = "_admin_4171c61e-1c4f-4ce8-b3b4-70aa2a5a4533";
    let attempts = [
        (&admin, session, Ok(Party::Admin)),
        (&project.site, "site-1", Ok(Party::Site)),
        (&project.site, "relay.site-1", Ok(Party::Site)),
        (&admin, "bob", Err(RegistrationRefused::WrongParty(Party::Site))),
        (&project.site, session, Err(RegistrationRefused::WrongParty(Party::Admin))),
    ];
    for (who, origin, expected) in attempts {
        let name = who.identity().common_name.clone();
        let challenge = Challenge::new(who.identity(), &mut project.rng).unwrap();
        let opening = project
            .admission
            .open(LINK, origin, &name, challenge.nonce(), &mut project.rng, project.clock)
            .unwrap();
        let answer = opening.prove(&project.server).unwrap();
        let proven = challenge.prove_server(&answer, SERVER, &project.verifier, now()).unwrap();
        let registration = proven.register(who).unwrap();
        let open = project.admission.take(LINK, origin, project.clock).unwrap();
        let party = open.verify(registration.proof(), &name, &project.verifier, now());
        assert_eq!(party.map(|proven| proven.party()), expected, "{name} at {origin}");
    }
}

#[test]
fn a_signer_other_than_the_one_that_began_does_not_go_on() {
    let mut project = Project::new();
    let challenge = project.challenge();
    let nonce = challenge.nonce().to_owned();
    let opening =
        project.admission.open(LINK, "site-1", "site-1", &nonce, &mut project.rng, project.clock).unwrap();
    assert!(matches!(opening.prove(&project.other), Err(SignError::OtherSigner)));
    let answer = project.answer(&challenge);
    let proven = challenge.prove_server(&answer, SERVER, &project.verifier, now()).unwrap();
    assert!(matches!(proven.register(&project.other), Err(SignError::OtherSigner)));
}

#[test]
fn a_token_that_the_server_did_not_sign_for_us_is_refused() {
    let mut project = Project::new();
    let accept = |project: &mut Project, alter: &dyn Fn(&Project, &mut Token)| {
        let registration = project.registration();
        let grant = project.admit(registration.proof(), "site-1").unwrap();
        let mut token = grant.to_token();
        alter(project, &mut token);
        registration.accept(token, &project.verifier).map(|_| ()).unwrap_err()
    };
    let uuid = "940d0ce0-f5ed-4170-8f4e-56137b39df78";
    let forged = |signature: Vec<u8>| Secret::from(locule_identity::encode_signature(&signature));

    let swapped = accept(&mut project, &|_, token| token.token = uuid.into());
    let unsigned = accept(&mut project, &|_, token| token.signature = "NA".into());
    let by_a_site = accept(&mut project, &|project, token| {
        let text = token_text("site-1", token.token.expose());
        token.signature = forged(project.other.sign(&text).unwrap());
    });
    let for_another = accept(&mut project, &|project, token| {
        let text = token_text("site-2", token.token.expose());
        token.signature = forged(project.server.sign(&text).unwrap());
    });
    for error in [swapped, unsigned, by_a_site, for_another] {
        assert!(matches!(error, RegistrationError::Signature(_)), "{error}");
    }
    for text in ["server", "", "NA", "940D0CE0-F5ED-4170-8F4E-56137B39DF78"] {
        let error = accept(&mut project, &|_, token| token.token = text.into());
        assert_eq!(error, RegistrationError::Token);
    }
    let error = accept(&mut project, &|_, token| token.ssid = "a\nb".into());
    assert_eq!(error, RegistrationError::Ssid);
}

#[test]
fn a_challenge_proof_never_passes_for_a_token_nor_a_token_for_a_proof() {
    let mut project = Project::new();
    // What the server would have to sign for a site whose name begins the server's is not signed at all.
    for name in ["server.exampl", "server.example", "server.example-2", "s"] {
        let nonce = "1f9257b4-7111-42d0-84a4-5beac975f581";
        let opened = project.admission.open(LINK, name, name, nonce, &mut project.rng, project.clock);
        assert!(matches!(opened, Err(ChallengeRefused::Name(_))), "{name}");
    }
    for nonce in ["", "server", "1f9257b4711142d084a45beac975f581", "x-1f9257b4-7111-42d0-84a4-5beac975f58"] {
        let opened = project.admission.open(LINK, "site-1", "site-1", nonce, &mut project.rng, project.clock);
        assert_eq!(opened.map(|_| ()), Err(ChallengeRefused::Nonce), "{nonce}");
    }
    // A token that the server signed for the site, offered to it as the proof of the server.
    let registration = project.registration();
    let grant = project.admit(registration.proof(), "site-1").unwrap();
    let error = project.prove_server(|_, _, proof| {
        proof.signature = locule_identity::decode_signature(grant.signature().expose()).unwrap();
    });
    assert!(matches!(error, ChallengeError::Signature(_)));
}

#[test]
fn a_federation_without_proofs_has_unsigned_tokens() {
    let mut rng = support::rng(1);
    let grant = Grant::unproven("site-1", "site-1", &mut rng).unwrap();
    assert_eq!(grant.signature().expose(), "NA");
    let session = Session::unproven("site-1", grant.to_token()).unwrap();
    assert_eq!(session.token().expose(), grant.token().expose());
    assert!(session.server().is_none());
    assert!(Grant::unproven("server", "server", &mut rng).is_err());
    assert!(Session::unproven("site 1", grant.to_token()).is_err());
}

#[test]
fn signatures_are_checked_against_who_signed_not_who_shows_them() {
    let project = Project::new();
    let signature = project.site.sign(b"text").unwrap();
    project.verifier.verify(project.site.identity(), b"text", &signature).unwrap();
    assert!(project.verifier.verify(project.other.identity(), b"text", &signature).is_err());
}
