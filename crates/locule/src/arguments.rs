//! The command line.

use std::ffi::OsString;
#[cfg(feature = "simulate")]
use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

mod job;

pub(crate) use job::{
    AtServer, CheckJob, DownloadJob, Job, JobLogs, JobMetrics, ListJobs, NamedJob, SubmitJob, Table,
};

/// Federated computing: sites train a model together, and no data moves.
#[derive(Debug, Parser)]
#[command(name = "locule", version = crate::version::long(), after_help = EXAMPLES)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) called: Called,
    /// Show more: -v what happens, -vv every request, -vvv every frame.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

const EXAMPLES: &str = "Examples:
  locule provision --dir fed --sites 2      certificates and startup kits for a server and two sites
  locule server fed/project/prod_00/server  run the server of these kits
  locule site fed/project/prod_00/site-1    run a site of these kits
  locule job check JOB --kit KIT            what a site's checkers would say of a job
  locule job submit JOB --kit KIT --watch   hand a job in as the administrator of this kit, and follow it
  locule audit show KIT                     what they said so far
  locule simulate JOB -n 100 -t 8           the same job on this machine, with a hundred sites in one process
  locule demo                               three hospitals train a model together, on this machine
  locule demo --refuse site-2               the same, but one hospital says no";

/// Who calls.
#[derive(Debug, Subcommand)]
pub(crate) enum Called {
    #[command(flatten)]
    ByPerson(Command),
    #[command(flatten)]
    ByProgram(Child),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Train a model across a server and several sites, on real data, on this machine.
    #[cfg(feature = "demo")]
    Demo(Demo),
    /// Run a job on this machine: a server and many sites in one process, without kits, ports or certificates of yours.
    #[cfg(feature = "simulate")]
    Simulate(Simulate),
    /// Run a server from its startup kit.
    Server(Server),
    /// Run a site from its startup kit.
    Site(Site),
    /// Run a relay from its startup kit: it passes on what sites and server say to each other.
    Relay(Relay),
    /// Make certificates and startup kits for a server, relays, sites and administrators.
    Provision(Provision),
    /// Sign a job folder with an administrator's key, so that the server and its sites take it.
    Sign(Sign),
    /// Look at a job before it is submitted, submit it, and follow it at a running server.
    #[command(subcommand)]
    Job(Job),
    /// Print the JSON Schema of a component's arguments, or of a job's configuration, for editors.
    Schema(Schema),
    /// Verify or show the log of every verdict that a site or server has given.
    #[command(subcommand)]
    Audit(Audit),
    /// Write, check, test and explain what a site refuses.
    #[command(subcommand)]
    Policy(Policy),
}

/// What this program starts itself as. Each is in charge of its process from the first moment.
#[derive(Debug, Subcommand)]
pub(crate) enum Child {
    /// Be a checker of a site: started by sites, and by nobody else.
    #[command(hide = true)]
    Checker(Checker),
    /// Be one half of a job: started by servers and sites, and by nobody else.
    #[command(hide = true)]
    JobProcess(JobProcess),
    /// Keep a job's training script: started by sites, and by nobody else.
    #[command(hide = true)]
    Script(Script),
}

#[cfg(feature = "demo")]
#[derive(Clone, Debug, Args)]
pub(crate) struct Demo {
    /// How many sites take part.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(2..=10))]
    pub(crate) sites: u32,
    /// How many rounds of federated averaging.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rounds: u32,
    /// What carries the messages: separate processes over a network or `uds`, or tasks of one process over `mem`.
    #[arg(long, value_enum, default_value_t = Carrier::default())]
    pub(crate) transport: Carrier,
    /// The NATS broker that `--transport nats` goes through.
    #[arg(long, value_name = "HOST:PORT", default_value = "localhost:4222", value_parser = broker)]
    pub(crate) broker: (String, u16),
    /// Folder for kits, logs, the model and the plot; must be empty. A fresh temporary folder if not given.
    #[arg(long)]
    pub(crate) dir: Option<PathBuf>,
    /// What to print on standard output.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
    /// Give this site a checker that refuses the job's executor; may be repeated.
    #[arg(long, value_name = "SITE")]
    pub(crate) refuse: Vec<String>,
    /// Seed of the split of the data and of the training.
    #[arg(long, default_value_t = 7)]
    pub(crate) seed: u64,
}

#[cfg(feature = "simulate")]
#[derive(Clone, Debug, Args)]
pub(crate) struct Simulate {
    /// The job folder: it holds `meta.json` and its apps, as nvflare's recipes export them. It is left as it is.
    pub(crate) job: PathBuf,
    /// How many sites: site-1, site-2, … Without it, those that the job names, or as many as it needs.
    #[arg(short = 'n', long = "number", visible_alias = "n_clients", conflicts_with = "sites",
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) number: Option<u32>,
    /// Names of the sites.
    #[arg(long, visible_alias = "clients", value_delimiter = ',', value_name = "SITE,…")]
    pub(crate) sites: Vec<String>,
    /// How many sites work at one time; as many as there are processors if not given. The results do not depend on it.
    #[arg(short, long, value_name = "SITES")]
    pub(crate) threads: Option<NonZeroUsize>,
    /// Where everything random in the job begins. The same seed gives the same models.
    #[arg(long, default_value_t = 7)]
    pub(crate) seed: u64,
    /// Folder for results, logs and the plot; must be empty. A fresh temporary folder if not given.
    #[arg(long, short, visible_alias = "dir")]
    pub(crate) workspace: Option<PathBuf>,
    /// A folder with one folder for each site: what is in it is laid into that site's kit, such as `data.csv`, or
    /// `local/resources.json` with a policy. It may be a whole kit: its `startup` and `state` are left out.
    #[arg(long, value_name = "DIR")]
    pub(crate) files: Option<PathBuf>,
    /// The Python that runs the job's scripts; the first `python3` of the search path if not given.
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) python: Option<PathBuf>,
    /// What to print on standard output: text, or one JSON object.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Server {
    /// The server's startup kit: the folder that holds `startup/` and `local/`.
    pub(crate) kit: PathBuf,
    /// Run this job folder once its sites are there, then stop.
    #[arg(long)]
    pub(crate) job: Option<PathBuf>,
    /// What to print on standard output: text, or one JSON object a line.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
    /// Stop when standard input closes, as it does when the parent process ends.
    #[arg(long, hide = true)]
    pub(crate) stop_with_stdin: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Site {
    /// The site's startup kit: the folder that holds `startup/` and `local/`.
    pub(crate) kit: PathBuf,
    /// Name of the site, if it is not the common name of its certificate.
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Seconds between heartbeats.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) heartbeat: Option<u64>,
    /// Stop when standard input closes, as it does when the parent process ends.
    #[arg(long, hide = true)]
    pub(crate) stop_with_stdin: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Relay {
    /// The relay's startup kit: the folder that holds `startup/` and `local/`.
    pub(crate) kit: PathBuf,
    /// Stop when standard input closes, as it does when the parent process ends.
    #[arg(long, hide = true)]
    pub(crate) stop_with_stdin: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Provision {
    /// Project file, as NVIDIA FLARE has them (project.yml). Without one, the options below say who takes part.
    #[arg(value_name = "PROJECT.yml")]
    pub(crate) file: Option<PathBuf>,
    /// Folder to write the project into. Participants that it knows keep their keys.
    #[arg(long, visible_alias = "dir", default_value = "workspace")]
    pub(crate) workspace: PathBuf,
    /// What the scripts of the kits start.
    #[arg(long, value_enum, default_value_t = Runtime::Locule)]
    pub(crate) runtime: Runtime,
    /// What to print on standard output: text, or one JSON object.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
    /// Name of the project.
    #[arg(long, default_value = "project", conflicts_with = "file")]
    pub(crate) project: String,
    /// How many sites: site-1, site-2, …
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=1000), conflicts_with = "file")]
    pub(crate) sites: u32,
    /// Host name at which the sites reach the server.
    #[arg(long, default_value = "localhost", conflicts_with = "file")]
    pub(crate) host: String,
    /// Port at which the sites reach the server.
    #[arg(long, default_value_t = 8002, conflicts_with = "file")]
    pub(crate) port: u16,
    /// Name of the administrator, like an e-mail address.
    #[arg(long, default_value = "admin@locule.org", conflicts_with = "file")]
    pub(crate) admin: String,
}

/// What the scripts of kits start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Runtime {
    /// This binary.
    Locule,
    /// The processes of NVIDIA FLARE 2.9.
    Nvflare,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Sign {
    /// The job folder: it holds `meta.json` and its apps. Sign again after every change.
    pub(crate) job: PathBuf,
    /// The administrator's startup kit.
    #[arg(long)]
    pub(crate) kit: PathBuf,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Audit {
    /// Follow the chain of records, and say which one breaks it.
    Verify(AuditVerify),
    /// Show the records as a table.
    Show(AuditShow),
}

#[derive(Clone, Debug, Args)]
pub(crate) struct AuditVerify {
    /// The startup kit of a site or server.
    pub(crate) kit: PathBuf,
    /// A record that was noted earlier, as this command prints the last one; the log must still hold it.
    #[arg(long, value_name = "NUMBER:HASH")]
    pub(crate) head: Option<locule_audit::Head>,
    /// What to print on standard output: text, or one JSON object.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct AuditShow {
    /// The startup kit of a site or server.
    pub(crate) kit: PathBuf,
    /// Only what was said of this job.
    #[arg(long, value_name = "ID")]
    pub(crate) job: Option<String>,
    /// What to print on standard output: a table, or one JSON object for each review.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Policy {
    /// Write a policy in Rego to begin with, and its tests, beside each other.
    New(NewPolicy),
    /// Open every gate of a kit as it is done for a job, and show all mistakes.
    Check(CheckPolicy),
    /// Run the tests of policies in Rego: of NAME.rego those in NAME_test.rego.
    Test(TestPolicy),
    /// Show what each gate of a kit says of each component of a job.
    Explain(ExplainPolicy),
    /// Ask a kit's policy, or another one, about the jobs of the past, and show which verdicts change.
    Replay(ReplayPolicy),
}

#[derive(Clone, Debug, Args)]
pub(crate) struct NewPolicy {
    /// Name of the files, without their ending.
    #[arg(default_value = "comp_auth")]
    pub(crate) name: String,
    /// The startup kit that it is for: written into its `local/custom`, else into the current folder.
    #[arg(long)]
    pub(crate) kit: Option<PathBuf>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct CheckPolicy {
    /// The startup kit of a site or server.
    pub(crate) kit: PathBuf,
    /// What to print on standard output: text, or one JSON object.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct TestPolicy {
    /// A startup kit, for every policy in its `local/custom`, or one policy file.
    pub(crate) what: PathBuf,
    /// What to print on standard output: text, or one JSON object.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ExplainPolicy {
    /// The startup kit of a site or server.
    pub(crate) kit: PathBuf,
    /// The job folder.
    #[arg(long)]
    pub(crate) job: PathBuf,
    /// Only the component at this place in the configuration, and those in it: `executors.#1.executor`.
    pub(crate) path: Option<String>,
    /// Name of the site, if it is not that of the kit's folder.
    #[arg(long)]
    pub(crate) site: Option<String>,
    /// What to print on standard output: text, or one JSON object.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ReplayPolicy {
    /// The startup kit of a site or server, with its log of verdicts and the plans that it kept.
    pub(crate) kit: PathBuf,
    /// Ask the policy in this folder, which is laid out as `local/` of a kit; the kit's own if not given.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) policy: Option<PathBuf>,
    /// Only what was judged since this day, or this moment: 2026-11-01, or 2026-11-01T08:00:00Z.
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// What to print on standard output: text, or one JSON object.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Checker {
    /// What the site says of its limits.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) limits: Vec<OsString>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct JobProcess {
    /// Whose half of the job it is.
    #[arg(value_enum)]
    pub(crate) half: Half,
}

/// One of the two sides of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Half {
    /// The server's.
    Server,
    /// A site's.
    Site,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Script {
    /// What the site says of it.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) entry: Vec<OsString>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Schema {
    /// Full name of a component, or `job-client`, `job-server`, `launcher` or `scheduler` of `resources.json`, or `nats` for `nats.json`; without it, the names that there are.
    pub(crate) name: Option<String>,
}

/// A host and a port.
#[cfg(feature = "demo")]
fn broker(text: &str) -> Result<(String, u16), String> {
    let parts = text.strip_prefix("nats://").unwrap_or(text).rsplit_once(':');
    let parts =
        parts.and_then(|(host, port)| Some((host.to_owned(), port.parse().ok().filter(|port| *port > 0)?)));
    parts
        .filter(|(host, _)| !host.is_empty())
        .ok_or_else(|| "expected HOST:PORT, such as localhost:4222".to_owned())
}

/// What carries the messages of the demo.
#[cfg(feature = "demo")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Carrier {
    /// Separate processes over gRPC with mutual TLS.
    Grpc,
    /// Separate processes over TCP with mutual TLS.
    Tcp,
    /// Separate processes over WebSocket with mutual TLS.
    Http,
    /// Separate processes through a NATS broker with mutual TLS.
    Nats,
    /// Separate processes over Unix domain sockets.
    Uds,
    /// Tasks of one process over memory.
    Mem,
}

#[cfg(feature = "demo")]
impl Carrier {
    /// The scheme of its URLs.
    pub(crate) fn scheme(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::Tcp => "tcp",
            Self::Http => "http",
            Self::Nats => "nats",
            Self::Uds => "uds",
            Self::Mem => "mem",
        }
    }

    /// Those of this build.
    pub(crate) fn compiled_in() -> impl Iterator<Item = Self> {
        Self::value_variants().iter().copied().filter(|carrier| match carrier {
            Self::Grpc => cfg!(feature = "grpc"),
            Self::Tcp => cfg!(feature = "tcp"),
            Self::Http => cfg!(feature = "ws"),
            Self::Nats => cfg!(feature = "nats"),
            Self::Uds => cfg!(feature = "uds"),
            Self::Mem => cfg!(feature = "mem"),
        })
    }
}

/// The first of this build.
#[cfg(feature = "demo")]
impl Default for Carrier {
    fn default() -> Self {
        Self::compiled_in().next().unwrap_or(Self::Mem)
    }
}

/// What to print on standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For a person.
    Text,
    /// For a script.
    Json,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }
}
