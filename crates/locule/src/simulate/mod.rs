//! `locule simulate`: a job on one machine, with every site a task of this process.
//!
//! The server, the sites, the job's way to them and their results are those of a federation; what is skipped is what
//! has no meaning in one process: TLS, a private key for each, processes of jobs, and the confinement of scripts.

mod course;
mod picture;
mod report;
mod scene;
mod screen;

use std::num::NonZeroUsize;

use anyhow::anyhow;
use locule_component::Seed;
use locule_site::Turns;
use tokio::sync::mpsc;

use self::course::Course;
use self::report::Report;
use self::scene::Scene;
use self::screen::Screen;
use crate::arguments::{Output, Simulate};
use crate::exit::{Code, Failure, OrExit as _};
use crate::federation::Federation;
use crate::{commands, logs, stop};

/// Happenings that may wait to be seen.
const HAPPENINGS: usize = 1024;

/// Runs the simulation; the exit code is 0 only if the job completed and no site failed.
pub(crate) async fn run(arguments: Simulate, verbose: u8) -> Result<(), Failure> {
    let at_once = arguments.threads.or_else(|| std::thread::available_parallelism().ok());
    let turns = Turns::new(at_once.unwrap_or(NonZeroUsize::MIN));
    let made = {
        let arguments = arguments.clone();
        tokio::task::spawn_blocking(move || Scene::make(&arguments))
    };
    let mut scene = made.await.or_exit(Code::Software)??;
    logs::to_file(&scene.log, logs::Default::Info, verbose)?;
    let screen = Screen::new(scene.sites.len(), turns.clone());
    let (told, mut happenings) = mpsc::channel(HAPPENINGS);
    let mut federation = Federation::new(told);
    let mut course = Course::begin(&scene, &screen, turns, Seed(arguments.seed));
    let ended = tokio::select! {
        ended = course.follow(&mut federation, &mut happenings) => ended,
        () = stop::asked(false) => Err(Failure::interrupted()),
    };
    drop(happenings);
    federation.stop().await;
    screen.finish();
    let seen = course.seen();
    match ended {
        Ok(record) => {
            scene.clear_up(&record.job_id)?;
            scene.folder.keep();
            let report = Report::of(&scene, &record, &seen, arguments.seed)?;
            commands::say(&match arguments.output {
                Output::Text => report.text(),
                Output::Json => report.json(),
            });
            match (commands::why_not_done(&record), report.failures.len()) {
                (Some(failure), _) => Err(failure),
                (None, 0) => Ok(()),
                (None, failed) => {
                    let error = anyhow!("the job completed, but {failed} result(s) of sites were not usable");
                    Err(Failure::new(Code::JobFailed, error))
                }
            }
        }
        Err(failure) => {
            scene.remove_kits()?;
            if failure.code != Code::Interrupted {
                scene.folder.keep();
                screen.note(&format!("log  {}", scene.folder.path().join("simulate.log").display()));
            }
            Err(failure)
        }
    }
}
