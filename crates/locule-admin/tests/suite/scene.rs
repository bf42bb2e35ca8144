//! A server with a desk, its kit, its keys, its network and a site.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use futures_util::future::BoxFuture;
use locule_admin::{Admin, AdminParts, AdminSettings, Rights};
use locule_auth::{CertificateLinkPolicy, LedgerLimits, ServerGate, ServerStamp, SessionStamp, TokenLedger};
use locule_cell::{Cell, CellConfig, HandlerError, Incoming, Reply, Request};
use locule_component::{
    BuildCx, BuildError, Built, Component, Kind, Registry, TaskBoard, Workflow, WorkflowError,
};
use locule_identity::{Challenge, Secret, ServerProof, Session, Signer, Token, Usage, Verifier};
use locule_identity_openssl::{CertificateAuthority, OpensslSigner, OpensslVerifier, Subject};
use locule_job::sign_folder;
use locule_journal::MemoryJournal;
use locule_kit::Workspace;
use locule_launcher::TaskLauncher;
use locule_message::Fqcn;
use locule_protocol::{
    AdminBody, AdminCommand, AdminRequest, ChallengeReply, ChallengeRequest, ClientType, Heartbeat,
    NVFLARE_VERSION, OutcomeReport, Parts, RegisterReply, RegisterRequest, RegistrationProof, outcome,
    site_context,
};
use locule_server::{Attendants, JobHost, Server, ServerEvent, ServerParts, ServerSettings, run_job};
use locule_transport::{Endpoint, Security, Transports};
use locule_transport_mem::MemTransport;
use serde::Deserialize;
use serde_json::json;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

pub(crate) const PROJECT: &str = "ward-7";
pub(crate) const SECOND: Duration = Duration::from_secs(1);

pub(crate) fn name(text: &str) -> Fqcn {
    text.parse().unwrap()
}

fn at(text: &str) -> Endpoint {
    Endpoint::parse(text).unwrap()
}

struct Project {
    signers: BTreeMap<&'static str, Arc<dyn Signer>>,
    verifier: Arc<dyn Verifier>,
}

fn project() -> &'static Project {
    static PROJECT: OnceLock<Project> = OnceLock::new();
    PROJECT.get_or_init(|| {
        let (now, day) = (SystemTime::now(), Duration::from_secs(86_400));
        let root = CertificateAuthority::create(&Subject::new("root"), day, now).unwrap();
        let issue = |subject: Subject, usage| -> Arc<dyn Signer> {
            let issued = root.issue(&subject, &[], usage, day, now).unwrap();
            Arc::new(OpensslSigner::from_pem(&issued.certificate_pem, &issued.key_pem).unwrap())
        };
        let admin = |name: &'static str, role| {
            issue(Subject::new(name).organization("ward").role(role), Usage::Client)
        };
        let server = Subject::new("flserver").organization("university");
        let signers = BTreeMap::from([
            ("server", issue(server, Usage::Server)),
            ("site-1", issue(Subject::new("site-1").organization("ward"), Usage::Client)),
            ("ann", admin("ann", "lead")),
            ("bob", admin("bob", "lead")),
            ("root", admin("root", "project_admin")),
            ("mia", admin("mia", "member")),
        ]);
        let verifier = OpensslVerifier::new(&root.certificate_pem().unwrap()).unwrap();
        Project { signers, verifier: Arc::new(verifier) }
    })
}

pub(crate) fn signer(of: &str) -> Arc<dyn Signer> {
    Arc::clone(&project().signers[of])
}

pub(crate) fn verifier() -> Arc<dyn Verifier> {
    Arc::clone(&project().verifier)
}

pub(crate) struct Scene {
    pub(crate) dir: TempDir,
    pub(crate) server: Server,
    pub(crate) network: MemTransport,
    pub(crate) stop: CancellationToken,
    pub(crate) ledger: Arc<TokenLedger>,
    _admin: Admin,
}

impl Scene {
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut AdminSettings)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["kit/startup", "kit/local", "jobs", "fetched"] {
            fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        let kit = dir.path().join("kit");
        fs::write(kit.join("startup/fed_server.json"), r#"{ "format_version": 2 }"#).unwrap();
        let resources = json!({ "format_version": 2, "class_allow_list": ["*"] });
        fs::write(kit.join("local/resources.json"), resources.to_string()).unwrap();

        let network = MemTransport::new();
        let transports = Transports::new().with(network.clone());
        let journal = Box::new(MemoryJournal::default());
        let ledger = Arc::new(TokenLedger::open(journal, LedgerLimits::default()).unwrap());
        let (signer, verifier) = (signer("server"), verifier());
        let stamp = Arc::new(ServerStamp::parent(&*signer).unwrap());
        let cell = Cell::builder(CellConfig::new(Fqcn::server()))
            .transports(transports.clone())
            .gate(Arc::new(ServerGate::new(Fqcn::server(), Arc::clone(&ledger))))
            .stamp(stamp.clone())
            .link_policy(Arc::new(CertificateLinkPolicy::new(Fqcn::server()).admit_admins()))
            .start();
        let workspace = Workspace::new(&kit);
        let mut registry = Registry::new();
        registry.register::<Saves>();
        let host = Arc::new(JobHost {
            patient: false,
            registry: Arc::new(registry),
            checkers: Arc::new(locule_assembly::NoCheckerFiles),
            transports,
            kit: workspace.clone(),
            project: PROJECT.into(),
            org: "university".into(),
            stamp,
        });
        let parts = ServerParts {
            cell: cell.clone(),
            signer: Arc::clone(&signer),
            verifier: Arc::clone(&verifier),
            ledger: Arc::clone(&ledger),
            jobs: Box::new(MemoryJournal::default()),
            host: host.clone(),
            launcher: Arc::new(TaskLauncher::new(move |start, abort| run_job(host.clone(), start, abort))),
            internal: "mem://server-jobs".into(),
            kit: workspace.clone(),
            attendants: Attendants::default(),
        };
        let server = Server::start(ServerSettings::new(PROJECT), parts).unwrap();
        let (mut settings, stop) = (AdminSettings::default(), CancellationToken::new());
        change(&mut settings);
        let parts = AdminParts {
            server: server.clone(),
            cell: cell.clone(),
            signer,
            verifier,
            ledger: Arc::clone(&ledger),
            rights: Rights::stock(),
            state: workspace.make_state_dir().unwrap(),
            stop: stop.clone(),
        };
        let admin = Admin::open(settings, parts).unwrap();
        for endpoint in ["mem://server", "mem://server-jobs"] {
            cell.listen(&at(endpoint)).await.unwrap();
        }
        Self { dir, server, network, stop, ledger, _admin: admin }
    }

    /// A cell linked to the server, whose certificate bears `common_name`.
    pub(crate) async fn linked(&self, cell: &str, common_name: &str) -> Cell {
        let carrier = self.network.clone().claiming(common_name).pretending(Security::Mutual);
        let cell =
            Cell::builder(CellConfig::new(name(cell))).transports(Transports::new().with(carrier)).start();
        cell.connect(at("mem://server"));
        assert!(cell.wait_linked(&Fqcn::server(), 5 * SECOND).await);
        cell
    }

    /// A job folder that `by` has signed; its server half saves a result and ends at once.
    pub(crate) fn job(&self, called: &str, by: &str) -> PathBuf {
        let folder = self.dir.path().join("jobs").join(called);
        let config = folder.join("app/config");
        fs::create_dir_all(&config).unwrap();
        let meta = json!({ "name": called, "resource_spec": {}, "deploy_map": { "app": ["@ALL"] }, "min_clients": 1 });
        fs::write(folder.join("meta.json"), meta.to_string()).unwrap();
        let workflow = json!({ "id": "saves", "path": "test.Saves", "args": { "number": 42 } });
        let server = json!({ "format_version": 2, "workflows": [workflow] });
        fs::write(config.join("config_fed_server.json"), server.to_string()).unwrap();
        let client = json!({ "format_version": 2, "executors": [] });
        fs::write(config.join("config_fed_client.json"), client.to_string()).unwrap();
        sign_folder(&folder, &*signer(by)).unwrap();
        folder
    }

    /// What is spooled or waits to be fetched.
    pub(crate) fn spooled(&self) -> usize {
        let state = self.dir.path().join("kit/state");
        ["uploads", "downloads"].map(|folder| fs::read_dir(state.join(folder)).unwrap().count()).iter().sum()
    }

    /// Does `begin`, and waits for the end of a job.
    pub(crate) async fn ends<T>(&self, begin: impl Future<Output = T>) -> T {
        let mut events = self.server.events();
        let begun = begin.await;
        let over =
            async { while !matches!(events.recv().await.unwrap(), ServerEvent::JobFinished { .. }) {} };
        tokio::time::timeout(600 * SECOND, over).await.expect("the job never ended");
        begun
    }
}

/// Challenges and registers, as a site or an administrator.
pub(crate) async fn register(cell: &Cell, who: &str, client_type: ClientType) -> Arc<SessionStamp> {
    let own = signer(who);
    let challenge = Challenge::new(own.identity(), &mut rand::rng()).unwrap();
    let ask_it =
        ChallengeRequest { common_name: challenge.cn().to_owned(), nonce: challenge.nonce().to_owned() };
    let reply =
        ask(cell, ChallengeRequest::CHANNEL, ChallengeRequest::TOPIC, ask_it.to_parts().unwrap()).await;
    let reply = ChallengeReply::from_parts(&reply.headers, &reply.payload).unwrap();
    let proof = ServerProof {
        nonce: reply.nonce,
        cn: reply.common_name,
        cert: reply.certificate.to_vec(),
        signature: reply.signature.to_vec(),
    };
    let server = challenge.prove_server(&proof, "flserver", &*verifier(), SystemTime::now()).unwrap();
    let open = server.register(&*own).unwrap();
    let proof = open.proof();
    let request = RegisterRequest {
        client_name: who.to_owned(),
        client_type,
        client_ip: "127.0.0.1".into(),
        project_name: PROJECT.into(),
        peer: site_context(who, None),
        proof: Some(RegistrationProof {
            certificate: proof.cert.clone().into(),
            common_name: proof.cn.clone(),
            signature: proof.signature.clone().into(),
        }),
        site_config: None,
        version: Some(NVFLARE_VERSION.into()),
    };
    let reply =
        ask(cell, RegisterRequest::CHANNEL, RegisterRequest::TOPIC, request.to_parts().unwrap()).await;
    let session: Session = match RegisterReply::from_parts(&reply.headers, &reply.payload).unwrap() {
        RegisterReply::Granted { token, signature, ssid, .. } => {
            let token = Token { token: Secret::from(token), signature: Secret::from(signature), ssid };
            open.accept(token, &*verifier()).unwrap()
        }
        RegisterReply::Refused => panic!("{who} was not registered"),
    };
    let stamp = Arc::new(SessionStamp::new());
    stamp.set(session);
    cell.add_stamp(stamp.clone());
    stamp
}

async fn ask(cell: &Cell, channel: &str, topic: &str, parts: Parts) -> Reply {
    let mut request = Request::new(channel, topic, parts.payload);
    request.headers = parts.headers;
    cell.request(&Fqcn::server(), request).await.unwrap().into_ok().unwrap()
}

/// A site that does what it is told, and reports at once that its half is done.
pub(crate) async fn site(scene: &Scene) -> Cell {
    let cell = scene.linked("site-1", "site-1").await;
    let weak = cell.clone();
    cell.handle(AdminRequest::CHANNEL, AdminRequest::TOPIC, move |incoming: Incoming| {
        let cell = weak.clone();
        async move {
            let request = AdminRequest::from_parts(&incoming.headers, &incoming.payload()).unwrap();
            let text = |text: &str| request.reply(true, AdminBody::Text(text.to_owned()));
            let reply = match &request.command {
                AdminCommand::CheckResource { .. } => request.reply(true, AdminBody::room("reserved")),
                AdminCommand::StartJob { job_id, .. } => {
                    let job_id = job_id.clone();
                    tokio::spawn(async move {
                        let report = OutcomeReport::new(&job_id, outcome::DONE, None);
                        ask(&cell, "task", OutcomeReport::TOPIC, report.to_parts().unwrap()).await;
                    });
                    text("started")
                }
                AdminCommand::CheckStatus => text(r#"{"client_name": "site-1", "running_jobs": []}"#),
                AdminCommand::Other { topic } if topic == "sys.report_version" => {
                    text(r#"{"version": "2.9.0"}"#)
                }
                AdminCommand::CheckJob { .. } => text(r#"{"verdict": "allowed", "text": ""}"#),
                AdminCommand::Shutdown => request.reply(false, AdminBody::Text("not authorized".into())),
                AdminCommand::CancelResource { .. }
                | AdminCommand::Deploy { .. }
                | AdminCommand::Abort { .. }
                | AdminCommand::NotifyJobStatus { .. }
                | AdminCommand::ShowStats { .. }
                | AdminCommand::ShowErrors { .. }
                | AdminCommand::Other { .. } => text("done"),
            };
            Ok::<_, HandlerError>(Reply::ok(reply.to_parts().unwrap().payload))
        }
    });
    register(&cell, "site-1", ClientType::Regular).await;
    let beat =
        Heartbeat { project_name: PROJECT.into(), job_ids: Vec::new(), peer: site_context("site-1", None) };
    ask(&cell, Heartbeat::CHANNEL, Heartbeat::TOPIC, beat.to_parts().unwrap()).await;
    cell
}

/// A workflow that needs no site: saves a number and ends.
struct Saves {
    number: i64,
}

#[derive(Deserialize)]
struct SavesArgs {
    number: i64,
}

impl Component for Saves {
    const KIND: Kind = Kind::Workflow;
    const NAME: &'static str = "test.Saves";
    type Args = SavesArgs;

    fn build(args: SavesArgs, _cx: &BuildCx<'_>) -> Result<Built, BuildError> {
        Ok(Built::Workflow(Box::new(Saves { number: args.number })))
    }
}

impl Workflow for Saves {
    fn run<'a>(&'a mut self, board: &'a dyn TaskBoard) -> BoxFuture<'a, Result<(), WorkflowError>> {
        Box::pin(async move {
            let path = board.run_dir().join("result.txt");
            std::fs::write(&path, self.number.to_string())
                .map_err(|source| WorkflowError::File { path, source })
        })
    }
}
