//! `locule provision`: certificates and startup kits.

use std::path::Path;
use std::time::SystemTime;

use locule_provision::Project;

use super::say;
use crate::arguments::Provision;
use crate::exit::Failure;

/// Makes the kits and says where they are.
pub(crate) fn provision(arguments: &Provision) -> Result<(), Failure> {
    let organisation = "locule";
    let mut project = Project::new(&arguments.project, "server", organisation);
    project.server.host = Some(arguments.host.clone());
    project.server.port = arguments.port;
    for number in 1..=arguments.sites {
        project = project.site(format!("site-{number}"), format!("{organisation}_{number}"));
    }
    project = project.admin(&arguments.admin, organisation, "project_admin");
    let kits = locule_provision::provision(&project, &arguments.dir, SystemTime::now())?;
    let show = |what: &str, kit: &Path| say(&format!("{what:6}  {}", kit.display()));
    show("server", &kits.server_dir);
    kits.site_dirs.iter().for_each(|kit| show("site", kit));
    kits.admin_dirs.iter().for_each(|kit| show("admin", kit));
    Ok(())
}
