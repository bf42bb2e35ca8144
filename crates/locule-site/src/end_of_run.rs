//! The end of a run as the server announces it: what is being worked on may finish, idling stops.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use locule_component::{Event, EventCx, ObserveError, Observer};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How long the next pull may take to hear of the end by itself, which it does where the server still answers.
const PULL: Duration = Duration::from_secs(3);

/// Knows whether the run is over at the server, and whether this side is at work.
#[derive(Clone, Debug)]
pub(crate) struct EndOfRun {
    stop: CancellationToken,
    over: Arc<watch::Sender<bool>>,
    busy: Arc<watch::Sender<bool>>,
    tasks_sent: Arc<watch::Sender<u64>>,
}

impl EndOfRun {
    /// The id of [`EndOfRun::observer`] among a job's observers.
    pub(crate) const ID: &str = "locule.site.end_of_run";

    /// Of a run that goes on; `abort` stops it at once.
    pub(crate) fn new(abort: &CancellationToken) -> Self {
        Self {
            stop: abort.child_token(),
            over: Arc::new(watch::Sender::new(false)),
            busy: Arc::new(watch::Sender::new(false)),
            tasks_sent: Arc::new(watch::Sender::new(0)),
        }
    }

    /// Cancelled when the run is to stop, whatever the reason.
    pub(crate) fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// The server says that the run is over.
    pub(crate) fn announce(&self) {
        self.over.send_replace(true);
    }

    /// Results that were sent, wanted or not.
    pub(crate) fn tasks_sent(&self) -> u64 {
        *self.tasks_sent.borrow()
    }

    /// Follows how many they are.
    pub(crate) fn follow(&self) -> watch::Receiver<u64> {
        self.tasks_sent.subscribe()
    }

    /// Stops a run that is over and idle.
    pub(crate) async fn stop_when_idle(&self) -> Infallible {
        let (mut over, mut busy) = (self.over.subscribe(), self.busy.subscribe());
        if over.wait_for(|over| *over).await.is_ok() {
            tokio::time::sleep(PULL).await;
            if busy.wait_for(|busy| !busy).await.is_ok() {
                self.stop.cancel();
            }
        }
        std::future::pending().await
    }

    /// Tells when work begins and ends.
    pub(crate) fn observer(&self) -> impl Observer + use<> {
        Work(self.clone())
    }
}

struct Work(EndOfRun);

impl Observer for Work {
    fn observe(&self, event: &Event<'_>, _cx: &EventCx<'_>) -> Result<(), ObserveError> {
        if matches!(event, Event::BeforeTaskDataFilter { .. } | Event::BeforeSendTaskResult { .. }) {
            self.0.busy.send_replace(true);
        } else if matches!(event, Event::AfterSendTaskResult { .. }) {
            self.0.tasks_sent.send_modify(|sent| *sent += 1);
            self.0.busy.send_replace(false);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use locule_component::{EventBus, RunContext};

    #[tokio::test(start_paused = true)]
    async fn work_finishes_before_the_run_stops() {
        let end = EndOfRun::new(&CancellationToken::new());
        let bus = EventBus::new(vec![(EndOfRun::ID.to_owned(), Box::new(end.observer()))]);
        let context = RunContext::new("site-1", "job-1").open();
        bus.fire(&Event::BeforeTaskDataFilter { task: "train" }, &context);
        end.announce();
        let long = Duration::from_secs(3600);
        assert!(tokio::time::timeout(long, end.stop_when_idle()).await.is_err());
        assert!(!end.stop().is_cancelled());
        bus.fire(&Event::AfterSendTaskResult { task: "train" }, &context);
        assert!(tokio::time::timeout(long, end.stop_when_idle()).await.is_err());
        assert!(end.stop().is_cancelled());
        assert_eq!(end.tasks_sent(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_that_goes_on_is_not_stopped() {
        let end = EndOfRun::new(&CancellationToken::new());
        assert!(tokio::time::timeout(Duration::from_secs(3600), end.stop_when_idle()).await.is_err());
        assert!(!end.stop().is_cancelled());
    }
}
