//! Observers and gates that are slow, broken or wrongly named.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::fs;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use locule_component::{
    Answer, BuildCx, ConstructionCount, Event, EventBus, EventCx, Gate, GateCx, GateError, JobFacts,
    ObserveError, Observer, Question, Registry, RunContext, Side,
};
use locule_config::Document;
use locule_event::{Attendants, Gates, Herald, MAX_WAITING, Record, queued};
use locule_policy::AdmitJobs;
use serde_json::Value as Json;

type Judge = fn() -> Result<Answer, GateError>;

struct Scripted(Judge);

impl Gate for Scripted {
    fn judge(&self, _: &Question, _: &GateCx) -> Result<Answer, GateError> {
        (self.0)()
    }

    fn time_limit(&self) -> Option<Duration> {
        Some(Duration::from_secs(60))
    }
}

/// Does not answer until the other end is dropped.
struct Silent(Mutex<Receiver<()>>);

impl Gate for Silent {
    fn judge(&self, _: &Question, _: &GateCx) -> Result<Answer, GateError> {
        self.0.lock().unwrap().recv().ok();
        Ok(Answer::Yes)
    }

    fn time_limit(&self) -> Option<Duration> {
        Some(Duration::from_millis(1))
    }
}

fn gates(gates: Vec<(&str, Arc<dyn Gate>)>) -> Gates {
    let gates = gates.into_iter().map(|(id, gate)| (id.to_owned(), gate));
    Gates::new("site-1", Side::Site, gates.collect())
}

fn scripted(judge: Judge) -> Arc<dyn Gate> {
    Arc::new(Scripted(judge))
}

#[test]
fn every_gate_is_asked_and_whatever_is_not_a_yes_is_a_no() {
    let (_open, closed) = channel();
    let gates = gates(vec![
        ("yes", scripted(|| Ok(Answer::Yes))),
        ("no", scripted(|| Ok(Answer::no("not today\nnor tomorrow")))),
        ("error", scripted(|| Err(GateError("the secret database is away".to_owned())))),
        ("panic", scripted(|| panic!("at the disco"))),
        ("silence", Arc::new(Silent(Mutex::new(closed)))),
    ]);
    let refused = gates.ask_blocking(Question::SystemBootstrap).unwrap_err();
    let noes: Vec<_> = refused.noes.iter().map(|no| (no.gate.as_str(), no.reason.as_str())).collect();
    let expected = [
        ("no", "not today\\nnor tomorrow"),
        ("error", "the gate `error` failed"),
        ("panic", "the gate `panic` failed"),
        ("silence", "the gate `silence` failed"),
    ];
    assert_eq!(noes, expected);
    assert_eq!(refused.question, "_system_bootstrap");
    assert!(!refused.to_string().contains("secret"), "what went wrong is for the operator");
}

#[tokio::test]
async fn without_gates_everything_passes() {
    assert_eq!(Gates::default().ask(Question::SystemBootstrap).await, Ok(()));
    assert_eq!(
        gates(vec![("yes", scripted(|| Ok(Answer::Yes)))]).ask(Question::SystemBootstrap).await,
        Ok(())
    );
}

#[derive(Clone, Default)]
struct Diary(Arc<Mutex<Vec<String>>>);

impl Diary {
    fn entries(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    fn observer(&self) -> (String, Box<dyn Observer>) {
        ("diary".to_owned(), Box::new(self.clone()))
    }
}

impl Observer for Diary {
    fn observe(&self, event: &Event<'_>, cx: &EventCx<'_>) -> Result<(), ObserveError> {
        self.0.lock().unwrap().push(event.name().to_owned());
        assert!(*event != Event::Named("panic"), "on purpose");
        if *event == Event::Named("outer") {
            cx.fire(&Event::Named("inner"))?;
        }
        Ok(())
    }
}

/// Says that it has begun with an event, and goes on when it is told to.
struct Slow {
    begun: Sender<()>,
    go_on: Mutex<Receiver<()>>,
}

impl Observer for Slow {
    fn observe(&self, _: &Event<'_>, _: &EventCx<'_>) -> Result<(), ObserveError> {
        self.begun.send(()).ok();
        self.go_on.lock().unwrap().recv().ok();
        Ok(())
    }
}

type Named = (String, Box<dyn Observer>);

fn slow() -> (Named, Receiver<()>, Sender<()>) {
    let ((begun, has_begun), (tell, go_on)) = (channel(), channel());
    (("slow".to_owned(), Box::new(Slow { begun, go_on: Mutex::new(go_on) })), has_begun, tell)
}

fn fire(bus: &EventBus, event: &Event<'_>) {
    bus.fire(event, &RunContext::new("site-1", "").open());
}

const GRACE: Duration = Duration::from_secs(60);

#[test]
fn a_parents_observers_hear_in_order_on_a_thread_of_their_own_and_survive_a_panic() {
    let diary = Diary::default();
    let bus = queued(vec![diary.observer()]).unwrap();
    for name in ["first", "outer", "panic", "last"] {
        fire(&bus, &Event::Named(name));
    }
    bus.settle(GRACE);
    assert_eq!(diary.entries(), ["first", "outer", "inner", "panic", "last"]);
    assert_eq!(bus.failures(), 0, "nothing was dropped");
}

#[test]
fn an_observer_that_hangs_holds_nobody_up_and_what_does_not_fit_is_counted() {
    let (diary, (slow, has_begun, go_on)) = (Diary::default(), slow());
    let bus = queued(vec![slow, diary.observer()]).unwrap();
    fire(&bus, &Event::Named("first"));
    has_begun.recv().unwrap();
    for _ in 0..MAX_WAITING {
        fire(&bus, &Event::BeforeClientHeartbeat);
    }
    assert_eq!(bus.failures(), 0);
    fire(&bus, &Event::AfterClientHeartbeat);
    assert_eq!(bus.failures(), 1);
    fire(&bus, &Event::SystemEnd); // takes the place of the oldest
    assert_eq!(bus.failures(), 1);
    bus.settle(Duration::ZERO); // does not wait for the one that hangs
    assert!(diary.entries().is_empty());
    drop(go_on);
    bus.settle(GRACE);
    let heard = diary.entries();
    assert_eq!(heard.len(), 1 + MAX_WAITING);
    assert_eq!(heard.last().unwrap(), "_system_end");
    assert!(!heard.contains(&"_after_client_heartbeat".to_owned()));
}

#[tokio::test]
async fn a_job_waits_until_its_observers_have_heard() {
    let diary = Diary::default();
    let herald = Herald::new(vec![diary.observer()], RunContext::new("site-1", "job-1"));
    herald.tell(&Event::StartRun).await;
    assert_eq!(diary.entries(), ["_start_run"]);
    herald.tell(&Event::Named("panic")).await;
    herald.tell(&Event::EndRun).await;
    assert_eq!(diary.entries(), ["_start_run", "panic", "_end_run"]);
    assert_eq!(herald.dropped(), 0);
}

/// Is ready when it was asked as often as this.
struct Busy(Mutex<u32>);

impl Observer for Busy {
    fn observe(&self, event: &Event<'_>, _: &EventCx<'_>) -> Result<(), ObserveError> {
        let mut left = self.0.lock().unwrap();
        if *event == Event::CheckEndRunReadiness && *left > 0 {
            *left -= 1;
            return Err(ObserveError::NotReady("still writing".to_owned()));
        }
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_run_waits_for_whoever_is_not_ready_but_not_for_ever() {
    for (busy, patiently, asked) in [(0, true, 1), (3, true, 4), (u32::MAX, true, 10), (3, false, 1)] {
        let diary = Diary::default();
        let busy = ("busy".to_owned(), Box::new(Busy(Mutex::new(busy))) as Box<dyn Observer>);
        let herald = Herald::new(vec![busy, diary.observer()], RunContext::new("site-1", "job-1"));
        herald.await_readiness(patiently).await;
        assert_eq!(diary.entries(), vec!["_check_end_run_readiness"; asked]);
    }
}

fn registry() -> Registry {
    let mut registry = Registry::new();
    registry.register::<Record>();
    registry.register::<AdmitJobs>();
    registry.register::<locule_policy::RefuseComponents>();
    registry
}

fn read(kit: &Path, components: &str) -> Result<Attendants, String> {
    let text = format!(r#"{{ "components": [{components}] }}"#);
    let config = Document::parse_json("resources.json", &text).unwrap();
    let count = ConstructionCount::new();
    let cx = BuildCx::new(Side::Site, "site-1", "", kit, kit, &count);
    Attendants::from_site_config(&config, &registry(), &cx).map_err(|mistakes| mistakes.to_string())
}

#[test]
fn a_kit_names_observers_and_gates_beside_components_of_other_kinds() {
    let kit = tempfile::tempdir().unwrap();
    let Attendants { events, gates } = read(
        kit.path(),
        r#"{ "id": "manager", "path": "nvflare.app_common.resource_managers.gpu_resource_manager.GPUResourceManager" },
           { "id": "no-scripts", "path": "locule.policy.RefuseComponents", "args": { "names": ["*.Script"] } },
           { "id": "ours", "path": "locule.policy.AdmitJobs", "args": { "roles": ["lead"] } },
           { "id": "off", "path": "locule.policy.AdmitJobs", "args": { "roles": ["nobody"] }, "disabled": true },
           { "id": "record", "path": "locule.event.Record", "args": { "events": ["*_job_*"] } }"#,
    )
    .unwrap();
    let job = JobFacts { submitter_role: "lead".to_owned(), ..JobFacts::default() };
    gates.ask_blocking(Question::CheckResources { job: Box::new(job) }).unwrap();
    let refused = gates.ask_blocking(Question::CheckResources { job: Box::default() }).unwrap_err();
    assert_eq!(refused.to_string(), r#"site-1 runs no jobs of submitters in the role """#);

    fire(&events, &Event::SystemStart);
    fire(&events, &Event::BeforeJobLaunch { job_id: "job-1" });
    events.settle(GRACE);
    let text = fs::read_to_string(kit.path().join("state/events.jsonl")).unwrap();
    let line: Json = serde_json::from_str(&text).unwrap();
    assert_eq!(line["event"], "_before_job_launch");
    assert_eq!(line["job_id"], "job-1");
    assert_eq!(line["identity"], "site-1");
}

#[test]
fn a_mistake_among_them_is_said_and_nothing_starts() {
    let kit = tempfile::tempdir().unwrap();
    let misspelt = read(kit.path(), r#"{ "id": "a", "path": "locule.event.Recrod" }"#).unwrap_err();
    assert!(misspelt.contains("did you mean `locule.event.Record`?"), "{misspelt}");
    let empty = read(kit.path(), r#"{ "id": "a", "path": "locule.policy.AdmitJobs" }"#).unwrap_err();
    assert!(empty.contains("would refuse nothing"), "{empty}");
    let outside =
        read(kit.path(), r#"{ "id": "a", "path": "locule.event.Record", "args": { "file": "../x" } }"#)
            .unwrap_err();
    assert!(outside.contains("without a folder"), "{outside}");
    let unknown =
        read(kit.path(), r#"{ "id": "a", "path": "locule.policy.AdmitJobs", "args": { "org": ["x"] } }"#)
            .unwrap_err();
    assert!(unknown.contains("did you mean `orgs`?"), "{unknown}");
}
