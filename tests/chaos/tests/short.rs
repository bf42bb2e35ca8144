//! A short storm, for every day.

#[test]
fn a_job_whose_processes_are_killed_comes_to_the_same_model() {
    let folder = tempfile::tempdir().expect("folder");
    let told = |error: anyhow::Error| panic!("{error:#}");
    let plan = chaos::Plan { kills: 8, seed: 1 };
    let quiet = chaos::leave_in_peace(plan.kills, &folder.path().join("quiet")).unwrap_or_else(told);
    let outcome = chaos::storm(plan, &quiet, &folder.path().join("storm"), |_| ());
    let outcome = outcome.unwrap_or_else(|error| panic!("{error:#}"));
    assert_eq!(outcome.model, quiet.model, "{outcome:?}");
}
