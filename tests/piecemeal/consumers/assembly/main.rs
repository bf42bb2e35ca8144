//! A dry run: what a site would make of an app, and which of its gates would refuse it.

use std::error::Error;
use std::fs;

use locule_assembly::{AssemblyError, Deployed, assemble};
use locule_component::{Registry, Side};
use locule_kit::Workspace;
use locule_policy::RefuseComponents;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::temp_dir().join(format!("piecemeal-assembly-{}", std::process::id()));
    let (kit, app) = (Workspace::new(&folder), folder.join("job-7/app_site-1"));
    for wanted in [kit.startup(), kit.local(), app.join("config")] {
        fs::create_dir_all(wanted)?;
    }
    fs::write(kit.startup().join("fed_client.json"), r#"{"format_version": 2}"#)?;
    fs::write(kit.local().join("resources.json"), r#"{"class_allow_list": ["trusted."]}"#)?;
    let config = r#"{"format_version": 2, "components":
        [{"id": "gate", "path": "locule.policy.RefuseComponents", "args": {"names": ["*"]}}]}"#;
    fs::write(app.join("config/config_fed_client.json"), config)?;

    let mut registry = Registry::new();
    registry.register::<RefuseComponents>();
    let deployed = Deployed {
        side: Side::Site,
        participant: "site-1".into(),
        org: "hospital".into(),
        job_id: "job-7".into(),
        kit,
        app_dir: app,
        meta: serde_json::json!({ "name": "training" }),
    };
    let refused = assemble(&deployed, &registry);
    assert!(matches!(refused, Err(AssemblyError::Refused { .. })), "{refused:?}");
    fs::remove_dir_all(&folder)?;
    Ok(())
}
