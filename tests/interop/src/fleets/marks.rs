//! What we say beyond the stock protocol, and that a stock server reads past it.

use std::path::Path;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::{Crew, Fleet, Locule, Running, Stock, registered};
use crate::project::{Project, SERVER};
use crate::python::Python;
use crate::run::{Check, Run};

/// A component of nvflare's server that logs who registers, and what it said of itself.
const OBSERVER: &str = include_str!("../../python/register_observer.py");
/// What begins its lines.
const SAID: &str = "registered: ";

pub(super) fn suite(run: &Run) -> Running<'_> {
    let crew = Crew::new(Stock, [Locule, Stock]);
    let checks = vec![
        Check::new("the handshake's and the registration's marks arrive, and change nothing", |fleet| {
            Box::pin(marks_arrive(fleet))
        })
        .within(90),
    ];
    let suite = crew.suite("marks", false);
    Box::pin(async move {
        let set_up = async |folder: &Path, python: &Python| {
            Fleet::start_prepared(crew, python, folder, add_observer).await
        };
        run.suite(&suite, checks, set_up).await
    })
}

fn add_observer(project: &Project) -> anyhow::Result<()> {
    let local = project.kit(SERVER).join("local");
    std::fs::create_dir_all(local.join("custom"))?;
    std::fs::write(local.join("custom/register_observer.py"), OBSERVER)?;
    let resources = local.join("resources.json");
    let mut settled: Value = serde_json::from_slice(&std::fs::read(&resources)?)?;
    let components = settled["components"].as_array_mut().context("the server has components")?;
    components.push(json!({ "id": "observer", "path": "register_observer.RegisterObserver", "args": {} }));
    Ok(std::fs::write(resources, settled.to_string())?)
}

async fn marks_arrive(fleet: &mut Fleet) -> anyhow::Result<()> {
    registered(fleet).await?;
    let said = fleet.server.said();
    let mut told =
        said.lines().filter_map(|line| serde_json::from_str::<Value>(line.split_once(SAID)?.1).ok());
    let (ours, theirs): (Vec<_>, Vec<_>) = told.by_ref().partition(|told| told["name"] == "site-1");
    let ([ours], [theirs]) = (&ours[..], &theirs[..]) else { anyhow::bail!("{ours:?} and {theirs:?}") };
    let software = ours["handshake"]["software"].as_str().unwrap_or_default();
    ensure!(software.starts_with("locule/"), "ours shook hands with {ours}");
    ensure!(theirs["handshake"].get("software").is_none(), "theirs shook hands with {theirs}");
    // What nvflare's own site tells with its registration, ours tells too, and nothing else.
    let context = |told: &Value| {
        let mut context = told["context"].as_object().cloned().unwrap_or_default();
        context.retain(|_, value| *value != told["name"]);
        context
    };
    ensure!(!context(ours).is_empty() && context(ours) == context(theirs), "{ours} and {theirs}");
    Ok(())
}
