//! Contexts and events by the rules of a run.

use std::sync::{Arc, Mutex};

use locule_component::*;
use locule_fobs::Value;

fn value(text: &str) -> Value {
    Value::from(text)
}

#[test]
fn sticky_properties_are_seen_by_all_contexts_of_a_run_and_others_by_none() {
    let run = RunContext::new("site-1", "job");
    let mut one = run.open();
    let two = run.open();
    one.set("shared", value("1"), Flags::PUBLIC_STICKY).expect("it is new");
    one.set("own", value("1"), Flags::PUBLIC).expect("it is new");
    assert_eq!((two.get("shared"), two.get("own")), (Some(value("1")), None));

    let mut three = run.open();
    three.set("shared", value("2"), Flags::PUBLIC_STICKY).expect("the flags are the same");
    assert_eq!(one.get("shared"), Some(value("2")), "a change is visible at once in every live context");
    assert_eq!(
        RunContext::new("site-1", "job").open().get("shared"),
        None,
        "another run knows nothing of it"
    );
}

#[test]
fn a_property_keeps_its_flags() {
    let run = RunContext::new("site-1", "job");
    let mut one = run.open();
    let mut two = run.open();
    one.set("p", value("1"), Flags::default()).expect("it is new");
    assert_eq!(
        one.set("p", value("2"), Flags::PUBLIC_STICKY),
        Err(FlagConflict { name: "p".to_owned(), has: Flags::PRIVATE_STICKY, wanted: Flags::PUBLIC_STICKY })
    );
    assert!(two.set("p", value("2"), Flags::PUBLIC_STICKY).is_err(), "the run's flags count too");
    assert_eq!(one.get("p"), Some(value("1")));
}

#[test]
fn a_property_of_the_moment_hides_the_runs() {
    let run = RunContext::new("site-1", "job");
    let mut one = run.open();
    let mut two = run.open();
    one.set("p", value("run"), Flags::PUBLIC_STICKY).expect("it is new");
    two.set("p", value("moment"), Flags::PUBLIC).expect("this context does not hold the run's");
    assert_eq!((one.get("p"), two.get("p")), (Some(value("run")), Some(value("moment"))));
    assert!(two.remove("p"));
    assert_eq!(two.get("p"), Some(value("run")), "what is removed here comes back from the run");
    assert!(!two.remove(key::IDENTITY_NAME), "reserved names stay");
}

#[test]
fn null_is_a_value_and_absence_is_none() {
    let mut context = RunContext::new("site-1", "job").open();
    context.set("p", Value::None, Flags::PRIVATE).expect("it is new");
    assert_eq!((context.get("p"), context.get("q")), (Some(Value::None), None));
}

#[test]
fn a_peer_is_told_public_properties_only_with_their_present_values() {
    let run = RunContext::new("site-1", "job");
    let mut context = run.open();
    let mut other = run.open();
    for (name, flags) in [
        ("public", Flags::PUBLIC),
        ("sticky", Flags::PUBLIC_STICKY),
        ("secret", Flags::PRIVATE),
        ("secret_sticky", Flags::PRIVATE_STICKY),
        ("__engine__", Flags::PUBLIC),
        ("__task_data__", Flags::PUBLIC_STICKY),
    ] {
        context.set(name, value("old"), flags).expect("it is new");
    }
    other.set("sticky", value("new"), Flags::PUBLIC_STICKY).expect("the flags are the same");
    other.set("late", value("late"), Flags::PUBLIC_STICKY).expect("it is new");
    let peer = context.peer_context();
    let told: Vec<(&str, &Value)> =
        peer.props.iter().map(|(name, prop)| (name.as_str(), &prop.value)).collect();
    assert_eq!(
        told,
        [
            (key::IDENTITY_NAME, &value("site-1")),
            (key::RUN_NUM, &value("job")),
            ("public", &value("old")),
            ("sticky", &value("new")),
            ("late", &value("late")),
        ]
    );
    assert!(peer.props.iter().all(|(_, prop)| !prop.sticky && !prop.private));
}

#[test]
fn a_parent_without_a_name_tells_none() {
    let context = RunContext::new("", "").open();
    assert_eq!(
        context.peer_context().props.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
        [key::RUN_NUM]
    );
    assert_eq!((context.identity(), context.job_id()), (String::new(), String::new()));
}

type Log = Arc<Mutex<Vec<String>>>;

struct Scripted {
    id: &'static str,
    log: Log,
    script: fn(&Event<'_>, &EventCx<'_>) -> Result<(), ObserveError>,
}

impl Observer for Scripted {
    fn observe(&self, event: &Event<'_>, cx: &EventCx<'_>) -> Result<(), ObserveError> {
        self.log.lock().expect("nobody panics with it").push(format!("{} {}", self.id, event.name()));
        (self.script)(event, cx)
    }
}

type Script = fn(&Event<'_>, &EventCx<'_>) -> Result<(), ObserveError>;

fn bus(scripts: &[(&'static str, Script)]) -> (EventBus, Log) {
    let log = Log::default();
    let observers = scripts.iter().map(|(id, script)| {
        let observer = Scripted { id, log: Arc::clone(&log), script: *script };
        ((*id).to_owned(), Box::new(observer) as Box<dyn Observer>)
    });
    (EventBus::new(observers.collect()), log)
}

fn fire(bus: &EventBus, event: &Event<'_>) {
    bus.fire(event, &RunContext::new("site-1", "job").open());
}

#[test]
fn observers_are_told_in_order_and_events_inside_events_come_first() {
    let (bus, log) = bus(&[
        ("a", |event, cx| {
            if *event == Event::StartRun {
                cx.fire(&Event::Named("inner"))?;
            }
            Ok(())
        }),
        ("b", |_, _| Ok(())),
    ]);
    fire(&bus, &Event::StartRun);
    fire(&bus, &Event::EndRun);
    let log = log.lock().expect("nobody panics with it");
    assert_eq!(*log, ["a _start_run", "a inner", "b inner", "b _start_run", "a _end_run", "b _end_run"]);
}

#[test]
fn an_observer_that_fails_or_panics_stops_nobody() {
    let (bus, log) = bus(&[
        ("panics", |_, _| panic!("planted")),
        ("fails", |_, _| Err(ObserveError::Failed("planted".to_owned()))),
        ("works", |_, _| Ok(())),
    ]);
    fire(&bus, &Event::StartRun);
    fire(&bus, &Event::RoundStarted { round: 0 });
    assert_eq!(bus.failures(), 4);
    assert_eq!(log.lock().expect("nobody panics with it").len(), 6);
}

#[test]
fn events_that_fire_themselves_end_at_the_depth_limit() {
    let (bus, log) = bus(&[("loop", |event, cx| Ok(cx.fire(event)?))]);
    fire(&bus, &Event::StartRun);
    assert_eq!(log.lock().expect("nobody panics with it").len(), EventBus::MAX_DEPTH + 1);
    assert_eq!(bus.failures(), 1, "the innermost observer is told so");
}

#[test]
fn wire_names_of_events_are_unique() {
    let mut names = Event::NAMES.to_vec();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), Event::NAMES.len());
    assert_eq!(Event::BeforeTaskExecution { task: "train" }.name(), "_before_task_execution");
}

#[test]
fn a_raised_flag_is_seen_by_every_clone() {
    let flag = AbortFlag::new();
    let clone = flag.clone();
    assert!(!clone.is_raised());
    flag.raise();
    assert!(clone.is_raised());
}
