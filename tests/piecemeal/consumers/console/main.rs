//! How long a job will still take, from what a server tells of it.

use std::error::Error;
use std::time::{Duration, SystemTime};

use locule_console::{Job, cell_name};
use serde_json::json;

fn main() -> Result<(), Box<dyn Error>> {
    let told = json!({
        "job_id": "3e2d9f0e-1111-4222-8333-444455556666", "name": "sum", "status": "RUNNING",
        "status_history": [{ "status": "RUNNING", "time": 1_000, "reason": "started" }],
        "progress": { "round": 2, "rounds": 10, "rounds_done": 2 },
    });
    let job = Job::from_meta(told.as_object().ok_or("a map")?);
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_060);
    assert_eq!(job.elapsed(now), Some(Duration::from_secs(60)));
    assert_eq!(job.estimated_rest(now), Some(Duration::from_secs(240)));
    assert!(cell_name().as_str().starts_with("_admin_"));
    Ok(())
}
