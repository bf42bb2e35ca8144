//! What a site's operator says of Python: the section `python` of `local/resources.json`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use locule_config::{Document, Node, NodeKind};

/// How scripts run at a site.
///
/// ```json
/// "python": { "interpreter": "/opt/trainers/bin/python3", "read": ["/data/cohort"], "network": false }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PythonSettings {
    /// The interpreter, which must have nvflare; the first `python3` of the search path if nobody said.
    pub interpreter: Option<PathBuf>,
    /// Folders and files that scripts may read, beside the interpreter's, the system's and those of their job.
    pub read: Vec<PathBuf>,
    /// Folders and files that they may also write.
    pub write: Vec<PathBuf>,
    /// Names of environment variables that they are given, and that `${secret:NAME}` in their arguments may name.
    pub environment: Vec<String>,
    /// Whether they may open TCP connections to others than the site.
    pub network: bool,
    /// Whether they run at all where the kernel cannot keep them from other files.
    pub confine: bool,
    /// Most address space of a process, in bytes.
    pub max_memory: Option<u64>,
    /// Most processor time of a process, in seconds.
    pub max_cpu: Option<u64>,
    /// Most open files of a process.
    pub max_open_files: u64,
    /// Largest file that is written, in bytes.
    pub max_file_size: u64,
    /// How much of what a script prints is kept, in bytes.
    pub max_log: u64,
    /// Largest result that is taken from a script, in bytes.
    pub max_result: u64,
}

impl Default for PythonSettings {
    fn default() -> Self {
        Self {
            interpreter: None,
            read: Vec::new(),
            write: Vec::new(),
            environment: Vec::new(),
            network: true,
            confine: true,
            max_memory: None,
            max_cpu: None,
            max_open_files: 4096,
            max_file_size: 16 << 30,
            max_log: 64 << 20,
            max_result: 4 << 30,
        }
    }
}

/// A mistake in the section `python`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}, line {line}: `{path}` {reason}")]
pub struct SettingsError {
    /// The file.
    pub file: String,
    /// Counted from 1.
    pub line: usize,
    /// Where in it.
    pub path: String,
    /// What is wrong.
    pub reason: String,
}

impl PythonSettings {
    /// Names of the environment variables that a script may see: the harmless ones, and those that the operator lists.
    pub fn variables(&self) -> impl Iterator<Item = &str> {
        HARMLESS.into_iter().chain(self.environment.iter().map(String::as_str))
    }

    /// Reads the section of a site's resources; the defaults where there is none.
    ///
    /// # Errors
    /// [`SettingsError`], the first mistake.
    pub fn read(resources: &Document) -> Result<Self, SettingsError> {
        let mut settings = Self::default();
        let Some(section) = resources.root().get("python") else { return Ok(settings) };
        if section.kind() != NodeKind::Object {
            return Err(mistake(section, "must be an object"));
        }
        for (key, node) in section.entries() {
            match key {
                "interpreter" => settings.interpreter = Some(path(node)?),
                "read" => settings.read = list(node, path)?,
                "write" => settings.write = list(node, path)?,
                "environment" => settings.environment = list(node, variable)?,
                "network" => settings.network = boolean(node)?,
                "confine" => settings.confine = boolean(node)?,
                "max_memory" => settings.max_memory = Some(number(node)?),
                "max_cpu" => settings.max_cpu = Some(number(node)?),
                "max_open_files" => settings.max_open_files = number(node)?,
                "max_file_size" => settings.max_file_size = number(node)?,
                "max_log" => settings.max_log = number(node)?,
                "max_result" => settings.max_result = number(node)?,
                _ => {
                    let known = locule_config::suggest(key, KEYS.iter().copied());
                    let hint = known.map_or_else(String::new, |known| format!("; did you mean `{known}`?"));
                    return Err(mistake(node, &format!("is not known{hint}")));
                }
            }
        }
        Ok(settings)
    }

    /// The interpreter, found.
    pub(crate) fn find_interpreter(&self, search_path: &std::ffi::OsStr) -> Result<PathBuf, String> {
        match &self.interpreter {
            Some(file) if is_program(file) => Ok(file.clone()),
            Some(file) => Err(format!(
                "the site's interpreter {} is not there or not executable (`python.interpreter` in its resources.json)",
                file.display()
            )),
            None => find_program("python3", search_path).ok_or_else(|| {
                "the site has no python3 on its PATH, and its resources.json names no `python.interpreter`".to_owned()
            }),
        }
    }
}

/// What a script may see of the environment, besides what the operator lists.
const HARMLESS: [&str; 15] = [
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "CUDA_VISIBLE_DEVICES",
    "CUDA_DEVICE_ORDER",
    "CUDA_HOME",
    "LD_LIBRARY_PATH",
    "NVIDIA_VISIBLE_DEVICES",
    "NVIDIA_DRIVER_CAPABILITIES",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "ROCR_VISIBLE_DEVICES",
    "SSL_CERT_FILE",
];

const KEYS: [&str; 12] = [
    "interpreter",
    "read",
    "write",
    "environment",
    "network",
    "confine",
    "max_memory",
    "max_cpu",
    "max_open_files",
    "max_file_size",
    "max_log",
    "max_result",
];

fn path(node: &Node) -> Result<PathBuf, SettingsError> {
    let path = node.as_str().map(PathBuf::from).filter(|path| path.is_absolute());
    path.ok_or_else(|| mistake(node, "must be an absolute path"))
}

fn variable(node: &Node) -> Result<String, SettingsError> {
    let sound = |name: &&str| !name.is_empty() && !name.contains(['=', '\0']);
    node.as_str()
        .filter(sound)
        .map(str::to_owned)
        .ok_or_else(|| mistake(node, "must be the name of a variable"))
}

fn boolean(node: &Node) -> Result<bool, SettingsError> {
    node.as_bool().ok_or_else(|| mistake(node, "must be `true` or `false`"))
}

fn number(node: &Node) -> Result<u64, SettingsError> {
    node.as_u64().filter(|number| *number > 0).ok_or_else(|| mistake(node, "must be a whole number above 0"))
}

fn list<T>(node: &Node, item: fn(&Node) -> Result<T, SettingsError>) -> Result<Vec<T>, SettingsError> {
    if node.kind() != NodeKind::List {
        return Err(mistake(node, "must be a list"));
    }
    node.items().iter().map(item).collect()
}

fn mistake(node: &Node, reason: &str) -> SettingsError {
    let (file, line, path) = (node.file().to_owned(), node.place().line, node.path());
    SettingsError { file, line, path, reason: reason.to_owned() }
}

/// The first program of this name in a search path.
pub(crate) fn find_program(name: &str, search_path: &std::ffi::OsStr) -> Option<PathBuf> {
    std::env::split_paths(search_path)
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(name))
        .find(|file| is_program(file))
}

pub(crate) fn is_program(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// What the program brings along for scripts: how it starts itself again, and what it sees of its surroundings.
#[derive(Debug, Clone)]
pub struct ScriptHost {
    /// The program that calls [`serve`](crate::serve()): mostly the one that runs.
    pub program: PathBuf,
    /// What stands before the arguments that this crate adds.
    pub args: Vec<OsString>,
    /// Where programs are looked for, in the form of `PATH`.
    pub search_path: OsString,
    /// Reads an environment variable of the site.
    pub variable: fn(&str) -> Option<OsString>,
    /// Variables that every script is given, whatever the operator lists.
    pub given: Vec<(String, String)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<PythonSettings, SettingsError> {
        PythonSettings::read(&Document::parse_json("resources.json", text).unwrap())
    }

    #[test]
    fn a_site_says_what_scripts_may() {
        assert_eq!(read("{}").unwrap(), PythonSettings::default());
        let said = r#"{ "python": { "interpreter": "/opt/python3", "read": ["/data"], "environment": ["HF_HOME"],
            "network": false, "max_memory": 1000 } }"#;
        let settings = read(said).unwrap();
        assert_eq!(settings.interpreter, Some(PathBuf::from("/opt/python3")));
        assert_eq!(settings.read, [PathBuf::from("/data")]);
        assert_eq!((settings.network, settings.confine, settings.max_memory), (false, true, Some(1000)));
    }

    #[test]
    fn mistakes_are_told_with_their_place() {
        for (text, told) in [
            (r#"{ "python": 3 }"#, "resources.json, line 1: `python` must be an object"),
            (
                "{ \"python\": {\n \"interpretor\": \"/a\" } }",
                "resources.json, line 2: `python.interpretor` is not known; did you mean `interpreter`?",
            ),
            (
                r#"{ "python": { "read": ["data"] } }"#,
                "resources.json, line 1: `python.read.#1` must be an absolute path",
            ),
            (
                r#"{ "python": { "confine": "no" } }"#,
                "resources.json, line 1: `python.confine` must be `true` or `false`",
            ),
        ] {
            assert_eq!(read(text).unwrap_err().to_string(), told);
        }
    }
}
