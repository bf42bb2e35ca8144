//! A participant's privacy scopes: which hold for a job, how mistakes are shown, and what comes before what.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;

use insta::assert_snapshot;
use locule_component::{
    Assembled, BuildCx, BuildError, Built, Chain, Component, ConstructionCount, Direction, FilterChains,
    FilterCx, FilterError, Kind, PrivacyScopes, Registry, RunContext, ScopeNames, Side, TaskFilter,
};
use locule_config::{Diagnostics, Document};
use locule_fobs::Shareable;
use serde::Deserialize;

/// Leaves its letter in the payload.
struct Stamp(String);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StampArgs {
    letter: String,
}

impl Component for Stamp {
    const KIND: Kind = Kind::Filter;
    const NAME: &'static str = "test.Stamp";
    type Args = StampArgs;

    fn build(args: StampArgs, _: &BuildCx<'_>) -> Result<Built, BuildError> {
        Ok(Built::Filter(Box::new(Stamp(args.letter))))
    }
}

impl TaskFilter for Stamp {
    fn apply(&mut self, mut data: Shareable, _: &FilterCx<'_>) -> Result<Shareable, FilterError> {
        let so_far = data.fields.str("stamps").unwrap_or_default().to_owned();
        data.fields.insert("stamps", so_far + &self.0);
        Ok(data)
    }
}

/// Stands for what is no filter.
struct Runner;

impl Component for Runner {
    const KIND: Kind = Kind::Executor;
    const NAME: &'static str = "test.Runner";
    type Args = StampArgs;

    fn build(_: StampArgs, _: &BuildCx<'_>) -> Result<Built, BuildError> {
        Err(BuildError::Unavailable("it is not built".into()))
    }
}

fn registry() -> Registry {
    let mut registry = Registry::new();
    registry.register::<Stamp>().register::<Runner>();
    registry
}

fn scopes(side: Side, text: &str) -> Result<PrivacyScopes, Diagnostics> {
    PrivacyScopes::from_document(&Document::parse_json("local/privacy.json", text)?, side, &registry())
}

const HOSPITAL: &str = r#"{
  "scopes": [
    { "name": "public",
      "properties": { "data": "/data/public" },
      "task_result_filters": [
        { "path": "test.Stamp", "args": { "letter": "a" } },
        { "name": "Stamp", "args": { "letter": "b" }, "direction": "INOUT" },
        { "path": "test.Stamp", "args": { "letter": "z" }, "disabled": true } ],
      "task_data_filters": [{ "path": "test.Stamp", "args": { "letter": "c" } }] },
    { "name": "research" } ],
  "default_scope": "public" }"#;

fn stamps(chains: &mut FilterChains, task: &str, chain: Chain, direction: Direction) -> String {
    let context = RunContext::new("site-1", "job").open();
    let cx = FilterCx { site: "site-1", job_id: "job", task, chain, direction, context: &context };
    let data = chains.apply(Shareable::new(), &cx).unwrap();
    data.fields.str("stamps").unwrap_or_default().to_owned()
}

#[test]
fn filters_of_a_scope_come_before_those_of_the_job_for_every_task() {
    use Direction::{In, Out};
    let (kit, count) = (Path::new("kit"), ConstructionCount::new());
    for (side, own) in [(Side::Site, [(In, Out), (Out, In)]), (Side::Server, [(Out, In), (In, Out)])] {
        let cx = BuildCx::new(side, "x", "job", kit, kit, &count);
        let scopes = scopes(side, HOSPITAL).unwrap();
        let mut built = Assembled::default();
        let job: Box<dyn TaskFilter> = Box::new(Stamp("j".into()));
        built.filters.append(Chain::TaskResult, &[In, Out], &["train".into()], vec![job]);
        let scope = scopes.effective("").unwrap();
        scopes.build(scope, &registry(), &cx).unwrap().precede(&mut built);
        let chains = &mut built.filters;
        let [(data, result), (no_data, other)] = own;
        assert_eq!(stamps(chains, "train", Chain::TaskResult, result), "abj");
        assert_eq!(stamps(chains, "train", Chain::TaskResult, other), "bj");
        assert_eq!(stamps(chains, "other", Chain::TaskResult, result), "ab");
        assert_eq!(stamps(chains, "train", Chain::TaskData, data), "c");
        assert_eq!(stamps(chains, "train", Chain::TaskData, no_data), "");
    }
}

#[test]
fn a_job_has_the_scope_that_it_names_or_the_default() {
    let hospital = scopes(Side::Site, HOSPITAL).unwrap();
    assert_eq!(hospital.effective("research").unwrap().name, "research");
    assert_eq!(hospital.effective("").unwrap().properties["data"], "/data/public");
    let refused = hospital.effective("nosuch").unwrap_err();
    assert_eq!(refused.to_string(), "privacy scope 'nosuch' is not allowed");
    let strict = r#"{ "scopes": [{ "name": "research" }] }"#;
    let refused = scopes(Side::Site, strict).unwrap().effective("").err().unwrap();
    assert_eq!(refused.to_string(), "privacy scope '' is not allowed");
    let long = hospital.effective(&"\n".repeat(1000)).unwrap_err().to_string();
    assert!(long.len() < 150 && !long.contains('\n'));
}

#[test]
fn every_mistake_is_shown_at_its_place() {
    let text = r#"{
  "scopes": [
    { "name": "public",
      "task_result_filter": [],
      "task_result_filters": [
        { "path": "test.Stmp", "args": { "letter": "a" } },
        { "path": "test.Runner", "args": { "letter": "a" } },
        { "path": "test.Stamp", "args": { "leter": "a" } },
        { "path": "test.Stamp", "args": { "letter": "a" }, "direction": "away" },
        { "path": "test.Stamp", "args": { "letter": "a" }, "directon": "in" } ] },
    { "name": "public", "properties": 3 },
    { "task_data_filters": {} } ],
  "default_scope": "pubic",
  "default": "x" }"#;
    assert_snapshot!(scopes(Side::Site, text).unwrap_err(), @r#"
    error[E0110]: `task_result_filter` means nothing here
      ┌─ local/privacy.json:4:7   at scopes.#1.task_result_filter
      │  "task_result_filter": [],
      │  ^^^^^^^^^^^^^^^^^^^^ did you mean `task_result_filters`?
      = known: name, properties, task_data_filters, task_result_filters

    error[E0103]: unknown component `test.Stmp`
      ┌─ local/privacy.json:6:19   at scopes.#1.task_result_filters.#1.path
      │  { "path": "test.Stmp", "args": { "letter": "a" } },
      │            ^^^^^^^^^^^ did you mean `test.Stamp`?
      = filters: test.Stamp

    error[E0108]: `test.Runner` is an executor and cannot stand here
      ┌─ local/privacy.json:7:19   at scopes.#1.task_result_filters.#2.path
      │  { "path": "test.Runner", "args": { "letter": "a" } },
      │            ^^^^^^^^^^^^^ expected: filter
      = executors stand under `executors` of the site's half

    error[E0105]: missing argument `letter`, in the arguments of `test.Stamp`
      ┌─ local/privacy.json:8:41   at scopes.#1.task_result_filters.#3.args
      │  { "path": "test.Stamp", "args": { "leter": "a" } },
      │                                  ^^^^^^^^^^^^^^^^

    error[E0104]: unknown argument `leter`
      ┌─ local/privacy.json:8:43   at scopes.#1.task_result_filters.#3.args.leter
      │  { "path": "test.Stamp", "args": { "leter": "a" } },
      │                                    ^^^^^^^ did you mean `letter`?
      = arguments: letter

    error[E0109]: a direction is one of `in`, `out`, `inout`
      ┌─ local/privacy.json:9:73   at scopes.#1.task_result_filters.#4.direction
      │  …Stamp", "args": { "letter": "a" }, "direction": "away" },
      │                                                   ^^^^^^

    error[E0110]: `directon` means nothing here
      ┌─ local/privacy.json:10:60   at scopes.#1.task_result_filters.#5.directon
      │  …path": "test.Stamp", "args": { "letter": "a" }, "directon": "in" } ] },
      │                                                   ^^^^^^^^^^ did you mean `direction`?

    error[E0107]: two scopes have the name `public`
      ┌─ local/privacy.json:11:15   at scopes.#2.name
      │  { "name": "public", "properties": 3 },
      │            ^^^^^^^^
      ├─ local/privacy.json:3:15
      │  { "name": "public",
      │            ^^^^^^^^ the first

    error[E0102]: `properties` must be an object and is a number
      ┌─ local/privacy.json:11:39   at scopes.#2.properties
      │  { "name": "public", "properties": 3 },
      │                                    ^

    error[E0106]: a scope needs a `name`
      ┌─ local/privacy.json:12:5   at scopes.#3
      │  { "task_data_filters": {} } ],
      │  ^^^^^^^^^^^^^^^^^^^^^^^^^^^

    error[E0102]: this must be a list and is an object
      ┌─ local/privacy.json:12:28   at scopes.#3.task_data_filters
      │  { "task_data_filters": {} } ],
      │                         ^^

    error[E0109]: the default scope `pubic` does not exist
      ┌─ local/privacy.json:13:20   at default_scope
      │  "default_scope": "pubic",
      │                   ^^^^^^^ did you mean `public`?
      = scopes: public

    error[E0110]: `default` means nothing here
      ┌─ local/privacy.json:14:3   at default
      │  "default": "x" }
      │  ^^^^^^^^^
      = known: format_version, scopes, default_scope, components
    "#);
}

#[test]
fn a_policy_that_protects_nothing_is_a_mistake() {
    for text in [
        "{}",
        r#"{ "scopes": [] }"#,
        r#"{ "scopes": {} }"#,
        r#"{ "scope": [{ "name": "a" }] }"#,
        r#"{ "scopes": [{ "name": "" }] }"#,
        r#"{ "scopes": [7] }"#,
        r#"{ "scopes": [{ "name": "a" }], "default_scope": "b" }"#,
        r#"{ "scopes": [{ "name": "a" }, { "name": "a" }] }"#,
    ] {
        let document = Document::parse_json("local/privacy.json", text).unwrap();
        assert!(ScopeNames::from_document(&document).is_err(), "{text}");
        assert!(scopes(Side::Site, text).is_err(), "{text}");
    }
}

#[test]
fn the_names_alone_are_the_same_as_in_the_whole() {
    let document = Document::parse_json("local/privacy.json", HOSPITAL).unwrap();
    let names = ScopeNames::from_document(&document).unwrap();
    assert_eq!(&names, scopes(Side::Site, HOSPITAL).unwrap().names());
    assert_eq!(
        (names.names().collect::<Vec<_>>(), names.default_scope()),
        (vec!["public", "research"], Some("public"))
    );
}
