//! The review document: what checkers of every language are shown of a plan.

use std::io::{self, Write};

use locule_component::{
    AppFile, ComponentSpec, ConfigPath, Kind, NameKey, Phase, PlanDigest, PlanReview, Side,
};
use serde::Serialize;
use serde_json::Value as Json;

use crate::wire::MAX_REQUEST;

/// JSON Schema of the review document, version 1.
pub const REVIEW_SCHEMA: &str = include_str!("../schema/review-1.json");

/// The document about a plan as JSON, as [`REVIEW_SCHEMA`] describes it; `args` are the operator's.
///
/// # Errors
/// [`TooLong`]: what lies in the arguments of components within components stands in it many times, so that a short
/// configuration can make a long document.
pub fn review_document(review: &PlanReview<'_>, args: &Json) -> Result<String, TooLong> {
    let PlanReview { plan, config, job, site, phase } = *review;
    let document = Document {
        schema: 1,
        phase,
        plan: PlanPart { digest: plan.digest(), side: plan.side() },
        components: plan.components().iter().map(|spec| ComponentPart::new(spec, config)).collect(),
        config,
        job: JobPart {
            job_id: &job.job_id,
            name: &job.name,
            submitter_name: &job.submitter_name,
            submitter_org: &job.submitter_org,
            submitter_role: &job.submitter_role,
            byoc: job.byoc,
            meta: &job.meta,
        },
        site: SitePart {
            name: &site.name,
            org: &site.org,
            side: site.side,
            workspace: site.workspace.to_string_lossy().into_owned(),
        },
        files: &job.files,
        args,
    };
    let mut text = Bounded(Vec::new());
    serde_json::to_writer(&mut text, &document).map_err(|_| TooLong)?;
    String::from_utf8(text.0).map_err(|_| TooLong)
}

/// A review document that is longer than a checker takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("what checkers are to be shown of the plan is longer than {MAX_DOCUMENT} bytes")]
pub struct TooLong;

/// Longest review document, in bytes: a message, less what is around the document.
const MAX_DOCUMENT: usize = MAX_REQUEST - 1024;

struct Bounded(Vec<u8>);

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_DOCUMENT {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    phase: Phase,
    plan: PlanPart<'a>,
    components: Vec<ComponentPart<'a>>,
    config: &'a Json,
    job: JobPart<'a>,
    site: SitePart<'a>,
    files: &'a [AppFile],
    args: &'a Json,
}

#[derive(Serialize)]
struct PlanPart<'a> {
    digest: &'a PlanDigest,
    side: Side,
}

#[derive(Serialize)]
struct JobPart<'a> {
    job_id: &'a str,
    name: &'a str,
    submitter_name: &'a str,
    submitter_org: &'a str,
    submitter_role: &'a str,
    byoc: bool,
    meta: &'a Json,
}

#[derive(Serialize)]
struct SitePart<'a> {
    name: &'a str,
    org: &'a str,
    side: Side,
    workspace: String,
}

#[derive(Serialize)]
struct ComponentPart<'a> {
    id: Option<&'a str>,
    label: &'a str,
    kind: Kind,
    name: &'a str,
    aliases: &'a [&'a str],
    requested: &'a str,
    requested_by: NameKey,
    args: &'a Json,
    element: Option<&'a Json>,
    path: &'a ConfigPath,
    steps: &'a [String],
    file: &'a str,
    line: usize,
    column: usize,
    ancestors: &'a [ConfigPath],
    disabled: bool,
}

impl<'a> ComponentPart<'a> {
    fn new(spec: &'a ComponentSpec, config: &'a Json) -> Self {
        Self {
            id: spec.id.as_deref(),
            label: spec.label(),
            kind: spec.kind,
            name: spec.name,
            aliases: spec.aliases,
            requested: &spec.requested,
            requested_by: spec.requested_by,
            args: &spec.args,
            element: element(config, &spec.steps),
            path: &spec.path,
            steps: &spec.steps,
            file: &spec.file,
            line: spec.line,
            column: spec.column,
            ancestors: &spec.ancestors,
            disabled: spec.disabled,
        }
    }
}

/// What the steps lead to: `#1` is an item of a list where there is a list, and a key where there is an object.
fn element<'a>(config: &'a Json, steps: &[String]) -> Option<&'a Json> {
    steps.iter().try_fold(config, |value, step| match value {
        Json::Array(items) => items.get(step.strip_prefix('#')?.parse::<usize>().ok()?.checked_sub(1)?),
        Json::Object(entries) => entries.get(step),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_document_ends_at_its_bound() {
        let mut text = Bounded(Vec::new());
        let mebibyte = vec![b'x'; 1 << 20];
        let written = (0..64).take_while(|_| text.write_all(&mebibyte).is_ok()).count();
        assert_eq!(written, 63);
    }

    #[test]
    fn steps_lead_to_one_element_whatever_its_keys_hold() {
        let config = json!({
            "a": [{ "x.y": 1, "x": { "y": 2 } }], "a.#1": { "x": { "y": 3 } }, "b": { "#1": 4 },
        });
        for (steps, expected) in [
            (&[][..], Some(config.clone())),
            (&["a", "#1", "x.y"], Some(json!(1))),
            (&["a", "#1", "x", "y"], Some(json!(2))),
            (&["a.#1", "x", "y"], Some(json!(3))),
            (&["b", "#1"], Some(json!(4))),
            (&["a", "#2"], None),
            (&["a", "#0"], None),
            (&["a", "1"], None),
        ] {
            let steps: Vec<String> = steps.iter().map(|step| (*step).to_owned()).collect();
            assert_eq!(element(&config, &steps), expected.as_ref(), "{steps:?}");
        }
    }

    #[test]
    fn the_schema_is_json() {
        assert!(serde_json::from_str::<Json>(REVIEW_SCHEMA).is_ok());
    }
}
