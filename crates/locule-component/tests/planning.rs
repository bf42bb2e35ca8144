//! From a job's configuration to a plan: what is understood, and how each mistake is shown.

mod sample;

use insta::assert_snapshot;
use locule_component::{CheckerReport, Denial, Finding, NameKey, Plan, Side, Verdict, code};
use locule_config::{Diagnostics, Document};
use proptest::prelude::*;
use serde_json::{Value, json};

fn plan_of(side: Side, text: &str) -> Result<Plan, Diagnostics> {
    let name = match side {
        Side::Server => "config_fed_server.json",
        Side::Site => "config_fed_client.json",
    };
    Plan::from_document(&Document::parse_json(name, text)?, side, &sample::registry())
}

fn site_plan(value: Value) -> Plan {
    plan_of(Side::Site, &value.to_string()).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

fn mistakes(side: Side, text: &str) -> String {
    plan_of(side, text).expect_err("there are mistakes").to_string()
}

fn site_job(executor: Value) -> Value {
    json!({"format_version": 2, "executors": [{"tasks": ["train"], "executor": executor}]})
}

fn paths(plan: &Plan) -> Vec<&str> {
    plan.components().iter().map(|spec| spec.path.as_str()).collect()
}

#[test]
fn a_site_plan_holds_every_component_in_building_order() {
    let plan = site_plan(json!({
        "format_version": 2,
        "executors": [{"tasks": ["train", "eval*"], "executor": {
            "path": "nvflare.app_common.np.np_trainer.NPTrainer",
            "args": {"clip": {"name": "Clip", "args": {"mark": "a"}},
                     "clips": [{"class_path": "sample.Clip", "args": {"mark": "b"}}]}}}],
        "task_result_filters": [{"tasks": ["train"], "filters": [{"path": "sample.Clip", "args": {"mark": "c"}}]}],
        "components": [{"id": "rec", "path": "sample.Recorder", "args": {}}],
    }));
    assert_eq!(
        paths(&plan),
        [
            "executors.#1.executor.args.clip",
            "executors.#1.executor.args.clips.#1",
            "executors.#1.executor",
            "task_result_filters.#1.filters.#1",
            "components.#1",
        ]
    );
    let clip = &plan.components()[0];
    assert_eq!(
        (clip.name, clip.requested.as_str(), clip.requested_by),
        ("sample.Clip", "Clip", NameKey::Name)
    );
    assert_eq!(
        clip.ancestors.iter().map(|path| path.as_str()).collect::<Vec<_>>(),
        ["executors.#1.executor"]
    );
    let trainer = &plan.components()[2];
    assert_eq!(trainer.name, "sample.Trainer");
    assert_eq!(trainer.args["clip"]["name"], "Clip", "checkers see the arguments as written");
    assert_eq!(plan.components()[4].label(), "rec");
    assert_eq!(plan.executors().map(|(tasks, _)| tasks.to_vec()).collect::<Vec<_>>(), [["train", "eval*"]]);
}

#[test]
fn arguments_that_only_look_like_components_stay_data() {
    let plan = site_plan(site_job(json!({"path": "sample.Trainer", "args": {"notes": {
        "file": {"path": "/data/x.csv"},
        "lower": {"path": "model.npy"},
        "named": {"name": "somebody"},
        "dict": {"path": "sample.Clip", "config_type": "dict"},
    }}})));
    assert_eq!(paths(&plan), ["executors.#1.executor"]);
}

#[test]
fn a_server_plan_names_workflows_after_their_class_when_they_have_no_id() {
    let plan = plan_of(
        Side::Server,
        r#"{"format_version": 2, "server": {"heart_beat_timeout": 60},
        "workflows": [{"path": "sample.Average"}, {"id": "second", "path": "sample.Average"}]}"#,
    )
    .unwrap_or_else(|mistakes| panic!("{mistakes}"));
    assert_eq!(plan.workflows().map(|(id, _)| id).collect::<Vec<_>>(), ["Average", "second"]);
}

#[test]
fn the_version_is_looked_at_before_anything_else() {
    assert_snapshot!(mistakes(Side::Site, "{\"format_version\": 3, \"executors\": 5}"), @r#"
    error[E0101]: `format_version` 3 is not one that can be read
      ┌─ config_fed_client.json:1:20   at format_version
      │  {"format_version": 3, "executors": 5}
      │                     ^
      = write `"format_version": 2`
    "#);
    assert_snapshot!(mistakes(Side::Site, "{\n  \"executers\": []\n}"), @r#"
    error[E0101]: missing `format_version`
      ┌─ config_fed_client.json:1:1
      │  {
      │  ^
      = write `"format_version": 2`

    error[E0106]: `executors` is missing
      ┌─ config_fed_client.json:1:1
      │  {
      │  ^
      = is `executers` meant to be `executors`?
    "#);
}

#[test]
fn an_unknown_argument_is_shown_with_what_was_probably_meant() {
    assert_snapshot!(mistakes(Side::Site, r#"{
  "format_version": 2,
  "executors": [
    {
      "tasks": ["train"],
      "executor": {
        "path": "sample.Trainer",
        "args": {"delta": 1, "delat": 3, "zzz": 4, "layers": [{"size": 1}, {"size": 2, "sise": 3}]}
      }
    }
  ]
}"#), @r#"
    error[E0104]: unknown argument `delat`
      ┌─ config_fed_client.json:8:30   at executors.#1.executor.args.delat
      │  "args": {"delta": 1, "delat": 3, "zzz": 4, "layers": [{"size": 1}, {"size": 2, "sise": 3}]}
      │                       ^^^^^^^ did you mean `delta`?
      = arguments: label, delta, layers, notes, clip, clips

    error[E0104]: unknown argument `zzz`
      ┌─ config_fed_client.json:8:42   at executors.#1.executor.args.zzz
      │  "args": {"delta": 1, "delat": 3, "zzz": 4, "layers": [{"size": 1}, {"size": 2, "sise": 3}]}
      │                                   ^^^^^ Trainer has no argument `zzz`
      = arguments: label, delta, layers, notes, clip, clips

    error[E0104]: unknown argument `sise`
      ┌─ config_fed_client.json:8:88   at executors.#1.executor.args.layers.#2.sise
      │  …, "zzz": 4, "layers": [{"size": 1}, {"size": 2, "sise": 3}]}
      │                                                   ^^^^^^ did you mean `size`?
      = arguments: size
    "#);
}

#[test]
fn an_argument_of_the_wrong_sort_is_shown_where_it_is() {
    assert_snapshot!(mistakes(Side::Site, r#"{"format_version": 2,
  "executors": [{"tasks": ["train"], "executor": {"path": "sample.Trainer", "args": {
      "layers": [{"size": 1}, {"size": "large"}]}}},
    {"tasks": ["eval"], "executor": {"path": "sample.Trainer", "args": {"layers": [{}]}}}]
}"#), @r#"
    error[E0105]: invalid type: string "large", expected u32, in the arguments of `sample.Trainer`
      ┌─ config_fed_client.json:3:40   at executors.#1.executor.args.layers.#2.size
      │  "layers": [{"size": 1}, {"size": "large"}]}}},
      │                                   ^^^^^^^

    error[E0105]: missing argument `size`, in the arguments of `sample.Trainer`
      ┌─ config_fed_client.json:4:84   at executors.#2.executor.args.layers.#1
      │  … {"path": "sample.Trainer", "args": {"layers": [{}]}}}]
      │                                                   ^^
    "#);
}

#[test]
fn an_unknown_component_is_shown_with_one_of_the_right_kind() {
    assert_snapshot!(mistakes(Side::Site, r#"{"format_version": 2,
  "executors": [
    {"tasks": ["a"], "executor": {"path": "sample.Trianer"}},
    {"tasks": ["b"], "executor": {"path": "nvflare.elsewhere.NPTrainer"}},
    {"tasks": ["c"], "executor": {"path": "no.such.Thing"}}]
}"#), @r#"
    error[E0103]: unknown component `sample.Trianer`
      ┌─ config_fed_client.json:3:43   at executors.#1.executor.path
      │  {"tasks": ["a"], "executor": {"path": "sample.Trianer"}},
      │                                        ^^^^^^^^^^^^^^^^ did you mean `sample.Trainer`?
      = executors: sample.Trainer

    error[E0103]: unknown component `nvflare.elsewhere.NPTrainer`
      ┌─ config_fed_client.json:4:43   at executors.#2.executor.path
      │  {"tasks": ["b"], "executor": {"path": "nvflare.elsewhere.NPTrainer"}},
      │                                        ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ did you mean `nvflare.app_common.np.np_trainer.NPTrainer`?
      = executors: sample.Trainer

    error[E0103]: unknown component `no.such.Thing`
      ┌─ config_fed_client.json:5:43   at executors.#3.executor.path
      │  {"tasks": ["c"], "executor": {"path": "no.such.Thing"}}]
      │                                        ^^^^^^^^^^^^^^^
      = executors: sample.Trainer
    "#);
}

#[test]
fn a_component_of_the_wrong_kind_is_told_where_it_belongs() {
    assert_snapshot!(mistakes(Side::Site, r#"{"format_version": 2,
  "executors": [{"tasks": ["a"], "executor": {"path": "sample.Average"}}],
  "components": [{"id": "g", "path": "sample.Guard"}, {"id": "t", "path": "sample.Trainer"}]
}"#), @r#"
    error[E0108]: `sample.Average` is a workflow and cannot stand here
      ┌─ config_fed_client.json:2:55   at executors.#1.executor.path
      │  …cutors": [{"tasks": ["a"], "executor": {"path": "sample.Average"}}],
      │                                                   ^^^^^^^^^^^^^^^^ expected: executor
      = workflows stand under `workflows` of the server's half

    error[E0108]: `sample.Guard` is a checker and cannot stand here
      ┌─ config_fed_client.json:3:38   at components.#1.path
      │  "components": [{"id": "g", "path": "sample.Guard"}, {"id": "t", "path": "sample.Trainer"}]
      │                                     ^^^^^^^^^^^^^^ expected: observer or service
      = checkers are named by a site, never by a job

    error[E0108]: `sample.Trainer` is an executor and cannot stand here
      ┌─ config_fed_client.json:3:75   at components.#2.path
      │  …", "path": "sample.Guard"}, {"id": "t", "path": "sample.Trainer"}]
      │                                                   ^^^^^^^^^^^^^^^^ expected: observer or service
      = executors stand under `executors` of the site's half
    "#);
}

#[test]
fn every_mistake_of_a_document_is_reported_in_one_pass() {
    assert_snapshot!(mistakes(Side::Site, r#"{
  "executors": [
    {"tasks": [], "executor": {"path": "sample.Trainer"}},
    {"tasks": ["train", 7], "exekutor": {}},
    {"tasks": ["train", "x"], "executor": {"path": "sample.Trainer"}},
    {"tasks": ["x"], "executor": {"args": {}}},
    "no"
  ],
  "task_data_filters": [
    {"tasks": ["train"], "direction": "sideways", "filters": []},
    {"tasks": ["*"], "filters": [{"path": "", "name": "Clip"}]},
    {"tasks": ["train"], "filters": {"path": "sample.Clip"}}
  ],
  "components": [
    {"path": "sample.Recorder"},
    {"id": "rec", "path": "sample.Recorder"},
    {"id": "rec", "path": "sample.Recorder", "arg": {}, "disabled": 1}
  ],
  "default_task_fetch_interval": 0
}"#), @r#"
    error[E0101]: missing `format_version`
      ┌─ config_fed_client.json:1:1
      │  {
      │  ^
      = write `"format_version": 2`

    error[E0106]: `tasks` must not be empty
      ┌─ config_fed_client.json:3:15   at executors.#1.tasks
      │  {"tasks": [], "executor": {"path": "sample.Trainer"}},
      │            ^^

    error[E0106]: `executor` is missing
      ┌─ config_fed_client.json:4:5   at executors.#2
      │  {"tasks": ["train", 7], "exekutor": {}},
      │  ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^

    error[E0102]: the name of a task must be text and not empty
      ┌─ config_fed_client.json:4:25   at executors.#2.tasks.#2
      │  {"tasks": ["train", 7], "exekutor": {}},
      │                      ^

    error[E0110]: `exekutor` means nothing here
      ┌─ config_fed_client.json:4:29   at executors.#2.exekutor
      │  {"tasks": ["train", 7], "exekutor": {}},
      │                          ^^^^^^^^^^ did you mean `executor`?

    error[E0107]: task `train` has an executor already
      ┌─ config_fed_client.json:5:5   at executors.#3
      │  {"tasks": ["train", "x"], "executor": {"path": "sample.Trainer"}},
      │  ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
      ├─ config_fed_client.json:4:5
      │  {"tasks": ["train", 7], "exekutor": {}},
      │  ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ the first

    error[E0107]: task `x` has an executor already
      ┌─ config_fed_client.json:6:5   at executors.#4
      │  {"tasks": ["x"], "executor": {"args": {}}},
      │  ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
      ├─ config_fed_client.json:5:5
      │  {"tasks": ["train", "x"], "executor": {"path": "sample.Trainer"}},
      │  ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ the first

    error[E0106]: a component needs a `path`, its full name
      ┌─ config_fed_client.json:6:34   at executors.#4.executor
      │  {"tasks": ["x"], "executor": {"args": {}}},
      │                               ^^^^^^^^^^^^

    error[E0102]: this must be an object and is text
      ┌─ config_fed_client.json:7:5   at executors.#5
      │  "no"
      │  ^^^^

    error[E0109]: a direction is one of `in`, `out`, `inout`
      ┌─ config_fed_client.json:10:39   at task_data_filters.#1.direction
      │  {"tasks": ["train"], "direction": "sideways", "filters": []},
      │                                    ^^^^^^^^^^

    error[E0106]: `filters` must not be empty
      ┌─ config_fed_client.json:10:62   at task_data_filters.#1.filters
      │  … ["train"], "direction": "sideways", "filters": []},
      │                                                   ^^

    error[E0109]: filters are for exact names of tasks, and `*` is a pattern
      ┌─ config_fed_client.json:11:16   at task_data_filters.#2.tasks.#1
      │  {"tasks": ["*"], "filters": [{"path": "", "name": "Clip"}]},
      │             ^^^
      = name every task that the filters are for

    error[E0102]: `path` must be text and not empty
      ┌─ config_fed_client.json:11:43   at task_data_filters.#2.filters.#1.path
      │  {"tasks": ["*"], "filters": [{"path": "", "name": "Clip"}]},
      │                                        ^^

    error[E0107]: task `train` has filters for task_data_filters in already
      ┌─ config_fed_client.json:12:5   at task_data_filters.#3
      │  {"tasks": ["train"], "filters": {"path": "sample.Clip"}}
      │  ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
      ├─ config_fed_client.json:10:16
      │  {"tasks": ["train"], "direction": "sideways", "filters": []},
      │             ^^^^^^^ the first

    error[E0102]: this must be a list and is an object
      ┌─ config_fed_client.json:12:37   at task_data_filters.#3.filters
      │  {"tasks": ["train"], "filters": {"path": "sample.Clip"}}
      │                                  ^^^^^^^^^^^^^^^^^^^^^^^

    error[E0106]: a component needs an `id`
      ┌─ config_fed_client.json:15:5   at components.#1
      │  {"path": "sample.Recorder"},
      │  ^^^^^^^^^^^^^^^^^^^^^^^^^^^

    error[E0107]: two components have the id `rec`
      ┌─ config_fed_client.json:17:12   at components.#3.id
      │  {"id": "rec", "path": "sample.Recorder", "arg": {}, "disabled": 1}
      │         ^^^^^
      ├─ config_fed_client.json:16:12
      │  {"id": "rec", "path": "sample.Recorder"},
      │         ^^^^^ the first

    error[E0110]: `arg` means nothing here
      ┌─ config_fed_client.json:17:46   at components.#3.arg
      │  {"id": "rec", "path": "sample.Recorder", "arg": {}, "disabled": 1}
      │                                           ^^^^^ did you mean `args`?

    error[E0102]: `disabled` must be `true` or `false` and is a number
      ┌─ config_fed_client.json:17:69   at components.#3.disabled
      │  …ath": "sample.Recorder", "arg": {}, "disabled": 1}
      │                                                   ^

    error[E0102]: this must be a positive number of seconds
      ┌─ config_fed_client.json:19:34   at default_task_fetch_interval
      │  "default_task_fetch_interval": 0
      │                                 ^
    "#);
}

#[test]
fn a_server_without_workflows_and_a_twice_named_workflow_are_mistakes() {
    assert_snapshot!(mistakes(Side::Server, r#"{"format_version": 2, "workflows": []}"#), @r#"
    error[E0106]: `workflows` must not be empty
      ┌─ config_fed_server.json:1:36   at workflows
      │  {"format_version": 2, "workflows": []}
      │                                     ^^
    "#);
    assert_snapshot!(mistakes(Side::Server, r#"{"format_version": 2,
  "workflows": [{"id": "w", "path": "sample.Average"}, {"id": "w", "path": "sample.Average", "args": [1]}]}"#), @r#"
    error[E0107]: two workflows have the id `w`
      ┌─ config_fed_server.json:2:63   at workflows.#2.id
      │  … [{"id": "w", "path": "sample.Average"}, {"id": "w", "path": "sample.Average", "args": [1]}]}
      │                                                   ^^^

    error[E0102]: `args` must be an object and is a list
      ┌─ config_fed_server.json:2:102   at workflows.#2.args
      │  …, {"id": "w", "path": "sample.Average", "args": [1]}]}
      │                                                   ^^^
    "#);
}

#[test]
fn a_component_that_many_could_be_is_not_guessed() {
    struct Other;
    impl locule_component::Component for Other {
        const KIND: locule_component::Kind = locule_component::Kind::Executor;
        const NAME: &'static str = "other.Trainer";
        type Args = sample::NoArgs;
        fn build(
            _: sample::NoArgs,
            _: &locule_component::BuildCx<'_>,
        ) -> Result<locule_component::Built, locule_component::BuildError> {
            Err(locule_component::BuildError::NoChild)
        }
    }
    let mut registry = sample::registry();
    registry.register::<Other>();
    let document = Document::parse_json("app.json", &site_job(json!({"name": "Trainer"})).to_string())
        .unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let mistakes = Plan::from_document(&document, Side::Site, &registry).expect_err("the name is ambiguous");
    let mistake = mistakes.iter().next().expect("there is one");
    assert_eq!(mistake.message, "`Trainer` may be several components");
    assert_eq!(mistake.help.as_deref(), Some("executors: sample.Trainer, other.Trainer"));
}

#[test]
fn keys_without_meaning_are_warnings_unless_nearly_right() {
    let plan = site_plan(json!({
        "format_version": 2,
        "executors": [{"tasks": ["t"], "comment": "hello", "executor": {"path": "sample.Trainer", "note": 1}}],
        "workflows": [],
        "my_variable": 3,
    }));
    let warnings: Vec<&str> = plan.warnings().iter().map(|warning| warning.path.as_str()).collect();
    assert_eq!(warnings, ["executors.#1.comment", "executors.#1.executor.note", "workflows", "my_variable"]);
}

#[test]
fn the_digest_depends_on_the_meaning_and_not_on_the_writing() {
    let digest =
        |text: &str| plan_of(Side::Site, text).unwrap_or_else(|m| panic!("{m}")).digest().to_string();
    let written = r#"{"format_version":2,"executors":[{"tasks":["t"],"executor":{"path":"sample.Trainer","args":{"label":"a","delta":1.5}}}]}"#;
    let same = r#"{ // the same
        "format_version": 2,
        "executors": [{"executor": {"args": {"delta": 1.5, "label": "\u0061"}, "path": "sample.Trainer"}, "tasks": ["t"]}]}"#;
    assert_eq!(digest(written), digest(same));
    assert_eq!(digest(written).len(), 64);
    for (from, to) in
        [("1.5", "1.6"), ("\"t\"", "\"u\""), ("sample.Trainer", "nvflare.app_common.np.np_trainer.NPTrainer")]
    {
        assert_ne!(digest(written), digest(&written.replace(from, to)), "{from} to {to}");
    }
}

#[test]
fn the_number_of_components_is_bounded() {
    let filters: Vec<Value> =
        (0..=Plan::MAX_COMPONENTS).map(|_| json!({"path": "sample.Clip", "args": {"mark": ""}})).collect();
    let mut job = site_job(json!({"path": "sample.Trainer"}));
    job["task_data_filters"] = json!([{"tasks": ["t"], "filters": filters}]);
    let mistakes = plan_of(Side::Site, &job.to_string()).expect_err("there are too many");
    assert_eq!(mistakes.iter().map(|mistake| mistake.code).collect::<Vec<_>>(), [code::TOO_MUCH]);
}

proptest! {
    #[test]
    fn no_document_makes_planning_panic(text in "(\\{|\\}|\\[|\\]|,|:|\"(executors|tasks|executor|path|name|args|sample.Clip|sample.Trainer|format_version|components|id)\"|2|null){0,40}") {
        for side in [Side::Server, Side::Site] {
            let _ = plan_of(side, &text).map_err(|mistakes| mistakes.to_string());
        }
    }

    #[test]
    fn any_values_in_known_places_make_planning_answer(a in value(), b in value(), c in value()) {
        let job = json!({"format_version": 2, "executors": a, "task_data_filters": [b.clone()], "workflows": c,
            "components": [{"id": "x", "path": "sample.Recorder", "args": b}]});
        for side in [Side::Server, Side::Site] {
            let _ = plan_of(side, &job.to_string()).map_err(|mistakes| mistakes.to_string());
        }
    }
}

fn value() -> impl Strategy<Value = Value> {
    let word = prop::sample::select(vec![
        "tasks",
        "executor",
        "filters",
        "path",
        "name",
        "args",
        "id",
        "sample.Trainer",
        "Clip",
        "clip",
        "clips",
        "x",
    ]);
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<i32>().prop_map(|n| json!(n)),
        word.clone().prop_map(|w| json!(w))
    ];
    leaf.prop_recursive(4, 32, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::vec((word.clone(), inner), 0..4).prop_map(|entries| entries
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value))
                .collect()),
        ]
    })
}

#[test]
fn two_components_at_one_path_are_a_mistake() {
    let clip = json!({ "path": "sample.Clip", "args": { "mark": "a" } });
    for args in [json!({ "x.y": clip, "x": { "y": clip } }), json!({ "clips": [clip], "clips.#1": clip })] {
        let executor =
            json!({ "path": "nvflare.app_common.np.np_trainer.NPTrainer", "args": { "clips": args } });
        let shown = mistakes(Side::Site, &site_job(executor).to_string());
        assert!(shown.contains("error[E0107]: another component has the path"), "{shown}");
        assert!(shown.contains("config_fed_client.json:1:"), "{shown}");
        assert!(shown.contains("use a key without a `.`"), "{shown}");
    }
}

fn approved(plan: &Plan, verdicts: Vec<Verdict>) -> Result<(), locule_component::Refused> {
    let report = CheckerReport { checker: "own".into(), plan: plan.digest().clone(), outcome: Ok(verdicts) };
    plan.clone().approve(vec![report]).map(|_| ())
}

fn finding(code: &str, message: &str) -> Finding {
    Finding { code: code.into(), message: message.into(), path: "executors.#1.executor".into(), public: true }
}

#[test]
fn a_denial_steers_no_terminal_and_adds_no_line() {
    let plan = site_plan(site_job(json!({ "path": "sample.Trainer" })));
    let message = "it's\r\nFINISHED \u{1b}]0;title\u{7}\u{1b}[2J \u{202e}lla si\u{2066} \u{200b}\u{9b}1m";
    let refused = approved(&plan, vec![Verdict::deny("executors.#1.executor", finding("no", message))]);
    let refused = refused.expect_err("it is denied");
    assert_eq!(refused.findings[0].message, message);
    let expected = r"executors.#1.executor: it's\r\nFINISHED \u{1b}]0;title\u{7}\u{1b}[2J \u{202e}lla si\u{2066} \u{200b}\u{9b}1m [no, own]";
    assert_eq!(refused.findings[0].to_string(), expected);
    assert_eq!(refused.to_string(), format!("plan refused: {expected}"));
}

#[test]
fn an_answer_about_no_component_of_the_plan_or_with_a_code_that_is_no_word_is_no_judgement() {
    let plan = site_plan(site_job(json!({ "path": "sample.Trainer" })));
    for (verdict, why) in [
        (Verdict::allow("executors.#2.executor"), "no component at `executors.#2.executor`"),
        (Verdict::allow("executors.#1"), "no component at `executors.#1`"),
        (Verdict::warn("", finding("No\u{1b}", "no")), r"and not `No\u{1b}`"),
        (Verdict::warn("", finding("", "no")), "and not ``"),
        (Verdict::deny("", finding(&"a".repeat(65), "no")), "1 to 64 lower-case letters"),
    ] {
        let refused = approved(&plan, vec![verdict]).expect_err("there is no judgement");
        assert_eq!(refused.findings[0].code, Denial::CHECKER_FAILED);
        assert!(refused.findings[0].message.contains(why), "{refused}");
    }
    approved(&plan, vec![Verdict::warn("executors.#1.executor", finding("a-1", "no"))])
        .expect("it is a judgement");
}
