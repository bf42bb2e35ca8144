//! The review document: what checkers of every language are shown of a plan.

use locule_component::{ComponentSpec, PlanReview};
use serde_json::{Value as Json, json};

/// JSON Schema of the review document, version 1.
pub const REVIEW_SCHEMA: &str = include_str!("../schema/review-1.json");

/// The document about a plan, as [`REVIEW_SCHEMA`] describes it; `args` are the operator's.
pub fn review_document(review: &PlanReview<'_>, args: &Json) -> Json {
    let PlanReview { plan, config, job, site, phase } = review;
    let components: Vec<Json> = plan.components().iter().map(|spec| component(spec, config)).collect();
    json!({
        "schema": 1,
        "phase": phase,
        "plan": { "digest": plan.digest(), "side": plan.side() },
        "components": components,
        "config": config,
        "job": {
            "job_id": job.job_id,
            "name": job.name,
            "submitter_name": job.submitter_name,
            "submitter_org": job.submitter_org,
            "submitter_role": job.submitter_role,
            "byoc": job.byoc,
            "meta": job.meta,
        },
        "site": { "name": site.name, "org": site.org, "side": site.side, "workspace": site.workspace },
        "files": job.files,
        "args": args,
    })
}

fn component(spec: &ComponentSpec, config: &Json) -> Json {
    json!({
        "id": spec.id,
        "label": spec.label(),
        "kind": spec.kind,
        "name": spec.name,
        "aliases": spec.aliases,
        "requested": spec.requested,
        "requested_by": spec.requested_by,
        "args": spec.args,
        "element": element(config, spec.path.as_str()),
        "path": spec.path,
        "file": spec.file,
        "line": spec.line,
        "column": spec.column,
        "ancestors": spec.ancestors,
        "disabled": spec.disabled,
    })
}

/// What stands at a path. A key may itself hold dots, so the longest that fits is taken first.
fn element<'a>(value: &'a Json, path: &str) -> Option<&'a Json> {
    if path.is_empty() {
        return Some(value);
    }
    if let Json::Array(items) = value {
        let (step, rest) = path.split_once('.').unwrap_or((path, ""));
        let number: usize = step.strip_prefix('#')?.parse().ok()?;
        return element(items.get(number.checked_sub(1)?)?, rest);
    }
    let entries = value.as_object()?;
    let ends = path.match_indices('.').map(|(dot, _)| (dot, dot + 1)).chain([(path.len(), path.len())]);
    let ends: Vec<(usize, usize)> = ends.collect();
    ends.into_iter().rev().find_map(|(end, next)| element(entries.get(&path[..end])?, &path[next..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_element_at_a_path_is_found_whatever_its_keys_hold() {
        let config = json!({ "a": [{ "x.y": { "b": 1 } }, 2], "x": { "y": 3 } });
        for (path, expected) in [
            ("", Some(config.clone())),
            ("a.#1.x.y.b", Some(json!(1))),
            ("a.#2", Some(json!(2))),
            ("x.y", Some(json!(3))),
            ("a.#3", None),
            ("a.#0", None),
            ("x.z", None),
        ] {
            assert_eq!(element(&config, path), expected.as_ref(), "{path}");
        }
    }

    #[test]
    fn the_schema_is_json() {
        assert!(serde_json::from_str::<Json>(REVIEW_SCHEMA).is_ok());
    }
}
