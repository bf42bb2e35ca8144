//! Projects, and who provisions them.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, anyhow, bail};
use locule_tls::TlsFiles;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::python::Python;

/// The server's name, which is its certificate's; it is reached as [`HOST`].
pub(crate) const SERVER: &str = "fl-server";
/// The relay's name, if there is one.
pub(crate) const RELAY: &str = "relay-1";
/// Where everything runs.
pub(crate) const HOST: &str = "localhost";
/// Another name of the same, by which `site-2` and the lead reach the server.
const OTHER_HOST: &str = "127.0.0.1";
/// The administrator's name.
pub(crate) const ADMIN: &str = "admin@locule.org";
/// The name of an administrator with fewer rights.
pub(crate) const LEAD: &str = "lead@locule.org";
/// The project's name.
pub(crate) const PROJECT: &str = "interop";

/// Who takes part, beside a server, two sites and two administrators, and who makes their kits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) scheme: &'static str,
    pub(crate) port: u16,
    /// The port of a relay, and which sites are behind it.
    pub(crate) relay: Option<(u16, &'static [&'static str])>,
    pub(crate) provisioner: Provisioner,
}

/// What makes the kits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Provisioner {
    /// `nvflare provision`.
    Nvflare,
    /// `locule provision`, with scripts that start what this runtime names.
    Locule { runtime: &'static str },
}

impl Default for Plan {
    fn default() -> Self {
        Self { scheme: "grpc", port: e2e::free_port(), relay: None, provisioner: Provisioner::Nvflare }
    }
}

/// Startup kits.
#[derive(Clone, Debug)]
pub(crate) struct Project {
    kits: PathBuf,
}

impl Project {
    /// Makes the kits, in `folder`.
    pub(crate) async fn provision(python: &Python, folder: &Path, plan: &Plan) -> anyhow::Result<Self> {
        let file = folder.join("project.yml");
        std::fs::write(&file, description(plan).to_string()).context("write the project file")?;
        let mut command = match plan.provisioner {
            Provisioner::Nvflare => {
                let mut command = Command::new(python.bin().join("nvflare"));
                command.args(["provision", "-p"]).arg(&file).arg("-w").arg(folder);
                command
            }
            Provisioner::Locule { runtime } => {
                let mut command = Command::new(e2e::binary_with_wasm());
                command.arg("provision").arg(&file).arg("--workspace").arg(folder);
                command.args(["--runtime", runtime]);
                command
            }
        };
        let output = command.current_dir(folder).stdin(Stdio::null()).kill_on_drop(true).output().await;
        let output = output.context("provision")?;
        let kits = folder.join(PROJECT).join("prod_00");
        if !output.status.success() || !kits.is_dir() {
            let said = [output.stdout, output.stderr].concat();
            bail!("no kits were made:\n{}", String::from_utf8_lossy(&said));
        }
        let project = Self { kits };
        project.keep_state_inside(folder)?;
        project.lock_keys()?;
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

    /// nvflare 2.7 leaves private keys readable by everybody, which our program refuses.
    fn lock_keys(&self) -> anyhow::Result<()> {
        for entry in std::fs::read_dir(&self.kits).context("read the kits")? {
            for name in ["server.key", "client.key"] {
                let key =
                    entry.as_ref().map_err(|error| anyhow!("{error}"))?.path().join("startup").join(name);
                if key.exists() {
                    std::fs::set_permissions(&key, Permissions::from_mode(0o600)).context("lock a key")?;
                }
            }
        }
        Ok(())
    }

    /// The kit of a participant.
    pub(crate) fn kit(&self, name: &str) -> PathBuf {
        self.kits.join(name)
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

/// The project file: JSON, and so YAML.
fn description(plan: &Plan) -> Value {
    let Plan { scheme, port, relay, .. } = plan;
    let other = json!({ "host": OTHER_HOST });
    let mut participants = vec![
        json!({ "name": SERVER, "type": "server", "org": "locule", "default_host": HOST,
                "host_names": [OTHER_HOST], "fed_learn_port": port, "admin_port": port }),
        json!({ "name": ADMIN, "type": "admin", "org": "locule", "role": "project_admin" }),
        json!({ "name": LEAD, "type": "admin", "org": "locule", "role": "lead", "connect_to": other }),
    ];
    let mut sites = vec![
        json!({ "name": "site-1", "type": "client", "org": "locule" }),
        json!({ "name": "site-2", "type": "client", "org": "locule", "connect_to": other }),
    ];
    if let Some((port, behind)) = relay {
        participants.push(json!({
            "name": RELAY, "type": "relay", "org": "locule",
            "listening_host": { "default_host": HOST, "port": port, "scheme": scheme, "connection_security": "mtls" },
        }));
        let behind = sites.iter_mut().filter(|site| behind.iter().any(|name| site["name"] == *name));
        behind.for_each(|site| site["connect_to"] = json!({ "name": RELAY }));
    }
    participants.extend(sites);
    json!({
        "api_version": 3,
        "name": PROJECT,
        "participants": participants,
        "builders": [
            { "path": "nvflare.lighter.impl.workspace.WorkspaceBuilder" },
            { "path": "nvflare.lighter.impl.static_file.StaticFileBuilder",
              "args": { "config_folder": "config", "scheme": scheme } },
            { "path": "nvflare.lighter.impl.cert.CertBuilder" },
            { "path": "nvflare.lighter.impl.signature.SignatureBuilder" },
        ],
    })
}
