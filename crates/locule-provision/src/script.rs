//! The scripts and the readme of a kit.

use crate::{Project, Relay, Runtime, Site};

const START: &str = include_str!("../templates/start.sh");
const LOCULE_LOOP: &str = include_str!("../templates/sub_start.sh");
const LOCULE_STOP: &str = include_str!("../templates/stop_fl.sh");
const NVFLARE_LOOP: &str = include_str!("../templates/nvflare_sub_start.sh");
const NVFLARE_STOP: &str = include_str!("../templates/nvflare_stop_fl.sh");
const NVFLARE_ADMIN: &str = include_str!("../templates/nvflare_fl_admin.sh");
const DOCKER: &str = include_str!("../templates/docker.sh");

/// What a kit starts, and for whom. All words in it are of characters that mean nothing to a shell: the
/// project was checked.
pub(crate) struct Script {
    runtime: Runtime,
    project: String,
    whose: &'static str,
    /// Arguments of `locule` around the kit's folder, or a module of nvflare and its arguments.
    command: String,
    docker_image: Option<String>,
}

impl Script {
    pub(crate) fn server(project: &Project) -> Script {
        let org = &project.server.org;
        let nvflare = stock(project, "server.server_train", "fed_server.json", &format!("org={org}"));
        Script::new(project, "server", "server @KIT@".into(), nvflare)
    }

    pub(crate) fn relay(project: &Project, relay: &Relay) -> Script {
        let who = format!("uid={} org={}", relay.name, relay.org);
        let nvflare = stock(project, "relay.relay", "fed_relay.json", &who);
        Script { docker_image: None, ..Script::new(project, "relay", "relay @KIT@".into(), nvflare) }
    }

    pub(crate) fn site(project: &Project, site: &Site) -> Script {
        let who = format!("uid={} org={}", site.name, site.org);
        let nvflare = stock(project, "client.client_train", "fed_client.json", &who);
        // The name is that of the certificate, unless the certificate comes from elsewhere.
        let locule = match &site.auth_identity {
            Some(_) => format!("site @KIT@ --name {}", site.name),
            None => "site @KIT@".to_owned(),
        };
        Script::new(project, "site", locule, nvflare)
    }

    pub(crate) fn admin(project: &Project) -> Script {
        Script { docker_image: None, ..Script::new(project, "administrator", String::new(), String::new()) }
    }

    fn new(project: &Project, whose: &'static str, locule: String, nvflare: String) -> Script {
        let command = match project.runtime {
            Runtime::Locule => locule,
            Runtime::Nvflare => nvflare,
        };
        let (project, runtime, docker_image) =
            (project.name.clone(), project.runtime, project.docker_image.clone());
        Script { runtime, project, whose, command, docker_image }
    }

    /// Names and contents of what goes to `startup`.
    pub(crate) fn files(&self) -> Vec<(&'static str, String)> {
        let with =
            |template: &str, kit: &str| template.replace("@COMMAND@", &self.command.replace("@KIT@", kit));
        let mut files = match (self.runtime, self.whose) {
            (Runtime::Nvflare, "administrator") => return vec![("fl_admin.sh", NVFLARE_ADMIN.to_owned())],
            (Runtime::Locule, _) => {
                vec![("sub_start.sh", with(LOCULE_LOOP, "\"$KIT\"")), ("stop_fl.sh", LOCULE_STOP.to_owned())]
            }
            (Runtime::Nvflare, _) => {
                let run = with(NVFLARE_LOOP, "\"$WORKSPACE\"");
                vec![("sub_start.sh", run), ("stop_fl.sh", NVFLARE_STOP.to_owned())]
            }
        };
        files.push(("start.sh", START.to_owned()));
        if let Some(image) = &self.docker_image {
            let program = if self.runtime == Runtime::Locule { "locule " } else { "" };
            let text = DOCKER.replace("@IMAGE@", image).replace("@PROGRAM@", program);
            files.push(("docker.sh", with(&text, "/workspace")));
        }
        files
    }

    pub(crate) fn readme(&self) -> String {
        let Script { project, whose, .. } = self;
        let use_it = match (self.runtime, *whose) {
            (_, "administrator") => "Run startup/fl_admin.sh for the console of NVIDIA FLARE.",
            (Runtime::Locule, _) => {
                "Run startup/start.sh to start it, startup/stop_fl.sh to end it. The program is called `locule`;\n\
                 the variable LOCULE names it if it is not on the PATH."
            }
            (Runtime::Nvflare, _) => {
                "Run startup/start.sh to start it, startup/stop_fl.sh to end it; python3 must have nvflare 2.9."
            }
        };
        format!(
            "Startup kit of a {whose} in the project {project}.\n\n{use_it}\n\n\
             Keep the private keys in startup to yourself: whoever has them is this {whose}. To change a\n\
             setting, copy local/resources.json.default to local/resources.json and edit the copy.\n"
        )
    }
}

/// The command that starts a process of nvflare.
///
/// # Source
/// nvflare 2.9.0, what scripts of its kits run.
fn stock(project: &Project, module: &str, file: &str, who: &str) -> String {
    let folder = &project.config_folder;
    format!(
        "python3 -u -m nvflare.private.fed.app.{module} -m @KIT@ -s {file} \
         --set secure_train=true {who} config_folder={folder}"
    )
}
