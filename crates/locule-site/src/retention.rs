//! Run folders of jobs that are over do not stay for ever.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use locule_job::{Remains, Retention};
use locule_kit::Workspace;
use locule_launcher::disk_usage;

use crate::book::JobBook;
use crate::folder::is_run_folder;
use crate::parent::Parent;

/// How often it is looked whether folders have become too old.
const LOOK: Duration = Duration::from_secs(600);

/// Removes run folders that are kept no longer: at the start, when a job has ended, and every ten minutes.
pub(crate) async fn keep(parent: Arc<Parent>, retention: Retention) {
    loop {
        let site = Arc::clone(&parent);
        tokio::task::spawn_blocking(move || clear(&site.folders.kit, &site.book, &retention)).await.ok();
        tokio::select! {
            () = parent.job_over.notified() => {}
            () = tokio::time::sleep(LOOK) => {}
            () = parent.stop.cancelled() => return,
        }
    }
}

fn clear(kit: &Workspace, book: &JobBook, retention: &Retention) {
    for job_id in retention.surplus(remains(kit.root(), retention), SystemTime::now()) {
        // It may be about to start, or not be over yet.
        let Ok(run_dir) = kit.run_dir(&job_id) else { continue };
        let Some(_guard) = book.begin_removal(&job_id) else { continue };
        match fs::remove_dir_all(run_dir.path()) {
            Ok(()) => tracing::info!(job = job_id, "run folder was kept as long as it is to be"),
            Err(error) => tracing::warn!(job = job_id, %error, "run folder cannot be removed"),
        }
    }
}

/// The run folders in a kit, by when something was written there last.
fn remains(kit: &Path, retention: &Retention) -> Vec<Remains> {
    let entries = fs::read_dir(kit).into_iter().flatten().filter_map(Result::ok);
    let folders = entries.filter(|entry| is_run_folder(&entry.path()));
    let remains = folders.filter_map(|entry| {
        let job_id = entry.file_name().into_string().ok()?;
        let path = entry.path();
        Some(Remains {
            job_id,
            ended: last_written(&path)?,
            bytes: retention.bytes.map_or(0, |_| disk_usage(&path)),
        })
    });
    remains.collect()
}

fn last_written(run_dir: &Path) -> Option<SystemTime> {
    let within = fs::read_dir(run_dir).ok()?.filter_map(|entry| entry.ok()?.metadata().ok());
    within.chain(fs::metadata(run_dir)).filter_map(|data| data.modified().ok()).max()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::SiteResources;
    use locule_fobs::Map;
    use std::time::Instant;

    #[test]
    fn the_oldest_folders_go_but_for_those_of_jobs_that_are_here_and_whatever_else_lies_there() {
        let kit = tempfile::tempdir().unwrap();
        for (age, job) in ["newest", "promised", "held", "old", "oldest"].into_iter().enumerate() {
            let folder = kit.path().join(job);
            fs::create_dir(&folder).unwrap();
            for path in ["meta.json", "fl_app.txt", "."].map(|name| folder.join(name)) {
                if path.file_name().is_some_and(|name| name != job) {
                    fs::write(&path, "{}").unwrap();
                }
                let ended = SystemTime::now() - LOOK * age as u32;
                fs::File::open(path).unwrap().set_modified(ended).unwrap();
            }
        }
        fs::create_dir(kit.path().join("patients")).unwrap();
        let book = JobBook::new(8, SiteResources::default(), LOOK);
        let now = Instant::now();
        book.reserve("promised", &Map::new(), now).unwrap();
        let token = book.reserve("held", &Map::new(), now).unwrap();
        book.enter("held", &token, now).unwrap();

        let retention = Retention { jobs: Some(1), ..Retention::default() };
        clear(&Workspace::new(kit.path()), &book, &retention);
        let left = fs::read_dir(kit.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let mut left: Vec<_> = left.collect();
        left.sort();
        assert_eq!(left, ["held", "newest", "patients", "promised"]);
        clear(&Workspace::new(kit.path()), &book, &Retention { age: Some(LOOK), ..Retention::default() });
        assert!(kit.path().join("newest").is_dir());
        clear(
            &Workspace::new(kit.path()),
            &book,
            &Retention { age: Some(Duration::ZERO), ..Retention::default() },
        );
        assert!(!kit.path().join("newest").is_dir());
    }
}
