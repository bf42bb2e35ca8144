//! The certificates and keys of a project, kept from one round of provisioning to the next.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use locule_identity::{ChainError, Usage, Verifier};
use locule_identity_openssl::{
    CertificateAuthority, IssueError, LoadError, OpensslSigner, OpensslVerifier, Subject, SubjectName,
    subject_names,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Project, ProvisionError, make_folder, write_error, write_file};

/// A certificate and its key.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Credential {
    /// PEM.
    pub(crate) cert: String,
    /// PEM.
    pub(crate) pri_key: String,
}

/// What participants prove themselves with, by name.
pub(crate) struct Credentials {
    pub(crate) of: BTreeMap<String, Credential>,
    /// Of relays and sites that listen: as they show themselves to those who dial them.
    pub(crate) of_listeners: BTreeMap<String, Credential>,
}

/// Where the credential of a participant's listener is kept, in the entry of the participant.
const LISTENER: &str = "listener";

/// The file `state/cert.json`, in memory.
///
/// # Source
/// nvflare 2.9.0, `nvflare.lighter.impl.cert`: `root_cert`, `root_pri_key`, and by common name
/// `{"cert", "pri_key"}`. `listener` is ours; nvflare leaves it where it is, and makes a new one each time.
pub(crate) struct Ledger {
    file: PathBuf,
    authority: CertificateAuthority,
    verifier: OpensslVerifier,
    root_pem: String,
    /// Everything in the file, so that what others keep there stays.
    entries: Map<String, Value>,
    now: SystemTime,
}

impl Ledger {
    /// Reads the ledger in the folder `state`, or begins one with a new root.
    pub(crate) fn open(state: &Path, project: &Project, now: SystemTime) -> Result<Ledger, ProvisionError> {
        make_private_folder(state)?;
        let file = state.join("cert.json");
        let unusable = |source: Box<dyn std::error::Error + Send + Sync>| ProvisionError::Ledger {
            file: file.clone(),
            source,
        };
        let mut entries = match fs::read(&file) {
            Ok(bytes) => {
                serde_json::from_slice::<Map<String, Value>>(&bytes).map_err(|e| unusable(e.into()))?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Map::new(),
            Err(error) => return Err(unusable(error.into())),
        };
        let authority = if entries.is_empty() {
            let authority = new_root(project, now)?;
            let issue = |source| ProvisionError::Issue { participant: project.name.clone(), source };
            let (cert, key) =
                (authority.certificate_pem().map_err(issue)?, authority.key_pem().map_err(issue)?);
            entries.insert("root_cert".into(), text(&cert).into());
            entries.insert("root_pri_key".into(), text(&key).into());
            authority
        } else {
            let pem = |key: &str| {
                let text = entries.get(key).and_then(Value::as_str);
                text.ok_or_else(|| unusable(format!("it has no `{key}`").into()))
            };
            CertificateAuthority::from_pem(pem("root_cert")?.as_bytes(), pem("root_pri_key")?.as_bytes())
                .map_err(|error: LoadError| unusable(error.into()))?
        };
        let root_pem = entries.get("root_cert").and_then(Value::as_str).unwrap_or_default().to_owned();
        let verifier = OpensslVerifier::new(root_pem.as_bytes()).map_err(|error| unusable(error.into()))?;
        let authority = if project.one_client_key {
            let issue = |source| ProvisionError::Issue { participant: project.name.clone(), source };
            authority.with_one_client_key().map_err(issue)?
        } else {
            authority
        };
        Ok(Ledger { file, authority, verifier, root_pem, entries, now })
    }

    /// The root certificate, PEM.
    pub(crate) fn root_pem(&self) -> &str {
        &self.root_pem
    }

    /// A certificate and key for every participant, kept or new.
    pub(crate) fn credentials(&mut self, project: &Project) -> Result<Credentials, ProvisionError> {
        let server = &project.server;
        let mut credentials = Credentials { of: BTreeMap::new(), of_listeners: BTreeMap::new() };
        let mut participants = Vec::new();
        for relay in &project.relays {
            let subject = Subject::new(&relay.name).organization(&relay.org);
            participants.push((subject, Some(&relay.listening_host)));
        }
        for site in &project.sites {
            let subject = Subject::new(&site.name).organization(&site.org);
            participants.push((subject, site.listening_host.as_ref()));
        }
        for admin in &project.admins {
            participants.push((Subject::new(&admin.name).organization(&admin.org).role(&admin.role), None));
        }
        let subject = Subject::new(&server.name).organization(&server.org);
        let names = hosts(server.default_host(), &server.host_names);
        let credential = self.credential(&subject, &names, Usage::Server, None)?;
        credentials.of.insert(server.name.clone(), credential);
        for (subject, listening) in participants {
            let own = [SubjectName::of_host(&subject.common_name)];
            let credential = self.credential(&subject, &own, Usage::Client, None)?;
            credentials.of.insert(subject.common_name.clone(), credential);
            if let Some(listening) = listening {
                let names = hosts(&listening.default_host, &listening.host_names);
                let credential = self.credential(&subject, &names, Usage::Server, Some(LISTENER))?;
                credentials.of_listeners.insert(subject.common_name, credential);
            }
        }
        Ok(credentials)
    }

    /// Writes the ledger in place of the old one.
    pub(crate) fn save(&self) -> Result<(), ProvisionError> {
        let partial = self.file.with_extension("json.partial");
        match fs::remove_file(&partial) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(write_error(&partial, source));
            }
            Ok(()) | Err(_) => {}
        }
        let json = format!("{:#}\n", Value::Object(self.entries.clone()));
        write_file(&partial, json.as_bytes(), 0o600)?;
        fs::rename(&partial, &self.file).map_err(|source| write_error(&self.file, source))
    }

    /// The credential of a participant, or another of its that is kept `within` the participant's entry.
    fn credential(
        &mut self,
        subject: &Subject,
        names: &[SubjectName],
        usage: Usage,
        within: Option<&str>,
    ) -> Result<Credential, ProvisionError> {
        if let Some(kept) = self.kept(subject, names, usage, within) {
            return Ok(kept);
        }
        let participant = &subject.common_name;
        let issued = self.authority.issue(subject, names, usage, VALIDITY, self.now).map_err(
            |source: IssueError| ProvisionError::Issue { participant: participant.clone(), source },
        )?;
        let verified = self.verifier.identify(&issued.certificate_pem, usage, self.now);
        if let Err(source) = verified {
            let root_is_out_of_time = matches!(source, ChainError::Expired | ChainError::NotYetValid);
            return Err(if root_is_out_of_time {
                ProvisionError::RootExpired { file: self.file.clone() }
            } else {
                ProvisionError::Unacceptable { participant: participant.clone(), source }
            });
        }
        let credential = Credential { cert: text(&issued.certificate_pem), pri_key: text(&issued.key_pem) };
        let value = serde_json::to_value(&credential).expect("two fields of text are JSON");
        let entry = self.entries.entry(participant).or_insert(Value::Null);
        if !entry.is_object() {
            *entry = Value::Object(Map::new());
        }
        match (within, value) {
            (Some(key), value) => entry[key] = value,
            (None, Value::Object(fields)) => fields.into_iter().for_each(|(key, value)| entry[key] = value),
            (None, _) => {}
        }
        Ok(credential)
    }

    /// What the participant has already, if it is still good for what the project says of it.
    fn kept(
        &self,
        subject: &Subject,
        names: &[SubjectName],
        usage: Usage,
        within: Option<&str>,
    ) -> Option<Credential> {
        let entry = self.entries.get(&subject.common_name)?;
        let entry = if let Some(key) = within { entry.get(key)? } else { entry };
        let kept: Credential = serde_json::from_value(entry.clone()).ok()?;
        let holder = self.verifier.identify(kept.cert.as_bytes(), usage, self.now).ok()?;
        let same_subject = holder.common_name == subject.common_name
            && holder.organization == subject.organization
            && holder.role == subject.role;
        let kept_names: HashSet<SubjectName> =
            subject_names(kept.cert.as_bytes()).ok()?.into_iter().collect();
        let same_names = kept_names == names.iter().cloned().collect();
        let own_key = OpensslSigner::from_pem(kept.cert.as_bytes(), kept.pri_key.as_bytes()).is_ok();
        (same_subject && same_names && own_key).then_some(kept)
    }
}

/// How long a certificate is valid; a root may be valid for longer.
const VALIDITY: Duration = Duration::from_secs(360 * 24 * 3600);

/// The first host and the others, each once.
fn hosts(first: &str, others: &[String]) -> Vec<SubjectName> {
    let mut names = vec![SubjectName::of_host(first)];
    for other in others.iter().map(|host| SubjectName::of_host(host)) {
        if !names.contains(&other) {
            names.push(other);
        }
    }
    names
}

fn new_root(project: &Project, now: SystemTime) -> Result<CertificateAuthority, ProvisionError> {
    CertificateAuthority::create(&Subject::new(&project.name), days(project.valid_days), now)
        .map_err(|source| ProvisionError::Issue { participant: project.name.clone(), source })
}

fn days(days: u32) -> Duration {
    Duration::from_secs(u64::from(days) * 24 * 3600)
}

/// PEM is ASCII.
fn text(pem: &[u8]) -> String {
    String::from_utf8_lossy(pem).into_owned()
}

fn make_private_folder(folder: &Path) -> Result<(), ProvisionError> {
    make_folder(folder)?;
    #[cfg(unix)]
    fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o700))
        .map_err(|source| write_error(folder, source))?;
    Ok(())
}
