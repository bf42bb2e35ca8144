//! Checkers that never answer do not fill a process with threads. In a file of its own, because the bound is one
//! for the whole process.

use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use locule_component::*;
use locule_config::Document;
use locule_policy::{MAX_OVERDUE, Occasion, review};

struct Nothing;

#[derive(serde::Deserialize)]
struct NoArgs {}

impl Component for Nothing {
    const KIND: Kind = Kind::Workflow;
    const NAME: &'static str = "vendor.Nothing";
    type Args = NoArgs;
    fn build(_: NoArgs, _: &BuildCx<'_>) -> Result<Built, BuildError> {
        Err(BuildError::Unavailable("it is only planned".to_owned()))
    }
}

#[derive(Debug)]
struct Waits(Mutex<Receiver<()>>);

impl Checker for Waits {
    fn id(&self) -> &str {
        "waits"
    }

    fn review_plan(&self, _: &PlanReview<'_>) -> Result<Vec<Verdict>, CheckerError> {
        let _ = self.0.lock().map(|until| until.recv());
        Ok(Vec::new())
    }
}

#[test]
fn threads_of_overdue_checkers_are_bounded() {
    let mut registry = Registry::new();
    registry.register::<Nothing>();
    let text = r#"{"format_version": 2, "workflows": [{"path": "vendor.Nothing"}]}"#;
    let document = Document::parse_json("config_fed_server.json", text).expect("it is JSON");
    let plan = Plan::from_document(&document, Side::Server, &registry).expect("it is a plan");
    let site = SiteFacts {
        name: "server".to_owned(),
        org: String::new(),
        side: Side::Server,
        workspace: "workspace".into(),
    };
    let occasion = Occasion { job: JobFacts::default(), site, phase: Phase::Deploy };

    let mut releases = Vec::new();
    let mut reasons = Vec::new();
    for _ in 0..=MAX_OVERDUE {
        let (release, receiver) = channel();
        releases.push(release);
        let checkers: Vec<Arc<dyn Checker>> = vec![Arc::new(Waits(Mutex::new(receiver)))];
        let refused =
            review(plan.clone(), &occasion, &checkers, Duration::from_millis(1)).expect_err("it waits");
        reasons.push(refused.findings[0].message.clone());
    }
    assert_eq!(reasons[0], "the checker had no answer within 1ms");
    assert_eq!(
        reasons[MAX_OVERDUE],
        "the checker could not be started: 64 checkers are still running past their deadline"
    );
}
