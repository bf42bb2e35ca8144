//! A dry run: what a site would make of an app, and which component its gates would refuse.

use std::error::Error;
use std::fs;

use locule_assembly::{AssemblyError, Deployed, assemble};
use locule_component::{BuildCx, BuildError, Built, Component, Kind, Registry, Side};
use locule_kit::Workspace;
use locule_policy::RefuseComponents;

/// A trainer that must not even be constructed.
struct Unwanted;

impl Component for Unwanted {
    const KIND: Kind = Kind::Executor;
    const NAME: &'static str = "example.Unwanted";
    type Args = serde_json::Value;
    fn build(_: Self::Args, _: &BuildCx<'_>) -> Result<Built, BuildError> {
        unreachable!("a refused plan is never built")
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::temp_dir().join(format!("piecemeal-assembly-{}", std::process::id()));
    let (kit, app) = (Workspace::new(&folder), folder.join("job-7/app_site-1"));
    for wanted in [kit.startup(), kit.local(), app.join("config")] {
        fs::create_dir_all(wanted)?;
    }
    fs::write(kit.startup().join("fed_client.json"), r#"{"format_version": 2}"#)?;
    fs::write(kit.local().join("resources.json"), r#"{"class_allow_list": ["*"]}"#)?;
    fs::write(
        kit.local().join("job_resources.json"),
        r#"{"components": [{"id": "gate", "path": "locule.policy.RefuseComponents",
            "args": {"names": ["example.*"], "reason": "not agreed yet"}}]}"#,
    )?;
    fs::write(
        app.join("config/config_fed_client.json"),
        r#"{"format_version": 2,
            "executors": [{"tasks": ["train"], "executor": {"path": "example.Unwanted", "args": {}}}]}"#,
    )?;

    let mut registry = Registry::new();
    registry.register::<RefuseComponents>();
    registry.register::<Unwanted>();
    let deployed = Deployed {
        side: Side::Site,
        participant: "site-1".into(),
        org: "hospital".into(),
        job_id: "job-7".into(),
        kit,
        app_dir: app,
        meta: serde_json::json!({ "name": "training" }),
    };
    let refused = assemble(&deployed, &registry).err().ok_or("the gate lets it through")?;
    assert!(matches!(refused, AssemblyError::Refused(_)), "{refused}");
    assert!(refused.to_string().contains("not agreed yet"), "{refused}");
    fs::remove_dir_all(&folder)?;
    Ok(())
}
