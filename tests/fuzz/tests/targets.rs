//! Each target for a while, and every input that was ever kept.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::sync::{Mutex, PoisonError};

use fuzz::{Campaign, Counting, examine, kept, target, targets};

#[global_allocator]
static COUNTING: Counting = Counting;

/// What is counted is counted of the whole process.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn whatever_is_damaged_is_read_or_refused_at_a_bounded_cost() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for target in targets() {
        let report = Campaign::new(target, 1).inputs(800).run(&mut |_| {});
        for finding in &report.findings {
            let hex: String = finding.input.iter().take(2000).map(|byte| format!("{byte:02x}")).collect();
            eprintln!("{}: {}\n  {hex}", target.name, finding.what);
        }
        assert!(report.findings.is_empty(), "{}", target.name);
        assert!(report.outcomes >= 3, "{} tells only {} outcomes apart", target.name, report.outcomes);
    }
}

#[test]
fn what_was_found_once_stays_mended() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for target in targets() {
        for seed in (target.seeds)() {
            examine(target, &seed).unwrap();
        }
        for (file, input) in kept(target.name) {
            if let Err(what) = examine(target, &input) {
                panic!("{}: {what}", file.display());
            }
        }
    }
}

#[test]
fn the_same_seed_makes_the_same_inputs() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let run = || Campaign::new(target("hello").unwrap(), 7).inputs(500).run(&mut |_| {});
    assert_eq!(run().outcomes, run().outcomes);
}
