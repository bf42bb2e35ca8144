//! The checkers that a site's configuration names.

use std::error::Error;
use std::sync::Arc;

use locule_component::{BuildCx, BuildError, Built, Checker, Registry, site_checkers};
use locule_config::{Diagnostic, Diagnostics, Document, Node};

use crate::{ClassAllowList, code};

/// The gates of a site: its [`ClassAllowList`] first, then every checker under `components`, in file order.
///
/// `config` is the site's merged configuration, `local/job_resources.json` included; read it again for every job,
/// so that an edit counts from the next job on. A checker with `"disabled": true` is left out.
///
/// Site components are named by the operator and are not themselves judged.
///
/// # Errors
/// Every mistake, each of which must stop the job or the site: an entry that does not name a registered checker, an
/// id that is missing or taken, arguments that do not fit, a checker that cannot be built, an unusable allow-list.
/// The only other entries that may stand there are services of nvflare's kits that this project does by other
/// means: resource managers, launchers, schedulers, stores and log streamers.
pub fn gates_from_site_config(
    config: &Document,
    registry: &Registry,
    cx: &BuildCx<'_>,
) -> Result<Vec<Arc<dyn Checker>>, Diagnostics> {
    let mut mistakes = Diagnostics::new();
    let mut gates: Vec<Arc<dyn Checker>> = Vec::new();
    match ClassAllowList::from_site_config(config) {
        Ok(list) => gates.push(Arc::new(list)),
        Err(found) => mistakes.append(found),
    }
    let specs = site_checkers(config, cx.side, registry, &SERVICES).unwrap_or_else(|found| {
        mistakes.append(found);
        Vec::new()
    });
    for spec in specs.iter().filter(|spec| !spec.disabled) {
        let steps: Vec<&str> = spec.path.as_str().split('.').collect();
        let node = config.root().find(&steps).unwrap_or(config.root());
        if spec.label() == ClassAllowList::ID {
            let message = format!("the id `{}` belongs to the site's class_allow_list", ClassAllowList::ID);
            mistakes.push(Diagnostic::at(node.get("id").unwrap_or(node), code::CHECKER, message));
            continue;
        }
        match registry.build(spec.name, spec.args.clone(), &cx.for_component(spec.label())) {
            Ok(Built::Checker(checker)) => gates.push(checker),
            Ok(other) => {
                mistakes.push(cannot_build(node, spec.label(), &format!("it is a {}", other.kind())))
            }
            Err(error) => mistakes.push(cannot_build(node, spec.label(), &with_causes(&error))),
        }
    }
    if mistakes.is_empty() { Ok(gates) } else { Err(mistakes) }
}

/// Components of nvflare's kits that say how a site runs jobs, and judge none.
///
/// # Source
/// nvflare 2.9.0, `resources.json.default` as `nvflare provision` writes it for servers and clients.
const SERVICES: [&str; 13] = [
    "nvflare.apis.impl.job_def_manager.SimpleJobDefManager",
    "nvflare.app_common.job_launcher.client_process_launcher.ClientProcessJobLauncher",
    "nvflare.app_common.job_launcher.server_process_launcher.ServerProcessJobLauncher",
    "nvflare.app_common.job_schedulers.job_scheduler.DefaultJobScheduler",
    "nvflare.app_common.logging.job_log_receiver.JobLogReceiver",
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

fn with_causes(error: &BuildError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
