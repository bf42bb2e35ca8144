//! A short storm, for every day.

#[test]
fn a_job_whose_processes_are_killed_comes_to_the_same_model() {
    let folder = tempfile::tempdir().expect("folder");
    let plan = chaos::Plan { kills: 8, seed: 1 };
    let outcome = chaos::run(plan, folder.path(), |_| ()).unwrap_or_else(|error| panic!("{error:#}"));
    assert!(outcome.is_identical(), "{outcome:?}");
}
