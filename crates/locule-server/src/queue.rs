//! Whose turn it is: the jobs that wait, those that run, and the rule. Asks nobody and reads no clock.
//!
//! Jobs stand in the order of their priority, the higher first, then of their submission. Each that could begin is
//! asked about at its sites, but for these:
//!
//! - one whose sites are not there, or that was refused and waits to ask again, stands in nobody's way;
//! - no more begin than may run at once;
//! - two jobs with a site in common do not ask at the same time, so that neither takes half of what the other needs;
//! - a job that was refused for resources [`HOLDS_AFTER`] times holds its place, as long as a job runs on a site that
//!   refused it: those behind it that need one of its sites wait until it has begun.
//!
//! A job that was refused asks again after a pause that doubles, and at once when a job ends or a site comes that it
//! has not asked. It is given up after so many refusals; those that a change brought about do not count, nor those
//! of sites that only have their resources in use.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// Refusals for resources after which a job holds its place.
const HOLDS_AFTER: u32 = 3;

/// Characters of a job's id that are enough for a person.
const ID: usize = 8;

/// Sites that a reason names.
pub(crate) const NAMED: usize = 5;

/// The bounds of a queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Jobs that may run at once.
    pub(crate) most: usize,
    /// Refusals after which a job is given up.
    pub(crate) tries: u32,
    /// Pause after the first refusal; it doubles with each.
    pub(crate) pause: Duration,
    /// The longest pause.
    pub(crate) longest_pause: Duration,
}

/// What a job needs before it can begin.
#[derive(Clone, Debug, Default)]
pub(crate) struct Demand {
    pub(crate) priority: i64,
    /// When it was handed in, in seconds since the Unix epoch.
    pub(crate) submitted: u64,
    /// The sites that it names, unless it is for all.
    pub(crate) sites: Option<BTreeSet<String>>,
    /// Sites that must take part.
    pub(crate) mandatory: BTreeSet<String>,
    /// How many must take part.
    pub(crate) needed: usize,
}

/// Why a job that asked its sites does not begin.
#[derive(Clone, Debug, Default)]
pub(crate) struct Refusal {
    pub(crate) reason: String,
    /// The sites that it asked.
    pub(crate) asked: BTreeSet<String>,
    /// Those of them that lack resources.
    pub(crate) short: BTreeSet<String>,
    /// Whether all that stands in its way is in use by other jobs.
    pub(crate) taken: bool,
}

/// What a job may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Ask these sites; it has its place among the jobs that run.
    Ask(BTreeSet<String>),
    /// Wait, at the longest until then.
    Wait {
        /// Why; nothing if that is over in a moment.
        reason: Option<String>,
        again: Option<Instant>,
    },
}

/// All jobs that are not over.
#[derive(Debug)]
pub(crate) struct Queue {
    bounds: Bounds,
    /// In their order.
    waiting: Vec<Waiting>,
    /// Jobs that begin or run, with their sites.
    running: BTreeMap<String, Running>,
    arrivals: u64,
}

#[derive(Debug)]
struct Running {
    sites: BTreeSet<String>,
    /// It asks its sites, and goes back if they refuse.
    asks: Option<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    job: String,
    demand: Demand,
    arrival: u64,
    /// Refusals that count.
    tries: u32,
    /// Refusals that its pauses depend on: all but those that a change brought about.
    pauses: u32,
    /// Refusals for resources.
    refusals: u32,
    refused: Option<Refused>,
}

#[derive(Debug)]
struct Refused {
    refusal: Refusal,
    again: Instant,
    /// A job has ended since.
    woken: bool,
}

impl Demand {
    /// Those of the present sites that the job would ask.
    fn candidates<'a>(&self, present: &'a BTreeSet<String>) -> Cow<'a, BTreeSet<String>> {
        match &self.sites {
            Some(sites) => Cow::Owned(present.intersection(sites).cloned().collect()),
            None => Cow::Borrowed(present),
        }
    }

    /// Whether these are as many as must take part, and all that must.
    pub(crate) fn is_enough(&self, sites: &BTreeSet<String>) -> bool {
        sites.len() >= self.needed && self.mandatory.is_subset(sites)
    }

    /// Whether it can be enough without those of the asked sites that never have what it needs. A job for all sites may
    /// hope for others as long as one of those that are there can serve it.
    pub(crate) fn is_possible_without(&self, never: &BTreeSet<String>, asked: &BTreeSet<String>) -> bool {
        let is_possible = match &self.sites {
            Some(all) => all.difference(never).count() >= self.needed,
            None => never.is_empty() || !asked.is_subset(never),
        };
        is_possible && self.mandatory.is_disjoint(never)
    }

    /// What it waits for when these are all that are there.
    fn missing(&self, there: &BTreeSet<String>) -> String {
        let short = self.needed.saturating_sub(there.len());
        let listed = self.sites.as_ref().filter(|_| short > 0).unwrap_or(&self.mandatory);
        let absent = listed.difference(there);
        let names = names(absent.clone());
        match absent.count() {
            0 => format!("waiting for {short} more site(s)"),
            _ if self.sites.is_none() && short > 0 => {
                format!("waiting for {short} more site(s), {names} among them")
            }
            many if many > short && short > 0 => {
                format!("waiting for {short} more of {names}: not connected")
            }
            _ => format!("waiting for {names}: not connected"),
        }
    }
}

impl Queue {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self { bounds, waiting: Vec::new(), running: BTreeMap::new(), arrivals: 0 }
    }

    /// A job comes, and waits.
    pub(crate) fn enter(&mut self, job: &str, demand: Demand) {
        self.arrivals += 1;
        let (job, arrival) = (job.to_owned(), self.arrivals);
        let waiting = Waiting { job, demand, arrival, tries: 0, pauses: 0, refusals: 0, refused: None };
        self.put(waiting);
    }

    /// A job is over, whether it ran or not.
    pub(crate) fn leave(&mut self, job: &str) {
        self.waiting.retain(|waiting| waiting.job != job);
        if self.running.remove(job).is_some_and(|running| running.asks.is_none()) {
            for refused in self.waiting.iter_mut().filter_map(|waiting| waiting.refused.as_mut()) {
                refused.woken = true;
            }
        }
    }

    /// A job has what it needs, and begins on these sites.
    pub(crate) fn begins(&mut self, job: &str, sites: BTreeSet<String>) {
        self.running.insert(job.to_owned(), Running { sites, asks: None });
    }

    /// The sites of a job refused it. False if it is to be given up; else it waits again.
    pub(crate) fn refused(&mut self, job: &str, refusal: Refusal, now: Instant) -> bool {
        let Some(mut waiting) = self.running.remove(job).and_then(|running| running.asks) else {
            return false;
        };
        let by_a_change =
            waiting.refused.as_ref().is_some_and(|refused| refused.comes_by_a_change(&refusal.asked));
        if !by_a_change {
            waiting.pauses = waiting.pauses.saturating_add(1);
            waiting.tries += u32::from(!refusal.taken);
        }
        if waiting.tries >= self.bounds.tries {
            return false;
        }
        if !refusal.short.is_empty() {
            waiting.refusals = waiting.refusals.saturating_add(1);
        }
        let doubled = 1_u32.checked_shl(waiting.pauses.saturating_sub(1)).unwrap_or(u32::MAX);
        let pause = self.bounds.pause.saturating_mul(doubled).min(self.bounds.longest_pause);
        waiting.refused = Some(Refused { refusal, again: now + pause, woken: false });
        self.put(waiting);
        true
    }

    /// Whether it is a job's turn while these sites are there. If so it has a place until it
    /// [`begins`](Self::begins), is [`refused`](Self::refused) or [`leaves`](Self::leave).
    pub(crate) fn turn(&mut self, job: &str, present: &BTreeSet<String>, now: Instant) -> Turn {
        let (at, turn) = self.decide(job, present, now);
        if let (Some(at), Turn::Ask(sites)) = (at, &turn) {
            let waiting = self.waiting.remove(at);
            self.running.insert(job.to_owned(), Running { sites: sites.clone(), asks: Some(waiting) });
        }
        turn
    }

    /// Goes through those ahead of a job as if each had its turn now.
    fn decide(&self, job: &str, present: &BTreeSet<String>, now: Instant) -> (Option<usize>, Turn) {
        let mut free = self.bounds.most.saturating_sub(self.running.len());
        let mut ahead = 0_usize;
        let mut held: Vec<(&Waiting, Cow<'_, BTreeSet<String>>)> = Vec::new();
        let asking = self.running.values().filter(|running| running.asks.is_some());
        let mut asking: Vec<_> = asking.map(|running| Cow::Borrowed(&running.sites)).collect();
        for (at, waiting) in self.waiting.iter().enumerate() {
            let own = waiting.job == job;
            let wait = |reason, again| (Some(at), Turn::Wait { reason: Some(reason), again });
            let sites = waiting.demand.candidates(present);
            if !waiting.demand.is_enough(&sites) {
                if own {
                    return wait(waiting.demand.missing(&sites), None);
                }
                continue;
            }
            let pauses = waiting.refused.as_ref().filter(|refused| !refused.is_due(&sites, now));
            if own {
                if let Some(refused) = pauses {
                    return wait(refused.refusal.reason.clone(), Some(refused.again));
                }
                if let Some((holder, held)) = held.iter().find(|(_, held)| !held.is_disjoint(&sites)) {
                    let of = names(held.intersection(&sites));
                    let holder: String = holder.job.chars().take(ID).collect();
                    let reason = format!("job {holder} is ahead of it and waits for resources of {of}");
                    return wait(reason, None);
                }
                if free == 0 {
                    return wait(self.full(ahead), None);
                }
                if asking.iter().any(|others| !others.is_disjoint(&sites)) {
                    return (Some(at), Turn::Wait { reason: None, again: None });
                }
                return (Some(at), Turn::Ask(sites.into_owned()));
            }
            if self.holds(waiting) {
                held.push((waiting, sites.clone()));
            }
            if pauses.is_none()
                && held.iter().all(|(holder, held)| holder.job == waiting.job || held.is_disjoint(&sites))
            {
                ahead += 1;
                free = free.saturating_sub(1);
                asking.push(sites);
            }
        }
        (None, Turn::Wait { reason: None, again: None })
    }

    /// Whether those behind a job that need one of its sites wait for it.
    fn holds(&self, waiting: &Waiting) -> bool {
        let Some(Refused { refusal, .. }) = waiting.refused.as_ref() else { return false };
        let in_use = |site: &String| self.running.values().any(|running| running.sites.contains(site));
        waiting.refusals >= HOLDS_AFTER && refusal.short.iter().any(in_use)
    }

    fn full(&self, ahead: usize) -> String {
        let (running, most) = (self.running.len(), self.bounds.most);
        let ahead = if ahead == 0 { String::new() } else { format!(", {ahead} ahead of it in the queue") };
        format!("{running} of {most} jobs are running{ahead}")
    }

    /// Puts a job where it belongs.
    fn put(&mut self, waiting: Waiting) {
        let rank = |of: &Waiting| (Reverse(of.demand.priority), of.demand.submitted, of.arrival);
        let at = self.waiting.partition_point(|other| rank(other) < rank(&waiting));
        self.waiting.insert(at, waiting);
    }
}

impl Refused {
    /// Whether the job may ask these sites.
    fn is_due(&self, sites: &BTreeSet<String>, now: Instant) -> bool {
        self.again <= now || self.comes_by_a_change(sites)
    }

    fn comes_by_a_change(&self, sites: &BTreeSet<String>) -> bool {
        self.woken || !sites.is_subset(&self.refusal.asked)
    }
}

/// Sites by their names, not all if they are many.
fn names<'a>(sites: impl Iterator<Item = &'a String> + Clone) -> String {
    let many = sites.clone().count();
    let first: Vec<&str> = sites.take(NAMED).map(String::as_str).collect();
    let more = if many > NAMED { format!(" and {} more", many - NAMED) } else { String::new() };
    format!("{}{more}", first.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_secs(10);

    fn sites(names: &str) -> BTreeSet<String> {
        names.split_whitespace().map(str::to_owned).collect()
    }

    /// A queue, all of whose sites are there, and its clock.
    struct Bench {
        queue: Queue,
        present: BTreeSet<String>,
        now: Instant,
    }

    impl Bench {
        fn new(most: usize) -> Self {
            let bounds = Bounds { most, tries: 4, pause: PAUSE, longest_pause: 3 * PAUSE };
            Self { queue: Queue::new(bounds), present: sites("a b c"), now: Instant::now() }
        }

        /// A job that needs all of these sites.
        fn enter(&mut self, job: &str, priority: i64, of: &str) {
            let sites = sites(of);
            let needed = sites.len();
            let demand = Demand { priority, sites: Some(sites), needed, ..Demand::default() };
            self.queue.enter(job, demand);
        }

        fn turn(&mut self, job: &str) -> Turn {
            self.queue.turn(job, &self.present, self.now)
        }

        fn may_ask(&mut self, job: &str) -> bool {
            matches!(self.turn(job), Turn::Ask(_))
        }

        fn why(&mut self, job: &str) -> String {
            match self.turn(job) {
                Turn::Wait { reason, .. } => reason.unwrap_or_default(),
                Turn::Ask(sites) => panic!("{job} may ask {sites:?}"),
            }
        }

        fn runs(&mut self, job: &str, on: &str) {
            assert!(self.may_ask(job), "{job}");
            self.queue.begins(job, sites(on));
        }

        /// The job asks, and is refused by this site.
        fn refused(&mut self, job: &str, by: &str, taken: bool) -> bool {
            let Turn::Ask(asked) = self.turn(job) else { panic!("it is not the turn of {job}") };
            let reason = format!("{by} has none");
            let refusal = Refusal { reason, asked, short: sites(by), taken };
            self.queue.refused(job, refusal, self.now)
        }
    }

    #[test]
    fn the_higher_priority_begins_first_and_then_who_came_first() {
        let mut bench = Bench::new(1);
        for (job, priority) in [("low", -1), ("first", 0), ("second", 0), ("high", 7)] {
            bench.enter(job, priority, "a");
        }
        for job in ["high", "first", "second", "low"] {
            let others: Vec<&str> =
                ["low", "second", "first", "high"].into_iter().take_while(|other| *other != job).collect();
            assert!(others.iter().all(|other| !bench.may_ask(other)), "before {job}");
            bench.runs(job, "a");
            bench.queue.leave(job);
        }
    }

    #[test]
    fn only_so_many_run_and_the_others_are_told_who_is_ahead() {
        let mut bench = Bench::new(2);
        for job in ["one", "two", "three", "four"] {
            bench.enter(job, 0, "a");
        }
        bench.runs("one", "a");
        bench.runs("two", "a");
        assert_eq!(bench.why("three"), "2 of 2 jobs are running");
        assert_eq!(bench.why("four"), "2 of 2 jobs are running, 1 ahead of it in the queue");
        bench.queue.leave("one");
        assert_eq!(bench.why("four"), "1 of 2 jobs are running, 1 ahead of it in the queue");
        assert!(bench.may_ask("three"));
    }

    #[test]
    fn a_job_whose_sites_are_absent_is_in_nobodys_way() {
        let mut bench = Bench::new(1);
        bench.enter("absent", 9, "a d");
        bench.enter("there", 0, "a");
        assert_eq!(bench.why("absent"), "waiting for d: not connected");
        bench.runs("there", "a");
        bench.present.insert("d".into());
        assert_eq!(bench.why("absent"), "1 of 1 jobs are running");
        bench.queue.leave("there");
        assert!(bench.may_ask("absent"));
    }

    #[test]
    fn what_is_missing_is_named() {
        let demand = |of: Option<&str>, mandatory: &str, needed| Demand {
            sites: of.map(sites),
            mandatory: sites(mandatory),
            needed,
            ..Demand::default()
        };
        let check = |demand: Demand, there: &str, said: &str| assert_eq!(demand.missing(&sites(there)), said);
        check(demand(Some("a b c"), "", 2), "a", "waiting for 1 more of b, c: not connected");
        check(demand(Some("a b c"), "", 3), "a", "waiting for b, c: not connected");
        check(demand(Some("a b c"), "c", 1), "a", "waiting for c: not connected");
        check(demand(None, "", 2), "a", "waiting for 1 more site(s)");
        check(demand(None, "z", 2), "a", "waiting for 1 more site(s), z among them");
        check(demand(None, "z", 1), "a", "waiting for z: not connected");
        check(
            demand(Some("a b c d e f g"), "", 7),
            "g",
            "waiting for a, b, c, d, e and 1 more: not connected",
        );
    }

    #[test]
    fn jobs_with_a_site_in_common_ask_one_after_the_other() {
        let mut bench = Bench::new(3);
        bench.enter("one", 0, "a b");
        bench.enter("two", 0, "b c");
        bench.enter("other", 0, "c");
        assert!(!bench.may_ask("two"), "the first comes first");
        assert!(bench.may_ask("one"));
        assert_eq!(bench.turn("two"), Turn::Wait { reason: None, again: None });
        bench.queue.begins("one", sites("a b"));
        assert!(bench.may_ask("two"));
        assert!(!bench.may_ask("other"));
    }

    #[test]
    fn a_refused_job_pauses_longer_each_time_and_is_given_up() {
        let mut bench = Bench::new(1);
        bench.enter("job", 0, "a");
        for pause in [PAUSE, 2 * PAUSE, 3 * PAUSE] {
            assert!(bench.refused("job", "a", false));
            let waits = Turn::Wait { reason: Some("a has none".into()), again: Some(bench.now + pause) };
            assert_eq!(bench.turn("job"), waits);
            bench.now += pause;
        }
        assert!(!bench.refused("job", "a", false));
        assert_eq!(bench.turn("job"), Turn::Wait { reason: None, again: None }, "it is not there any more");
    }

    #[test]
    fn a_job_is_not_given_up_for_what_is_only_in_use() {
        let mut bench = Bench::new(1);
        bench.enter("job", 0, "a");
        for _ in 0..100 {
            assert!(bench.refused("job", "a", true));
            bench.now += 3 * PAUSE;
        }
    }

    #[test]
    fn a_job_that_pauses_is_overtaken() {
        let mut bench = Bench::new(2);
        bench.enter("big", 5, "a");
        bench.enter("small", 0, "a");
        assert!(bench.refused("big", "a", false));
        bench.runs("small", "a");
        bench.now += PAUSE;
        assert!(bench.may_ask("big"));
    }

    #[test]
    fn a_job_that_ends_lets_others_ask_again_and_that_does_not_count() {
        let mut bench = Bench::new(2);
        bench.enter("job", 0, "a");
        assert!(bench.refused("job", "a", false));
        for _ in 0..10 {
            assert!(!bench.may_ask("job"));
            bench.enter("urgent", 9, "a");
            bench.runs("urgent", "a");
            bench.queue.leave("urgent");
            assert!(bench.refused("job", "a", false));
        }
    }

    #[test]
    fn a_site_that_comes_is_asked_at_once() {
        let mut bench = Bench::new(1);
        bench.queue.enter("job", Demand { needed: 1, ..Demand::default() });
        assert!(bench.refused("job", "a b c", false));
        assert_eq!(bench.why("job"), "a b c has none");
        bench.present.insert("d".into());
        assert!(bench.may_ask("job"));
    }

    #[test]
    fn a_job_refused_three_times_holds_its_place_while_somebody_runs_there() {
        let mut bench = Bench::new(9);
        bench.enter("long", 0, "a");
        bench.runs("long", "a");
        bench.enter("big", 0, "a b");
        for round in 0..HOLDS_AFTER {
            let passing = format!("pass-{round}");
            bench.enter(&passing, 0, "b");
            assert!(bench.refused("big", "a", true));
            if round + 1 < HOLDS_AFTER {
                bench.runs(&passing, "b");
                bench.now += 3 * PAUSE;
            } else {
                let held = "job big is ahead of it and waits for resources of b";
                assert_eq!(bench.why(&passing), held);
            }
        }
        bench.enter("elsewhere", 0, "c");
        assert!(bench.may_ask("elsewhere"));
        bench.enter("higher", 1, "b");
        assert!(bench.may_ask("higher"), "who is ahead of it does not wait for it");
        bench.queue.begins("higher", sites("b"));
        bench.queue.leave("long");
        assert!(bench.may_ask("big"), "what it waited for may be free");
    }

    #[test]
    fn a_job_holds_nothing_that_nobody_uses() {
        let mut bench = Bench::new(9);
        bench.enter("never", 0, "a");
        for _ in 0..HOLDS_AFTER {
            assert!(bench.refused("never", "a", false));
            bench.now += 3 * PAUSE;
        }
        bench.now -= 3 * PAUSE;
        bench.enter("next", 0, "a");
        assert!(bench.may_ask("next"));
    }

    #[test]
    fn what_can_never_be_is_seen() {
        let listed = Demand { sites: Some(sites("a b c")), needed: 2, ..Demand::default() };
        let possible = |demand: &Demand, never| demand.is_possible_without(&sites(never), &sites("a b"));
        assert!(possible(&listed, "a"));
        assert!(!possible(&listed, "a b"));
        let mandatory = Demand { mandatory: sites("a"), ..listed.clone() };
        assert!(!possible(&mandatory, "a"));
        let all = Demand { sites: None, ..listed };
        assert!(possible(&all, "") && possible(&all, "a"), "others may come");
        assert!(!possible(&all, "a b"));
    }
}
