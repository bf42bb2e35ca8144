//! Notices of a job's half: told one after the other, and waited for.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use locule_component::{Context, Event, EventBus, Observer, RunContext};
use tokio::sync::Mutex;

use crate::watched::{AtWork, NOTICE_LIMIT};

/// How long after an observer said that it is not ready the observers are asked once more.
///
/// # Source
/// nvflare 2.9.0: `end_run_readiness_check_interval`, `end_run_readiness_timeout`.
const AGAIN: Duration = Duration::from_millis(500);

/// How often they are asked.
const TRIES: u32 = 10;

/// Tells the observers of a job's half from async code: on a blocking thread, one event after the other in the order
/// of the calls, and each call returns when all have heard. Clones share everything.
///
/// An observer that takes longer than [`NOTICE_LIMIT`] is reported and not waited for any more; as long as it stays
/// at its event, further ones are dropped and counted, with a warning when it is over.
#[derive(Clone)]
pub struct Herald {
    bus: EventBus,
    run: RunContext,
    at_work: AtWork,
    /// Held while observers are told, by the thread on which they are.
    turn: Arc<Mutex<()>>,
    dropped: Arc<AtomicU64>,
}

impl Herald {
    /// For the observers of a run, under their ids, in the order in which they are to be told.
    #[must_use]
    pub fn new(observers: Vec<(String, Box<dyn Observer>)>, run: RunContext) -> Self {
        let at_work = AtWork::default();
        let bus = EventBus::new(at_work.watch(observers));
        Self { bus, run, at_work, turn: Arc::default(), dropped: Arc::default() }
    }

    /// Tells of an event, in a fresh context of the run.
    pub async fn tell(&self, event: &Event<'_>) {
        if !self.bus.is_empty() {
            let event = event.keep();
            self.with(move |bus, context| bus.fire(&event.event(), context)).await;
        }
    }

    /// Fires [`Event::CheckEndRunReadiness`] until nobody says that it is not ready, or, if `patiently`, for 5
    /// seconds at most.
    pub async fn await_readiness(&self, patiently: bool) {
        for attempt in 1..=TRIES {
            let ready = self.with(|bus, context| bus.is_ready_to_end(context)).await;
            if ready.unwrap_or(true) || !patiently {
                return;
            }
            if attempt == TRIES {
                tracing::warn!("not every observer is ready for the end of the run; it ends all the same");
                return;
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Tells of an event on this thread, which may block.
    pub fn tell_blocking(&self, event: &Event<'_>, context: &Context) {
        self.bus.fire(event, context);
    }

    /// How many events were not told because an observer would not return.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&EventBus, &Context) -> T + Send + 'static,
    ) -> Option<T> {
        let told = tokio::time::timeout(NOTICE_LIMIT, async {
            let turn = Arc::clone(&self.turn).lock_owned().await;
            let (bus, context) = (self.bus.clone(), self.run.open());
            let told = tokio::task::spawn_blocking(move || {
                let done = work(&bus, &context);
                drop(turn);
                done
            });
            told.await.ok()
        });
        let told = if self.at_work.report(NOTICE_LIMIT) { None } else { told.await.ok() };
        if told.is_none() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            self.at_work.report(Duration::ZERO);
        }
        told.flatten()
    }
}

impl fmt::Debug for Herald {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Herald")
            .field("bus", &self.bus)
            .field("dropped", &self.dropped())
            .finish_non_exhaustive()
    }
}
