//! A job's half of the conversation: pull a task, submit its result.

use std::time::{Duration, Instant};

use locule_cell::{Cell, Request, RequestError};
use locule_fobs::{PeerContext, Shareable};
use locule_identity::Session;
use locule_message::{Fqcn, FqcnError, ReturnCode};
use locule_protocol::{
    Assignment, AuxReply, AuxRequest, DecodeError, EncodeError, GetTask, SubmitUpdate, TaskReply, aux_topic,
    prop, to_props,
};
use tokio_util::sync::CancellationToken;

use crate::conversation::{Conversation, request};
use crate::redact::redact;
use crate::settings::Settings;

/// How long the answer to a question of the job's housekeeping may take.
const HOUSEKEEPING: Duration = Duration::from_secs(5);

/// Speaks for one job of a site, with the session that the site was granted.
#[derive(Clone, Debug)]
pub struct JobCommunicator {
    conversation: Conversation,
    settings: Settings,
    session: Session,
    peer: PeerContext,
    cancel: CancellationToken,
}

/// What a pull brought.
#[derive(Clone, Debug)]
#[non_exhaustive]
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
        Ok(Self { conversation, settings, session, peer, cancel })
    }

    /// Waits until the job at the server is ready, asking every half second for at most `limit`.
    ///
    /// # Errors
    /// [`SyncError`]; the job cannot begin.
    pub async fn sync(&self, limit: Duration) -> Result<(), SyncError> {
        let asking = async {
            loop {
                match self.aux(&self.about(aux_topic::SYNC_RUNNER)).await {
                    Ok(reply) if reply.is_ok() => return,
                    Ok(reply) => tracing::debug!(code = redact(&reply.code), "job not ready"),
                    Err(error) => tracing::debug!(%error, "job not ready"),
                }
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        };
        tokio::select! {
            () = asking => Ok(()),
            () = tokio::time::sleep(limit) => Err(SyncError::TooLate(limit)),
            () = self.cancel.cancelled() => Err(SyncError::Cancelled),
        }
    }

    /// Asks for the next task.
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
        let request =
            request(GetTask::CHANNEL, GetTask::TOPIC, get.to_parts()?, self.settings.communication_timeout);
        let reply = tokio::select! {
            reply = self.conversation.send(request.optional()) => reply,
            () = self.cancel.cancelled() => return Err(PullError::Cancelled),
        };
        let reply = match reply {
            Ok(reply) => reply,
            Err(error) if error.code() == ReturnCode::AuthenticationError => {
                tracing::warn!(reason = redact(&error.to_string()), "server does not accept our token");
                tokio::select! {
                    () = tokio::time::sleep(self.settings.auth_error_pause) => {}
                    () = self.cancel.cancelled() => {}
                }
                return Err(PullError::Authentication);
            }
            Err(error) => return Err(PullError::Request(error)),
        };
        let bytes = reply.payload.bytes.len();
        match TaskReply::from_parts(&reply.headers, &reply.payload)? {
            TaskReply::Task(task) => {
                let elapsed_ms = millis(started.elapsed());
                tracing::info!(task = redact(&task.name), bytes, elapsed_ms, "task pulled");
                Ok(Pulled::Task(task))
            }
            TaskReply::TryAgain { wait, .. } => Ok(Pulled::TryAgain { wait }),
            TaskReply::EndRun { .. } => Ok(Pulled::EndRun),
        }
    }

    /// Whether the server still wants the result of this task.
    ///
    /// # Errors
    /// [`RequestError`] if the server could not be asked.
    pub async fn is_wanted(&self, task_id: &str) -> Result<bool, RequestError> {
        let reply = self.aux(&AuxRequest::task_check(task_id, to_props(&self.peer))).await?;
        Ok(reply.code != "TASK_UNKNOWN")
    }

    /// Hands in the result of `task`, which was pulled in the session `ssid`.
    ///
    /// # Errors
    /// [`SubmitError::InvalidSession`] if that is not the session of now: the result belongs to another
    /// run of the server. The others say whether another try may help.
    pub async fn submit_update(
        &self,
        task: &Assignment,
        ssid: &str,
        result: Shareable,
    ) -> Result<(), SubmitError> {
        if ssid != self.session.ssid() {
            tracing::warn!(task = redact(&task.name), "result belongs to another session");
            return Err(SubmitError::InvalidSession);
        }
        let started = Instant::now();
        let aborted = result.return_code() == "TASK_ABORTED";
        let submit = SubmitUpdate {
            project_name: self.settings.project_name.clone(),
            task_name: task.name.clone(),
            task_id: task.id.clone(),
            cookies: task.cookies.clone(),
            peer: self.peer.clone(),
            result,
        };
        let parts = submit.to_parts()?;
        let bytes = parts.payload.bytes.len();
        let mut request =
            request(SubmitUpdate::CHANNEL, SubmitUpdate::TOPIC, parts, self.settings.communication_timeout);
        request.optional = aborted;
        tokio::select! {
            reply = self.conversation.send(request) => reply?,
            () = self.cancel.cancelled() => return Err(SubmitError::Cancelled),
        };
        let elapsed_ms = millis(started.elapsed());
        tracing::info!(task = redact(&task.name), bytes, elapsed_ms, "result submitted");
        Ok(())
    }

    /// A sign of life of this job while a task takes long.
    ///
    /// # Errors
    /// [`RequestError`] if it could not be sent.
    pub async fn job_heartbeat(&self) -> Result<(), RequestError> {
        let heartbeat = aux_request(&self.about(aux_topic::JOB_HEARTBEAT))?;
        self.conversation.cell.notify(&self.conversation.with, heartbeat).await
    }

    /// The session that the job works in.
    #[must_use]
    pub fn session(&self) -> &Session {
        &self.session
    }

    fn about(&self, topic: &str) -> AuxRequest {
        AuxRequest::new(topic, to_props(&self.peer))
    }

    async fn aux(&self, aux: &AuxRequest) -> Result<AuxReply, RequestError> {
        let reply = self.conversation.send(aux_request(aux)?).await?;
        AuxReply::from_parts(&reply.headers, &reply.payload).map_err(|error| not_understood(&error))
    }
}

fn aux_request(aux: &AuxRequest) -> Result<Request, RequestError> {
    let parts = aux.to_parts().map_err(|error| not_understood(&error))?;
    Ok(request(AuxRequest::CHANNEL, &aux.topic, parts, HOUSEKEEPING))
}

fn not_understood(error: &dyn std::error::Error) -> RequestError {
    RequestError::Refused { code: ReturnCode::InvalidRequest, reason: error.to_string() }
}

/// Why the job at the server did not become ready.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SyncError {
    /// It did not answer in time.
    #[error("job at the server was not ready within {} s", .0.as_secs())]
    TooLate(Duration),
    /// The job was stopped here.
    #[error("job was stopped")]
    Cancelled,
}

/// Why a pull brought nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PullError {
    /// The server does not accept our token.
    #[error("server does not accept our token")]
    Authentication,
    /// The server could not be asked, or refused.
    #[error("server did not answer the pull")]
    Request(#[from] RequestError),
    /// The answer made no sense.
    #[error("task is not understood")]
    Answer(#[from] DecodeError),
    /// The question cannot be put on the wire.
    #[error("pull cannot be encoded")]
    Encode(#[from] EncodeError),
    /// The job was stopped here.
    #[error("job was stopped")]
    Cancelled,
}

/// Why a result was not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// The task was pulled in another session.
    #[error("result belongs to another session")]
    InvalidSession,
    /// The server could not be reached, or refused.
    #[error("server did not take the result")]
    Request(#[from] RequestError),
    /// The result cannot be put on the wire.
    #[error("result cannot be encoded")]
    Encode(#[from] EncodeError),
    /// The job was stopped here.
    #[error("job was stopped")]
    Cancelled,
}

fn millis(elapsed: Duration) -> u64 {
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}
