//! A kit maker: certificates, keys and configuration for a server, a site and an administrator.

use std::error::Error;
use std::time::SystemTime;

use locule_provision::{Project, provision};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::temp_dir().join(format!("piecemeal-provision-{}", std::process::id()));
    let project = Project::new("study", "server.example.org", "university")
        .site("hospital-1", "hospital")
        .admin("lead@example.org", "university", "lead");
    assert!(project.mistakes().is_empty());
    let kits = provision(&project, &folder, SystemTime::now())?;
    assert!(kits.server_dir.join("startup/server.key").exists());
    assert!(kits.site_dirs[0].join("startup/fed_client.json").exists());

    let mistaken = project.site("hospital-1", "clinic");
    assert_eq!(mistaken.mistakes().len(), 1);
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}
