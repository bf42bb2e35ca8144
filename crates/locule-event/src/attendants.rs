//! The observers and gates that a kit names.

use std::sync::Arc;

use locule_component::{
    BuildCx, Built, EventBus, Gate, Kind, Observer, Registry, site_components, with_causes,
};
use locule_config::{Diagnostic, Diagnostics, Document, Node};

use crate::{Gates, queued};

/// Mistakes in a kit's observers and gates, by code. Codes stay what they are once published.
pub mod code {
    /// An observer or a gate cannot be built.
    pub const ATTENDANT: &str = "E0411";
}

/// Who attends the life of a site or server: its observers and its gates. The default is nobody.
#[derive(Debug, Clone, Default)]
pub struct Attendants {
    /// Tells the observers, on a thread of their own.
    pub events: Arc<EventBus>,
    /// Asks the gates.
    pub gates: Gates,
}

impl Attendants {
    /// Those that stand under `components` of a kit's configuration, in file order. Components of other kinds are
    /// passed over; see `locule_policy::gates_from_site_config` for the checkers among them.
    ///
    /// They live as long as the site or server: an edit counts from its next start on.
    ///
    /// # Errors
    /// Every mistake, each of which must stop the site or server: arguments that do not fit, an id that is missing or
    /// taken, one that cannot be built, a name that begins with `locule.` and is nobody's.
    pub fn from_site_config(
        config: &Document,
        registry: &Registry,
        cx: &BuildCx<'_>,
    ) -> Result<Self, Diagnostics> {
        let nodes = config.root().get("components").map(Node::items).unwrap_or_default();
        let names = nodes.iter().filter_map(|node| node.get("path")?.as_str());
        let others: Vec<&str> = names.filter(|name| is_other(name, registry)).collect();
        let kinds = [Kind::Observer, Kind::Gate];
        let specs = site_components(config, cx.side, registry, &kinds, &others)?;
        let mut mistakes = Diagnostics::new();
        let mut observers: Vec<(String, Box<dyn Observer>)> = Vec::new();
        let mut gates: Vec<(String, Arc<dyn Gate>)> = Vec::new();
        for node in nodes {
            let spec = specs.iter().find(|spec| !spec.disabled && spec.path.as_str() == node.path());
            let Some(spec) = spec else { continue };
            let id = spec.label().to_owned();
            match registry.build(spec.name, spec.args.clone(), &cx.for_component(&id)) {
                Ok(Built::Observer(observer)) => observers.push((id, observer)),
                Ok(Built::Gate(gate)) => gates.push((id, gate)),
                Ok(other) => mistakes.push(cannot_build(node, &id, &format!("it is a {}", other.kind()))),
                Err(error) => mistakes.push(cannot_build(node, &id, &with_causes(&error))),
            }
        }
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        let events = queued(observers).map_err(|error| {
            let text = format!("observers cannot be told: {error}");
            mistakes.push(Diagnostic::at(config.root(), code::ATTENDANT, text));
            mistakes
        })?;
        Ok(Attendants { events: Arc::new(events), gates: Gates::new(cx.site, cx.side, gates) })
    }
}

/// Whether a component is none of ours: of another kind, or of nvflare's kits. A name that is nobody's in our own
/// namespace is a slip of the pen.
fn is_other(name: &str, registry: &Registry) -> bool {
    match registry.describe(name) {
        Some(about) => !matches!(about.kind, Kind::Observer | Kind::Gate),
        None => !name.starts_with("locule."),
    }
}

fn cannot_build(node: &Node, id: &str, why: &str) -> Diagnostic {
    Diagnostic::at(node, code::ATTENDANT, format!("`{id}` cannot be built: {why}"))
}
