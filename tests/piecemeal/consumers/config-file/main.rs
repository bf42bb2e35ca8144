//! The settings of a program, in whichever language they are written.

use std::error::Error;
use std::fs;

use locule_config_file::ConfigFile;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::temp_dir().join(format!("piecemeal-config-file-{}", std::process::id()));
    fs::create_dir_all(folder.join("deeper"))?;
    for (name, text) in [
        ("settings.yml.default", "port: 1"),
        ("deeper/settings.yml", "port: 2"),
        ("settings.conf", "port = 3 # counts before YAML"),
    ] {
        fs::write(folder.join(name), text)?;
        let file = ConfigFile::find_below(&[&folder], "settings")?.ok_or("there is one")?;
        let port = file.read()?.root().get("port").and_then(|node| node.as_i64());
        assert_eq!(
            port,
            text.split(['=', ':', '#']).nth(1).and_then(|port| port.trim().parse().ok()),
            "{name}"
        );
    }
    fs::remove_dir_all(folder)?;
    Ok(())
}
