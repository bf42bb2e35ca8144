//! Notices of a parent: told on a thread of their own, in order.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use locule_component::{Context, Event, EventBus, EventCx, KeptEvent, ObserveError, Observer};

use crate::watched::{AtWork, NOTICE_LIMIT};

/// Most events that wait to be told.
pub const MAX_WAITING: usize = 1024;

/// A bus whose observers are told on one thread of its own, in the order of firing, each event to one after another
/// in the order of the list. Firing never blocks, so that it may be done in async code.
///
/// When [`MAX_WAITING`] events wait, another is dropped, which the bus counts as a failure; one that closes something
/// takes the place of the oldest instead. An observer that takes longer than [`NOTICE_LIMIT`] is reported with the
/// next event that is fired; its thread cannot be stopped, so until it returns the others hear of nothing. The thread
/// ends with the last clone of the bus, once all is told.
///
/// # Errors
/// What the operating system says if there is no thread for it. Without observers none is needed.
pub fn queued(observers: Vec<(String, Box<dyn Observer>)>) -> io::Result<EventBus> {
    if observers.is_empty() {
        return Ok(EventBus::default());
    }
    let line = Arc::new(Line::default());
    let bus = EventBus::new(line.at_work.watch(observers));
    let of_thread = Arc::clone(&line);
    thread::Builder::new().name("locule-events".to_owned()).spawn(move || of_thread.tell(&bus))?;
    Ok(EventBus::new(vec![("queue".to_owned(), Box::new(Queue(line)))]))
}

struct Queue(Arc<Line>);

/// Events on their way to the thread.
#[derive(Default)]
struct Line {
    waiting: Mutex<Waiting>,
    changed: Condvar,
    at_work: AtWork,
}

#[derive(Default)]
struct Waiting {
    events: VecDeque<(KeptEvent, Context)>,
    /// One more is just being told.
    telling: bool,
    dropped: u64,
    closed: bool,
}

impl Observer for Queue {
    fn observe(&self, event: &Event<'_>, cx: &EventCx<'_>) -> Result<(), ObserveError> {
        self.0.at_work.report(NOTICE_LIMIT);
        let mut waiting = self.0.lock();
        let is_full = waiting.events.len() >= MAX_WAITING;
        if is_full {
            waiting.dropped += 1;
        }
        if is_full && !closes(event) {
            return Err(ObserveError::Failed(format!("too many events wait; {} dropped", waiting.dropped)));
        }
        if is_full {
            waiting.events.pop_front();
        }
        waiting.events.push_back((event.keep(), cx.context.clone()));
        self.0.changed.notify_all();
        Ok(())
    }

    fn settle(&self, grace: Duration) {
        let until = Instant::now() + grace;
        let mut waiting = self.0.lock();
        while waiting.telling || !waiting.events.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                tracing::warn!(events = waiting.events.len(), "not every observer has heard of the end");
                return;
            }
            let woken = self.0.changed.wait_timeout(waiting, left);
            waiting = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.changed.notify_all();
    }
}

impl Line {
    fn tell(&self, bus: &EventBus) {
        let mut waiting = self.lock();
        loop {
            waiting.telling = false;
            let Some((event, context)) = waiting.events.pop_front() else {
                if waiting.closed {
                    return;
                }
                self.changed.notify_all();
                waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            waiting.telling = true;
            drop(waiting);
            bus.fire(&event.event(), &context);
            waiting = self.lock();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether observers may have to clean up upon it.
fn closes(event: &Event<'_>) -> bool {
    matches!(
        event,
        Event::SystemEnd
            | Event::EndRun
            | Event::JobAborted { .. }
            | Event::JobCompleted { .. }
            | Event::ClientQuit { .. }
    )
}
