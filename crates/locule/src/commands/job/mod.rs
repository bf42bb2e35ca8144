//! `locule job`: jobs before they are submitted, and at a running server.

mod check;
mod follow;
mod server;
mod text;

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::anyhow;
use locule_console::{Job as Told, Parcel, SendError, SubmitError};
use serde_json::{Value, json};

use super::{say, table::table};
use crate::arguments::{
    CheckJob, DownloadJob, Job, JobLogs, JobMetrics, ListJobs, NamedJob, Output, SubmitJob, Table,
};
use crate::exit::{Code, Failure};
use crate::logs;
use server::{AtServer, Desk, with_remedy};

/// Does something with a job.
pub(crate) async fn job(arguments: Job, verbose: u8) -> Result<(), Failure> {
    if let Job::Check(arguments) = &arguments
        && arguments.sites.is_empty()
    {
        return check::check(arguments);
    }
    logs::to_stderr(logs::Default::Warn, verbose);
    match arguments {
        Job::Check(arguments) => check_at_server(arguments).await,
        Job::Submit(arguments) => submit(arguments).await,
        Job::List(arguments) => list(arguments).await,
        Job::Show(arguments) => show(arguments).await,
        Job::Watch(arguments) => follow::watch(arguments).await,
        Job::Abort(arguments) => abort(arguments).await,
        Job::Download(arguments) => download(arguments).await,
        Job::Logs(arguments) => logs_of(arguments).await,
        Job::Metrics(arguments) => metrics(arguments).await,
        Job::Delete(arguments) => delete(arguments).await,
    }
}

async fn submit(SubmitJob { job, at, watch, submit_token }: SubmitJob) -> Result<(), Failure> {
    let desk = Desk::open(&at)?;
    let parcel = pack(&desk, &job).await?;
    let console = desk.log_in().await?;
    let mut progress = Progress::new("sent");
    let submitted =
        console.submit(&parcel, submit_token.as_deref(), &mut |done, all| progress.show(done, all)).await;
    progress.end();
    let id = match submitted {
        Ok(id) => id,
        Err(error) => {
            console.log_out().await;
            return Err(not_submitted(error, &job, &at.kit));
        }
    };
    match at.output {
        Output::Json => say(&json!({ "job_id": id, "name": parcel.name }).to_string()),
        Output::Text => {
            say(&format!("submitted {} as {id}", parcel.name));
            if !watch {
                note(&format!("follow it: locule job watch {} --kit {}", short(&id), at.kit.display()));
            }
        }
    }
    drop(parcel);
    if watch {
        return follow::follow(desk, console, &id, at.output).await;
    }
    console.log_out().await;
    Ok(())
}

fn not_submitted(error: SubmitError, folder: &Path, kit: &Path) -> Failure {
    if let SubmitError::Send(SendError::Ask(error)) = error {
        return server::failed(error).about(folder);
    }
    let remedy = match &error {
        SubmitError::Unknown(_) => format!(
            "look whether it is there before you submit it again: locule job list --mine --kit {}",
            kit.display()
        ),
        SubmitError::OtherJob => "give another --submit-token".to_owned(),
        SubmitError::Deleted => "give another --submit-token to submit it once more".to_owned(),
        SubmitError::NoTokens => "leave --submit-token out; it is older than nvflare 2.9".to_owned(),
        SubmitError::Send(_) | _ => String::new(),
    };
    let code = match &error {
        SubmitError::Send(error) => server::code_of_sending(error),
        SubmitError::Unknown(_) | SubmitError::NoTokens => Code::Unavailable,
        SubmitError::OtherJob | SubmitError::Deleted | _ => Code::JobFailed,
    };
    with_remedy(code, error, &remedy).about(folder)
}

/// Reads, signs if need be, and packs a job folder.
async fn pack(desk: &Desk, folder: &Path) -> Result<Parcel, Failure> {
    let (signer, verifier) = desk.credentials()?;
    let from: PathBuf = folder.to_owned();
    let packed = tokio::task::spawn_blocking(move || Parcel::pack(&from, &*signer, &*verifier)).await;
    let packed = packed.map_err(|error| Failure::new(Code::Software, error))?;
    packed.map_err(|error| server::not_packed(error, folder, desk.kit_folder()))
}

async fn list(ListJobs { at, mine, open, last }: ListJobs) -> Result<(), Failure> {
    let desk = Desk::open(&at)?;
    let console = desk.log_in().await?;
    let jobs = console.jobs("").await;
    console.log_out().await;
    let mut jobs = jobs.map_err(server::failed)?;
    let user = desk.user()?;
    jobs.retain(|job| (!mine || job.submitter.name == user) && (!open || !job.is_over()));
    let last = last.map_or(jobs.len(), |last| usize::try_from(last).unwrap_or(usize::MAX));
    let jobs = jobs.split_off(jobs.len().saturating_sub(last));
    match at.output {
        Output::Json => say(&json!(jobs).to_string()),
        Output::Text if jobs.is_empty() => say("no jobs"),
        Output::Text => {
            let now = SystemTime::now();
            let rows: Vec<[String; 7]> = jobs.iter().map(|job| text::row(job, now)).collect();
            say(&table(
                ["id", "name", "status", "submitter", "submitted (UTC)", "duration", "waits for"],
                &rows,
            ));
        }
    }
    Ok(())
}

async fn show(NamedJob { id, at }: NamedJob) -> Result<(), Failure> {
    let desk = Desk::open(&at)?;
    let console = desk.log_in().await?;
    let found = async {
        let id = console.find(&id).await.map_err(server::not_found)?;
        console.meta(&id).await.map_err(|error| server::failed_of(error, &id, &at.kit))
    };
    let found = found.await;
    console.log_out().await;
    let meta = found?;
    let job = Told::from_meta(&meta);
    match at.output {
        Output::Json => {
            let mut shown = serde_json::to_value(&job).unwrap_or(Value::Null);
            shown["meta"] = Value::Object(meta);
            say(&shown.to_string());
        }
        Output::Text => say(&text::whole(&job, SystemTime::now())),
    }
    Ok(())
}

async fn abort(NamedJob { id, at }: NamedJob) -> Result<(), Failure> {
    let said = one(&id, &at, async |console, id| console.abort(id).await).await?;
    match at.output {
        Output::Json => say(&json!({ "job_id": said.0, "answer": said.1 }).to_string()),
        Output::Text => say(&format!("{}: {}", short(&said.0), said.1)),
    }
    Ok(())
}

async fn delete(NamedJob { id, at }: NamedJob) -> Result<(), Failure> {
    let (id, ()) = one(&id, &at, async |console, id| console.delete(id).await).await?;
    match at.output {
        Output::Json => say(&json!({ "job_id": id, "deleted": true }).to_string()),
        Output::Text => say(&format!("{id} is deleted")),
    }
    Ok(())
}

async fn logs_of(JobLogs { job: NamedJob { id, at }, site }: JobLogs) -> Result<(), Failure> {
    let (id, logs) = one(&id, &at, async |console, id| console.logs(id, &site).await).await?;
    match at.output {
        Output::Json => {
            say(&json!({ "job_id": id, "logs": logs.logs, "unavailable": logs.unavailable }).to_string());
        }
        Output::Text => {
            let headed = logs.logs.len() + logs.unavailable.len() > 1;
            for (site, log) in &logs.logs {
                if headed {
                    say(&format!("==> {site} <=="));
                }
                say(&text::visible(log));
            }
            for (site, why) in &logs.unavailable {
                note(&format!("{}: {}", text::visible(site), text::visible(why)));
            }
        }
    }
    if logs.logs.is_empty() {
        let error = anyhow!("the server has no such log of job {id}");
        let remedy = format!("its sites are in: locule job show {} --kit {}", short(&id), at.kit.display());
        return Err(with_remedy(Code::JobFailed, error, &remedy));
    }
    Ok(())
}

async fn metrics(JobMetrics { id, kit, wait, output }: JobMetrics) -> Result<(), Failure> {
    let at = AtServer { kit, wait, output: Output::Text };
    let (_, tracked) = one(&id, &at, async |console, id| console.tracked(id).await).await?;
    match output {
        Table::Json => tracked.iter().for_each(|tracked| say(&json!(tracked).to_string())),
        Table::Csv => {
            say("site,key,step,value,time,type");
            tracked.iter().for_each(|tracked| say(&text::csv(tracked)));
        }
    }
    Ok(())
}

/// Logs in, finds the one job that is meant, does something with it, and logs out; the id, and what came of it.
async fn one<T>(
    prefix: &str,
    at: &AtServer,
    act: impl AsyncFnOnce(&locule_console::Console, &str) -> Result<T, locule_console::AskError>,
) -> Result<(String, T), Failure> {
    let console = Desk::open(at)?.log_in().await?;
    let acted = async {
        let id = console.find(prefix).await.map_err(server::not_found)?;
        let done = act(&console, &id).await.map_err(|error| server::failed_of(error, &id, &at.kit))?;
        Ok((id, done))
    };
    let acted = acted.await;
    console.log_out().await;
    acted
}

async fn download(
    DownloadJob { job: NamedJob { id, at }, dir, max_size }: DownloadJob,
) -> Result<(), Failure> {
    let desk = Desk::open(&at)?;
    if let Some(dir) = dir.as_deref().filter(|dir| dir.symlink_metadata().is_ok()) {
        return Err(occupied(dir));
    }
    let console = desk.log_in().await?;
    let mut progress = Progress::new("fetched");
    let fetched = async {
        let id = console.find(&id).await.map_err(server::not_found)?;
        let into = dir.unwrap_or_else(|| PathBuf::from(&id));
        let passed = &mut |done, all| progress.show(done, all);
        let bytes = console.fetch_job(&id, &into, max_size << 30, passed).await;
        bytes.map_err(|error| server::not_fetched(error, &id, &at.kit)).map(|bytes| (id, into, bytes))
    };
    let fetched = tokio::select! {
        fetched = fetched => fetched,
        () = crate::stop::asked(false) => Err(Failure::interrupted()),
    };
    progress.end();
    console.log_out().await;
    let (id, into, bytes) = fetched?;
    match at.output {
        Output::Json => say(&json!({ "job_id": id, "dir": into, "bytes": bytes }).to_string()),
        Output::Text => {
            say(&format!("{} of job {} are in {}", text::bytes(bytes), short(&id), into.display()))
        }
    }
    Ok(())
}

fn occupied(dir: &Path) -> Failure {
    let error = anyhow!("{} is there already: give another --dir, or remove it", dir.display());
    Failure::new(Code::CannotCreate, error)
}

async fn check_at_server(arguments: CheckJob) -> Result<(), Failure> {
    let CheckJob { job: folder, kits, sites, wait, output, .. } = arguments;
    let kit = match &kits[..] {
        [kit] => Some(kit.clone()),
        [] => std::env::var_os("LOCULE_ADMIN_KIT").map(PathBuf::from),
        _ => None,
    };
    let Some(kit) = kit else {
        let error = anyhow!(
            "--sites asks a running server: give one --kit, the administrator's, or name it in LOCULE_ADMIN_KIT"
        );
        return Err(Failure::new(Code::Usage, error));
    };
    let at = AtServer { kit, wait, output };
    let desk = Desk::open(&at)?;
    let parcel = pack(&desk, &folder).await?;
    let console = desk.log_in().await?;
    let mut progress = Progress::new("sent");
    let checks = console.check(&parcel, &mut |done, all| progress.show(done, all)).await;
    progress.end();
    console.log_out().await;
    let mut checks = checks.map_err(|error| {
        let failure = if let SendError::Ask(error) = error {
            server::failed(error)
        } else {
            Failure::new(server::code_of_sending(&error), error)
        };
        failure.about(&folder)
    })?;
    if !sites.iter().any(|site| site == "all") {
        checks.retain(|check| sites.contains(&check.site));
        for site in sites
            .iter()
            .filter(|site| !checks.iter().any(|check| check.site == **site))
            .cloned()
            .collect::<Vec<_>>()
        {
            let text = "it is not there, or the job has no app for it".to_owned();
            let mut check = locule_console::Check::default();
            (check.site, check.verdict, check.text) = (site, "no-answer".to_owned(), text);
            checks.push(check);
        }
    }
    match output {
        Output::Json => say(&json!({ "job": parcel.name, "checks": checks }).to_string()),
        Output::Text => {
            say(&table(["site", "verdict", "component", "path", "code", "reason"], &text::checks(&checks)));
        }
    }
    text::verdict(&checks)
}

/// The beginning of an id, as people type it.
fn short(id: &str) -> &str {
    id.get(..8).unwrap_or(id)
}

/// A word for a person that is no output.
#[expect(clippy::print_stderr, reason = "a word beside the output")]
fn note(text: &str) {
    eprintln!("{text}");
}

/// Shows on a terminal how much has passed.
struct Progress {
    what: &'static str,
    shown: Option<std::time::Instant>,
    on: bool,
}

impl Progress {
    fn new(what: &'static str) -> Self {
        Self { what, shown: None, on: std::io::stderr().is_terminal() }
    }

    #[expect(clippy::print_stderr, reason = "a line that is written over")]
    fn show(&mut self, done: u64, all: Option<u64>) {
        let soon = self.shown.is_some_and(|shown| shown.elapsed() < Duration::from_millis(200));
        if !self.on || (soon && all != Some(done)) {
            return;
        }
        self.shown = Some(std::time::Instant::now());
        let of = all.map(|all| format!(" of {}", text::bytes(all))).unwrap_or_default();
        eprint!("\r\x1b[2K{} {}{of}", self.what, text::bytes(done));
    }

    #[expect(clippy::print_stderr, reason = "the line is no longer needed")]
    fn end(&mut self) {
        if self.shown.take().is_some() {
            eprint!("\r\x1b[2K");
        }
    }
}
