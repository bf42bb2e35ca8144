//! A job's meta: from the wire to a file, and whether two of them are of one job.

use locule_fobs::{Map, Value};
use serde_json::Value as Json;

/// Fields in which the meta of a start must be that of the deployment.
///
/// # Source
/// nvflare 2.9.0, `nvflare.private.fed.client.client_executor`.
const FIXED: [&str; 5] = ["job_id", "resource_spec", "launcher_spec", "scope", "study"];

/// The meta as JSON. What JSON has no form for is left out as null; enumerations go by their member's name.
pub(crate) fn to_json(meta: &Map) -> Json {
    let entries = meta.iter_str().map(|(key, value)| (key.to_owned(), value_to_json(value)));
    Json::Object(entries.collect())
}

/// The first of the fixed fields in which two metas differ. A field that is null counts as absent.
pub(crate) fn difference(deployed: &Json, started: &Json) -> Option<&'static str> {
    let field = |meta: &Json, key: &str| meta.get(key).filter(|value| !value.is_null()).cloned();
    FIXED.into_iter().find(|key| field(deployed, key) != field(started, key))
}

fn value_to_json(value: &Value) -> Json {
    match value {
        Value::Bool(value) => Json::from(*value),
        Value::Int(value) => Json::from(*value),
        Value::UInt(value) => Json::from(*value),
        Value::Float(value) => Json::from(*value),
        Value::Str(text) | Value::Datetime(text) => Json::from(text.as_str()),
        Value::Enum { member, .. } => Json::from(member.as_str()),
        Value::List(items) | Value::Tuple(items) | Value::Set(items) => {
            Json::Array(items.iter().map(value_to_json).collect())
        }
        Value::Map(map) => to_json(map),
        Value::OrderedDict(entries) => {
            let entries = entries
                .iter()
                .filter_map(|(key, value)| Some((key.as_str()?.to_owned(), value_to_json(value))));
            Json::Object(entries.collect())
        }
        Value::None
        | Value::Bytes(_)
        | Value::Array(_)
        | Value::OpaqueArray(_)
        | Value::ArrayRef(_)
        | Value::Scalar(_)
        | Value::Shareable(_)
        | Value::Dxo(_)
        | Value::Context(_)
        | Value::Datum(_)
        | Value::Object(_) => Json::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn meta_becomes_json() {
        let mut meta = Map::new();
        meta.insert("name", "training");
        meta.insert("min_clients", 2_i64);
        meta.insert("submit_time", 1.5_f64);
        meta.insert("study", Value::None);
        meta.insert("job_clients", vec![Map::from_iter([("name", "site-1")])]);
        let expected = json!({
            "name": "training", "min_clients": 2, "submit_time": 1.5, "study": null,
            "job_clients": [{ "name": "site-1" }],
        });
        assert_eq!(to_json(&meta), expected);
    }

    #[test]
    fn only_fixed_fields_are_compared() {
        let deployed = json!({ "job_id": "a", "resource_spec": { "x": 1, "y": 2 }, "status": "SUBMITTED" });
        let same =
            json!({ "job_id": "a", "resource_spec": { "y": 2, "x": 1 }, "status": "RUNNING", "scope": null });
        assert_eq!(difference(&deployed, &same), None);
        for (key, value) in [
            ("job_id", json!("b")),
            ("resource_spec", json!({ "x": 1 })),
            ("launcher_spec", json!({})),
            ("scope", json!("public")),
            ("study", json!("s")),
        ] {
            let mut other = same.clone();
            other[key] = value;
            assert_eq!(difference(&deployed, &other), Some(key));
        }
    }
}
