//! Asks every checker about a plan, and survives whatever they do.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use locule_component::{
    ApprovedPlan, Checker, CheckerFailure, CheckerReport, JobFacts, Phase, Plan, PlanReview, Refused,
    SiteFacts, Verdict, panic_text,
};

/// How long a checker may take that does not say itself how long it needs.
pub const DEADLINE: Duration = Duration::from_secs(2);

/// What a review is about, besides the plan.
#[derive(Debug, Clone)]
pub struct Occasion {
    /// Whose job it is.
    pub job: JobFacts,
    /// Where it is to run.
    pub site: SiteFacts,
    /// At which point of its life.
    pub phase: Phase,
}

/// Asks every checker about a plan, all at once, each on a thread of its own, and lets the plan pass when none
/// denies it.
///
/// All of them are always asked, so that a refusal names every reason. Each has until `deadline`, or as long as
/// [it says itself](Checker::time_limit), and the review blocks for no longer than the longest of these; in async
/// code call it where blocking is allowed. A thread cannot be stopped from outside: one that overran goes on until it
/// returns, unheard, and while [`MAX_OVERDUE`] of them do, no further review can pass.
///
/// # Errors
/// [`Refused`] with every denial. A checker that returned an error, panicked, overran or could not be started
/// denies with code [`Denial::CHECKER_FAILED`](locule_component::Denial::CHECKER_FAILED).
pub fn review(
    plan: Plan,
    occasion: &Occasion,
    checkers: &[Arc<dyn Checker>],
    deadline: Duration,
) -> Result<ApprovedPlan, Refused> {
    let reports = ask_all(&plan, occasion, checkers, deadline);
    plan.approve(reports)
}

/// Asks every checker about a plan as [`review`] does; what each of them said, in their order.
pub fn ask_all(
    plan: &Plan,
    occasion: &Occasion,
    checkers: &[Arc<dyn Checker>],
    deadline: Duration,
) -> Vec<CheckerReport> {
    let subject = Arc::new((plan.clone(), occasion.clone()));
    let begin = Instant::now();
    let asked: Vec<_> = checkers.iter().map(|checker| (checker, ask(checker, &subject))).collect();
    let mut reports = Vec::with_capacity(asked.len());
    for (checker, answer) in asked {
        let deadline = checker.time_limit().unwrap_or(deadline);
        let outcome = answer.and_then(|answer| answer.wait(begin.checked_add(deadline), deadline));
        if let Err(failure) = &outcome {
            tracing::error!(checker = checker.id(), job = occasion.job.job_id, error = %failure, "checker failed");
        }
        reports.push(CheckerReport {
            checker: checker.id().to_owned(),
            plan: plan.digest().clone(),
            outcome,
        });
    }
    reports
}

/// How many checkers may go on past their deadline in one process.
pub const MAX_OVERDUE: usize = 64;

static OVERDUE: AtomicUsize = AtomicUsize::new(0);

type Outcome = Result<Vec<Verdict>, CheckerFailure>;

struct Answer {
    outcome: Receiver<Outcome>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Running,
    Done,
    Overdue,
}

fn ask(checker: &Arc<dyn Checker>, subject: &Arc<(Plan, Occasion)>) -> Result<Answer, CheckerFailure> {
    if OVERDUE.load(Ordering::Acquire) >= MAX_OVERDUE {
        let reason = format!("{MAX_OVERDUE} checkers are still running past their deadline");
        return Err(CheckerFailure::NotStarted(reason));
    }
    let (sender, outcome) = sync_channel(1);
    let state = Arc::new(Mutex::new(State::Running));
    let (checker, subject, thread_state) = (Arc::clone(checker), Arc::clone(subject), Arc::clone(&state));
    let name = "locule-checker".to_owned();
    let started = thread::Builder::new().name(name).spawn(move || {
        let outcome = catch_unwind(AssertUnwindSafe(|| judge(&*checker, &subject)))
            .unwrap_or_else(|panic| Err(CheckerFailure::Panic(panic_text(&*panic).to_owned())));
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
        Err(error) => Err(CheckerFailure::NotStarted(error.to_string())),
    }
}

fn judge(checker: &dyn Checker, (plan, Occasion { job, site, phase }): &(Plan, Occasion)) -> Outcome {
    let review = PlanReview { plan, config: plan.config(), job, site, phase: *phase };
    checker.review_plan(&review).map_err(CheckerFailure::Error)
}

impl Answer {
    fn wait(self, until: Option<Instant>, deadline: Duration) -> Outcome {
        let left = until.map_or(deadline, |until| until.saturating_duration_since(Instant::now()));
        match self.outcome.recv_timeout(left) {
            Ok(outcome) => outcome,
            Err(RecvTimeoutError::Timeout) => {
                let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                if *state == State::Running {
                    *state = State::Overdue;
                    OVERDUE.fetch_add(1, Ordering::AcqRel);
                }
                Err(CheckerFailure::Deadline(deadline))
            }
            Err(RecvTimeoutError::Disconnected) => {
                Err(CheckerFailure::Panic("the thread ended without an answer".to_owned()))
            }
        }
    }
}
