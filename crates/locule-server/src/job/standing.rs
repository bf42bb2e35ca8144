//! The tasks of a job as a state machine: who has which, who answered, what may be folded next.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use locule_component::OutgoingTask;
use locule_fobs::Shareable;

/// How many settled task ids are remembered, so that a repeated submission gets its `ok` again.
const REMEMBERED: usize = 4096;

/// What a site is told when it asks for a task.
#[derive(Debug, Clone)]
pub(super) enum Assigned {
    /// This task; a site that asks again before it answered gets the same.
    Task { id: String, name: String, data: Shareable, round: Option<u64> },
    /// Nothing for this site now.
    Nothing,
    /// The run is over.
    EndRun,
}

/// What became of a submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Submitted {
    /// It will be folded.
    Accepted,
    /// It had been submitted before; the first one counts.
    Repeated,
    /// Nobody waits for it any more.
    Late,
    /// No such task was given to this site.
    Unknown,
}

/// What the owner of the standing task has to do next.
#[derive(Debug)]
pub(super) enum Step {
    /// Fold this result, then say whether it was usable.
    Fold { site: String, result: Box<Shareable> },
    /// Nothing until something changes, or until this time.
    Wait(Option<Instant>),
    /// Every site is settled.
    Done { accepted: Vec<String>, missing: Vec<(String, String)> },
}

/// The tasks of one job. One task stands at a time.
#[derive(Debug)]
pub(super) struct Tasks {
    sites: Vec<String>,
    lost: BTreeMap<String, String>,
    standing: Option<Standing>,
    settled: VecDeque<(String, String)>,
    ended: bool,
    late: u64,
}

#[derive(Debug)]
struct Standing {
    task: OutgoingTask,
    parts: Vec<Part>,
    /// When the sites that have not answered are given up.
    deadline: Option<Instant>,
}

impl Standing {
    /// Whether as many sites answered as the task needs to start its grace period.
    fn has_enough(&self) -> bool {
        let answered = self.parts.iter().filter(|part| {
            matches!(part.state, PartState::Answered(_) | PartState::Folding | PartState::Accepted)
        });
        self.task.min_results > 0 && answered.count() >= self.task.min_results
    }
}

/// One site's part in the standing task.
#[derive(Debug)]
struct Part {
    site: String,
    id: String,
    state: PartState,
}

#[derive(Debug)]
enum PartState {
    Open,
    Answered(Box<Shareable>),
    Folding,
    Accepted,
    Missing(String),
}

impl Tasks {
    /// No task yet for these sites, in site order.
    pub(super) fn new(sites: Vec<String>) -> Self {
        let (lost, settled) = (BTreeMap::new(), VecDeque::new());
        Self { sites, lost, standing: None, settled, ended: false, late: 0 }
    }

    pub(super) fn sites(&self) -> &[String] {
        &self.sites
    }

    /// Submissions that nobody waited for.
    pub(super) fn late(&self) -> u64 {
        self.late
    }

    /// Puts a task up for its sites; `ids` gives each its own id. Sites that are lost are settled at once.
    pub(super) fn put_up(&mut self, task: OutgoingTask, mut ids: impl FnMut() -> String) {
        let part = |site: &String| {
            let state = match self.lost.get(site) {
                Some(reason) => PartState::Missing(reason.clone()),
                None => PartState::Open,
            };
            Part { site: site.clone(), id: ids(), state }
        };
        let parts = self.sites.iter().filter(|site| task.is_for(site)).map(part).collect();
        self.standing = Some(Standing { task, parts, deadline: None });
    }

    /// Takes the standing task down, whatever is still open.
    pub(super) fn take_down(&mut self) {
        if let Some(standing) = self.standing.take() {
            for part in standing.parts {
                self.remember(part.site, part.id);
            }
        }
    }

    /// What `site` should do now.
    pub(super) fn assign(&mut self, site: &str) -> Assigned {
        if self.ended {
            return Assigned::EndRun;
        }
        let part = self.standing.as_ref().and_then(|standing| {
            let open = |part: &&Part| part.site == site && matches!(part.state, PartState::Open);
            standing.parts.iter().find(open).map(|part| (part, &standing.task))
        });
        match part {
            Some((part, task)) => Assigned::Task {
                id: part.id.clone(),
                name: task.name.clone(),
                data: task.data.clone(),
                round: task.round,
            },
            None => Assigned::Nothing,
        }
    }

    /// Whether a result of this task from this site is still wanted.
    pub(super) fn wants(&self, site: &str, id: &str) -> bool {
        let Some(standing) = &self.standing else { return false };
        standing.parts.iter().any(|p| p.site == site && p.id == id && matches!(p.state, PartState::Open))
    }

    /// Takes a result in. `now` starts the grace period once enough sites have answered.
    pub(super) fn submit(&mut self, site: &str, id: &str, result: Shareable, now: Instant) -> Submitted {
        let standing = self.standing.as_mut();
        let part = standing.and_then(|s| s.parts.iter_mut().find(|part| part.site == site && part.id == id));
        let Some(part) = part else {
            let known = self.settled.iter().any(|(who, which)| who == site && which == id);
            self.late += u64::from(known);
            return if known { Submitted::Late } else { Submitted::Unknown };
        };
        match part.state {
            PartState::Open => part.state = PartState::Answered(Box::new(result)),
            PartState::Answered(_) | PartState::Folding | PartState::Accepted => return Submitted::Repeated,
            PartState::Missing(_) => {
                self.late += 1;
                return Submitted::Late;
            }
        }
        self.start_grace(now);
        Submitted::Accepted
    }

    fn start_grace(&mut self, now: Instant) {
        let Some(standing) = &mut self.standing else { return };
        if standing.has_enough() && standing.deadline.is_none() {
            standing.deadline = now.checked_add(standing.task.grace);
        }
    }

    /// A site will not answer any more: its part of the standing task and of later ones is missing.
    pub(super) fn lose(&mut self, site: &str, reason: &str) {
        self.lost.insert(site.to_owned(), reason.to_owned());
        for part in self.standing.iter_mut().flat_map(|standing| &mut standing.parts) {
            if part.site == site && matches!(part.state, PartState::Open) {
                part.state = PartState::Missing(reason.to_owned());
            }
        }
    }

    /// A lost site is back: it takes part in later tasks.
    pub(super) fn find_again(&mut self, site: &str) -> bool {
        self.lost.remove(site).is_some()
    }

    /// What to do next for the standing task. Results are handed out in site order: the next one only
    /// when every site before it is settled, so that sums do not depend on who was faster.
    pub(super) fn step(&mut self, now: Instant) -> Step {
        let Some(standing) = &mut self.standing else {
            return Step::Done { accepted: Vec::new(), missing: Vec::new() };
        };
        let expired = standing.deadline.is_some_and(|deadline| deadline <= now);
        for part in &mut standing.parts {
            match &mut part.state {
                PartState::Accepted | PartState::Missing(_) => {}
                PartState::Folding => return Step::Wait(None),
                PartState::Open if expired => {
                    part.state = PartState::Missing("no answer in time".to_owned());
                }
                PartState::Open => return Step::Wait(standing.deadline),
                PartState::Answered(result) => {
                    let result = std::mem::take(result);
                    part.state = PartState::Folding;
                    return Step::Fold { site: part.site.clone(), result };
                }
            }
        }
        let mut accepted = Vec::new();
        let mut missing = Vec::new();
        for part in &standing.parts {
            match &part.state {
                PartState::Missing(reason) => missing.push((part.site.clone(), reason.clone())),
                PartState::Open | PartState::Answered(_) | PartState::Folding | PartState::Accepted => {
                    accepted.push(part.site.clone());
                }
            }
        }
        Step::Done { accepted, missing }
    }

    /// Says what folding a site's result came to. An unusable one may end the grace period again.
    pub(super) fn folded(&mut self, site: &str, outcome: Result<(), String>) {
        let Some(standing) = &mut self.standing else { return };
        let folding = |part: &&mut Part| part.site == site && matches!(part.state, PartState::Folding);
        if let Some(part) = standing.parts.iter_mut().find(folding) {
            part.state = match outcome {
                Ok(()) => PartState::Accepted,
                Err(reason) => PartState::Missing(reason),
            };
        }
        if !standing.has_enough() {
            standing.deadline = None;
        }
    }

    /// From now on every site is told that the run is over.
    pub(super) fn end(&mut self) {
        self.take_down();
        self.ended = true;
    }

    /// Sites that are not lost.
    pub(super) fn present(&self) -> BTreeSet<&str> {
        self.sites.iter().map(String::as_str).filter(|site| !self.lost.contains_key(*site)).collect()
    }

    fn remember(&mut self, site: String, id: String) {
        if self.settled.len() == REMEMBERED {
            self.settled.pop_front();
        }
        self.settled.push_back((site, id));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn task(min_results: usize, grace: Duration) -> OutgoingTask {
        let (data, sites) = (Shareable::default(), Vec::new());
        OutgoingTask { name: "train".into(), data, sites, min_results, grace, round: Some(0) }
    }

    fn tasks(min_results: usize) -> Tasks {
        let mut tasks = Tasks::new(["a", "b", "c"].map(str::to_owned).to_vec());
        let mut next = 0;
        tasks.put_up(task(min_results, Duration::from_secs(5)), || {
            next += 1;
            format!("id-{next}")
        });
        tasks
    }

    fn id_of(tasks: &mut Tasks, site: &str) -> String {
        match tasks.assign(site) {
            Assigned::Task { id, .. } => id,
            other @ (Assigned::Nothing | Assigned::EndRun) => panic!("{site} got {other:?}"),
        }
    }

    /// Folds what can be folded; the sites in the order of folding.
    fn fold_all(tasks: &mut Tasks, now: Instant) -> Vec<String> {
        let mut order = Vec::new();
        while let Step::Fold { site, .. } = tasks.step(now) {
            tasks.folded(&site, Ok(()));
            order.push(site);
        }
        order
    }

    #[test]
    fn results_are_folded_in_site_order_whoever_is_faster() {
        let now = Instant::now();
        let mut tasks = tasks(0);
        for site in ["c", "a", "b"] {
            let id = id_of(&mut tasks, site);
            assert_eq!(tasks.submit(site, &id, Shareable::default(), now), Submitted::Accepted);
            if site == "c" {
                assert!(matches!(tasks.step(now), Step::Wait(None)));
            }
        }
        assert_eq!(fold_all(&mut tasks, now), ["a", "b", "c"]);
        let Step::Done { accepted, missing } = tasks.step(now) else { panic!("not done") };
        assert_eq!((accepted.len(), missing.len()), (3, 0));
    }

    #[test]
    fn a_repeated_submission_is_told_so_and_counts_once() {
        let now = Instant::now();
        let mut tasks = tasks(0);
        let id = id_of(&mut tasks, "a");
        assert_eq!(tasks.submit("a", &id, Shareable::default(), now), Submitted::Accepted);
        assert_eq!(tasks.submit("a", &id, Shareable::default(), now), Submitted::Repeated);
        assert_eq!(fold_all(&mut tasks, now), ["a"]);
        assert_eq!(tasks.submit("a", &id, Shareable::default(), now), Submitted::Repeated);
    }

    #[test]
    fn a_site_that_asks_again_gets_the_same_task() {
        let mut tasks = tasks(0);
        assert_eq!(id_of(&mut tasks, "b"), id_of(&mut tasks, "b"));
        assert_ne!(id_of(&mut tasks, "b"), id_of(&mut tasks, "a"));
    }

    #[test]
    fn a_site_cannot_submit_under_another_sites_task() {
        let mut tasks = tasks(0);
        let id = id_of(&mut tasks, "b");
        assert_eq!(tasks.submit("a", &id, Shareable::default(), Instant::now()), Submitted::Unknown);
    }

    #[test]
    fn a_task_for_some_sites_is_offered_to_no_other() {
        let now = Instant::now();
        let mut tasks = tasks(0);
        let some =
            OutgoingTask { sites: vec!["c".into(), "a".into(), "z".into()], ..task(0, Duration::ZERO) };
        tasks.put_up(some, || "id".to_owned());
        assert!(matches!(tasks.assign("b"), Assigned::Nothing));
        for site in ["a", "c"] {
            let id = id_of(&mut tasks, site);
            assert_eq!(tasks.submit(site, &id, Shareable::default(), now), Submitted::Accepted);
        }
        assert_eq!(fold_all(&mut tasks, now), ["a", "c"]);
        assert!(matches!(tasks.step(now), Step::Done { .. }), "nobody waits for `b`");
    }

    #[test]
    fn a_lost_site_is_missing_with_its_reason() {
        let now = Instant::now();
        let mut tasks = tasks(0);
        for site in ["a", "c"] {
            let id = id_of(&mut tasks, site);
            tasks.submit(site, &id, Shareable::default(), now);
        }
        tasks.lose("b", "no heartbeat");
        assert_eq!(fold_all(&mut tasks, now), ["a", "c"]);
        let Step::Done { missing, .. } = tasks.step(now) else { panic!("not done") };
        assert_eq!(missing, [("b".to_owned(), "no heartbeat".to_owned())]);
        tasks.find_again("b");
        assert_eq!(tasks.present().len(), 3);
    }

    #[test]
    fn after_the_grace_period_a_slow_site_is_missing_and_its_result_late() {
        let now = Instant::now();
        let mut tasks = tasks(2);
        let slow = id_of(&mut tasks, "a");
        for site in ["b", "c"] {
            let id = id_of(&mut tasks, site);
            tasks.submit(site, &id, Shareable::default(), now);
        }
        let Step::Wait(Some(deadline)) = tasks.step(now) else { panic!("no deadline") };
        assert_eq!(deadline, now + Duration::from_secs(5));
        assert_eq!(fold_all(&mut tasks, deadline), ["b", "c"]);
        assert_eq!(tasks.submit("a", &slow, Shareable::default(), deadline), Submitted::Late);
        tasks.take_down();
        assert_eq!(tasks.submit("a", &slow, Shareable::default(), deadline), Submitted::Late);
        assert_eq!(tasks.late(), 2);
    }

    #[test]
    fn an_unusable_result_is_missing_with_its_reason() {
        let now = Instant::now();
        let mut tasks = tasks(0);
        for site in ["a", "b", "c"] {
            let id = id_of(&mut tasks, site);
            tasks.submit(site, &id, Shareable::default(), now);
        }
        while let Step::Fold { site, .. } = tasks.step(now) {
            tasks.folded(&site, if site == "b" { Err("not finite".into()) } else { Ok(()) });
        }
        let Step::Done { accepted, missing } = tasks.step(now) else { panic!("not done") };
        assert_eq!(accepted, ["a", "c"]);
        assert_eq!(missing, [("b".to_owned(), "not finite".to_owned())]);
    }

    #[test]
    fn after_the_end_every_site_is_told() {
        let mut tasks = tasks(0);
        tasks.end();
        assert!(matches!(tasks.assign("a"), Assigned::EndRun));
    }
}
