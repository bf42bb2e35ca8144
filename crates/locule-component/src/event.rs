//! Notices: what happens in a run, and who hears of it. A notice cannot stop anything; that is what a
//! [`Checker`](crate::Checker) and a [`Gate`](crate::Gate) are for.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Map as JsonMap, Value as Json};

use crate::{Context, panic_text};

/// Hears of events. Observers are told one after another, in the order of the configuration.
pub trait Observer: Send + Sync {
    /// Takes note of an event; may fire further ones with [`EventCx::fire`].
    ///
    /// # Errors
    /// An error, or a panic, is logged and counted; the run goes on and the next observer is told.
    fn observe(&self, event: &Event<'_>, cx: &EventCx<'_>) -> Result<(), ObserveError>;

    /// Waits until everything that it was told of is dealt with, for at most `grace`. That is for observers with
    /// threads of their own; the others are done when [`observe`](Self::observe) returns.
    fn settle(&self, grace: Duration) {
        let _ = grace;
    }
}

/// Why an observer could not take note of an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ObserveError {
    /// The observer's own reason.
    #[error("{0}")]
    Failed(String),
    /// In answer to [`Event::CheckEndRunReadiness`]: it has work left that the run should wait for. That is a
    /// request for a little time and no veto.
    #[error("not ready for the end of the run: {0}")]
    NotReady(String),
    /// An event that it fired was too deep.
    #[error(transparent)]
    TooDeep(#[from] TooDeep),
}

/// An event was fired inside an event inside an event, too many times over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("events are nested more than {} deep", EventBus::MAX_DEPTH)]
pub struct TooDeep;

/// An [`Event`] that borrows nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptEvent(Kept);

/// The type of a field of an event; of a kept one without a lifetime.
macro_rules! field {
    (text) => { String };
    (text, $a:lifetime) => { &$a str };
    (number) => { u64 };
    (number, $a:lifetime) => { u64 };
}

/// What an event lends of a field that was kept.
macro_rules! lend {
    (text, $field:expr) => {
        $field.as_str()
    };
    (number, $field:expr) => {
        *$field
    };
}

macro_rules! events {
    ($( $(#[$doc:meta])+ $variant:ident $({ $($(#[$field_doc:meta])+ $field:ident: $ty:ident),+ })? = $name:literal; )+) => {
        /// Something that happened, or is about to happen.
        ///
        /// # Source
        /// Names and moments: nvflare 2.9.0, `nvflare.apis.event_type` and `nvflare.app_common.app_event_type`.
        ///
        /// Events of nvflare that have no meaning here:
        ///
        /// | event | why |
        /// |---|---|
        /// | `_before_build_component` | a plan is reviewed as a whole, by [`Checker`](crate::Checker)s |
        /// | `_swap_in`, `_swap_out` | there is no simulator that swaps sites |
        /// | `_task_assignment_sent`, `_task_result_received`, `_post_…` of both | a relay passes messages on and knows no tasks |
        /// | `_pre_run_result_available` | there is no statistics workflow |
        /// | `_job_cancelled` | nvflare never fires it |
        /// | `_…_log_available` | logs go through `tracing`, which has subscribers of its own |
        /// | `_training_finished`, `_end_aggregation` | nvflare never fires them |
        /// | those of client-controlled, swarm and cross-site workflows | there are no such workflows |
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum Event<'a> {
            $( $(#[$doc])+ $variant $({ $($(#[$field_doc])+ $field: field!($ty, 'a)),+ })?, )+
            /// An event of the application's own, under its wire name.
            Named(&'a str),
        }

        impl<'a> Event<'a> {
            /// The name that the event has on the wire and in logs.
            pub fn name(&self) -> &'a str {
                match self {
                    $( Event::$variant $({ $($field: _),+ })? => $name, )+
                    Event::Named(name) => name,
                }
            }

            /// The wire names of all events but the application's own.
            pub const NAMES: &'static [&'static str] = &[$($name),+];

            /// What the event says besides its name, for records.
            pub fn details(&self) -> JsonMap<String, Json> {
                match self {
                    $( Event::$variant $({ $($field),+ })? => {
                        JsonMap::from_iter([$($( (stringify!($field).to_owned(), Json::from(*$field)) ),+)?])
                    } )+
                    Event::Named(_) => JsonMap::new(),
                }
            }

            /// The same event, for whoever hears of it later.
            pub fn keep(&self) -> KeptEvent {
                KeptEvent(match self {
                    $( Event::$variant $({ $($field),+ })? => Kept::$variant $({ $($field: (*$field).into()),+ })?, )+
                    Event::Named(name) => Kept::Named((*name).to_owned()),
                })
            }
        }

        #[derive(Debug, Clone, PartialEq, Eq)]
        enum Kept {
            $( $variant $({ $($field: field!($ty)),+ })?, )+
            Named(String),
        }

        impl KeptEvent {
            /// The event, as observers are told of it.
            pub fn event(&self) -> Event<'_> {
                match &self.0 {
                    $( Kept::$variant $({ $($field),+ })? => Event::$variant $({ $($field: lend!($ty, $field)),+ })?, )+
                    Kept::Named(name) => Event::Named(name),
                }
            }
        }
    };
}

events! {
    /// Before anything else; the components of the site or server are built.
    SystemBootstrap = "_system_bootstrap";
    /// The site is registered, the server listens.
    SystemStart = "_system_start";
    /// The last thing.
    SystemEnd = "_system_end";
    /// The site is about to register.
    BeforeClientRegister = "_before_client_register";
    /// The site has its session.
    AfterClientRegister = "_after_client_register";
    /// A registration arrived at the server.
    ClientRegisterReceived {
        /// The name it claims.
        site: text
    } = "_client_register_received";
    /// The server granted a registration.
    ClientRegisterProcessed {
        /// The registered site.
        site: text
    } = "_client_register_processed";
    /// The site is about to send a heartbeat.
    BeforeClientHeartbeat = "_before_client_heartbeat";
    /// The server answered a heartbeat.
    AfterClientHeartbeat = "_after_client_heartbeat";
    /// A heartbeat arrived at the server.
    ClientHeartbeatReceived {
        /// Whose it is.
        site: text
    } = "_client_heartbeat_received";
    /// The server dealt with a heartbeat.
    ClientHeartbeatProcessed {
        /// Whose it is.
        site: text
    } = "_client_heartbeat_processed";
    /// The server is about to send a site an order.
    BeforeSendAdminCommand {
        /// To whom.
        site: text
    } = "_before_send_admin_command";
    /// A site is about to judge an order that names the console's command behind it.
    AuthorizeCommandCheck {
        /// The command: `check_resources`, `submit_job`.
        command: text
    } = "_authorize_command_check";
    /// A site said that it leaves.
    ClientQuit {
        /// Which one.
        site: text
    } = "_client_quit";
    /// A job was submitted.
    SubmitJob {
        /// The job.
        job_id: text
    } = "_submit_job";
    /// Sites are about to be asked for resources.
    BeforeCheckClientResources {
        /// The job.
        job_id: text
    } = "_before_check_client_resources";
    /// Sites have answered about resources.
    AfterCheckClientResources {
        /// The job.
        job_id: text
    } = "_after_check_client_resources";
    /// A site is about to check its resources.
    BeforeCheckResources {
        /// The job.
        job_id: text
    } = "_before_check_resource_manager";
    /// The server's part of a job is being put in place.
    DeployJobToServer {
        /// The job.
        job_id: text
    } = "_deploy_job_to_server";
    /// The sites' part of a job is being sent.
    DeployJobToClient {
        /// The job.
        job_id: text
    } = "_deploy_job_to_client";
    /// Enough sites have the job.
    JobDeployed {
        /// The job.
        job_id: text
    } = "_job_deployed";
    /// A job is about to be launched here.
    BeforeJobLaunch {
        /// The job.
        job_id: text
    } = "_before_job_launch";
    /// A job was launched here.
    AfterJobLaunch {
        /// The job.
        job_id: text
    } = "_after_job_launch";
    /// A job runs.
    JobStarted {
        /// The job.
        job_id: text
    } = "_job_started";
    /// A job is over.
    JobCompleted {
        /// The job.
        job_id: text
    } = "_job_completed";
    /// A job was aborted, or could not be started.
    JobAborted {
        /// The job.
        job_id: text
    } = "_job_aborted";
    /// A site's run has met the server's.
    AboutToStartRun = "_about_to_start_run";
    /// The run begins; its components are complete.
    StartRun = "_start_run";
    /// A workflow begins.
    StartWorkflow {
        /// Its id.
        workflow: text
    } = "_start_workflow";
    /// A workflow is over.
    EndWorkflow {
        /// Its id.
        workflow: text
    } = "_end_workflow";
    /// The site is about to ask for a task.
    BeforePullTask = "_before_pull_task";
    /// The site got an answer, a task or none.
    AfterPullTask = "_after_pull_task";
    /// The server is about to choose a task for a site.
    BeforeProcessTaskRequest {
        /// Who asks.
        site: text
    } = "_before_process_task_request";
    /// The server has chosen, maybe none.
    AfterProcessTaskRequest {
        /// Who asked.
        site: text
    } = "_after_process_task_request";
    /// Task data is about to be filtered.
    BeforeTaskDataFilter {
        /// Name of the task.
        task: text
    } = "_before_task_data_filter";
    /// Task data has been filtered.
    AfterTaskDataFilter {
        /// Name of the task.
        task: text
    } = "_after_task_data_filter";
    /// The executor is about to run.
    BeforeTaskExecution {
        /// Name of the task.
        task: text
    } = "_before_task_execution";
    /// The executor gave a result.
    AfterTaskExecution {
        /// Name of the task.
        task: text
    } = "_after_task_execution";
    /// A result is about to be filtered.
    BeforeTaskResultFilter {
        /// Name of the task.
        task: text
    } = "_before_task_result_filter";
    /// A result has been filtered.
    AfterTaskResultFilter {
        /// Name of the task.
        task: text
    } = "_after_task_result_filter";
    /// A result, maybe an error, is about to be sent.
    BeforeSendTaskResult {
        /// Name of the task.
        task: text
    } = "_before_send_task_result";
    /// A result was sent.
    AfterSendTaskResult {
        /// Name of the task.
        task: text
    } = "_after_send_task_result";
    /// The server is about to hand a result to the workflow.
    BeforeProcessSubmission {
        /// Who sent it.
        site: text,
        /// Name of the task.
        task: text
    } = "_before_process_submission";
    /// The workflow has the result.
    AfterProcessSubmission {
        /// Who sent it.
        site: text,
        /// Name of the task.
        task: text
    } = "_after_process_submission";
    /// A result arrived that nobody waits for (any more).
    BeforeProcessResultOfUnknownTask {
        /// Who sent it.
        site: text,
        /// Name of the task.
        task: text
    } = "_before_process_result_of_unknown_task";
    /// It was put away.
    AfterProcessResultOfUnknownTask {
        /// Who sent it.
        site: text,
        /// Name of the task.
        task: text
    } = "_after_process_result_of_unknown_task";
    /// A site of the job is gone.
    ClientDisconnected {
        /// Which one.
        site: text
    } = "_client_disconnected";
    /// A site of the job is back.
    ClientReconnected {
        /// Which one.
        site: text
    } = "_client_reconnected";
    /// A running task is to stop.
    AbortTask = "_abort_task";
    /// The run is about to end.
    AboutToEndRun = "_about_to_end_run";
    /// Whoever is not ready for the end says so.
    CheckEndRunReadiness = "_check_end_run_readiness";
    /// The run is over.
    EndRun = "_end_run";
    /// The run cannot go on.
    FatalSystemError {
        /// Why.
        reason: text
    } = "_fatal_system_error";
    /// The first global model is there.
    InitialModelLoaded = "_initial_model_loaded";
    /// The first round is about to begin.
    TrainingStarted = "_training_started";
    /// A round begins.
    RoundStarted {
        /// Counted from 0.
        round: number
    } = "_round_started";
    /// A round is over.
    RoundDone {
        /// Counted from 0.
        round: number
    } = "_round_done";
    /// A site is about to be given the task of a round.
    BeforeTrainTask {
        /// Which site.
        site: text
    } = "_before_train_task";
    /// A result is about to go into the aggregate.
    BeforeContributionAccept {
        /// Whose it is.
        site: text
    } = "_before_contribution_accept";
    /// A result went into the aggregate, or was refused.
    AfterContributionAccept {
        /// Whose it is.
        site: text
    } = "_after_contribution_accept";
    /// The aggregate is about to be made.
    BeforeAggregation = "_before_aggregation";
    /// The aggregate is made.
    AfterAggregation = "_after_aggregation";
    /// The model is about to be replaced by what the aggregate makes of it.
    BeforeModelUpdate = "_before_model_update";
    /// The model is the new one.
    AfterModelUpdate = "_after_model_update";
    /// The model of this round is the best so far.
    GlobalBestModelAvailable = "_global_best_model_available";
    /// The model is about to be written.
    BeforeSaveModel = "_before_save_model";
    /// The model is written.
    AfterSaveModel = "_after_save_model";
    /// What a site tracks reached the server.
    ///
    /// # Source
    /// nvflare 2.9.0, `nvflare.apis.analytix`, with the prefix of `nvflare.app_common.widgets.convert_to_fed_event`.
    MetricTracked {
        /// Whose it is.
        site: text,
        /// The key that it is tracked under.
        key: text,
        /// The step that it belongs to, in digits; empty if it belongs to none.
        step: text,
        /// What was measured, as JSON.
        value: text
    } = "fed.analytix_log_stats";
}

/// What an observer may use while it is told of an event.
#[derive(Debug, Clone, Copy)]
pub struct EventCx<'a> {
    /// Properties of the run.
    pub context: &'a Context,
    bus: &'a EventBus,
    depth: usize,
}

impl EventCx<'_> {
    /// Fires an event inside this one: all observers hear of it before the next one hears of this.
    ///
    /// # Errors
    /// [`TooDeep`] beyond [`EventBus::MAX_DEPTH`].
    pub fn fire(&self, event: &Event<'_>) -> Result<(), TooDeep> {
        if self.depth >= EventBus::MAX_DEPTH {
            return Err(TooDeep);
        }
        self.bus.tell(event, self.context, self.depth + 1);
        Ok(())
    }
}

/// Tells observers of events. Clones share observers and counters.
#[derive(Clone, Default)]
pub struct EventBus {
    observers: Arc<Vec<(String, Box<dyn Observer>)>>,
    failures: Arc<AtomicU64>,
}

impl EventBus {
    /// How many events may be fired inside one another below the first.
    pub const MAX_DEPTH: usize = 20;

    /// A bus for observers under their ids, in the order in which they are to be told.
    pub fn new(observers: Vec<(String, Box<dyn Observer>)>) -> Self {
        EventBus { observers: Arc::new(observers), failures: Arc::default() }
    }

    /// Tells every observer of an event, one after another, on this thread.
    pub fn fire(&self, event: &Event<'_>, context: &Context) {
        self.tell(event, context, 0);
    }

    /// Whether nobody would hear of an event.
    pub fn is_empty(&self) -> bool {
        self.observers.is_empty()
    }

    /// Fires [`Event::CheckEndRunReadiness`]; false when an observer answered [`ObserveError::NotReady`].
    pub fn is_ready_to_end(&self, context: &Context) -> bool {
        self.tell(&Event::CheckEndRunReadiness, context, 0)
    }

    /// Waits until every observer has dealt with what it was told of, at most `grace` for each.
    pub fn settle(&self, grace: Duration) {
        for (_, observer) in self.observers.iter() {
            observer.settle(grace);
        }
    }

    /// How many times an observer failed or panicked.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// False when the event asks who is ready, and somebody is not.
    fn tell(&self, event: &Event<'_>, context: &Context, depth: usize) -> bool {
        let cx = EventCx { context, bus: self, depth };
        let mut ready = true;
        for (id, observer) in self.observers.iter() {
            let reason = match catch_unwind(AssertUnwindSafe(|| observer.observe(event, &cx))) {
                Ok(Ok(())) => continue,
                Ok(Err(ObserveError::NotReady(reason))) if *event == Event::CheckEndRunReadiness => {
                    tracing::debug!(observer = id, reason, "observer is not ready for the end of the run");
                    ready = false;
                    continue;
                }
                Ok(Err(error)) => error.to_string(),
                Err(panic) => format!("panicked: {}", panic_text(&*panic)),
            };
            self.failures.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(observer = id, event = event.name(), error = reason, "observer failed");
        }
        ready
    }
}

impl fmt::Debug for EventBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<&str> = self.observers.iter().map(|(id, _)| id.as_str()).collect();
        f.debug_struct("EventBus").field("observers", &ids).field("failures", &self.failures()).finish()
    }
}
