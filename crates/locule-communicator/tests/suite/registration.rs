use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use locule_cell::{Cell, CellConfig, HandlerError, Incoming, Reply};
use locule_communicator::RegisterError;
use locule_fobs::Map;
use locule_identity::{Admission, AdmissionLimits, ChallengeError, Grant, RegistrationProof, Signer};
use locule_identity_openssl::OpensslSigner;
use locule_message::{Headers, Payload, ReturnCode, key};
use locule_protocol::{
    ChallengeReply, ChallengeRequest, ClientType, OutcomeReport, RegisterReply, RegisterRequest, outcome,
    prop,
};
use locule_transport::{Endpoint, Transports};
use tokio::time::{Instant, advance};

use crate::support::{Federation, Pki, refusal, reply, seconds, settings};

const CHALLENGE: (&str, &str) = ("task", "challenge");
const REGISTER: (&str, &str) = ("task", "register");

/// The server's half of a registration, as the server has it.
#[derive(Clone)]
struct Door {
    signer: Arc<OpensslSigner>,
    admission: Arc<Mutex<Admission>>,
}

impl Door {
    fn of(signer: &Arc<OpensslSigner>) -> Self {
        let admission = Admission::new(signer.identity().clone(), AdmissionLimits::default());
        Self { signer: signer.clone(), admission: Arc::new(Mutex::new(admission)) }
    }

    /// Opens for challenges and registrations.
    fn open(&self, federation: &Federation) {
        self.challenges(federation);
        let door = self.clone();
        federation.answer(REGISTER.0, REGISTER.1, move |_, incoming| grant_to_reply(&door.admit(&incoming)));
    }

    fn challenges(&self, federation: &Federation) {
        let door = self.clone();
        federation.answer(CHALLENGE.0, CHALLENGE.1, move |_, incoming| door.challenge(&incoming));
    }

    fn challenge(&self, incoming: &Incoming) -> Result<Reply, HandlerError> {
        let ask = ChallengeRequest::from_parts(&incoming.headers, &incoming.payload()).unwrap();
        let (link, origin) = (incoming.link.link.0, incoming.origin.as_str());
        let now = Instant::now().into_std();
        let mut admission = self.admission.lock().unwrap();
        let opening = admission.open(link, origin, &ask.common_name, &ask.nonce, &mut rand::rng(), now);
        let proof = opening.unwrap().prove(&*self.signer).unwrap();
        let answer = ChallengeReply {
            nonce: proof.nonce,
            common_name: proof.cn,
            certificate: proof.cert.into(),
            signature: proof.signature.into(),
        };
        reply(answer.to_parts().unwrap())
    }

    /// Panics, which the site hears of as `process_exception`, if anything is not as it should be.
    fn admit(&self, incoming: &Incoming) -> Grant {
        let ask = RegisterRequest::from_parts(&incoming.headers, &incoming.payload()).unwrap();
        let now = Instant::now().into_std();
        let (link, origin) = (incoming.link.link.0, incoming.origin.as_str());
        let open = self.admission.lock().unwrap().take(link, origin, now).unwrap();
        let proof = ask.proof.unwrap();
        let proof = RegistrationProof {
            cert: proof.certificate.to_vec(),
            cn: proof.common_name,
            signature: proof.signature.to_vec(),
        };
        let proven = open.verify(&proof, &ask.client_name, &*Pki::get().root, SystemTime::now()).unwrap();
        proven.grant(&*self.signer, &mut rand::rng()).unwrap()
    }
}

fn granted(grant: &Grant) -> RegisterReply {
    RegisterReply::Granted {
        token: grant.token().expose().into(),
        signature: grant.signature().expose().into(),
        ssid: grant.ssid().into(),
        version: None,
    }
}

fn grant_to_reply(grant: &Grant) -> Result<Reply, HandlerError> {
    reply(granted(grant).to_parts().unwrap())
}

async fn federation_with_door() -> Federation {
    let federation = Federation::of_parents().await;
    Door::of(&Pki::get().server).open(&federation);
    federation
}

#[tokio::test(start_paused = true)]
async fn a_site_registers_and_says_what_it_is() {
    let federation = federation_with_door().await;
    let mut settings = settings();
    settings.site_config = Some(Map::from_iter([("gpus", 2_i64)]));
    let site = federation.communicator(settings);
    let session = site.register(Some(&Pki::get().credentials())).await.unwrap();

    assert_eq!((session.site_name(), session.ssid()), ("site-1", "NA"));
    assert_eq!(session.server().unwrap().common_name, "server.ward-7.org");
    assert!(federation.stamp.is_set());
    let heard = federation.heard(REGISTER.0, REGISTER.1).remove(0);
    assert!(heard.optional());
    let heard = RegisterRequest::from_parts(&heard.headers, &heard.payload()).unwrap();
    assert_eq!((&*heard.client_name, heard.client_type), ("site-1", ClientType::Regular));
    assert_eq!(heard.project_name, "ward-7");
    assert!(heard.client_ip.parse::<IpAddr>().is_ok());
    assert_eq!(heard.peer.str(prop::IDENTITY), Some("site-1"));
    assert_eq!(heard.peer.str(prop::RUN_NUM), Some(""));
    assert_eq!(heard.site_config.unwrap().int("gpus"), Some(2));
}

#[tokio::test(start_paused = true)]
async fn observers_hear_before_and_after_a_registration() {
    let federation = federation_with_door().await;
    federation.communicator(settings()).register(Some(&Pki::get().credentials())).await.unwrap();
    assert_eq!(federation.notes.all(), ["_before_client_register", "_after_client_register"]);
}

#[tokio::test(start_paused = true)]
async fn observers_hear_no_end_of_a_registration_that_was_refused() {
    let federation = Federation::of_parents().await;
    federation.answer(CHALLENGE.0, CHALLENGE.1, |_, _| refusal(ReturnCode::Unauthenticated, "no"));
    federation.communicator(settings()).register(Some(&Pki::get().credentials())).await.unwrap_err();
    assert_eq!(federation.notes.all(), ["_before_client_register"]);
    assert!(!federation.stamp.is_set());
}

/// Registers at a server that begins to listen after 4 s, and would take a day if it did not wait for that.
async fn register_late(federation: &Federation) {
    Door::of(&Pki::get().server).open(federation);
    let mut settings = settings();
    settings.register_interval = seconds(86_400);
    let site = federation.communicator(settings);
    let begun = Instant::now();
    let registering = tokio::spawn(async move { site.register(Some(&Pki::get().credentials())).await });
    advance(seconds(4)).await;
    federation.open().await;
    registering.await.unwrap().unwrap();
    assert!(begun.elapsed() < seconds(15));
}

#[tokio::test(start_paused = true)]
async fn registration_waits_for_the_link_of_its_cell() {
    register_late(&Federation::apart("server", "site-1")).await;
}

#[tokio::test(start_paused = true)]
async fn a_link_to_an_own_job_is_not_the_link_that_is_waited_for() {
    let federation = Federation::apart("server", "site-1");
    let inside = Endpoint::parse("mem://inside").unwrap();
    federation.site.listen(&inside).await.unwrap();
    let job = Cell::builder(CellConfig::new("site-1.job-1".parse().unwrap()));
    let job = job.transports(Transports::new().with(federation.network.clone())).start();
    job.connect(inside);
    assert!(federation.site.wait_linked(job.name(), seconds(5)).await);
    register_late(&federation).await;
}

#[tokio::test(start_paused = true)]
async fn an_unreachable_server_is_challenged_again_until_it_is_there() {
    let federation = Federation::apart("server", "site-1");
    Door::of(&Pki::get().server).open(&federation);
    let site = federation.communicator(settings());
    let registering = tokio::spawn(async move { site.register(Some(&Pki::get().credentials())).await });
    advance(seconds(3600)).await;
    assert!(!registering.is_finished());
    federation.open().await;
    registering.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_not_ready_is_challenged_again_every_interval_without_limit() {
    let federation = Federation::of_parents().await;
    let door = Door::of(&Pki::get().server);
    door.open(&federation);
    let asked = federation.answer(CHALLENGE.0, CHALLENGE.1, move |before, incoming| match before {
        0..500 => refusal(ReturnCode::CommError, "not in service yet"),
        _ => door.challenge(&incoming),
    });
    let begun = Instant::now();
    federation.communicator(settings()).register(Some(&Pki::get().credentials())).await.unwrap();
    assert_eq!(asked.load(Ordering::Relaxed), 501);
    assert_eq!(begun.elapsed().as_secs(), 1000);
}

#[tokio::test(start_paused = true)]
async fn a_registration_that_got_lost_begins_anew_with_a_challenge() {
    let federation = Federation::of_parents().await;
    let door = Door::of(&Pki::get().server);
    door.challenges(&federation);
    federation.answer(REGISTER.0, REGISTER.1, move |before, incoming| {
        let grant = door.admit(&incoming); // uses the challenge up
        if before == 0 { refusal(ReturnCode::CommError, "lost") } else { grant_to_reply(&grant) }
    });
    federation.communicator(settings()).register(Some(&Pki::get().credentials())).await.unwrap();
    assert_eq!(federation.heard(CHALLENGE.0, CHALLENGE.1).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_registration_in_vain_can_be_cancelled() {
    let federation = Federation::of_parents().await;
    federation.answer(CHALLENGE.0, CHALLENGE.1, |_, _| refusal(ReturnCode::CommError, "not yet"));
    let site = federation.communicator(settings());
    let registering = tokio::spawn(async move { site.register(Some(&Pki::get().credentials())).await });
    advance(seconds(61)).await;
    federation.cancel.cancel();
    let cancelled = Instant::now();
    assert!(matches!(registering.await.unwrap(), Err(RegisterError::Cancelled)));
    assert_eq!(cancelled.elapsed(), seconds(0));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_final_and_its_reason_is_given_without_secrets() {
    let federation = Federation::of_parents().await;
    let reason = "Client 'site-1' is disabled\ntoken 940d0ce0-f5ed-4170-8f4e-5613763b9df7";
    Door::of(&Pki::get().server).challenges(&federation);
    let asked =
        federation.answer(REGISTER.0, REGISTER.1, |_, _| refusal(ReturnCode::Unauthenticated, reason));
    let error = federation.communicator(settings()).register(Some(&Pki::get().credentials())).await;
    let Err(RegisterError::Refused { what, code, reason }) = error else { panic!("{error:?}") };
    assert_eq!((what, code), ("registration", ReturnCode::Unauthenticated));
    assert!(reason.contains("Client 'site-1' is disabled") && reason.contains("token …"), "{reason}");
    assert!(!reason.contains("940d0ce0") && !reason.contains('\n'), "{reason}");
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn an_empty_answer_to_a_registration_is_a_refusal() {
    let federation = Federation::of_parents().await;
    Door::of(&Pki::get().server).challenges(&federation);
    let refused = RegisterReply::Refused.to_parts().unwrap();
    federation.answer(REGISTER.0, REGISTER.1, move |_, _| reply(refused.clone()));
    let error = federation.communicator(settings()).register(Some(&Pki::get().credentials())).await;
    assert!(matches!(error, Err(RegisterError::Refused { code: ReturnCode::Unauthenticated, .. })));
}

/// Registers with a server whose answer to the registration is changed on its way.
async fn register_at(
    change: impl Fn(Grant, &mut Headers) -> RegisterReply + Send + Sync + 'static,
) -> (Federation, Result<locule_identity::Session, RegisterError>) {
    let federation = Federation::of_parents().await;
    let door = Door::of(&Pki::get().server);
    door.challenges(&federation);
    federation.answer(REGISTER.0, REGISTER.1, move |_, incoming| {
        let mut headers = Headers::new();
        let mut parts = change(door.admit(&incoming), &mut headers).to_parts().unwrap();
        parts.headers = headers;
        reply(parts)
    });
    let session = federation.communicator(settings()).register(Some(&Pki::get().credentials())).await;
    (federation, session)
}

#[tokio::test(start_paused = true)]
async fn a_token_in_headers_as_older_servers_have_it_is_taken() {
    let (federation, session) = register_at(|grant, headers| {
        headers.set(key::TOKEN, grant.token().expose());
        headers.set(key::TOKEN_SIGNATURE, grant.signature().expose());
        headers.set(key::SSID, "NA");
        RegisterReply::Refused // an empty payload
    })
    .await;
    session.unwrap();
    assert!(federation.stamp.is_set());
}

#[tokio::test(start_paused = true)]
async fn the_servers_own_token_in_headers_is_not_taken_for_a_sites() {
    let (federation, session) = register_at(|grant, headers| {
        headers.set(key::TOKEN, "server");
        headers.set(key::TOKEN_SIGNATURE, grant.signature().expose());
        RegisterReply::Refused
    })
    .await;
    assert!(matches!(session, Err(RegisterError::Refused { .. })));
    assert!(!federation.stamp.is_set());
}

#[tokio::test(start_paused = true)]
async fn a_token_that_the_server_did_not_sign_is_not_taken() {
    let (federation, session) = register_at(|grant, _| RegisterReply::Granted {
        token: "940d0ce0-f5ed-4170-8f4e-5613763b9df7".into(),
        signature: grant.signature().expose().into(),
        ssid: "NA".into(),
        version: None,
    })
    .await;
    assert!(matches!(session, Err(RegisterError::Grant(_))));
    assert!(!federation.stamp.is_set());
}

#[tokio::test(start_paused = true)]
async fn an_unsigned_token_is_not_taken_in_secure_mode() {
    let (_federation, session) = register_at(|grant, _| RegisterReply::Granted {
        token: grant.token().expose().into(),
        signature: "NA".into(),
        ssid: "NA".into(),
        version: None,
    })
    .await;
    assert!(matches!(session, Err(RegisterError::Grant(_))));
}

#[tokio::test(start_paused = true)]
async fn a_server_of_another_name_learns_nothing() {
    let federation = federation_with_door().await;
    let mut settings = settings();
    settings.expected_server = "server.ward-8.org".into();
    let error = federation.communicator(settings).register(Some(&Pki::get().credentials())).await;
    assert!(matches!(error, Err(RegisterError::Server(ChallengeError::OtherName { .. }))), "{error:?}");
    assert!(federation.heard(REGISTER.0, REGISTER.1).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_server_of_another_root_learns_nothing() {
    let federation = Federation::of_parents().await;
    Door::of(&Pki::get().impostor).open(&federation);
    let error = federation.communicator(settings()).register(Some(&Pki::get().credentials())).await;
    assert!(matches!(error, Err(RegisterError::Server(ChallengeError::Chain(_)))), "{error:?}");
    assert!(federation.heard(REGISTER.0, REGISTER.1).is_empty());
}

#[tokio::test(start_paused = true)]
async fn outside_of_secure_mode_there_is_no_challenge_and_no_proof() {
    let federation = Federation::of_parents().await;
    federation.answer(REGISTER.0, REGISTER.1, |_, incoming| {
        let grant = Grant::unproven("site-1", incoming.origin.as_str(), &mut rand::rng()).unwrap();
        grant_to_reply(&grant)
    });
    let mut settings = settings();
    settings.secure = false;
    let session = federation.communicator(settings).register(None).await.unwrap();
    assert_eq!(session.token_signature().expose(), "NA");
    assert!(federation.heard(CHALLENGE.0, CHALLENGE.1).is_empty());
    let heard = federation.heard(REGISTER.0, REGISTER.1).remove(0);
    assert_eq!(RegisterRequest::from_parts(&heard.headers, &heard.payload()).unwrap().proof, None);
}

#[tokio::test(start_paused = true)]
async fn outside_of_secure_mode_an_unready_server_is_asked_again_too() {
    let federation = Federation::of_parents().await;
    let asked = federation.answer(REGISTER.0, REGISTER.1, |before, incoming| match before {
        0..3 => refusal(ReturnCode::CommError, "not in service yet"),
        _ => grant_to_reply(&Grant::unproven("site-1", incoming.origin.as_str(), &mut rand::rng()).unwrap()),
    });
    let mut settings = settings();
    settings.secure = false;
    federation.communicator(settings).register(None).await.unwrap();
    assert_eq!(asked.load(Ordering::Relaxed), 4);
}

#[tokio::test(start_paused = true)]
async fn secure_mode_needs_credentials() {
    let federation = federation_with_door().await;
    let error = federation.communicator(settings()).register(None).await;
    assert!(matches!(error, Err(RegisterError::NoCredentials)));
    assert!(federation.heard_requests().is_empty());
}

#[tokio::test(start_paused = true)]
async fn after_registering_every_request_and_reply_carries_the_session() {
    let federation = federation_with_door().await;
    let site = federation.communicator(settings());
    let session = site.register(Some(&Pki::get().credentials())).await.unwrap();
    for message in federation.heard_requests() {
        assert_eq!(message.headers.str(key::TOKEN), None, "nothing to show before the token is there");
    }

    site.quit().await.unwrap_err(); // nobody answers it here, which does not matter
    federation.site.handle("admin", "ping", |_: Incoming| async { Ok(Reply::ok(Payload::none())) });
    let ping = locule_cell::Request::new("admin", "ping", Payload::none());
    federation.server.request(&"site-1".parse().unwrap(), ping).await.unwrap();

    let [quit, pong] = [("task", "quit"), ("admin", "ping")].map(|(channel, topic)| {
        let heard = federation.heard(channel, topic);
        assert_eq!(heard.len(), 1, "{topic}");
        heard[0].clone()
    });
    for message in [quit, pong] {
        assert_eq!(message.headers.str(key::CLIENT_NAME), Some("site-1"));
        assert_eq!(message.headers.str(key::TOKEN), Some(session.token().expose()));
        assert_eq!(message.headers.str(key::TOKEN_SIGNATURE), Some(session.token_signature().expose()));
        assert_eq!(message.headers.str(key::SSID), Some("NA"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_of_an_older_version_hears_of_failures_only_and_need_not_answer() {
    let federation = federation_with_door().await;
    let site = federation.communicator(settings());
    site.register(Some(&Pki::get().credentials())).await.unwrap();
    let reports = (OutcomeReport::CHANNEL, OutcomeReport::TOPIC);
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    federation.answer(reports.0, reports.1, move |_, incoming| {
        tell.send(OutcomeReport::from_parts(&incoming.headers, &incoming.payload()).unwrap().code).unwrap();
        Err(HandlerError::failed("older servers answer nothing of use"))
    });
    site.report_outcome(&OutcomeReport::new("job-1", outcome::DONE, None)).await.unwrap();
    site.report_outcome(&OutcomeReport::new("job-2", outcome::EXCEPTION, None)).await.unwrap();
    assert_eq!(told.recv().await, Some(outcome::EXCEPTION));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_too_old_is_named() {
    let (federation, session) = register_at(|grant, _| {
        let RegisterReply::Granted { token, signature, ssid, .. } = granted(&grant) else { unreachable!() };
        RegisterReply::Granted { token, signature, ssid, version: Some("2.6.2".into()) }
    })
    .await;
    let Err(RegisterError::Version(refused)) = session else { panic!("{session:?}") };
    assert_eq!(refused.to_string(), "nvflare 2.6.2 is too old: 2.7 and later are spoken here");
    assert!(!federation.stamp.is_set());
}
