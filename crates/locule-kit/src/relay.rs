//! The kit of a relay.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::fields::Fields;
use crate::links::{COMM_CONFIG, CommConfig};
use crate::{InternalListener, KitError, KitFiles, RelayLink, Workspace, document};

/// What a relay's kit says: whom to dial, as whom, and where to listen for sites and other relays.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RelayKit {
    /// The folder of the kit.
    pub workspace: Workspace,
    /// The project's name.
    pub project: String,
    /// The relay's name, as which it registers.
    pub name: String,
    /// The name of its cell: [`RelayKit::name`] below the server, `<parent's cell>.<name>` below a relay.
    pub fqcn: String,
    /// The common name that the server must prove, through however many relays.
    pub server_identity: String,
    /// What it dials: the server, or another relay.
    pub parent: RelayLink,
    /// Where it listens; has a port.
    pub listener: InternalListener,
    /// Root, and certificate and key with which it dials and registers (`client.crt`).
    pub files: KitFiles,
    /// Root, and certificate and key that it shows to those who dial it (`server.crt`). Always there unless
    /// [`RelayKit::listener`] is [`crate::ConnectionSecurity::Clear`].
    pub listener_files: Option<KitFiles>,
    /// Another root that the parent's TLS certificate may come from, used with [`crate::ConnectionSecurity::Tls`]
    /// only.
    pub custom_ca: Option<PathBuf>,
    /// The common name that this relay proves, if it is not its name.
    pub auth_identity: Option<String>,
    /// Which common name a cell below must prove, by prefix of its name, where it is not the first segment
    /// below this relay.
    pub auth_identity_map: BTreeMap<String, String>,
    /// Whether cells below may link to others than their parent.
    pub allow_adhoc_connections: bool,
}

impl RelayKit {
    /// Reads and checks the kit in `folder`, which contains `startup` and `local`.
    ///
    /// # Errors
    /// [`KitError`]; of mistakes in configuration files all are reported at once.
    ///
    /// # Source
    /// nvflare 2.9.0, `nvflare.private.fed.app.relay.relay`.
    pub fn open(folder: impl AsRef<Path>) -> Result<RelayKit, KitError> {
        let workspace = Workspace::new(folder.as_ref());
        document::check_is_kit(&workspace, "a relay", "fed_relay.json")?;
        let fed = document::parse(&workspace, "startup/fed_relay.json")?;
        let comm = document::parse(&workspace, COMM_CONFIG)?;

        let mut fields = Fields::default();
        let root = fed.root();
        let project = fields.text(root, "project_name");
        let name = fields.text(root, "identity");
        let server_identity = fields.text(root, "server_identity");
        let auth_identity = fields.text_if_any(root, "auth_identity");
        let auth_identity_map = fields.identity_map(root);
        let parent = fields.object(root, "connect_to");
        let parent = RelayLink::read(&mut fields, parent, &server_identity);
        let settings = CommConfig::read(&mut fields, Some(&comm));
        let internal = fields.object(comm.root(), "internal");
        // Others dial it, so any free port would not do.
        fields.port(internal.get("resources").unwrap_or(internal), "port");
        fields.finish(&workspace, ())?;
        let listener = settings.internal.expect("an object that is missing is a mistake");

        let files = KitFiles::check(&workspace, "rootCA.pem", "client.crt", "client.key")?;
        let listener_files = KitFiles::of_listener(&workspace, listener.connection_security)?;
        Ok(RelayKit {
            fqcn: parent.cell_below(&name),
            custom_ca: workspace.custom_ca(),
            workspace,
            project,
            name,
            server_identity,
            parent,
            listener,
            files,
            listener_files,
            auth_identity,
            auth_identity_map,
            allow_adhoc_connections: settings.allow_adhoc_connections,
        })
    }

    /// What must outlive the process lies here: `<kit>/state`.
    pub fn state_dir(&self) -> PathBuf {
        self.workspace.state_dir()
    }
}
