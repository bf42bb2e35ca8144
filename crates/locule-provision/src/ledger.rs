//! The certificates and keys of a project, kept from one round of provisioning to the next.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use locule_identity::{ChainError, Usage, Verifier};
use locule_identity_openssl::{
    CertificateAuthority, IssueError, LoadError, OpensslSigner, OpensslVerifier, Subject, SubjectName,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Project, ProvisionError, make_folder, write_error, write_file};

/// One participant's certificate and key.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Credential {
    /// PEM.
    pub(crate) cert: String,
    /// PEM.
    pub(crate) pri_key: String,
    /// The subject alternative names it was made with; stock files do not have them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    names: Option<Vec<String>>,
}

/// The file `state/cert.json`, in memory.
///
/// # Source
/// nvflare 2.9.0, `nvflare.lighter.impl.cert`: `root_cert`, `root_pri_key`, and by common name
/// `{"cert", "pri_key"}`; `names` is ours.
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
        Ok(Ledger { file, authority, verifier, root_pem, entries, now })
    }

    /// The root certificate, PEM.
    pub(crate) fn root_pem(&self) -> &str {
        &self.root_pem
    }

    /// A certificate and key for every participant, kept or new, by name.
    pub(crate) fn credentials(
        &mut self,
        project: &Project,
    ) -> Result<BTreeMap<String, Credential>, ProvisionError> {
        let server = &project.server;
        let mut hosts = vec![server.default_host().to_owned()];
        hosts.extend(server.host_names.iter().filter(|host| *host != server.default_host()).cloned());
        let mut wanted = vec![(Subject::new(&server.name).organization(&server.org), hosts, Usage::Server)];
        for site in &project.sites {
            let subject = Subject::new(&site.name).organization(&site.org);
            wanted.push((subject, vec![site.name.clone()], Usage::Client));
        }
        for admin in &project.admins {
            let subject = Subject::new(&admin.name).organization(&admin.org).role(&admin.role);
            wanted.push((subject, vec![admin.name.clone()], Usage::Client));
        }
        let validity = days(project.valid_days);
        wanted
            .into_iter()
            .map(|(subject, names, usage)| {
                let name = subject.common_name.clone();
                Ok((name, self.credential(subject, names, usage, validity)?))
            })
            .collect()
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

    fn credential(
        &mut self,
        subject: Subject,
        names: Vec<String>,
        usage: Usage,
        validity: Duration,
    ) -> Result<Credential, ProvisionError> {
        let participant = subject.common_name.clone();
        if let Some(kept) = self.kept(&subject, &names, usage) {
            return Ok(kept);
        }
        let alternative: Vec<SubjectName> = names.iter().map(|name| SubjectName::of_host(name)).collect();
        let issued = self.authority.issue(&subject, &alternative, usage, validity, self.now).map_err(
            |source: IssueError| ProvisionError::Issue { participant: participant.clone(), source },
        )?;
        let verified = self.verifier.identify(&issued.certificate_pem, usage, self.now);
        if let Err(source) = verified {
            let root_is_out_of_time = matches!(source, ChainError::Expired | ChainError::NotYetValid);
            return Err(if root_is_out_of_time {
                ProvisionError::RootExpired { file: self.file.clone() }
            } else {
                ProvisionError::Unacceptable { participant, source }
            });
        }
        let credential = Credential {
            cert: text(&issued.certificate_pem),
            pri_key: text(&issued.key_pem),
            names: Some(names),
        };
        let value = serde_json::to_value(&credential).expect("three fields of text are JSON");
        self.entries.insert(participant, value);
        Ok(credential)
    }

    /// What the participant has already, if it is still good for what the project says of it.
    fn kept(&self, subject: &Subject, names: &[String], usage: Usage) -> Option<Credential> {
        let entry = self.entries.get(&subject.common_name)?;
        let kept: Credential = serde_json::from_value(entry.clone()).ok()?;
        let holder = self.verifier.identify(kept.cert.as_bytes(), usage, self.now).ok()?;
        let same_subject = holder.common_name == subject.common_name
            && holder.organization == subject.organization
            && holder.role == subject.role;
        let same_names = kept.names.as_deref().is_none_or(|kept| kept == names);
        let own_key = OpensslSigner::from_pem(kept.cert.as_bytes(), kept.pri_key.as_bytes()).is_ok();
        (same_subject && same_names && own_key).then_some(kept)
    }
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
