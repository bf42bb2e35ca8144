//! What may stand where in a review document, as its schema says.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use locule_checker::REVIEW_SCHEMA;
use serde_json::Value as Json;

/// What may stand at a place.
#[derive(Debug, Clone)]
pub(crate) enum Shape {
    /// Anything: nothing is known, or nothing is fixed.
    Any,
    /// An object with these entries and no others.
    Entries(Arc<BTreeMap<String, Shape>>),
    /// A list of these.
    List(Arc<Shape>),
    /// A value without parts.
    Plain(Plain),
}

/// A value without parts.
#[derive(Debug, Clone)]
pub(crate) struct Plain {
    /// The words of JSON Schema for it.
    sorts: Vec<String>,
    /// The only values that it has, if these are few.
    pub(crate) words: Option<Arc<Vec<Json>>>,
}

impl Shape {
    /// The review document.
    pub(crate) fn input() -> Shape {
        static INPUT: LazyLock<Shape> = LazyLock::new(|| {
            serde_json::from_str::<Json>(REVIEW_SCHEMA).map_or(Shape::Any, |schema| Shape::of(&schema))
        });
        INPUT.clone()
    }

    pub(crate) fn entries(entries: impl IntoIterator<Item = (String, Shape)>) -> Shape {
        Shape::Entries(Arc::new(entries.into_iter().collect()))
    }

    fn of(schema: &Json) -> Shape {
        let sorts: Vec<String> = match &schema["type"] {
            Json::String(one) => vec![one.clone()],
            Json::Array(several) => several.iter().filter_map(Json::as_str).map(str::to_owned).collect(),
            Json::Null | Json::Bool(_) | Json::Number(_) | Json::Object(_) => Vec::new(),
        };
        let has = |sort: &str| sorts.iter().any(|known| known == sort);
        if sorts.is_empty() {
            return Shape::Any;
        }
        if has("object") {
            let is_closed = schema["additionalProperties"] == Json::Bool(false) && sorts.len() == 1;
            let entries = schema["properties"].as_object().filter(|_| is_closed);
            return entries.map_or(Shape::Any, |entries| {
                Shape::Entries(Arc::new(
                    entries.iter().map(|(key, one)| (key.clone(), Shape::of(one))).collect(),
                ))
            });
        }
        if has("array") {
            return if sorts.len() == 1 {
                Shape::List(Arc::new(Shape::of(&schema["items"])))
            } else {
                Shape::Any
            };
        }
        let words = schema["enum"].as_array().cloned().or_else(|| Some(vec![schema.get("const")?.clone()]));
        Shape::Plain(Plain { sorts, words: words.map(Arc::new) })
    }

    /// An item of it, or one of its entries: whatever an unknown step leads to.
    pub(crate) fn inside(&self) -> Shape {
        match self {
            Shape::List(items) => (**items).clone(),
            Shape::Any | Shape::Entries(_) | Shape::Plain(_) => Shape::Any,
        }
    }

    /// The words for it.
    pub(crate) fn sort(&self) -> String {
        match self {
            Shape::Any => "anything".to_owned(),
            Shape::Entries(_) => "an object".to_owned(),
            Shape::List(_) => "a list".to_owned(),
            Shape::Plain(plain) => {
                let words = plain.sorts.iter().map(|sort| match sort.as_str() {
                    "string" => "text",
                    "boolean" => "true or false",
                    "integer" => "a whole number",
                    "number" => "a number",
                    other => other,
                });
                words.collect::<Vec<_>>().join(" or ")
            }
        }
    }

    /// Whether a value can ever stand here.
    pub(crate) fn may_be(&self, value: &Json) -> bool {
        match self {
            Shape::Any => true,
            Shape::Entries(_) => value.is_object(),
            Shape::List(_) => value.is_array(),
            Shape::Plain(Plain { words: Some(words), .. }) => words.contains(value),
            Shape::Plain(Plain { sorts, .. }) => sorts.iter().any(|sort| match sort.as_str() {
                "string" => value.is_string(),
                "boolean" => value.is_boolean(),
                "integer" | "number" => value.is_number(),
                "null" => value.is_null(),
                _ => true,
            }),
        }
    }
}
