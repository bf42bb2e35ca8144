//! The smallest server that a site can work for, and a kit for that site. Outside of secure mode.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use locule_auth::SessionStamp;
use locule_cell::{Cell, CellConfig, HandlerError, Incoming, Reply, Request};
use locule_communicator::{Credentials, Settings};
use locule_component::Registry;
use locule_fobs::{Map, Shareable};
use locule_identity::{UNSIGNED, Usage};
use locule_identity_openssl::{CertificateAuthority, Issued, OpensslSigner, OpensslVerifier, Subject};
use locule_job::{pack_app, sign_folder};
use locule_kit::Workspace;
use locule_launcher::TaskLauncher;
use locule_message::{Fqcn, ReturnCode};
use locule_protocol::{
    AdminBody, AdminCommand, AdminReply, AdminRequest, Assignment, AuxReply, AuxRequest, GetTask, Heartbeat,
    HeartbeatReply, NVFLARE_VERSION, OutcomeReport, Parts, Quit, QuitReply, RegisterReply, RegisterRequest,
    SubmitReply, SubmitUpdate, TaskReply, aux_topic, server_context, to_props,
};
use locule_site::{Attendants, Pace, Site, SiteJobHost, SiteParts, SiteSettings, run_job};
use locule_transport::{Endpoint, Transports};
use locule_transport_mem::MemTransport;
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

pub(crate) const PROJECT: &str = "ward-7";
pub(crate) const SITE: &str = "site-1";
pub(crate) const JOB: &str = "8c0f7f0e-4a42-4f4e-9d7e-0d5f5f5c1a11";

/// What the server hears.
#[derive(Debug)]
pub(crate) enum Heard {
    Registration,
    Outcome(OutcomeReport),
    Result(SubmitUpdate),
    Quit,
}

/// A server of one site and one job, whose behaviour a test can change.
pub(crate) struct Server {
    pub(crate) cell: Cell,
    pub(crate) transports: Transports,
    pub(crate) heard: mpsc::UnboundedReceiver<Heard>,
    pub(crate) knows_site: Arc<AtomicBool>,
    pub(crate) reports_to_miss: Arc<AtomicUsize>,
    pub(crate) last_job_ids: Arc<Mutex<Vec<String>>>,
    tell: mpsc::UnboundedSender<Heard>,
}

pub(crate) fn endpoint(name: &str) -> Endpoint {
    Endpoint::parse(&format!("mem://{name}")).unwrap()
}

pub(crate) fn site_name() -> Fqcn {
    SITE.parse().unwrap()
}

fn ok(parts: Parts) -> Result<Reply, HandlerError> {
    let mut reply = Reply::ok(parts.payload);
    reply.headers = parts.headers;
    Ok(reply)
}

impl Server {
    pub(crate) async fn start() -> Self {
        let transports = Transports::new().with(MemTransport::new());
        let cell = Cell::builder(CellConfig::new(Fqcn::server())).transports(transports.clone()).start();
        cell.listen(&endpoint("server")).await.unwrap();
        let (tell, heard) = mpsc::unbounded_channel();
        let server = Self {
            cell,
            transports,
            heard,
            knows_site: Arc::new(AtomicBool::new(false)),
            reports_to_miss: Arc::new(AtomicUsize::new(0)),
            last_job_ids: Arc::default(),
            tell,
        };
        server.answer_the_site();
        server
    }

    fn answer_the_site(&self) {
        let (tell, knows) = (self.tell.clone(), self.knows_site.clone());
        self.cell.handle("task", RegisterRequest::TOPIC, move |incoming: Incoming| {
            let request = RegisterRequest::from_parts(&incoming.headers, &incoming.payload()).unwrap();
            assert_eq!((request.client_name.as_str(), request.project_name.as_str()), (SITE, PROJECT));
            knows.store(true, Ordering::SeqCst);
            tell.send(Heard::Registration).unwrap();
            let granted = RegisterReply::Granted {
                token: Uuid::new_v4().to_string(),
                signature: UNSIGNED.into(),
                ssid: "NA".into(),
                version: Some(NVFLARE_VERSION.into()),
            };
            async move { ok(granted.to_parts().unwrap()) }
        });
        let (knows, job_ids) = (self.knows_site.clone(), self.last_job_ids.clone());
        self.cell.handle("task", Heartbeat::TOPIC, move |incoming: Incoming| {
            let heartbeat = Heartbeat::from_parts(&incoming.headers, &incoming.payload()).unwrap();
            *job_ids.lock().unwrap() = heartbeat.job_ids;
            let known = knows.load(Ordering::SeqCst);
            async move {
                match known {
                    true => ok(HeartbeatReply::new(Vec::new()).to_parts().unwrap()),
                    false => Err(HandlerError::new(ReturnCode::Unauthenticated, "who is that?")),
                }
            }
        });
        let (tell, missing) = (self.tell.clone(), self.reports_to_miss.clone());
        self.cell.handle("task", OutcomeReport::TOPIC, move |incoming: Incoming| {
            let report = OutcomeReport::from_parts(&incoming.headers, &incoming.payload()).unwrap();
            let missed =
                missing.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
            if !missed {
                tell.send(Heard::Outcome(report)).unwrap();
            }
            async move {
                match missed {
                    true => Err(HandlerError::new(ReturnCode::ServiceUnavailable, "not now")),
                    false => Ok(Reply::ok(locule_message::Payload::none())),
                }
            }
        });
        let tell = self.tell.clone();
        self.cell.handle("task", Quit::TOPIC, move |_: Incoming| {
            tell.send(Heard::Quit).ok();
            async move { ok(QuitReply::new().to_parts().unwrap()) }
        });
    }

    /// The server's part of [`JOB`]: one task `train` for the site, then nothing until `end` is true.
    pub(crate) async fn open_job(&self, end: watch::Receiver<bool>) -> Cell {
        let name = Fqcn::server().child(JOB).unwrap();
        let cell = Cell::builder(CellConfig::new(name)).transports(self.transports.clone()).start();
        let peer = server_context(PROJECT, Some(JOB));
        for topic in [aux_topic::SYNC_RUNNER, aux_topic::TASK_CHECK, aux_topic::JOB_HEARTBEAT] {
            let peer = peer.clone();
            cell.handle(AuxRequest::CHANNEL, topic, move |_: Incoming| {
                let reply = AuxReply::new("OK", peer.clone()).to_parts().unwrap();
                async move { ok(reply) }
            });
        }
        let given = AtomicBool::new(false);
        cell.handle(GetTask::CHANNEL, GetTask::TOPIC, move |_: Incoming| {
            let peer = peer.clone();
            let reply = if *end.borrow() {
                TaskReply::EndRun { peer }
            } else if given.swap(true, Ordering::SeqCst) {
                TaskReply::TryAgain { wait: Duration::from_millis(10), peer }
            } else {
                let mut data = Shareable::new();
                data.fields.insert("number", 41_i64);
                data.set_peer_context(peer);
                TaskReply::Task(Box::new(Assignment::new("train", "task-1", data)))
            };
            async move { ok(reply.to_parts().unwrap()) }
        });
        let tell = self.tell.clone();
        cell.handle(SubmitUpdate::CHANNEL, SubmitUpdate::TOPIC, move |incoming: Incoming| {
            let update = SubmitUpdate::from_parts(&incoming.headers, &incoming.payload()).unwrap();
            tell.send(Heard::Result(update)).unwrap();
            async move { ok(SubmitReply.to_parts().unwrap()) }
        });
        cell.connect(endpoint("server"));
        assert!(cell.wait_linked(&Fqcn::server(), Duration::from_secs(5)).await);
        cell
    }

    pub(crate) async fn order(&self, command: AdminCommand) -> AdminReply {
        order_from(&self.cell, command).await.unwrap()
    }

    pub(crate) async fn reserve(&self) -> String {
        let (meta, spec) = (Map::new(), Map::new());
        let reply = self.order(AdminCommand::CheckResource { job_id: JOB.into(), meta, spec }).await;
        let AdminBody::Resource { enough: true, token, .. } = reply.body else { panic!("{reply:?}") };
        token
    }

    pub(crate) async fn deploy(&self, zip: Bytes) -> AdminReply {
        let command =
            AdminCommand::Deploy { job_id: JOB.into(), app_name: "app".into(), meta: job_meta(), zip };
        self.order(command).await
    }

    pub(crate) async fn start_job(&self, token: String) -> AdminReply {
        let mut meta = job_meta();
        meta.insert("job_clients", vec![Map::from_iter([("name", SITE)])]);
        self.order(AdminCommand::StartJob { job_id: JOB.into(), meta, spec: Map::new(), token }).await
    }

    /// Reserves, deploys and starts.
    pub(crate) async fn run_app(&self, zip: Bytes) {
        let token = self.reserve().await;
        let deployed = self.deploy(zip).await;
        assert!(deployed.ok, "{deployed:?}");
        let started = self.start_job(token).await;
        assert!(started.ok, "{started:?}");
    }

    pub(crate) async fn next(&mut self) -> Heard {
        tokio::time::timeout(Duration::from_secs(30), self.heard.recv()).await.expect("in time").unwrap()
    }

    pub(crate) async fn outcome(&mut self) -> OutcomeReport {
        let next = self.next().await;
        let Heard::Outcome(report) = next else { panic!("{next:?}") };
        report
    }
}

fn job_meta() -> Map {
    let mut meta = Map::from_iter([("name", "adding"), ("job_id", JOB)]);
    meta.insert("resource_spec", Map::new());
    meta
}

pub(crate) async fn order_from(
    cell: &Cell,
    command: AdminCommand,
) -> Result<AdminReply, locule_cell::RequestError> {
    let parts = AdminRequest::new(Uuid::new_v4().to_string(), command).to_parts().unwrap();
    let request = Request::new(AdminRequest::CHANNEL, AdminRequest::TOPIC, parts.payload);
    let reply = cell.request(&site_name(), request).await?.into_ok()?;
    Ok(AdminReply::from_parts(&reply.headers, &reply.payload).unwrap())
}

/// Tells the site's job that the run is over.
pub(crate) async fn end_run(cell: &Cell) -> Result<Reply, locule_cell::RequestError> {
    let props = to_props(&server_context(PROJECT, Some(JOB)));
    let parts = AuxRequest::new(aux_topic::END_RUN, props).to_parts().unwrap();
    let request = Request::new(AuxRequest::CHANNEL, aux_topic::END_RUN, parts.payload);
    cell.request(&site_name().child(JOB).unwrap(), request).await?.into_ok()
}

/// Who may sign apps, and what the site verifies them with.
pub(crate) struct Signers {
    root: CertificateAuthority,
}

impl Signers {
    pub(crate) fn new() -> Self {
        let day = Duration::from_secs(86_400);
        Self { root: CertificateAuthority::create(&Subject::new(PROJECT), day, SystemTime::now()).unwrap() }
    }

    pub(crate) fn issue(&self, subject: &Subject) -> OpensslSigner {
        let hour = Duration::from_secs(3_600);
        let Issued { certificate_pem, key_pem, .. } =
            self.root.issue(subject, &[], Usage::Client, hour, SystemTime::now()).unwrap();
        OpensslSigner::from_pem(&certificate_pem, &key_pem).unwrap()
    }

    /// The app with this configuration of the site's side, signed by an administrator.
    pub(crate) fn signed_app(&self, config: &serde_json::Value) -> Bytes {
        self.app_signed_by(config, Some(&self.issue(&Subject::new("admin@ward-7.org").role("lead"))))
    }

    pub(crate) fn app_signed_by(&self, config: &serde_json::Value, signer: Option<&OpensslSigner>) -> Bytes {
        let scratch = tempfile::tempdir().unwrap();
        fs::create_dir(scratch.path().join("config")).unwrap();
        fs::write(scratch.path().join("config/config_fed_client.json"), config.to_string()).unwrap();
        if let Some(signer) = signer {
            sign_folder(scratch.path(), signer).unwrap();
        }
        pack_app(scratch.path()).unwrap().into()
    }

    fn credentials(&self) -> Credentials {
        let verifier = OpensslVerifier::new(&self.root.certificate_pem().unwrap()).unwrap();
        Credentials { signer: Arc::new(self.issue(&Subject::new(SITE))), verifier: Arc::new(verifier) }
    }
}

pub(crate) fn make_kit(kit: &Path) {
    for folder in ["startup", "local"] {
        fs::create_dir(kit.join(folder)).unwrap();
    }
    fs::write(kit.join("startup/fed_client.json"), r#"{"format_version": 2}"#).unwrap();
    fs::write(kit.join("local/resources.json"), r#"{"class_allow_list": ["*"]}"#).unwrap();
}

/// The site, linked to the server.
pub(crate) async fn start_site(server: &Server, kit: &Path, registry: Registry, signers: &Signers) -> Site {
    start_site_with(server, kit, registry, signers, |_| {}).await
}

pub(crate) async fn start_site_with(
    server: &Server,
    kit: &Path,
    registry: Registry,
    signers: &Signers,
    change: impl FnOnce(&mut SiteSettings),
) -> Site {
    let mut settings = Settings::new(PROJECT, SITE, "server");
    settings.secure = false;
    settings.heartbeat_interval = Duration::from_millis(20);
    settings.heartbeat_retry = Duration::from_millis(10);
    settings.register_interval = Duration::from_millis(10);
    let stamp = Arc::new(SessionStamp::new());
    let cell = Cell::builder(CellConfig::new(site_name()))
        .transports(server.transports.clone())
        .stamp(stamp.clone())
        .start();
    cell.connect(endpoint("server"));
    let (session, of_now) = watch::channel(None);
    let kit = Workspace::new(kit);
    let transports = server.transports.clone();
    let mut host = SiteJobHost::new(settings.clone(), kit.clone(), Arc::new(registry), transports, of_now);
    host.pace = Pace::default();
    host.pace.retry = Duration::from_millis(10);
    let host = Arc::new(host);
    let parts = SiteParts {
        cell,
        stamp,
        session,
        credentials: Some(signers.credentials()),
        host: host.clone(),
        launcher: Arc::new(TaskLauncher::new(move |start, abort| run_job(host.clone(), start, abort))),
        internal: endpoint(SITE),
        kit,
        attendants: Attendants::default(),
    };
    let mut settings = SiteSettings::new(settings);
    change(&mut settings);
    Site::start(settings, parts).await.unwrap()
}
