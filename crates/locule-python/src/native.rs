//! Scripts that speak with their site through Locule's own package: lines of JSON over the loopback interface.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use locule_fobs::{Class, Map, Shareable, Value};
use serde::Deserialize;
use serde_json::{Value as Json, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::tcp::OwnedReadHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use uuid::Uuid;

use crate::parcel::{self, Folder};
use crate::session::{HandOverError, Shared, is_same};

/// The package, as it lies in the repository: a site brings it along for its scripts.
const PACKAGE: [(&str, &str); 2] = [
    ("__init__.py", include_str!("../python/locule/__init__.py")),
    ("client.py", include_str!("../python/locule/client.py")),
];

const VERSION: u64 = 1;
/// How long a script may take to say who it is.
const GREETING: Duration = Duration::from_secs(10);
/// Most connections at a time; all but one are strangers.
const CONNECTIONS: usize = 8;
/// Longest first line, and longest line, in bytes.
const MAX_GREETING: u64 = 4096;
const MAX_LINE: u64 = 16 << 20;
/// Lines that may wait for a script to read them.
const UNREAD: usize = 8;

/// Puts the package into a folder that scripts may read and not write.
pub(crate) fn install(lib: &Path) -> io::Result<()> {
    let folder = lib.join("locule");
    std::fs::create_dir_all(&folder)?;
    PACKAGE.iter().try_for_each(|(name, text)| std::fs::write(folder.join(name), text))
}

/// Where arrays lie, by name for the script and held open for the site, and how large a result may be.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) path: PathBuf,
    pub(crate) folder: Folder,
    pub(crate) max_result: u64,
}

/// What a script says.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Said {
    Hello { version: u64, token: String },
    Beat,
    Log { key: String, value: Json, r#type: String, step: Option<i64>, writer: String },
    Result { id: String, model: Json, arrays: bool },
}

/// Listens on a free port of the loopback interface until the future that it gives is dropped; the port.
pub(crate) async fn listen(shared: Arc<Shared>) -> io::Result<(u16, impl Future<Output = ()>)> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let port = listener.local_addr()?.port();
    let listening = async move {
        let mut talks = JoinSet::new();
        loop {
            while talks.len() >= CONNECTIONS {
                talks.join_next().await;
            }
            match listener.accept().await {
                Ok((stream, _)) => drop(talks.spawn(talk(stream, Arc::clone(&shared)))),
                Err(error) => {
                    tracing::debug!(%error, "script not accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    };
    Ok((port, listening))
}

/// Talks with one script until it hangs up or says what makes no sense.
async fn talk(stream: TcpStream, shared: Arc<Shared>) {
    stream.set_nodelay(true).ok();
    let (from, mut to) = stream.into_split();
    let (say, mut lines) = mpsc::channel::<String>(UNREAD);
    let saying = async move {
        while let Some(line) = lines.recv().await {
            if to.write_all(line.as_bytes()).await.is_err() {
                return;
            }
        }
    };
    let hearing = async move {
        let mut from = BufReader::new(from);
        let greeting = tokio::time::timeout(GREETING, line(&mut from, MAX_GREETING)).await;
        let Ok(Some(Said::Hello { version, token })) = greeting else { return };
        if let Err(reason) = shared.greet(version, &token, &say) {
            tracing::warn!(reason, "a script's greeting is refused");
            say.send(format!("{}\n", json!({ "refused": reason }))).await.ok();
            return;
        }
        drop(say);
        while let Some(said) = line(&mut from, MAX_LINE).await {
            if let Err(reason) = shared.hear_said(said).await {
                tracing::warn!(reason, "script refused");
                shared.refuse_result(&reason);
            }
        }
        shared.hang_up();
    };
    // Once nothing more is heard, what was still to be said is.
    tokio::join!(saying, hearing);
}

async fn line(from: &mut BufReader<OwnedReadHalf>, most: u64) -> Option<Said> {
    let mut line = Vec::new();
    from.take(most).read_until(b'\n', &mut line).await.ok()?;
    serde_json::from_slice(&line).ok().filter(|_| line.ends_with(b"\n"))
}

impl Shared {
    fn greet(&self, version: u64, token: &str, say: &mpsc::Sender<String>) -> Result<(), &'static str> {
        let mut session = self.session();
        let Some(session) = session.as_mut().filter(|session| is_same(token, &session.token)) else {
            return Err("another script is expected");
        };
        if session.id.is_some() {
            return Err("the script has a session already");
        }
        if version != VERSION {
            session.rejected = Some("unsupported version of its package".to_owned());
            self.changed.notify_waiters();
            return Err("unsupported version");
        }
        // Before anybody knows of the session: what is said to it first is the welcome.
        let welcome = format!("{}\n", json!({ "welcome": self.terms.welcome }));
        say.try_send(welcome).map_err(|_| "it does not listen")?;
        session.id = Some(Uuid::new_v4().simple().to_string());
        session.heard = Instant::now();
        session.ready = true;
        session.talk = Some(say.clone());
        self.changed.notify_waiters();
        Ok(())
    }

    fn hang_up(&self) {
        if let Some(session) = &mut *self.session() {
            session.talk = None;
        }
    }

    /// A result that cannot be taken fails its task, and not later than now.
    fn refuse_result(&self, reason: &str) {
        if let Some(session) = &mut *self.session()
            && session.task.take().is_some()
        {
            session.result = Some(Err(crate::child::printable(reason.chars().take(500))));
        }
        self.changed.notify_waiters();
    }

    async fn hear_said(self: &Arc<Self>, said: Said) -> Result<(), String> {
        self.hear();
        match said {
            Said::Hello { .. } => return Err("it greets twice".to_owned()),
            Said::Beat => {}
            Said::Log { key, value, r#type, step, writer } => {
                let member = |class: &str, member: String| match Class::named(class) {
                    Some(class) => Value::Enum { class, member },
                    None => member.into(),
                };
                let value =
                    parcel::unpack(&value, &bytes::Bytes::new()).map_err(|error| error.to_string())?;
                let mut body = Map::from_iter([("key", key)]);
                body.insert("value", value);
                body.insert("data_type", member("nvflare.apis.analytix.AnalyticsDataType", r#type));
                body.insert("writer", member("nvflare.apis.analytix.LogWriterName", writer));
                body.insert("global_step", step.map_or(Value::None, Value::from));
                self.metrics.take(&body);
            }
            Said::Result { id, model, arrays } => {
                if self.session().as_ref().and_then(|session| session.task.as_ref()) != Some(&id) {
                    return Err("it is not the result of the current task".to_owned());
                }
                let shared = Arc::clone(self);
                let reading = tokio::task::spawn_blocking(move || {
                    let Exchange { folder, max_result, .. } = &shared.exchange;
                    let name = result_file(&id);
                    parcel::taken(&model, folder, arrays.then_some(&*name), *max_result)
                });
                let result = reading.await.map_err(|error| error.to_string())?;
                let result = result.map_err(|error| error.to_string())?;
                if let Some(session) = &mut *self.session() {
                    session.task = None;
                    session.result = Some(Ok(result));
                }
                self.changed.notify_waiters();
            }
        }
        Ok(())
    }

    /// Gives a task to a script of the package.
    pub(crate) async fn give(
        self: &Arc<Self>,
        talk: &mpsc::Sender<String>,
        id: String,
        name: &str,
        task: Shareable,
    ) -> Result<(), HandOverError> {
        let (shared, of) = (Arc::clone(self), id.clone());
        let writing = tokio::task::spawn_blocking(move || {
            parcel::given(task, &shared.exchange.folder, &task_file(&of))
        });
        let written = writing.await.map_err(|error| HandOverError::Encode(error.to_string()))?;
        let (model, arrays) = written.map_err(|error| HandOverError::Encode(error.to_string()))?;
        let line = json!({ "task": { "id": id, "name": name, "model": model, "arrays": arrays } });
        let said = talk.send(format!("{line}\n")).await;
        said.map_err(|_| HandOverError::Request("it has hung up".to_owned()))
    }

    /// Removes what a task may have left.
    pub(crate) fn forget_files(&self, id: &str) {
        self.exchange.folder.remove(&task_file(id));
        self.exchange.folder.remove(&result_file(id));
    }
}

/// The last word to a script.
pub(crate) fn end(reason: &str) -> String {
    format!("{}\n", json!({ "end": reason }))
}

fn task_file(id: &str) -> String {
    format!("task-{id}.bin")
}

fn result_file(id: &str) -> String {
    format!("result-{id}.bin")
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use locule_fobs::{Array, DataKind, Dxo};
    use locule_message::Fqcn;

    use super::*;
    use crate::metrics::Metrics;
    use crate::session::{Desk, News, Terms};

    const PATIENCE: Duration = Duration::from_secs(30);

    struct Scene {
        desk: Desk,
        metrics: Metrics,
        dir: tempfile::TempDir,
    }

    impl Scene {
        async fn open() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let name: Fqcn = "site-1.job-7".parse().unwrap();
            let welcome = json!({
                "job_id": "job-7", "site_name": "site-1", "heartbeat": 1.0, "train_with_eval": false,
                "transfer_type": "FULL", "train_task_name": "train", "evaluate_task_name": "validate",
                "submit_model_task_name": "submit_model",
            });
            let (job_id, site) = ("job-7".to_owned(), "site-1".to_owned());
            let terms = Terms { job_id, site, heartbeat: PATIENCE, lease: PATIENCE, welcome };
            let metrics = Metrics::in_file(dir.path().join("metrics.jsonl"));
            let path = dir.path().join("arrays");
            std::fs::create_dir(&path).unwrap();
            install(dir.path()).unwrap();
            let exchange = Exchange { folder: Folder::open(&path).unwrap(), path, max_result: 1 << 20 };
            let desk = Desk::open(name.clone(), terms, metrics.clone(), exchange).await.unwrap();
            desk.expect(name.child("trainer").unwrap(), "correct".to_owned());
            Self { desk, metrics, dir }
        }

        /// Has a Python say this.
        fn start(&self, token: &str, script: &str) -> std::process::Child {
            let (file, folder) = (self.dir.path().join("locule.json"), self.dir.path().join("arrays"));
            let said = json!({ "port": self.desk.port, "token": token, "folder": folder });
            std::fs::write(&file, said.to_string()).unwrap();
            let mut command = Command::new("python3");
            command.args(["-B", "-c", script]).env("PYTHONPATH", self.dir.path()).env("LOCULE_SCRIPT", file);
            command.spawn().unwrap()
        }

        async fn until<T>(&self, look: impl Fn(&Desk) -> Option<T>) -> T {
            let looking = async {
                loop {
                    let changed = self.desk.changed();
                    tokio::pin!(changed);
                    changed.as_mut().enable();
                    match look(&self.desk) {
                        Some(found) => return found,
                        None => changed.await,
                    }
                }
            };
            tokio::time::timeout(PATIENCE, looking).await.unwrap()
        }

        async fn result(&self) -> Result<Shareable, String> {
            self.until(|desk| desk.take_result()).await.1
        }
    }

    async fn ended(mut child: std::process::Child) -> bool {
        tokio::task::spawn_blocking(move || child.wait().unwrap().success()).await.unwrap()
    }

    /// Works without numpy: its numbers are in lists.
    const SCRIPT: &str = "
import locule.client as flare
flare.init()
assert (flare.get_job_id(), flare.get_site_name()) == ('job-7', 'site-1')
log = flare.SummaryWriter()
while flare.is_running():
    model = flare.receive()
    assert flare.is_train() and not flare.is_evaluate() and model.params_type == 'FULL', model
    log.add_scalar('loss', float('inf'), global_step=model.current_round)
    params = {name: [number + 1 for number in numbers] for name, numbers in model.params.items()}
    flare.send(flare.FLModel(params=params, metrics={'loss': 0.1}, meta={'odd': (1, b'x'), 2: None}))
flare.shutdown()
";

    fn task(round: i64, numbers: &[f64]) -> Shareable {
        let numbers = Value::List(numbers.iter().map(|number| Value::from(*number)).collect());
        let mut task = Shareable::with_dxo(Dxo::new(DataKind::Weights, Map::from_iter([("w", numbers)])));
        task.set_header("current_round", round);
        task
    }

    #[tokio::test]
    async fn a_script_of_the_package_trains_round_after_round_and_hears_of_the_end() {
        let scene = Scene::open().await;
        let script = scene.start("correct", SCRIPT);
        scene.until(|desk| (desk.news() == News::Ready).then_some(())).await;
        for round in 0..3 {
            scene.desk.hand_over("train", task(round, &[0.1, 1e300]), PATIENCE).await.unwrap();
            let result = scene.result().await.unwrap();
            let dxo = result.dxo().unwrap().unwrap();
            let expected = Value::List(vec![1.1.into(), 1e300.into()]);
            assert_eq!((dxo.kind, dxo.data.get("w")), (DataKind::Weights, Some(&expected)));
            assert_eq!(dxo.meta.map("initial_metrics").and_then(|metrics| metrics.float("loss")), Some(0.1));
            let odd = Value::Tuple(vec![1_i64.into(), Value::Bytes("x".into())]);
            assert_eq!(dxo.meta.get("odd"), Some(&odd));
        }
        assert!(scene.desk.is_settled());
        let logged = scene.metrics.fetch();
        assert_eq!(logged.iter().map(|metric| metric.step).collect::<Vec<_>>(), [Some(0), Some(1), Some(2)]);
        assert_eq!(
            (&*logged[0].key, &*logged[0].kind, &logged[0].value),
            ("loss", "SCALAR", &f64::INFINITY.into())
        );
        scene.desk.shut_down(PATIENCE).await;
        assert!(ended(script).await);
        assert_eq!(std::fs::read_dir(scene.dir.path().join("arrays")).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn only_the_script_that_was_started_is_greeted() {
        let scene = Scene::open().await;
        let greet = "
import locule.client as flare
try:
    flare.init()
except RuntimeError as error:
    assert 'another script is expected' in str(error), error
else:
    raise SystemExit(1)
";
        assert!(ended(scene.start("incorrect", greet)).await);
        assert_eq!(scene.desk.news(), News::Nothing, "a stranger's word ends nothing");
    }

    #[tokio::test]
    async fn a_result_that_cannot_be_taken_fails_its_task() {
        let scene = Scene::open().await;
        let script = scene.start(
            "correct",
            "
import json, locule.client as flare
flare.init()
flare.receive()
flare._session._say({'result': {'id': 'another', 'model': {}, 'arrays': False}})
flare.receive()
",
        );
        scene.until(|desk| (desk.news() == News::Ready).then_some(())).await;
        scene.desk.hand_over("train", task(0, &[0.5]), PATIENCE).await.unwrap();
        let told = scene.result().await.unwrap_err();
        assert_eq!(told, "it is not the result of the current task");
        scene.desk.abort("enough").await;
        assert!(ended(script).await);
    }

    #[tokio::test]
    async fn arrays_lie_in_a_file_that_the_script_is_told_of() {
        let scene = Scene::open().await;
        let script = scene.start(
            "correct",
            "
import os, locule.client as flare
flare.init()
flare._session._await(None)
task = flare._session._next
start, length = task['model']['params']['w']['$array']
with open(os.path.join(flare._session._folder, task['arrays']), 'rb') as file:
    npy = file.read()[start:start + length]
with open(os.path.join(flare._session._folder, 'result-' + task['id'] + '.bin'), 'xb') as file:
    file.write(npy)
model = dict(task['model'], params={'w': {'$array': [0, length]}})
flare._session._say({'result': {'id': task['id'], 'model': model, 'arrays': True}})
flare.is_running() and None
",
        );
        scene.until(|desk| (desk.news() == News::Ready).then_some(())).await;
        let array = Array::from_f64(&[3], &[0.1, -0.0, f64::MAX]).unwrap();
        let model = Dxo::new(DataKind::WeightDiff, Map::from_iter([("w", array.clone())]));
        scene.desk.hand_over("train", Shareable::with_dxo(model), PATIENCE).await.unwrap();
        let dxo = scene.result().await.unwrap().dxo().unwrap().unwrap();
        assert_eq!((dxo.kind, dxo.data.get("w")), (DataKind::WeightDiff, Some(&Value::Array(array))));
        scene.desk.abort("enough").await;
        ended(script).await;
    }
}
