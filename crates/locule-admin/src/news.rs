//! What is known of jobs beyond their records: how far they are.

use std::collections::{BTreeMap, VecDeque};

use locule_server::{LastTracked, ServerEvent};
use serde_json::{Value, json};

/// Jobs of which something is kept; the oldest are forgotten.
const JOBS: usize = 1_024;

/// Sites whose metrics are kept, of one job.
const SITES: usize = 1_000;

/// Metrics that are kept, of one site.
const METRICS: usize = 64;

/// What is known of each job since the server started.
#[derive(Debug, Default)]
pub(crate) struct News {
    jobs: BTreeMap<String, JobNews>,
    in_order: VecDeque<String>,
}

/// What is known of a job. It is gone with the process; what must stay is in the job's record.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct JobNews {
    round: Option<u64>,
    rounds: Option<u64>,
    /// Each site's own metrics of the last round that was aggregated.
    metrics: Vec<(String, Vec<(String, f64)>)>,
    /// What it had moved when its last round ended, in bytes.
    moved: Option<u64>,
}

impl News {
    /// Takes an event in.
    pub(crate) fn hear(&mut self, event: &ServerEvent) {
        match event {
            ServerEvent::RoundStarted { job, round, rounds } => {
                let news = self.at(job);
                (news.round, news.rounds) = (Some(*round), Some(*rounds));
            }
            ServerEvent::RoundFinished { job, rounds, sites, bytes_moved, .. } => {
                let news = self.at(job);
                news.rounds = Some(*rounds);
                let few = |(site, metrics): &(String, Vec<(String, f64)>)| {
                    (site.clone(), metrics.iter().take(METRICS).cloned().collect())
                };
                news.metrics = sites.iter().take(SITES).map(few).collect();
                news.moved = Some(*bytes_moved);
            }
            ServerEvent::Listening { .. }
            | ServerEvent::SiteJoined { .. }
            | ServerEvent::SiteLeft { .. }
            | ServerEvent::JobStatus { .. }
            | ServerEvent::JobRestarted { .. }
            | ServerEvent::JobWaits { .. }
            | ServerEvent::ResultSaved { .. }
            | ServerEvent::JobFinished { .. }
            | _ => {}
        }
    }

    /// What is known of a job.
    pub(crate) fn of(&self, job: &str) -> JobNews {
        self.jobs.get(job).cloned().unwrap_or_default()
    }

    fn at(&mut self, job: &str) -> &mut JobNews {
        if !self.jobs.contains_key(job) {
            if self.in_order.len() >= JOBS
                && let Some(oldest) = self.in_order.pop_front()
            {
                self.jobs.remove(&oldest);
            }
            self.in_order.push_back(job.to_owned());
        }
        self.jobs.entry(job.to_owned()).or_default()
    }
}

impl JobNews {
    /// How far the job is, as consoles are told, with the last numbers that are kept of its sites.
    pub(crate) fn progress(
        &self,
        rounds_done: u64,
        LastTracked { round, tracked, .. }: &LastTracked,
    ) -> Value {
        let last = |of: &BTreeMap<String, BTreeMap<String, f64>>| -> Vec<Value> {
            let sites = of.iter().take(SITES).map(|(site, numbers)| {
                let finite = numbers.iter().filter(|(_, number)| number.is_finite());
                json!({ "site": site, "metrics": finite.take(METRICS).collect::<Vec<_>>() })
            });
            sites.collect()
        };
        let news = self.metrics.iter().map(|(site, metrics)| json!({ "site": site, "metrics": metrics }));
        // A server that was started again since knows what is kept.
        let metrics = if self.metrics.is_empty() { last(round) } else { news.collect() };
        json!({
            "round": self.round,
            "rounds": self.rounds,
            "rounds_done": rounds_done,
            "metrics": metrics,
            "tracked": last(tracked),
            "bytes_moved": self.moved,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn started(job: &str) -> ServerEvent {
        ServerEvent::RoundStarted { job: job.into(), round: 0, rounds: 2 }
    }

    #[test]
    fn a_job_is_known_from_what_the_server_tells() {
        let mut news = News::default();
        news.hear(&started("a"));
        let done = ServerEvent::RoundFinished {
            job: "a".into(),
            round: 0,
            rounds: 2,
            sites: vec![("site-1".into(), vec![("loss".into(), 0.5)])],
            model: PathBuf::new(),
            bytes_moved: 350,
        };
        news.hear(&done);
        let kept = |key: &str| BTreeMap::from([("site-2".into(), BTreeMap::from([(key.into(), 0.1)]))]);
        let mut last = LastTracked::default();
        (last.round, last.tracked) = (kept("loss"), kept("lr"));
        let progress = news.of("a").progress(1, &last);
        assert_eq!(progress["tracked"], json!([{ "site": "site-2", "metrics": [["lr", 0.1]] }]));
        assert_eq!((&progress["bytes_moved"], &progress["rounds"]), (&json!(350), &json!(2)));
        assert_eq!(progress["metrics"], json!([{ "site": "site-1", "metrics": [["loss", 0.5]] }]));
        assert_eq!(news.of("b"), JobNews::default());
        let since_a_restart = news.of("b").progress(1, &last);
        assert_eq!(since_a_restart["metrics"], json!([{ "site": "site-2", "metrics": [["loss", 0.1]] }]));
    }

    #[test]
    fn the_oldest_jobs_are_forgotten() {
        let mut news = News::default();
        for job in 0..=JOBS {
            news.hear(&started(&job.to_string()));
        }
        assert_eq!((news.jobs.len(), news.in_order.len()), (JOBS, JOBS));
        assert_eq!(news.of("0"), JobNews::default());
    }
}
