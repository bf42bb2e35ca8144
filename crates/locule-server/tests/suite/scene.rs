//! A server with its kit, its keys and its network.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, SystemTime};

use locule_auth::{CertificateLinkPolicy, LedgerLimits, ServerGate, ServerStamp, TokenLedger};
use locule_cell::{Cell, CellConfig};
use locule_identity::{Signer, Usage, Verifier};
use locule_identity_openssl::{CertificateAuthority, OpensslSigner, OpensslVerifier, Subject};
use locule_job::sign_folder;
use locule_journal::{AppendError, Journal, MemoryJournal, ReplayError};
use locule_kit::Workspace;
use locule_launcher::TaskLauncher;
use locule_message::Fqcn;
use locule_server::{
    Attendants, JobHost, JobRecord, JobStatus, Server, ServerEvent, ServerParts, ServerSettings, run_job,
};
use locule_transport::{Endpoint, Security, Transports};
use locule_transport_mem::MemTransport;
use serde_json::json;
use tempfile::TempDir;
use tokio::sync::broadcast;

use crate::work;

pub(crate) const PROJECT: &str = "ward-7";
pub(crate) const NOT_IN_FORCE: &str =
    "token is not in force: register again, as a site of nvflare does when it is started again";

pub(crate) const SECOND: Duration = Duration::from_secs(1);

pub(crate) fn name(text: &str) -> Fqcn {
    text.parse().unwrap()
}

pub(crate) fn at(text: &str) -> Endpoint {
    Endpoint::parse(text).unwrap()
}

/// Keys of one project, made once for all tests.
struct Project {
    signers: BTreeMap<&'static str, Arc<dyn Signer>>,
    verifier: Arc<dyn Verifier>,
}

fn project() -> &'static Project {
    static PROJECT: OnceLock<Project> = OnceLock::new();
    PROJECT.get_or_init(|| {
        let (now, day) = (SystemTime::now(), Duration::from_secs(86_400));
        let ours = CertificateAuthority::create(&Subject::new("root"), day, now).unwrap();
        let theirs = CertificateAuthority::create(&Subject::new("root"), day, now).unwrap();
        let issue = |root: &CertificateAuthority, subject: Subject, usage| -> Arc<dyn Signer> {
            let issued = root.issue(&subject, &[], usage, day, now).unwrap();
            Arc::new(OpensslSigner::from_pem(&issued.certificate_pem, &issued.key_pem).unwrap())
        };
        let site = |root, name| issue(root, Subject::new(name).organization("hospital"), Usage::Client);
        let admin = Subject::new("lead").organization("hospital").role("lead");
        let signers = BTreeMap::from([
            ("server", issue(&ours, Subject::new("flserver"), Usage::Server)),
            ("site-1", site(&ours, "site-1")),
            ("site-2", site(&ours, "site-2")),
            ("site-3", site(&ours, "site-3")),
            ("lead", issue(&ours, admin, Usage::Client)),
            ("stranger", site(&theirs, "site-1")),
        ]);
        let verifier = OpensslVerifier::new(&ours.certificate_pem().unwrap()).unwrap();
        Project { signers, verifier: Arc::new(verifier) }
    })
}

/// The key of a participant.
pub(crate) fn signer(of: &str) -> Arc<dyn Signer> {
    Arc::clone(&project().signers[of])
}

pub(crate) fn verifier() -> Arc<dyn Verifier> {
    Arc::clone(&project().verifier)
}

/// A disk that outlives its server, and that can be full.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk(Arc<Mutex<Platter>>);

#[derive(Debug, Default)]
struct Platter {
    journal: MemoryJournal,
    is_full: bool,
}

impl Disk {
    pub(crate) fn fill(&self) {
        self.0.lock().unwrap().is_full = true;
    }

    pub(crate) fn make_room(&self) {
        self.0.lock().unwrap().is_full = false;
    }

    /// A disk with what is on this one now.
    pub(crate) fn snapshot(&self) -> Self {
        let journal = self.0.lock().unwrap().journal.clone();
        Self(Arc::new(Mutex::new(Platter { journal, is_full: false })))
    }

    pub(crate) fn records(&self) -> usize {
        self.0.lock().unwrap().journal.replay().unwrap().len()
    }
}

impl Journal for Disk {
    fn writer(&self) -> u64 {
        self.0.lock().unwrap().journal.writer()
    }

    fn append(&mut self, record: &[u8]) -> Result<(), AppendError> {
        let mut platter = self.0.lock().unwrap();
        if platter.is_full {
            return Err(AppendError::Write(std::io::ErrorKind::StorageFull.into()));
        }
        platter.journal.append(record)
    }

    fn replay(&mut self) -> Result<Vec<Vec<u8>>, ReplayError> {
        self.0.lock().unwrap().journal.replay()
    }

    fn rewrite(&mut self, records: &[Vec<u8>]) -> Result<(), AppendError> {
        self.0.lock().unwrap().journal.rewrite(records)
    }
}

/// What outlives a server: its kit and its disks.
pub(crate) struct Kit {
    pub(crate) dir: TempDir,
    pub(crate) jobs: Disk,
    pub(crate) ledger: Disk,
}

impl Kit {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["kit/startup", "kit/local", "jobs"] {
            fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        let kit = Self { dir, jobs: Disk::default(), ledger: Disk::default() };
        kit.write("startup/fed_server.json", &json!({ "format_version": 2 }));
        kit.write("local/resources.json", &json!({ "format_version": 2, "class_allow_list": ["*"] }));
        kit
    }

    /// What a server that dies now leaves behind; whoever has it open goes on with the original.
    pub(crate) fn snapshot(&self) -> Self {
        let dir = tempfile::tempdir().unwrap();
        copy_folder(self.dir.path(), dir.path());
        Self { dir, jobs: self.jobs.snapshot(), ledger: self.ledger.snapshot() }
    }

    pub(crate) fn write(&self, file: &str, content: &serde_json::Value) {
        fs::write(self.root().join(file), content.to_string()).unwrap();
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().join("kit")
    }
}

/// Copies a folder as it is at a moment: what is gone before its turn comes is left out.
fn copy_folder(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            fs::create_dir_all(&to).unwrap();
            copy_folder(&entry.path(), &to);
        } else {
            match fs::copy(entry.path(), &to) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                copied => drop(copied.unwrap()),
            }
        }
    }
}

/// A running server.
pub(crate) struct Scene {
    pub(crate) kit: Kit,
    pub(crate) server: Server,
    pub(crate) events: broadcast::Receiver<ServerEvent>,
    pub(crate) network: MemTransport,
}

impl Scene {
    pub(crate) async fn start() -> Self {
        Self::with(Kit::new(), |_| {}).await
    }

    pub(crate) async fn with(kit: Kit, change: impl FnOnce(&mut ServerSettings)) -> Self {
        let network = MemTransport::new();
        let transports = Transports::new().with(network.clone());
        let ledger = TokenLedger::open(Box::new(kit.ledger.clone()), LedgerLimits::default()).unwrap();
        let ledger = Arc::new(ledger);
        let (signer, verifier) = (signer("server"), verifier());
        let stamp = Arc::new(ServerStamp::parent(&*signer).unwrap());
        let cell = Cell::builder(CellConfig::new(Fqcn::server()))
            .transports(transports.clone())
            .gate(Arc::new(ServerGate::new(Fqcn::server(), Arc::clone(&ledger))))
            .stamp(stamp.clone())
            .link_policy(Arc::new(CertificateLinkPolicy::new(Fqcn::server())))
            .start();
        let workspace = Workspace::new(kit.root());
        let host = Arc::new(JobHost {
            patient: false,
            registry: Arc::new(work::registry()),
            checkers: Arc::new(locule_assembly::NoCheckerFiles),
            transports,
            kit: workspace.clone(),
            project: PROJECT.into(),
            org: "university".into(),
            stamp,
        });
        let mut settings = ServerSettings::new(PROJECT);
        change(&mut settings);
        let parts = ServerParts {
            cell: cell.clone(),
            signer,
            verifier,
            ledger,
            jobs: Box::new(kit.jobs.clone()),
            host: host.clone(),
            launcher: Arc::new(TaskLauncher::new(move |start, abort| run_job(host.clone(), start, abort))),
            internal: "mem://server-jobs".into(),
            kit: workspace,
            attendants: Attendants::default(),
        };
        let server = Server::start(settings, parts).unwrap();
        let events = server.events();
        for endpoint in ["mem://server", "mem://server-jobs"] {
            cell.listen(&at(endpoint)).await.unwrap();
        }
        Self { kit, server, events, network }
    }

    /// A cell linked to the server, whose certificate bears `common_name`.
    pub(crate) async fn linked(&self, cell: &str, common_name: &str) -> Cell {
        let cell = self.cell(cell, common_name);
        assert!(cell.wait_linked(&Fqcn::server(), 5 * SECOND).await);
        cell
    }

    pub(crate) fn cell(&self, cell: &str, common_name: &str) -> Cell {
        let carrier = self.network.clone().claiming(common_name).pretending(Security::Mutual);
        let cell =
            Cell::builder(CellConfig::new(name(cell))).transports(Transports::new().with(carrier)).start();
        cell.connect(at("mem://server"));
        cell
    }

    /// A job folder with these workflows, for these sites; unsigned.
    pub(crate) fn folder(&self, meta: serde_json::Value, workflows: serde_json::Value) -> PathBuf {
        let jobs = self.kit.dir.path().join("jobs");
        let folder = jobs.join(format!("job-{}", fs::read_dir(&jobs).unwrap().count()));
        let config = folder.join("app/config");
        fs::create_dir_all(&config).unwrap();
        let mut document = json!({ "name": "sum", "resource_spec": {}, "deploy_map": { "app": ["@ALL"] } });
        document.as_object_mut().unwrap().extend(meta.as_object().unwrap().clone());
        write(&folder.join("meta.json"), &document);
        let client = json!({ "format_version": 2, "executors": [] });
        write(&config.join("config_fed_client.json"), &client);
        write(
            &config.join("config_fed_server.json"),
            &json!({ "format_version": 2, "workflows": workflows }),
        );
        folder
    }

    /// A signed job in which each of these sites takes part in a sum with these arguments.
    pub(crate) async fn submit(&self, meta: serde_json::Value, sum: serde_json::Value) -> String {
        let workflows = json!([{ "id": "sum", "path": "test.Sum", "args": sum }]);
        self.submit_workflows(meta, workflows).await
    }

    pub(crate) async fn submit_workflows(
        &self,
        meta: serde_json::Value,
        workflows: serde_json::Value,
    ) -> String {
        let folder = self.folder(meta, workflows);
        sign_folder(&folder, &*signer("lead")).unwrap();
        self.server.submit(&folder).await.unwrap()
    }

    /// Waits for an event for which `pick` has something.
    pub(crate) async fn until<T>(&mut self, pick: impl Fn(&ServerEvent) -> Option<T>) -> T {
        let looking = async {
            loop {
                let event = self.events.recv().await.unwrap();
                if let Some(found) = pick(&event) {
                    return found;
                }
            }
        };
        tokio::time::timeout(7_200 * SECOND, looking).await.expect("the event never came")
    }

    /// The record of a job when it is over.
    pub(crate) async fn finished(&mut self, job: &str) -> JobRecord {
        let over = |event: &ServerEvent| {
            let ServerEvent::JobFinished { record, .. } = event else { return None };
            (record.job_id == job).then(|| record.clone())
        };
        self.until(over).await
    }

    /// Waits until a job is running.
    pub(crate) async fn running(&mut self, job: &str) {
        let runs = |event: &ServerEvent| {
            let ServerEvent::JobStatus { job: which, status, .. } = event else { return None };
            (which == job && *status == JobStatus::Running).then_some(())
        };
        self.until(runs).await;
    }
}

fn write(file: &Path, content: &serde_json::Value) {
    fs::write(file, content.to_string()).unwrap();
}

/// The last reason in a record.
pub(crate) fn reason(record: &JobRecord) -> &str {
    &record.history.last().unwrap().reason
}
