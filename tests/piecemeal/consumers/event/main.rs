//! A program of one's own asks gates before it does something, and survives all of them.

use std::sync::Arc;

use locule_component::{Answer, Gate, GateCx, GateError, Question, Side};
use locule_event::Gates;

struct Closed;

impl Gate for Closed {
    fn judge(&self, _: &Question, _: &GateCx) -> Result<Answer, GateError> {
        Ok(Answer::no("closed on Sundays"))
    }
}

fn main() {
    let gates = Gates::new("hospital-a", Side::Site, vec![("sundays".to_owned(), Arc::new(Closed))]);
    let answer = gates.ask_blocking(Question::SystemBootstrap);
    assert!(answer.is_err_and(|refused| refused.to_string() == "closed on Sundays"));
}
