//! Jobs that are over do not stay for ever, if the server's operator says so.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use locule_job::Remains;
use locule_launcher::disk_usage;

use crate::server::Shared;

/// How often it is looked whether jobs have become too old.
const LOOK: Duration = Duration::from_secs(600);

/// Forgets jobs that are over and are to be kept no longer: at the start, when another has ended, and every ten minutes.
pub(crate) async fn keep(shared: Arc<Shared>) {
    loop {
        for job_id in surplus(&shared).await {
            match shared.delete(&job_id).await {
                Ok(()) => tracing::info!(job = job_id, "job is over and was kept as long as it is to be"),
                Err(error) => tracing::warn!(job = job_id, %error, "job cannot be forgotten"),
            }
        }
        tokio::select! {
            () = shared.job_over.notified() => {}
            () = tokio::time::sleep(LOOK) => {}
            () = shared.stop.cancelled() => return,
        }
    }
}

async fn surplus(shared: &Arc<Shared>) -> Vec<String> {
    let server = Arc::clone(shared);
    let work = move || {
        let retention = server.settings.retention;
        let size = |path: &Path| retention.bytes.map_or(0, |_| disk_usage(path));
        let over = server.book.records().into_iter();
        let over = over.filter(|record| record.status().is_final() && !server.is_open(&record.job_id));
        let remains = over.filter_map(|record| {
            let files = server.files(&record.job_id)?;
            Some(Remains {
                ended: UNIX_EPOCH + Duration::from_secs(record.history.last()?.time),
                bytes: size(&files.run_dir).saturating_add(size(&files.package)),
                job_id: record.job_id,
            })
        });
        retention.surplus(remains.collect(), SystemTime::now())
    };
    tokio::task::spawn_blocking(work).await.unwrap_or_default()
}
