//! The one task that owns the switch.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use locule_message::{Fqcn, Message, ReturnCode, key};
use locule_stream::{Notice, Way};
use locule_switch::{
    CloseReason, Delivery, LinkFacts, LinkId, Output, Pass, Refusal, Reply, ReplyTo, Request, RequestError,
    RequestId, Settled, Switch,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::task::{self, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::bulk;
use crate::envelope::{self, Envelopes, Letter, Treated};
use crate::exchange::{Arrived, Exchange, StreamReplyTo, Todo, as_asked};
use crate::handler::{Handlers, Incoming};
use crate::link::{Admitted, LinkContext, LinkEvent, Order, Up, sleep_until};
use crate::refusals::Refusals;
use crate::stats::CellStats;
use crate::{HandlerError, now};

/// What a handle of the cell wants.
#[derive(Debug)]
pub(crate) enum Command {
    Request { token: u64, targets: Vec<Fqcn>, request: Request, outcomes: Outcomes },
    Notify { target: Fqcn, notice: Request, outcome: oneshot::Sender<Result<(), RequestError>> },
    Shutdown { grace: Duration },
}

/// Gets the outcome of a request at each of its targets.
pub(crate) type Outcomes = mpsc::UnboundedSender<(Fqcn, Result<Reply, RequestError>)>;

/// Bytes that a link may have taken over and not sent; the rest waits in the switch, where what is
/// urgent can overtake it.
const LINK_WINDOW: usize = 256 << 10;
/// Link events handled before the outputs are looked at.
const EVENT_BATCH: usize = 32;

pub(crate) struct Driver {
    pub(crate) switch: Switch,
    pub(crate) exchange: Exchange,
    pub(crate) context: Arc<LinkContext>,
    pub(crate) handlers: Arc<Handlers>,
    pub(crate) events: mpsc::Receiver<LinkEvent>,
    pub(crate) commands: mpsc::Receiver<Command>,
    /// Requests that nobody waits for any more. Unbounded because a future cannot wait while it is
    /// dropped; there are no more entries than requests.
    pub(crate) forgotten: mpsc::UnboundedReceiver<u64>,
    pub(crate) neighbours: watch::Sender<Vec<Fqcn>>,
    /// Ends the listeners and dialers.
    pub(crate) stop: CancellationToken,
    pub(crate) links: BTreeMap<LinkId, LinkState>,
    pub(crate) waiting: Waiting,
    pub(crate) running: Running,
    pub(crate) leaving: Option<Leaving>,
    pub(crate) refusals: Refusals,
    pub(crate) envelopes: Envelopes,
    /// Credit for the message being looked at, which whoever takes it further may keep.
    pub(crate) credit: Option<OwnedSemaphorePermit>,
}

pub(crate) struct LinkState {
    orders: mpsc::UnboundedSender<Order>,
    stop: CancellationToken,
    /// Bytes handed to the link and not sent.
    under_way: usize,
    /// Credit for what came by the link and cannot go on. Kept, it stops the reading.
    kept: Vec<OwnedSemaphorePermit>,
}

/// Who waits for which request.
#[derive(Default)]
pub(crate) struct Waiting {
    outcomes: HashMap<RequestId, Waiter>,
    by_token: HashMap<u64, RequestId>,
}

struct Waiter {
    token: u64,
    secure: bool,
    outcomes: Outcomes,
}

/// The handlers at work, or waiting for their turn.
pub(crate) struct Running {
    tasks: JoinSet<Result<Reply, HandlerError>>,
    of: HashMap<task::Id, Handled>,
    turns: Arc<Semaphore>,
    /// The parts of those who have any, by the first segments of their names.
    parts: HashMap<String, Part>,
    max_turns: usize,
    bytes: usize,
    panics: u64,
    turned_away: u64,
}

struct Handled {
    reply_to: Option<ReplyPath>,
    root: String,
    bytes: usize,
}

/// What one site, with all cells below it, has of the handlers.
struct Part {
    messages: usize,
    bytes: usize,
    turns: Arc<Semaphore>,
}

/// What one site may have of so many messages, bytes or handlers: a quarter is for the others.
fn part(of: usize) -> usize {
    of - of / 4
}

/// The way that a reply takes: that of its request.
enum ReplyPath {
    Message(ReplyTo),
    /// In an envelope, as the request.
    Sealed(ReplyTo),
    Stream(StreamReplyTo),
}

/// The cell is on its way out.
pub(crate) struct Leaving {
    deadline: Instant,
    /// The goodbyes, until all are answered or given up.
    goodbyes: Option<RequestId>,
    /// All has left; the links close.
    closing: bool,
}

impl Driver {
    pub(crate) async fn run(mut self) {
        let mut batch = Vec::with_capacity(EVENT_BATCH);
        loop {
            let deadline = [
                self.switch.poll_timeout(),
                self.exchange.poll_timeout(),
                self.envelopes.poll_timeout(),
                self.leaving.as_ref().map(|leaving| leaving.deadline),
            ];
            let deadline = deadline.into_iter().flatten().min();
            tokio::select! {
                _ = self.events.recv_many(&mut batch, EVENT_BATCH) => {
                    batch.drain(..).for_each(|event| self.handle_event(event));
                }
                command = self.commands.recv() => match command {
                    Some(command) => self.handle_command(command),
                    // nobody is left who could want anything
                    None => break,
                },
                Some(token) = self.forgotten.recv() => {
                    match self.waiting.forget(token) {
                        Some(id) => self.switch.cancel(id),
                        None => self.exchange.forget(token),
                    }
                }
                Some(done) = self.running.tasks.join_next_with_id() => self.finish(done),
                Some(done) = self.envelopes.done() => {
                    let treated = self.envelopes.finish(done);
                    self.treat(treated);
                }
                () = sleep_until(deadline), if deadline.is_some() => {
                    self.switch.handle_timeout(now());
                    self.exchange.handle_timeout(now());
                    let late = self.envelopes.expire(now().instant);
                    self.treat(late);
                }
            }
            self.handle_outputs();
            self.publish();
            if self.is_done() {
                break;
            }
        }
        self.close();
    }

    fn handle_event(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Up(up) => self.link_up(*up),
            LinkEvent::Message { link, message, credit } => {
                let sealed = message.is_sealed();
                self.switch.handle_message(now(), link, message);
                if self.switch.is_congested(link)
                    && let Some(state) = self.links.get_mut(&link)
                {
                    state.kept.push(credit);
                } else if sealed {
                    // no more is read from the link than can be opened
                    self.credit = Some(credit);
                    self.handle_switch();
                    self.credit = None;
                }
            }
            LinkEvent::Written { link, bytes } => {
                if let Some(state) = self.links.get_mut(&link) {
                    state.under_way = state.under_way.saturating_sub(bytes);
                }
                self.feed(link);
                self.exchange.streams.has_room(link.0);
            }
            LinkEvent::Down { link } => {
                self.links.remove(&link);
                self.switch.link_down(now(), link);
                self.exchange.streams.link_lost(link.0);
                self.exchange.streams.resume();
            }
        }
    }

    fn link_up(&mut self, up: Up) {
        let Up { facts, max_frame_len, orders, stop, answer } = up;
        let (link, peer) = (facts.link, facts.peer.clone());
        match self.switch.link_up(now(), facts, max_frame_len) {
            Ok(()) => {
                tracing::info!(peer = %peer, %link, "link up");
                self.links.insert(link, LinkState { orders, stop, under_way: 0, kept: Vec::new() });
                self.exchange.streams.resume();
                let proven = self.switch.is_proven(link);
                let _ = answer.send(Ok(Admitted { proven }));
            }
            Err(error) => {
                self.refusals.neighbour(&peer, link, &error);
                let _ = answer.send(Err(error));
            }
        }
    }

    fn handle_command(&mut self, command: Command) {
        match command {
            // nobody may wait any more; a token that was forgotten already would never be again
            Command::Request { outcomes, targets, .. } if outcomes.is_closed() || targets.is_empty() => {}
            Command::Request { token, targets, request, outcomes }
                if self.is_streamed(&request, &targets) =>
            {
                self.exchange.request(now(), &mut self.switch, token, &targets, &request, &outcomes);
            }
            Command::Request { token, targets, request, outcomes } if self.is_sealed(&request, &targets) => {
                let deadline = now().instant + request.timeout.min(Request::MAX_TIMEOUT);
                for target in targets {
                    match self.switch.filter_request(now(), &target, request.clone()) {
                        Ok(request) => {
                            let outcomes = outcomes.clone();
                            self.submit(Letter::Request { token, target, request, outcomes, deadline });
                        }
                        Err(error) => _ = outcomes.send((target, Err(error))),
                    }
                }
            }
            Command::Request { token, targets, request, outcomes } => {
                let id = self.switch.request(now(), &targets, request);
                self.waiting.insert(id, token, false, outcomes);
            }
            Command::Notify { target, notice, outcome }
                if self.is_streamed(&notice, std::slice::from_ref(&target)) =>
            {
                self.exchange.notify(now(), &mut self.switch, &target, &notice, outcome);
            }
            Command::Notify { target, notice, outcome }
                if self.is_sealed(&notice, std::slice::from_ref(&target)) =>
            {
                match self.switch.filter_request(now(), &target, notice) {
                    Ok(notice) => self.submit(Letter::Notice { target, notice, outcome }),
                    Err(error) => _ = outcome.send(Err(error)),
                }
            }
            Command::Notify { target, notice, outcome } => {
                let _ = outcome.send(self.switch.notify(now(), &target, &notice));
            }
            Command::Shutdown { grace } => self.leave(grace),
        }
    }

    /// Whether a request goes as streams. What is for this cell itself needs none, and one that leaves
    /// sends nothing new: the switch says so.
    fn is_streamed(&self, request: &Request, targets: &[Fqcn]) -> bool {
        locule_stream::is_streamed(&request.channel)
            && self.leaving.is_none()
            && !targets.contains(self.switch.name())
    }

    /// Whether a plain request is to be sealed. What is for this cell itself is not.
    fn is_sealed(&self, request: &Request, targets: &[Fqcn]) -> bool {
        request.secure && !targets.contains(self.switch.name())
    }

    fn handle_outputs(&mut self) {
        loop {
            self.handle_switch();
            let busy = self.handle_exchange(None);
            let sent = self.send_chunk();
            // a stream that has no way fails where it would be sent
            if !busy && !sent && !self.handle_exchange(None) {
                break;
            }
        }
    }

    /// Sends the next chunk of a stream; says whether there was one.
    fn send_chunk(&mut self) -> bool {
        let Self { switch, exchange, envelopes, .. } = self;
        let way = |target: &Fqcn, secure: bool| match switch.way(target) {
            Some((link, true)) if secure && !envelopes.has_room(target) => Way::Full { link: link.0 },
            Some((link, true)) => Way::Open { link: link.0 },
            Some((link, false)) => Way::Full { link: link.0 },
            None => Way::None,
        };
        let Some((stream, notice)) = exchange.streams.poll_chunk(now().instant, way) else { return false };
        if notice.secure {
            self.submit(Letter::Chunk { stream, notice });
        } else if let Err(error) = self.send_notice(notice) {
            self.exchange.fail(stream, error);
        }
        true
    }

    fn send_notice(&mut self, notice: Notice) -> Result<(), RequestError> {
        let Notice { target, topic, headers, payload, optional, secure } = notice;
        let mut request = Request::new(locule_stream::CHANNEL, topic, payload);
        request.headers = headers;
        request.optional = optional;
        request.secure = secure;
        self.switch.send_stream(now(), &target, &request)
    }

    /// Does what streams want; blobs that have arrived came by `link`. Says whether there was anything.
    fn handle_exchange(&mut self, link: Option<&Arc<LinkFacts>>) -> bool {
        let mut busy = false;
        while let Some(todo) = self.exchange.poll(now(), &mut self.switch) {
            match (todo, link) {
                (Todo::Send(notice), _) => {
                    if let Err(error) = self.send_notice(notice) {
                        tracing::debug!(%error, "stream message dropped");
                    }
                }
                (Todo::Handle(arrived), Some(link)) => self.deliver_blob(arrived, link.clone()),
                (Todo::Handle(_), None) => debug_assert!(false, "blobs arrive with messages"),
            }
            busy = true;
        }
        busy
    }

    fn deliver_blob(&mut self, arrived: Arrived, link: Arc<LinkFacts>) {
        let Arrived { origin, channel, topic, headers, payload, elsewhere, reply_to } = arrived;
        let reply_to = reply_to.map(ReplyPath::Stream);
        let mut message = Message { headers, body: payload.body };
        let filtered = self.switch.filter(Pass::IncomingRequest, now(), &mut message);
        if self.leaving.is_some() {
            return self.answer(reply_to, Reply::error(ReturnCode::ServiceUnavailable, "cell is closed"));
        }
        match filtered {
            Ok(()) => {
                let incoming = Incoming::new(link, origin, channel, topic, message, reply_to.is_some());
                self.dispatch(Incoming { elsewhere, ..incoming }, reply_to);
            }
            Err(refusal) => self.answer(reply_to, Reply::error(refusal.code, refusal.reason)),
        }
    }

    fn handle_switch(&mut self) {
        while let Some(output) = self.switch.poll_output() {
            match output {
                Output::Deliver(delivery) if delivery.message.is_sealed() => {
                    let credit = self.credit.take();
                    self.submit_with(Letter::Delivery(delivery), credit);
                }
                Output::Deliver(delivery) if envelope::is_exchange(&delivery.message) => {
                    let answered = self.envelopes.asked(&self.switch, delivery);
                    self.treat(answered);
                }
                Output::Deliver(mut delivery) => {
                    // only what came in an envelope, or never left, goes on saying that it is secure
                    if delivery.link.link != LinkId::LOOPBACK && delivery.message.secure() {
                        delivery.message.headers.set(key::SECURE, false);
                    }
                    self.take_in(delivery);
                }
                Output::Undelivered(message, refusal) => {
                    self.exchange.streams.undelivered(&message, refusal.code, &refusal.reason);
                }
                Output::Refused(link, origin, refusal) => {
                    self.refusals.message(&origin, link, &refusal.reason);
                }
                Output::Settle(settled) => self.settle(settled),
                Output::Transmit(link) => self.feed(link),
                // the credit of what is held is kept as it arrives
                Output::Congested(link) => tracing::debug!(%link, "link congested"),
                Output::Relieved(link) => {
                    if let Some(state) = self.links.get_mut(&link) {
                        state.kept.clear();
                    }
                }
                Output::Proven(link) => {
                    if let Some(state) = self.links.get(&link) {
                        let _ = state.orders.send(Order::Admit);
                    }
                }
                Output::Close(link, why) => {
                    if why == CloseReason::Unheard {
                        tracing::info!(%link, "link closed: nothing came by it that is let in, for too long");
                    } else {
                        tracing::debug!(%link, ?why, "link closed");
                    }
                    if let Some(state) = self.links.remove(&link) {
                        state.stop.cancel();
                    }
                }
                Output::Left(link) => tracing::debug!(%link, "neighbour left"),
                Output::Dropped(link, why) => tracing::debug!(%link, ?why, "message dropped"),
            }
        }
    }

    /// Hands a link what it can take.
    fn feed(&mut self, link: LinkId) {
        let Some(state) = self.links.get_mut(&link) else { return };
        while state.under_way < LINK_WINDOW
            && let Some(transmit) = self.switch.poll_transmit(link)
        {
            state.under_way += transmit.headers.len() + transmit.body.len();
            // a link that has ended says so itself
            let _ = state.orders.send(Order::Send(transmit));
        }
    }

    fn take_in(&mut self, delivery: Delivery) {
        if delivery.message.channel() == locule_stream::CHANNEL {
            let Delivery { link, origin, message, .. } = delivery;
            self.exchange.streams.handle(now().instant, &origin, message);
            self.handle_exchange(Some(&link));
        } else if bulk::is_bulk(&delivery.message) {
            self.deliver_bulk(delivery);
        } else {
            self.deliver(delivery);
        }
    }

    fn submit(&mut self, letter: Letter) {
        self.submit_with(letter, None);
    }

    fn submit_with(&mut self, letter: Letter, credit: Option<OwnedSemaphorePermit>) {
        let failed = self.envelopes.submit(now(), &mut self.switch, letter, credit);
        self.treat(failed);
    }

    /// Acts upon what was sealed, opened, or neither.
    fn treat(&mut self, treated: impl IntoIterator<Item = Treated>) {
        for treated in treated {
            match treated {
                Treated::Answer(to, reply) => self.switch.reply(now(), to, reply),
                Treated::Letter(letter, Ok(body)) => self.treat_letter(letter, body),
                Treated::Letter(letter, Err(failure)) => self.fail_letter(letter, failure),
            }
        }
        // there may be room for another chunk
        self.exchange.streams.resume();
    }

    fn treat_letter(&mut self, letter: Letter, body: Bytes) {
        match letter {
            // nobody may wait any more
            Letter::Request { outcomes, .. } if outcomes.is_closed() => {}
            Letter::Request { token, target, mut request, outcomes, deadline } => {
                envelope::enclose(&mut request.headers, &mut request.payload, body);
                request.timeout = deadline.saturating_duration_since(now().instant);
                let id = self.switch.request(now(), &[target], request);
                self.waiting.insert(id, token, true, outcomes);
            }
            Letter::Notice { target, mut notice, outcome } => {
                envelope::enclose(&mut notice.headers, &mut notice.payload, body);
                let _ = outcome.send(self.switch.notify(now(), &target, &notice));
            }
            Letter::Reply { to, mut reply } => {
                envelope::enclose(&mut reply.headers, &mut reply.payload, body);
                self.switch.reply(now(), to, reply);
            }
            Letter::Chunk { stream, mut notice } => {
                envelope::enclose(&mut notice.headers, &mut notice.payload, body);
                if let Err(error) = self.send_notice(notice) {
                    self.exchange.fail(stream, error);
                }
            }
            Letter::Delivery(mut delivery) => {
                envelope::disclose(&mut delivery.message.headers, &body);
                delivery.message.body = body.into();
                match self.switch.filter(Pass::IncomingRequest, now(), &mut delivery.message) {
                    Ok(()) => self.take_in(delivery),
                    Err(refusal) => self.refuse(delivery, refusal),
                }
            }
            Letter::Settled(mut settled) => {
                settled.outcome = settled.outcome.and_then(|mut reply| {
                    envelope::disclose(&mut reply.headers, &body);
                    reply.payload.body = body.into();
                    self.switch.filter_sealed_reply(now(), reply)
                });
                self.waiting.settle(settled);
            }
        }
    }

    fn fail_letter(&mut self, letter: Letter, failure: envelope::Failure) {
        tracing::debug!(error = %failure, "message neither sealed nor opened");
        match letter {
            // the ones who asked may have gone
            Letter::Request { target, outcomes, .. } => {
                let _ = outcomes.send((target, Err(failure.into())));
            }
            Letter::Notice { outcome, .. } => {
                let _ = outcome.send(Err(failure.into()));
            }
            Letter::Reply { to, .. } => {
                let reply = Reply::error(ReturnCode::CommError, "reply could not be encrypted");
                self.switch.reply(now(), to, reply);
            }
            Letter::Chunk { stream, .. } => self.exchange.fail(stream, failure.into()),
            Letter::Delivery(delivery) => self.refuse(delivery, failure.into()),
            Letter::Settled(mut settled) => {
                settled.outcome = Err(failure.into());
                self.waiting.settle(settled);
            }
        }
    }

    /// Tells the origin of a message, if it waits to hear, that it was not taken.
    fn refuse(&mut self, delivery: Delivery, refusal: Refusal) {
        if let Some(to) = delivery.reply_to {
            self.switch.reply(now(), to, Reply::error(refusal.code, refusal.reason));
        } else if delivery.message.channel() == locule_stream::CHANNEL {
            self.exchange.streams.undelivered(&delivery.message, refusal.code, &refusal.reason);
            self.handle_exchange(None);
        }
    }

    fn deliver_bulk(&mut self, delivery: Delivery) {
        match bulk::unpack(self.switch.name(), delivery) {
            Ok(deliveries) => deliveries.into_iter().for_each(|delivery| self.deliver(delivery)),
            Err(error) => tracing::debug!(%error, "bulk message dropped"),
        }
    }

    fn deliver(&mut self, delivery: Delivery) {
        let (incoming, reply_to) = Incoming::from_delivery(delivery);
        // what never left has no envelope to go back in
        let sealed = incoming.secure && incoming.link.link != LinkId::LOOPBACK;
        let path = if sealed { ReplyPath::Sealed } else { ReplyPath::Message };
        self.dispatch(incoming, reply_to.map(path));
    }

    fn dispatch(&mut self, incoming: Incoming, reply_to: Option<ReplyPath>) {
        let Some(handler) = self.handlers.find(&incoming.channel, &incoming.topic) else {
            tracing::debug!(channel = %incoming.channel, topic = %incoming.topic, "no handler");
            return self.answer(reply_to, Reply::error(ReturnCode::ProcessException, "no callback"));
        };
        let config = &self.context.config;
        let bytes = incoming.body.len();
        let root = incoming.origin.root().to_owned();
        let (messages, held) = self.running.part_of(&root);
        let full = self.running.of.len() >= config.max_waiting
            || messages >= part(config.max_waiting)
            || !self.running.of.is_empty() && self.running.bytes + bytes > config.max_waiting_bytes
            || messages > 0 && held + bytes > part(config.max_waiting_bytes);
        if full {
            self.running.turned_away += 1;
            return self.answer(reply_to, Reply::error(ReturnCode::ServiceUnavailable, "too many requests"));
        }
        let (own, turns) = (self.running.take_part(&root, bytes), self.running.turns.clone());
        let task = self.running.tasks.spawn(async move {
            let _own = own.acquire_owned().await;
            let _turn = turns.acquire_owned().await;
            handler.handle(incoming).await
        });
        self.running.of.insert(task.id(), Handled { reply_to, root, bytes });
    }

    fn finish(&mut self, done: Result<(task::Id, Result<Reply, HandlerError>), task::JoinError>) {
        let (id, reply) = match done {
            Ok((id, Ok(reply))) => (id, reply),
            Ok((id, Err(error))) => (id, error.into()),
            Err(error) => {
                self.running.panics += u64::from(error.is_panic());
                tracing::error!(%error, "handler panicked");
                (error.id(), Reply::error(ReturnCode::ProcessException, "handler panicked"))
            }
        };
        let Some(handled) = self.running.of.remove(&id) else { return };
        self.running.leave_part(&handled.root, handled.bytes);
        self.answer(handled.reply_to, reply);
    }

    fn answer(&mut self, reply_to: Option<ReplyPath>, mut reply: Reply) {
        reply.headers.remove(key::ENCRYPTED);
        match reply_to {
            Some(ReplyPath::Sealed(to)) => {
                let reply = self.switch.filter_reply(now(), &to, reply);
                self.submit(Letter::Reply { to, reply });
            }
            Some(ReplyPath::Message(to)) => self.switch.reply(now(), to, reply),
            Some(ReplyPath::Stream(to)) => self.exchange.reply(now(), &mut self.switch, to, reply),
            None => {}
        }
    }

    fn settle(&mut self, mut settled: Settled) {
        if let Some(leaving) = &mut self.leaving
            && leaving.goodbyes == Some(settled.request)
        {
            if settled.last {
                leaving.goodbyes = None;
            }
            return;
        }
        if self.envelopes.has_asked(settled.request) {
            let treated = self.envelopes.settle(settled);
            return self.treat(treated);
        }
        let secure = self.waiting.is_secure(settled.request);
        if let Ok(reply) = &settled.outcome {
            let headers = &reply.headers;
            let sealed =
                headers.bool(key::SECURE) == Some(true) && headers.bool(key::ENCRYPTED) == Some(true);
            if sealed && secure {
                return self.submit(Letter::Settled(settled));
            }
            settled.outcome = settled.outcome.and_then(|reply| {
                if sealed {
                    let reason = "the reply is sealed, the request was not".to_owned();
                    return Err(RequestError::Insecure { reason });
                }
                as_asked(reply, false, secure)
            });
        }
        self.waiting.settle(settled);
    }

    /// Stops taking anything on, and says goodbye.
    fn leave(&mut self, grace: Duration) {
        if self.leaving.is_some() {
            return;
        }
        self.stop.cancel();
        let now = now();
        let goodbyes = self.switch.neighbours().next().is_some();
        let goodbyes = goodbyes.then_some(self.switch.leave(now));
        let deadline = now.instant + grace.min(Request::MAX_TIMEOUT);
        self.leaving = Some(Leaving { deadline, goodbyes, closing: false });
    }

    /// On the way out: goodbyes first, then what handlers still say, then the links.
    fn is_done(&mut self) -> bool {
        let Some(leaving) = &mut self.leaving else { return false };
        if now().instant >= leaving.deadline {
            return true;
        }
        if !leaving.closing {
            let sent =
                |(id, state): (&LinkId, &LinkState)| state.under_way == 0 && !self.switch.has_transmit(*id);
            let idle = self.running.of.is_empty()
                && !self.exchange.streams.has_chunks()
                && self.envelopes.is_idle()
                && self.links.iter().all(sent);
            if leaving.goodbyes.is_some() || !idle {
                return false;
            }
            leaving.closing = true;
            // a link without orders ends once it has sent everything
            let silent = mpsc::unbounded_channel().0;
            self.links.values_mut().for_each(|state| state.orders = silent.clone());
        }
        self.links.is_empty()
    }

    fn close(&mut self) {
        self.stop.cancel();
        for state in self.links.values() {
            state.stop.cancel();
        }
        self.links.clear();
        self.switch.close();
        self.exchange.close();
        self.envelopes.close();
        self.handle_outputs();
        self.publish();
    }

    fn publish(&self) {
        self.neighbours.send_if_modified(|names| {
            let changed = !names.iter().eq(self.switch.neighbours());
            if changed {
                *names = self.switch.neighbours().cloned().collect();
            }
            changed
        });
        let mut switch = *self.switch.stats();
        switch.unmatched_replies += self.exchange.unmatched;
        switch.timed_out += self.exchange.timed_out;
        self.context.counters.publish(CellStats {
            switch,
            links: self.links.len() as u64,
            streams: *self.exchange.streams.stats(),
            pending: (self.switch.pending() + self.exchange.pending()) as u64,
            handling: self.running.of.len() as u64,
            turned_away: self.running.turned_away,
            panics: self.running.panics + self.envelopes.panics,
            ..CellStats::default()
        });
    }
}

impl Waiting {
    fn insert(&mut self, id: RequestId, token: u64, secure: bool, outcomes: Outcomes) {
        self.by_token.insert(token, id);
        self.outcomes.insert(id, Waiter { token, secure, outcomes });
    }

    fn is_secure(&self, id: RequestId) -> bool {
        self.outcomes.get(&id).is_some_and(|waiter| waiter.secure)
    }

    fn settle(&mut self, settled: Settled) {
        let Settled { request, target, outcome, last } = settled;
        let Some(waiter) = self.outcomes.get(&request) else { return };
        // the one who asked may have gone
        let _ = waiter.outcomes.send((target, outcome));
        if last && let Some(waiter) = self.outcomes.remove(&request) {
            self.by_token.remove(&waiter.token);
        }
    }

    fn forget(&mut self, token: u64) -> Option<RequestId> {
        let id = self.by_token.remove(&token)?;
        self.outcomes.remove(&id);
        Some(id)
    }
}

impl Running {
    pub(crate) fn new(max_handlers: usize) -> Self {
        Self {
            tasks: JoinSet::new(),
            of: HashMap::new(),
            turns: Arc::new(Semaphore::new(max_handlers)),
            parts: HashMap::new(),
            max_turns: part(max_handlers),
            bytes: 0,
            panics: 0,
            turned_away: 0,
        }
    }

    /// Messages and bytes that a site has here.
    fn part_of(&self, root: &str) -> (usize, usize) {
        self.parts.get(root).map_or((0, 0), |part| (part.messages, part.bytes))
    }

    /// A message more of a site; gives the turns that it may have.
    fn take_part(&mut self, root: &str, bytes: usize) -> Arc<Semaphore> {
        let new = || Part { messages: 0, bytes: 0, turns: Arc::new(Semaphore::new(self.max_turns)) };
        let part = self.parts.entry(root.to_owned()).or_insert_with(new);
        part.messages += 1;
        part.bytes += bytes;
        self.bytes += bytes;
        part.turns.clone()
    }

    fn leave_part(&mut self, root: &str, bytes: usize) {
        self.bytes -= bytes;
        if let Some(part) = self.parts.get_mut(root) {
            part.messages -= 1;
            part.bytes -= bytes;
            if part.messages == 0 {
                self.parts.remove(root);
            }
        }
    }
}
