//! A job's half of the conversation: pull a task, submit its result.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use locule_cell::{Cell, Request, RequestError};
use locule_component::{Metric, RunContext, TaskFilter};
use locule_download::{FetchError, FetchLimits, fetch};
use locule_fobs::{Class, DataKind, Dxo, Map, PeerContext, Shareable, Value};
use locule_identity::Session;
use locule_message::{Fqcn, FqcnError, ReturnCode};
use locule_protocol::{
    Assignment, AuxReply, AuxRequest, DecodeError, EncodeError, GetTask, SubmitUpdate, TaskReply, aux_topic,
    prop, to_props,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::conversation::{Conversation, SayError, request};
use crate::patience::Patience;
use crate::redact::{redact, redacted};
use crate::settings::Settings;
use crate::submission::{StateProcessors, Submission};

/// Pause before the job at the server is asked again whether it is ready.
const SYNC_INTERVAL: Duration = Duration::from_millis(500);

/// How long the answer to that may take.
const SYNC_TIMEOUT: Duration = Duration::from_secs(2);

/// From one look to the next whether the job at the server is still the one that was asked.
const INSTANCE_INTERVAL: Duration = Duration::from_secs(5);

/// How long the answer to another question of the job's housekeeping may take.
const HOUSEKEEPING: Duration = Duration::from_secs(5);

/// Speaks for one job of a site, with the session that the site was granted. Clones share the session.
#[derive(Clone, Debug)]
pub struct JobCommunicator {
    conversation: Conversation,
    settings: Settings,
    session: Arc<RwLock<Session>>,
    job_id: String,
    peer: PeerContext,
    processors: Arc<StateProcessors>,
    /// Which start of the job at the server answered last, if it says so.
    instance: Arc<Mutex<Option<String>>>,
    patience: Arc<Patience>,
    cancel: CancellationToken,
}

/// What a pull brought.
#[derive(Clone, Debug)]
pub enum Pulled {
    /// A task to do.
    Task(Box<Assignment>),
    /// Nothing yet; ask again after this long.
    TryAgain {
        /// Wait before the next pull.
        wait: Duration,
    },
    /// The run is over.
    EndRun,
}

impl JobCommunicator {
    /// Speaks over `cell`, the job's own, to the job `job_id` at the server.
    ///
    /// `peer` is what the server may know of the job's context at this site.
    ///
    /// # Errors
    /// [`FqcnError`] if `job_id` cannot be part of a cell's name.
    pub fn new(
        cell: Cell,
        settings: Settings,
        session: Session,
        job_id: &str,
        mut peer: PeerContext,
        cancel: CancellationToken,
    ) -> Result<Self, FqcnError> {
        let conversation = Conversation::new(cell, Fqcn::server().child(job_id)?);
        peer.set_public(prop::RUN_NUM, job_id);
        Ok(Self {
            conversation,
            settings,
            session: Arc::new(RwLock::new(session)),
            job_id: job_id.to_owned(),
            peer,
            processors: Arc::default(),
            instance: Arc::default(),
            patience: Arc::default(),
            cancel,
        })
    }

    /// Passes every result through `processors`, in their order, before it is submitted: the site's last word
    /// on what leaves it. They see the properties of `run`.
    #[must_use]
    pub fn with_state_processors(mut self, run: RunContext, processors: Vec<Box<dyn TaskFilter>>) -> Self {
        self.processors = Arc::new(StateProcessors::new(run, processors));
        self
    }

    /// The session that the job works in.
    #[must_use]
    pub fn session(&self) -> Session {
        self.session.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Works in another session from now on: the site has registered anew. The stamp of the job's cell must
    /// be told as well.
    pub fn renew(&self, session: Session) {
        *self.session.write().unwrap_or_else(PoisonError::into_inner) = session;
    }

    /// Waits until the job at the server is ready, asking every half second for at most `limit`, in which the time does
    /// not count that the server itself is away.
    ///
    /// # Errors
    /// [`SyncError`]; the job cannot begin.
    pub async fn sync(&self, limit: Duration) -> Result<(), SyncError> {
        let question = self.about(aux_topic::SYNC_RUNNER);
        let mut deadline = Instant::now() + limit;
        loop {
            let asked = tokio::select! {
                asked = self.aux(&question, SYNC_TIMEOUT) => asked,
                () = self.cancel.cancelled() => return Err(SyncError::Cancelled),
            };
            match asked {
                Ok(reply) if reply.is_ok() => return Ok(()),
                Ok(reply) => tracing::debug!(code = redact(&reply.code), "job not ready"),
                Err(error) => {
                    tracing::debug!(%error, "job not ready");
                    // A cell below the server says that there is no way to it.
                    if matches!(&error, SayError::Request(RequestError::Returned { by, .. }) if *by != Fqcn::server())
                    {
                        deadline = Instant::now() + limit;
                    }
                }
            }
            let pause = tokio::time::sleep_until(deadline.min(Instant::now() + SYNC_INTERVAL));
            tokio::select! {
                () = pause => {}
                () = self.cancel.cancelled() => return Err(SyncError::Cancelled),
            }
            if deadline <= Instant::now() {
                return Err(SyncError::TooLate(limit));
            }
        }
    }

    /// Waits until there is a task for this site, or the run has ended, for as long as the server lets it wait; whether
    /// that is so. A server that cannot say is taken to have one.
    ///
    /// # Errors
    /// [`SayError`] if the server could not be asked, or this side was cancelled.
    pub async fn await_task(&self) -> Result<bool, SayError> {
        let request = self.about(aux_topic::AWAIT_TASK);
        tokio::select! {
            reply = self.aux(&request, self.settings.communication_timeout) => {
                Ok(reply?.code != aux_topic::NO_TASK_YET)
            }
            () = self.cancel.cancelled() => Err(RequestError::Closed.into()),
        }
    }

    /// Asks for the next task. `last_task_id` is the one done last.
    ///
    /// If the server does not accept the token, the error comes after a pause (`auth_error_pause`), so that
    /// a loop around this does not hammer the server.
    ///
    /// # Errors
    /// [`PullError`]; all but [`PullError::Cancelled`] may be tried again.
    pub async fn pull_task(&self, last_task_id: Option<&str>) -> Result<Pulled, PullError> {
        let started = Instant::now();
        let get = GetTask {
            project_name: self.settings.project_name.clone(),
            peer: self.peer.clone(),
            last_task_id: last_task_id.map(str::to_owned),
        };
        let timeout = self.wait(0);
        let request = request(GetTask::CHANNEL, GetTask::TOPIC, get.to_parts()?, timeout).optional();
        let reply = tokio::select! {
            reply = self.conversation.send(request) => reply,
            () = self.until_replaced() => return Err(PullError::Replaced),
            () = self.cancel.cancelled() => return Err(PullError::Cancelled),
        };
        let reply = match reply {
            Ok(reply) => reply,
            Err(error) if error.code() == ReturnCode::AuthenticationError => {
                tracing::warn!(error = redacted(&error), "server does not accept our token");
                tokio::select! {
                    () = tokio::time::sleep(self.settings.auth_error_pause) => {}
                    () = self.cancel.cancelled() => {}
                }
                return Err(PullError::Authentication);
            }
            Err(error) => {
                self.note_loss(&error);
                return Err(PullError::Request(error));
            }
        };
        self.patience.answered(started.elapsed(), timeout);
        let bytes = reply.payload.body.len();
        let pulled = TaskReply::from_parts(&reply.headers, &reply.payload)?;
        let elapsed_ms = millis(started.elapsed());
        match pulled {
            TaskReply::Task(mut task) => {
                let cell = &self.conversation.cell;
                let (holder, limits) = (Fqcn::server(), FetchLimits::default());
                let fetch = fetch(cell, &mut task.data, &holder, &limits);
                let fetched = tokio::select! {
                    fetched = fetch => fetched?,
                    () = self.cancel.cancelled() => return Err(PullError::Cancelled),
                };
                let (bytes, elapsed_ms) = (bytes as u64 + fetched, millis(started.elapsed()));
                tracing::debug!(task = redact(&task.name), bytes, elapsed_ms, "task pulled");
                Ok(Pulled::Task(task))
            }
            TaskReply::TryAgain { wait, .. } => {
                tracing::debug!(bytes, elapsed_ms, "no task yet");
                Ok(Pulled::TryAgain { wait })
            }
            TaskReply::EndRun { .. } => {
                tracing::debug!(bytes, elapsed_ms, "run is over");
                Ok(Pulled::EndRun)
            }
        }
    }

    /// Whether the server still wants the result of this task.
    ///
    /// # Errors
    /// [`SayError`] if the server could not be asked, or is not ready to say; ask again.
    pub async fn is_wanted(&self, task_id: &str) -> Result<bool, SayError> {
        let reply = self.aux(&AuxRequest::task_check(task_id, to_props(&self.peer)), HOUSEKEEPING).await?;
        match reply.code.as_str() {
            "TASK_UNKNOWN" => Ok(false),
            "SERVER_NOT_READY" | "COMMUNICATION_ERROR" => {
                Err(RequestError::Refused { code: ReturnCode::ServiceUnavailable, reason: reply.code }.into())
            }
            _ => Ok(true),
        }
    }

    /// Makes the result of `task` ready to be submitted: through the state processors and onto the wire's
    /// form, on a blocking thread. A result that a processor stops becomes the return code that says so.
    ///
    /// # Errors
    /// [`SubmitError::Encode`] if the result holds what cannot be sent; [`SubmitError::Cancelled`].
    pub async fn prepare(&self, task: &Assignment, result: Shareable) -> Result<Submission, SubmitError> {
        let update = SubmitUpdate {
            project_name: self.settings.project_name.clone(),
            task_name: task.name.clone(),
            task_id: task.id.clone(),
            cookies: task.cookies.clone(),
            peer: self.peer.clone(),
            result,
        };
        let (processors, site) = (Arc::clone(&self.processors), self.settings.site_name.clone());
        let job_id = self.job_id.clone();
        let work = tokio::task::spawn_blocking(move || processors.prepare(update, &site, &job_id));
        tokio::select! {
            submission = work => Ok(submission.map_err(|_| SubmitError::Cancelled)??),
            () = self.cancel.cancelled() => Err(SubmitError::Cancelled),
        }
    }

    /// Hands in a result whose task was pulled in the session `ssid`. May be tried again with the same
    /// submission.
    ///
    /// # Errors
    /// [`SubmitError::InvalidSession`] if that is not the session of now: the result belongs to another
    /// run of the server. The others say whether another try may help.
    pub async fn submit_update(&self, submission: &Submission, ssid: &str) -> Result<(), SubmitError> {
        let task = redact(&submission.task);
        if ssid != self.session().ssid() {
            tracing::warn!(task, "result belongs to another session");
            return Err(SubmitError::InvalidSession);
        }
        let started = Instant::now();
        let bytes = submission.len();
        let (channel, topic) = (SubmitUpdate::CHANNEL, SubmitUpdate::TOPIC);
        let timeout = self.wait(bytes);
        let mut request = request(channel, topic, submission.parts.clone(), timeout);
        request.optional = submission.aborted;
        tokio::select! {
            reply = self.conversation.send(request) => reply.inspect_err(|error| self.note_loss(error))?,
            () = self.until_replaced() => return Err(SubmitError::Replaced),
            () = self.cancel.cancelled() => return Err(SubmitError::Cancelled),
        };
        self.patience.answered(started.elapsed(), timeout);
        tracing::debug!(task, bytes, elapsed_ms = millis(started.elapsed()), "result submitted");
        Ok(())
    }

    /// A sign of life of this job while a task takes long.
    ///
    /// # Errors
    /// [`SayError`] if it could not be sent.
    pub async fn job_heartbeat(&self) -> Result<(), SayError> {
        let heartbeat = aux_request(&self.about(aux_topic::JOB_HEARTBEAT), HOUSEKEEPING)?;
        Ok(self.conversation.cell.notify(&self.conversation.with, heartbeat).await?)
    }

    /// Tells the job at the server what was measured here, as nvflare's sites do, and waits for its word that it has
    /// it: whoever tells one metric after the other has them there in this order. While the server does not answer it
    /// is told again, under the same id, so that it counts once.
    ///
    /// # Errors
    /// [`SayError`] if the server does not take it, or the job was stopped here.
    ///
    /// # Source
    /// nvflare 2.9.0, `nvflare.widgets.fed_event` and `nvflare.apis.analytix`.
    pub async fn tell_metric(&self, metric: &Metric) -> Result<(), SayError> {
        let event = self.event_of(metric);
        loop {
            match self.aux(&event, HOUSEKEEPING).await {
                Err(SayError::Request(error)) if error.is_retryable() => {
                    tracing::debug!(error = redacted(&error), "metric not sent; trying again");
                }
                told => return told.map(drop),
            }
            tokio::select! {
                () = tokio::time::sleep(SYNC_INTERVAL) => {}
                () = self.cancel.cancelled() => return Err(RequestError::Closed.into()),
            }
        }
    }

    fn event_of(&self, metric: &Metric) -> AuxRequest {
        let class = |name: &str, member: &str| match Class::named(name) {
            Some(class) => Value::Enum { class, member: member.to_owned() },
            None => Value::from(member),
        };
        let mut data = Map::from_iter([("track_key", Value::from(metric.key.as_str()))]);
        data.insert("track_value", metric.value.clone());
        if let Some(step) = metric.step {
            data.insert("global_step", step);
            data.insert("analytics_kwargs", Map::from_iter([("global_step", step)]));
        }
        let mut dxo = Dxo::new(DataKind::Analytic, data);
        dxo.meta
            .insert("analytics_data_type", class("nvflare.apis.analytix.AnalyticsDataType", &metric.kind));
        let writer = metric.writer.as_deref().unwrap_or("TORCH_TB");
        dxo.meta.insert("tracker_key", class("nvflare.apis.analytix.LogWriterName", writer));
        let Shareable { headers, fields } = Shareable::with_dxo(dxo);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut event = AuxRequest { headers, fields, ..self.about(aux_topic::FED_EVENT) };
        event.headers.insert("_event_type", "fed.analytix_log_stats");
        event.headers.insert("_origin", self.settings.site_name.as_str());
        event.headers.insert("_timestamp", now.as_secs_f64());
        event.headers.insert("_event_id", Uuid::new_v4().simple().to_string());
        event.headers.insert("_direction", "out");
        event
    }

    /// Ends when the job at the server is another process than the one that answered last: what that one was asked is
    /// lost, and need not be waited for. Never with a server that does not say which it is.
    async fn until_replaced(&self) {
        let Some(before) = self.instance().clone() else { return std::future::pending().await };
        loop {
            tokio::time::sleep(INSTANCE_INTERVAL).await;
            // Whoever does not answer says nothing.
            let _ = self.aux(&self.about(aux_topic::JOB_HEARTBEAT), HOUSEKEEPING).await;
            if self.instance().as_ref() != Some(&before) {
                tracing::info!("the job at the server was started again");
                return;
            }
        }
    }

    /// How long to wait for the answer to a request of so many bytes. Only a server whose job says which start of it this
    /// is may be asked again at once: with any other, a result may count twice.
    fn wait(&self, bytes: usize) -> Duration {
        let may_ask_again = self.instance().is_some();
        self.patience.wait(bytes, self.settings.communication_timeout, may_ask_again)
    }

    fn instance(&self) -> MutexGuard<'_, Option<String>> {
        self.instance.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_loss(&self, error: &RequestError) {
        if matches!(error, RequestError::Timeout) {
            self.patience.lost();
        }
    }

    fn about(&self, topic: &str) -> AuxRequest {
        AuxRequest::new(topic, to_props(&self.peer))
    }

    async fn aux(&self, aux: &AuxRequest, timeout: Duration) -> Result<AuxReply, SayError> {
        let reply = self.conversation.send(aux_request(aux, timeout)?.optional()).await?;
        let reply = AuxReply::from_parts(&reply.headers, &reply.payload)?;
        if let Some(instance) = reply.peer.str(prop::INSTANCE) {
            *self.instance() = Some(instance.to_owned());
        }
        Ok(reply)
    }
}

fn aux_request(aux: &AuxRequest, timeout: Duration) -> Result<Request, EncodeError> {
    Ok(request(AuxRequest::CHANNEL, &aux.topic, aux.to_parts()?, timeout))
}

/// Why the job at the server did not become ready.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SyncError {
    /// It did not answer in time.
    #[error("job at the server was not ready within {} s", .0.as_secs_f64())]
    TooLate(Duration),
    /// The job was stopped here.
    #[error("job was stopped")]
    Cancelled,
}

/// Why a pull brought nothing. The text is fit for a log, as that of [`SayError`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PullError {
    /// The server does not accept our token.
    #[error("server does not accept our token")]
    Authentication,
    /// The server could not be asked, or refused.
    #[error("server did not answer the pull: {}", redacted(.0))]
    Request(RequestError),
    /// The answer made no sense.
    #[error("task is not understood")]
    Answer(#[from] DecodeError),
    /// The task's arrays could not be fetched.
    #[error("arrays of the task cannot be fetched")]
    Fetch(#[from] FetchError),
    /// The job at the server was started again, and knows nothing of the question.
    #[error("the job at the server was started again")]
    Replaced,
    /// The question cannot be put on the wire.
    #[error("pull cannot be encoded")]
    Encode(#[from] EncodeError),
    /// The job was stopped here.
    #[error("job was stopped")]
    Cancelled,
}

/// Why a result was not taken. The text is fit for a log, as that of [`SayError`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// The task was pulled in another session.
    #[error("result belongs to another session")]
    InvalidSession,
    /// The server could not be reached, or refused.
    #[error("server did not take the result: {}", redacted(.0))]
    Request(RequestError),
    /// The job at the server was started again, and may not have the result.
    #[error("the job at the server was started again")]
    Replaced,
    /// The result cannot be put on the wire.
    #[error("result cannot be encoded")]
    Encode(#[from] EncodeError),
    /// The job was stopped here.
    #[error("job was stopped")]
    Cancelled,
}

impl From<RequestError> for SubmitError {
    fn from(error: RequestError) -> Self {
        Self::Request(error)
    }
}

fn millis(elapsed: Duration) -> u64 {
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}
