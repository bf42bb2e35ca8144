//! Gates, asked all at once under deadlines.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use locule_component::{Answer, Gate, GateCx, GateError, Question, Side};
use locule_policy::supervised;

/// How long a gate may take that does not say itself how long it needs (2 s).
pub const GATE_LIMIT: Duration = Duration::from_secs(2);

/// Longest reason that is passed on, in bytes.
const LONGEST_REASON: usize = 1024;

/// The gates of one site or server. Clones share them; the default has none and lets everything pass.
#[derive(Clone, Default)]
pub struct Gates(Option<Arc<Of>>);

struct Of {
    own_name: String,
    side: Side,
    gates: Vec<(String, Arc<dyn Gate>)>,
}

impl Gates {
    /// Gates under their ids, of the site or server of this name.
    #[must_use]
    pub fn new(own_name: impl Into<String>, side: Side, gates: Vec<(String, Arc<dyn Gate>)>) -> Self {
        let of = Of { own_name: own_name.into(), side, gates };
        Gates((!of.gates.is_empty()).then(|| Arc::new(of)))
    }

    /// Asks every gate, all at once, and waits on a blocking thread.
    ///
    /// # Errors
    /// [`Refused`] if any says no, fails, panics, or does not answer in time.
    pub async fn ask(&self, question: Question) -> Result<(), Refused> {
        if self.0.is_none() {
            return Ok(());
        }
        let (this, name) = (self.clone(), question.name());
        let asked = tokio::task::spawn_blocking(move || this.ask_blocking(question)).await;
        asked.unwrap_or_else(|_| Err(Refused { question: name, noes: vec![No::of_failure("all")] }))
    }

    /// As [`ask`](Self::ask), on this thread, which blocks for no longer than the longest time of a gate.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub fn ask_blocking(&self, question: Question) -> Result<(), Refused> {
        let Some(of) = &self.0 else { return Ok(()) };
        let cx = GateCx::new(of.own_name.clone(), of.side, SystemTime::now());
        let (name, subject, begin) = (question.name(), Arc::new((question, cx)), Instant::now());
        let asked = of.gates.iter().map(|(id, gate)| {
            let (judge, subject) = (Arc::clone(gate), Arc::clone(&subject));
            let judge = move || judge.judge(&subject.0, &subject.1);
            (id, gate.time_limit().unwrap_or(GATE_LIMIT), supervised::begin("locule-gate", judge))
        });
        let asked: Vec<_> = asked.collect(); // all are asked before the first is waited for
        let mut noes = Vec::new();
        for (id, limit, answer) in asked {
            let answer = answer.and_then(|answer| answer.wait(begin.checked_add(limit), limit));
            let answer = answer.unwrap_or_else(|unanswered| Err(GateError(format!("it {unanswered}"))));
            match answer {
                Ok(Answer::Yes) => {}
                Ok(Answer::No { reason }) => noes.push(No { gate: id.clone(), reason: shown(&reason) }),
                Err(error) => {
                    tracing::error!(gate = id, question = name, %error, "gate failed; that is a no");
                    noes.push(No::of_failure(id));
                }
            }
        }
        if noes.is_empty() {
            return Ok(());
        }
        for No { gate, reason } in &noes {
            tracing::info!(gate, question = name, reason, "gate says no");
        }
        Err(Refused { question: name, noes })
    }
}

impl fmt::Debug for Gates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gates = self.0.iter().flat_map(|of| &of.gates);
        f.debug_list().entries(gates.map(|(id, _)| id)).finish()
    }
}

/// What gates said no to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .noes.iter().map(|no| no.reason.as_str()).collect::<Vec<_>>().join("; "))]
#[non_exhaustive]
pub struct Refused {
    /// Name of the event at whose moment they were asked.
    pub question: &'static str,
    /// Every no, in the order of the configuration.
    pub noes: Vec<No>,
}

/// One gate's no.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct No {
    /// The gate's id.
    pub gate: String,
    /// For whoever wanted it; one line, bounded.
    pub reason: String,
}

impl No {
    /// What went wrong is for the operator, who reads it in the log.
    fn of_failure(gate: &str) -> Self {
        No { gate: gate.to_owned(), reason: format!("the gate `{gate}` failed") }
    }
}

/// One line, of bounded length.
fn shown(reason: &str) -> String {
    let mut text = String::new();
    for c in reason.chars() {
        if text.len() >= LONGEST_REASON {
            break;
        }
        if c.is_control() { text.extend(c.escape_default()) } else { text.push(c) }
    }
    text
}
