//! The tasks of a job as a state machine: who has which, who answered, what may be folded next.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use locule_component::{Fault, Late, OutgoingTask, Unusable};
use locule_fobs::Shareable;

use super::hold::Held;

/// How many settled task ids are remembered, so that a repeated submission gets its `ok` again.
const REMEMBERED: usize = 4096;

/// How long a result that is on its way may hold up a task whose time is over; longer only if the task itself stood
/// longer before it came.
const ARRIVAL: Duration = Duration::from_secs(600);

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
    /// One with another content had been submitted before; the first one counts.
    Conflict,
    /// Nobody waits for it any more.
    Late,
    /// It is late, and waits for a task that folds it.
    Kept,
    /// No such task was given to this site.
    Unknown,
}

impl Submitted {
    /// What the submitter is told beside its `ok`.
    pub(super) fn code(self) -> &'static str {
        match self {
            Submitted::Accepted => "ACCEPTED",
            Submitted::Repeated => "REPEATED",
            Submitted::Conflict => "CONFLICT",
            Submitted::Late => "LATE",
            Submitted::Kept => "KEPT",
            Submitted::Unknown => "UNKNOWN_TASK",
        }
    }
}

/// What the owner of the standing task has to do next.
#[derive(Debug)]
pub(super) enum Step {
    /// Fold this result, then say whether it was usable.
    Fold { site: String, result: Held },
    /// Fold this result of an earlier task.
    FoldLate { site: String, result: Held },
    /// Nothing until something changes, or until this time.
    Wait(Option<Instant>),
    /// Every site is settled.
    Done { accepted: Vec<String>, missing: Vec<(String, Unusable)> },
}

/// The tasks of one job. One task stands at a time.
#[derive(Debug)]
pub(super) struct Tasks {
    sites: Vec<String>,
    lost: BTreeMap<String, String>,
    standing: Option<Standing>,
    settled: VecDeque<Settled>,
    /// Late results, by site.
    kept: BTreeMap<String, Kept>,
    /// Whether there was a task yet.
    begun: bool,
    ended: bool,
    late: u64,
}

/// A result that came too late for its task.
#[derive(Debug)]
struct Kept {
    /// The name of its task.
    task: String,
    id: String,
    result: Held,
}

/// A site's part in a task that is over.
#[derive(Debug)]
struct Settled {
    site: String,
    id: String,
    task: String,
    /// Of what was taken in time, or of what is kept.
    digest: Option<u128>,
    /// Whether a result that comes now would be folded with a later task.
    folds: bool,
}

#[derive(Debug)]
struct Standing {
    task: OutgoingTask,
    parts: Vec<Part>,
    since: Instant,
    /// When the sites that have not answered are given up, since enough have.
    deadline: Option<Instant>,
    /// When they are given up whoever has answered.
    limit: Option<Instant>,
}

impl Standing {
    fn find(&self, site: &str, id: &str) -> Option<&Part> {
        self.parts.iter().find(|part| part.site == site && part.id == id)
    }

    fn find_mut(&mut self, site: &str, id: &str) -> Option<&mut Part> {
        self.parts.iter_mut().find(|part| part.site == site && part.id == id)
    }

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
    /// Submissions whose arrays are on their way.
    arriving: usize,
    /// When the first of all that began, which those after it do not change.
    arrives_since: Option<Instant>,
    /// Of the result that was taken.
    digest: Option<u128>,
}

impl Part {
    /// Until when what is on its way is waited for, of a task that stands since then.
    fn may_arrive_until(&self, since: Instant) -> Option<Instant> {
        let began = self.arrives_since.filter(|_| self.arriving > 0)?;
        began.checked_add(ARRIVAL.max(began.saturating_duration_since(since)))
    }
}

#[derive(Debug)]
enum PartState {
    Open,
    Answered(Held),
    Folding,
    Accepted,
    Missing(Unusable),
}

fn absent(reason: &str) -> PartState {
    PartState::Missing(Unusable::new(Fault::Absent, reason))
}

impl Tasks {
    /// No task yet for these sites, in site order.
    pub(super) fn new(sites: Vec<String>) -> Self {
        let (lost, settled, kept) = (BTreeMap::new(), VecDeque::new(), BTreeMap::new());
        Self { sites, lost, standing: None, settled, kept, begun: false, ended: false, late: 0 }
    }

    pub(super) fn sites(&self) -> &[String] {
        &self.sites
    }

    /// Whether it is known what is wanted: a run that goes on after a restart has yet to put up the task that its sites
    /// work on.
    pub(super) fn has_begun(&self) -> bool {
        self.begun
    }

    /// Submissions that nobody waited for.
    pub(super) fn late(&self) -> u64 {
        self.late
    }

    /// Puts a task up for its sites; `ids` gives each its own id. Sites that are lost are settled at once.
    pub(super) fn put_up(&mut self, task: OutgoingTask, now: Instant, mut ids: impl FnMut(&str) -> String) {
        let part = |site: &String| {
            let state = match self.lost.get(site) {
                Some(reason) => absent(reason),
                None => PartState::Open,
            };
            Part { site: site.clone(), id: ids(site), state, arriving: 0, arrives_since: None, digest: None }
        };
        let parts = self.sites.iter().filter(|site| task.is_for(site)).map(part).collect();
        let limit = task.limit.and_then(|limit| now.checked_add(limit));
        self.begun = true;
        self.standing = Some(Standing { task, parts, since: now, deadline: None, limit });
    }

    /// Takes the standing task down, whatever is still open.
    pub(super) fn take_down(&mut self) {
        if let Some(standing) = self.standing.take() {
            let folds = standing.task.late == Late::Fold;
            for Part { site, id, digest, .. } in standing.parts {
                let task = standing.task.name.clone();
                let folds = folds && digest.is_none();
                self.remember(Settled { site, id, task, digest, folds });
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
        let part = self.standing.as_ref().and_then(|it| it.find(site, id).map(|part| (part, it.task.late)));
        match part {
            Some((part, late)) => match &part.state {
                PartState::Open => true,
                PartState::Missing(_) => part.digest.is_none() && late == Late::Fold,
                PartState::Answered(_) | PartState::Folding | PartState::Accepted => false,
            },
            None => self.settled(site, id).is_some_and(|settled| settled.folds && !self.ended),
        }
    }

    /// A result that is wanted is on its way: the site is waited for as long as it is, within bounds.
    pub(super) fn arrives(&mut self, site: &str, id: &str, now: Instant) {
        if let Some(part) = self.standing.as_mut().and_then(|standing| standing.find_mut(site, id)) {
            part.arriving += 1;
            part.arrives_since.get_or_insert(now);
        }
    }

    /// A result has arrived, or will not.
    pub(super) fn arrived(&mut self, site: &str, id: &str) {
        let lost = self.lost.get(site);
        if let Some(part) = self.standing.as_mut().and_then(|standing| standing.find_mut(site, id)) {
            part.arriving = part.arriving.saturating_sub(1);
            if let (0, PartState::Open, Some(reason)) = (part.arriving, &part.state, lost) {
                part.state = absent(reason);
            }
        }
    }

    /// Whether a result of this site could be folded at once.
    pub(super) fn is_next(&self, site: &str) -> bool {
        let open = self.standing.as_ref().and_then(|standing| {
            let unsettled = |part: &&Part| !matches!(part.state, PartState::Accepted | PartState::Missing(_));
            standing.parts.iter().find(unsettled)
        });
        open.is_some_and(|part| part.site == site)
    }

    /// Name and round of the task that stands, if one does.
    pub(super) fn current(&self) -> Option<(String, Option<u64>)> {
        self.standing.as_ref().map(|standing| (standing.task.name.clone(), standing.task.round))
    }

    /// What would become of a result; `digest` says what the result says, and is none where nobody knows.
    pub(super) fn look(&self, site: &str, id: &str, digest: Option<u128>) -> Submitted {
        let again = |first: u128| match digest {
            Some(digest) if digest != first => Submitted::Conflict,
            Some(_) | None => Submitted::Repeated,
        };
        let part = self.standing.as_ref().and_then(|it| it.find(site, id).map(|part| (part, it.task.late)));
        if let Some((part, late)) = part {
            return match (&part.state, part.digest, late) {
                (PartState::Open, ..) => Submitted::Accepted,
                (_, Some(first), _) => again(first),
                (_, None, Late::Fold) => Submitted::Kept,
                (_, None, Late::Drop) => Submitted::Late,
            };
        }
        match self.settled(site, id) {
            Some(Settled { digest: Some(first), .. }) => again(*first),
            Some(settled) if settled.folds && !self.ended => Submitted::Kept,
            Some(_) => Submitted::Late,
            None => Submitted::Unknown,
        }
    }

    /// Takes a result in; see [`look`](Self::look). `now` starts the grace period once enough sites have answered.
    pub(super) fn submit(
        &mut self,
        site: &str,
        id: &str,
        result: Held,
        digest: Option<u128>,
        now: Instant,
    ) -> Submitted {
        let submitted = self.look(site, id, digest);
        let digest = Some(digest.unwrap_or_default());
        match submitted {
            Submitted::Accepted => self.answer(site, id, result, digest, now),
            Submitted::Kept => {
                self.late += 1;
                let standing = self.standing.as_mut().map(|standing| (standing.task.name.clone(), standing));
                let part = standing.and_then(|(task, standing)| Some((task, standing.find_mut(site, id)?)));
                if let Some((task, part)) = part {
                    part.digest = digest;
                    self.keep(site, id, task, result);
                } else if let Some(settled) =
                    self.settled.iter_mut().find(|it| it.site == site && it.id == id)
                {
                    (settled.digest, settled.folds) = (digest, false);
                    let task = settled.task.clone();
                    self.keep(site, id, task, result);
                }
            }
            Submitted::Late => self.late += 1,
            Submitted::Repeated | Submitted::Conflict | Submitted::Unknown => {}
        }
        submitted
    }

    /// Takes in a result of the standing task that had been taken before the run was broken off.
    pub(super) fn restore(&mut self, site: &str, id: &str, result: Held, digest: u128, now: Instant) {
        self.answer(site, id, result, Some(digest), now);
    }

    /// Takes in a late result that had been taken before the run was broken off.
    pub(super) fn restore_late(&mut self, site: &str, id: &str, task: String, result: Held, digest: u128) {
        let (site_name, id_name) = (site.to_owned(), id.to_owned());
        let digest = Some(digest);
        self.remember(Settled { site: site_name, id: id_name, task: task.clone(), digest, folds: false });
        self.keep(site, id, task, result);
    }

    fn answer(&mut self, site: &str, id: &str, result: Held, digest: Option<u128>, now: Instant) {
        let Some(standing) = &mut self.standing else { return };
        if let Some(part) = standing.find_mut(site, id) {
            part.state = PartState::Answered(result);
            part.digest = digest;
        }
        if standing.has_enough() && standing.deadline.is_none() {
            standing.deadline = now.checked_add(standing.task.grace);
        }
    }

    fn keep(&mut self, site: &str, id: &str, task: String, result: Held) {
        self.kept.insert(site.to_owned(), Kept { task, id: id.to_owned(), result });
    }

    /// The task ids of late results that nobody has folded yet.
    pub(super) fn kept(&self) -> BTreeSet<String> {
        self.kept.values().map(|kept| kept.id.clone()).collect()
    }

    fn settled(&self, site: &str, id: &str) -> Option<&Settled> {
        self.settled.iter().find(|settled| settled.site == site && settled.id == id)
    }

    /// A site will not answer any more: its part of the standing task and of later ones is missing.
    pub(super) fn lose(&mut self, site: &str, reason: &str) {
        self.lost.insert(site.to_owned(), reason.to_owned());
        for part in self.standing.iter_mut().flat_map(|standing| &mut standing.parts) {
            if part.site == site && part.arriving == 0 && matches!(part.state, PartState::Open) {
                part.state = absent(reason);
            }
        }
    }

    /// A site takes part in later tasks, in its place in site order.
    pub(super) fn add_site(&mut self, site: &str) {
        if let Err(at) = self.sites.binary_search_by(|other| other.as_str().cmp(site)) {
            self.sites.insert(at, site.to_owned());
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
        let until = standing.deadline.into_iter().chain(standing.limit).min();
        let expired = until.is_some_and(|until| until <= now);
        let since = standing.since;
        for part in &mut standing.parts {
            let arrives_until = part.may_arrive_until(since);
            match &mut part.state {
                PartState::Accepted | PartState::Missing(_) => {}
                PartState::Folding => return Step::Wait(None),
                PartState::Open if expired && arrives_until.is_some_and(|at| now < at) => {
                    return Step::Wait(arrives_until);
                }
                PartState::Open if expired && part.arriving > 0 => {
                    part.state = absent("its result was on its way for too long");
                }
                PartState::Open if expired => part.state = absent("no answer in time"),
                PartState::Open => return Step::Wait(until),
                PartState::Answered(_) => {
                    let answered = std::mem::replace(&mut part.state, PartState::Folding);
                    if let PartState::Answered(result) = answered {
                        return Step::Fold { site: part.site.clone(), result };
                    }
                }
            }
        }
        if standing.task.late == Late::Fold {
            let name = &standing.task.name;
            let next = self.kept.iter().find(|(_, kept)| kept.task == *name).map(|(site, _)| site.clone());
            if let Some((site, Kept { result, .. })) = next.and_then(|site| self.kept.remove_entry(&site)) {
                return Step::FoldLate { site, result };
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
    pub(super) fn folded(&mut self, site: &str, outcome: Result<(), Unusable>) {
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

    /// The result of a site whose turn it is cannot be read: it is asked for again.
    pub(super) fn reopen(&mut self, site: &str) {
        let parts = self.standing.iter_mut().flat_map(|standing| &mut standing.parts);
        for part in parts.filter(|part| part.site == site && matches!(part.state, PartState::Folding)) {
            (part.state, part.digest) = (PartState::Open, None);
        }
    }

    /// From now on every site is told that the run is over.
    pub(super) fn end(&mut self) {
        self.take_down();
        self.kept.clear();
        (self.begun, self.ended) = (true, true);
    }

    /// Sites that are not lost.
    pub(super) fn present(&self) -> BTreeSet<&str> {
        self.sites.iter().map(String::as_str).filter(|site| !self.lost.contains_key(*site)).collect()
    }

    fn remember(&mut self, settled: Settled) {
        if self.settled.len() == REMEMBERED {
            self.settled.pop_front();
        }
        self.settled.push_back(settled);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn task(min_results: usize, grace: Duration) -> OutgoingTask {
        let (name, round) = ("train".to_owned(), Some(0));
        OutgoingTask { name, min_results, grace, round, ..OutgoingTask::default() }
    }

    fn tasks(min_results: usize) -> Tasks {
        let mut tasks = Tasks::new(["a", "b", "c"].map(str::to_owned).to_vec());
        let mut next = 0;
        tasks.put_up(task(min_results, Duration::from_secs(5)), Instant::now(), |_| {
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

    /// Submits the same as every other call.
    fn submit(tasks: &mut Tasks, site: &str, id: &str, now: Instant) -> Submitted {
        tasks.submit(site, id, Held::Memory(Box::default()), Some(0), now)
    }

    /// Folds what can be folded; the sites in the order of folding.
    fn fold_all(tasks: &mut Tasks, now: Instant) -> Vec<String> {
        let mut order = Vec::new();
        loop {
            match tasks.step(now) {
                Step::Fold { site, .. } => {
                    tasks.folded(&site, Ok(()));
                    order.push(site);
                }
                Step::FoldLate { site, .. } => order.push(format!("late {site}")),
                Step::Wait(_) | Step::Done { .. } => return order,
            }
        }
    }

    #[test]
    fn results_are_folded_in_site_order_whoever_is_faster() {
        let now = Instant::now();
        let mut tasks = tasks(0);
        for site in ["c", "a", "b"] {
            let id = id_of(&mut tasks, site);
            assert_eq!(submit(&mut tasks, site, &id, now), Submitted::Accepted);
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
        assert_eq!(submit(&mut tasks, "a", &id, now), Submitted::Accepted);
        assert_eq!(submit(&mut tasks, "a", &id, now), Submitted::Repeated);
        assert_eq!(fold_all(&mut tasks, now), ["a"]);
        assert_eq!(submit(&mut tasks, "a", &id, now), Submitted::Repeated);
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
        assert_eq!(submit(&mut tasks, "a", &id, Instant::now()), Submitted::Unknown);
    }

    #[test]
    fn a_task_for_some_sites_is_offered_to_no_other() {
        let now = Instant::now();
        let mut tasks = tasks(0);
        let some =
            OutgoingTask { sites: vec!["c".into(), "a".into(), "z".into()], ..task(0, Duration::ZERO) };
        tasks.put_up(some, now, |_| "id".to_owned());
        assert!(matches!(tasks.assign("b"), Assigned::Nothing));
        for site in ["a", "c"] {
            let id = id_of(&mut tasks, site);
            assert_eq!(submit(&mut tasks, site, &id, now), Submitted::Accepted);
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
            submit(&mut tasks, site, &id, now);
        }
        tasks.lose("b", "no heartbeat");
        assert_eq!(fold_all(&mut tasks, now), ["a", "c"]);
        let Step::Done { missing, .. } = tasks.step(now) else { panic!("not done") };
        assert_eq!(missing, [("b".to_owned(), Unusable::new(Fault::Absent, "no heartbeat"))]);
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
            submit(&mut tasks, site, &id, now);
        }
        let Step::Wait(Some(deadline)) = tasks.step(now) else { panic!("no deadline") };
        assert_eq!(deadline, now + Duration::from_secs(5));
        assert_eq!(fold_all(&mut tasks, deadline), ["b", "c"]);
        assert_eq!(submit(&mut tasks, "a", &slow, deadline), Submitted::Late);
        tasks.take_down();
        assert_eq!(submit(&mut tasks, "a", &slow, deadline), Submitted::Late);
        assert_eq!(tasks.late(), 2);
    }

    #[test]
    fn an_unusable_result_is_missing_with_its_reason() {
        let now = Instant::now();
        let mut tasks = tasks(0);
        for site in ["a", "b", "c"] {
            let id = id_of(&mut tasks, site);
            submit(&mut tasks, site, &id, now);
        }
        while let Step::Fold { site, .. } = tasks.step(now) {
            tasks.folded(
                &site,
                if site == "b" { Err(Unusable::new(Fault::NotFinite, "not finite")) } else { Ok(()) },
            );
        }
        let Step::Done { accepted, missing } = tasks.step(now) else { panic!("not done") };
        assert_eq!(accepted, ["a", "c"]);
        assert_eq!(missing, [("b".to_owned(), Unusable::new(Fault::NotFinite, "not finite"))]);
    }

    #[test]
    fn after_the_end_every_site_is_told() {
        let mut tasks = tasks(0);
        tasks.end();
        assert!(matches!(tasks.assign("a"), Assigned::EndRun));
    }

    /// A round of three of which two are enough, at its deadline; `a` has not answered.
    fn round_at_its_deadline(late: Late) -> (Tasks, String, Instant) {
        let now = Instant::now();
        let mut tasks = Tasks::new(["a", "b", "c"].map(str::to_owned).to_vec());
        put_up(&mut tasks, 0, late);
        let slow = id_of(&mut tasks, "a");
        for site in ["b", "c"] {
            let id = id_of(&mut tasks, site);
            submit(&mut tasks, site, &id, now);
        }
        (tasks, slow, now + Duration::from_secs(5))
    }

    fn put_up(tasks: &mut Tasks, round: u64, late: Late) {
        let mut next = 0;
        let task = OutgoingTask { late, round: Some(round), ..task(2, Duration::from_secs(5)) };
        tasks.put_up(task, Instant::now(), |_| {
            next += 1;
            format!("{round}-{next}")
        });
    }

    #[test]
    fn a_result_on_its_way_is_waited_for_after_the_grace() {
        let (mut tasks, slow, deadline) = round_at_its_deadline(Late::Drop);
        assert!(tasks.wants("a", &slow));
        tasks.arrives("a", &slow, Instant::now());
        let long = deadline + ARRIVAL / 2;
        assert!(matches!(tasks.step(long), Step::Wait(Some(_))), "though it takes long");
        tasks.arrived("a", &slow);
        assert_eq!(submit(&mut tasks, "a", &slow, long), Submitted::Accepted);
        assert_eq!(fold_all(&mut tasks, long), ["a", "b", "c"]);
    }

    #[test]
    fn a_result_that_never_arrives_is_not_waited_for_for_ever_however_often_it_begins() {
        let (mut tasks, slow, deadline) = round_at_its_deadline(Late::Drop);
        let began = Instant::now();
        tasks.arrives("a", &slow, began);
        assert!(matches!(tasks.step(deadline), Step::Wait(Some(_))));
        tasks.arrived("a", &slow);
        tasks.arrives("a", &slow, began + ARRIVAL / 2);
        let at_last = began + ARRIVAL;
        assert_eq!(fold_all(&mut tasks, at_last), ["b", "c"]);
        let Step::Done { missing, .. } = tasks.step(at_last) else { panic!("not done") };
        assert_eq!(missing[0].1.reason, "its result was on its way for too long");
    }

    #[test]
    fn a_result_that_stops_on_its_way_is_missing() {
        let (mut tasks, slow, deadline) = round_at_its_deadline(Late::Drop);
        tasks.arrives("a", &slow, Instant::now());
        tasks.lose("a", "no heartbeat");
        assert!(matches!(tasks.step(deadline), Step::Wait(Some(_))), "perhaps the rest of it comes");
        tasks.arrived("a", &slow);
        assert_eq!(fold_all(&mut tasks, deadline), ["b", "c"]);
        let Step::Done { missing, .. } = tasks.step(deadline) else { panic!("not done") };
        assert_eq!(missing[0].1.reason, "no heartbeat");
    }

    #[test]
    fn a_late_result_is_folded_once_with_the_next_task_where_the_rule_says_so() {
        let (mut tasks, slow, deadline) = round_at_its_deadline(Late::Fold);
        assert_eq!(fold_all(&mut tasks, deadline), ["b", "c"]);
        tasks.take_down();
        assert!(tasks.wants("a", &slow), "it would be folded");
        put_up(&mut tasks, 1, Late::Fold);
        assert_eq!(submit(&mut tasks, "a", &slow, deadline), Submitted::Kept);
        assert!(!tasks.wants("a", &slow));
        assert_eq!(submit(&mut tasks, "a", &slow, deadline), Submitted::Repeated);
        let other = tasks.submit("a", &slow, Held::Memory(Box::default()), Some(1), deadline);
        assert_eq!(other, Submitted::Conflict);
        for site in ["a", "b", "c"] {
            let id = id_of(&mut tasks, site);
            submit(&mut tasks, site, &id, deadline);
        }
        assert_eq!(fold_all(&mut tasks, deadline), ["a", "b", "c", "late a"]);
        assert!(matches!(tasks.step(deadline), Step::Done { .. }));
    }

    #[test]
    fn a_late_result_waits_for_no_other_task_and_not_beyond_the_end() {
        let (mut tasks, slow, deadline) = round_at_its_deadline(Late::Fold);
        assert_eq!(fold_all(&mut tasks, deadline), ["b", "c"]);
        assert_eq!(submit(&mut tasks, "a", &slow, deadline), Submitted::Kept);
        assert!(matches!(tasks.step(deadline), Step::FoldLate { .. }), "its own task still stands");
        let (mut tasks, slow, deadline) = round_at_its_deadline(Late::Fold);
        fold_all(&mut tasks, deadline);
        tasks.take_down();
        assert_eq!(submit(&mut tasks, "a", &slow, deadline), Submitted::Kept);
        let other = OutgoingTask { name: "validate".into(), late: Late::Fold, ..task(0, Duration::ZERO) };
        tasks.put_up(other, deadline, |_| "id".to_owned());
        for site in ["a", "b", "c"] {
            tasks.lose(site, "gone");
        }
        assert!(matches!(tasks.step(deadline), Step::Done { .. }));
        tasks.end();
        assert!(!tasks.wants("a", &slow));
    }

    #[test]
    fn another_content_for_a_settled_task_is_a_conflict_and_the_round_goes_on() {
        let now = Instant::now();
        let mut tasks = tasks(0);
        let id = id_of(&mut tasks, "a");
        let mut submit = |digest| tasks.submit("a", &id, Held::Memory(Box::default()), digest, now);
        let said = [Some(7), Some(7), Some(8), None].map(&mut submit);
        let [accepted, repeated] = [Submitted::Accepted, Submitted::Repeated];
        assert_eq!(said, [accepted, repeated, Submitted::Conflict, repeated]);
        assert_eq!(fold_all(&mut tasks, now), ["a"]);
        tasks.take_down();
        let mut submit = |digest| tasks.submit("a", &id, Held::Memory(Box::default()), digest, now);
        assert_eq!([Some(7), Some(8)].map(&mut submit), [Submitted::Repeated, Submitted::Conflict]);
    }

    #[test]
    fn a_site_that_comes_back_is_absent_to_the_end_of_the_round_and_there_in_the_next() {
        let mut tasks = tasks(2);
        tasks.lose("a", "left");
        tasks.find_again("a");
        assert!(matches!(tasks.assign("a"), Assigned::Nothing));
        tasks.take_down();
        put_up(&mut tasks, 1, Late::Drop);
        assert_eq!(id_of(&mut tasks, "a"), "1-1");
    }

    #[test]
    fn only_the_result_whose_turn_it_is_need_not_wait() {
        let now = Instant::now();
        let mut tasks = tasks(0);
        assert!(tasks.is_next("a") && !tasks.is_next("b"));
        let id = id_of(&mut tasks, "a");
        submit(&mut tasks, "a", &id, now);
        fold_all(&mut tasks, now);
        assert!(tasks.is_next("b"));
    }

    #[test]
    fn at_its_limit_a_task_ends_with_what_is_there() {
        let now = Instant::now();
        let mut tasks = Tasks::new(["a", "b", "c"].map(str::to_owned).to_vec());
        let limit = Some(Duration::from_secs(60));
        tasks.put_up(OutgoingTask { limit, ..task(0, Duration::ZERO) }, now, |_| "id".to_owned());
        submit(&mut tasks, "b", "id", now);
        tasks.arrives("c", "id", now);
        let Step::Wait(Some(until)) = tasks.step(now) else { panic!("no limit") };
        assert_eq!(until, now + Duration::from_secs(60));
        assert_eq!(fold_all(&mut tasks, until), ["b"]);
        assert!(matches!(tasks.step(until), Step::Wait(Some(_))), "the result of `c` is on its way");
        tasks.arrived("c", "id");
        let Step::Done { accepted, missing } = tasks.step(until) else { panic!("not done") };
        assert_eq!((accepted.len(), missing.len()), (1, 2));
    }
}
