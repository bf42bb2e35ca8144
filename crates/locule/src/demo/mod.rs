//! `locule demo`: provision, start, submit, watch, judge, report.

mod children;
mod report;
mod scene;
mod screen;
mod tasks;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context as _, anyhow};
use locule_demo::{Model, RoundPoint};
use locule_server::{JobRecord, JobStatus, ServerEvent};
use tokio::sync::mpsc;

use self::children::Children;
use self::report::{Quality, Report, SiteReport};
use self::scene::Scene;
use self::screen::{Score, Screen};
use self::tasks::Tasks;
use crate::arguments::{Carrier, Demo, Output};
use crate::exit::{Code, Failure, OrExit as _};

/// Something that happens in the demo's federation.
#[derive(Debug)]
enum Happening {
    /// The server says something.
    Server(ServerEvent),
    /// A server or a site ended.
    Ended { name: String, how: String },
}

/// Runs the demo; the exit code is 0 only if every site finished all rounds.
pub(crate) async fn run(arguments: Demo, verbose: u8) -> Result<(), Failure> {
    let scene = tokio::task::spawn_blocking({
        let arguments = arguments.clone();
        move || Scene::make(&arguments)
    })
    .await
    .or_exit(Code::Software)??;
    let quiet = arguments.output == Output::Json;
    let screen = Screen::new(&scene.site_names(), u64::from(arguments.rounds), quiet);
    let started = Instant::now();
    let (told, mut happenings) = mpsc::channel(64);
    let federation = Federation::start(&scene, arguments.transport, verbose, told).await?;
    let mut course = Course::new(&scene, &screen);
    let outcome = tokio::select! {
        outcome = course.follow(&mut happenings) => outcome,
        _ = tokio::signal::ctrl_c() => Err(Failure::new(Code::Interrupted, anyhow!("interrupted"))),
    };
    drop(happenings);
    federation.stop().await;
    screen.finish();
    if outcome.is_err() {
        screen.clear();
    }
    let record = outcome?;
    let report = course.report(&record, &arguments, started.elapsed().as_secs_f64()).or_exit(Code::CannotCreate)?;
    print(&report, arguments.output);
    verdict(&record, &scene, u64::from(arguments.rounds))
}

/// The server and the sites, as processes or as tasks.
#[derive(Debug)]
enum Federation {
    Processes(Children),
    Tasks(Tasks),
}

impl Federation {
    async fn start(
        scene: &Scene,
        carrier: Carrier,
        verbose: u8,
        told: mpsc::Sender<Happening>,
    ) -> Result<Self, Failure> {
        match carrier {
            Carrier::Grpc => {
                let mut children = Children::new(told, &scene.logs);
                let verbosity = "v".repeat(verbose.into());
                let verbosity = if verbose == 0 { "--stop-with-stdin".into() } else { format!("-{verbosity}") };
                let text = |path: &PathBuf| path.display().to_string();
                let server = [
                    "server",
                    &text(&scene.server),
                    "--job",
                    &text(&scene.job),
                    "--output",
                    "json",
                    "--stop-with-stdin",
                    &verbosity,
                ]
                .map(str::to_owned);
                children.start("server", &dedup(&server)).or_exit(Code::Unavailable)?;
                for (name, kit) in &scene.sites {
                    let site = ["site", &text(kit), "--stop-with-stdin", &verbosity].map(str::to_owned);
                    children.start(name, &dedup(&site)).or_exit(Code::Unavailable)?;
                }
                Ok(Self::Processes(children))
            }
            Carrier::Mem => Ok(Self::Tasks(Tasks::start(scene, told).await?)),
        }
    }

    async fn stop(self) {
        match self {
            Self::Processes(children) => children.stop().await,
            Self::Tasks(tasks) => tasks.stop().await,
        }
    }
}
