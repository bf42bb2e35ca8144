//! Commands about the server and its sites.

use locule_protocol::{AdminCommand, Item, NVFLARE_VERSION, ReplyDocument, Status};
use locule_server::{JobStatus, Submitter};
use serde_json::{Map, Value, json};

use crate::dates;
use crate::desk::{Answered, Call};
use crate::orders::Word;

/// How server and sites are.
pub(crate) async fn status(call: &Call) -> Answered {
    let targets = call.targets(&call.arguments, &Submitter::default())?;
    let mut reply = ReplyDocument::new();
    if targets.server {
        reply = server_status(call, reply).await;
    }
    if targets.clients {
        let words = call.ask(&targets.sites, &Submitter::default(), &AdminCommand::CheckStatus).await;
        if words.is_empty() {
            return Ok(reply
                .item(Item::Error("no responses from clients".into()))
                .status(Status::Error, "no responses from clients"));
        }
        let states: Vec<Value> = words.iter().flat_map(|(site, word)| jobs_of(site, word)).collect();
        let row = |state: &Value| {
            let cell = |key: &str| state.get(key).cloned().unwrap_or_else(|| json!("?"));
            vec![cell("client_name"), cell("app_name"), cell("job_id"), cell("status")]
        };
        reply = reply
            .table(&["client", "app_name", "job_id", "status"], states.iter().map(row).collect())
            .meta("client_status", states)
            .status(Status::Ok, "");
    }
    Ok(reply)
}

async fn server_status(call: &Call, reply: ReplyDocument) -> ReplyDocument {
    let server = &call.desk.server;
    let running: Vec<String> = server
        .records()
        .into_iter()
        .filter(|record| matches!(record.status(), JobStatus::Dispatched | JobStatus::Running))
        .map(|record| record.job_id)
        .collect();
    let files: Vec<_> = running.iter().filter_map(|job| server.files(job)).collect();
    let apps = tokio::task::spawn_blocking(move || {
        let app = |run_dir: &std::path::Path| std::fs::read_to_string(run_dir.join("fl_app.txt"));
        files.iter().map(|files| app(&files.run_dir).unwrap_or_else(|_| "?".into())).collect::<Vec<_>>()
    });
    let jobs: Vec<(String, String)> = running.into_iter().zip(apps.await.unwrap_or_default()).collect();
    let word = if jobs.is_empty() { "stopped" } else { "started" };
    let sites = server.sites();
    let mut reply = reply
        .text(format!("Engine status: {word}"))
        .table(&["job_id", "app name"], jobs.iter().map(|(job, app)| vec![json!(job), json!(app)]).collect())
        .text(format!("Registered clients: {} ", sites.len()))
        .meta("server_status", word)
        .meta("server_start_time", dates::seconds(server.started()))
        .meta(
            "jobs",
            jobs.iter().map(|(job, app)| json!({ "app_name": app, "job_id": job })).collect::<Vec<_>>(),
        );
    if !sites.is_empty() {
        // Here nvflare shows the sites' tokens.
        let rows = sites.iter().map(|site| {
            let seen = dates::iso(dates::seconds(site.last_seen) as u64);
            [&site.name, site.cell.as_str(), &site.name, "True", "", &seen].map(|cell| json!(cell)).to_vec()
        });
        let head = ["client", "fqcn", "fqsn", "leaf", "token", "last connect time"];
        let clients = sites.iter().map(|site| {
            json!({
                "client_name": site.name,
                "client_last_conn_time": dates::seconds(site.last_seen),
                "fqcn": site.cell.as_str(),
            })
        });
        reply = reply.table(&head, rows.collect()).meta("clients", clients.collect::<Vec<_>>());
    }
    reply.status(Status::Ok, "")
}

/// The jobs of a site, one each, or that there is nothing to say.
fn jobs_of(site: &str, word: &Word) -> Vec<Value> {
    let state = |status: &str| vec![json!({ "client_name": site, "status": status })];
    match word {
        Word::None => state(Status::NoReply.as_str()),
        Word::Error(_) => state(Status::Error.as_str()),
        Word::Ok(_) => {
            let document = word.document().unwrap_or_default();
            let jobs = document["running_jobs"].as_array().filter(|jobs| !jobs.is_empty());
            let Some(jobs) = jobs else { return state(Status::NoJobs.as_str()) };
            let job = |job: &Value| {
                json!({
                    "client_name": site,
                    "app_name": job["app_name"],
                    "job_id": job["job_id"],
                    "status": job["status"],
                })
            };
            jobs.iter().map(job).collect()
        }
    }
}

/// Ends a site's registration, keeps a site out, or lets it in again.
pub(crate) async fn change(call: &Call) -> Answered {
    let Call { desk, command, arguments, .. } = call;
    if arguments.is_empty() {
        return Err(ReplyDocument::error(Status::SyntaxError, "", "missing client name"));
    }
    if command.name == "remove_client" {
        let words: Vec<String> =
            std::iter::once("client".to_owned()).chain(arguments.iter().cloned()).collect();
        call.targets(&words, &Submitter::default())?;
    } else {
        desk.allow(command.name, call.who(), Default::default())?;
    }
    let mut changed = Map::new();
    for site in arguments {
        let done = match command.name {
            "disable_client" => desk.server.disable_site(site).await.map(|()| "disabled"),
            "enable_client" => desk.server.enable_site(site).await.map(|()| "enabled"),
            _ => desk.server.remove_site(site).await.map(|_| "removed"),
        };
        match done {
            Ok(word) => changed.insert(site.clone(), json!(word)),
            Err(error) => {
                let text = format!("journal of tokens does not take it: {error}");
                return Err(ReplyDocument::error(Status::InternalError, text.clone(), text));
            }
        };
    }
    let reply = ReplyDocument::new();
    Ok(match command.name {
        "remove_client" => reply.success(""),
        _ => reply.item(Item::Dict(Value::Object(changed))).status(Status::Ok, ""),
    })
}

/// Where sites run.
pub(crate) async fn environment(call: &Call) -> Answered {
    let words: Vec<String> =
        std::iter::once("client".to_owned()).chain(call.arguments.iter().cloned()).collect();
    let targets = call.targets(&words, &Submitter::default())?;
    let order = AdminCommand::Other { topic: "sys.report_env".into() };
    let words = call.ask(&targets.sites, &Submitter::default(), &order).await;
    let told = words.iter().map(|(site, word)| (site, word.document().unwrap_or_else(Value::String)));
    let told: Vec<_> = told.collect();
    let rows = told.iter().map(|(site, document)| vec![json!(site), json!(text_of(document))]).collect();
    let documents: Vec<Value> = told.iter().map(|(_, document)| document.clone()).collect();
    Ok(ReplyDocument::new().table(&["Sites", "Env"], rows).meta("clients", documents).status(Status::Ok, ""))
}

/// What sites have to give.
pub(crate) async fn resources(call: &Call) -> Answered {
    let targets = call.targets(&call.arguments, &Submitter::default())?;
    let order = AdminCommand::Other { topic: "resource_manager.report_resources".into() };
    let words = call.ask(&targets.sites, &Submitter::default(), &order).await;
    let own = targets.server.then(|| vec![json!("server"), json!("unlimited")]);
    let told = words.iter().map(|(site, word)| {
        let document = word.document().unwrap_or_else(Value::String);
        vec![json!(site), json!(text_of(&document))]
    });
    let rows = own.into_iter().chain(told).collect();
    Ok(ReplyDocument::new().table(&["Sites", "Resources"], rows).status(Status::Ok, ""))
}

/// Versions.
pub(crate) async fn version(call: &Call) -> Answered {
    let targets = call.targets(&call.arguments, &Submitter::default())?;
    let order = AdminCommand::Other { topic: "sys.report_version".into() };
    let words = call.ask(&targets.sites, &Submitter::default(), &order).await;
    let mut versions = Map::new();
    if targets.server {
        let own = json!({ "version": NVFLARE_VERSION, "locule": env!("CARGO_PKG_VERSION") });
        versions.insert("server".into(), own);
    }
    for (site, word) in words {
        let version = match word.document() {
            Ok(version) if version.is_object() => version,
            Ok(_) => json!({ "error": "invalid reply" }),
            Err(error) => json!({ "error": error }),
        };
        versions.insert(site, version);
    }
    Ok(ReplyDocument::new().item(Item::Dict(Value::Object(versions))).status(Status::Ok, ""))
}

/// Stops sites, the server, or both.
pub(crate) async fn shut_down(call: &Call) -> Answered {
    let desk = &call.desk;
    let targets = call.targets(&call.arguments, &Submitter::default())?;
    let records = desk.server.records();
    let runs = |status: JobStatus| matches!(status, JobStatus::Dispatched | JobStatus::Running);
    if let Some(record) = records.iter().find(|record| runs(record.status())) {
        let text = "There are still jobs running. Please let them finish or abort_job before shutdown.";
        return Err(ReplyDocument::error(Status::JobRunning, record.job_id.clone(), text));
    }
    if targets.server && !targets.clients && !desk.server.sites().is_empty() {
        let text = "There are still active clients. Shutdown all clients first.";
        return Err(ReplyDocument::error(Status::ClientsRunning, "", text));
    }
    let mut reply = ReplyDocument::new();
    if !targets.sites.is_empty() {
        let words = call.ask(&targets.sites, &Submitter::default(), &AdminCommand::Shutdown).await;
        let refused = words.iter().any(|(_, word)| matches!(word, Word::Error(_)));
        let rows = words.iter().map(|(site, word)| {
            let said = match word {
                Word::Ok(text) | Word::Error(text) => text.as_str(),
                Word::None => "",
            };
            vec![json!(site), json!(said)]
        });
        reply = reply.table(&["Client", "Response"], rows.collect());
        if refused {
            let text = "failed to shut down all clients";
            return Err(reply.item(Item::Error(text.into())).status(Status::Error, text));
        }
    }
    if targets.server {
        tracing::info!(user = call.session.claim.name, "an administrator shuts the server down");
        // It lets this answer out before it ends.
        desk.stop.cancel();
        reply = reply.text("Flare Server has been shutdown.").item(Item::Shutdown("Goodbye!".into()));
    }
    Ok(reply.success(""))
}

fn text_of(document: &Value) -> String {
    document.as_str().map_or_else(|| document.to_string(), str::to_owned)
}
