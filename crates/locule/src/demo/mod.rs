//! `locule demo`: provision, start, submit, watch, judge, report.

mod children;
mod course;
mod report;
mod scene;
mod screen;

use std::io::Write as _;

use anyhow::anyhow;
use locule_server::JobRecord;
use tokio::sync::mpsc;

use self::children::Children;
use self::course::Course;
use self::scene::Scene;
use self::screen::Screen;
use crate::arguments::{Carrier, Demo, Output};
use crate::exit::{Code, Failure, OrExit as _};
use crate::federation::{self, Happening};
use crate::wire::SiteChoices;
use crate::{commands, logs, stop};

/// Happenings that may wait to be seen.
const HAPPENINGS: usize = 256;

/// Runs the demo; the exit code is 0 only if every site finished all rounds.
pub(crate) async fn run(arguments: Demo, verbose: u8) -> Result<(), Failure> {
    let scene = make_scene(&arguments).await?;
    start_logs(arguments.transport, &scene, verbose)?;
    let screen = Screen::new(&scene.site_names(), u64::from(arguments.rounds));
    let (told, mut happenings) = mpsc::channel(HAPPENINGS);
    let mut federation = Federation::new(arguments.transport, &scene, verbose, told);
    let mut course = Course::begin(&scene, &screen);
    let ended = tokio::select! {
        ended = course.follow(&mut federation, &mut happenings) => ended,
        () = stop::asked(false) => Err(Failure::interrupted()),
    };
    drop(happenings);
    federation.stop().await;
    match ended {
        Ok(record) => {
            screen.finish();
            show(course.report(&record, &arguments)?, arguments.output);
            verdict(&record, u64::from(arguments.rounds))
        }
        Err(failure) => {
            screen.clear();
            Err(failure)
        }
    }
}

async fn make_scene(arguments: &Demo) -> Result<Scene, Failure> {
    let arguments = arguments.clone();
    tokio::task::spawn_blocking(move || Scene::make(&arguments)).await.or_exit(Code::Software)?
}

/// Where everything runs in this process, so do its logs go to the folder of logs.
fn start_logs(carrier: Carrier, scene: &Scene, verbose: u8) -> Result<(), Failure> {
    match carrier {
        Carrier::Grpc | Carrier::Tcp | Carrier::Http | Carrier::Nats | Carrier::Uds => {
            logs::to_stderr(logs::Default::Warn, verbose)
        }
        Carrier::Mem => logs::to_file(&scene.logs.join("demo.log"), logs::Default::Info, verbose)?,
    }
    Ok(())
}

fn show(report: report::Report, output: Output) {
    let text = match output {
        Output::Text => report.text(),
        Output::Json => report.json(),
    };
    // Who reads may have gone; the exit code still says how it ended.
    writeln!(std::io::stdout(), "{text}").ok();
}

/// The job must be done, and all of it.
fn verdict(record: &JobRecord, rounds: u64) -> Result<(), Failure> {
    match commands::why_not_done(record) {
        Some(failure) => Err(failure),
        None if record.rounds_done < rounds => {
            let error = anyhow!("only {} of {rounds} rounds were done", record.rounds_done);
            Err(Failure::new(Code::JobFailed, error))
        }
        None => Ok(()),
    }
}

/// The server and the sites, as processes or as tasks.
#[derive(Debug)]
enum Federation {
    Processes(Children),
    Tasks(federation::Federation),
}

impl Federation {
    /// Nothing runs yet.
    fn new(carrier: Carrier, scene: &Scene, verbose: u8, told: mpsc::Sender<Happening>) -> Self {
        if carrier == Carrier::Mem {
            return Self::Tasks(federation::Federation::new(told));
        }
        Self::Processes(Children::new(told, &scene.logs, verbose))
    }

    /// Starts the server, which says so by a happening when it listens.
    async fn start_server(&mut self, scene: &Scene) -> Result<(), Failure> {
        match self {
            Self::Processes(children) => {
                let job = scene.job.display().to_string();
                let more = ["--job", &job, "--output", "json"];
                children.start("server", "server", &scene.server, &more).or_exit(Code::Unavailable)
            }
            Self::Tasks(tasks) => tasks.start_server(&scene.server, &scene.job, None).await,
        }
    }

    async fn start_sites(&mut self, scene: &Scene) -> Result<(), Failure> {
        for (name, kit) in &scene.sites {
            match self {
                Self::Processes(children) => {
                    children.start(name, "site", kit, &[]).or_exit(Code::Unavailable)?
                }
                Self::Tasks(tasks) => tasks.start_site(name, kit, SiteChoices::default()).await?,
            }
        }
        Ok(())
    }

    /// Stops the sites and the server, and waits until they are gone.
    async fn stop(self) {
        match self {
            Self::Processes(children) => children.stop().await,
            Self::Tasks(tasks) => tasks.stop().await,
        }
    }
}
