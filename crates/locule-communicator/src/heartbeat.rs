//! Signs of life, and the jobs that the server no longer runs.

use locule_component::Event;
use locule_protocol::{Heartbeat, HeartbeatReply};

use crate::communicator::Communicator;
use crate::conversation::{SayError, request};

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
    /// Goes on whatever the server answers, also when it does not know the site any more; a site that wants
    /// to register anew then calls [`heartbeat`](Self::heartbeat) by itself. In a simulation jobs are not
    /// aborted, and it ends at the first answer that is not `ok`.
    pub async fn heartbeat_loop(&self, jobs: &dyn JobKeeper) {
        loop {
            self.fire(&Event::BeforeClientHeartbeat);
            let job_ids = jobs.job_ids();
            let answer = tokio::select! {
                answer = self.heartbeat(job_ids.clone()) => answer,
                () = self.cancel.cancelled() => return,
            };
            let wait = match answer {
                Ok(unwanted) => {
                    // a server can only know of jobs that it was told of
                    for job in unwanted.iter().filter(|job| !self.settings.simulate && job_ids.contains(job))
                    {
                        tracing::info!(job, "server no longer runs this job");
                        jobs.abort(job);
                    }
                    self.fire(&Event::AfterClientHeartbeat);
                    self.settings.heartbeat_interval
                }
                Err(error) if self.settings.simulate => {
                    tracing::info!(%error, "simulation is over");
                    return;
                }
                Err(error) => {
                    tracing::warn!(%error, "heartbeat failed; trying again");
                    self.settings.heartbeat_retry
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.cancel.cancelled() => return,
            }
        }
    }
}
