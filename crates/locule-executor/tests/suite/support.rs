//! Executors, filters and observers to build jobs of, and a server's job to work for.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use locule_cell::{Cell, CellConfig, HandlerError, Incoming, Reply};
use locule_communicator::{JobCommunicator, Settings};
use locule_component::{
    AbortFlag, Assembled, Chain, Direction, Event, EventCx, ExecuteError, Executor, FilterCx, FilterError,
    Metric, ObserveError, Observer, RunContext, Task, TaskCx, TaskFilter,
};
use locule_executor::{Pace, TaskLoop, Workbench};
use locule_fobs::Shareable;
use locule_identity::{Secret, Session, Token};
use locule_message::{Payload, ReturnCode};
use locule_protocol::{
    Assignment, AuxReply, AuxRequest, GetTask, Parts, SubmitUpdate, TaskReply, aux_topic, server_context,
    site_context,
};
use locule_transport::{Endpoint, Transports};
use locule_transport_mem::MemTransport;
use tokio_util::sync::CancellationToken;

pub(crate) fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// What happened, in order, told by all that are given a clone.
#[derive(Clone, Default)]
pub(crate) struct Diary(Arc<Mutex<Vec<String>>>);

impl Diary {
    pub(crate) fn write(&self, entry: impl Into<String>) {
        self.0.lock().unwrap().push(entry.into());
    }

    pub(crate) fn entries(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    pub(crate) fn count(&self, entry: &str) -> usize {
        self.entries().iter().filter(|known| *known == entry).count()
    }
}

impl Observer for Diary {
    fn observe(&self, event: &Event<'_>, _: &EventCx<'_>) -> Result<(), ObserveError> {
        self.write(event.name());
        Ok(())
    }
}

type Work = dyn FnMut(&Task, &TaskCx<'_>) -> Result<Shareable, ExecuteError> + Send;

struct Worker(Box<Work>, Arc<Mutex<Vec<Metric>>>);

impl Executor for Worker {
    fn execute(&mut self, task: &Task, cx: &TaskCx<'_>) -> Result<Shareable, ExecuteError> {
        (self.0)(task, cx)
    }

    fn take_metrics(&mut self) -> Vec<Metric> {
        std::mem::take(&mut self.1.lock().unwrap())
    }
}

struct Sieve(Box<dyn FnMut(Shareable) -> Result<Shareable, FilterError> + Send>);

impl TaskFilter for Sieve {
    fn apply(&mut self, data: Shareable, _: &FilterCx<'_>) -> Result<Shareable, FilterError> {
        (self.0)(data)
    }
}

/// What a site built for `job-1`: an executor for the task `train`, and the diary as observer.
pub(crate) struct Job {
    pub(crate) diary: Diary,
    pub(crate) abort: AbortFlag,
    /// What the executor has measured.
    pub(crate) metrics: Arc<Mutex<Vec<Metric>>>,
    assembled: Assembled,
}

impl Job {
    pub(crate) fn with(
        work: impl FnMut(&Task, &TaskCx<'_>) -> Result<Shareable, ExecuteError> + Send + 'static,
    ) -> Self {
        let diary = Diary::default();
        let (mut assembled, metrics) = (Assembled::default(), Arc::default());
        let worker = Worker(Box::new(work), Arc::clone(&metrics));
        assembled.executors.insert(["train".to_owned()], Box::new(worker));
        assembled.observers.push(("diary".to_owned(), Box::new(diary.clone())));
        Self { diary, abort: AbortFlag::new(), metrics, assembled }
    }

    pub(crate) fn filter(
        mut self,
        chain: Chain,
        filter: impl FnMut(Shareable) -> Result<Shareable, FilterError> + Send + 'static,
    ) -> Self {
        let direction = match chain {
            Chain::TaskData => Direction::In,
            Chain::TaskResult => Direction::Out,
        };
        let filter: Box<dyn TaskFilter> = Box::new(Sieve(Box::new(filter)));
        self.assembled.filters.append(chain, &[direction], &["train".to_owned()], vec![filter]);
        self
    }

    pub(crate) fn bench(self) -> Workbench {
        Workbench::new("site-1", "job-1", RunContext::new("site-1", "job-1"), self.assembled, self.abort)
    }
}

/// A task of `job-1`, round 3 of 5.
pub(crate) fn assignment(name: &str, id: &str) -> Assignment {
    let mut data = Shareable::new();
    data.set_peer_context(server_context("ward-7", Some("job-1")));
    data.set_header("current_round", 3_i64);
    data.set_header("num_rounds", 5_i64);
    data.fields.insert("weights", 7_i64);
    Assignment { wait: seconds(2), ..Assignment::new(name, id, data) }
}

/// The server's half of `job-1`: hands out what it was given, then ends the run.
pub(crate) struct ServerJob {
    pub(crate) network: MemTransport,
    pub(crate) cell: Cell,
    pub(crate) site: Cell,
    pub(crate) submitted: Arc<Mutex<Vec<SubmitUpdate>>>,
    pub(crate) cancel: CancellationToken,
    tasks: Arc<Mutex<VecDeque<TaskReply>>>,
}

impl ServerJob {
    pub(crate) async fn start(tasks: impl IntoIterator<Item = TaskReply>) -> Self {
        let network = MemTransport::new();
        let cell = |name: &str| {
            let transports = Transports::new().with(network.clone());
            Cell::builder(CellConfig::new(name.parse().unwrap())).transports(transports).start()
        };
        let (server, site) = (cell("server.job-1"), cell("site-1.job-1"));
        let endpoint = Endpoint::parse("mem://job").unwrap();
        server.listen(&endpoint).await.unwrap();
        site.connect(endpoint);
        assert!(site.wait_linked(server.name(), seconds(5)).await);
        let tasks = Arc::new(Mutex::new(tasks.into_iter().collect()));
        let cancel = CancellationToken::new();
        let job = Self { network, cell: server, site, submitted: Arc::default(), cancel, tasks };
        job.answer(AuxRequest::CHANNEL, aux_topic::SYNC_RUNNER, |_| aux("OK"));
        job.answer(AuxRequest::CHANNEL, aux_topic::TASK_CHECK, |_| aux("OK"));
        job.answer(AuxRequest::CHANNEL, aux_topic::JOB_HEARTBEAT, |_| aux("OK"));
        job.hand_out();
        job.take_in();
        job
    }

    pub(crate) fn answer(
        &self,
        channel: &str,
        topic: &str,
        answer: impl Fn(Incoming) -> Result<Reply, HandlerError> + Send + Sync + 'static,
    ) {
        self.cell.handle(channel, topic, move |incoming: Incoming| std::future::ready(answer(incoming)));
    }

    fn hand_out(&self) {
        let tasks = self.tasks.clone();
        self.answer(GetTask::CHANNEL, GetTask::TOPIC, move |_| {
            let next = tasks.lock().unwrap().pop_front();
            let over = || TaskReply::EndRun { peer: server_context("ward-7", Some("job-1")) };
            reply(next.unwrap_or_else(over).to_parts().unwrap())
        });
    }

    fn take_in(&self) {
        let submitted = self.submitted.clone();
        self.answer(SubmitUpdate::CHANNEL, SubmitUpdate::TOPIC, move |incoming| {
            let update = SubmitUpdate::from_parts(&incoming.headers, &incoming.payload()).unwrap();
            submitted.lock().unwrap().push(update);
            Ok(Reply::ok(Payload::none()))
        });
    }

    /// The ids of the tasks whose results arrived.
    pub(crate) fn submitted_ids(&self) -> Vec<String> {
        self.submitted.lock().unwrap().iter().map(|update| update.task_id.clone()).collect()
    }

    pub(crate) fn communicator(&self) -> JobCommunicator {
        let session = session("NA");
        let settings = Settings::new("ward-7", "site-1", "server");
        let peer = site_context("site-1", Some("job-1"));
        JobCommunicator::new(self.site.clone(), settings, session, "job-1", peer, self.cancel.clone())
            .unwrap()
    }

    pub(crate) fn task_loop(&self, job: Job) -> TaskLoop {
        TaskLoop::new(self.communicator(), job.bench(), Pace::default(), self.cancel.clone())
    }
}

pub(crate) fn session(ssid: &str) -> Session {
    let token = Secret::from("940d0ce0-f5ed-4170-8f4e-5613763b9df7");
    let token = Token { token, signature: Secret::from("NA"), ssid: ssid.into() };
    Session::unproven("site-1", token).unwrap()
}

pub(crate) fn task(id: &str) -> TaskReply {
    TaskReply::Task(Box::new(assignment("train", id)))
}

pub(crate) fn aux(code: &str) -> Result<Reply, HandlerError> {
    reply(AuxReply::new(code, server_context("ward-7", Some("job-1"))).to_parts().unwrap())
}

pub(crate) fn reply(parts: Parts) -> Result<Reply, HandlerError> {
    let mut reply = Reply::ok(parts.payload);
    reply.headers = parts.headers;
    Ok(reply)
}

pub(crate) fn refusal(code: ReturnCode) -> Result<Reply, HandlerError> {
    Err(HandlerError::new(code, "not now"))
}
