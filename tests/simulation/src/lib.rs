//! Whole networks of switches on virtual time, with seeded faults.
//!
//! A [`Network`] runs many `locule-switch` state machines in one thread: links with latency and
//! bandwidth that keep order, lose and repeat messages, break and come back; cells that restart; an
//! intruder. Everything random follows from one seed, and a run that fails prints it. While it runs,
//! the network checks what a switch promises:
//!
//! - nothing is delivered, passed on or settled before the gate has let it through;
//! - a request settles at most once at each target, and by its deadline;
//! - a reply reaches only the cell that asked, and is the reply to what it asked;
//! - bodies arrive as they left;
//! - queues stay within their bounds.
//!
//! Liveness is for the tests to ask: after [`heal`](Network::heal), requests succeed.

mod cell;
mod link;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::{Duration, Instant, SystemTime};

use locule_message::{Fqcn, Headers, Message, MessageKind, Payload, key};
use locule_switch::{
    LinkFacts, LinkId, LinkSecurity, Now, Output, Reply, ReplyTo, Request, RequestError, RequestId,
};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use cell::Cell;
use link::Link;

/// A network on virtual time.
#[derive(Debug)]
pub struct Network {
    seed: u64,
    rng: ChaCha8Rng,
    begin: Instant,
    elapsed: Duration,
    cells: BTreeMap<Fqcn, Cell>,
    /// Who dials whom.
    wires: Vec<(Fqcn, Fqcn)>,
    links: BTreeMap<LinkId, Link>,
    agenda: BinaryHeap<Reverse<(Duration, u64, What)>>,
    replies: BTreeMap<u64, (Fqcn, u64, ReplyTo, u64)>,
    /// Cells that something was done to, whose outputs are to be taken.
    touched: BTreeSet<Fqcn>,
    /// Ends of links that may have something to send and may send it.
    ready: BTreeSet<(LinkId, usize)>,
    faults: Faults,
    next_number: u64,
    tally: Tally,
}

/// How unreliable the network is.
#[derive(Clone, Copy, Debug)]
pub struct Faults {
    /// Share of messages that a link loses, 0 to 1.
    pub loss: f64,
    /// Share of messages that a link delivers twice, 0 to 1.
    pub repeats: f64,
    /// Mean time between two cuts of some link.
    pub cut_every: Option<Duration>,
    /// Mean time between two restarts of some cell.
    pub restart_every: Option<Duration>,
    /// Share of requests that a handler never answers, 0 to 1.
    pub silence: f64,
}

impl Faults {
    /// A perfect network.
    pub const NONE: Self =
        Self { loss: 0.0, repeats: 0.0, cut_every: None, restart_every: None, silence: 0.0 };
    /// A bad day.
    pub const MANY: Self = Self {
        loss: 0.01,
        repeats: 0.01,
        cut_every: Some(Duration::from_secs(7)),
        restart_every: Some(Duration::from_secs(40)),
        silence: 0.02,
    };
}

/// What has happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Requests made, one per target.
    pub asked: u64,
    /// Requests settled with a reply.
    pub replied: u64,
    /// Requests settled with an error.
    pub failed: u64,
    /// Requests that ended with the cell that made them.
    pub forgotten: u64,
    /// Requests handled.
    pub handled: u64,
    /// Messages carried over a link.
    pub hops: u64,
    /// Links cut.
    pub cuts: u64,
    /// Cells restarted.
    pub restarts: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Dial {
        wire: usize,
    },
    Arrive {
        link: LinkId,
        end: usize,
    },
    /// An end notices that its link is broken.
    Notice {
        link: LinkId,
        end: usize,
    },
    Answer {
        number: u64,
    },
    Cut,
    Restart,
}

impl Network {
    /// A network without cells.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            rng: ChaCha8Rng::seed_from_u64(seed),
            begin: Instant::now(),
            elapsed: Duration::ZERO,
            cells: BTreeMap::new(),
            wires: Vec::new(),
            links: BTreeMap::new(),
            agenda: BinaryHeap::new(),
            replies: BTreeMap::new(),
            touched: BTreeSet::new(),
            ready: BTreeSet::new(),
            faults: Faults::NONE,
            next_number: 1,
            tally: Tally::default(),
        }
    }

    /// Adds a cell.
    #[must_use]
    pub fn cell(mut self, name: &str) -> Self {
        let name = parse(name);
        let cell = Cell::start(name.clone(), self.rng.random());
        self.cells.insert(name, cell);
        self
    }

    /// Makes a cell keep up a link to another; adds those that are not there.
    #[must_use]
    pub fn link(mut self, dialer: &str, listener: &str) -> Self {
        for name in [dialer, listener] {
            if !self.cells.contains_key(name) {
                self = self.cell(name);
            }
        }
        self.wires.push((parse(dialer), parse(listener)));
        let wire = self.wires.len() - 1;
        self.plan(Duration::ZERO, What::Dial { wire });
        self
    }

    /// Makes the network this unreliable from now on.
    #[must_use]
    pub fn faults(mut self, faults: Faults) -> Self {
        self.faults = faults;
        self.plan_trouble(faults.cut_every, What::Cut);
        self.plan_trouble(faults.restart_every, What::Restart);
        self
    }

    /// Ends all faults; links that are down come back by themselves.
    pub fn heal(&mut self) {
        self.faults = Faults::NONE;
    }

    /// Asks, from one cell, all of `targets`.
    pub fn ask(&mut self, from: &str, targets: &[&str], size: usize, timeout: Duration) {
        let targets: Vec<Fqcn> = targets.iter().map(|target| parse(target)).collect();
        self.ask_all(&parse(from), &targets, size, timeout);
    }

    /// Lets cells ask others at random, each about once per `every`, for `time`.
    pub fn chatter(&mut self, every: Duration, time: Duration) {
        let end = self.elapsed + time;
        let names: Vec<Fqcn> = self.cells.keys().cloned().collect();
        while self.elapsed < end {
            let pause = every.div_f64(names.len() as f64).mul_f64(self.rng.random_range(0.0..2.0));
            self.run_for(pause);
            let from = names[self.rng.random_range(0..names.len())].clone();
            let count = if self.rng.random_bool(0.1) { 3 } else { 1 };
            let targets: Vec<Fqcn> =
                (0..count).map(|_| names[self.rng.random_range(0..names.len())].clone()).collect();
            let size = if self.rng.random_bool(0.1) { 150_000 } else { self.rng.random_range(0..1000) };
            let timeout = Duration::from_millis(self.rng.random_range(10..20_000));
            self.ask_all(&from, &targets, size, timeout);
            if self.rng.random_bool(0.2) {
                self.intrude();
            }
        }
    }

    /// Runs for `time` of the network's own clock.
    pub fn run_for(&mut self, time: Duration) {
        let end = self.elapsed + time;
        while let Some(at) = self.next_moment().filter(|at| *at <= end) {
            self.elapsed = self.elapsed.max(at);
            self.step();
            self.move_messages();
        }
        self.elapsed = end;
        let now = self.now().instant;
        self.cells.values().for_each(|cell| cell.assert_in_time(now));
    }

    /// What has happened so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Requests that have not settled.
    #[must_use]
    pub fn open(&self) -> usize {
        self.cells.values().map(|cell| cell.open.len()).sum()
    }

    /// The counters of one cell, since its last start.
    ///
    /// # Panics
    /// When there is no such cell.
    #[must_use]
    pub fn stats(&self, name: &str) -> locule_switch::Stats {
        *self.cells[name].switch.stats()
    }

    fn now(&self) -> Now {
        Now {
            instant: self.begin + self.elapsed,
            wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000) + self.elapsed,
        }
    }

    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    fn plan(&mut self, after: Duration, what: What) {
        let number = self.number();
        self.agenda.push(Reverse((self.elapsed + after, number, what)));
    }

    fn plan_trouble(&mut self, every: Option<Duration>, what: What) {
        if let Some(every) = every {
            let after = every.mul_f64(self.rng.random_range(0.1..2.0));
            self.plan(after, what);
        }
    }

    fn millis(&mut self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.rng.random_range(range))
    }

    fn next_moment(&self) -> Option<Duration> {
        let timers = self.cells.values().filter_map(|cell| cell.switch.poll_timeout());
        let timers = timers.map(|at| at.saturating_duration_since(self.begin));
        self.agenda.peek().map(|Reverse((at, ..))| *at).into_iter().chain(timers).min()
    }

    fn step(&mut self) {
        let now = self.now();
        for (name, cell) in &mut self.cells {
            if cell.switch.poll_timeout().is_some_and(|at| at <= now.instant) {
                cell.switch.handle_timeout(now);
                self.touched.insert(name.clone());
            }
        }
        while let Some(Reverse((at, ..))) = self.agenda.peek()
            && *at <= self.elapsed
            && let Some(Reverse((_, _, what))) = self.agenda.pop()
        {
            match what {
                What::Dial { wire } => self.dial(wire),
                What::Arrive { link, end } => self.arrive(link, end),
                What::Notice { link, end } => self.notice(link, end),
                What::Answer { number } => self.answer(number),
                What::Cut => {
                    self.cut_one();
                    self.plan_trouble(self.faults.cut_every, What::Cut);
                }
                What::Restart => {
                    self.restart_one();
                    self.plan_trouble(self.faults.restart_every, What::Restart);
                }
            }
        }
    }

    // --- requests

    fn ask_all(&mut self, from: &Fqcn, targets: &[Fqcn], size: usize, timeout: Duration) {
        let nonce = self.number();
        let request = Request::new("sim", "echo", Payload::bytes(cell::body(nonce, size)))
            .header(cell::NONCE, nonce)
            .header(cell::SIZE, size as u64)
            .timeout(timeout);
        let now = self.now();
        let cell = self.touch(from);
        let id = cell.switch.request(now, targets, request);
        let open = targets.iter().map(|target| ((id, target.clone()), (nonce, now.instant + timeout)));
        let before = cell.open.len();
        cell.open.extend(open);
        let asked = cell.open.len() - before;
        self.tally.asked += asked as u64;
        self.move_messages();
    }

    fn settled(&mut self, at: &Fqcn, request: RequestId, target: Fqcn, outcome: Result<Reply, RequestError>) {
        let now = self.now();
        let cell = self.cells.get_mut(at).expect("a cell of this network");
        let open = cell.open.remove(&(request, target.clone()));
        let (nonce, deadline) = open.expect("a request settles once, at a cell that asked");
        assert!(now.instant <= deadline, "settled after its deadline");
        match outcome {
            Ok(reply) => {
                self.tally.replied += 1;
                if reply.code.is_ok() {
                    assert_eq!(reply.headers.u64(cell::NONCE), Some(nonce), "the reply to something else");
                    assert_eq!(reply.headers.str(cell::HANDLED_BY), Some(target.as_str()));
                    let size = reply.headers.u64(cell::SIZE).expect("a size") as usize;
                    assert!(reply.payload.body == cell::body(!nonce, size), "the reply was changed");
                }
            }
            Err(_) => self.tally.failed += 1,
        }
    }

    fn deliver(&mut self, at: &Fqcn, message: &Message, reply_to: Option<ReplyTo>) {
        let nonce = message.headers.u64(cell::NONCE).expect("only honest messages pass the gate");
        let size = message.headers.u64(cell::SIZE).expect("a size") as usize;
        assert!(message.body == cell::body(nonce, size), "the request was changed");
        self.tally.handled += 1;
        let Some(to) = reply_to else { return };
        if self.rng.random_bool(self.faults.silence) {
            return;
        }
        let life = self.cells[at].life;
        let number = self.number();
        self.replies.insert(number, (at.clone(), life, to, nonce));
        let after = self.millis(0..400);
        self.plan(after, What::Answer { number });
    }

    fn answer(&mut self, number: u64) {
        let now = self.now();
        let Some((at, life, to, nonce)) = self.replies.remove(&number) else { return };
        let size = if nonce.is_multiple_of(9) { 120_000 } else { 200 };
        let cell = self.touch(&at);
        if cell.life == life {
            let reply = Reply::ok(Payload::bytes(cell::body(!nonce, size)))
                .header(cell::NONCE, nonce)
                .header(cell::SIZE, size as u64)
                .header(cell::HANDLED_BY, &at);
            cell.switch.reply(now, to, reply);
        }
    }

    /// Somebody on a link writes what it likes: forged requests, replies and returns, without proof.
    fn intrude(&mut self) {
        let alive: Vec<LinkId> =
            self.links.iter().filter(|(_, link)| link.alive).map(|(id, _)| *id).collect();
        if alive.is_empty() {
            return;
        }
        let link = alive[self.rng.random_range(0..alive.len())];
        let names: Vec<Fqcn> = self.cells.keys().cloned().collect();
        let open: Vec<RequestId> =
            self.cells.values().flat_map(|cell| cell.open.keys().map(|(id, _)| *id)).collect();
        let mut headers = Headers::new();
        let kinds = [MessageKind::Request, MessageKind::Reply, MessageKind::Return];
        headers.set(key::MSG_TYPE, kinds[self.rng.random_range(0..3)].as_str());
        headers.set(key::ORIGIN, &names[self.rng.random_range(0..names.len())]);
        headers.set(key::DESTINATION, &names[self.rng.random_range(0..names.len())]);
        headers.set(key::REPLY_EXPECTED, self.rng.random_bool(0.5));
        if !open.is_empty() {
            headers.set(key::REQ_ID, open[self.rng.random_range(0..open.len())].to_string());
        }
        let end = self.rng.random_range(0..2);
        let now = self.now();
        if let Some(at) = self.links.get(&link).and_then(|link| link.holder(end)).cloned() {
            self.touch(&at).switch.handle_message(now, link, Message { headers, ..Message::default() });
        }
        self.move_messages();
    }

    // --- links

    fn dial(&mut self, wire: usize) {
        let (dialer, listener) = self.wires[wire].clone();
        let id = LinkId(self.number());
        let now = self.now();
        let mut up = |at: &Fqcn, peer: &Fqcn, accepted: bool| {
            let facts = LinkFacts {
                link: id,
                peer: peer.clone(),
                common_name: None,
                security: LinkSecurity::Clear,
                accepted,
                ours: true,
            };
            self.touch(at).switch.link_up(now, facts, cell::MAX_FRAME).expect("an honest link is taken up");
        };
        up(&listener, &dialer, true);
        up(&dialer, &listener, false);
        let latency = self.millis(1..80);
        self.links.insert(id, Link::new(wire, [dialer, listener], latency));
    }

    fn cut_one(&mut self) {
        let alive: Vec<LinkId> =
            self.links.iter().filter(|(_, link)| link.alive).map(|(id, _)| *id).collect();
        if !alive.is_empty() {
            let link = alive[self.rng.random_range(0..alive.len())];
            self.tally.cuts += 1;
            self.break_link(link);
        }
    }

    /// The two ends notice at different times, and what is on the way is lost.
    fn break_link(&mut self, id: LinkId) {
        let Some(link) = self.links.get_mut(&id) else { return };
        if !std::mem::take(&mut link.alive) {
            return;
        }
        for end in 0..2 {
            let after = self.millis(0..8000);
            self.plan(after, What::Notice { link: id, end });
        }
    }

    fn notice(&mut self, id: LinkId, end: usize) {
        let now = self.now();
        if let Some(at) = self.let_go(id, end) {
            self.touch(&at).switch.link_down(now, id);
        }
    }

    /// An end forgets the link; the other notices later. A dialer dials again.
    fn let_go(&mut self, id: LinkId, end: usize) -> Option<Fqcn> {
        let link = self.links.get_mut(&id)?;
        let at = link.let_go(end)?;
        let (wire, gone) = (link.wire, link.is_gone());
        self.break_link(id);
        if gone {
            self.links.remove(&id);
        }
        if end == link::DIALER {
            let after = self.millis(500..3000);
            self.plan(after, What::Dial { wire });
        }
        Some(at)
    }

    fn restart_one(&mut self) {
        let names: Vec<Fqcn> = self.cells.keys().cloned().collect();
        let name = names[self.rng.random_range(0..names.len())].clone();
        let seed = self.rng.random();
        let life = self.number();
        let cell = self.cells.get_mut(&name).expect("a cell of this network");
        self.tally.restarts += 1;
        self.tally.forgotten += cell.open.len() as u64;
        *cell = Cell::start(name.clone(), seed);
        cell.life = life;
        let held: Vec<(LinkId, usize)> =
            self.links.iter().flat_map(|(id, link)| link.held_by(&name, *id)).collect();
        for (id, end) in held {
            self.let_go(id, end);
        }
    }

    // --- messages on the move

    fn touch(&mut self, name: &Fqcn) -> &mut Cell {
        self.touched.insert(name.clone());
        self.cells.get_mut(name).expect("a cell of this network")
    }

    /// Takes outputs and sends what can be sent, until nothing changes at this moment.
    fn move_messages(&mut self) {
        loop {
            if let Some(name) = self.touched.pop_first() {
                self.take_outputs(&name);
                self.cells[&name].assert_in_time(self.now().instant);
            } else if let Some((link, end)) = self.ready.pop_first() {
                while let Some(message) = self.next_to_send(link, end) {
                    self.send(link, end, message);
                }
            } else {
                return;
            }
        }
    }

    fn take_outputs(&mut self, name: &Fqcn) {
        while let Some(output) = self.cells.get_mut(name).and_then(|cell| cell.switch.poll_output()) {
            let end_of = |link| self.links.get(&link).and_then(|link: &Link| link.end_of(name));
            match output {
                Output::Deliver(delivery) => {
                    if delivery.origin != *name {
                        self.cells[name].assert_gated(&delivery.message);
                    }
                    self.deliver(name, &delivery.message, delivery.reply_to);
                }
                Output::Settle(settled) => {
                    self.settled(name, settled.request, settled.target, settled.outcome);
                }
                Output::Transmit(link) => {
                    self.cells[name].assert_within_bounds(link);
                    self.ready.extend(end_of(link).map(|end| (link, end)));
                }
                Output::Close(link, _) => {
                    if let Some(end) = end_of(link) {
                        self.let_go(link, end);
                    }
                }
                Output::Congested(link) => self.cells[name].assert_within_bounds(link),
                Output::Relieved(link) => {
                    if let Some(end) = end_of(link) {
                        self.plan(Duration::ZERO, What::Arrive { link, end });
                    }
                }
                Output::Proven(_)
                | Output::Left(_)
                | Output::Undelivered(..)
                | Output::Refused(..)
                | Output::Dropped(..) => {}
            }
        }
    }

    fn next_to_send(&mut self, id: LinkId, end: usize) -> Option<Message> {
        let link = self.links.get(&id)?;
        if !link.has_window(end) {
            return None;
        }
        let at = link.holder(end)?;
        let cell = self.cells.get_mut(at)?;
        cell.assert_within_bounds(id);
        let sent = cell.switch.poll_transmit(id)?;
        self.touched.insert(at.clone());
        let headers = Headers::decode(sent.headers).expect("a switch sends proper headers");
        let message = Message { headers, body: sent.body.into() };
        if message.origin().as_ref() != Some(at) {
            cell.assert_gated(&message);
        }
        Some(message)
    }

    fn send(&mut self, id: LinkId, end: usize, message: Message) {
        self.tally.hops += 1;
        let lost = self.rng.random_bool(self.faults.loss);
        let times = if lost { 0 } else { 1 + usize::from(self.rng.random_bool(self.faults.repeats)) };
        for _ in 0..times {
            let elapsed = self.elapsed;
            // over a link that is broken, unnoticed yet, messages go nowhere
            let Some(link) = self.links.get_mut(&id).filter(|link| link.alive) else { return };
            let arrival = link.put(end, elapsed, message.clone());
            self.plan(arrival - elapsed, What::Arrive { link: id, end: 1 - end });
        }
    }

    fn arrive(&mut self, id: LinkId, end: usize) {
        let now = self.now();
        loop {
            let Some(link) = self.links.get_mut(&id).filter(|link| link.alive) else { return };
            let Some(at) = link.holder(end).cloned() else { return };
            if self.cells[&at].switch.is_congested(id) {
                return;
            }
            let Some(message) = link.take(end, self.elapsed) else { return };
            self.ready.insert((id, 1 - end));
            self.touch(&at).switch.handle_message(now, id, message);
        }
    }
}

impl Drop for Network {
    #[expect(clippy::print_stderr, reason = "whoever reads a failed test needs the seed")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the network of seed {} failed after {:?}: {:?}", self.seed, self.elapsed, self.tally);
        }
    }
}

fn parse(name: &str) -> Fqcn {
    Fqcn::parse(name).expect("a valid name")
}
