//! Every component that a program knows, one explicit line each.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use locule_config::suggest;
use serde_json::Value as Json;
use serde_path_to_error::{Path, Segment};

use crate::{BuildCx, BuildError, Built, Component, Kind, panic_text};

/// Every component that a program knows. Nothing is collected behind the scenes: what is not registered in plain
/// sight cannot be named by a configuration.
#[derive(Default)]
pub struct Registry {
    entries: Vec<Entry>,
    by_name: BTreeMap<&'static str, usize>,
    provided: Vec<(String, Arc<dyn Any + Send + Sync>)>,
}

/// What a registry says of a component.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Description {
    /// Its dotted name.
    pub name: &'static str,
    /// Other names that mean the same.
    pub aliases: &'static [&'static str],
    /// Where in a configuration it may stand.
    pub kind: Kind,
}

impl Registry {
    /// An empty registry.
    pub fn new() -> Self {
        Registry::default()
    }

    /// Adds a component under its name and aliases.
    ///
    /// # Panics
    /// When one of them is taken. That is a mistake in the program, and shows at every start.
    pub fn register<C: Component>(&mut self) -> &mut Self {
        let index = self.entries.len();
        for name in std::iter::once(C::NAME).chain(C::ALIASES.iter().copied()) {
            let taken = self.by_name.insert(name, index);
            assert!(taken.is_none(), "two components are registered as `{name}`");
        }
        let about = Description { name: C::NAME, aliases: C::ALIASES, kind: C::KIND };
        self.entries.push(Entry { about, check: check::<C>, build: build::<C>, schema: C::schema });
        self
    }

    /// Hands something of the program's own to the components that look for it, as
    /// [`BuildCx::service`] does; before the services of a job.
    pub fn provide<T: Any + Send + Sync>(&mut self, id: impl Into<String>, thing: T) -> &mut Self {
        self.provided.push((id.into(), Arc::new(thing)));
        self
    }

    /// What was provided.
    pub(crate) fn provided(&self) -> impl Iterator<Item = (&str, &Arc<dyn Any + Send + Sync>)> {
        self.provided.iter().map(|(id, thing)| (id.as_str(), thing))
    }

    /// What is registered under a name or alias.
    pub fn describe(&self, name: &str) -> Option<Description> {
        self.entry(name).map(|entry| entry.about)
    }

    /// What is registered under the last part of a name or alias, `ExcludeVars` for `locule.filter.ExcludeVars`;
    /// none or several.
    pub fn describe_short(&self, last_part: &str) -> Vec<Description> {
        let short = |name: &&str| name.rsplit('.').next() == Some(last_part);
        let names = |about: &Description| short(&about.name) || about.aliases.iter().any(short);
        self.entries.iter().map(|entry| entry.about).filter(names).collect()
    }

    /// The names of one kind, without aliases, in the order registered.
    pub fn names(&self, kind: Kind) -> impl Iterator<Item = &'static str> {
        self.entries.iter().filter(move |entry| entry.about.kind == kind).map(|entry| entry.about.name)
    }

    /// The name or alias, of these kinds, that somebody most likely meant.
    pub fn suggest(&self, word: &str, kinds: &[Kind]) -> Option<&'static str> {
        let wanted = self.entries.iter().map(|entry| entry.about).filter(|about| kinds.contains(&about.kind));
        let names: Vec<&'static str> = wanted
            .flat_map(|about| std::iter::once(about.name).chain(about.aliases.iter().copied()))
            .collect();
        let last_part = |name: &'static str| name.rsplit('.').next().unwrap_or(name);
        suggest(word, names.iter().copied()).or_else(|| {
            let word = word.rsplit('.').next().unwrap_or(word);
            let same = names.iter().find(|name| last_part(name) == word);
            let near = || suggest(word, names.iter().map(|name| last_part(name)));
            same.copied()
                .or_else(|| near().and_then(|near| names.iter().copied().find(|n| last_part(n) == near)))
        })
    }

    /// Builds one component outside of any plan: a checker of the site itself, say.
    ///
    /// # Errors
    /// That of the constructor; [`BuildError::Argument`] for arguments that do not parse; a panic of the
    /// constructor is [`BuildError::Panicked`].
    pub fn build(&self, name: &str, args: Json, cx: &BuildCx<'_>) -> Result<Built, BuildError> {
        let entry = self.entry(name).ok_or_else(|| BuildError::NotRegistered(name.to_owned()))?;
        let built = catch_unwind(AssertUnwindSafe(|| (entry.build)(args, cx)))
            .unwrap_or_else(|panic| Err(BuildError::Panicked(panic_text(&*panic).to_owned())))?;
        let (name, promised, made) = (entry.about.name, entry.about.kind, built.kind());
        if promised == made { Ok(built) } else { Err(BuildError::WrongKind { name, promised, made }) }
    }

    /// JSON Schema of the arguments of a component, if it has one.
    pub fn args_schema(&self, name: &str) -> Option<Json> {
        (self.entry(name)?.schema)().map(schemars::Schema::to_value)
    }

    /// What is wrong with the arguments of a component, without building it: every unknown argument, and the
    /// first other mistake.
    pub fn check_args(&self, name: &str, mut args: Json) -> Vec<ArgumentMistake> {
        const MOST: usize = 20;
        let Some(entry) = self.entry(name) else { return Vec::new() };
        let mut mistakes = Vec::new();
        while let Err(mistake) = (entry.check)(&args) {
            let go_on = mistake.unknown && mistakes.len() < MOST && remove(&mut args, &mistake.path);
            mistakes.push(mistake);
            if !go_on {
                break;
            }
        }
        mistakes
    }

    fn entry(&self, name: &str) -> Option<&Entry> {
        self.entries.get(*self.by_name.get(name)?)
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.entries.iter().map(|entry| entry.about)).finish()
    }
}

/// What is wrong with one argument.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ArgumentMistake {
    /// Steps from the arguments down to it: keys, and `#1`, `#2`, … for items of lists.
    pub path: Vec<String>,
    /// What is wrong.
    pub message: String,
    /// Whether the argument is one that the component does not have.
    pub unknown: bool,
    /// The names that could stand there, when the argument is unknown.
    pub known: Vec<String>,
}

struct Entry {
    about: Description,
    check: fn(&Json) -> Result<(), ArgumentMistake>,
    build: fn(Json, &BuildCx<'_>) -> Result<Built, BuildError>,
    schema: fn() -> Option<schemars::Schema>,
}

fn check<C: Component>(args: &Json) -> Result<(), ArgumentMistake> {
    match serde_path_to_error::deserialize::<_, C::Args>(args) {
        Ok(_) => Ok(()),
        Err(error) => Err(mistake(error.path(), error.inner().to_string())),
    }
}

fn build<C: Component>(args: Json, cx: &BuildCx<'_>) -> Result<Built, BuildError> {
    let args = serde_path_to_error::deserialize::<_, C::Args>(args).map_err(|error| {
        let argument = error.path().to_string();
        BuildError::Argument { argument, reason: error.into_inner().to_string() }
    })?;
    cx.constructed.increment();
    C::build(args, cx)
}

/// Takes a message of serde apart: ``unknown field `a`, expected one of `b`, `c` ``.
fn mistake(path: &Path, message: String) -> ArgumentMistake {
    let mut steps: Vec<String> = Vec::new();
    for segment in path.iter() {
        match segment {
            Segment::Seq { index } => steps.push(format!("#{}", index + 1)),
            Segment::Map { key } => steps.push(key.clone()),
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    let mut quoted = message.split('`').skip(1).step_by(2).map(str::to_owned);
    let unknown = message.starts_with("unknown field ");
    if !unknown {
        let message = message.replacen("missing field", "missing argument", 1);
        return ArgumentMistake { path: steps, message, unknown, known: Vec::new() };
    }
    let field = quoted.next().unwrap_or_default();
    let known = quoted.collect();
    if steps.last() != Some(&field) {
        steps.push(field.clone());
    }
    ArgumentMistake { path: steps, message: format!("unknown argument `{field}`"), unknown, known }
}

/// Takes the value at the path out of its object; says whether it was there.
fn remove(args: &mut Json, path: &[String]) -> bool {
    let Some((last, above)) = path.split_last() else { return false };
    let owner = above.iter().try_fold(args, |value, step| match value {
        Json::Array(items) => items.get_mut(step.strip_prefix('#')?.parse::<usize>().ok()?.checked_sub(1)?),
        Json::Object(entries) => entries.get_mut(step),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => None,
    });
    owner.and_then(Json::as_object_mut).is_some_and(|entries| entries.shift_remove(last).is_some())
}
