//! A site of ours whose operator writes a policy refuses the next job when it is deployed, and the submitter reads why.

use std::path::Path;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{Fleet, START, job};
use crate::run::Check;

/// What the job names, and these policies refuse.
const TRAINER: &str = "nvflare.app_common.np.np_trainer.NPTrainer";

/// One row for each way in which a site can say no.
pub(super) fn checks() -> impl Iterator<Item = Check<Fleet>> {
    let registered = Check::new("job_deploy_detail has why site-1 refuses: a built-in checker", |fleet| {
        Box::pin(is_told(fleet, registered()))
    });
    let rego = Check::new("job_deploy_detail has why site-1 refuses: a Rego text", |fleet| {
        Box::pin(is_told(fleet, rego()))
    });
    let python = Check::new("job_deploy_detail has why site-1 refuses: nvflare's Python checker", |fleet| {
        Box::pin(is_told(fleet, python()))
    });
    let wasm = Check::new("job_deploy_detail has why site-1 refuses: a WebAssembly component", |fleet| {
        Box::pin(async { is_told(fleet, wasm()?).await })
    });
    [registered, rego, python, wasm].into_iter().map(|check| check.within(90))
}

/// What an operator puts into `local/`, and what is heard of it.
struct Policy {
    /// The entry of `job_resources.json`.
    entry: Value,
    /// The file that it names in `local/custom`.
    file: Option<(&'static str, Vec<u8>)>,
    /// How the submitter is told.
    told: &'static str,
}

fn registered() -> Policy {
    let args = json!({ "names": ["*.NPTrainer"], "reason": "not in this house", "code": "house-rule" });
    Policy {
        entry: json!({ "id": "house-rules", "path": "locule.policy.RefuseComponents", "args": args }),
        file: None,
        told: "not in this house (house-rule)",
    }
}

fn rego() -> Policy {
    let text = r#"package locule
        review := {"allow": count(deny) == 0, "deny": deny}
        deny contains {"code": "house-rule", "message": "not in this house", "path": one.path, "public": true} if {
            some one in input.components
            endswith(one.requested, ".NPTrainer")
        }"#;
    Policy {
        entry: json!({ "id": "house-rules", "path": "comp_auth.rego" }),
        file: Some(("comp_auth.rego", text.into())),
        told: "not in this house (house-rule)",
    }
}

/// The one of nvflare's documentation, as it stands there.
fn python() -> Policy {
    let text = include_bytes!("../../../checkers/tests/comp_auth.py");
    Policy {
        entry: json!({ "id": "house-rules", "path": "comp_auth.ComponentChecker" }),
        file: Some(("comp_auth.py", text.into())),
        told: "(unsafe-component)", // that checker does not say that its text is for submitters
    }
}

fn wasm() -> anyhow::Result<Policy> {
    let text = include_str!("../../../../crates/locule-policy-wasm/tests/guests/comp_auth.wat");
    let message = format!("{TRAINER} is not run here");
    let text = text
        .replace("example.Shell is not run here", &message)
        .replace("(i32.const 29)", &format!("(i32.const {})", message.len()))
        .replace("(i32.const 13)", &format!("(i32.const {})", TRAINER.len()));
    let guest = wat::parse_str(text)?;
    let digest: String = Sha256::digest(&guest).iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Policy {
        entry: json!({ "id": "house-rules", "path": "comp_auth.wasm", "digest": format!("sha256:{digest}") }),
        file: Some(("comp_auth.wasm", guest)),
        told: "nvflare.app_common.np.np_trainer.NPTrainer is not run here (refused-here)",
    })
}

async fn is_told(fleet: &mut Fleet, policy: Policy) -> anyhow::Result<()> {
    let local = fleet.project.kit("site-1").join("local");
    let path = local.join("job_resources.json");
    let before = std::fs::read(&path).ok();
    if let Some((name, content)) = &policy.file {
        std::fs::create_dir_all(local.join("custom"))?;
        std::fs::write(local.join("custom").join(name), content)?;
    }
    std::fs::write(&path, json!({ "format_version": 2, "components": [policy.entry] }).to_string())?;
    let judged = refused(fleet, &policy).await;
    match before {
        Some(text) => std::fs::write(&path, text)?,
        None => std::fs::remove_file(&path)?,
    }
    judged
}

async fn refused(fleet: &mut Fleet, policy: &Policy) -> anyhow::Result<()> {
    let folder = fleet.folder.join("refused-job");
    job::write(&folder, job::SMALL)?;
    let job = fleet.api.ask("submit", json!({ "folder": folder })).await?;
    let meta = fleet.api.ask("wait_job", json!({ "job": job, "timeout": START.as_secs() })).await?;
    let status = meta["status"].as_str().unwrap_or_default();
    ensure!(status.starts_with("FINISHED:") && status != "FINISHED:COMPLETED", "{meta}");
    let detail = meta["job_deploy_detail"].as_array().context("the meta has no job_deploy_detail")?;
    let place = format!("site-1: refused: {TRAINER} at executors.#1.executor of config_fed_client.json");
    let is_it = |line: &str| line.starts_with(&place) && line.ends_with(policy.told);
    ensure!(detail.iter().filter_map(Value::as_str).any(is_it), "{detail:?}");
    let log = audit_log(&fleet.project.kit("site-1"))?;
    let record = log.lines().rev().find(|line| line.contains(job.as_str().unwrap_or_default()));
    ensure!(record.is_some_and(|record| record.contains("house-rules")), "not in the site's audit log");
    Ok(())
}

fn audit_log(kit: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(kit.join("state/audit.jsonl")).context("read the site's audit log")
}
