//! What must not go well.

use locule_admin::{CommandDocument, Item};
use serde_json::json;

use crate::console::Console;
use crate::scene::{SECOND, Scene, name, site};

#[tokio::test(start_paused = true)]
async fn only_whoever_registered_so_can_log_in_so() {
    let scene = Scene::start().await;
    let ann = Console::register(&scene, "ann").await;
    let rejected = [Item::Text("REJECT".into())];
    // A proof has no nonce: whoever has seen it once can show it again, but not from a cell of that name.
    assert_eq!(ann.prove("bob", "bob").await.items, rejected);
    assert_eq!(ann.prove("ann", "bob").await.items, rejected);
    assert_eq!(ann.prove("bob", "ann").await.items, rejected);
    assert_eq!(ann.prove("site-1", "site-1").await.items, rejected);
    assert_eq!(ann.refused("list_jobs", "not_authenticated").await, "not authenticated - no token");
    assert_eq!(ann.prove("ann", "ann").await.items[0], Item::Text("OK".into()));
}

#[tokio::test(start_paused = true)]
async fn a_session_is_good_at_its_own_cell_only() {
    let scene = Scene::start().await;
    let ann = Console::log_in(&scene, "ann").await;
    for thief in ["ann", "bob"] {
        let mut thief = Console::register(&scene, thief).await;
        thief.token.clone_from(&ann.token);
        assert_eq!(thief.refused("list_jobs", "error").await, "session_inactive");
    }
    let mut forged = Console::register(&scene, "ann").await;
    for token in ["", ":", "e30=:c2ln", &"x".repeat(100_000)] {
        forged.token = Some(token.to_owned());
        assert_eq!(forged.refused("list_jobs", "error").await, "session_inactive");
    }
    assert_eq!(ann.ask("list_jobs").await.status_word(), Some("ok"), "the real one goes on");
}

#[tokio::test(start_paused = true)]
async fn a_site_is_not_served() {
    let scene = Scene::start().await;
    let cell = site(&scene).await;
    let site = Console { cell, token: None, expired: tokio::sync::mpsc::unbounded_channel().1 };
    let refused = site.try_ask("_commands").await.unwrap_err();
    assert_eq!(refused.code().as_str(), "unauthenticated");
    let command = CommandDocument::new("submit_job sum").to_text("now");
    let chunk = site.try_send(&command).await.unwrap_err();
    assert_eq!(chunk.code().as_str(), "unauthenticated");
}

#[tokio::test(start_paused = true)]
async fn everybody_does_only_what_the_role_allows() {
    let scene = Scene::start().await;
    let _site = site(&scene).await;
    let (ann, bob) = (Console::log_in(&scene, "ann").await, Console::log_in(&scene, "bob").await);
    let (mia, root) = (Console::log_in(&scene, "mia").await, Console::log_in(&scene, "root").await);
    let refused = mia.submit(&scene.job("mias", "mia")).await;
    assert_eq!(refused.meta["info"], "not authorized");
    assert_eq!(scene.spooled(), 0);

    let job =
        scene.ends(ann.submit(&scene.job("anns", "ann"))).await.meta["job_id"].as_str().unwrap().to_owned();
    assert_eq!(mia.ask(&format!("get_job_meta {job}")).await.status_word(), Some("ok"));
    for command in ["abort_job", "delete_job", "download_job", "clone_job"] {
        for other in [&bob, &mia] {
            other.refused(&format!("{command} {job}"), "not_authorized").await;
        }
    }
    for command in ["shutdown all", "disable_client site-1", "report_version all", "list_sessions"] {
        mia.refused(command, "not_authorized").await;
    }
    ann.refused("disable_client site-1", "not_authorized").await; // the server is of another organisation
    assert_eq!(root.ask(&format!("abort_job {job}")).await.status_word(), Some("ok"));
    assert!(!scene.stop.is_cancelled());
}

#[tokio::test(start_paused = true)]
async fn what_is_not_understood_is_answered() {
    let scene = Scene::start().await;
    let _site = site(&scene).await;
    let root = Console::log_in(&scene, "root").await;
    let info = root.refused("cat server log.txt", "error").await;
    assert_eq!(info, "command \"cat\" is not supported by this server");
    root.refused("", "error").await;
    root.refused("check_status", "invalid_target").await;
    root.refused("check_status nowhere", "invalid_target").await;
    assert_eq!(
        root.refused("check_status client site-9", "invalid_target").await,
        "invalid client(s): site-9"
    );
    root.refused("get_job_meta", "syntax_error").await;
    root.refused("get_job_meta ../../etc", "invalid_job_id").await;
    root.refused("get_job_meta 4f1c2d3e-0000-4000-8000-000000000000", "invalid_job_id").await;
    root.refused("list_jobs -z", "syntax_error").await;
    root.refused("submit_job sum", "internal_error").await; // nothing was sent with it
    root.refused("download_job", "syntax_error").await;
}

#[tokio::test(start_paused = true)]
async fn a_job_that_is_none_is_refused_with_the_reason() {
    let scene = Scene::start().await;
    let ann = Console::log_in(&scene, "ann").await;
    let unsigned = scene.job("changed", "ann");
    std::fs::write(unsigned.join("app/config/config_fed_client.json"), "{}").unwrap();
    let refused = ann.submit(&unsigned).await;
    assert_eq!(refused.status_word(), Some("invalid_job_def"));
    assert!(refused.meta["info"].as_str().unwrap().contains("signature"), "{refused:?}");

    let by_a_site = scene.job("by-a-site", "site-1");
    assert!(ann.submit(&by_a_site).await.meta["info"].as_str().unwrap().contains("no administrator"));
    assert_eq!(ann.ask("list_jobs").await.meta["jobs"], json!([]));
    assert_eq!(scene.spooled(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_upload_out_of_order_or_too_large_or_left_alone_is_given_up() {
    let scene = Scene::with(|settings| settings.upload_bytes = 100).await;
    let ann = Console::log_in(&scene, "ann").await;
    let command = CommandDocument { token: ann.token.clone(), ..CommandDocument::new("submit_job sum") };
    let command = command.to_text("now");
    let start = |size| Some((command.as_str(), size));
    assert_eq!(ann.send("large", 0, b"ab", false, start(101)).await.code, "EXECUTION_EXCEPTION");
    assert_eq!(ann.send("unknown", 1, b"ab", false, None).await.code, "BAD_REQUEST_DATA");

    assert_eq!(ann.send("a", 0, b"ab", false, start(4)).await.code, "OK");
    assert_eq!(ann.send("a", 2, b"cd", true, None).await.code, "EXECUTION_EXCEPTION");
    assert_eq!(ann.send("a", 1, b"cd", true, None).await.code, "BAD_REQUEST_DATA");
    assert_eq!(scene.spooled(), 0);

    assert_eq!(ann.send("b", 0, b"ab", false, start(4)).await.code, "OK");
    assert_eq!(ann.send("c", 0, b"ab", false, start(4)).await.code, "OK");
    assert_eq!(ann.send("d", 0, b"ab", false, start(4)).await.code, "EXECUTION_EXCEPTION", "two at a time");
    assert_eq!(scene.spooled(), 2);
    tokio::time::sleep(70 * SECOND).await;
    assert_eq!(ann.send("b", 1, b"cd", true, None).await.code, "BAD_REQUEST_DATA");
    assert_eq!(scene.spooled(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_result_is_for_the_console_that_asked_and_ends_with_its_session() {
    let scene = Scene::start().await;
    let _site = site(&scene).await;
    let (ann, root) = (Console::log_in(&scene, "ann").await, Console::log_in(&scene, "root").await);
    let job =
        scene.ends(ann.submit(&scene.job("sum", "ann"))).await.meta["job_id"].as_str().unwrap().to_owned();
    let offer = ann.ask(&format!("download_job {job}")).await;
    let reference = offer.meta["files"][0][1].as_str().unwrap();
    assert_eq!(root.chunk(reference, None).await.unwrap_err().code().as_str(), "invalid_request");
    assert!(ann.chunk(reference, None).await.is_ok());
    ann.ask("_logout").await;
    assert!(ann.chunk(reference, None).await.is_err());
    assert_eq!(scene.spooled(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_administrators_cell_must_bear_the_name_of_one() {
    let scene = Scene::start().await;
    let carrier = scene.network.clone().claiming("ann").pretending(locule_transport::Security::Mutual);
    let cell = locule_cell::Cell::builder(locule_cell::CellConfig::new(name("ann")))
        .transports(locule_transport::Transports::new().with(carrier))
        .start();
    cell.connect(locule_transport::Endpoint::parse("mem://server").unwrap());
    assert!(cell.wait_linked(&locule_message::Fqcn::server(), 5 * SECOND).await);
    let denied = std::panic::AssertUnwindSafe(crate::scene::register(
        &cell,
        "ann",
        locule_protocol::ClientType::Admin,
    ));
    assert!(futures_util::FutureExt::catch_unwind(denied).await.is_err(), "only as `_admin_<uuid>`");
}
