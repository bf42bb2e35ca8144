//! `locule provision`: certificates and startup kits.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use locule_config::{Diagnostics, Severity};
use locule_provision::{Project, ProjectFile, Provisioned};
use serde_json::json;

use super::say;
use crate::arguments::{Output, Provision, Runtime};
use crate::exit::Failure;

/// Makes the kits and says where they are.
pub(crate) fn provision(arguments: &Provision) -> Result<(), Failure> {
    let (mut project, warnings) = match &arguments.file {
        Some(path) => {
            let file = ProjectFile::read(path)?;
            (file.project, file.warnings)
        }
        None => (of_options(arguments), Diagnostics::new()),
    };
    project.runtime = match arguments.runtime {
        Runtime::Locule => locule_provision::Runtime::Locule,
        Runtime::Nvflare => locule_provision::Runtime::Nvflare,
    };
    let kits = locule_provision::provision(&project, &arguments.workspace, SystemTime::now())?;
    match arguments.output {
        Output::Text => {
            if !warnings.is_empty() {
                // Who watches may have gone; the kits are there all the same.
                writeln!(std::io::stderr().lock(), "{warnings}\n").ok();
            }
            show_text(&kits);
        }
        Output::Json => show_json(&project, &kits, &warnings),
    }
    Ok(())
}

fn of_options(arguments: &Provision) -> Project {
    let organisation = "locule";
    let mut project = Project::new(&arguments.project, "server", organisation);
    project.server.host = Some(arguments.host.clone());
    project.server.port = arguments.port;
    for number in 1..=arguments.sites {
        project = project.site(format!("site-{number}"), format!("{organisation}_{number}"));
    }
    project.admin(&arguments.admin, organisation, "project_admin")
}

fn show_text(kits: &Provisioned) {
    let show = |what: &str, kit: &Path| say(&format!("{what:6}  {}", kit.display()));
    show("server", &kits.server_dir);
    kits.relay_dirs.iter().for_each(|kit| show("relay", kit));
    kits.site_dirs.iter().for_each(|kit| show("site", kit));
    kits.admin_dirs.iter().for_each(|kit| show("admin", kit));
}

fn show_json(project: &Project, kits: &Provisioned, warnings: &Diagnostics) {
    let kit = |name: &String, folder: &PathBuf| json!({ "name": name, "kit": folder });
    let relays = project.relays.iter().zip(&kits.relay_dirs).map(|(one, dir)| kit(&one.name, dir));
    let sites = project.sites.iter().zip(&kits.site_dirs).map(|(one, dir)| kit(&one.name, dir));
    let admins = project.admins.iter().zip(&kits.admin_dirs).map(|(one, dir)| kit(&one.name, dir));
    let warnings = warnings.iter().filter(|one| one.severity == Severity::Warning).map(|one| {
        json!({
            "code": one.code, "message": one.message, "file": one.file, "line": one.line, "column": one.column,
            "path": one.path,
        })
    });
    let shown = json!({
        "project": project.name,
        "folder": kits.root,
        "server": kit(&project.server.name, &kits.server_dir),
        "relays": relays.collect::<Vec<_>>(),
        "sites": sites.collect::<Vec<_>>(),
        "admins": admins.collect::<Vec<_>>(),
        "warnings": warnings.collect::<Vec<_>>(),
    });
    say(&shown.to_string());
}
