//! The demo's job without a network: real configuration, real executors, real workflows.

#![expect(clippy::unwrap_used, reason = "a test stops where something is not as it must be")]

use std::path::Path;

use locule_component::{Assembled, BuildCx, ConstructionCount, Plan, Registry, Side};
use locule_config::Document;
use locule_demo::{
    DataSet, DemoJob, Judgement, MAX_SITES, Model, Split, Training, train_alone, train_pooled, write_job,
};
use locule_workflow::LocalBoard;

fn registry() -> Registry {
    let mut registry = Registry::new();
    locule_workflow::register(&mut registry);
    locule_demo::register(&mut registry);
    registry
}

/// One half of the job that lies in `job`, as its site or server would build it.
fn build(job: &Path, side: Side, site: &str, kit: &Path) -> Assembled {
    let name = match side {
        Side::Server => "config_fed_server.json",
        Side::Site => "config_fed_client.json",
    };
    let text = std::fs::read_to_string(job.join("app/config").join(name)).unwrap();
    let registry = registry();
    let document = Document::parse_json(name, &text).unwrap();
    let plan =
        Plan::from_document(&document, side, &registry).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let count = ConstructionCount::new();
    let app = job.join("app");
    let cx = BuildCx::new(side, site, "job", kit, &app, &count);
    plan.approve(Vec::new()).unwrap().build(&registry, &cx).unwrap()
}

struct Federation {
    split: Split,
    job: DemoJob,
    folder: tempfile::TempDir,
}

impl Federation {
    /// Splits the data, writes every site's rows into its kit, runs the job.
    fn run(seed: u64, sites: usize) -> Federation {
        let folder = tempfile::tempdir().unwrap();
        let split = DataSet::wisconsin().split(seed, sites).unwrap();
        let job = DemoJob { sites, training: Training { seed, ..Training::default() }, ..DemoJob::default() };
        let job_dir = folder.path().join("job");
        write_job(&job_dir, &job).unwrap();

        let mut board = LocalBoard::new(folder.path().join("run"));
        for (index, rows) in split.sites.iter().enumerate() {
            let site = site_name(index);
            let kit = folder.path().join(&site);
            std::fs::create_dir(&kit).unwrap();
            rows.write_csv(&kit.join("data.csv")).unwrap();
            board.add_site_with(&site, build(&job_dir, Side::Site, &site, &kit).executors);
        }
        for (_, mut workflow) in build(&job_dir, Side::Server, "server", folder.path()).workflows {
            board.run(&mut *workflow).unwrap();
        }
        Federation { split, job, folder }
    }

    fn judge(&self, model: &str) -> Judgement {
        let models = self.folder.path().join("run/models");
        Model::read(&models.join(model), &models.join("standardisation.npz"))
            .unwrap()
            .judge(&self.split.held_out)
    }

    fn pooled(&self) -> Judgement {
        train_pooled(&self.split, &self.job.training, self.job.rounds).judge(&self.split.held_out)
    }

    fn alone(&self) -> Vec<Judgement> {
        let train = |(index, rows)| train_alone(&site_name(index), rows, &self.job.training, self.job.rounds);
        self.split
            .sites
            .iter()
            .enumerate()
            .map(train)
            .map(|model| model.judge(&self.split.held_out))
            .collect()
    }
}

fn site_name(index: usize) -> String {
    format!("site-{}", index + 1)
}

#[test]
fn federated_averaging_comes_close_to_all_data_in_one_place_and_beats_the_worst_site() {
    for seed in 0..12 {
        let federation = Federation::run(seed, 3);
        let (federated, pooled) = (federation.judge("global.npz"), federation.pooled());
        assert!((federated.auc - pooled.auc).abs() < 0.01, "seed {seed}: {federated:?}, pooled {pooled:?}");
        let worst = federation.alone().iter().map(|alone| alone.auc).fold(1.0, f64::min);
        assert!(federated.auc > worst, "seed {seed}: {federated:?}, worst site alone {worst}");
    }
}

#[test]
fn ten_sites_come_as_close_as_three() {
    let federation = Federation::run(1, MAX_SITES);
    let (federated, pooled) = (federation.judge("global.npz"), federation.pooled());
    assert!((federated.auc - pooled.auc).abs() < 0.01, "{federated:?}, pooled {pooled:?}");
    let mut alone: Vec<f64> = federation.alone().iter().map(|alone| alone.auc).collect();
    alone.sort_by(f64::total_cmp);
    assert!(federated.auc > alone[5], "better than most sites alone: {federated:?}, {alone:?}");
}

#[test]
fn one_site_alone_learns_as_if_there_were_no_federation() {
    let federation = Federation::run(1, 1);
    let (federated, alone) = (federation.judge("global.npz"), federation.alone()[0]);
    assert!((federated.loss - alone.loss).abs() < 1e-9, "{federated:?}, alone {alone:?}");
}

#[test]
fn the_loss_falls_from_round_to_round() {
    let federation = Federation::run(1, 3);
    let losses: Vec<f64> =
        (1..=20).map(|round| federation.judge(&format!("round-{round:04}.npz")).loss).collect();
    assert!(losses.windows(2).all(|pair| pair[1] < pair[0] + 0.005), "{losses:?}");
    assert!(losses[0] < std::f64::consts::LN_2 && losses[19] < 0.5 * losses[0], "{losses:?}");
}

#[test]
fn the_same_seed_gives_the_same_model_bit_for_bit() {
    let model = || {
        let federation = Federation::run(3, 3);
        std::fs::read(federation.folder.path().join("run/models/global.npz")).unwrap()
    };
    assert_eq!(model(), model());
}

#[test]
fn rows_lie_in_their_sites_kit_and_nowhere_else() {
    let federation = Federation::run(1, 3);
    let mut files = Vec::new();
    let mut folders = vec![federation.folder.path().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { &mut folders } else { &mut files }.push(path);
        }
    }
    let is_table = |path: &&std::path::PathBuf| {
        path.extension().is_some_and(|e| e == "csv") && !path.ends_with("metrics.csv") // numbers of rounds
    };
    let with_rows: Vec<_> = files.iter().filter(is_table).collect();
    assert_eq!(with_rows.len(), 3);
    for (index, rows) in federation.split.sites.iter().enumerate() {
        let own = federation.folder.path().join(site_name(index)).join("data.csv");
        assert_eq!(locule_demo::Rows::read_csv(&own).unwrap(), *rows);
        let line = format!("{}", rows.features(0)[0]);
        let meta = std::fs::read_to_string(federation.folder.path().join("job/meta.json")).unwrap();
        assert!(!meta.contains(&line));
    }
}
