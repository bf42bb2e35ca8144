//! A dashboard: which sites are there and how far the job is, from the lines of `locule server --output json`.

use std::collections::BTreeSet;
use std::error::Error;

use locule_server::{JobStatus, ServerEvent};

const LINES: &str = r#"{"event":"listening","endpoint":"grpc://0:8002"}
{"event":"site_joined","site":"site-1"}
{"event":"site_joined","site":"site-2"}
{"event":"job_status","job":"4f1c","status":"RUNNING","reason":"started"}
{"event":"round_started","job":"4f1c","round":0,"rounds":20}
{"event":"site_left","site":"site-2","reason":"quit"}"#;

fn main() -> Result<(), Box<dyn Error>> {
    let (mut sites, mut running, mut round) = (BTreeSet::new(), false, None);
    for line in LINES.lines() {
        match serde_json::from_str(line)? {
            ServerEvent::SiteJoined { site } => drop(sites.insert(site)),
            ServerEvent::SiteLeft { site, .. } => drop(sites.remove(&site)),
            ServerEvent::JobStatus { status, .. } => running = status == JobStatus::Running,
            ServerEvent::RoundStarted { round: number, rounds, .. } => round = Some((number, rounds)),
            // what a dashboard does not show, and what later versions tell
            ServerEvent::Listening { .. }
            | ServerEvent::RoundFinished { .. }
            | ServerEvent::ResultSaved { .. }
            | ServerEvent::JobFinished { .. }
            | _ => {}
        }
    }
    assert_eq!(sites.into_iter().collect::<Vec<_>>(), ["site-1"]);
    assert_eq!((running, round), (true, Some((0, 20))));
    Ok(())
}
