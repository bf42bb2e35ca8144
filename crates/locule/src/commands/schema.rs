//! `locule schema`: JSON Schema of components' arguments, and of the documents of a job.

use anyhow::anyhow;
use locule_component::{Description, Kind, Registry};
use serde_json::{Value, json};

use super::say;
use crate::arguments::Schema;
#[cfg(feature = "nats")]
use crate::broker::BrokerSettings;
use crate::exit::{Code, Failure};
use crate::launcher::LauncherSettings;
use crate::retention::RetentionSettings;
use crate::scheduler::SchedulerSettings;
use crate::wire;

/// Prints a schema; without a name, the names that there are.
pub(crate) fn schema(Schema { name }: &Schema) -> Result<(), Failure> {
    let registry = wire::registry();
    let mut shown = match name.as_deref() {
        None => return names(&registry),
        Some("job-client") => document(&registry, "config_fed_client", "executors", Kind::Executor),
        Some("job-server") => document(&registry, "config_fed_server", "workflows", Kind::Workflow),
        Some(LauncherSettings::KEY) => schemars::schema_for!(LauncherSettings).to_value(),
        #[cfg(feature = "nats")]
        Some(BrokerSettings::KEY) => schemars::schema_for!(BrokerSettings).to_value(),
        Some(RetentionSettings::KEY) => schemars::schema_for!(RetentionSettings).to_value(),
        Some(SchedulerSettings::KEY) => schemars::schema_for!(SchedulerSettings).to_value(),
        Some(name) => {
            let about = registry.describe(name).ok_or_else(|| unknown(&registry, name))?;
            let mut schema = args(&registry, &about);
            schema["$schema"] = DIALECT.into();
            schema["title"] = format!("Arguments of {}", about.name).into();
            schema
        }
    };
    without_links(&mut shown);
    say(&format!("{shown:#}"));
    Ok(())
}

const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// Takes the links of the program's own documentation out of descriptions: of ``[`X`](y)`` stays `` `X` ``.
fn without_links(schema: &mut Value) {
    match schema {
        Value::Object(entries) => {
            for (key, value) in entries.iter_mut() {
                match value.as_str().filter(|_| key == "description" || key == "title") {
                    Some(text) => *value = plain(text).into(),
                    None => without_links(value),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(without_links),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn plain(text: &str) -> String {
    let mut shown = String::new();
    let mut rest = text;
    while let Some((before, link)) = rest.split_once("[`") {
        let Some((name, after)) = link.split_once("`]") else { break };
        shown += &format!("{before}`{name}`");
        let target = after.strip_prefix('(').and_then(|after| after.split_once(')'));
        rest = target.map_or(after, |(_, after)| after);
    }
    shown + rest
}

fn names(registry: &Registry) -> Result<(), Failure> {
    say("job-client\njob-server\nlauncher");
    #[cfg(feature = "nats")]
    say(BrokerSettings::KEY);
    say("retention\nscheduler");
    for kind in Kind::ALL {
        registry.names(kind).for_each(say);
    }
    Ok(())
}

fn unknown(registry: &Registry, name: &str) -> Failure {
    let near = registry.suggest(name, &Kind::ALL);
    let near = near.map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
    Failure::new(Code::Usage, anyhow!("nothing is registered as `{name}`{near}"))
}

/// The arguments of a component; anything where it does not say.
fn args(registry: &Registry, about: &Description) -> Value {
    registry.args_schema(about.name).unwrap_or_else(|| json!({ "type": "object" }))
}

/// The document of one half of a job, in nvflare's layout.
fn document(registry: &Registry, title: &str, list: &str, kind: Kind) -> Value {
    let mut definitions = serde_json::Map::new();
    for kind in [Kind::Executor, Kind::Workflow, Kind::Filter, Kind::Observer, Kind::Service] {
        let components: Vec<Value> = registry.names(kind).map(|name| component(registry, name)).collect();
        definitions.insert(kind.as_str().to_owned(), json!({ "anyOf": components }));
    }
    let of = |kind: Kind| json!({ "$ref": format!("#/$defs/{kind}") });
    let tasks = json!({ "type": "array", "items": { "type": "string" }, "minItems": 1 });
    let filters = json!({ "type": "array", "items": {
        "type": "object",
        "required": ["tasks", "filters"],
        "properties": {
            "tasks": tasks,
            "direction": { "enum": ["in", "out", "inout"] },
            "filters": { "type": "array", "items": of(Kind::Filter) },
        },
    } });
    let entries = match kind {
        Kind::Executor => json!({
            "type": "object",
            "required": ["tasks", "executor"],
            "properties": { "tasks": tasks, "executor": of(kind) },
        }),
        Kind::Workflow | Kind::Filter | Kind::Checker | Kind::Gate | Kind::Observer | Kind::Service => {
            of(kind)
        }
    };
    let components = [of(Kind::Service), of(Kind::Observer), of(Kind::Filter)];
    json!({
        "$schema": DIALECT,
        "title": title,
        "type": "object",
        "required": ["format_version", list],
        "properties": {
            "format_version": { "const": 2 },
            list: { "type": "array", "items": entries },
            "components": { "type": "array", "items": { "anyOf": components } },
            "task_data_filters": filters,
            "task_result_filters": filters,
        },
        "$defs": definitions,
    })
}

fn component(registry: &Registry, name: &str) -> Value {
    let Some(about) = registry.describe(name) else { return json!(false) };
    let names: Vec<&str> = std::iter::once(about.name).chain(about.aliases.iter().copied()).collect();
    let mut args = args(registry, &about);
    if let Some(args) = args.as_object_mut() {
        args.shift_remove("$schema");
    }
    let mut schema = json!({
        "type": "object",
        "required": ["path"],
        "properties": {
            "id": { "type": "string" },
            "path": { "enum": names },
            "args": args,
            "disabled": { "type": "boolean" },
        },
    });
    // Arguments that must be there make `args` itself one that must.
    if schema["properties"]["args"]["required"].as_array().is_some_and(|required| !required.is_empty()) {
        schema["required"] = json!(["path", "args"]);
    }
    schema
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_component_has_a_schema_of_its_arguments() {
        let registry = wire::registry();
        for name in Kind::ALL.into_iter().flat_map(|kind| registry.names(kind)) {
            let schema = registry.args_schema(name).unwrap_or_else(|| panic!("{name} has none"));
            assert_eq!(schema["type"], "object", "{name}: {schema}");
        }
    }

    #[test]
    fn no_description_has_links_of_the_documentation() {
        assert_eq!(plain("as [`A`] and [`B::c`](B#c), [d] of `e`"), "as `A` and `B::c`, [d] of `e`");
        let registry = wire::registry();
        for name in Kind::ALL.into_iter().flat_map(|kind| registry.names(kind)) {
            let mut schema = registry.args_schema(name).unwrap_or_default();
            without_links(&mut schema);
            assert!(!schema.to_string().contains("[`"), "{name}: {schema}");
        }
    }

    #[test]
    fn a_schema_tells_names_defaults_and_what_they_mean() {
        let registry = wire::registry();
        let schema = registry.args_schema("locule.workflow.FedAvg").unwrap();
        let rounds = &schema["properties"]["num_rounds"];
        assert_eq!(
            (&rounds["type"], schema["additionalProperties"].as_bool()),
            (&json!("integer"), Some(false))
        );
        assert!(rounds["description"].is_string(), "{schema}");
        let document = document(&registry, "config_fed_client", "executors", Kind::Executor);
        let executors = document["$defs"]["executor"]["anyOf"].as_array().unwrap();
        assert_eq!(executors.len(), registry.names(Kind::Executor).count());
    }
}
