//! The value of `review` as verdicts.

use locule_component::{ConfigPath, Decision, Finding, Verdict};
use serde_json::{Map, Value as Json};

/// Paths of the components of a plan, in its order.
pub(crate) struct Places(Vec<String>);

impl Places {
    pub(crate) fn of(document: &regorus::Value) -> Self {
        let components = document["components"].as_array();
        let paths = components.into_iter().flatten().filter_map(|one| one["path"].as_string().ok());
        Self(paths.map(|path| path.to_string()).collect())
    }

    /// The innermost component that a place lies in; the plan as a whole for any other.
    fn around(&self, place: &str) -> &str {
        let holds = |path: &&String| {
            place.strip_prefix(path.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        self.0.iter().filter(holds).max_by_key(|path| path.len()).map_or("", String::as_str)
    }
}

/// Denials and remarks, one verdict for each component and decision; a permission for every other component.
pub(crate) fn read(value: Json, places: &Places) -> Result<Vec<Verdict>, String> {
    let Json::Object(mut answer) = value else { return Err("it is no object".to_owned()) };
    let allow = match answer.remove("allow") {
        Some(Json::Bool(allow)) => allow,
        Some(_) => return Err("`allow` is neither true nor false".to_owned()),
        None => return Err("`allow` is missing".to_owned()),
    };
    let denials = findings(answer.remove("deny"), "deny", places)?;
    let remarks = findings(answer.remove("warn"), "warn", places)?;
    if let Some(key) = answer.keys().next() {
        return Err(format!("`{key}` means nothing: known are allow, deny, warn"));
    }
    let mut verdicts: Vec<Verdict> = Vec::new();
    if !allow && denials.is_empty() {
        let component = ConfigPath::from("");
        verdicts.push(Verdict { component, decision: Decision::Deny, findings: Vec::new() });
    }
    let judged = denials.into_iter().map(|found| (Decision::Deny, found));
    for (decision, (component, finding)) in
        judged.chain(remarks.into_iter().map(|found| (Decision::Warn, found)))
    {
        let known = verdicts.iter_mut().find(|v| v.component.as_str() == component && v.decision == decision);
        match known {
            Some(verdict) => verdict.findings.push(finding),
            None => verdicts.push(Verdict { component: component.into(), decision, findings: vec![finding] }),
        }
    }
    for path in &places.0 {
        if !verdicts.iter().any(|verdict| verdict.component.as_str() == path) {
            verdicts.push(Verdict::allow(path.clone()));
        }
    }
    Ok(verdicts)
}

fn findings(value: Option<Json>, key: &str, places: &Places) -> Result<Vec<(String, Finding)>, String> {
    match value {
        None => Ok(Vec::new()),
        Some(Json::Array(items)) => items.into_iter().map(|item| finding(item, key, places)).collect(),
        Some(_) => Err(format!("`{key}` is neither a set nor an array")),
    }
}

fn finding(value: Json, key: &str, places: &Places) -> Result<(String, Finding), String> {
    let Json::Object(mut entries) = value else {
        return Err(format!("an item of `{key}` is no object; it has code and message"));
    };
    let needed = |text: Option<String>, name: &str| {
        text.ok_or_else(|| format!("`{name}` is missing in an item of `{key}`"))
    };
    let code = needed(text(&mut entries, "code", key)?, "code")?;
    let message = needed(text(&mut entries, "message", key)?, "message")?;
    let component = text(&mut entries, "component", key)?;
    let path = text(&mut entries, "path", key)?.or_else(|| component.clone()).unwrap_or_default();
    let public = match entries.remove("public") {
        None => false,
        Some(Json::Bool(public)) => public,
        Some(_) => return Err(format!("`public` is neither true nor false in an item of `{key}`")),
    };
    if let Some(other) = entries.keys().next() {
        let known = "code, message, path, component, public";
        return Err(format!("`{other}` means nothing in an item of `{key}`: known are {known}"));
    }
    let component = component.unwrap_or_else(|| places.around(&path).to_owned());
    Ok((component, Finding { code, message, path: path.into(), public }))
}

fn text(entries: &mut Map<String, Json>, name: &str, key: &str) -> Result<Option<String>, String> {
    match entries.remove(name) {
        None => Ok(None),
        Some(Json::String(text)) => Ok(Some(text)),
        Some(_) => Err(format!("`{name}` is no text in an item of `{key}`")),
    }
}
