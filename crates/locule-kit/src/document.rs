//! One document of the several configuration files of a kit.

use std::fs;
use std::io;
use std::path::Path;

use locule_config::{Diagnostics, Document, merge};

use crate::files::{check_not_open_to_change, read};
use crate::{KitError, Workspace};

/// Refuses a folder that is not the kit of `wanted`, and says whose it is if it is another's.
pub(crate) fn check_is_kit(workspace: &Workspace, wanted: &'static str, file: &str) -> Result<(), KitError> {
    const KITS: [(&str, &str); 4] = [
        ("fed_client.json", "a site"),
        ("fed_server.json", "a server"),
        ("fed_admin.json", "an administrator"),
        ("fed_relay.json", "a relay"),
    ];
    let startup = workspace.startup();
    if startup.join(file).exists() {
        return Ok(());
    }
    let found = match KITS.iter().find(|(other, _)| startup.join(other).exists()) {
        Some((other, whose)) => format!("it is that of {whose} (startup/{other}); give the right folder"),
        None => format!("it has no startup/{file}; give the folder that contains startup and local"),
    };
    Err(KitError::NotThisKit { folder: workspace.root().to_owned(), wanted, found })
}

/// The merged configuration of a parent process.
///
/// In order, the earlier having precedence: `startup/<fed>`, `local/resources.json` or else its
/// `.default`, and in `startup`, then in `local`: `*__resources.json`, `*__p_resources.json`.
///
/// # Source
/// nvflare 2.9.0, `nvflare.private.fed.app.fl_conf`.
pub(crate) fn merged(workspace: &Workspace, fed: &str) -> Result<Document, KitError> {
    merge_files(workspace, fed, None, "__p_resources.json")
}

/// The merged configuration of a kit as its jobs see it, the site's checkers included.
///
/// As for the parent process, but with `local/job_resources.json` and `*__j_resources.json` instead of
/// `*__p_resources.json`. `fed` is `fed_server.json` or `fed_client.json`. Read it again for every job:
/// what an operator edits counts from the next job on.
///
/// # Errors
/// [`KitError`] names the file and the mistake. A conflict between two files is one, never silence.
///
/// # Source
/// nvflare 2.9.0, `nvflare.private.fed.app.fl_conf`.
pub fn job_resources(workspace: &Workspace, fed: &str) -> Result<Document, KitError> {
    let own = "local/job_resources.json";
    let own = workspace.root().join(own).exists().then(|| own.to_owned());
    merge_files(workspace, fed, own, "__j_resources.json")
}

/// The privacy policy of a kit, `local/privacy.json`, if its operator wrote one. Read it again for every job.
///
/// # Errors
/// [`KitError`] names the mistake; it must not be taken for the absence of a policy.
///
/// # Source
/// nvflare 2.9.0, `nvflare.apis.workspace`.
pub fn privacy(workspace: &Workspace) -> Result<Option<Document>, KitError> {
    let name = "local/privacy.json";
    match workspace.root().join(name).symlink_metadata() {
        // A link to nowhere, or a folder that may not be looked into, is no absence.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Ok(_) | Err(_) => parse(workspace, name).map(Some),
    }
}

fn merge_files(
    workspace: &Workspace,
    fed: &str,
    own: Option<String>,
    ending: &str,
) -> Result<Document, KitError> {
    let mut names = vec![format!("startup/{fed}"), resources(workspace)?];
    names.extend(own);
    for folder in ["startup", "local"] {
        for ending in ["__resources.json", ending] {
            names.extend(with_ending(workspace, folder, ending)?);
        }
    }
    let (mut documents, mut mistakes) = (Vec::new(), Diagnostics::new());
    for name in &names {
        match parse(workspace, name) {
            Ok(document) => documents.push(document),
            Err(KitError::Configuration { mistakes: more, .. }) => mistakes.append(more),
            Err(error) => return Err(error),
        }
    }
    let merged = merge(&documents).map_err(|more| mistakes.append(more));
    match merged {
        Ok(document) if mistakes.is_empty() => Ok(document),
        Ok(_) | Err(()) => Err(configuration(workspace, mistakes)),
    }
}

/// One file of the kit, named as seen from the kit.
pub(crate) fn parse(workspace: &Workspace, name: &str) -> Result<Document, KitError> {
    let file = workspace.root().join(name);
    check_not_open_to_change(&file)?;
    let text = String::from_utf8(read(&file)?).map_err(|_| KitError::NotText { file })?;
    Document::parse_json(name, &text).map_err(|mistakes| configuration(workspace, mistakes))
}

/// A file that only some kits have.
pub(crate) fn parse_if_any(workspace: &Workspace, name: &str) -> Result<Option<Document>, KitError> {
    workspace.root().join(name).exists().then(|| parse(workspace, name)).transpose()
}

pub(crate) fn configuration(workspace: &Workspace, mistakes: Diagnostics) -> KitError {
    KitError::Configuration { folder: workspace.root().to_owned(), mistakes }
}

/// What the operator wrote, else what provisioning left as a default.
fn resources(workspace: &Workspace) -> Result<String, KitError> {
    let candidates = ["local/resources.json", "local/resources.json.default"];
    match candidates.iter().find(|name| workspace.root().join(name).exists()) {
        Some(name) => Ok((*name).to_owned()),
        None => Err(KitError::Missing { file: workspace.root().join(candidates[1]) }),
    }
}

/// Files of a folder by the ending of their names, sorted, so that every start merges alike.
fn with_ending(workspace: &Workspace, folder: &str, ending: &str) -> Result<Vec<String>, KitError> {
    let path = workspace.root().join(folder);
    let mut found = Vec::new();
    for entry in fs::read_dir(&path).map_err(|source| read_dir_error(&path, source))? {
        let entry = entry.map_err(|source| read_dir_error(&path, source))?;
        if let Some(name) = entry.file_name().to_str().filter(|name| name.ends_with(ending)) {
            found.push(format!("{folder}/{name}"));
        }
    }
    found.sort();
    Ok(found)
}

fn read_dir_error(path: &Path, source: std::io::Error) -> KitError {
    KitError::Read { file: path.to_owned(), source }
}
