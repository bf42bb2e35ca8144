//! Commands about jobs.

use locule_component::with_causes;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use locule_job::{PackError, Packing, pack_file};
use locule_protocol::{AdminCommand, Item, Refusal, ReplyDocument, Status, outcome};
use locule_server::{
    DeleteError, JobCheck, JobFiles, JobRecord, JobStatus, Package, Server, ServerEvent, SiteOutcome,
    StatusChange, SubmitError, Submitter,
};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::dates;
use crate::desk::{Answered, Call, lock, not_authorized, now};
use crate::download::Offer;
use crate::meta::{meta_of, metas, summary};
use crate::news::JobNews;
use crate::orders::{Word, who};
use crate::upload::Spool;
use locule_rights::Who;

/// How long a command waits for a job that it aborted before it began.
const ABORTED: Duration = Duration::from_secs(3);

/// Takes a job in that was sent.
pub(crate) async fn submit(call: &Call) -> Answered {
    let desk = &call.desk;
    let (folder, token) = match &call.arguments[..] {
        [folder] => (folder, None),
        [folder, option, token] if option == TOKEN => (folder, Some(token_of(token)?)),
        _ => return Err(call.usage()),
    };
    let package = Package { token, ..package(call, folder)? };
    let job_id = match desk.server.submit_package(package).await {
        Ok(job_id) | Err(SubmitError::SubmittedBefore { job_id }) => job_id,
        Err(error) => return Err(refused(call, &error)),
    };
    Ok(ReplyDocument::new().text(format!("Submitted job: {job_id}")).success("").meta("job_id", job_id))
}

/// What comes before the token of a submission.
const TOKEN: &str = "--submit-token";

/// # Source
/// nvflare 2.9.0, `nvflare.apis.utils.job_submit_token`.
fn token_of(text: &str) -> Result<String, ReplyDocument> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._:-".contains(c);
    if (1..=128).contains(&text.len()) && text.chars().all(fits) {
        return Ok(text.to_owned());
    }
    let text = "a submit token is at most 128 letters, digits, and `.`, `_`, `:`, `-`";
    Err(ReplyDocument::error(Status::SyntaxError, text, text))
}

/// Asks the server's checkers and those of the sites what they would say of a job that was sent, and keeps nothing.
///
/// The right is that of `submit_job`.
pub(crate) async fn check(call: &Call) -> Answered {
    let desk = &call.desk;
    let [folder] = &call.arguments[..] else { return Err(call.usage()) };
    let package = package(call, folder)?;
    let checks = desk.server.check_package(package).await.map_err(|error| refused(call, &error))?;
    let row = |check: &JobCheck| -> Vec<Vec<Value>> {
        if check.refusals.is_empty() {
            return vec![
                [&check.site, &check.verdict, "", "", "", &check.text].map(|cell: &str| json!(cell)).to_vec(),
            ];
        }
        let cells = |refusal: &Refusal| {
            let Refusal { component, path, code, reason, .. } = refusal;
            [&check.site, &check.verdict, component, path, code, reason].map(|cell| json!(cell)).to_vec()
        };
        check.refusals.iter().map(cells).collect()
    };
    let rows = checks.iter().flat_map(row).collect();
    let head = ["Site", "Verdict", "Component", "Path", "Code", "Reason"];
    Ok(ReplyDocument::new().table(&head, rows).meta("checks", json!(checks)).success(""))
}

/// The job that was sent with the command, by somebody who may submit jobs.
fn package(call: &Call, folder: &str) -> Result<Package, ReplyDocument> {
    call.desk.allow("submit_job", call.who(), Who::default())?;
    let Some(file) = call.file.clone() else {
        return Err(ReplyDocument::error(Status::InternalError, "", "missing upload file"));
    };
    Ok(Package {
        file,
        folder: folder.to_owned(),
        submitter: submitter(call),
        may_bring_code: may_bring_code(call),
        cloned_from: None,
        token: None,
    })
}

/// Submits a job once more.
pub(crate) async fn clone(call: &Call) -> Answered {
    let desk = &call.desk;
    let record = call.job()?;
    let files = call.files(&record)?;
    let (inbox, name) = (desk.inbox.clone(), format!("{}.zip", Uuid::from_u128(rand::random())));
    let copied = blocking(move || {
        let meta = files.read_meta()?;
        let folder = meta["job_folder_name"].as_str().unwrap_or_default().to_owned();
        let spool = Spool::create(&inbox, &name)?;
        fs::copy(&files.package, inbox.join(&name))?;
        Ok((folder, spool, inbox.join(name)))
    });
    let (folder, _spool, file) = copied.await.map_err(|error| {
        let text = format!("job {} cannot be cloned: {}", record.job_id, without_path(&error));
        ReplyDocument::error(Status::InternalError, text.clone(), text)
    })?;
    let package = Package {
        file,
        folder,
        submitter: submitter(call),
        may_bring_code: may_bring_code(call),
        cloned_from: Some(record.job_id.clone()),
        token: None,
    };
    let job_id = desk.server.submit_package(package).await.map_err(|error| refused(call, &error))?;
    let text = format!("Cloned job {} as: {job_id}", record.job_id);
    Ok(ReplyDocument::new().text(text).success("").meta("job_id", job_id))
}

/// Lists jobs.
pub(crate) async fn list(call: &Call) -> Answered {
    let desk = &call.desk;
    let filter = Filter::read(&call.arguments)
        .map_err(|text| ReplyDocument::error(Status::SyntaxError, text.clone(), text))?;
    desk.allow("list_jobs", call.who(), Who::default())?;
    let mut records = desk.server.records();
    let any = !records.is_empty();
    records.retain(|record| filter.matches(record, call.who().name));
    let found = records.len();
    if filter.reverse {
        records.reverse();
        records.truncate(filter.most.unwrap_or(found));
    } else {
        records.drain(..found.saturating_sub(filter.most.unwrap_or(found)));
    }
    if records.is_empty() {
        let text = if any { "No jobs matching the specified criteria." } else { "No jobs found." };
        return Ok(ReplyDocument::new().text(text).meta("jobs", json!([])).success(""));
    }
    if filter.detailed {
        let metas = metas(desk, records).await;
        let shown = metas.iter().map(|meta| Item::Text(format!("{meta:#}"))).collect();
        let reply = ReplyDocument { items: shown, ..ReplyDocument::new() };
        return Ok(reply.meta("jobs", metas).success(""));
    }
    let jobs: Vec<Value> = records.iter().map(summary).collect();
    let cell = |job: &Value, key: &str| job[key].clone();
    let row = |job: &Value| {
        ["job_id", "job_name", "status", "submit_time", "duration"].map(|key| cell(job, key)).to_vec()
    };
    let head = ["Job ID", "Name", "Status", "Submit Time", "Run Duration"];
    let rows = jobs.iter().map(row).collect();
    Ok(ReplyDocument::new().table(&head, rows).meta("jobs", jobs).success(""))
}

/// All that is known of a job.
pub(crate) async fn meta(call: &Call) -> Answered {
    let record = call.job()?;
    let meta = metas(&call.desk, vec![record]).await.pop().unwrap_or_default();
    Ok(ReplyDocument::new().item(Item::Dict(meta.clone())).meta("job_meta", meta).status(Status::Ok, ""))
}

/// What sites track in a job, from a position on; `next` says where to go on, and no lines that there is no more.
///
/// The right is that of `get_job_meta`.
pub(crate) async fn metrics(call: &Call) -> Answered {
    let record = call.job_if("get_job_meta")?;
    let from = match &call.arguments[1..] {
        [] => 0,
        [from] => from.parse().map_err(|_| call.usage())?,
        _ => return Err(call.usage()),
    };
    let files = call.files(&record)?;
    let read = blocking(move || files.tracked(from)).await;
    let (lines, next) = read.map_err(|error| {
        let text = format!("metrics of job {} cannot be read: {}", record.job_id, without_path(&error));
        ReplyDocument::error(Status::InternalError, text.clone(), text)
    })?;
    let told = json!({ "lines": lines, "next": next });
    Ok(ReplyDocument::new().item(Item::Dict(told)).status(Status::Ok, ""))
}

/// Lists other parts of a job; it has none.
pub(crate) fn components(call: &Call) -> Answered {
    call.job()?;
    Ok(ReplyDocument::new().meta("job_components", json!([])).success(""))
}

/// Lets other parts of a job be fetched; it has none.
pub(crate) fn download_components(call: &Call) -> Answered {
    call.job()?;
    let text = "No components to download";
    Ok(ReplyDocument::new().text(text).status(Status::NoJobComponents, text))
}

/// Aborts a job.
pub(crate) async fn abort(call: &Call) -> Answered {
    let server = &call.desk.server;
    let record = call.job()?;
    let job_id = &record.job_id;
    let reason = format!("aborted by {}", call.session.claim.name);
    let status = record.status();
    let text = if status.is_final() {
        format!("Job for {job_id} is already completed.")
    } else if matches!(status, JobStatus::Submitted | JobStatus::Dispatched) {
        abort_and_wait(server, job_id, &reason).await;
        format!("Aborted the job {job_id} before running it.")
    } else {
        server.abort(job_id, &reason).await;
        "Abort signal has been sent to the server app.".to_owned()
    };
    Ok(ReplyDocument::new().text(&text).success(&text))
}

/// Deletes a job with its results.
pub(crate) async fn delete(call: &Call) -> Answered {
    let server = &call.desk.server;
    let record = call.job()?;
    let job_id = &record.job_id;
    if record.status() == JobStatus::Submitted {
        abort_and_wait(server, job_id, &format!("deleted by {}", call.session.claim.name)).await;
    }
    match server.delete(job_id).await {
        Ok(()) => {}
        Err(DeleteError::NotOver) => {
            let text = format!("job: {job_id} is running, could not be deleted at this time.");
            return Err(ReplyDocument::error(Status::JobRunning, job_id, text));
        }
        Err(DeleteError::Unknown) => return Err(no_such_job(job_id)),
        Err(error) => {
            tracing::error!(job = job_id, %error, "job cannot be deleted");
            return Err(ReplyDocument::error(Status::InternalError, error.to_string(), error.to_string()));
        }
    }
    let reply = ReplyDocument::new().text(format!("Job {job_id} deleted."));
    Ok(reply.success("").meta("job_id", job_id.as_str()).meta("submit_records_marked_deleted", 0))
}

/// Packs a job that is over, and lets it be fetched.
pub(crate) async fn download(call: &Call) -> Answered {
    let desk = &call.desk;
    let record = call.job()?;
    let job_id = record.job_id.clone();
    if !record.status().is_final() {
        let text = format!("job {job_id} is not done");
        return Err(ReplyDocument::error(Status::JobRunning, job_id, text));
    }
    let busy = || {
        let text = "too many results wait to be fetched";
        ReplyDocument::error(Status::Error, text, text)
    };
    if !lock(&desk.downloads).has_room(&call.session.cell) {
        return Err(busy());
    }
    let files = call.files(&record)?;
    let id = Uuid::from_u128(rand::random()).to_string();
    let (folder, most) = (desk.outbox.join(&id), desk.settings.result_bytes);
    let news = lock(&desk.news).of(&record.job_id);
    let packed = blocking(move || {
        let packed = pack(&record, &news, &files, &folder, most);
        if packed.is_err() {
            fs::remove_dir_all(&folder).ok();
        }
        packed
    });
    let (folder, parts) = packed.await.map_err(|error| {
        tracing::error!(job = job_id, %error, "result of a job cannot be packed");
        ReplyDocument::error(Status::InternalError, "", "internal error")
    })?;
    let files: Vec<(String, PathBuf, u64)> = parts
        .iter()
        .map(|(name, size)| (Uuid::from_u128(rand::random()).to_string(), folder.join(name), *size))
        .collect();
    let named: Vec<Value> =
        parts.iter().zip(&files).map(|((name, _), (reference, ..))| json!([name, reference])).collect();
    let session = call.session.claim.session.clone();
    let offer = Offer { folder: folder.clone(), receiver: call.session.cell.clone(), session, files };
    if !lock(&desk.downloads).offer(&id, offer, now()) {
        blocking(move || fs::remove_dir_all(folder)).await.ok();
        return Err(busy());
    }
    let reply = ReplyDocument::new().text("OK").status(Status::Ok, "");
    let reply = reply.meta("source_fqcn", desk.cell.name().as_str()).meta("files", named);
    Ok(reply.meta("tx_id", id).meta("folder_name", job_id))
}

/// Statistics or errors of a job that runs.
pub(crate) async fn collect(call: &Call) -> Answered {
    let Some((_, targets)) = call.arguments.split_first().filter(|(_, targets)| !targets.is_empty()) else {
        return Err(call.usage());
    };
    let record = call.job()?;
    let targets = call.targets(targets, &record.submitter)?;
    let job_id = record.job_id.clone();
    if !matches!(record.status(), JobStatus::Dispatched | JobStatus::Running) {
        let text = format!("Job_id: {job_id} is not running.");
        return Err(ReplyDocument::error(Status::JobNotRunning, job_id, text));
    }
    let mut told = Map::new();
    if targets.server {
        told.insert(
            "server".into(),
            if call.command.name == "show_stats" { statistics(&record) } else { json!({}) },
        );
    }
    let sites: Vec<_> = targets.sites.into_iter().filter(|site| record.sites.contains(&site.name)).collect();
    let order = match call.command.name {
        "show_stats" => AdminCommand::ShowStats { job_id },
        "show_errors" => AdminCommand::ShowErrors { job_id },
        _ => AdminCommand::Other { topic: "info.reset_errors".into() },
    };
    for (site, word) in call.ask(&sites, &record.submitter, &order).await {
        let document = match word {
            Word::Ok(_) => word.document().unwrap_or_else(|_| json!("invalid_reply")),
            Word::Error(_) | Word::None => json!("invalid_reply"),
        };
        told.insert(site, document);
    }
    Ok(ReplyDocument::new().item(Item::Dict(Value::Object(told))).status(Status::Ok, ""))
}

/// Logs of a job, of the server and of its sites.
///
/// The course of a job needs the right of `get_job_meta`. What its halves have printed, at the server and at sites that
/// send it, needs that of `download_job`: it is part of the result.
///
/// # Source
/// nvflare 2.9.0, `nvflare.private.fed.server.job_cmds` (`get_job_log`).
pub(crate) async fn log(call: &Call) -> Answered {
    let record = call.job_if("get_job_meta")?;
    let may_read = call.desk.allow("download_job", call.who(), who(&record.submitter)).is_ok();
    let target = match &call.arguments[1..] {
        [] => SERVER,
        // The name of a file may follow; all of them are given here.
        [target] | [target, _] => target,
        _ => return Err(call.usage()),
    };
    let all = matches!(&*target.to_lowercase(), "all" | "@all");
    let (mut logs, mut unavailable) = (Map::new(), Map::new());
    if all || target == SERVER {
        logs.insert(SERVER.into(), json!(course_of(&record)));
    }
    let others =
        record.sites.iter().chain(record.outcomes.keys()).map(String::as_str).filter(|site| *site != SERVER);
    let mut sites: Vec<&str> = others.filter(|site| all || *site == target).collect();
    sites.sort_unstable();
    sites.dedup();
    if sites.is_empty() && !all && target != SERVER {
        unavailable.insert(target.into(), json!("the site takes no part in this job"));
    }
    for site in sites {
        match record.outcomes.get(site) {
            Some(outcome) => logs.insert(site.into(), json!(end_of(site, outcome))),
            None => unavailable.insert(site.into(), json!("the site has not told yet how its half ended")),
        };
    }
    let files = if may_read { call.files(&record).ok() } else { None };
    if let Some(files) = files {
        let sites: Vec<String> = logs.keys().chain(unavailable.keys()).cloned().collect();
        let each = MOST_OF_LOGS / (sites.len() as u64).max(1);
        let read = blocking(move || {
            let texts = sites.into_iter().map(|site| {
                let of = Some(&*site).filter(|site| *site != SERVER);
                let logs = files.logs(of, each.min(MOST_OF_LOG));
                (site, logs)
            });
            Ok(texts.collect::<Vec<_>>())
        });
        for (site, texts) in read.await.unwrap_or_default() {
            for (name, text) in texts {
                let before = logs.get(&site).and_then(Value::as_str).unwrap_or_default();
                logs.insert(site.clone(), json!(format!("{before}--- {name} ---\n{text}")));
                unavailable.remove(&site);
            }
        }
    }
    let told = json!({ "logs": logs, "unavailable": unavailable });
    Ok(ReplyDocument::new().item(Item::Dict(told)).status(Status::Ok, ""))
}

/// The server's own half.
const SERVER: &str = "server";

/// Most bytes of one log that are given, and of all: the last ones.
const MOST_OF_LOG: u64 = 256 << 10;
const MOST_OF_LOGS: u64 = 4 << 20;

fn course_of(record: &JobRecord) -> String {
    let line = |change: &StatusChange| {
        let StatusChange { status, time, reason } = change;
        format!("{} {} {reason}\n", dates::iso(*time), status.as_str())
    };
    let ended = record.outcomes.get(SERVER).map(|outcome| end_of(SERVER, outcome));
    record.history.iter().map(line).chain(ended).collect()
}

fn end_of(who: &str, outcome: &SiteOutcome) -> String {
    let SiteOutcome { code, reason, refusals, tasks_done } = outcome;
    let how = if *code == outcome::DONE { "is done".to_owned() } else { format!("ended with code {code}") };
    let reason = reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    // Sites of nvflare do not say how many.
    let tasks = if *tasks_done == 0 { String::new() } else { format!(" after {tasks_done} task(s)") };
    let mut text = format!("{who} {how}{tasks}{reason}\n");
    for Refusal { component, file, path, code, reason, .. } in refusals {
        text += &format!("{who} refuses {component} at {path} of {file}: {reason} ({code})\n");
    }
    text
}

fn statistics(record: &JobRecord) -> Value {
    json!({ "ServerRunner": {
        "job_id": record.job_id,
        "status": record.status().as_str(),
        "rounds_done": record.rounds_done,
        "sites": record.sites,
        "outcomes": record.outcomes.keys().collect::<Vec<_>>(),
    } })
}

impl Call {
    /// The job that the first argument names, if the user has the right to it.
    fn job(&self) -> Result<JobRecord, ReplyDocument> {
        self.job_if(self.command.name)
    }

    /// The job that the first argument names, if the user has this right to it.
    fn job_if(&self, right: &str) -> Result<JobRecord, ReplyDocument> {
        let Some(id) = self.arguments.first().map(|id| id.to_lowercase()) else {
            return Err(ReplyDocument::error(
                Status::SyntaxError,
                "missing job_id",
                "syntax error: missing job_id",
            ));
        };
        if Uuid::try_parse(&id).is_err() {
            let shown: String = id.chars().take(64).flat_map(char::escape_debug).collect();
            let text = format!("invalid job_id {shown}");
            return Err(ReplyDocument::error(Status::InvalidJobId, shown, text));
        }
        let record = self.desk.server.record(&id).ok_or_else(|| no_such_job(&id))?;
        self.desk.allow(right, self.who(), who(&record.submitter))?;
        Ok(record)
    }

    fn files(&self, record: &JobRecord) -> Result<JobFiles, ReplyDocument> {
        self.desk.server.files(&record.job_id).ok_or_else(|| no_such_job(&record.job_id))
    }
}

/// Which jobs are listed, and how.
#[derive(Debug, Default, PartialEq)]
struct Filter {
    detailed: bool,
    own: bool,
    reverse: bool,
    most: Option<usize>,
    name: Option<String>,
    id: Option<String>,
    /// Only the job that the user submitted with it.
    token: Option<String>,
}

impl Filter {
    fn read(words: &[String]) -> Result<Self, String> {
        let mut filter = Self::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut value =
                || words.next().cloned().ok_or_else(|| format!("argument {word}: expected one argument"));
            match word.as_str() {
                "-d" => filter.detailed = true,
                "-u" => filter.own = true,
                "-r" => filter.reverse = true,
                "-n" => filter.name = Some(value()?.to_lowercase()),
                "-m" => {
                    let most = value()?.parse().map_err(|_| "argument -m: invalid int value".to_owned())?;
                    filter.most = Some(most).filter(|most| *most > 0);
                }
                TOKEN => filter.token = Some(value()?),
                other if other.starts_with('-') || filter.id.is_some() => {
                    return Err(format!("unrecognized arguments: {}", other.escape_debug()));
                }
                id => filter.id = Some(id.to_lowercase()),
            }
        }
        Ok(filter)
    }

    fn matches(&self, record: &JobRecord, user: &str) -> bool {
        let begins = |text: &str, prefix: &Option<String>| {
            prefix.as_ref().is_none_or(|prefix| text.to_lowercase().starts_with(prefix))
        };
        begins(&record.job_id, &self.id)
            && begins(&record.name, &self.name)
            && (!self.own || record.submitter.name == user)
            && self.token.as_ref().is_none_or(|token| {
                let of = record.submission.as_ref().map(|submission| &submission.token);
                of == Some(token) && record.submitter.name == user
            })
    }
}

/// Packs a job into `folder`: the job as it was handed in, its meta, and its run folder with the results. Gives
/// the names and sizes of the files. Blocking.
///
/// # Source
/// nvflare 2.9.0, `nvflare.private.fed.server.job_cmds`: a console unpacks what ends in `.zip`.
fn pack(
    record: &JobRecord,
    news: &JobNews,
    files: &JobFiles,
    folder: &Path,
    most: u64,
) -> io::Result<(PathBuf, Vec<(&'static str, u64)>)> {
    fs::create_dir(folder)?;
    let mut names = vec!["meta.json", "workspace.zip"];
    let meta = meta_of(record, news, &files.last_tracked(), files.read_meta().unwrap_or_default());
    fs::write(folder.join("meta.json"), serde_json::to_vec_pretty(&meta)?)?;
    let packed = pack_file(&files.run_dir, "", &folder.join("workspace.zip"), Packing::Fast, most);
    packed.map_err(|error: PackError| io::Error::other(error.to_string()))?;
    // A job of an older version has no package.
    if File::open(&files.package).is_ok() {
        let here = folder.join("job.zip");
        fs::hard_link(&files.package, &here).or_else(|_| fs::copy(&files.package, &here).map(drop))?;
        names.insert(0, "job.zip");
    }
    let sized = names.into_iter().map(|name| Ok((name, folder.join(name).metadata()?.len())));
    Ok((folder.to_owned(), sized.collect::<io::Result<_>>()?))
}

/// Aborts a job that does not run yet, and waits for its end.
async fn abort_and_wait(server: &Server, job_id: &str, reason: &str) {
    let mut events = server.events();
    if !server.abort(job_id, reason).await {
        return;
    }
    let over = async {
        while let Ok(event) = events.recv().await {
            if matches!(&event, ServerEvent::JobFinished { record, .. } if record.job_id == job_id) {
                return;
            }
        }
    };
    // It ends in any case; a command only does not wait for it for ever.
    tokio::time::timeout(ABORTED, over).await.ok();
}

fn submitter(call: &Call) -> Submitter {
    let Who { name, org, role } = call.who();
    Submitter { name: name.to_owned(), org: org.to_owned(), role: role.to_owned() }
}

fn may_bring_code(call: &Call) -> bool {
    let own = submitter(call);
    call.desk.rights.allow("byoc", call.who(), who(&own), &call.desk.org)
}

fn refused(call: &Call, error: &SubmitError) -> ReplyDocument {
    if matches!(error, SubmitError::CustomCode) {
        return not_authorized().meta("info", error.to_string());
    }
    let text = with_causes(error);
    let of_token = |status, code: &str, job_id: &str| {
        ReplyDocument::error(status, text.clone(), text.clone()).meta("code", code).meta("job_id", job_id)
    };
    if let SubmitError::OtherSubmission { job_id } = error {
        return of_token(Status::SubmitTokenConflict, "SUBMIT_TOKEN_CONFLICT", job_id);
    }
    if let SubmitError::SubmissionDeleted { job_id } = error {
        return of_token(Status::SubmitTokenJobDeleted, "SUBMIT_TOKEN_JOB_DELETED", job_id);
    }
    if error.is_the_jobs_fault() {
        // Where the server unpacks a job is nobody's business.
        let text = match call.desk.inbox.parent() {
            Some(state) => text.replace(&format!("{}/", state.join("jobs").display()), ""),
            None => text,
        };
        return ReplyDocument::error(Status::InvalidJobDefinition, text.clone(), text);
    }
    tracing::error!(error = text, "job that was sent cannot be taken in");
    let text = "the server cannot take the job in now";
    ReplyDocument::error(Status::InternalError, text, text)
}

fn no_such_job(job_id: &str) -> ReplyDocument {
    ReplyDocument::error(Status::InvalidJobId, job_id, format!("no such job: {job_id}"))
}

fn without_path(error: &io::Error) -> String {
    error.kind().to_string()
}

pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_site_counts_tasks_if_the_site_does() {
        let of = |tasks_done| SiteOutcome { code: 0, reason: None, refusals: Vec::new(), tasks_done };
        assert_eq!(end_of("site-1", &of(3)), "site-1 is done after 3 task(s)\n");
        assert_eq!(end_of("stock", &of(0)), "stock is done\n");
    }

    fn read(line: &str) -> Result<Filter, String> {
        Filter::read(&crate::words(line))
    }

    #[test]
    fn filters_are_read_as_a_stock_server_does() {
        let all = Filter {
            detailed: true,
            own: true,
            reverse: true,
            most: Some(3),
            name: Some("sum".into()),
            id: Some("4f1c".into()),
            token: Some("t".into()),
        };
        assert_eq!(read("-d -u -r -m 3 -n Sum --submit-token t 4F1C"), Ok(all));
        assert_eq!(read("-m 0"), Ok(Filter::default()), "all of them");
        for bad in ["-m", "-m x", "-x", "a b", "--submit-token"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
