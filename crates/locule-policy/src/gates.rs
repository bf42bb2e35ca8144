//! The checkers that a site's configuration names.

use std::sync::Arc;

use locule_component::{BuildCx, Built, Checker, ComponentSpec, Kind, Registry, site_checkers, with_causes};
use locule_config::{Diagnostic, Diagnostics, Document, Node};

use crate::file_checker::{CheckerFiles, FileChecker, names_a_file, read};
use crate::moderation::Moderated;
use crate::{ClassAllowList, ComponentRules, code};

/// The gates of a site: its [`ClassAllowList`], its [`ComponentRules`] if it has any, then every checker under
/// `components`, in file order.
///
/// `config` is the site's merged configuration, `local/job_resources.json` included; read it again for every job,
/// so that an edit counts from the next job on. A checker with `"disabled": true` is left out.
///
/// Site components are named by the operator and are not themselves judged.
///
/// # Errors
/// Every mistake, each of which must stop the job or the site: an entry that does not name a registered checker, an
/// id that is missing or taken, arguments that do not fit, a checker that cannot be built, an unusable allow-list.
/// The only other entries that may stand there are the site's observers and gates, which `locule-event` reads, and
/// services of nvflare's kits that this project does by other means: resource managers, launchers, schedulers,
/// stores and log streamers.
///
/// An entry may name a file of the site instead, in the kit's `local/custom`: see [`FileChecker`]. `files` opens
/// those.
pub fn gates_from_site_config(
    config: &Document,
    registry: &Registry,
    files: &dyn CheckerFiles,
    cx: &BuildCx<'_>,
) -> Result<Vec<Arc<dyn Checker>>, Diagnostics> {
    let mut mistakes = Diagnostics::new();
    let mut gates: Vec<Arc<dyn Checker>> = Vec::new();
    match ClassAllowList::from_site_config(config) {
        Ok(list) => gates.push(Arc::new(list)),
        Err(found) => mistakes.append(found),
    }
    match ComponentRules::from_site_config(config, registry) {
        Ok(rules) if rules.is_empty() => {}
        Ok(rules) => gates.push(Arc::new(rules)),
        Err(found) => mistakes.append(found),
    }
    let entries = config.root().get("components").map(Node::items).unwrap_or_default();
    let named: Vec<&Node> = entries.iter().filter(|node| names_a_file(node, registry, &SERVICES)).collect();
    let passed_over = named.iter().filter_map(|node| node.get("path")?.as_str()).chain(SERVICES);
    let mut passed_over: Vec<&str> = passed_over.collect();
    for attendants in [Kind::Observer, Kind::Gate] {
        registry.names(attendants).for_each(|name| passed_over.push(name));
    }
    let specs = site_checkers(config, cx.side, registry, &passed_over).unwrap_or_else(|found| {
        mistakes.append(found);
        Vec::new()
    });
    for node in entries {
        let id = node.get("id").and_then(Node::as_str);
        if let Some((id, whose)) = OWN_IDS.iter().find(|(own, _)| id == Some(own)) {
            let message = format!("the id `{id}` belongs to the site's {whose}");
            mistakes.push(Diagnostic::at(node.get("id").unwrap_or(node), code::CHECKER, message));
        } else if named.iter().any(|named| std::ptr::eq(*named, node)) {
            let entry = read(node, cx.kit_dir, &mut mistakes);
            let entry = entry.filter(|_| node.get("disabled").and_then(Node::as_bool) != Some(true));
            gates.extend(entry.and_then(|entry| open(&entry, files, &mut mistakes)));
        } else if let Some(spec) =
            specs.iter().find(|spec| !spec.disabled && spec.path.as_str() == node.path())
        {
            gates.extend(build(spec, node, registry, cx, &mut mistakes));
        }
    }
    if mistakes.is_empty() { Ok(gates) } else { Err(mistakes) }
}

/// Ids of the gates that are not under `components`, and the keys that they are read from.
const OWN_IDS: [(&str, &str); 2] =
    [(ClassAllowList::ID, "class_allow_list"), (ComponentRules::ID, "component_rules")];

fn open(
    entry: &FileChecker,
    files: &dyn CheckerFiles,
    mistakes: &mut Diagnostics,
) -> Option<Arc<dyn Checker>> {
    match files.open(entry) {
        Ok(checker) => Some(Arc::new(Moderated { checker, mode: entry.mode, on_error: entry.on_error })),
        Err(found) => {
            mistakes.append(found);
            None
        }
    }
}

fn build(
    spec: &ComponentSpec,
    node: &Node,
    registry: &Registry,
    cx: &BuildCx<'_>,
    mistakes: &mut Diagnostics,
) -> Option<Arc<dyn Checker>> {
    let mistake = match registry.build(spec.name, spec.args.clone(), &cx.for_component(spec.label())) {
        Ok(Built::Checker(checker)) => return Some(checker),
        Ok(other) => cannot_build(node, spec.label(), &format!("it is a {}", other.kind())),
        Err(error) => cannot_build(node, spec.label(), &with_causes(&error)),
    };
    mistakes.push(mistake);
    None
}

/// Components of nvflare's kits that say how a site runs jobs, and judge none.
///
/// # Source
/// nvflare 2.9.0, `resources.json.default` as `nvflare provision` writes it for servers and clients.
const SERVICES: [&str; 14] = [
    "nvflare.apis.impl.job_def_manager.SimpleJobDefManager",
    "nvflare.app_common.job_launcher.client_process_launcher.ClientProcessJobLauncher",
    "nvflare.app_common.job_launcher.server_process_launcher.ServerProcessJobLauncher",
    "nvflare.app_common.job_schedulers.job_scheduler.DefaultJobScheduler",
    "nvflare.app_common.logging.job_log_receiver.JobLogReceiver",
    // its name until nvflare 2.7
    "nvflare.app_common.logging.log_receiver.LogReceiver",
    "nvflare.app_common.logging.site_log_streamer.SiteLogStreamer",
    "nvflare.app_common.resource_consumers.gpu_resource_consumer.GPUResourceConsumer",
    "nvflare.app_common.resource_consumers.list_resource_consumer.ListResourceConsumer",
    "nvflare.app_common.resource_managers.gpu_resource_manager.GPUResourceManager",
    "nvflare.app_common.resource_managers.list_resource_manager.ListResourceManager",
    "nvflare.app_common.resource_managers.passthrough_resource_manager.PassthroughResourceManager",
    "nvflare.app_common.state_persistors.storage_state_persistor.StorageStatePersistor",
    "nvflare.app_common.storages.filesystem_storage.FilesystemStorage",
];

fn cannot_build(node: &Node, id: &str, why: &str) -> Diagnostic {
    Diagnostic::at(node, code::CHECKER, format!("checker `{id}` cannot be built: {why}"))
}
