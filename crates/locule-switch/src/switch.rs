use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use locule_message::{Fqcn, Headers, Message, Payload};
use rand_core::RngCore;

use crate::filter::Filters;
use crate::pending::Pending;
use crate::queue::{LinkQueue, Source};
use crate::route::{Hop, Neighbours};
use crate::{
    CloseReason, DropReason, IncomingFilter, LinkFacts, LinkId, LinkPolicy, LinkSecurity, MessageFilter, Now,
    OutgoingFilter, Output, Pass, Refusal, Reply, ReplyTo, Request, RequestError, RequestId, Stats, Transmit,
};

/// Channel of the messages that switches exchange among themselves.
pub(crate) const CELLNET: &str = "cellnet.channel";
/// Topic by which a neighbour says that it leaves.
pub(crate) const BYE: &str = "bye";

/// How long a goodbye waits for its answer, as at the peer.
const BYE_TIMEOUT: Duration = Duration::from_millis(500);
/// Name and bounds of a switch.
#[derive(Clone, Debug)]
pub struct SwitchConfig {
    /// The cell's name.
    pub name: Fqcn,
    /// Largest body, in bytes. By default the peer's, 2,144,337,904.
    pub max_message_size: usize,
    /// Most targets of requests that may wait for replies at a time.
    pub max_pending: usize,
    /// Most links.
    pub max_links: usize,
    /// Most bytes of small messages queued per link; a quarter of it is kept for answers.
    pub control_queue: usize,
    /// Most bytes of large messages queued per link.
    pub bulk_queue: usize,
    /// Most messages that stand in line for room in a queue: of those that this cell made per lane of
    /// a link, of those that it passes on per link that they came by.
    pub max_line: usize,
    /// How long a message stands in line before it is given up.
    pub patience: Duration,
    /// How long an accepted link may be without a message that the gate lets through, until one has proved who
    /// the neighbour is.
    pub unheard_time: Duration,
}

impl SwitchConfig {
    /// A switch called `name` with the default bounds.
    #[must_use]
    pub fn new(name: Fqcn) -> Self {
        Self {
            name,
            max_message_size: 2_144_337_904,
            max_pending: 65_536,
            max_links: 16_384,
            control_queue: 4 << 20,
            bulk_queue: 4 << 20,
            max_line: 1024,
            patience: Duration::from_secs(30),
            unheard_time: Duration::from_secs(120),
        }
    }
}

/// The forwarding engine inside a cell; see the [crate](crate) for how to drive it.
pub struct Switch {
    pub(crate) config: SwitchConfig,
    pub(crate) rng: Box<dyn RngCore + Send>,
    pub(crate) gate: Option<Arc<dyn IncomingFilter>>,
    pub(crate) stamps: Vec<Arc<dyn OutgoingFilter>>,
    pub(crate) link_policy: Option<Arc<dyn LinkPolicy>>,
    pub(crate) filters: Filters,
    pub(crate) links: BTreeMap<LinkId, Link>,
    pub(crate) neighbours: Neighbours,
    pub(crate) pending: Pending,
    /// When to look through the waiting lines of which links.
    pub(crate) line_checks: BTreeSet<(Instant, LinkId)>,
    /// Links that the gate has let nothing through from, and when they are given up.
    pub(crate) unheard: BTreeSet<(Instant, LinkId)>,
    pub(crate) outputs: VecDeque<Output>,
    pub(crate) stats: Stats,
    pub(crate) loopback: Arc<LinkFacts>,
    pub(crate) leaving: bool,
    /// Links whose neighbour said goodbye and has yet to close, at most one per name.
    pub(crate) left: BTreeMap<Fqcn, LinkId>,
}

pub(crate) struct Link {
    pub(crate) facts: Arc<LinkFacts>,
    pub(crate) max_frame_len: usize,
    pub(crate) queue: LinkQueue,
    /// Whether the neighbour has proved who it is.
    pub(crate) proven: bool,
    /// Messages that came by this link and stand in line for others.
    pub(crate) held: usize,
    pub(crate) line_check: Option<Instant>,
    /// When it is given up unless the gate lets something through before.
    pub(crate) unheard: Option<Instant>,
}

/// Why a link is not taken up; close it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkRefused {
    /// The number is in use, or reserved.
    #[error("link number is in use")]
    DuplicateId,
    /// The neighbour claims this cell's own name.
    #[error("neighbour claims this cell's own name")]
    OwnName,
    /// The policy does not let the neighbour bear that name.
    #[error("neighbour may not be {peer}: {}", .refusal.reason)]
    Policy {
        /// The name it claims.
        peer: Fqcn,
        /// What the policy said.
        refusal: Refusal,
    },
    /// A better protected link to a neighbour of that name is up.
    #[error("{peer} is connected by a better protected link")]
    WeakerThanLive {
        /// The name it claims.
        peer: Fqcn,
    },
    /// There are as many links as there may be.
    #[error("too many links")]
    TooMany,
    /// This cell is shutting down.
    #[error("cell is closed")]
    Closed,
}

impl Switch {
    /// A switch without links. `rng` makes the ids of requests; seed it for reproducible runs, and
    /// otherwise use one whose output cannot be guessed.
    #[must_use]
    pub fn new(config: SwitchConfig, rng: Box<dyn RngCore + Send>) -> Self {
        let loopback = Arc::new(LinkFacts {
            link: LinkId::LOOPBACK,
            peer: config.name.clone(),
            common_name: None,
            security: LinkSecurity::Internal,
            accepted: false,
            ours: true,
        });
        Self {
            rng,
            gate: None,
            stamps: Vec::new(),
            link_policy: None,
            filters: Filters::default(),
            links: BTreeMap::new(),
            neighbours: Neighbours::new(config.name.clone()),
            pending: Pending::new(config.max_pending),
            line_checks: BTreeSet::new(),
            unheard: BTreeSet::new(),
            outputs: VecDeque::new(),
            stats: Stats::default(),
            loopback,
            leaving: false,
            left: BTreeMap::new(),
            config,
        }
    }

    /// Sets the gate. Without one every message is let in.
    pub fn set_gate(&mut self, gate: Arc<dyn IncomingFilter>) {
        self.gate = Some(gate);
    }

    /// Adds a stamp, to be called after those added before.
    pub fn add_stamp(&mut self, stamp: Arc<dyn OutgoingFilter>) {
        self.stamps.push(stamp);
    }

    /// Sets the link policy. Without one every neighbour may bear any name but this cell's own.
    pub fn set_link_policy(&mut self, policy: Arc<dyn LinkPolicy>) {
        self.link_policy = Some(policy);
    }

    /// Adds a filter at `pass` for a channel and topic, each of which may be `*`.
    pub fn add_filter(&mut self, pass: Pass, channel: &str, topic: &str, filter: Arc<dyn MessageFilter>) {
        self.filters.add(pass, channel, topic, filter);
    }

    /// Takes a link up whose handshake is over; no frame on it may have more than `max_frame_len`
    /// bytes. An older link of the same name is closed, once this one is known to be rightful.
    ///
    /// # Errors
    /// [`LinkRefused`]; nothing has changed then.
    pub fn link_up(&mut self, now: Now, facts: LinkFacts, max_frame_len: usize) -> Result<(), LinkRefused> {
        if let Err(refused) = self.judge_link(&facts) {
            self.stats.links_refused += 1;
            return Err(refused);
        }
        if let Some(old) = self.neighbours.get(&facts.peer) {
            self.stats.links_evicted += 1;
            self.link_down(now, old);
            self.outputs.push_back(Output::Close(old, CloseReason::Evicted));
        }
        self.neighbours.insert(facts.peer.clone(), facts.link);
        let queue = LinkQueue::new(self.config.control_queue, self.config.bulk_queue, self.config.max_line);
        // whoever was dialed is known by the address that was dialed
        let by_carrier = facts.security == LinkSecurity::Internal || !facts.accepted;
        let proven = by_carrier || self.gate.as_ref().is_none_or(|gate| gate.knows(now, &facts));
        let unheard = (!proven).then(|| now.instant + self.config.unheard_time);
        self.unheard.extend(unheard.map(|until| (until, facts.link)));
        let facts = Arc::new(facts);
        let link = Link { max_frame_len, queue, proven, held: 0, line_check: None, unheard, facts };
        self.links.insert(link.facts.link, link);
        Ok(())
    }

    /// Forgets a link that is gone. Requests that left by it fail at once with
    /// [`RequestError::LinkLost`]; what waited for it is lost, or sent back to where it came from.
    pub fn link_down(&mut self, now: Now, link: LinkId) {
        let Some(mut gone) = self.links.remove(&link) else { return };
        self.neighbours.remove(&gone.facts.peer, link);
        if self.left.get(&gone.facts.peer) == Some(&link) {
            self.left.remove(&gone.facts.peer);
        }
        if let Some(check) = gone.line_check {
            self.line_checks.remove(&(check, link));
        }
        if let Some(until) = gone.unheard {
            self.unheard.remove(&(until, link));
        }
        for (message, in_line) in gone.queue.drain() {
            self.lose(now, link, message, in_line, DropReason::LinkLost);
        }
        for (request, target) in self.pending.sent_over(link) {
            self.settle(request, &target, Err(RequestError::LinkLost));
        }
    }

    /// Sends a request to each of `targets`. Each of them settles exactly once, by
    /// [`Output::Settle`], at the latest when the request's time is up.
    pub fn request(&mut self, now: Now, targets: &[Fqcn], request: Request) -> RequestId {
        let id = RequestId::random(&mut *self.rng);
        let targets: Vec<Fqcn> = targets.iter().cloned().collect::<BTreeSet<_>>().into_iter().collect();
        let deadline = now.instant + request.timeout.min(Request::MAX_TIMEOUT);
        let refused = if self.leaving {
            Some(RequestError::Closed)
        } else if !self.pending.open(id, &targets, deadline) {
            self.stats.overloaded += 1;
            Some(RequestError::Overloaded)
        } else {
            None
        };
        if let Some(error) = refused {
            self.stats.failed += targets.len() as u64;
            self.settle_rest(id, targets, &error);
            return id;
        }
        for target in targets {
            if let Err(error) = self.send_request(now, &target, &request, Some((id, deadline))) {
                self.settle(id, &target, Err(error));
            }
        }
        id
    }

    /// Gives a request up: it does not settle any more, and what it still waits to send is dropped.
    pub fn cancel(&mut self, request: RequestId) {
        self.pending.close(request);
    }

    /// Sends a message to which no reply is expected.
    ///
    /// # Errors
    /// When it did not get as far as the queue of a link; later losses are silent.
    pub fn notify(&mut self, now: Now, target: &Fqcn, notice: &Request) -> Result<(), RequestError> {
        if self.leaving {
            return Err(RequestError::Closed);
        }
        self.send_request(now, target, notice, None)
    }

    /// Sends a message of a stream. Unlike [`notify`](Self::notify) it does so to the last: replies are
    /// among them.
    ///
    /// # Errors
    /// As for a notice.
    pub fn send_stream(&mut self, now: Now, target: &Fqcn, part: &Request) -> Result<(), RequestError> {
        self.send_request(now, target, part, None)
    }

    /// The link by which a message of this cell to `target` would leave, with whether that has room for
    /// more bulk; `None` when there is no path, or the target is this cell.
    #[must_use]
    pub fn way(&self, target: &Fqcn) -> Option<(LinkId, bool)> {
        match self.neighbours.next_hop(target, &Message::new(Headers::new(), Payload::none()), None) {
            Ok(Hop::Over(link)) => Some((link, self.links.get(&link)?.queue.has_bulk_room())),
            Ok(Hop::Here) | Err(_) => None,
        }
    }

    /// Applies the filters of a pass to a message that does not go through this switch as one.
    ///
    /// # Errors
    /// What a filter says.
    pub fn filter(&mut self, pass: Pass, now: Now, message: &mut Message) -> Result<(), Refusal> {
        let filtered = self.filters.apply(pass, now, message);
        self.stats.filtered += u64::from(filtered.is_err());
        filtered
    }

    /// Applies the filters to a request that is to be sealed, which they could not read afterwards. With
    /// its body sealed, and its headers saying so, it passes them by.
    ///
    /// # Errors
    /// What a filter says.
    pub fn filter_request(
        &mut self,
        now: Now,
        target: &Fqcn,
        mut request: Request,
    ) -> Result<Request, RequestError> {
        let mut message = self.compose_request(now, target, &request, None);
        let filtered = self.filters.apply(Pass::OutgoingRequest, now, &mut message);
        filtered.map_err(|refusal| self.filtered(refusal))?;
        request.payload = message.payload();
        request.headers = message.headers;
        Ok(request)
    }

    /// The same for a reply. What a filter says takes its place.
    pub fn filter_reply(&mut self, now: Now, to: &ReplyTo, reply: Reply) -> Reply {
        let mut message = self.compose_reply(now, to, reply);
        match self.filter(Pass::OutgoingReply, now, &mut message) {
            Ok(()) => Reply::from_message(message),
            Err(refusal) => Reply::error(refusal.code, refusal.reason),
        }
    }

    /// Applies the filters to a reply that came sealed and has been opened.
    ///
    /// # Errors
    /// What a filter says.
    pub fn filter_sealed_reply(&mut self, now: Now, reply: Reply) -> Result<Reply, RequestError> {
        let mut message = Message::new(reply.headers, reply.payload);
        let filtered = self.filters.apply(Pass::IncomingReply, now, &mut message);
        filtered.map_err(|refusal| self.filtered(refusal))?;
        Ok(Reply::from_message(message))
    }

    /// Answers a delivered request, by the neighbour that delivered it. If that neighbour is gone the
    /// reply is dropped and counted.
    pub fn reply(&mut self, now: Now, to: ReplyTo, reply: Reply) {
        self.send_reply(now, &to, reply);
    }

    /// Says goodbye to all neighbours. From here on requests fail with [`RequestError::Closed`] and
    /// arriving ones are refused; replies still leave. The goodbyes settle like any request; with no
    /// neighbours, nothing settles.
    pub fn leave(&mut self, now: Now) -> RequestId {
        let neighbours: Vec<Fqcn> = self.neighbours.names().cloned().collect();
        let goodbye = Request::new(CELLNET, BYE, Payload::none()).timeout(BYE_TIMEOUT).optional();
        let id = self.request(now, &neighbours, goodbye);
        self.leaving = true;
        id
    }

    /// Ends everything: each request that still waits settles with [`RequestError::Closed`], and all
    /// links are forgotten.
    pub fn close(&mut self) {
        self.leaving = true;
        for request in self.pending.ids() {
            let open = self.pending.close(request);
            self.stats.failed += open.len() as u64;
            self.settle_rest(request, open, &RequestError::Closed);
        }
        self.links.clear();
        self.left.clear();
        self.line_checks.clear();
        self.unheard.clear();
        self.neighbours = Neighbours::new(self.config.name.clone());
    }

    /// Does what is due: settles requests whose deadline has passed, gives up what waited too long.
    pub fn handle_timeout(&mut self, now: Now) {
        while let Some(request) = self.pending.expired(now.instant) {
            let open = self.pending.close(request);
            self.stats.timed_out += open.len() as u64;
            self.settle_rest(request, open, &RequestError::Timeout);
        }
        while let Some((_, link)) = self.line_checks.first().filter(|(at, _)| *at <= now.instant).copied() {
            self.line_checks.pop_first();
            let Some(state) = self.links.get_mut(&link) else { continue };
            state.line_check = None;
            for message in state.queue.expire(now.instant) {
                self.lose(now, link, message, true, DropReason::Overflow);
            }
            self.schedule_line_check(now, link);
        }
        while let Some((_, link)) = self.unheard.first().filter(|(at, _)| *at <= now.instant).copied() {
            self.unheard.pop_first();
            let Some(state) = self.links.get_mut(&link) else { continue };
            state.unheard = None;
            // it may have registered meanwhile, and have had nothing to say since
            if self.gate.as_ref().is_none_or(|gate| gate.knows(now, &state.facts)) {
                state.proven = true;
                self.outputs.push_back(Output::Proven(link));
                continue;
            }
            self.stats.links_unheard += 1;
            self.link_down(now, link);
            self.outputs.push_back(Output::Close(link, CloseReason::Unheard));
        }
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let line_check = self.line_checks.first().map(|(at, _)| *at);
        let unheard = self.unheard.first().map(|(at, _)| *at);
        self.pending.next_deadline().into_iter().chain(line_check).chain(unheard).min()
    }

    /// What is to be done next; call until it gives `None` after every other call.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// The next message for `link`, whenever that can write.
    pub fn poll_transmit(&mut self, link: LinkId) -> Option<Transmit> {
        loop {
            let state = self.links.get_mut(&link)?;
            let message = state.queue.pop()?;
            for source in state.queue.admit() {
                self.release(source);
            }
            // whoever asked has given up; spare the wire and the peer
            if let Source::Request(request) = message.source
                && !self.pending.contains(request)
            {
                continue;
            }
            return Some(Transmit { headers: message.headers, body: message.body });
        }
    }

    /// Whether messages wait for `link`.
    #[must_use]
    pub fn has_transmit(&self, link: LinkId) -> bool {
        self.links.get(&link).is_some_and(|link| !link.queue.is_empty())
    }

    /// Whether `link` is congested: what came by it finds no room to go on.
    #[must_use]
    pub fn is_congested(&self, link: LinkId) -> bool {
        self.links.get(&link).is_some_and(|link| link.held > 0)
    }

    /// Whether the neighbour on `link` has proved who it is: it was dialed, it is of this machine, the gate
    /// [knows](IncomingFilter::knows) it, or has let a message of it through. A certificate alone says that it
    /// belongs to the project, not that it has registered. Without a gate there is nothing to prove.
    #[must_use]
    pub fn is_proven(&self, link: LinkId) -> bool {
        self.links.get(&link).is_some_and(|link| link.proven)
    }

    /// Bytes queued for `link`: small messages, large messages.
    #[must_use]
    pub fn queued_bytes(&self, link: LinkId) -> (usize, usize) {
        self.links.get(&link).map_or((0, 0), |link| link.queue.bytes())
    }

    /// The cell's name.
    #[must_use]
    pub fn name(&self) -> &Fqcn {
        &self.config.name
    }

    /// The names of the neighbours that are linked and have not said goodbye, sorted.
    pub fn neighbours(&self) -> impl Iterator<Item = &Fqcn> {
        self.neighbours.names()
    }

    /// What is known of a link.
    #[must_use]
    pub fn link(&self, link: LinkId) -> Option<&Arc<LinkFacts>> {
        self.links.get(&link).map(|link| &link.facts)
    }

    /// Targets of requests that have not settled.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// The counters.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        &self.stats
    }
}

impl fmt::Debug for Switch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Switch")
            .field("name", &self.config.name)
            .field("links", &self.links.len())
            .field("pending", &self.pending.len())
            .field("leaving", &self.leaving)
            .finish_non_exhaustive()
    }
}
