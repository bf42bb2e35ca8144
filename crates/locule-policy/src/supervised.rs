//! Foreign work on a thread of its own, under a deadline.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use locule_component::panic_text;

/// How many checkers and gates may go on past their deadline in one process.
pub const MAX_OVERDUE: usize = 64;

static OVERDUE: AtomicUsize = AtomicUsize::new(0);

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unanswered {
    /// There was no thread for it, or too many are overdue.
    #[error("could not be asked: {0}")]
    NotStarted(String),
    /// It panicked, with this text.
    #[error("panicked: {0}")]
    Panicked(String),
    /// It took longer than this.
    #[error("did not answer within {0:?}")]
    Overdue(Duration),
}

/// Work that was begun.
#[derive(Debug)]
pub struct Answer<T> {
    outcome: Receiver<Result<T, Unanswered>>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Running,
    Done,
    Overdue,
}

/// Begins work on a thread of this name. A thread cannot be stopped from outside: one that overruns its deadline goes
/// on until it returns, unheard, and while [`MAX_OVERDUE`] do, nothing more is begun.
///
/// # Errors
/// [`Unanswered::NotStarted`].
pub fn begin<T, F>(name: &str, work: F) -> Result<Answer<T>, Unanswered>
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    if OVERDUE.load(Ordering::Acquire) >= MAX_OVERDUE {
        let reason = format!("{MAX_OVERDUE} checkers are still running past their deadline");
        return Err(Unanswered::NotStarted(reason));
    }
    let (sender, outcome) = sync_channel(1);
    let state = Arc::new(Mutex::new(State::Running));
    let thread_state = Arc::clone(&state);
    let started = thread::Builder::new().name(name.to_owned()).spawn(move || {
        let outcome = catch_unwind(AssertUnwindSafe(work));
        let outcome = outcome.map_err(|panic| Unanswered::Panicked(panic_text(&*panic).to_owned()));
        // Nobody listens any more when the deadline has passed.
        let _ = sender.send(outcome);
        let mut state = thread_state.lock().unwrap_or_else(PoisonError::into_inner);
        if *state == State::Overdue {
            OVERDUE.fetch_sub(1, Ordering::AcqRel);
        }
        *state = State::Done;
    });
    match started {
        Ok(_) => Ok(Answer { outcome, state }),
        Err(error) => Err(Unanswered::NotStarted(error.to_string())),
    }
}

impl<T> Answer<T> {
    /// Waits until then, which is when `limit` is over. Blocks.
    ///
    /// # Errors
    /// [`Unanswered::Panicked`], [`Unanswered::Overdue`].
    pub fn wait(self, until: Option<Instant>, limit: Duration) -> Result<T, Unanswered> {
        let left = until.map_or(limit, |until| until.saturating_duration_since(Instant::now()));
        match self.outcome.recv_timeout(left) {
            Ok(outcome) => outcome,
            Err(RecvTimeoutError::Timeout) => {
                let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                if *state == State::Running {
                    *state = State::Overdue;
                    OVERDUE.fetch_add(1, Ordering::AcqRel);
                }
                Err(Unanswered::Overdue(limit))
            }
            Err(RecvTimeoutError::Disconnected) => {
                Err(Unanswered::Panicked("the thread ended without an answer".to_owned()))
            }
        }
    }
}
