//! What a job's executors measured, on its way to the server.

use std::time::Duration;

use locule_communicator::JobCommunicator;
use locule_component::Metric;
use tokio::sync::{mpsc, watch};
use tokio_util::task::AbortOnDropHandle;

/// Metrics that may wait.
const WAITING: usize = 10_000;

/// How long a result waits for the metrics of its task.
const BEFORE_RESULT: Duration = Duration::from_secs(5);

/// How long the end of a run waits for the last ones.
const BEFORE_END: Duration = Duration::from_secs(15);

/// Tells the server metrics one after the other, beside the work on tasks.
#[derive(Debug)]
pub(crate) struct Teller {
    queue: mpsc::Sender<Metric>,
    /// How many were not told yet.
    left: watch::Sender<usize>,
    _telling: AbortOnDropHandle<()>,
}

impl Teller {
    pub(crate) fn start(communicator: JobCommunicator) -> Self {
        let (queue, mut waiting) = mpsc::channel::<Metric>(WAITING);
        let left = watch::Sender::new(0);
        let count = left.clone();
        let telling = tokio::spawn(async move {
            while let Some(metric) = waiting.recv().await {
                if let Err(error) = communicator.tell_metric(&metric).await {
                    tracing::debug!(%error, "metric not sent");
                }
                count.send_modify(|left| *left -= 1);
            }
        });
        Self { queue, left, _telling: AbortOnDropHandle::new(telling) }
    }

    /// Has the metrics of a task told, and waits a little for it: they are to be there before its result.
    pub(crate) async fn tell(&self, metrics: Vec<Metric>) {
        let mut lost = 0_u64;
        for metric in metrics {
            self.left.send_modify(|left| *left += 1);
            if self.queue.try_send(metric).is_err() {
                self.left.send_modify(|left| *left -= 1);
                lost += 1;
            }
        }
        if lost > 0 {
            tracing::warn!(lost, "more metrics wait for the server than can be kept");
        }
        self.told(BEFORE_RESULT).await;
    }

    /// Waits for the last ones; what is not told by then is lost.
    pub(crate) async fn finish(self) {
        if !self.told(BEFORE_END).await {
            tracing::warn!(lost = *self.left.borrow(), "the run ended before the server had all metrics");
        }
    }

    async fn told(&self, limit: Duration) -> bool {
        let mut left = self.left.subscribe();
        let told = left.wait_for(|left| *left == 0);
        tokio::time::timeout(limit, told).await.is_ok()
    }
}
