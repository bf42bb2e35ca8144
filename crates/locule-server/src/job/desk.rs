//! Where sites pull tasks and hand results in: the handlers of a job's cell.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use locule_cell::{Cell, HandlerError, Incoming, LinkSecurity, Reply};
use locule_component::{Event, RunContext};
use locule_download::{FetchError, FetchLimits, Gathered, gather};
use locule_event::Herald;
use locule_fobs::{Map, Shareable};
use locule_message::{Fqcn, Payload, ReturnCode, key};
use locule_protocol::{
    Assignment, AuxReply, AuxRequest, DecodeError, Dialect, GetTask, SubmitReply, SubmitUpdate, TaskReply,
    aux_topic, channel, log_stream,
};
use tokio::sync::Semaphore;

use super::board::Board;
use super::spool;
use super::standing::{Assigned, Submitted};
use super::tracking::Tracking;
use crate::admit::{not_understood, reply};
use crate::site_logs::SiteLogs;

/// How long a pull waits at the server for a task, so that a site learns of it at once.
const HOLD: Duration = Duration::from_secs(5);

/// What a site waits before it pulls again; the pull itself waits here.
const WAIT: Duration = Duration::ZERO;

/// Results that wait in files and may be in memory at a time, on their way into the log.
pub(super) const IN_MEMORY: usize = 1;

/// Header of the answer to a submission: what became of it, in a word. A site may go on whatever it is; to
/// a stock site it says nothing.
const BECAME: &str = "locule.submission";

/// Topic of the parent's word that a site takes part from now on.
pub(crate) const SITE_JOINS: &str = "locule.site_joins";

/// Sites that take part, by the name of their job's cell.
#[derive(Clone, Debug)]
pub(super) struct Participants(Arc<RwLock<BTreeMap<Fqcn, String>>>);

impl Participants {
    pub(super) fn new(sites: BTreeMap<Fqcn, String>) -> Self {
        Self(Arc::new(RwLock::new(sites)))
    }

    fn at(&self, cell: &Fqcn) -> Option<String> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(cell).cloned()
    }

    /// Their cells.
    pub(super) fn cells(&self) -> Vec<Fqcn> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    /// A site takes part, in this cell and no other.
    fn add(&self, cell: Fqcn, site: &str) {
        let mut sites = self.0.write().unwrap_or_else(PoisonError::into_inner);
        sites.retain(|_, other| other != site);
        sites.insert(cell, site.to_owned());
    }
}

/// The desk of one job.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) cell: Cell,
    pub(super) job_id: String,
    pub(super) participants: Participants,
    pub(super) board: Arc<Board>,
    pub(super) run: RunContext,
    pub(super) herald: Herald,
    pub(super) workflow: tokio::sync::watch::Receiver<String>,
    pub(super) tracking: Arc<Tracking>,
    pub(super) logs: SiteLogs,
    pub(super) run_dir: PathBuf,
    /// Turns of large results to be in memory.
    pub(super) turns: Semaphore,
}

/// Registers the desk's handlers on the job's cell.
pub(super) fn open(cell: &Cell, desk: Arc<Desk>) {
    let at = Arc::clone(&desk);
    cell.handle(GetTask::CHANNEL, GetTask::TOPIC, move |incoming| {
        let desk = Arc::clone(&at);
        async move { desk.get_task(incoming).await }
    });
    let at = Arc::clone(&desk);
    cell.handle(SubmitUpdate::CHANNEL, SubmitUpdate::TOPIC, move |incoming| {
        let desk = Arc::clone(&at);
        async move { desk.submit_update(incoming).await }
    });
    let at = Arc::clone(&desk);
    cell.handle(channel::SERVER_COMMAND, "handle_dead_job", move |incoming| {
        let desk = Arc::clone(&at);
        async move { desk.lose(&incoming).await }
    });
    let at = Arc::clone(&desk);
    cell.handle(channel::SERVER_COMMAND, SITE_JOINS, move |incoming| {
        let desk = Arc::clone(&at);
        async move { desk.admit(&incoming) }
    });
    cell.handle(AuxRequest::CHANNEL, "*", move |incoming| {
        let desk = Arc::clone(&desk);
        async move { desk.aux(incoming).await }
    });
}

impl Desk {
    async fn get_task(&self, incoming: Incoming) -> Result<Reply, HandlerError> {
        let site = &self.participant(&incoming)?;
        self.find_again(site).await;
        let get = GetTask::from_parts(&incoming.headers, &incoming.payload()).map_err(not_understood)?;
        let peer = self.run.open().peer_context();
        if get.job_id() != self.job_id {
            return reply(TaskReply::EndRun { peer }.to_parts());
        }
        self.herald.tell(&Event::BeforeProcessTaskRequest { site }).await;
        let answer = match self.board.assign(site, HOLD).await {
            Assigned::Task { id, name, mut data, round } => {
                if round.is_some() {
                    self.herald.tell(&Event::BeforeTrainTask { site }).await;
                }
                data.set_peer_context(peer);
                let cookies = self.cookies(&id, round);
                TaskReply::Task(Box::new(Assignment { name, id, data, cookies, wait: WAIT }))
            }
            Assigned::Nothing => TaskReply::TryAgain { wait: WAIT, peer },
            Assigned::EndRun => TaskReply::EndRun { peer },
        };
        self.herald.tell(&Event::AfterProcessTaskRequest { site }).await;
        reply(answer.to_parts())
    }

    /// What a site has to echo; a stock site names its task by the cookie only.
    fn cookies(&self, id: &str, round: Option<u64>) -> Map {
        let mut cookies = Map::new();
        if let Some(round) = round {
            cookies.insert("contribution_round", round);
        }
        cookies.insert("__workflow__", self.workflow.borrow().as_str());
        cookies.insert("__task_id__", id);
        cookies
    }

    /// Answers once the result is in, with all arrays that it refers to: the site may let go of them then.
    async fn submit_update(&self, incoming: Incoming) -> Result<Reply, HandlerError> {
        let site = &self.participant(&incoming)?;
        self.find_again(site).await;
        if !self.board.has_begun() {
            return Err(HandlerError::new(ReturnCode::ServiceUnavailable, "the run has not begun"));
        }
        let mut turn = None;
        if incoming.elsewhere.is_some() {
            turn = self.turns.acquire().await.ok();
        }
        let origin = incoming.origin.clone();
        let mut update = decode(incoming).await?;
        // Whatever became of it, the site may go on: a late or repeated result is no mistake of its own.
        let task = update.task_id.clone();
        let outcome = if update.job_id() != self.job_id {
            Submitted::Unknown
        } else {
            let wanted = self.board.wants(site, &task);
            let _arriving = wanted.then(|| self.board.arrival(site, &task));
            if wanted && refers(&mut update.result) {
                // nobody has to wait for this site's network
                drop(turn.take());
                let fetched = self.fetch_arrays(site, &origin, &mut update.result).await?;
                turn = self.turns.acquire().await.ok();
                if let Some(fetched) = fetched {
                    update.result = self.place(site, fetched, update.result).await?;
                }
            }
            let taken = self.board.submit(site, &task, &update.task_name, update.result).await;
            taken.map_err(|error| {
                tracing::error!(job = self.job_id, site, task, %error, "result not written down");
                HandlerError::new(ReturnCode::ServiceUnavailable, "the server cannot keep the result now")
            })?
        };
        drop(turn);
        let code = outcome.code();
        match outcome {
            Submitted::Accepted | Submitted::Kept | Submitted::Repeated => {
                tracing::debug!(job = self.job_id, site, task, code, "result handed in");
            }
            Submitted::Conflict | Submitted::Late | Submitted::Unknown => {
                tracing::warn!(job = self.job_id, site, task, code, "result refused");
                let reason = "the site handed in a result that nobody waits for";
                self.board.note_refusal(site, &update.task_name, None, code, reason);
            }
        }
        if matches!(outcome, Submitted::Unknown | Submitted::Late) {
            let task = update.task_name.as_str();
            self.herald.tell(&Event::BeforeProcessResultOfUnknownTask { site, task }).await;
            self.herald.tell(&Event::AfterProcessResultOfUnknownTask { site, task }).await;
        }
        reply(SubmitReply.to_parts().map(|mut parts| {
            parts.headers.set(BECAME, code);
            parts
        }))
    }

    /// Fetches the arrays that a result refers to. One whose arrays cannot be had at all counts as a result that
    /// failed.
    async fn fetch_arrays(
        &self,
        site: &str,
        holder: &Fqcn,
        result: &mut Shareable,
    ) -> Result<Option<Gathered>, HandlerError> {
        let spool = || spool::open(&self.run_dir);
        let gathered = gather(&self.cell, result, holder, &FetchLimits::default(), spool).await;
        match gathered {
            Ok(gathered) => Ok(Some(gathered)),
            Err(error) => {
                self.not_fetched(site, &error)?;
                *result = failed_result();
                Ok(None)
            }
        }
    }

    /// Puts what was fetched into its result.
    async fn place(
        &self,
        site: &str,
        fetched: Gathered,
        mut result: Shareable,
    ) -> Result<Shareable, HandlerError> {
        let placed = blocking(move || fetched.place(&mut result).map(|bytes| (bytes, result))).await?;
        match placed {
            Ok((bytes, result)) => {
                tracing::debug!(job = self.job_id, site, bytes, "arrays fetched");
                Ok(result)
            }
            Err(error) => self.not_fetched(site, &error).map(|()| failed_result()),
        }
    }

    /// Arrays were not fetched; the site is to try again if that may help.
    fn not_fetched(&self, site: &str, error: &FetchError) -> Result<(), HandlerError> {
        tracing::warn!(job = self.job_id, site, %error, "arrays not fetched");
        if error.is_retryable() {
            return Err(HandlerError::new(ReturnCode::CommError, error.to_string()));
        }
        Ok(())
    }

    async fn aux(self: Arc<Self>, incoming: Incoming) -> Result<Reply, HandlerError> {
        let site = &self.participant(&incoming)?;
        let peer = self.run.open().peer_context();
        let aux = match AuxRequest::from_parts(&incoming.headers, &incoming.payload()) {
            Ok(aux) => aux,
            Err(DecodeError::Field(_)) => {
                return reply(AuxReply::new("MISSING_PEER_CONTEXT", peer).to_parts());
            }
            Err(error) => return Err(not_understood(error)),
        };
        self.find_again(site).await;
        let code = match aux.topic.as_str() {
            aux_topic::TASK_CHECK if !self.board.has_begun() => "SERVER_NOT_READY",
            aux_topic::TASK_CHECK if !aux.task_id().is_some_and(|id| self.board.wants(site, id)) => {
                "TASK_UNKNOWN"
            }
            aux_topic::AWAIT_TASK if matches!(self.board.assign(site, HOLD).await, Assigned::Nothing) => {
                aux_topic::NO_TASK_YET
            }
            aux_topic::SYNC_RUNNER
            | aux_topic::AWAIT_TASK
            | aux_topic::JOB_HEARTBEAT
            | aux_topic::TASK_CHECK
            | aux_topic::END_RUN => "OK",
            log_stream::REQUEST => {
                let (desk, site) = (Arc::clone(&self), site.clone());
                blocking(move || desk.logs.take(&site, || Some(desk.run_dir.clone()), &aux)).await?
            }
            log_stream::ABORT => self.logs.abort(site, &aux),
            aux_topic::FED_EVENT => self.tracking.take(site, aux),
            _ => "TOPIC_UNKNOWN",
        };
        reply(AuxReply::new(code, peer).to_parts())
    }

    /// The parent says that a site takes no part any more.
    async fn lose(&self, incoming: &Incoming) -> Result<Reply, HandlerError> {
        from_parent(incoming)?;
        let site = incoming.headers.str("fl_client").unwrap_or_default();
        self.board.lose(site, incoming.headers.str("reason").unwrap_or("lost"));
        self.herald.tell(&Event::ClientDisconnected { site }).await;
        Ok(Reply::ok(Payload::none()))
    }

    /// The parent says that a site takes part from the next task on, or that it has moved to another cell.
    fn admit(&self, incoming: &Incoming) -> Result<Reply, HandlerError> {
        from_parent(incoming)?;
        let headers = &incoming.headers;
        let (Some(site), Some(fqcn)) = (headers.str("fl_client"), headers.str("fqcn")) else {
            return Err(HandlerError::invalid_request("it is not said who joins"));
        };
        let cell = Fqcn::parse(fqcn).and_then(|fqcn| fqcn.child(&self.job_id));
        let cell = cell.map_err(|error| HandlerError::invalid_request(error.to_string()))?;
        self.participants.add(cell, site);
        self.board.add_site(site);
        self.tracking.add_site(site);
        Ok(Reply::ok(Payload::none()))
    }

    /// The site whose job cell this comes from.
    fn participant(&self, incoming: &Incoming) -> Result<String, HandlerError> {
        let refuse = |reason: &str| HandlerError::new(ReturnCode::AuthenticationError, reason);
        if incoming.headers.str(key::SSID).is_some_and(|session| !Dialect::knows_session(session)) {
            return Err(refuse("request from unknown client ssid"));
        }
        let site = self.participants.at(&incoming.origin);
        site.ok_or_else(|| refuse("request from a site that takes no part in this job"))
    }

    /// A site shows a sign of life, perhaps the first after it was lost.
    async fn find_again(&self, site: &str) {
        if self.board.find_again(site) {
            self.herald.tell(&Event::ClientReconnected { site }).await;
        }
    }
}

async fn decode(incoming: Incoming) -> Result<SubmitUpdate, HandlerError> {
    let read = |incoming: &Incoming| {
        let payload = incoming.read().map_err(|error| HandlerError::failed(error.to_string()))?;
        SubmitUpdate::from_parts(&incoming.headers, &payload).map_err(not_understood)
    };
    if incoming.elsewhere.is_none() { read(&incoming) } else { blocking(move || read(&incoming)).await? }
}

/// Whether arrays of the result are still where it came from.
fn refers(result: &mut Shareable) -> bool {
    result.visit_array_refs(&mut |_| Err(())).is_err()
}

/// What stands for a result that cannot be had.
fn failed_result() -> Shareable {
    Shareable::with_return_code("EXECUTION_RESULT_ERROR")
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, HandlerError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| HandlerError::failed(error.to_string()))
}

fn from_parent(incoming: &Incoming) -> Result<(), HandlerError> {
    if incoming.origin == Fqcn::server() && incoming.link.security == LinkSecurity::Internal {
        return Ok(());
    }
    Err(HandlerError::new(ReturnCode::AuthenticationError, "only the parent says who takes part"))
}
