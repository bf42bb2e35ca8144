//! What becomes of a checker's denials and failures: a policy can be rehearsed before it is trusted.

use std::sync::Arc;
use std::time::Duration;

use locule_component::{
    Checker, CheckerError, CheckerOrigin, ConfigPath, Decision, Denial, Finding, PlanReview, Verdict,
};

/// What becomes of a denial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// The plan is refused.
    Enforce,
    /// It becomes a remark.
    Warn,
    /// It stands in the record of the review, beside a permission.
    Audit,
}

impl Mode {
    pub(crate) const WORDS: [(&'static str, Mode); 3] =
        [("enforce", Mode::Enforce), ("warn", Mode::Warn), ("audit", Mode::Audit)];

    /// What becomes of a failure if nobody says: who refuses nothing does not refuse by failing.
    pub(crate) fn on_error(self) -> OnError {
        match self {
            Mode::Enforce => OnError::Deny,
            Mode::Warn | Mode::Audit => OnError::Warn,
        }
    }
}

/// What becomes of a plan that could not be judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnError {
    /// It is refused.
    Deny,
    /// It passes, with a remark.
    Warn,
}

impl OnError {
    pub(crate) const WORDS: [(&'static str, OnError); 2] = [("deny", OnError::Deny), ("warn", OnError::Warn)];
}

/// A checker whose word counts as much as its entry says.
#[derive(Debug)]
pub(crate) struct Moderated {
    pub(crate) checker: Arc<dyn Checker>,
    pub(crate) mode: Mode,
    pub(crate) on_error: OnError,
}

impl Checker for Moderated {
    fn id(&self) -> &str {
        self.checker.id()
    }

    fn time_limit(&self) -> Option<Duration> {
        self.checker.time_limit()
    }

    fn origin(&self) -> CheckerOrigin {
        self.checker.origin()
    }

    fn review_plan(&self, review: &PlanReview<'_>) -> Result<Vec<Verdict>, CheckerError> {
        let decision = match self.mode {
            Mode::Enforce => Decision::Deny,
            Mode::Warn => Decision::Warn,
            Mode::Audit => Decision::Allow,
        };
        let judged = self.checker.review_plan(review);
        match judged.and_then(|verdicts| review.plan.check_verdicts(&verdicts).map(|()| verdicts)) {
            Ok(mut verdicts) => {
                let denials = verdicts.iter_mut().filter(|verdict| verdict.decision == Decision::Deny);
                denials.for_each(|verdict| verdict.decision = decision);
                Ok(verdicts)
            }
            Err(error) if self.on_error == OnError::Deny => Err(error),
            Err(error) => {
                tracing::error!(checker = self.id(), job = review.job.job_id, %error, "checker failed, and may");
                let path = ConfigPath::from("");
                let (code, message) = (Denial::CHECKER_FAILED.to_owned(), error.to_string());
                let finding = Finding { code, message, path: path.clone(), public: false };
                Ok(vec![Verdict::warn(path, finding)])
            }
        }
    }
}
