//! Single cells, against each other.
//!
//! In each set-up one side runs the cell `server`, which listens, and the other the cells `site-1` and
//! `site-2`, which dial it.

mod carrier;
mod lasting;
mod messages;
mod secure;
mod streams;
mod values;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use futures_util::future::try_join_all;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use locule_auth::CertificateLinkPolicy;
use locule_cell::{Cell, CellConfig, Reply, Request, RequestError};
use locule_identity_openssl::{OpensslCipher, OpensslSigner};
use locule_message::{Fqcn, Payload};
use locule_transport::{Endpoint, Transports};
use serde_json::{Value, json};
use tokio::sync::OnceCell;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use carrier::{CARRIERS, Carrier};

use crate::ours::{self, Note};
use crate::project::{HOST, Project, SERVER};
use crate::python::{Peer, Python};
use crate::run::{Run, Suite};

/// The version of nvflare that everything is checked with.
pub(crate) const VERSION: &str = "2.9.0";
/// Versions before it, which are still met; what they do otherwise is asked of [`Setting::is_older`].
pub(crate) const OLDER: [&str; 2] = ["2.8.3", "2.7.3"];
/// The carrier that they are met over every day.
const EVERYDAY_OLDER: &str = "grpc";
/// Set-ups with those that run at the same time.
const OLDER_AT_ONCE: usize = 4;
/// A channel on which requests are plain messages; see `locule-switch`.
const PLAIN: &str = "task";
/// A channel on which requests and replies are streams of chunks, and arrays go by reference.
const STREAMED: &str = "aux_communication";
/// What our cells say that they can do.
const CAPABILITY: &str = "interop-test";
/// Room for the headers of a frame, in bytes.
const HEADERS: usize = 4096;
/// How long anything may take that is not meant to take long.
const PATIENCE: Duration = Duration::from_secs(20);

/// Every case of single cells.
pub(crate) async fn run(run: &Run) -> anyhow::Result<()> {
    let project = OnceCell::new();
    let (mut everyday, mut older) = (Vec::new(), Vec::new());
    for carrier in CARRIERS {
        let (listener, channel, subject, version) = (Side::Locule, PLAIN, Side::Locule, VERSION);
        let setting = Setting { carrier, secure: true, listener, channel, subject, version };
        for listener in [Side::Python, Side::Locule] {
            let plain = Setting { listener, ..setting };
            let streamed = Setting { channel: STREAMED, ..plain };
            everyday.extend([plain, Setting { secure: false, ..plain }, streamed]);
            for version in OLDER.into_iter().filter(|_| !carrier.slow) {
                older.extend([Setting { version, ..plain }, Setting { version, ..streamed }]);
            }
        }
        // What the cases expect is what nvflare does with itself.
        let plain = Setting { subject: Side::Python, ..setting };
        let streamed = Setting { channel: STREAMED, ..plain };
        everyday.extend([plain, streamed]);
    }
    for setting in everyday {
        run_setting(run, setting, &project).await?;
    }
    let older = stream::iter(older).map(|it| run_setting(run, it, &project)).buffer_unordered(OLDER_AT_ONCE);
    older.try_collect().await
}

async fn run_setting(run: &Run, setting: Setting, project: &OnceCell<Project>) -> anyhow::Result<()> {
    let Setting { secure, channel, subject, .. } = setting;
    let mut checks = messages::checks(&setting);
    if channel == STREAMED {
        checks.extend(streams::checks(&setting));
    }
    if subject == Side::Locule {
        if secure {
            checks.extend(if setting.is_older() { secure::older_checks() } else { secure::checks(&setting) });
        }
        if channel == PLAIN {
            checks.extend(secure.then(|| values::checks(&setting)).into_iter().flatten());
            checks.extend(lasting::checks(&setting));
        }
    }
    let set_up = async |folder: &Path, python: &Python| {
        let project = project.get_or_try_init(|| run.project(python)).await?;
        Bench::set_up(setting, python, project, folder).await
    };
    run.suite(&setting.suite(), checks, set_up).await
}

/// Whose cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Python,
    Locule,
}

/// What a set-up of cells differs in.
#[derive(Clone, Copy, Debug)]
struct Setting {
    carrier: &'static Carrier,
    /// Mutual TLS, or none.
    secure: bool,
    /// Who runs `server`.
    listener: Side,
    /// The channel that is used where any would do.
    channel: &'static str,
    /// Who runs the cells that stand for ours: nvflare itself, to see that a case asks for what it does.
    subject: Side,
    /// Of nvflare.
    version: &'static str,
}

impl Setting {
    /// Whether the peer's nvflare is one of [`OLDER`].
    fn is_older(&self) -> bool {
        self.version != VERSION
    }

    fn streamed(&self) -> bool {
        self.channel == STREAMED
    }

    /// Whether the peer takes a plain message of `size` bytes, whoever sends it.
    fn takes(&self, size: usize) -> bool {
        let they_dial = self.listener == Side::Locule;
        !they_dial || self.streamed() || size + HEADERS <= self.carrier.dialer_takes
    }

    fn suite(&self) -> Suite {
        let Self { carrier, secure, listener, subject, version, .. } = self;
        let role = match subject {
            Side::Locule => format!("{listener:?} listens"),
            Side::Python => "Python only".to_owned(),
        };
        Suite {
            group: if self.streamed() { "streams" } else { "cells" },
            carrier: if *secure { carrier.scheme.to_owned() } else { format!("{} clear", carrier.scheme) },
            role,
            version: (*version).to_owned(),
            slow: carrier.slow
                || *subject == Side::Python
                || (self.is_older() && carrier.scheme != EVERYDAY_OLDER),
        }
    }

    fn names(&self, side: Side) -> &'static [&'static str] {
        if side == self.listener { &["server"] } else { &["site-1", "site-2"] }
    }
}

/// Cells of both sides, linked.
struct Bench {
    setting: Setting,
    python: Python,
    project: Project,
    /// Where `server` listens.
    endpoint: Endpoint,
    peer: Peer,
    ours: BTreeMap<&'static str, Arc<Cell>>,
    /// Runs the cells that stand for ours, where nvflare is checked with itself.
    reference: Option<Peer>,
    note: UnboundedSender<Note>,
    notes: UnboundedReceiver<Note>,
    log: PathBuf,
}

impl Bench {
    async fn set_up(
        setting: Setting,
        python: &Python,
        project: &Project,
        folder: &Path,
    ) -> anyhow::Result<Self> {
        let log = folder.join("python.log");
        let endpoint = format!("{}://{HOST}:{}", setting.carrier.scheme, e2e::free_port());
        let (note, notes) = unbounded_channel();
        let mut bench = Self {
            setting,
            python: python.clone(),
            project: project.clone(),
            endpoint: Endpoint::parse(&endpoint)?,
            peer: start_peer(python, setting, &log)?,
            ours: BTreeMap::new(),
            reference: None,
            note,
            notes,
            log,
        };
        if setting.subject == Side::Python {
            bench.reference = Some(start_peer(python, setting, &folder.join("reference.log"))?);
        }
        match setting.listener {
            Side::Python => {
                bench.start_theirs().await?;
                bench.start_ours().await?;
            }
            Side::Locule => {
                bench.start_ours().await?;
                bench.start_theirs().await?;
            }
        }
        bench.linked().await?;
        Ok(bench)
    }

    /// Starts the Python side's cells.
    async fn start_theirs(&mut self) -> anyhow::Result<()> {
        for name in self.setting.names(Side::Python) {
            self.start_their(&self.peer, name, name).await?;
        }
        Ok(())
    }

    /// Starts a Python cell called `name` with the certificate of `bearer`.
    async fn start_their(&self, peer: &Peer, name: &str, bearer: &str) -> anyhow::Result<()> {
        let url = self.endpoint.to_string();
        let mut cell = json!({ "name": name, "url": url, "secure": self.setting.secure });
        if self.setting.secure {
            let identity = if bearer == "server" { SERVER } else { bearer };
            cell["credentials"] = self.project.credentials(bearer);
            if !self.setting.is_older() {
                cell["identity"] = identity.into();
                cell["identities"] = json!({ "server": SERVER });
            }
        }
        peer.ask("start", cell).await?;
        Ok(())
    }

    /// Starts the cells of our side.
    async fn start_ours(&mut self) -> anyhow::Result<()> {
        for name in self.setting.names(Side::Locule) {
            if let Some(reference) = &self.reference {
                self.start_their(reference, name, name).await?;
                continue;
            }
            let cell = self.our_cell(name, name)?;
            if self.setting.listener == Side::Locule {
                cell.listen(&self.endpoint).await?;
            } else {
                cell.connect(self.endpoint.clone());
            }
            self.ours.insert(name, cell);
        }
        Ok(())
    }

    /// A cell of ours called `name` with the certificate of `bearer`, not linked to anything.
    fn our_cell(&self, name: &str, bearer: &str) -> anyhow::Result<Arc<Cell>> {
        let Setting { carrier, secure, channel, .. } = self.setting;
        let files = secure.then(|| self.project.files(bearer));
        let own = Fqcn::parse(name)?;
        let policy = CertificateLinkPolicy::new(own.clone()).expect(Fqcn::server(), SERVER);
        let policy = if secure { policy } else { policy.admit_without_certificate() };
        let mut transports = Transports::new();
        transports.insert(carrier.transport(files.as_ref())?);
        let mut config = CellConfig::new(own);
        config.capabilities = vec![CAPABILITY.to_owned()];
        let mut cell = Cell::builder(config).transports(transports).link_policy(Arc::new(policy));
        if let Some(files) = &files {
            let signer = OpensslSigner::from_files(&files.cert, &files.key)?;
            cell = cell.cipher(Arc::new(OpensslCipher::new(signer, &std::fs::read(&files.ca)?)?));
        }
        let cell = Arc::new(cell.start());
        ours::answer(&cell, channel, streams::BLOBS, &self.note);
        Ok(cell)
    }

    /// Waits until both ends of every link know that it is up.
    async fn linked(&self) -> anyhow::Result<()> {
        for ours in self.setting.names(Side::Locule) {
            for theirs in self.setting.names(Side::Python) {
                self.wait_linked(ours, theirs).await?;
            }
        }
        Ok(())
    }

    async fn wait_linked(&self, ours: &str, theirs: &str) -> anyhow::Result<()> {
        if let Some(reference) = &self.reference {
            reference.ask("wait_linked", json!({ "name": ours, "peer": theirs })).await?;
        } else {
            let linked = self.our(ours)?.wait_linked(&Fqcn::parse(theirs)?, PATIENCE).await;
            ensure!(linked, "{theirs} never became a neighbour of {ours}");
        }
        self.peer.ask("wait_linked", json!({ "name": theirs, "peer": ours })).await?;
        Ok(())
    }

    fn our(&self, name: &str) -> anyhow::Result<&Cell> {
        let cell = self.ours.get(name);
        cell.map(AsRef::as_ref).with_context(|| format!("{name} is no cell of ours"))
    }

    /// The first name of a side's cells, where one is as good as another.
    fn name(&self, side: Side) -> &'static str {
        self.setting.names(side)[0]
    }

    /// We ask, the Python side answers.
    async fn we_ask(&self, topic: &str, payload: Payload) -> Result<Reply, RequestError> {
        self.we_send(Request::new(self.setting.channel, topic, payload).timeout(PATIENCE)).await
    }

    /// The same with any request.
    async fn we_send(&self, request: Request) -> Result<Reply, RequestError> {
        let target = Fqcn::parse(self.name(Side::Python)).map_err(|_| RequestError::InvalidTarget)?;
        self.ours[self.name(Side::Locule)].request(&target, request).await
    }

    /// The Python side asks, we answer; the reply.
    async fn they_ask(&self, topic: &str, payload: Value) -> anyhow::Result<Value> {
        self.they_send(json!({ "topic": topic, "payload": payload })).await
    }

    /// The same with any request.
    async fn they_send(&self, request: Value) -> anyhow::Result<Value> {
        Ok(self.they_send_all(request).await?[0].take())
    }

    /// The same with several at the same time.
    async fn they_send_all(&self, mut request: Value) -> anyhow::Result<Value> {
        let ours = self.name(Side::Locule);
        for (key, value) in
            [("name", self.name(Side::Python)), ("target", ours), ("channel", self.setting.channel)]
        {
            if request.get(key).is_none() {
                request[key] = value.into();
            }
        }
        self.peer.ask("request", request).await
    }

    /// The next message that came to us without waiting for a reply.
    async fn noted(&mut self) -> anyhow::Result<Note> {
        if let Some(reference) = &self.reference {
            let mut notes = reference.ask("noted", json!({ "count": 1 })).await?;
            let note = notes[0].take();
            let origin = Fqcn::parse(note["origin"].as_str().unwrap_or_default())?;
            return Ok(Note {
                origin,
                payload: Payload::bytes(crate::payload::shown(&note["payload"], "bytes")?),
            });
        }
        match tokio::time::timeout(PATIENCE, self.notes.recv()).await {
            Ok(Some(note)) => Ok(note),
            Ok(None) | Err(_) => bail!("nothing came within {PATIENCE:?}"),
        }
    }

    /// The next `count` messages that came to the Python side without waiting for a reply.
    async fn they_noted(&self, count: usize) -> anyhow::Result<Vec<Value>> {
        let notes = self.peer.ask("noted", json!({ "count": count })).await?;
        Ok(notes.as_array().cloned().unwrap_or_default())
    }

    /// Asks once in each direction; fails unless both are answered.
    async fn both_ask(&self) -> anyhow::Result<()> {
        let reply = self.we_ask("echo", Payload::bytes("hello".into())).await?.into_ok()?;
        ensure!(reply.payload.body == "hello", "they answered with {:?}", reply.payload);
        let reply = self.they_ask("echo", json!({ "size": 5 })).await?;
        crate::payload::expect(&reply["payload"], &Payload::bytes(crate::payload::pattern(5)))
    }

    /// Runs `futures` side by side until all are done, or one fails.
    async fn all<T>(
        futures: impl IntoIterator<Item = impl Future<Output = anyhow::Result<T>>>,
    ) -> anyhow::Result<()> {
        try_join_all(futures).await.map(drop)
    }
}

/// On a plain channel arrays leave inline, since it carries no references.
fn start_peer(python: &Python, setting: Setting, log: &Path) -> anyhow::Result<Peer> {
    let inline = [("NVFLARE_NP_DOWNLOAD_CHUNK_SIZE", "0")];
    Peer::start(python, "cell_peer.py", if setting.streamed() { &[] } else { &inline }, log)
}

/// Whether the reply that the Python side got says so. A reply by stream says nothing when all is well.
fn expect_code(reply: &Value, code: &str) -> anyhow::Result<()> {
    let said = reply["code"].as_str().unwrap_or("ok");
    ensure!(said == code, "the code is {said}, error {}", reply["error"]);
    Ok(())
}
