//! A kit check: what is missing in a startup kit, before anybody starts it.

use std::error::Error;
use std::fs;

use locule_kit::{SiteKit, Workspace};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::temp_dir().join(format!("piecemeal-kit-{}", std::process::id()));
    let kit = Workspace::new(&folder);
    fs::create_dir_all(kit.startup())?;
    fs::create_dir_all(kit.local())?;
    fs::write(kit.local().join("resources.json.default"), r#"{ "format_version": 2 }"#)?;
    let error = SiteKit::open(&folder).err().ok_or("there is no configuration")?;
    assert!(error.to_string().contains("fed_client.json"), "{error}");

    fs::write(
        kit.startup().join("fed_client.json"),
        r#"{ "format_version": 2, "servers": [{ "nme": "p" }] }"#,
    )?;
    let error = SiteKit::open(&folder).err().ok_or("it says nothing of the server")?.to_string();
    assert!(error.contains("fed_client.json:1:"), "{error}"); // file and line, of every mistake
    fs::remove_dir_all(&folder)?;
    Ok(())
}
