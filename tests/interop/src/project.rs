//! A project that nvflare's own tool provisioned.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use locule_tls::TlsFiles;
use serde_json::{Value, json};

use crate::python::Python;

/// The server's name, which is its certificate's; it is reached as [`HOST`].
pub(crate) const SERVER: &str = "fl-server";
/// Where everything runs.
pub(crate) const HOST: &str = "localhost";
/// The administrator's name.
pub(crate) const ADMIN: &str = "admin@locule.org";
/// The project's name.
pub(crate) const PROJECT: &str = "interop";

/// Startup kits of a server, two sites and an administrator.
#[derive(Clone, Debug)]
pub(crate) struct Project {
    kits: PathBuf,
}

impl Project {
    /// Has `nvflare provision` make the kits, in `folder`.
    pub(crate) fn provision(python: &Python, folder: &Path, scheme: &str, port: u16) -> anyhow::Result<Self> {
        let file = folder.join("project.json");
        std::fs::write(&file, description(scheme, port).to_string()).context("write the project file")?;
        let output = Command::new(python.bin().join("nvflare"))
            .args(["provision", "-p"])
            .arg(&file)
            .arg("-w")
            .arg(folder)
            .current_dir(folder)
            .stdin(Stdio::null())
            .output()
            .context("run `nvflare provision`")?;
        let kits = folder.join(PROJECT).join("prod_00");
        if !output.status.success() || !kits.is_dir() {
            let said = [output.stdout, output.stderr].concat();
            bail!("`nvflare provision` made no kits:\n{}", String::from_utf8_lossy(&said));
        }
        let project = Self { kits };
        project.keep_state_inside(folder)?;
        Ok(project)
    }

    /// Has a stock server keep jobs and snapshots in `folder`: a kit's own setting is one folder of the machine.
    fn keep_state_inside(&self, folder: &Path) -> anyhow::Result<()> {
        let local = self.kit(SERVER).join("local");
        let default = std::fs::read_to_string(local.join("resources.json.default"));
        let state = format!("{}/state/", folder.display());
        let settled = default.context("read the server's resources")?.replace("/tmp/nvflare/", &state);
        std::fs::write(local.join("resources.json"), settled).context("write the server's resources")
    }

    /// The kit of a participant.
    pub(crate) fn kit(&self, name: &str) -> PathBuf {
        self.kits.join(name)
    }

    /// The kit of the participant whose cell is called `name`.
    pub(crate) fn kit_of(&self, name: &str) -> PathBuf {
        self.kit(if name == "server" { SERVER } else { name })
    }

    /// The certificate and key that the cell `name` has in its kit.
    pub(crate) fn files(&self, name: &str) -> TlsFiles {
        match name {
            "server" => TlsFiles::in_folder(self.kit(SERVER).join("startup"), "server"),
            site => TlsFiles::in_folder(self.kit(site).join("startup"), "client"),
        }
    }

    /// The same as a cell of nvflare takes them.
    pub(crate) fn credentials(&self, name: &str) -> Value {
        let TlsFiles { ca, cert, key } = self.files(name);
        let side = if name == "server" { "server" } else { "client" };
        json!({ "ca_cert": ca, (format!("{side}_cert")): cert, (format!("{side}_key")): key })
    }
}

fn description(scheme: &str, port: u16) -> Value {
    json!({
        "api_version": 3,
        "name": PROJECT,
        "participants": [
            { "name": SERVER, "type": "server", "org": "locule", "default_host": HOST, "host_names": ["127.0.0.1"],
              "fed_learn_port": port, "admin_port": port },
            { "name": "site-1", "type": "client", "org": "locule" },
            { "name": "site-2", "type": "client", "org": "locule" },
            { "name": ADMIN, "type": "admin", "org": "locule", "role": "project_admin" },
        ],
        "builders": [
            { "path": "nvflare.lighter.impl.workspace.WorkspaceBuilder" },
            { "path": "nvflare.lighter.impl.static_file.StaticFileBuilder",
              "args": { "config_folder": "config", "scheme": scheme } },
            { "path": "nvflare.lighter.impl.cert.CertBuilder" },
            { "path": "nvflare.lighter.impl.signature.SignatureBuilder" },
        ],
    })
}
