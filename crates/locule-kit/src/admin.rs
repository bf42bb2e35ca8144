//! The kit of an administrator.

use std::path::{Path, PathBuf};
use std::time::Duration;

use locule_config::Document;

use crate::fields::Fields;
use crate::{Address, ConnectionSecurity, KitError, KitFiles, Workspace, document};

/// What an administrator's kit says: which server, and as whom.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AdminKit {
    /// The folder of the kit.
    pub workspace: Workspace,
    /// The project's name.
    pub project: String,
    /// Where the server listens for administrators.
    pub server: Address,
    /// The common name that the server must prove.
    pub server_identity: String,
    /// The administrator's name as provisioned; may be empty.
    pub username: String,
    /// Where the name to log in with comes from.
    pub uid_source: UidSource,
    /// Certificates and key.
    pub files: KitFiles,
    /// How the link to the server is protected.
    pub connection_security: ConnectionSecurity,
    /// Where jobs to submit lie.
    pub upload_dir: PathBuf,
    /// Where results are put.
    pub download_dir: PathBuf,
    /// A session ends after so long without a command; 900 s.
    pub idle_timeout: Duration,
    /// How long logging in may take; 10 s.
    pub login_timeout: Duration,
    /// The prompt of the console.
    pub prompt: String,
    /// All configuration files of the kit, merged.
    pub resources: Document,
}

/// Where an administrator's name comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UidSource {
    /// The person is asked.
    UserInput,
    /// The common name of the certificate.
    Certificate,
}

impl AdminKit {
    /// Reads and checks the kit in `folder`, which contains `startup` and `local`.
    ///
    /// # Errors
    /// [`KitError`]; of mistakes in configuration files all are reported at once.
    pub fn open(folder: impl AsRef<Path>) -> Result<AdminKit, KitError> {
        let workspace = Workspace::new(folder.as_ref());
        document::check_is_kit(&workspace, "an administrator", "fed_admin.json")?;
        let resources = document::merged(&workspace, "fed_admin.json")?;

        let mut fields = Fields::default();
        let admin = fields.object(resources.root(), "admin");
        let ca = fields.text_or(admin, "ca_cert", "rootCA.pem");
        let cert = fields.text_or(admin, "client_cert", "client.crt");
        let key = fields.text_or(admin, "client_key", "client.key");
        let project = fields.text(admin, "project_name");
        let server_identity = fields.text(admin, "server_identity");
        let server = Address {
            scheme: fields.scheme(admin),
            host: fields.host(admin, "host"),
            port: fields.port(admin, "port"),
        };
        let username = admin.get("username").and_then(|name| name.as_str()).unwrap_or_default().to_owned();
        let uid_source = match fields.text_or(admin, "uid_source", "user_input").as_str() {
            "cert" => UidSource::Certificate,
            "user_input" => UidSource::UserInput,
            _ => {
                fields
                    .bad(admin.get("uid_source").unwrap_or(admin), "`uid_source` must be user_input or cert");
                UidSource::UserInput
            }
        };
        let connection_security = fields.security(admin);
        let upload_dir = workspace.root().join(fields.text_or(admin, "upload_dir", "transfer"));
        let download_dir = workspace.root().join(fields.text_or(admin, "download_dir", "transfer"));
        let idle_timeout = fields.seconds(admin, "idle_timeout", 900);
        let login_timeout = fields.seconds(admin, "login_timeout", 10);
        let prompt = admin.get("prompt").and_then(|prompt| prompt.as_str()).unwrap_or("> ").to_owned();
        fields.finish(&workspace, ())?;

        let files = KitFiles::check(&workspace, &ca, &cert, &key)?;
        Ok(AdminKit {
            workspace,
            project,
            server,
            server_identity,
            username,
            uid_source,
            files,
            connection_security,
            upload_dir,
            download_dir,
            idle_timeout,
            login_timeout,
            prompt,
            resources,
        })
    }

    /// What must outlive the process lies here: `<kit>/state`.
    pub fn state_dir(&self) -> PathBuf {
        self.workspace.state_dir()
    }
}
