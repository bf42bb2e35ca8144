//! A site, its jobs and a server by hand, over links in memory.

#![allow(clippy::unwrap_used, reason = "tests")]

mod federation;

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use federation::{Heard, JOB, SITE, Server, Signers, endpoint, make_kit, order_from, site_name, start_site};
use locule_cell::{Cell, CellConfig, Incoming, Now, OutgoingFilter, Refusal, Reply};
use locule_component::{
    BuildCx, BuildError, Built, Component, ExecuteError, Executor, Kind, Registry, Task, TaskCx,
};
use locule_fobs::{Map, Shareable};
use locule_identity_openssl::Subject;
use locule_message::{Fqcn, Message, ReturnCode, key};
use locule_policy::RefuseComponents;
use locule_protocol::{
    AdminBody, AdminCommand, AuxReply, AuxRequest, log_stream, outcome, prop, server_context,
};
use locule_site::{Site, SiteEvent};
use serde::Deserialize;
use serde_json::{Value as Json, json};
use tokio::sync::watch;

/// Adds one; or, if it is told to, waits until it is aborted.
struct AddOne {
    patient: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AddOneArgs {
    #[serde(default)]
    patient: bool,
}

impl Component for AddOne {
    const KIND: Kind = Kind::Executor;
    const NAME: &'static str = "test.AddOne";
    type Args = AddOneArgs;

    fn build(args: AddOneArgs, _cx: &BuildCx<'_>) -> Result<Built, BuildError> {
        Ok(Built::Executor(Box::new(AddOne { patient: args.patient })))
    }
}

impl Executor for AddOne {
    fn execute(&mut self, task: &Task, cx: &TaskCx<'_>) -> Result<Shareable, ExecuteError> {
        while self.patient && !cx.abort.is_raised() {
            std::thread::yield_now();
        }
        let mut result = Shareable::new();
        result.fields.insert("number", task.data.fields.int("number").unwrap() + 1);
        Ok(result)
    }
}

/// Counts how often it was made.
struct Forbidden;

static FORBIDDEN_MADE: AtomicUsize = AtomicUsize::new(0);

#[derive(Deserialize)]
struct NoArgs {}

impl Component for Forbidden {
    const KIND: Kind = Kind::Executor;
    const NAME: &'static str = "test.Forbidden";
    type Args = NoArgs;

    fn build(_args: NoArgs, _cx: &BuildCx<'_>) -> Result<Built, BuildError> {
        FORBIDDEN_MADE.fetch_add(1, Ordering::SeqCst);
        Ok(Built::Executor(Box::new(AddOne { patient: false })))
    }
}

fn registry() -> Registry {
    let mut registry = Registry::new();
    registry.register::<AddOne>().register::<Forbidden>().register::<RefuseComponents>();
    registry
}

fn app(executor: &Json) -> Json {
    json!({ "format_version": 2, "executors": [{ "tasks": ["train"], "executor": executor }] })
}

/// A registered site in a kit of its own.
struct Scene {
    server: Server,
    site: Site,
    signers: Signers,
    kit: tempfile::TempDir,
}

impl Scene {
    async fn set() -> Self {
        let (kit, signers) = (tempfile::tempdir().unwrap(), Signers::new());
        make_kit(kit.path());
        let mut server = Server::start().await;
        let site = start_site(&server, kit.path(), registry(), &signers).await;
        assert!(matches!(server.next().await, Heard::Registration));
        Self { server, site, signers, kit }
    }

    /// A site that works on a task until it is stopped; with what has to be kept meanwhile.
    async fn at_work() -> (Server, Site, impl Sized) {
        let scene = Self::set().await;
        let app = scene.add_one(true);
        let Self { server, site, kit, .. } = scene;
        let (end, ending) = watch::channel(false);
        let job = server.open_job(ending).await;
        server.run_app(app).await;
        (server, site, (kit, end, job))
    }

    fn add_one(&self, patient: bool) -> bytes::Bytes {
        self.signers.signed_app(&app(&json!({ "path": "test.AddOne", "args": { "patient": patient } })))
    }
}

#[tokio::test]
async fn a_job_is_deployed_started_worked_on_and_reported() {
    let Scene { mut server, site, signers, kit } = Scene::set().await;
    let mut events = site.events();
    let (end, ending) = watch::channel(false);
    let _job = server.open_job(ending).await;
    server.run_app(signers.signed_app(&app(&json!({ "path": "test.AddOne" })))).await;

    let Heard::Result(update) = server.next().await else { panic!("no result") };
    assert_eq!(update.result.fields.int("number"), Some(42));
    assert_eq!((update.task_name.as_str(), update.job_id()), ("train", JOB));
    let status = server.order(AdminCommand::CheckStatus).await.json().unwrap();
    let running = json!([{ "app_name": "app", "job_id": JOB, "status": "started" }]);
    assert_eq!(status, json!({ "client_name": SITE, "running_jobs": running }));
    let again = server.deploy(bytes::Bytes::new()).await;
    assert_eq!(again.body, AdminBody::Text("the job runs here already".into()));
    let meta: Json =
        serde_json::from_slice(&fs::read(kit.path().join(JOB).join("meta.json")).unwrap()).unwrap();
    assert_eq!(meta["job_clients"], json!([{ "name": SITE }]));

    end.send_replace(true);
    let report = server.outcome().await;
    assert_eq!((report.job_id.as_str(), report.code, report.reason.clone()), (JOB, outcome::DONE, None));
    assert_eq!(report.tasks_done, 1);
    while events.recv().await.unwrap() != (SiteEvent::OutcomeTaken { job: JOB.into() }) {}

    site.shutdown().await.unwrap();
    assert!(matches!(server.next().await, Heard::Quit));
}

fn forbid(kit: &std::path::Path) {
    let checker = json!({
        "id": "house-rules",
        "path": "locule.policy.RefuseComponents",
        "args": { "names": ["test.Forb*"], "reason": "not in this house", "code": "house-rule" },
    });
    let policy = json!({ "format_version": 2, "components": [checker] });
    fs::write(kit.join("local/job_resources.json"), policy.to_string()).unwrap();
}

#[tokio::test]
async fn a_refused_app_is_not_deployed_and_the_answer_names_component_file_path_code_and_reason() {
    let Scene { server, site, signers, kit } = Scene::set().await;
    let mut events = site.events();
    forbid(kit.path());
    let answer = server.deploy(signers.signed_app(&app(&json!({ "path": "test.Forbidden" })))).await;
    let told = "refused: test.Forbidden at executors.#1.executor of config_fed_client.json: not in this house \
                (house-rule)";
    assert_eq!((answer.ok, answer.body), (false, AdminBody::Text(told.into())));
    let refusal = locule_protocol::Refusal {
        site: SITE.into(),
        component: "test.Forbidden".into(),
        file: "config_fed_client.json".into(),
        path: "executors.#1.executor".into(),
        code: "house-rule".into(),
        reason: "not in this house".into(),
    };
    assert_eq!(answer.refusals, std::slice::from_ref(&refusal));
    assert!(!kit.path().join(JOB).exists());
    let refused = SiteEvent::JobRefused { job: JOB.into(), refusals: vec![refusal] };
    while events.recv().await.unwrap() != refused {}
    assert_eq!(FORBIDDEN_MADE.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_policy_that_forbids_a_job_after_its_deployment_counts_at_its_start() {
    let Scene { mut server, site: _site, signers, kit } = Scene::set().await;
    let token = server.reserve().await;
    assert!(server.deploy(signers.signed_app(&app(&json!({ "path": "test.Forbidden" })))).await.ok);
    forbid(kit.path());
    assert!(server.start_job(token).await.ok);
    let report = server.outcome().await;
    assert_eq!(report.code, outcome::UNSAFE_COMPONENT);
    assert_eq!(report.reason.as_deref(), Some("refused: not in this house"));
    let [refusal] = &report.refusals[..] else { panic!("{report:?}") };
    assert_eq!((refusal.component.as_str(), refusal.code.as_str()), ("test.Forbidden", "house-rule"));
    assert_eq!(FORBIDDEN_MADE.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn an_app_that_was_edited_after_its_deployment_does_not_start() {
    let Scene { mut server, site: _site, signers, kit } = Scene::set().await;
    let token = server.reserve().await;
    assert!(server.deploy(signers.signed_app(&app(&json!({ "path": "test.AddOne" })))).await.ok);
    let config = kit.path().join(JOB).join("app_site-1/config/config_fed_client.json");
    fs::write(&config, app(&json!({ "path": "test.Forbidden" })).to_string()).unwrap();
    assert!(server.start_job(token).await.ok);
    let report = server.outcome().await;
    assert_eq!((report.code, report.refusals[0].code.as_str()), (outcome::UNSAFE_COMPONENT, "plan-changed"));
    assert!(report.refusals[0].reason.contains("`config/config_fed_client.json` was edited"), "{report:?}");
    assert_eq!(FORBIDDEN_MADE.load(Ordering::SeqCst), 0);
}

fn question(zip: bytes::Bytes) -> AdminCommand {
    AdminCommand::CheckJob { job_id: JOB.into(), app_name: "app".into(), meta: Map::new(), zip }
}

#[tokio::test]
async fn a_site_says_what_its_checkers_would_say_and_keeps_nothing_but_the_record() {
    let Scene { server, site: _site, signers, kit } = Scene::set().await;
    forbid(kit.path());
    let allowed = server.order(question(signers.signed_app(&app(&json!({ "path": "test.AddOne" }))))).await;
    assert_eq!((allowed.ok, allowed.json().unwrap()["verdict"].as_str()), (true, Some("allowed")));
    let refused =
        server.order(question(signers.signed_app(&app(&json!({ "path": "test.Forbidden" }))))).await;
    assert_eq!((refused.ok, refused.json().unwrap()["verdict"].as_str()), (true, Some("refused")));
    assert_eq!((refused.refusals.len(), refused.refusals[0].code.as_str()), (1, "house-rule"));
    let mistaken = server.order(question(signers.signed_app(&app(&json!({ "path": "test.AddTwo" }))))).await;
    let document = mistaken.json().unwrap();
    assert_eq!(document["verdict"], "mistakes");
    assert!(document["text"].as_str().unwrap().contains("did you mean `test.AddOne`?"), "{document}");

    assert!(!kit.path().join(JOB).exists());
    assert_eq!(fs::read_dir(kit.path().join("state/checks")).unwrap().count(), 0);
    let log = fs::read_to_string(kit.path().join("state/audit.jsonl")).unwrap();
    assert_eq!(log.matches("\"phase\":\"submit\"").count(), 2, "{log}");
}

#[tokio::test]
async fn a_site_answers_questions_ten_times_a_minute() {
    let Scene { server, site: _site, signers, kit: _kit } = Scene::set().await;
    let zip = signers.signed_app(&app(&json!({ "path": "test.AddOne" })));
    for _ in 0..10 {
        assert!(server.order(question(zip.clone())).await.ok);
    }
    let eleventh = server.order(question(zip)).await;
    let told = AdminBody::Text("the site was asked too often; ask again in a minute".into());
    assert_eq!((eleventh.ok, eleventh.body), (false, told));
}

#[tokio::test]
async fn a_mistake_in_the_configuration_is_reported_as_a_compiler_would() {
    let Scene { mut server, site: _site, signers, kit: _kit } = Scene::set().await;
    server.run_app(signers.signed_app(&app(&json!({ "path": "test.AddTwo" })))).await;
    let report = server.outcome().await;
    assert_eq!(report.code, outcome::CONFIG_ERROR);
    let reason = report.reason.unwrap();
    for part in ["config_fed_client.json:1:", "test.AddTwo", "test.AddOne"] {
        assert!(reason.contains(part), "{part} is not in: {reason}");
    }
}

#[tokio::test]
async fn checkers_that_cannot_be_used_refuse_everything_and_their_files_stay_private() {
    let Scene { mut server, site: _site, signers, kit } = Scene::set().await;
    let app = signers.signed_app(&app(&json!({ "path": "test.AddOne" })));
    let token = server.reserve().await;
    assert!(server.deploy(app.clone()).await.ok);
    let policy = r#"{"format_version": 2, "components": [{"id": "secret-rule", "path": "no.such.Checker"}]}"#;
    fs::write(kit.path().join("local/job_resources.json"), policy).unwrap();
    assert!(server.start_job(token).await.ok);
    let report = server.outcome().await;
    assert_eq!(report.code, outcome::INFRASTRUCTURE_ERROR);
    assert!(!report.reason.unwrap().contains("secret-rule"));

    let answer = deployed_once_the_job_is_gone(&server, app).await;
    assert_eq!((answer.ok, answer.refusals[0].code.as_str()), (false, "site-cannot-judge"));
    let AdminBody::Text(text) = answer.body else { panic!("no text") };
    assert!(!text.contains("secret-rule"));
}

/// Deploys as soon as the site has forgotten the job that it ran before.
async fn deployed_once_the_job_is_gone(server: &Server, app: bytes::Bytes) -> locule_protocol::AdminReply {
    loop {
        let answer = server.deploy(app.clone()).await;
        if answer.body != AdminBody::Text("the job runs here already".into()) {
            return answer;
        }
    }
}

#[tokio::test]
async fn an_aborted_job_ends_with_the_code_for_that() {
    let (mut server, site, _rest) = Scene::at_work().await;
    let mut started = Json::Null;
    while started["running_jobs"][0]["status"] != "started" {
        started = server.order(AdminCommand::CheckStatus).await.json().unwrap();
    }
    assert!(server.order(AdminCommand::Abort { job_id: JOB.into() }).await.ok);
    assert_eq!(server.outcome().await.code, outcome::ABORTED);
    site.shutdown().await.unwrap();
}

#[tokio::test]
async fn an_idle_run_ends_when_the_server_says_so() {
    let Scene { mut server, site: _site, signers, kit: _kit } = Scene::set().await;
    let (_end, ending) = watch::channel(false);
    let job = server.open_job(ending).await;
    server.run_app(signers.signed_app(&app(&json!({ "path": "test.AddOne" })))).await;
    assert!(matches!(server.next().await, Heard::Result(_)));
    federation::end_run(&server.cell).await.expect_err("only the job at the server may say so");
    federation::end_run(&job).await.unwrap();
    let report = server.outcome().await;
    assert_eq!((report.code, report.tasks_done), (outcome::DONE, 1));
}

/// What the server has of the job's log when it hears of the outcome.
async fn sent_log(allowed: bool, log: &[u8]) -> Vec<u8> {
    let (kit, signers) = (tempfile::tempdir().unwrap(), Signers::new());
    make_kit(kit.path());
    let mut server = Server::start().await;
    let sent = Arc::new(Mutex::new(Vec::new()));
    let taken = Arc::clone(&sent);
    server.cell.handle(AuxRequest::CHANNEL, log_stream::REQUEST, move |incoming: Incoming| {
        let aux = AuxRequest::from_parts(&incoming.headers, &incoming.payload()).unwrap();
        assert_eq!(aux.peer_props.str(prop::RUN_NUM), Some(JOB));
        let mut taken = taken.lock().unwrap();
        let context = aux.headers.map(log_stream::CONTEXT);
        assert_eq!(context.is_some(), aux.headers.int(log_stream::NUMBER) == Some(0));
        assert!(context.is_none_or(|context| context.str(log_stream::FILE_NAME) == Some("log.txt")));
        let data = aux.fields.bytes(log_stream::DATA);
        assert_eq!(data.is_none(), aux.fields.bool(log_stream::END) == Some(true));
        taken.extend_from_slice(data.map_or(&[][..], |data| data));
        let parts = AuxReply::new("OK", server_context("server", None)).to_parts().unwrap();
        async move { Ok(Reply::ok(parts.payload)) }
    });
    let site = federation::start_site_with(&server, kit.path(), registry(), &signers, |settings| {
        settings.send_logs = allowed;
    });
    let site = site.await;
    assert!(matches!(server.next().await, Heard::Registration));
    let (end, ending) = watch::channel(false);
    let _job = server.open_job(ending).await;
    server.run_app(signers.signed_app(&app(&json!({ "path": "test.AddOne" })))).await;
    assert!(matches!(server.next().await, Heard::Result(_)));
    fs::write(kit.path().join(JOB).join("log.txt"), log).unwrap();
    end.send_replace(true);
    assert_eq!(server.outcome().await.code, outcome::DONE);
    let sent = sent.lock().unwrap().clone();
    site.shutdown().await.unwrap();
    sent
}

#[tokio::test]
async fn the_end_of_a_jobs_log_is_with_the_server_before_the_outcome_if_the_site_agrees() {
    let log: Vec<u8> = (0..(1_u32 << 20) + 70_000).map(|at| (at % 251) as u8).collect();
    assert_eq!(sent_log(true, &log).await, log[70_000..]);
    assert_eq!(sent_log(true, b"short").await, b"short");
    assert_eq!(sent_log(false, b"short").await, b"");
}

#[tokio::test]
async fn an_outcome_is_reported_until_the_server_has_taken_it() {
    let Scene { mut server, site, signers, kit: _kit } = Scene::set().await;
    server.reports_to_miss.store(3, Ordering::SeqCst);
    let mut events = site.events();
    server.run_app(signers.signed_app(&app(&json!({ "path": "test.AddTwo" })))).await;
    server.outcome().await;
    assert_eq!(server.reports_to_miss.load(Ordering::SeqCst), 0);
    while events.recv().await.unwrap() != (SiteEvent::OutcomeTaken { job: JOB.into() }) {}
    site.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_site_that_the_server_has_forgotten_registers_anew() {
    let Scene { mut server, site, kit: _kit, .. } = Scene::set().await;
    server.knows_site.store(false, Ordering::SeqCst);
    assert!(matches!(server.next().await, Heard::Registration));
    site.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_site_that_is_shut_down_by_its_server_aborts_reports_and_says_good_bye() {
    let (mut server, site, _rest) = Scene::at_work().await;
    assert!(server.order(AdminCommand::Shutdown).await.ok);
    site.wait().await.unwrap();
    assert_eq!(server.outcome().await.code, outcome::ABORTED);
    assert!(matches!(server.next().await, Heard::Quit));
}

#[tokio::test]
async fn a_site_that_is_stopped_leaves_its_jobs_and_says_good_bye() {
    let (mut server, site, _rest) = Scene::at_work().await;
    site.shutdown().await.unwrap();
    assert!(matches!(server.next().await, Heard::Quit), "and of the job nothing");
}

#[tokio::test]
async fn only_what_an_administrator_signed_is_deployed() {
    let Scene { server, site: _site, signers, kit } = Scene::set().await;
    let config = app(&json!({ "path": "test.AddOne" }));
    let unsigned = server.deploy(signers.app_signed_by(&config, None)).await;
    let text = AdminBody::Text("unsigned job rejected - signed deploy is required".into());
    assert_eq!((unsigned.ok, unsigned.body), (false, text));

    let by_site = signers.app_signed_by(&config, Some(&signers.issue(&Subject::new("site-2"))));
    let by_site = server.deploy(by_site).await;
    let text = AdminBody::Text("the app is signed by site-2, who is no administrator".into());
    assert_eq!((by_site.ok, by_site.body), (false, text));

    let stranger = Signers::new().signed_app(&config);
    assert!(!server.deploy(stranger).await.ok);
    assert!(!kit.path().join(JOB).exists());
}

#[tokio::test]
async fn a_start_needs_a_reservation() {
    let Scene { server, site: _site, signers, kit: _kit } = Scene::set().await;
    assert!(server.deploy(signers.signed_app(&app(&json!({ "path": "test.AddOne" })))).await.ok);
    let refused = server.start_job("made-up".into()).await;
    let AdminBody::Text(text) = refused.body else { panic!("no text") };
    assert_eq!(text, "NVFLARE_ERROR: the reservation is not known, or has expired");

    let token = server.reserve().await;
    let (job_id, spec) = (JOB.to_owned(), Map::new());
    server.order(AdminCommand::CancelResource { job_id, token: token.clone(), spec }).await;
    assert!(!server.start_job(token).await.ok);
}

#[tokio::test]
async fn orders_count_only_from_the_server() {
    let Scene { server, site: _site, kit: _kit, .. } = Scene::set().await;
    for (name, at) in [("site-2", "server"), ("site-1.job-9", SITE), ("server.job-9", "server")] {
        let cell = Cell::builder(CellConfig::new(name.parse().unwrap()))
            .transports(server.transports.clone())
            .start();
        cell.connect(endpoint(at));
        let neighbour: Fqcn = at.parse().unwrap();
        assert!(cell.wait_linked(&neighbour, Duration::from_secs(5)).await);
        let error = order_from(&cell, AdminCommand::Shutdown).await.unwrap_err();
        assert_eq!(error.code(), ReturnCode::Unauthenticated, "{name}");
    }
    assert!(server.order(AdminCommand::CheckStatus).await.ok);
}

/// Writes another name into what a cell sends.
#[derive(Debug)]
struct Forge(&'static str);

impl OutgoingFilter for Forge {
    fn stamp(&self, _now: Now, message: &mut Message, _next_hop: &Fqcn) -> Result<(), Refusal> {
        message.headers.set(key::ORIGIN, self.0);
        Ok(())
    }
}

#[tokio::test]
async fn a_job_of_the_site_cannot_pose_as_the_server() {
    let Scene { server, site, kit: _kit, .. } = Scene::set().await;
    let impostor = Cell::builder(CellConfig::new("site-1.job-9".parse().unwrap()))
        .transports(server.transports.clone())
        .stamp(Arc::new(Forge("server")))
        .start();
    impostor.connect(endpoint(SITE));
    assert!(impostor.wait_linked(&site_name(), Duration::from_secs(5)).await);
    let order = order_from(&impostor, AdminCommand::Shutdown);
    assert!(
        tokio::time::timeout(Duration::from_millis(300), order).await.is_err(),
        "the server gets the answer"
    );
    let stopped = tokio::time::timeout(Duration::from_millis(300), site.wait()).await;
    assert!(stopped.is_err(), "the site goes on");
    assert!(server.order(AdminCommand::CheckStatus).await.ok);
}

#[tokio::test]
async fn an_unknown_order_is_an_invalid_request() {
    let Scene { server, site: _site, kit: _kit, .. } = Scene::set().await;
    let reply = server.order(AdminCommand::Other { topic: "sys.shell".into() }).await;
    assert_eq!((reply.ok, reply.body), (false, AdminBody::Text("invalid_request".into())));
}

#[tokio::test]
async fn a_site_tells_its_version_and_nothing_of_jobs_that_it_does_not_hold() {
    let Scene { server, site: _site, kit: _kit, .. } = Scene::set().await;
    let reply = server.order(AdminCommand::Other { topic: "sys.report_version".into() }).await;
    assert_eq!(reply.json().expect("a document")["version"], "2.9.0");
    for job_id in ["4f1c", ""] {
        let job_id = job_id.to_owned();
        assert!(!server.order(AdminCommand::ShowStats { job_id: job_id.clone() }).await.ok);
        assert!(!server.order(AdminCommand::ShowErrors { job_id }).await.ok);
    }
}
