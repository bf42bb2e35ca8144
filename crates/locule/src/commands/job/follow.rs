//! `locule job watch`: a job from now to its end.

use std::io::IsTerminal as _;
use std::time::{Duration, SystemTime};

use anyhow::anyhow;
use locule_console::{AskError, Change, Console, Job};
use serde_json::json;
use tokio::time::Instant;

use super::server::{self, Desk};
use super::{note, say, short, text};
use crate::arguments::{NamedJob, Output};
use crate::exit::{Code, Failure};
use crate::stop;

/// From one look to the next.
const PAUSE: Duration = Duration::from_secs(1);

/// How long a server that does not answer is waited for: it may be on its way up again.
const PATIENCE: Duration = Duration::from_secs(300);

/// Follows the job that is named.
pub(super) async fn watch(NamedJob { id, at }: NamedJob) -> Result<(), Failure> {
    let desk = Desk::open(&at)?;
    let console = desk.log_in().await?;
    match console.find(&id).await {
        Ok(id) => follow(desk, console, &id, at.output).await,
        Err(error) => {
            console.log_out().await;
            Err(server::not_found(error))
        }
    }
}

/// Follows a job to its end, and logs out.
pub(super) async fn follow(
    desk: Desk,
    mut console: Console,
    id: &str,
    output: Output,
) -> Result<(), Failure> {
    let mut screen = Screen::new(output);
    let followed = tokio::select! {
        followed = to_its_end(&desk, &mut console, id, &mut screen) => followed,
        () = stop::asked(false) => {
            screen.clear();
            let error = anyhow!("job {id} goes on; follow it again with: locule job watch {} --kit {}",
                short(id), desk.kit_folder().display());
            Err(Failure::new(Code::Interrupted, error))
        }
    };
    screen.clear();
    console.log_out().await;
    followed
}

async fn to_its_end(
    desk: &Desk,
    console: &mut Console,
    id: &str,
    screen: &mut Screen,
) -> Result<(), Failure> {
    let mut silent_since: Option<Instant> = None;
    loop {
        match console.job(id).await {
            Ok(job) => {
                if silent_since.take().is_some() {
                    screen.tell("the server answers again");
                }
                screen.show(&job);
                if job.is_over() {
                    return if job.is_completed() { Ok(()) } else { Err(not_completed(&job)) };
                }
            }
            Err(error) if error.may_pass() || error.needs_log_in() => {
                let since = *silent_since.get_or_insert_with(|| {
                    screen.tell(&format!("{error}; trying on"));
                    Instant::now()
                });
                if since.elapsed() > PATIENCE {
                    return Err(server::failed_of(error, id, desk.kit_folder()));
                }
                if error.needs_log_in()
                    && let Err(again) = log_in_again(desk, console).await
                    && again.code != Code::Unavailable
                {
                    return Err(again);
                }
            }
            Err(error @ AskError::UnknownJob) if screen.has_shown() => {
                let failure = server::failed_of(error, id, desk.kit_folder());
                return Err(Failure { error: failure.error.context("the job was deleted"), ..failure });
            }
            Err(error) => return Err(server::failed_of(error, id, desk.kit_folder())),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn log_in_again(desk: &Desk, console: &mut Console) -> Result<(), Failure> {
    let again = desk.log_in().await?;
    std::mem::replace(console, again).log_out().await;
    Ok(())
}

fn not_completed(job: &Job) -> Failure {
    let mut text = format!("job {} ended as {}", job.name, job.status);
    if !job.reason.is_empty() {
        text = format!("{text}: {}", job.reason);
    }
    Failure::new(Code::JobFailed, anyhow!(text))
}

/// What has been shown of the job.
struct Screen {
    output: Output,
    /// Whether there is a line that is written over.
    live: bool,
    last: Option<Job>,
}

impl Screen {
    fn new(output: Output) -> Self {
        Self { output, live: output == Output::Text && std::io::stderr().is_terminal(), last: None }
    }

    fn has_shown(&self) -> bool {
        self.last.is_some()
    }

    fn show(&mut self, job: &Job) {
        if self.last.as_ref() == Some(job) && !self.live {
            return;
        }
        match self.output {
            Output::Json => say(&json!(job).to_string()),
            Output::Text => self.print(job),
        }
        self.last = Some(job.clone());
        if !job.is_over() {
            self.status_line(job);
        }
    }

    /// Prints what is new.
    fn print(&mut self, job: &Job) {
        self.clear();
        let last = self.last.clone().unwrap_or_default();
        if last.id.is_empty() {
            say(&format!("job {} {}, submitted by {}", job.id, job.name, job.submitter.name));
        }
        let (end, changes) = match job.history.split_last().filter(|_| job.is_over()) {
            Some((end, changes)) => (Some(end), changes),
            None => (None, &job.history[..]),
        };
        let entered = |change: &Change| {
            say(&format!("{}  {}  {}", text::day_and_time(change.time), change.status, change.reason));
        };
        changes.iter().skip(last.history.len()).for_each(entered);
        if let Some(waits) = text::waits(job).filter(|_| last.waits != job.waits) {
            say(&format!("it waits: {waits}"));
        }
        if last.sites != job.sites {
            say(&format!("sites: {}", job.sites.join(", ")));
        }
        self.print_rounds(job, &last);
        end.into_iter().for_each(entered);
        // A server that does not tell of its history.
        if job.history.is_empty() && last.status != job.status {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            say(&format!("{}  {}", text::day_and_time(now.as_secs_f64()), job.status));
        }
        if job.is_over() {
            for refusal in &job.refusals {
                say(&format!(
                    "{} refuses {} at {} of {}: {} ({})",
                    refusal.site, refusal.component, refusal.path, refusal.file, refusal.reason, refusal.code
                ));
            }
            if let Some(elapsed) = job.elapsed(SystemTime::now()) {
                say(&format!("it ran for {}", text::span(elapsed)));
            }
        }
    }

    fn print_rounds(&self, job: &Job, last: &Job) {
        let Some(progress) = &job.progress else { return };
        let before = last.progress.as_ref().map_or(0, |progress| progress.rounds_done);
        if progress.rounds_done <= before {
            return;
        }
        let of = progress.rounds.map(|rounds| format!("/{rounds}")).unwrap_or_default();
        let moved = progress.bytes_moved.map(|moved| format!(", {} so far", text::bytes(moved)));
        let with_results = progress.metrics.iter().any(|site| !site.metrics.is_empty());
        let metrics = if with_results { &progress.metrics } else { &progress.tracked };
        let metrics: Vec<String> = metrics.iter().map(text::metrics).collect();
        let metrics = if metrics.is_empty() { String::new() } else { format!(": {}", metrics.join("; ")) };
        say(&format!("round {}{of} is done{}{metrics}", progress.rounds_done, moved.unwrap_or_default()));
    }

    #[expect(clippy::print_stderr, reason = "a line that is written over")]
    fn status_line(&self, job: &Job) {
        if !self.live {
            return;
        }
        let now = SystemTime::now();
        let rounds = job.progress.as_ref().map(text::rounds).filter(|rounds| !rounds.is_empty());
        let elapsed = job.elapsed(now).map(|elapsed| format!("{} elapsed", text::span(elapsed)));
        let rest = job.estimated_rest(now).map(|rest| format!("about {} to go", text::span(rest)));
        let parts: Vec<String> =
            [Some(job.status.clone()), rounds, elapsed, rest].into_iter().flatten().collect();
        eprint!("{}", parts.join("  "));
    }

    fn tell(&self, text: &str) {
        self.clear();
        note(text);
    }

    /// Removes the line that is written over.
    #[expect(clippy::print_stderr, reason = "a line that is written over")]
    fn clear(&self) {
        if self.live {
            eprint!("\r\x1b[2K");
        }
    }
}
