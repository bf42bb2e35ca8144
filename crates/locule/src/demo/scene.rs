//! What the demo runs in: a folder with kits, each site's rows in its own kit, and a signed job.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context as _, anyhow};
use locule_component::Component as _;
use locule_demo::{DataSet, DemoJob, LogisticRegression, Split, Training, write_job};
use locule_identity::Usage;
use locule_kit::AdminKit;
use locule_policy::RefuseComponents;
use locule_provision::{ConnectionSecurity, Project, Provisioned};
use serde_json::json;

use crate::arguments::{Carrier, Demo};
use crate::exit::{Code, Failure, OrExit as _};
use crate::folder::{Folder, cannot_write};
use crate::wire;

/// Everything that is there before the first process starts.
#[derive(Debug)]
pub(super) struct Scene {
    /// The folder that all of it is in.
    pub(super) dir: PathBuf,
    /// The server's kit.
    pub(super) server: PathBuf,
    /// Names and kits of the sites.
    pub(super) sites: Vec<(String, PathBuf)>,
    /// The signed job.
    pub(super) job: PathBuf,
    /// Folder of the logs.
    pub(super) logs: PathBuf,
    /// Who has which rows.
    pub(super) split: Split,
    /// How the job trains.
    pub(super) training: Training,
}

impl Scene {
    /// Makes it, in an empty folder. Blocking.
    pub(super) fn make(arguments: &Demo) -> Result<Self, Failure> {
        let names: Vec<String> = (1..=arguments.sites).map(|number| format!("site-{number}")).collect();
        check(arguments, &names)?;
        let split = DataSet::wisconsin().split(arguments.seed, names.len()).or_exit(Code::Usage)?;
        let mut dir = Folder::empty(arguments.dir.as_deref(), "--dir", "locule-demo-")?;
        dir.keep();
        let dir = dir.path().to_owned();
        let kits = locule_provision::provision(&project(arguments, &names)?, &dir, SystemTime::now())?;
        let sites: Vec<_> = names.into_iter().zip(kits.site_dirs.iter().cloned()).collect();
        for ((name, kit), rows) in sites.iter().zip(&split.sites) {
            rows.write_csv(&kit.join("data.csv")).or_exit(Code::CannotCreate)?;
            if arguments.refuse.contains(name) {
                refuse(kit)?;
            }
        }
        let training = Training { seed: arguments.seed, ..Training::default() };
        let job = signed_job(&dir, &kits, arguments, training)?;
        let logs = dir.join("logs");
        fs::create_dir_all(&logs).with_context(|| cannot_write(&logs)).or_exit(Code::CannotCreate)?;
        Ok(Self { server: kits.server_dir, dir, sites, job, logs, split, training })
    }

    /// Names of the sites, in their order.
    pub(super) fn site_names(&self) -> Vec<String> {
        self.sites.iter().map(|(name, _)| name.clone()).collect()
    }
}

fn check(arguments: &Demo, sites: &[String]) -> Result<(), Failure> {
    if !Carrier::compiled_in().any(|carrier| carrier == arguments.transport) {
        let wanted = arguments.transport.scheme();
        let known: Vec<_> = Carrier::compiled_in().map(Carrier::scheme).collect();
        let error = anyhow!("no transport `{wanted}` in this build; there is: {}", known.join(", "));
        return Err(Failure::new(Code::Usage, error));
    }
    if arguments.transport == Carrier::Nats {
        check_broker(&arguments.broker)?;
    }
    match arguments.refuse.iter().find(|name| !sites.contains(name)) {
        Some(stranger) => {
            let there = sites.join(", ");
            Err(Failure::new(Code::Usage, anyhow!("no site `{stranger}` takes part; the sites are {there}")))
        }
        None => Ok(()),
    }
}

/// A broker is nobody's of the demo, and not started by it.
fn check_broker((host, port): &(String, u16)) -> Result<(), Failure> {
    let reached = TcpStream::connect((host.trim_matches(['[', ']']), *port));
    reached.map(drop).with_context(|| {
        format!(
            "no NATS broker at {host}:{port}; start one with `nats-server` (on Debian and Ubuntu from the package \
             nats-server), or name another with --broker"
        )
    })
    .or_exit(Code::Unavailable)
}

fn project(arguments: &Demo, sites: &[String]) -> Result<Project, Failure> {
    let mut project = Project::new("project", "server", "university").admin(
        "scientist@university.org",
        "university",
        "lead",
    );
    project.scheme = arguments.transport.scheme().into();
    project.server.host = Some("localhost".into());
    match arguments.transport {
        Carrier::Grpc | Carrier::Tcp | Carrier::Http => {
            project.server.port = free_port().or_exit(Code::Unavailable)?;
        }
        Carrier::Nats => {
            let (host, port) = arguments.broker.clone();
            (project.server.host, project.server.port) = (Some(host), port);
        }
        // Nothing leaves the machine; sites and server prove by message who they are all the same.
        Carrier::Uds => {
            project.server.port = free_port().or_exit(Code::Unavailable)?;
            project.connection_security = ConnectionSecurity::Clear;
        }
        // Nothing leaves the process; sites and server prove by message who they are all the same.
        Carrier::Mem => project.connection_security = ConnectionSecurity::Clear,
    }
    for (index, site) in sites.iter().enumerate() {
        project = project.site(site, format!("hospital_{}", index + 1));
    }
    Ok(project)
}

/// A port of loopback that nobody uses now.
fn free_port() -> anyhow::Result<u16> {
    let free = TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr());
    Ok(free.context("no free port on loopback")?.port())
}

/// Gives a site a checker that says no to the job's executor.
fn refuse(kit: &Path) -> Result<(), Failure> {
    let checkers = json!({
        "format_version": 2,
        "components": [{
            "id": "ethics_board",
            "path": RefuseComponents::NAME,
            "args": {
                "names": [LogisticRegression::NAME],
                "reason": "the ethics board has not agreed to this training",
                "code": "not-agreed",
                "public": true,
            },
        }],
    });
    let file = kit.join("local/job_resources.json");
    fs::write(&file, format!("{checkers:#}\n"))
        .with_context(|| cannot_write(&file))
        .or_exit(Code::CannotCreate)
}

/// Writes the job folder and signs it with the admin's key.
fn signed_job(
    dir: &Path,
    kits: &Provisioned,
    arguments: &Demo,
    training: Training,
) -> Result<PathBuf, Failure> {
    let folder = dir.join("job");
    let (sites, rounds) = (kits.site_dirs.len(), u64::from(arguments.rounds));
    write_job(&folder, &DemoJob { sites, rounds, training, ..DemoJob::default() })
        .or_exit(Code::CannotCreate)?;
    let admin = AdminKit::open(&kits.admin_dirs[0])?;
    let (signer, _) = wire::credentials(&admin.files, Usage::Client)?;
    let signed = locule_job::sign_folder(&folder, &*signer);
    signed.with_context(|| format!("cannot sign {}", folder.display())).or_exit(Code::CannotCreate)?;
    Ok(folder)
}
