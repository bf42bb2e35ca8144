//! What the demo has to say at its end, for a person and for a script.

use std::path::PathBuf;

use comfy_table::{CellAlignment, Table};
use locule_demo::Judgement;
use locule_protocol::Refusal;
use serde::Serialize;

use crate::table;

/// The demo's result; with `--output json` this is all that standard output gets.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// Rounds that were aggregated.
    pub(super) rounds: u64,
    pub(super) transport: &'static str,
    /// The federation's model on the held-out rows; absent if there is none.
    pub(super) federated: Option<Quality>,
    /// A model of all rows in one place, with the same trainer and budget.
    pub(super) pooled: Quality,
    pub(super) sites: Vec<SiteReport>,
    pub(super) refusals: Vec<Refusal>,
    /// Bytes over the server's links to the sites, in and out.
    pub(super) bytes_moved: u64,
    /// From the start of the processes to the end of the job.
    pub(super) seconds: f64,
    pub(super) dir: PathBuf,
    #[serde(skip)]
    pub(super) status: String,
    #[serde(skip)]
    pub(super) model: Option<PathBuf>,
    #[serde(skip)]
    pub(super) plot: Option<PathBuf>,
    #[serde(skip)]
    pub(super) logs: PathBuf,
}

/// How well a model tells malignant from benign on the held-out rows.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Quality {
    /// Area under the ROC curve, 0–1.
    pub(super) auc: f64,
    /// Share of right answers at probability one half, 0–1.
    pub(super) accuracy: f64,
}

impl From<Judgement> for Quality {
    fn from(Judgement { auc, accuracy, .. }: Judgement) -> Self {
        Self { auc, accuracy }
    }
}

/// What a site would reach alone.
#[derive(Debug, Serialize)]
pub(super) struct SiteReport {
    pub(super) name: String,
    /// Rows that it trains on.
    pub(super) samples: usize,
    #[serde(flatten)]
    pub(super) alone: Quality,
}

impl Report {
    /// One JSON object.
    pub(super) fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a report has only text keys and finite numbers")
    }

    /// Tables and places, for a person.
    pub(super) fn text(&self) -> String {
        let mut text = self.table().to_string();
        text.push_str(&format!(
            "\n\n{}: {} rounds over {}, {} moved, {:.1} s\n",
            self.status,
            self.rounds,
            self.transport,
            bytes(self.bytes_moved),
            self.seconds
        ));
        for (what, place) in
            [("model", &self.model), ("plot", &self.plot), ("logs", &Some(self.logs.clone()))]
        {
            if let Some(place) = place {
                text.push_str(&format!("  {what:5}  {}\n", place.display()));
            }
        }
        for refusal in &self.refusals {
            text.push_str(&format!(
                "\n{} refused component `{}`\n  at      {} of {}\n  code    {}\n  reason  {}\n",
                refusal.site, refusal.component, refusal.path, refusal.file, refusal.code, refusal.reason
            ));
        }
        text
    }

    fn table(&self) -> Table {
        let mut table = table::with_head(["trained on", "rows", "AUC", "accuracy"]);
        let row = |name: &str, rows: usize, quality: Quality| {
            [
                name.to_owned(),
                rows.to_string(),
                format!("{:.4}", quality.auc),
                format!("{:.4}", quality.accuracy),
            ]
        };
        let rows: usize = self.sites.iter().map(|site| site.samples).sum();
        for site in &self.sites {
            table.add_row(row(&format!("{} alone", site.name), site.samples, site.alone));
        }
        if let Some(federated) = self.federated {
            table.add_row(row("the federation", rows, federated));
        }
        table.add_row(row("all rows in one place", rows, self.pooled));
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table
    }
}

fn bytes(count: u64) -> String {
    match count {
        0..1_000 => format!("{count} B"),
        1_000..1_000_000 => format!("{:.1} kB", count as f64 / 1e3),
        _ => format!("{:.1} MB", count as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let quality = Quality { auc: 0.99, accuracy: 0.95 };
        Report {
            rounds: 2,
            transport: "grpc",
            federated: Some(quality),
            pooled: quality,
            sites: vec![SiteReport { name: "site-1".into(), samples: 300, alone: quality }],
            refusals: Vec::new(),
            bytes_moved: 1_234_567,
            seconds: 1.25,
            dir: PathBuf::from("fed"),
            status: "FINISHED:COMPLETED".into(),
            model: Some(PathBuf::from("fed/model.npz")),
            plot: None,
            logs: PathBuf::from("fed/logs"),
        }
    }

    #[test]
    fn a_script_gets_these_keys_and_no_others() {
        let json: serde_json::Value = serde_json::from_str(&report().json()).unwrap();
        let keys: Vec<&str> = json.as_object().unwrap().keys().map(String::as_str).collect();
        let promised = [
            "rounds",
            "transport",
            "federated",
            "pooled",
            "sites",
            "refusals",
            "bytes_moved",
            "seconds",
            "dir",
        ];
        assert_eq!(keys, promised);
        assert_eq!(json["sites"][0]["auc"], 0.99);
    }

    #[test]
    fn a_person_reads_the_table_and_where_things_are() {
        let text = report().text();
        for part in
            ["site-1 alone", "the federation", "0.9900", "1.2 MB moved, 1.2 s", "fed/model.npz", "fed/logs"]
        {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
        assert!(!text.contains("plot"), "{text}");
    }

    #[test]
    fn a_person_reads_every_refusal_with_its_place() {
        let refusal = Refusal {
            site: "site-2".into(),
            component: "locule.demo.LogisticRegression".into(),
            file: "config_fed_client.json".into(),
            path: "executors.#1.executor".into(),
            code: "not-agreed".into(),
            reason: "not agreed".into(),
        };
        let text = Report { refusals: vec![refusal], federated: None, ..report() }.text();
        assert!(text.contains("executors.#1.executor of config_fed_client.json"), "{text}");
        assert!(!text.contains("the federation"), "{text}");
    }
}
