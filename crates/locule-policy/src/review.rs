//! Asks every checker about a plan, and survives whatever they do.

use std::sync::Arc;
use std::time::{Duration, Instant};

use locule_component::{
    ApprovedPlan, Checker, CheckerFailure, CheckerReport, JobFacts, Phase, Plan, PlanReview, Refused,
    SiteFacts, Verdict,
};

use crate::supervised::{self, Unanswered};

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
/// returns, unheard, and while [`MAX_OVERDUE`](crate::MAX_OVERDUE) of them do, no further review can pass.
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
    let asked = checkers.iter().map(|checker| {
        let (one, subject) = (Arc::clone(checker), Arc::clone(&subject));
        (checker, supervised::begin("locule-checker", move || judge(&*one, &subject)))
    });
    let asked: Vec<_> = asked.collect();
    let mut reports = Vec::with_capacity(asked.len());
    for (checker, answer) in asked {
        let deadline = checker.time_limit().unwrap_or(deadline);
        let outcome = answer.and_then(|answer| answer.wait(begin.checked_add(deadline), deadline));
        let outcome = outcome.map_err(failure).and_then(|outcome| outcome);
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

type Outcome = Result<Vec<Verdict>, CheckerFailure>;

fn judge(checker: &dyn Checker, (plan, Occasion { job, site, phase }): &(Plan, Occasion)) -> Outcome {
    let review = PlanReview { plan, config: plan.config(), job, site, phase: *phase };
    let verdicts = checker.review_plan(&review).map_err(CheckerFailure::Error)?;
    plan.check_verdicts(&verdicts).map_err(CheckerFailure::Error)?;
    Ok(verdicts)
}

fn failure(unanswered: Unanswered) -> CheckerFailure {
    match unanswered {
        Unanswered::NotStarted(reason) => CheckerFailure::NotStarted(reason),
        Unanswered::Panicked(text) => CheckerFailure::Panic(text),
        Unanswered::Overdue(deadline) => CheckerFailure::Deadline(deadline),
    }
}
