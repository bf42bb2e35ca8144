//! Observers whose time is taken.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use locule_component::{Event, EventCx, ObserveError, Observer};

/// How long an observer may take for one event before that is reported (30 s). At a job, the run then goes on
/// without it.
pub const NOTICE_LIMIT: Duration = Duration::from_secs(30);

/// Which observer is at which event, and since when. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct AtWork(Arc<Mutex<Option<Work>>>);

#[derive(Debug)]
struct Work {
    observer: String,
    event: String,
    since: Instant,
    reported: bool,
}

impl AtWork {
    /// Reports an observer that takes too long, once; whether there is one now.
    pub(crate) fn report(&self, limit: Duration) -> bool {
        let mut work = self.lock();
        let Some(work) = work.as_mut().filter(|work| work.since.elapsed() >= limit) else { return false };
        if !std::mem::replace(&mut work.reported, true) {
            let Work { observer, event, .. } = work;
            tracing::warn!(observer, event, ?limit, "observer takes too long; nothing waits for it");
        }
        true
    }

    /// Observers under their ids that say here what they are at.
    pub(crate) fn watch(
        &self,
        observers: Vec<(String, Box<dyn Observer>)>,
    ) -> Vec<(String, Box<dyn Observer>)> {
        let watch = |(id, observer): (String, Box<dyn Observer>)| {
            let watched = Watched { id: id.clone(), observer, at_work: self.clone() };
            (id, Box::new(watched) as Box<dyn Observer>)
        };
        observers.into_iter().map(watch).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Work>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Watched {
    id: String,
    observer: Box<dyn Observer>,
    at_work: AtWork,
}

impl Observer for Watched {
    fn observe(&self, event: &Event<'_>, cx: &EventCx<'_>) -> Result<(), ObserveError> {
        let (observer, name) = (self.id.clone(), event.name().to_owned());
        let work = Work { observer, event: name, since: Instant::now(), reported: false };
        let outer = Leave { at_work: &self.at_work, outer: self.at_work.lock().replace(work) };
        let seen = self.observer.observe(event, cx);
        drop(outer);
        seen
    }

    fn settle(&self, grace: Duration) {
        self.observer.settle(grace);
    }
}

/// Puts back what an event inside another interrupted, also after a panic.
struct Leave<'a> {
    at_work: &'a AtWork,
    outer: Option<Work>,
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        *self.at_work.lock() = self.outer.take();
    }
}
