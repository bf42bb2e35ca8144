//! Signs of life, and the jobs that the server no longer runs.

use locule_component::Event;
use locule_protocol::{Heartbeat, HeartbeatReply};

use crate::communicator::{Communicator, SayError};
use crate::conversation::request;
use crate::redact::redact;

/// Knows a site's jobs.
pub trait JobKeeper: Send + Sync {
    /// Ids of the jobs that the site holds, those included whose outcome is not acknowledged yet.
    fn job_ids(&self) -> Vec<String>;

    /// Ends a job that the server no longer runs. A job that is finishing by itself may go on.
    fn abort(&self, job_id: &str);
}

impl Communicator {
    /// One sign of life; the ids of jobs that the server wants aborted.
    ///
    /// # Errors
    /// [`SayError`] if the server did not answer, or does not know us.
    pub async fn heartbeat(&self, job_ids: Vec<String>) -> Result<Vec<String>, SayError> {
        let heartbeat =
            Heartbeat { project_name: self.settings.project_name.clone(), job_ids, peer: self.peer() };
        let (channel, topic) = (Heartbeat::CHANNEL, Heartbeat::TOPIC);
        let ask = request(channel, topic, heartbeat.to_parts()?, self.settings.maintenance_timeout);
        let reply = self.conversation.send(ask).await?;
        Ok(HeartbeatReply::from_parts(&reply.headers, &reply.payload)?.abort_jobs)
    }

    /// Sends signs of life until it is cancelled, and aborts what the server no longer runs.
    ///
    /// In a simulation it ends at the first answer that is not `ok`.
    pub async fn heartbeat_loop(&self, jobs: &dyn JobKeeper) {
        loop {
            self.fire(&Event::BeforeClientHeartbeat);
            let answer = tokio::select! {
                answer = self.heartbeat(jobs.job_ids()) => answer,
                () = self.cancel.cancelled() => return,
            };
            let wait = match answer {
                Ok(_) if self.settings.simulate => self.settings.heartbeat_interval,
                Ok(aborted) => {
                    for job in &aborted {
                        tracing::info!(job = redact(job), "server no longer runs this job");
                        jobs.abort(job);
                    }
                    self.settings.heartbeat_interval
                }
                Err(_) if self.settings.simulate => return,
                Err(error) => {
                    tracing::warn!(reason = redact(&error.to_string()), "heartbeat failed; trying again");
                    self.settings.heartbeat_retry
                }
            };
            self.fire(&Event::AfterClientHeartbeat);
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.cancel.cancelled() => return,
            }
        }
    }
}
