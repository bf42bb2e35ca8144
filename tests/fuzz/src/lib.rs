//! Damaged input for every decoder that a peer can reach, and what must hold for it.
//!
//! A [`Target`] is one decoder: seeds to start from, a way to damage them that knows their form, and a run
//! that reads an input and asserts what must hold (what decodes encodes to the same again, an error ends the
//! link, nothing stays held). Around each run [`examine`] adds what holds for all of them: no panic, no more
//! memory at a time, no more allocations and no more left behind than [`Allowance`] says for so many bytes.
//! Nothing is measured by a clock. It is no replacement for a fuzzer that sees branches; it needs no other
//! toolchain, and its inputs are told apart by their outcomes only.
//!
//! ```
//! let target = fuzz::target("fobs").unwrap();
//! let report = fuzz::Campaign::new(target, 7).inputs(200).run(&mut |_| {});
//! assert!(report.findings.is_empty(), "{:?}", report.findings);
//! ```
//!
//! `cargo test -p fuzz` runs each target for a while and every input in `corpus/`; `cargo xtask fuzz` runs
//! them for as long as one likes, and keeps there what it finds. Start with [`Target`] and [`Campaign`].

mod campaign;
mod edit;
mod memory;
mod mutate;
mod seeds;
mod targets;

pub use campaign::{Campaign, Finding, Report, keep, kept};
pub use memory::{Counting, Used};
pub use mutate::Mutator;
pub use targets::{target, targets};

use std::panic::{AssertUnwindSafe, catch_unwind};

/// One decoder, and what it may cost.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// One word.
    pub name: &'static str,
    /// What is read.
    pub about: &'static str,
    /// Well-formed inputs.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Damages an input with knowledge of its form; `None` where it cannot be read.
    pub edit: fn(&mut Mutator, &[u8]) -> Option<Vec<u8>>,
    /// Reads an input and says in a few words what came of it. Panics where something does not hold.
    pub run: fn(&[u8]) -> String,
    /// What a run may cost.
    pub allowance: Allowance,
}

/// What reading an input may cost: so much for any, and so much more for each byte of it.
#[derive(Clone, Copy, Debug)]
pub struct Allowance {
    /// Bytes held at a time.
    pub memory: (usize, usize),
    /// Allocations, which stand for work.
    pub work: (usize, usize),
}

/// Bytes that may stay behind after a run: tables that are filled once.
const LEFT: usize = 64 << 10;

/// Runs one input.
///
/// # Errors
/// What did not hold, as a sentence.
pub fn examine(target: &Target, input: &[u8]) -> Result<(String, Used), String> {
    let begun = memory::begin();
    let outcome = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    let used = begun.used();
    let outcome = outcome.map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without text");
        format!("panicked: {}", shortened(text))
    })?;
    let left = used.left.saturating_sub(outcome.capacity());
    let limit = |(free, per_byte): (usize, usize)| free + per_byte * input.len();
    if used.peak > limit(target.allowance.memory) {
        return Err(format!("held {} bytes at a time for {} of input", used.peak, input.len()));
    }
    if used.allocations > limit(target.allowance.work) {
        return Err(format!("{} allocations for {} bytes of input", used.allocations, input.len()));
    }
    if left > LEFT {
        return Err(format!("{left} bytes stayed behind"));
    }
    Ok((outcome, used))
}

/// The beginning of an outcome or a panic, for a person and to tell them apart: numbers are all alike.
#[must_use]
pub fn shortened(text: &str) -> String {
    let mut short = String::new();
    for c in text.chars().take(400) {
        match c {
            '0'..='9' if short.ends_with('#') => {}
            '0'..='9' => short.push('#'),
            c => short.extend(c.escape_debug()),
        }
    }
    short
}

/// How many, roughly: a letter for each power of two, so that outcomes differ where it matters.
pub(crate) fn some(count: usize) -> char {
    char::from(b'a' + (usize::BITS - count.leading_zeros()) as u8)
}
