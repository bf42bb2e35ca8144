//! A scheduler of one's own: jobs are started, watched and ended through one seam.

use std::error::Error;
use std::time::Duration;

use locule_launcher::{JobOutcome, JobStart, Launcher as _, TaskLauncher};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let launcher = TaskLauncher::new(|start: JobStart, abort| async move {
        if start.job_id == "endless" {
            abort.cancelled().await;
        }
        Ok(())
    });
    let start = |id: &str| launcher.start(JobStart::new(id, format!("site-1.{id}"), "run", "mem://site-1"));
    assert_eq!(start("short")?.wait().await, JobOutcome::Completed);
    assert_eq!(start("endless")?.abort(Duration::from_secs(10)).await, JobOutcome::Aborted);
    Ok(())
}
