//! Jobs that come packed, as administrators send them.

use std::fs;
use std::path::{Path, PathBuf};

use locule_job::{Packing, pack_file, pack_job, sign_folder};
use locule_protocol::Refusal;
use locule_server::{DeleteError, JobStatus, Package, ServerEvent, ServerSettings, SubmitError, Submitter};
use serde_json::json;

use crate::scene::{Kit, SECOND, Scene, signer};
use crate::site::{Answer, Order, Site};

fn ann() -> Submitter {
    Submitter { name: "ann".into(), org: "ward".into(), role: "lead".into() }
}

/// A packed job for these sites, as a file.
fn package(scene: &Scene, meta: serde_json::Value) -> Package {
    let workflows = json!([{ "id": "sum", "path": "test.Sum", "args": {} }]);
    packed(scene, &scene.folder(meta, workflows))
}

fn packed(scene: &Scene, folder: &Path) -> Package {
    sign_folder(folder, &*signer("lead")).unwrap();
    let file = scene.kit.dir.path().join("spool.zip");
    fs::write(&file, pack_job(folder).unwrap()).unwrap();
    let folder = folder.file_name().unwrap().to_str().unwrap().to_owned();
    Package { file, folder, submitter: ann(), may_bring_code: false, cloned_from: None, token: None }
}

fn left_over(scene: &Scene) -> Vec<PathBuf> {
    let jobs = fs::read_dir(scene.kit.root().join("state/jobs")).unwrap();
    jobs.map(|entry| entry.unwrap().path()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_packed_job_runs_and_is_kept_until_it_is_deleted() {
    let mut scene = Scene::start().await;
    let mut site = Site::join(&scene, "site-1").await;
    let package = package(&scene, json!({}));
    let job = scene.server.submit_package(package.clone()).await.unwrap();
    assert!(!package.file.exists(), "the archive is moved, not copied");
    site.work(&scene, 7).await;
    let record = scene.finished(&job).await;
    assert_eq!((record.status(), &record.submitter, record.packed), (JobStatus::Completed, &ann(), true));
    let files = scene.server.files(&job).unwrap();
    assert_eq!(files.read_meta().unwrap()["submitter_name"], "ann");
    assert!(files.package.is_file());

    scene.server.delete(&job).await.unwrap();
    assert!(scene.server.record(&job).is_none() && !files.run_dir.exists() && left_over(&scene).is_empty());
    assert!(matches!(scene.server.delete(&job).await, Err(DeleteError::Unknown)));
}

#[tokio::test(start_paused = true)]
async fn a_packed_job_that_waits_for_its_sites_does_so_across_a_restart_and_a_crash() {
    let scene = Scene::start().await;
    let job = scene.server.submit_package(package(&scene, json!({}))).await.unwrap();
    assert!(matches!(scene.server.delete(&job).await, Err(DeleteError::NotOver)));
    scene.server.shutdown().await;

    let mut scene = Scene::with(scene.kit.snapshot(), |_| {}).await;
    assert_eq!(scene.server.record(&job).unwrap().status(), JobStatus::Submitted);
    let why = |event: &ServerEvent| {
        let ServerEvent::JobWaits { reason, .. } = event else { return None };
        Some(reason.clone())
    };
    let why = scene.until(why).await;
    let waiting = scene.server.record(&job).unwrap().waiting.unwrap();
    assert_eq!((waiting.reason, why.as_str()), (why.clone(), "waiting for 1 more site(s)"));
    // this time nobody stopped it first
    let mut scene = Scene::with(scene.kit.snapshot(), |_| {}).await;
    let mut site = Site::join(&scene, "site-1").await;
    site.work(&scene, 7).await;
    assert_eq!(scene.finished(&job).await.status(), JobStatus::Completed);
    assert_eq!(left_over(&scene).len(), 1, "what was unpacked to take it up again is gone");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_left_of_a_package_that_is_refused() {
    let scene = Scene::start().await;
    let other = Package { folder: "other".into(), ..package(&scene, json!({})) };
    let refused = scene.server.submit_package(other).await.unwrap_err();
    assert!(matches!(refused, SubmitError::NoFolder { .. }), "{refused}");
    let outside = Package { folder: "../jobs".into(), ..package(&scene, json!({})) };
    assert!(matches!(scene.server.submit_package(outside).await, Err(SubmitError::NoFolder { .. })));

    // Nobody has signed what lies beside the job.
    let alone = package(&scene, json!({}));
    let archive = tempfile::tempdir().unwrap();
    fs::rename(scene.folder(json!({}), json!([])), archive.path().join(&alone.folder)).unwrap();
    fs::create_dir(archive.path().join("second")).unwrap();
    fs::write(archive.path().join("second/meta.json"), "{}").unwrap();
    fs::write(archive.path().join("notes.txt"), "").unwrap();
    fs::remove_file(&alone.file).unwrap();
    pack_file(archive.path(), "", &alone.file, Packing::Fast, 1 << 20).unwrap();
    let refused = scene.server.submit_package(alone.clone()).await.unwrap_err();
    let said = format!(
        "the archive holds `notes.txt`, `second` beside the job's folder `{}`; send that folder alone",
        alone.folder
    );
    assert!(refused.is_the_jobs_fault() && refused.to_string() == said, "{refused}");

    let folder = scene.folder(json!({}), json!([]));
    fs::create_dir(folder.join("app/custom")).unwrap();
    fs::write(folder.join("app/custom/code.py"), "pass").unwrap();
    let code = packed(&scene, &folder);
    assert!(matches!(scene.server.submit_package(code.clone()).await, Err(SubmitError::CustomCode)));

    fs::write(&code.file, b"no zip").unwrap();
    assert!(scene.server.submit_package(code).await.unwrap_err().is_the_jobs_fault());
    assert_eq!(scene.kit.jobs.records(), 1, "its format and nothing else");
    assert!(left_over(&scene).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_job_is_checked_with_server_and_sites_and_nothing_is_kept() {
    let scene = Scene::start().await;
    let one = Site::join(&scene, "site-1").await;
    let mut two = Site::join(&scene, "site-2").await;
    let refusal = Refusal { site: "site-1".into(), code: "house-rule".into(), ..Refusal::default() };
    two.answers(
        move |order| if *order == Order::Check { Answer::Refuses(refusal.clone()) } else { Answer::Yes },
    );
    one.answers(|_| Answer::No("the site does not say beforehand what it would refuse"));
    let package = package(&scene, json!({}));
    let checks = scene.server.check_package(package.clone()).await.unwrap();
    let said: Vec<_> = checks.iter().map(|check| (check.site.as_str(), check.verdict.as_str())).collect();
    assert_eq!(said, [("server", "allowed"), ("site-1", "no-answer"), ("site-2", "refused")]);
    assert_eq!(checks[1].text, "the site does not say beforehand what it would refuse");
    assert_eq!((checks[2].refusals[0].site.as_str(), checks[2].refusals.len()), ("site-2", 1));
    assert!(package.file.exists() && left_over(&scene).is_empty());
    assert!(scene.server.records().is_empty());
    assert_eq!(two.orders(), [Order::Check]);
    let log = fs::read_to_string(scene.kit.root().join("state/audit.jsonl")).unwrap();
    assert_eq!(log.matches("\"phase\":\"submit\"").count(), 1);
}

#[tokio::test(start_paused = true)]
async fn jobs_that_are_over_are_kept_as_long_as_they_are_to_be() {
    let kept = |settings: &mut ServerSettings| settings.retention.jobs = Some(1);
    let mut scene = Scene::with(Kit::new(), kept).await;
    let mut site = Site::join(&scene, "site-1").await;
    let waiting = scene.submit(json!({ "deploy_map": { "app": ["server", "site-3"] } }), json!({})).await;
    let mut jobs = Vec::new();
    for _ in 0..2 {
        let job = scene.server.submit_package(package(&scene, json!({}))).await.unwrap();
        site.work(&scene, 7).await;
        assert_eq!(scene.finished(&job).await.status(), JobStatus::Completed);
        jobs.push(job);
    }
    // Both may have ended within one second, so either may count as the last.
    let is_gone = |job: &&String| {
        let files = scene.server.files(job).unwrap();
        scene.server.record(job).is_none() && !files.run_dir.exists() && !files.package.exists()
    };
    while !jobs.iter().any(|job| is_gone(&job)) {
        tokio::time::sleep(SECOND).await;
    }
    let (gone, stay): (Vec<_>, Vec<_>) = jobs.iter().chain([&waiting]).partition(is_gone);
    assert_eq!(gone.len(), 1);
    for job in stay {
        assert!(scene.server.record(job).is_some() && scene.server.files(job).unwrap().run_dir.exists());
    }
}
