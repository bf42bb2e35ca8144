//! Challenge and registration, and everything that must not become one.

use locule_cell::Request;
use locule_fobs::Map;
use locule_message::{Fqcn, key};
use locule_protocol::{ChallengeRequest, ClientType, Heartbeat, RegisterReply, RegisterRequest};
use locule_server::ServerEvent;

use crate::scene::{Kit, NOT_IN_FORCE, SECOND, Scene, signer};
use crate::site::{Site, ask, challenge, refused, registration};

const REGISTER: &str = RegisterRequest::TOPIC;

#[tokio::test(start_paused = true)]
async fn a_site_that_proves_itself_gets_its_token_in_payload_and_headers() {
    let mut scene = Scene::start().await;
    let cell = scene.linked("site-1", "site-1").await;
    let own = signer("site-1");
    let open = challenge(&cell, &*own).await.register(&*own).unwrap();
    let parts = registration("site-1", &open).to_parts().unwrap();
    let reply = ask(&cell, "task", REGISTER, parts).await.unwrap().into_ok().unwrap();

    let granted = RegisterReply::from_parts(&reply.headers, &reply.payload).unwrap();
    let RegisterReply::Granted { token, signature, ssid, .. } = granted else { panic!("not granted") };
    assert_eq!(reply.headers.str(key::CLIENT_NAME), Some("site-1"), "the stamp would say `server`");
    assert_eq!(reply.headers.str(key::TOKEN), Some(token.as_str()));
    assert_eq!(reply.headers.str(key::TOKEN_SIGNATURE), Some(signature.as_str()));
    assert_eq!(reply.headers.str(key::SSID), Some(ssid.as_str()));
    assert_eq!(ssid, "NA");
    assert_eq!(scene.kit.ledger.records(), 1);
    let joined = ServerEvent::SiteJoined { site: "site-1".into() };
    scene.until(|event| (*event == joined).then_some(())).await;
}

#[tokio::test(start_paused = true)]
async fn no_token_is_sent_that_the_ledger_could_not_write_down() {
    let scene = Scene::start().await;
    scene.kit.ledger.fill();
    let cell = scene.linked("site-1", "site-1").await;
    let own = signer("site-1");
    let open = challenge(&cell, &*own).await.register(&*own).unwrap();
    let parts = registration("site-1", &open).to_parts().unwrap();
    let reply = ask(&cell, "task", REGISTER, parts).await.unwrap();
    assert_eq!(reply.code.as_str(), "service_unavailable");
    assert!(reply.payload.body.is_empty() && reply.headers.str(key::TOKEN).is_none());

    scene.kit.ledger.make_room();
    let open = challenge(&cell, &*own).await.register(&*own).unwrap();
    let parts = registration("site-1", &open).to_parts().unwrap();
    assert!(ask(&cell, "task", REGISTER, parts).await.unwrap().into_ok().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_registration_needs_a_challenge_of_its_own() {
    let scene = Scene::start().await;
    let cell = scene.linked("site-1", "site-1").await;
    let own = signer("site-1");
    let open = challenge(&cell, &*own).await.register(&*own).unwrap();
    let parts = registration("site-1", &open).to_parts().unwrap();
    assert!(ask(&cell, "task", REGISTER, parts.clone()).await.unwrap().into_ok().is_ok());
    assert_eq!(refused(&cell, "task", REGISTER, parts).await, "no registration session", "replayed");

    let (other, third) = (scene.linked("site-2", "site-2").await, scene.linked("site-3", "site-3").await);
    let own = signer("site-3");
    let open = challenge(&third, &*own).await.register(&*own).unwrap();
    let parts = registration("site-2", &open).to_parts().unwrap();
    assert_eq!(refused(&other, "task", REGISTER, parts).await, "no registration session", "never asked");
}

#[tokio::test(start_paused = true)]
async fn a_challenge_is_good_for_its_own_link_only() {
    let scene = Scene::start().await;
    let own = signer("site-1");
    let first = scene.linked("site-1", "site-1").await;
    let open = challenge(&first, &*own).await.register(&*own).unwrap();
    first.shutdown(SECOND).await;
    let second = scene.linked("site-1", "site-1").await;
    let parts = registration("site-1", &open).to_parts().unwrap();
    assert_eq!(refused(&second, "task", REGISTER, parts).await, "no registration session");
}

#[tokio::test(start_paused = true)]
async fn a_challenge_that_is_too_old_is_gone() {
    let scene = Scene::start().await;
    let cell = scene.linked("site-1", "site-1").await;
    let own = signer("site-1");
    let open = challenge(&cell, &*own).await.register(&*own).unwrap();
    tokio::time::advance(61 * SECOND).await;
    let parts = registration("site-1", &open).to_parts().unwrap();
    assert_eq!(refused(&cell, "task", REGISTER, parts).await, "no registration session");
}

/// Challenges as site-1, changes the registration, and expects to be refused; why.
async fn refused_when(change: impl FnOnce(&mut RegisterRequest)) -> String {
    let mut scene = Scene::start().await;
    let cell = scene.linked("site-1", "site-1").await;
    let own = signer("site-1");
    let open = challenge(&cell, &*own).await.register(&*own).unwrap();
    let mut request = registration("site-1", &open);
    change(&mut request);
    let why = refused(&cell, "task", REGISTER, request.to_parts().unwrap()).await;
    // Whatever was wrong, the challenge is used up, and nobody has joined.
    let parts = registration("site-1", &open).to_parts().unwrap();
    assert_eq!(refused(&cell, "task", REGISTER, parts).await, "no registration session");
    assert_eq!(scene.kit.ledger.records(), 0);
    assert!(scene.events.try_recv().is_err());
    why
}

#[tokio::test(start_paused = true)]
async fn an_older_site_is_granted_the_session_that_it_will_claim() {
    for (config, session) in [(Some(Map::new()), "NA"), (None, "ebc6125d-0a56-4688-9b08-355fe9e4d61a")] {
        let scene = Scene::start().await;
        let site = Site::join_older(&scene, "site-1", config).await;
        assert_eq!(site.session.ssid(), session);
    }
}

#[tokio::test(start_paused = true)]
async fn a_version_that_is_not_spoken_is_refused_by_its_name() {
    let why = refused_when(|request| request.version = Some("2.6.2".into())).await;
    assert_eq!(why, "nvflare 2.6.2 is too old: 2.7 and later are spoken here");
}

#[tokio::test(start_paused = true)]
async fn a_registration_for_another_project_is_refused() {
    let why = refused_when(|request| request.project_name = "ward-8".into()).await;
    assert_eq!(why, "Requested task does not match the current server task");
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_provisioning_knows_gets_a_token_and_is_no_site() {
    let mut scene = Scene::with(Kit::new(), |settings| _ = settings.relays.insert("site-1".into())).await;
    let cell = scene.linked("site-1", "site-1").await;
    let own = signer("site-1");
    let open = challenge(&cell, &*own).await.register(&*own).unwrap();
    let parts = registration("site-1", &open).to_parts().unwrap();
    let why = refused(&cell, "task", REGISTER, parts).await;
    assert_eq!(why, "provisioning does not know a participant of this kind by that name", "as a site");

    let open = challenge(&cell, &*own).await.register(&*own).unwrap();
    let mut request = registration("site-1", &open);
    request.client_type = ClientType::Relay;
    let reply = ask(&cell, "task", REGISTER, request.to_parts().unwrap()).await.unwrap().into_ok().unwrap();
    assert!(reply.headers.str(key::TOKEN).is_some());
    assert!(scene.events.try_recv().is_err(), "no site has joined");
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_provisioning_does_not_know_is_refused() {
    let why = refused_when(|request| request.client_type = ClientType::Relay).await;
    assert_eq!(why, "provisioning does not know a participant of this kind by that name");
}

#[tokio::test(start_paused = true)]
async fn a_registration_without_proof_is_refused() {
    let why = refused_when(|request| request.proof = None).await;
    assert_eq!(why, "registration carries no proof of identity");
}

#[tokio::test(start_paused = true)]
async fn a_certificate_of_another_name_is_refused() {
    let why = refused_when(|request| {
        let other = signer("site-2").certificate_pem().to_vec();
        request.proof.as_mut().unwrap().certificate = other.into();
    });
    assert!(why.await.contains("site-2"));
}

#[tokio::test(start_paused = true)]
async fn a_name_that_is_not_in_the_certificate_is_refused() {
    // The gate sees it first, since the link shows a certificate: the challenge is not even touched.
    let scene = Scene::start().await;
    let cell = scene.linked("site-1", "site-1").await;
    let own = signer("site-1");
    let open = challenge(&cell, &*own).await.register(&*own).unwrap();
    let parts = registration("site-2", &open).to_parts().unwrap();
    let why = refused(&cell, "task", REGISTER, parts).await;
    assert_eq!(why, "link belongs to another name than the one that registers");
    let ask_as = |name: &str| ChallengeRequest {
        common_name: name.to_owned(),
        nonce: "b3b1a9c2-8c5a-4d58-9d0f-2f6d1c5b7a10".into(),
    };
    let parts = ask_as("site-2").to_parts().unwrap();
    let why = refused(&cell, "task", ChallengeRequest::TOPIC, parts).await;
    assert_eq!(why, "link belongs to another name than the one that registers");
}

#[tokio::test(start_paused = true)]
async fn the_servers_own_certificate_sent_back_is_refused() {
    let why = refused_when(|request| {
        let own = signer("server").certificate_pem().to_vec();
        request.proof.as_mut().unwrap().certificate = own.into();
    });
    assert!(!why.await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_certificate_under_another_root_is_refused() {
    let why = refused_when(|request| {
        let other = signer("stranger").certificate_pem().to_vec();
        request.proof.as_mut().unwrap().certificate = other.into();
    });
    assert!(why.await.contains("certificate"));
}

#[tokio::test(start_paused = true)]
async fn a_signature_over_something_else_is_refused() {
    let why = refused_when(|request| {
        let signature = signer("site-1").sign(b"site-1something else").unwrap();
        request.proof.as_mut().unwrap().signature = signature.into();
    });
    assert!(!why.await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_administrators_certificate_is_no_sites() {
    let scene = Scene::start().await;
    let cell = scene.linked("lead", "lead").await;
    let own = signer("lead");
    let open = challenge(&cell, &*own).await.register(&*own).unwrap();
    let why = refused(&cell, "task", REGISTER, registration("lead", &open).to_parts().unwrap()).await;
    assert!(!why.is_empty());
    assert_eq!(scene.kit.ledger.records(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_message_needs_a_token_that_was_granted_to_its_sender() {
    let scene = Scene::start().await;
    let one = Site::join(&scene, "site-1").await;
    let two = Site::join(&scene, "site-2").await;

    let nobody = scene.linked("site-3", "site-3").await;
    let why = refused(&nobody, "task", Heartbeat::TOPIC, one.heartbeat(&[])).await;
    assert_eq!(why, "message carries no token");

    let forged = Request::new("task", Heartbeat::TOPIC, one.heartbeat(&[]).payload)
        .header(key::CLIENT_NAME, "site-3")
        .header(key::TOKEN, "0b0f6f0e-4a42-4f4e-9d7e-0d5f5f5c1a11")
        .header(key::TOKEN_SIGNATURE, "NA");
    let reply = nobody.request(&Fqcn::server(), forged).await.unwrap();
    assert_eq!(reply.error.as_deref(), Some(NOT_IN_FORCE));

    two.stamp.set(one.session.clone());
    let why = refused(&two.cell, "task", Heartbeat::TOPIC, two.heartbeat(&[])).await;
    assert_eq!(why, "token was granted to another cell");
}

#[tokio::test(start_paused = true)]
async fn a_token_that_was_replaced_is_no_longer_good() {
    let scene = Scene::start().await;
    let old = Site::join(&scene, "site-1").await;
    old.cell.shutdown(SECOND).await;
    let new = Site::join(&scene, "site-1").await;
    new.stamp.set(old.session.clone());
    let why = refused(&new.cell, "task", Heartbeat::TOPIC, new.heartbeat(&[])).await;
    assert_eq!(why, NOT_IN_FORCE);
}
