//! Where the program comes from.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

/// Where the package has its program.
const IN_PACKAGE: &str = "usr/sbin/nats-server";

const REMEDY: &str = "install it and put it on the PATH (`apt-get install nats-server` on Debian and Ubuntu, \
                      or a release of nats-io/nats-server)";

/// The `nats-server` of the `PATH`, or else of Debian's package in the target folder.
pub(crate) fn nats_server() -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from); // not everybody has them on it
    let mut folders = std::env::split_paths(&path).chain(system);
    if let Some(found) =
        folders.find_map(|folder| Some(folder.join("nats-server")).filter(|file| file.is_file()))
    {
        return Ok(found);
    }
    fetch(&target()?.join("tools")).with_context(|| format!("there is no `nats-server`: {REMEDY}"))
}

/// What cargo builds into: this program lies in it.
fn target() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe().context("where is this program?")?;
    let target = program.ancestors().find(|folder| folder.join("CACHEDIR.TAG").is_file());
    Ok(target.context("this program lies in a target folder")?.to_owned())
}

/// Unpacks Debian's package into `tools`, with the system's lists of packages or, if they are not there or too old,
/// with some of its own. Needs no rights and changes nothing elsewhere.
fn fetch(tools: &Path) -> anyhow::Result<PathBuf> {
    let program = tools.join("nats-server").join(IN_PACKAGE);
    fs::create_dir_all(tools).with_context(|| format!("make {}", tools.display()))?;
    let lock = File::create(tools.join("nats-server.lock")).context("make a lock")?;
    lock.lock().context("wait for another test that fetches it")?;
    if program.is_file() {
        return Ok(program);
    }
    let folder = tempfile::tempdir_in(tools).context("make a folder")?;
    let apt = folder.path().join("apt");
    fs::create_dir_all(apt.join("lists/partial"))
        .and_then(|()| fs::create_dir_all(apt.join("cache/archives/partial")))
        .context("make folders for apt")?;
    let own = [
        format!("Dir::State::Lists={}", apt.join("lists").display()),
        format!("Dir::Cache={}", apt.join("cache").display()),
        "APT::Sandbox::User=root".to_owned(),
        "Debug::NoLocking=1".to_owned(),
    ];
    let own: Vec<&str> = own.iter().flat_map(|option| ["-o", option]).collect();
    let download = ["download", "nats-server"];
    if run(folder.path(), "apt-get", download).is_err() {
        run(folder.path(), "apt-get", own.iter().copied().chain(["update"]))?;
        run(folder.path(), "apt-get", own.iter().copied().chain(download))?;
    }
    let package = fs::read_dir(folder.path())?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|file| file.extension() == Some(OsStr::new("deb")))
        .context("apt-get has downloaded nothing")?;
    let unpacked = folder.path().join("unpacked");
    run(folder.path(), "dpkg-deb", [OsStr::new("--extract"), package.as_ref(), unpacked.as_ref()])?;
    // In one step, so that nobody finds half of it.
    fs::rename(&unpacked, tools.join("nats-server")).context("keep what was unpacked")?;
    Ok(program)
}

fn run<A: AsRef<OsStr>>(
    folder: &Path,
    program: &str,
    arguments: impl IntoIterator<Item = A>,
) -> anyhow::Result<()> {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(folder).stdin(Stdio::null());
    let output = command.output().with_context(|| format!("run {program}"))?;
    if !output.status.success() {
        bail!("{program} failed:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    #[ignore = "downloads a package where there is a nats-server already"]
    fn the_package_is_fetched_without_rights() {
        let tools = tempfile::tempdir().unwrap();
        let program = super::fetch(tools.path()).unwrap();
        let version = std::process::Command::new(program).arg("--version").output().unwrap();
        assert!(version.status.success());
    }
}
