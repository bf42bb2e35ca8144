//! The command line of `locule job`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Output;

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Job {
    /// Ask what sites would say of a job: the checkers of kits on this machine, or a running server and its sites.
    Check(CheckJob),
    /// Hand a job in at a running server.
    Submit(SubmitJob),
    /// List the jobs of a running server.
    List(ListJobs),
    /// Show all that the server knows of a job: its states, its sites, why it waits, what refused it.
    Show(NamedJob),
    /// Follow a job to its end; the exit code is 0 only if it reaches it. Ctrl-C leaves the job as it is.
    Watch(NamedJob),
    /// Stop a job, or keep it from beginning.
    Abort(NamedJob),
    /// Fetch a job that is over, with its results.
    Download(DownloadJob),
    /// Show what the server has of a job's logs.
    Logs(JobLogs),
    /// Print all that sites measured in a job: what their results say, round by round, and what their scripts log.
    Metrics(JobMetrics),
    /// Delete a job that is over, with its results, at the server.
    Delete(NamedJob),
}

/// Where the server is, and who asks.
#[derive(Clone, Debug, Args)]
pub(crate) struct AtServer {
    /// The administrator's startup kit.
    #[arg(long, value_name = "ADMIN_KIT", env = "LOCULE_ADMIN_KIT")]
    pub(crate) kit: PathBuf,
    /// Seconds that reaching the server and logging in may take; the kit says otherwise how long.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) wait: Option<u64>,
    /// What to print on standard output: text, or JSON, an object or list for a command, for `watch` one a line.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct NamedJob {
    /// The job's id, or as much of its beginning as no other has.
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) at: AtServer,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct CheckJob {
    /// The job folder: it holds `meta.json` and its apps.
    pub(crate) job: PathBuf,
    /// The startup kit of a site or of the server; several, or none to look for mistakes only. With `--sites`, the
    /// administrator's, or else LOCULE_ADMIN_KIT.
    #[arg(long = "kit", value_name = "KIT", num_args = 1..)]
    pub(crate) kits: Vec<PathBuf>,
    /// Ask the running server, and these of its sites: `all`, or names with commas between them.
    #[arg(long, value_name = "all|SITE,…", value_delimiter = ',', conflicts_with = "submitter")]
    pub(crate) sites: Vec<String>,
    /// The startup kit of the administrator who would submit it: policies may ask who that is.
    #[arg(long, value_name = "ADMIN_KIT")]
    pub(crate) submitter: Option<PathBuf>,
    /// Seconds that reaching the server and logging in may take.
    #[arg(long, value_name = "SECONDS", requires = "sites", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) wait: Option<u64>,
    /// What to print on standard output: a table, or one JSON object.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct SubmitJob {
    /// The job folder: it holds `meta.json` and its apps. What nobody has signed is signed with the kit's key on its
    /// way; the folder stays as it is.
    pub(crate) job: PathBuf,
    #[command(flatten)]
    pub(crate) at: AtServer,
    /// Follow the job to its end, as `locule job watch` does.
    #[arg(long)]
    pub(crate) watch: bool,
    /// Stands for this submission: who repeats it with the same token and job gets the same id, and no second job.
    #[arg(long, value_name = "TOKEN", value_parser = token)]
    pub(crate) submit_token: Option<String>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ListJobs {
    #[command(flatten)]
    pub(crate) at: AtServer,
    /// Only those that this administrator submitted.
    #[arg(long)]
    pub(crate) mine: bool,
    /// Only those that are not over.
    #[arg(long)]
    pub(crate) open: bool,
    /// Only the latest so many.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) last: Option<u64>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct DownloadJob {
    #[command(flatten)]
    pub(crate) job: NamedJob,
    /// The folder to make of it, which must not exist yet; named like the job's id, in the current folder, if it is
    /// not given.
    #[arg(long)]
    pub(crate) dir: Option<PathBuf>,
    /// Most gigabytes (2^30 bytes) to take, packed and unpacked.
    #[arg(long, value_name = "GB", default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(crate) max_size: u64,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct JobLogs {
    #[command(flatten)]
    pub(crate) job: NamedJob,
    /// Only of this site, or of `server`.
    #[arg(long, default_value = "all")]
    pub(crate) site: String,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct JobMetrics {
    /// The job's id, or as much of its beginning as no other has.
    pub(crate) id: String,
    /// The administrator's startup kit.
    #[arg(long, value_name = "ADMIN_KIT", env = "LOCULE_ADMIN_KIT")]
    pub(crate) kit: PathBuf,
    /// Seconds that reaching the server and logging in may take; the kit says otherwise how long.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) wait: Option<u64>,
    /// Comma-separated values with a head, or JSON, an object a line.
    #[arg(long, value_enum, default_value_t = Table::Csv)]
    pub(crate) output: Table,
}

/// How rows are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Table {
    Csv,
    Json,
}

/// # Source
/// nvflare 2.9.0, `nvflare.apis.utils.job_submit_token`.
fn token(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._:-".contains(c);
    if (1..=128).contains(&text.len()) && text.chars().all(fits) && !text.starts_with('-') {
        Ok(text.to_owned())
    } else {
        Err("a token is at most 128 letters, digits, and `.`, `_`, `:`, `-`".to_owned())
    }
}
