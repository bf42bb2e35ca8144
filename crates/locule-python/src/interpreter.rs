//! The interpreter of a site: where it is, what it has, and what of the system scripts need.

use std::ffi::OsStr;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use locule_component::BuildError;
use serde::Deserialize;

/// An interpreter, and what it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Interpreter {
    pub(crate) program: PathBuf,
    /// Folders that it and its packages lie in.
    pub(crate) folders: Vec<PathBuf>,
    /// Why scripts of nvflare's package cannot run in it, if so; those of ours can.
    pub(crate) lacks: Option<String>,
}

/// How long an interpreter may take to say what it has.
const PATIENCE: Duration = Duration::from_secs(60);
/// The version of nvflare from which scripts speak with a site by a cell of their own.
const OLDEST: (u64, u64) = (2, 9);

const QUESTION: &str = "
import json, sys
try:
    from importlib.metadata import version
    found = version('nvflare')
except Exception:
    found = None
print(json.dumps({'nvflare': found, 'folders': [sys.prefix, sys.base_prefix, sys.exec_prefix] + sys.path}))
";

#[derive(Deserialize)]
struct Answer {
    nvflare: Option<String>,
    folders: Vec<PathBuf>,
}

impl Interpreter {
    /// Asks the interpreter `program` what it has.
    pub(crate) fn ask(program: &Path) -> Result<Self, BuildError> {
        let unavailable = |reason: &str| {
            BuildError::Unavailable(format!("the site's interpreter {} {reason}", program.display()))
        };
        let answer = answer(program).map_err(|reason| unavailable(&reason))?;
        let answer = serde_json::from_slice::<Answer>(&answer);
        let answer = answer.map_err(|_| unavailable("does not say what it has"))?;
        let lacks = lacks(answer.nvflare.as_deref());
        let mut folders: Vec<PathBuf> = answer
            .folders
            .into_iter()
            .filter(|folder| folder.is_absolute() && folder.parent().is_some())
            .collect();
        let real = program.canonicalize().ok();
        folders.extend(real.as_deref().and_then(Path::parent).and_then(Path::parent).map(Path::to_owned));
        folders.retain(|folder| folder.parent().is_some());
        folders.extend(real);
        folders.push(program.to_owned());
        folders.sort();
        folders.dedup();
        Ok(Self { program: program.to_owned(), folders, lacks })
    }

    /// Adds to what became of a script what the interpreter lacks, if that is why.
    pub(crate) fn explain(&self, reason: &mut String) {
        if let Some(lacks) = self.lacks.as_deref().filter(|_| reason.contains("nvflare")) {
            *reason += &format!("; the site's interpreter {} {lacks}", self.program.display());
        }
    }
}

fn lacks(nvflare: Option<&str>) -> Option<String> {
    let Some(version) = nvflare else {
        let what = "has no nvflare; have the site's operator install nvflare 2.9 there, name another in \
                    `python.interpreter`, or have the script import locule.client";
        return Some(what.to_owned());
    };
    let mut numbers = version.split('.').map(|part| part.parse::<u64>().unwrap_or_default());
    let is_old = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default()) < OLDEST;
    let version = || version.chars().take(20).flat_map(char::escape_debug).collect::<String>();
    is_old.then(|| format!("has nvflare {}; scripts that import it need 2.9 or newer", version()))
}

fn answer(program: &Path) -> Result<Vec<u8>, String> {
    let mut child = Command::new(program)
        .args(["-I", "-c", QUESTION])
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("cannot be started: {error}"))?;
    let mut stdout = child.stdout.take().ok_or("has no output")?;
    let (say, said) = channel();
    let read = move || {
        let mut text = Vec::new();
        let read = stdout.by_ref().take(1 << 20).read_to_end(&mut text);
        let _ = say.send(read.map(|_| text)); // nobody waits any more
    };
    let reading = thread::Builder::new().name("locule-python".to_owned()).spawn(read);
    let text = match reading {
        Ok(_) => said.recv_timeout(PATIENCE).ok().and_then(Result::ok),
        Err(_) => None,
    };
    child.kill().ok();
    child.wait().ok();
    text.ok_or_else(|| "does not answer".to_owned())
}

/// Folders and files of the system that programs need and that hold no secrets. Of the processes it is the
/// script's own first one only: others show their environment to whoever may read them, and Landlock does not tell
/// reading from them apart.
const SYSTEM: [&str; 48] = [
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/nix/store",
    "/gnu/store",
    "/proc/self",
    "/proc/cgroups",
    "/proc/cpuinfo",
    "/proc/devices",
    "/proc/driver",
    "/proc/filesystems",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/mounts",
    "/proc/stat",
    "/proc/sys",
    "/proc/uptime",
    "/proc/version",
    "/proc/vmstat",
    "/sys",
    "/run/systemd/resolve",
    "/run/nvidia-persistenced",
    "/etc/alternatives",
    "/etc/fonts",
    "/etc/group",
    "/etc/gai.conf",
    "/etc/host.conf",
    "/etc/hostname",
    "/etc/hosts",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/locale.alias",
    "/etc/localtime",
    "/etc/machine-id",
    "/etc/mime.types",
    "/etc/nsswitch.conf",
    "/etc/os-release",
    "/etc/passwd",
    "/etc/pki/tls/certs",
    "/etc/protocols",
    "/etc/resolv.conf",
    "/etc/services",
    "/etc/ssl/certs",
];

/// Devices that programs need.
const DEVICES: [&str; 9] = [
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/shm",
    "/dev/dri",
    "/dev/kfd",
    "/etc/OpenCL",
];

/// What every script may read of the system, and which devices it may use.
pub(crate) fn system() -> (Vec<PathBuf>, Vec<PathBuf>) {
    let read = SYSTEM.iter().map(PathBuf::from).collect();
    let entries = std::fs::read_dir("/dev").into_iter().flatten().flatten();
    let of_graphics = entries
        .filter(|entry| entry.file_name().as_encoded_bytes().starts_with(b"nvidia"))
        .map(|entry| entry.path());
    (read, DEVICES.iter().map(PathBuf::from).chain(of_graphics).collect())
}

/// The first of a command's words as a program: `python` means the site's interpreter.
pub(crate) fn resolve(first: &str, interpreter: &Path, search_path: &OsStr) -> Result<String, String> {
    if matches!(first, "python" | "python3") {
        return Ok(interpreter.display().to_string());
    }
    if first.contains('/') {
        return Ok(first.to_owned());
    }
    let beside = interpreter.parent().map(|folder| folder.join(first));
    let beside = beside.filter(|file| crate::settings::is_program(file));
    let found = beside.or_else(|| crate::settings::find_program(first, search_path));
    let found =
        found.ok_or_else(|| format!("the site has no program {} on its PATH", first.escape_debug()))?;
    Ok(found.display().to_string())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn interpreter(script: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("python3");
        std::fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
        (folder, file)
    }

    #[test]
    fn an_interpreter_without_nvflare_is_taken_and_a_script_that_needs_it_is_told() {
        for (script, reason) in [
            (
                r#"echo '{"nvflare": null, "folders": []}'"#,
                "has no nvflare; have the site's operator install",
            ),
            (
                r#"echo '{"nvflare": "2.7.2", "folders": []}'"#,
                "has nvflare 2.7.2; scripts that import it need 2.9 or newer",
            ),
        ] {
            let (_folder, file) = interpreter(script);
            let found = Interpreter::ask(&file).unwrap();
            let explain = |said: &str| {
                let mut told = said.to_owned();
                found.explain(&mut told);
                told
            };
            let told = explain("ModuleNotFoundError: No module named 'nvflare'");
            assert!(told.contains(reason), "{told}");
            assert_eq!(explain("out of memory"), "out of memory");
        }
        for (script, reason) in
            [("echo hello", "does not say what it has"), ("exit 1", "does not say what it has")]
        {
            let (_folder, file) = interpreter(script);
            let error = Interpreter::ask(&file).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
        let error = Interpreter::ask(Path::new("/nowhere/python3")).unwrap_err().to_string();
        assert!(error.contains("cannot be started"), "{error}");
    }

    #[test]
    fn the_root_of_the_file_system_is_nobodys_folder() {
        let (folder, file) = interpreter(r#"echo '{"nvflare": "2.9.0", "folders": ["/", "", "/opt/venv"]}'"#);
        let found = Interpreter::ask(&file).unwrap();
        assert!(found.folders.contains(&PathBuf::from("/opt/venv")));
        assert!(!found.folders.contains(&PathBuf::from("/")), "{:?}", found.folders);
        drop(folder);
    }

    #[test]
    fn python_means_the_sites_interpreter() {
        let (folder, file) = interpreter("");
        let resolve = |first| resolve(first, &file, folder.path().as_os_str());
        assert_eq!(resolve("python").unwrap(), file.display().to_string());
        assert_eq!(resolve("./train.sh").unwrap(), "./train.sh");
        assert!(resolve("torchrun").unwrap_err().contains("no program torchrun"));
    }
}
