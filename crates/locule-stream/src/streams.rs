use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use locule_message::{Fqcn, Headers, Message, Payload, ReturnCode, key as cell_key};

use crate::dialect::{Older, is_remembered};
use crate::incoming::{Chunk, Incoming, ReceiveError, Taken};
use crate::outgoing::{Due, Outgoing};
use crate::share::{Shares, root};
use crate::wire::{ACK, DATA, ERROR, Notice, fault, key, kind};
use crate::{Arrival, Blob, Spools, StreamError, StreamId};

/// Sizes, waits and bounds of streams. The defaults are the peer's, except where it says otherwise.
#[derive(Clone, Debug)]
pub struct StreamConfig {
    /// Bytes of a chunk.
    pub chunk_size: usize,
    /// Bytes that may be under way without an acknowledgement.
    pub window: u64,
    /// Bytes after which a receiver is asked to acknowledge. Less than the peer's 16 MiB: what is
    /// acknowledged is what tells a slow transfer from a dead one.
    pub ack_interval: u64,
    /// The same for senders that do not say.
    pub default_ack_interval: u64,
    /// How long nothing may move before chunks of a reliable stream are sent again.
    pub retry_wait: Duration,
    /// How long nothing may be acknowledged before a stream is given up.
    pub retry_timeout: Duration,
    /// How long nothing may arrive before a stream is given up.
    pub read_timeout: Duration,
    /// Largest blob to receive, in bytes.
    pub max_blob: u64,
    /// Most bytes of blobs that have not arrived whole, with what streams cost besides; and most bytes of
    /// replies that have not been acknowledged. Whoever has most of them makes room for the others.
    pub max_held: u64,
    /// Where bodies go that are not to be held in memory.
    pub spools: Spools,
    /// Most bytes there of one peer's blobs that have not arrived whole.
    pub max_elsewhere: u64,
    /// Most streams each way. Whoever has most of them makes room for the others.
    pub max_streams: usize,
    /// Most streams that have ended and are remembered, so that repeated chunks are told so.
    pub max_remembered: usize,
}

impl Default for StreamConfig {
    fn default() -> Self {
        Self {
            chunk_size: 1 << 20,
            window: 64 << 20,
            ack_interval: 4 << 20,
            default_ack_interval: 4 << 20,
            retry_wait: Duration::from_secs(5),
            retry_timeout: Duration::from_secs(60),
            read_timeout: Duration::from_secs(300),
            max_blob: 4 << 30,
            max_held: 16 << 30,
            spools: Spools::default(),
            max_elsewhere: 16 << 30,
            max_streams: 65_536,
            max_remembered: 16_384,
        }
    }
}

/// What a cell's streams want done, or wants known.
#[derive(Debug)]
pub enum Output {
    /// Send this, small, at once.
    Send(Notice),
    /// A blob has arrived whole.
    Arrived(Arrival),
    /// A blob with this request id was begun and will not arrive.
    Broken {
        /// Who was sending it.
        origin: Fqcn,
        /// What request it belongs to.
        request_id: String,
        /// Why it ends.
        error: StreamError,
    },
    /// Something moved: a chunk of this request left, was acknowledged, or one of its reply arrived.
    Moved {
        /// To whom it goes, or from whom it comes.
        peer: Fqcn,
        /// The request.
        request_id: String,
    },
    /// Every chunk has left, and has arrived if the stream is reliable.
    Sent(StreamId),
    /// A blob will not arrive.
    Failed(StreamId, StreamError),
}

/// How a chunk would leave for its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// At once, by the link of this number.
    Open {
        /// The link; see [`Streams::link_lost`].
        link: u64,
    },
    /// Not now: what goes that way is held up.
    Full {
        /// The link that has no room; see [`Streams::has_room`].
        link: u64,
    },
    /// No link leads there.
    None,
}

/// What streams have done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamStats {
    /// Blobs begun.
    pub sent: u64,
    /// Blobs arrived whole.
    pub received: u64,
    /// Blobs that did not arrive, either way.
    pub failed: u64,
    /// Chunks that came twice.
    pub repeated: u64,
    /// Stream messages that made no sense and were dropped.
    pub malformed: u64,
}

/// All streams of a cell; see the [crate](crate) for how to drive it.
#[derive(Debug)]
pub struct Streams {
    config: StreamConfig,
    next_id: u64,
    older: Older,
    outgoing: BTreeMap<StreamId, Outgoing>,
    /// Those that have chunks to send, in turns; and those whose way was full when it was their turn.
    line: VecDeque<StreamId>,
    held_up: HashMap<u64, Vec<StreamId>>,
    without_way: Vec<StreamId>,
    /// Replies that have not been acknowledged, by who is to have them.
    unacknowledged: Shares,
    incoming: HashMap<Source, Incoming>,
    /// What has not arrived whole, by who sends it.
    held: Shares,
    /// The same of bodies that are not in memory.
    elsewhere: Shares,
    /// Streams that have ended, in the order in which they are forgotten.
    ended: HashMap<Source, Ended>,
    ended_in_order: VecDeque<(Instant, Source)>,
    timers: BTreeSet<(Instant, Timer)>,
    outputs: VecDeque<Output>,
    stats: StreamStats,
}

type Source = (Fqcn, u64);

/// Longest notice that is remembered, in bytes of its headers; the sender chose most of it.
const MAX_REMEMBERED_LEN: usize = 1 << 10;

/// How a stream ended, for those who go on sending it.
#[derive(Debug)]
enum Ended {
    Arrived { offset: u64, sequence: u64, reliable: bool },
    Failed { notice: Option<Notice> },
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Outgoing(StreamId),
    Incoming(Fqcn, u64),
}

impl Streams {
    /// A cell's streams. They are numbered from `first_id`, below 2^62, which must differ from that of
    /// an earlier process of the same name: best draw it at random.
    #[must_use]
    pub fn new(config: StreamConfig, first_id: u64) -> Self {
        Self {
            config,
            next_id: first_id & (u64::MAX >> 2),
            older: Older::default(),
            outgoing: BTreeMap::new(),
            line: VecDeque::new(),
            held_up: HashMap::new(),
            without_way: Vec::new(),
            unacknowledged: Shares::default(),
            incoming: HashMap::new(),
            held: Shares::default(),
            elsewhere: Shares::default(),
            ended: HashMap::new(),
            ended_in_order: VecDeque::new(),
            timers: BTreeSet::new(),
            outputs: VecDeque::new(),
            stats: StreamStats::default(),
        }
    }

    /// Begins to send a blob; its chunks leave by [`poll_chunk`](Self::poll_chunk). It ends with
    /// [`Output::Sent`] or [`Output::Failed`]; one with a request id is remembered until
    /// [`cancel`](Self::cancel), since its receiver may object later.
    ///
    /// Gives `None` when there are as many streams as there may be.
    pub fn send(&mut self, now: Instant, target: Fqcn, mut blob: Blob) -> Option<StreamId> {
        let window = self.older.adapt(&target, &self.config, &mut blob);
        let len = blob.payload.body.len() as u64;
        let is_reply = blob.reliable;
        while self.outgoing.len() >= self.config.max_streams
            || is_reply && self.unacknowledged.bytes + len > self.config.max_held
        {
            if !self.drop_reply() {
                break;
            }
        }
        if self.outgoing.len() >= self.config.max_streams {
            return None;
        }
        let id = StreamId(self.next_id);
        self.next_id += 1;
        if is_reply {
            self.unacknowledged.add(&target, len);
        }
        let mut stream = Outgoing::new(&self.config, window, now, id, target, blob);
        if let Due::Later(at) | Due::Again(at) = stream.due(now) {
            self.set_timer(id, &mut stream, at);
        }
        self.outgoing.insert(id, stream);
        self.stand_in_line(id);
        self.stats.sent += 1;
        Some(id)
    }

    /// Forgets a stream. A receiver that has a part of it is told that no more comes.
    pub fn cancel(&mut self, id: StreamId) {
        let Some(stream) = self.remove_outgoing(id) else { return };
        if stream.is_half_sent() {
            let mut headers = error_headers(id.0, "given up", fault::GENERAL);
            headers.set(key::CHANNEL, &stream.channel);
            headers.set(key::TOPIC, &stream.topic);
            if let Some(request_id) = &stream.request_id {
                headers.set(key::REQUEST, request_id);
            }
            self.outputs.push_back(Output::Send(notice(stream.target, DATA, headers)));
        }
    }

    /// The next chunk to send. `way` says how it would leave for a target, and whether it is to be sealed
    /// before; streams take turns, and one that cannot leave waits until [`resume`](Self::resume).
    pub fn poll_chunk(
        &mut self,
        now: Instant,
        mut way: impl FnMut(&Fqcn, bool) -> Way,
    ) -> Option<(StreamId, Notice)> {
        while let Some(id) = self.line.pop_front() {
            let Some(stream) = self.outgoing.get_mut(&id) else { continue };
            stream.in_line = false;
            if !stream.has_chunk() {
                continue;
            }
            match way(&stream.target, stream.secure) {
                Way::Open { link } => stream.via(link),
                Way::Full { link } => {
                    self.hold_up(id, Some(link));
                    continue;
                }
                Way::None if stream.reliable => {
                    stream.no_way(now);
                    self.hold_up(id, None);
                    continue;
                }
                Way::None => {
                    self.fail(id, StreamError::Unreachable);
                    continue;
                }
            }
            let chunk = stream.poll_chunk(now);
            if let Some(request_id) = stream.request_id.clone().filter(|_| !stream.reliable) {
                self.outputs.push_back(Output::Moved { peer: stream.target.clone(), request_id });
            }
            self.stand_in_line(id);
            self.settle_if_done(id);
            if let Some(chunk) = chunk {
                return Some((id, chunk));
            }
        }
        None
    }

    /// There may be a way, or room, for those that found none.
    pub fn resume(&mut self) {
        self.line.extend(self.without_way.drain(..));
        self.line.extend(self.held_up.drain().flat_map(|(_, held_up)| held_up));
    }

    /// A link that was full may have room.
    pub fn has_room(&mut self, link: u64) {
        self.line.extend(self.held_up.remove(&link).into_iter().flatten());
    }

    /// A link is gone: what may be lost with it is sent again, or has failed if it is not to be.
    pub fn link_lost(&mut self, link: u64) {
        self.has_room(link);
        let over_it = |(id, stream): (&StreamId, &Outgoing)| stream.is_via(link).then_some(*id);
        for id in self.outgoing.iter().filter_map(over_it).collect::<Vec<_>>() {
            let Some(stream) = self.outgoing.get_mut(&id) else { continue };
            if stream.reliable {
                stream.rewind();
                self.stand_in_line(id);
            } else {
                self.fail(id, StreamError::LinkLost);
            }
        }
    }

    /// Takes a message on [`CHANNEL`](crate::CHANNEL) that `origin` made and that is for this cell. A chunk
    /// that was sealed has been opened, and one that was not does not say that it is secure: of a stream, all
    /// are or none.
    pub fn handle(&mut self, now: Instant, origin: &Fqcn, message: Message) {
        let (id, kind) = (message.headers.u64(key::ID), message.headers.u64(key::KIND));
        let (Some(id), Some(kind)) = (id, kind) else { return self.drop_malformed() };
        match (message.topic(), kind) {
            (DATA, kind::CHUNK | kind::FINAL) => self.receive(now, origin, id, kind == kind::FINAL, message),
            (DATA, kind::ERROR) => self.receive_abandoned(now, origin, id, &message),
            (ACK, kind::ACK) => self.receive_ack(now, origin, StreamId(id), &message),
            (ACK | ERROR, kind::ERROR) => self.receive_error(origin, StreamId(id), &message),
            _ => self.drop_malformed(),
        }
    }

    /// A chunk ended in this cell, by its headers, for this reason: tells its sender, who would wait
    /// otherwise.
    pub fn undelivered(&mut self, message: &Message, code: ReturnCode, reason: &str) {
        let (Some(origin), Some(target)) = (message.origin(), message.destination()) else { return };
        let headers = &message.headers;
        if message.topic() != DATA || headers.u64(key::KIND) == Some(kind::ERROR) {
            return;
        }
        let Some(id) = headers.u64(key::ID) else { return };
        let text = |key| headers.str(key).unwrap_or_default();
        let unreachable = matches!(code, ReturnCode::CommError | ReturnCode::TargetUnreachable);
        let fault = if unreachable { fault::UNREACHABLE } else { fault::GENERAL };
        let mut error = error_headers(id, reason, fault);
        error.set(cell_key::RETURN_CODE, code.as_str());
        error.set(key::CHANNEL, text(key::CHANNEL));
        error.set(key::TOPIC, text(key::TOPIC));
        error.set(key::UNREACHED, &target);
        if let Some(request_id) = headers.str(key::REQUEST) {
            error.set(key::REQUEST, request_id);
        }
        self.outputs.push_back(Output::Send(notice(origin, ERROR, error)));
    }

    /// Does what is due: repeats, gives up, forgets.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((_, timer)) = self.timers.first().filter(|(at, _)| *at <= now).cloned() {
            self.timers.pop_first();
            match timer {
                Timer::Outgoing(id) => {
                    let Some(stream) = self.outgoing.get_mut(&id) else { continue };
                    match stream.due(now) {
                        Due::Later(at) => self.set_timer_of(id, at),
                        Due::Again(at) => {
                            self.set_timer_of(id, at);
                            self.stand_in_line(id);
                        }
                        Due::Fail(error) => self.fail(id, error),
                    }
                }
                Timer::Incoming(origin, id) => {
                    let Some(stream) = self.incoming.get_mut(&(origin.clone(), id)) else { continue };
                    if stream.deadline <= now {
                        self.give_up(now, &origin, id, &ReceiveError::Stalled);
                    } else {
                        stream.timer = stream.deadline;
                        self.timers.insert((stream.deadline, Timer::Incoming(origin, id)));
                    }
                }
            }
        }
        while let Some((_, source)) = self.ended_in_order.pop_front_if(|(at, _)| *at <= now) {
            self.ended.remove(&source);
        }
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let timer = self.timers.first().map(|(at, _)| *at);
        timer.into_iter().chain(self.ended_in_order.front().map(|(at, _)| *at)).min()
    }

    /// What is to be done next; call until it gives `None` after every other call.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// The counters.
    #[must_use]
    pub fn stats(&self) -> &StreamStats {
        &self.stats
    }

    /// Bytes held of blobs that have not arrived whole, with what their streams cost besides.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.held.bytes
    }

    /// Whether chunks wait to leave.
    #[must_use]
    pub fn has_chunks(&self) -> bool {
        !self.line.is_empty() || !self.held_up.is_empty() || !self.without_way.is_empty()
    }

    fn stand_in_line(&mut self, id: StreamId) {
        let Some(stream) = self.outgoing.get_mut(&id) else { return };
        if !stream.in_line && stream.has_chunk() {
            stream.in_line = true;
            self.line.push_back(id);
        }
    }

    fn hold_up(&mut self, id: StreamId, link: Option<u64>) {
        let waiting = match link {
            Some(link) => self.held_up.entry(link).or_default(),
            None => &mut self.without_way,
        };
        // those that ended meanwhile are still in it
        if waiting.len() > 2 * self.outgoing.len() {
            waiting.retain(|id| self.outgoing.contains_key(id));
        }
        if let Some(stream) = self.outgoing.get_mut(&id) {
            stream.in_line = true;
            waiting.push(id);
        }
    }

    fn set_timer(&mut self, id: StreamId, stream: &mut Outgoing, at: Instant) {
        stream.timer = Some(at);
        self.timers.insert((at, Timer::Outgoing(id)));
    }

    fn set_timer_of(&mut self, id: StreamId, at: Instant) {
        if let Some(stream) = self.outgoing.get_mut(&id) {
            stream.timer = Some(at);
            self.timers.insert((at, Timer::Outgoing(id)));
        }
    }

    /// Gives up the oldest reply to whoever has most that were not acknowledged, and more than one; says
    /// whether there was such a one.
    fn drop_reply(&mut self) -> bool {
        let Some(most) = self.unacknowledged.largest(2).map(str::to_owned) else { return false };
        let reply = |(_, stream): &(&StreamId, &Outgoing)| stream.reliable && root(&stream.target) == most;
        let Some(id) = self.outgoing.iter().find(reply).map(|(id, _)| *id) else { return false };
        self.cancel(id);
        self.stats.failed += 1;
        self.outputs.push_back(Output::Failed(id, StreamError::Stalled));
        true
    }

    /// Takes a stream out, with its timer.
    fn remove_outgoing(&mut self, id: StreamId) -> Option<Outgoing> {
        let stream = self.outgoing.remove(&id)?;
        if let Some(at) = stream.timer {
            self.timers.remove(&(at, Timer::Outgoing(id)));
        }
        if stream.reliable {
            self.unacknowledged.remove(&stream.target, stream.len);
        }
        Some(stream)
    }

    /// Takes a stream out, with its timer.
    fn remove_incoming(&mut self, source: &Source) -> Option<Incoming> {
        let stream = self.incoming.remove(source)?;
        self.timers.remove(&(stream.timer, Timer::Incoming(source.0.clone(), source.1)));
        self.held.remove(&source.0, stream.cost());
        self.elsewhere.remove(&source.0, stream.elsewhere());
        Some(stream)
    }

    /// Whether a stream of `origin` may begin. When there are too many, whoever has most gives up the one of
    /// which nothing came for longest.
    fn make_room(&mut self, now: Instant, origin: &Fqcn) -> bool {
        if self.incoming.len() < self.config.max_streams {
            return true;
        }
        let most = self.held.most_streams().unwrap_or_default().to_owned();
        if self.held.streams_of(origin) + 1 >= self.held.streams_of_root(&most) {
            return false;
        }
        let theirs = self.incoming.iter().filter(|(source, _)| root(&source.0) == most);
        let Some((origin, id)) =
            theirs.min_by_key(|(_, stream)| stream.deadline).map(|(source, _)| source.clone())
        else {
            return false;
        };
        self.give_up(now, &origin, id, &ReceiveError::NoRoom);
        true
    }

    /// Whoever holds most gives up what is largest, until there is no more than there may be.
    fn keep_within_bounds(&mut self, now: Instant) {
        while self.held.bytes > self.config.max_held {
            let Some(most) = self.held.largest(1).map(str::to_owned) else { return };
            let theirs = self.incoming.iter().filter(|(source, _)| root(&source.0) == most);
            let largest = theirs.max_by_key(|(_, stream)| stream.cost()).map(|(source, _)| source.clone());
            let Some((origin, id)) = largest else { return };
            self.give_up(now, &origin, id, &ReceiveError::NoRoom);
        }
    }

    fn settle_if_done(&mut self, id: StreamId) {
        let Some(stream) = self.outgoing.get_mut(&id) else { return };
        if !stream.is_settled() || stream.is_released() {
            return;
        }
        stream.release();
        if !is_remembered(stream) {
            self.remove_outgoing(id);
        }
        self.outputs.push_back(Output::Sent(id));
    }

    fn fail(&mut self, id: StreamId, error: StreamError) {
        if self.remove_outgoing(id).is_some() {
            self.stats.failed += 1;
            self.outputs.push_back(Output::Failed(id, error));
        }
    }

    fn receive(&mut self, now: Instant, origin: &Fqcn, id: u64, is_final: bool, message: Message) {
        let Some(sequence) = message.headers.u64(key::SEQUENCE) else { return self.drop_malformed() };
        let source = (origin.clone(), id);
        if let Some(ended) = self.ended.get(&source) {
            self.stats.repeated += 1;
            match ended {
                Ended::Arrived { offset, sequence, reliable: true } => {
                    let ack = ack(origin.clone(), id, *offset, *sequence);
                    self.outputs.push_back(Output::Send(ack));
                }
                Ended::Failed { notice: Some(notice) } => {
                    self.outputs.push_back(Output::Send(notice.clone()))
                }
                Ended::Arrived { .. } | Ended::Failed { notice: None } => {}
            }
            return;
        }
        if !self.incoming.contains_key(&source) {
            self.older.note(origin, &message.headers);
            let begun = if self.make_room(now, origin) {
                Incoming::new(&self.config, now, &message)
            } else {
                Err(ReceiveError::NoRoom)
            };
            match begun {
                Ok(stream) => {
                    self.timers.insert((stream.timer, Timer::Incoming(origin.clone(), id)));
                    self.held.add(origin, stream.cost());
                    self.elsewhere.add(origin, stream.elsewhere());
                    self.incoming.insert(source.clone(), stream);
                }
                Err(error) => {
                    let context = Context::of(&message);
                    return self.end_broken(now, origin, id, context, &error);
                }
            }
        }
        let Some(stream) = self.incoming.get_mut(&source) else { return };
        if stream.secure != message.secure() {
            return self.drop_malformed();
        }
        let chunk = Chunk {
            sequence,
            offset: message.headers.u64(key::OFFSET),
            is_final,
            bytes: message.body.whole(),
        };
        let before = (stream.cost(), stream.elsewhere());
        let taken = stream.take(&self.config, chunk);
        self.held.change(origin, before.0, stream.cost());
        self.elsewhere.change(origin, before.1, stream.elsewhere());
        if taken != Ok(Taken::Again) {
            stream.deadline = now + self.config.read_timeout;
        }
        let (offset, last) = stream.progress();
        match taken {
            Ok(Taken::More { ack: wants_ack }) => {
                if let Some(request_id) = stream.request_id.clone() {
                    self.outputs.push_back(Output::Moved { peer: origin.clone(), request_id });
                }
                if wants_ack && let Some(last) = last {
                    self.outputs.push_back(Output::Send(ack(origin.clone(), id, offset, last)));
                }
                self.keep_within_bounds(now);
                if self.elsewhere.bytes_of(origin) > self.config.max_elsewhere {
                    self.give_up(now, origin, id, &ReceiveError::NoRoom);
                }
            }
            Ok(Taken::Again) => {
                self.stats.repeated += 1;
                if stream.reliable
                    && let Some(last) = last
                {
                    self.outputs.push_back(Output::Send(ack(origin.clone(), id, offset, last)));
                }
            }
            Ok(Taken::Complete) => self.complete(now, source, offset, last.unwrap_or_default()),
            Err(error) => self.give_up(now, origin, id, &error),
        }
    }

    fn complete(&mut self, now: Instant, source: Source, offset: u64, sequence: u64) {
        let Some(stream) = self.remove_incoming(&source) else { return };
        let reliable = stream.reliable;
        let (blob, elsewhere) = stream.into_blob();
        self.stats.received += 1;
        let (origin, id) = source.clone();
        self.outputs.push_back(Output::Send(ack(origin.clone(), id, offset, sequence)));
        self.remember(now, source, Ended::Arrived { offset, sequence, reliable });
        self.outputs.push_back(Output::Arrived(Arrival { origin, id: StreamId(id), blob, elsewhere }));
    }

    /// Ends a stream that cannot be received, and tells its sender.
    fn give_up(&mut self, now: Instant, origin: &Fqcn, id: u64, error: &ReceiveError) {
        let Some(stream) = self.remove_incoming(&(origin.clone(), id)) else { return };
        let Incoming { channel, topic, request_id, reliable, .. } = stream;
        self.end_broken(now, origin, id, Context { channel, topic, request_id, reliable }, error);
    }

    fn end_broken(&mut self, now: Instant, origin: &Fqcn, id: u64, context: Context, error: &ReceiveError) {
        self.stats.failed += 1;
        let too_big = matches!(error, ReceiveError::TooBig { .. });
        let mut headers =
            error_headers(id, &error.to_string(), if too_big { fault::TOO_BIG } else { fault::GENERAL });
        headers.set(key::CHANNEL, &context.channel);
        headers.set(key::TOPIC, &context.topic);
        if let Some(request_id) = &context.request_id {
            headers.set(key::REQUEST, request_id);
        }
        // older senders look for errors among the acknowledgements
        self.outputs.push_back(Output::Send(notice(origin.clone(), ERROR, headers.clone())));
        let again = notice(origin.clone(), ACK, headers);
        self.outputs.push_back(Output::Send(again.clone()));
        let is_short = again.headers.byte_len() <= MAX_REMEMBERED_LEN;
        let notice = Some(again).filter(|_| context.reliable && is_short);
        self.remember(now, (origin.clone(), id), Ended::Failed { notice });
        if let Some(request_id) = context.request_id {
            let error = StreamError::Rejected { code: None, reason: error.to_string() };
            self.outputs.push_back(Output::Broken { origin: origin.clone(), request_id, error });
        }
    }

    /// The sender itself gave a stream up.
    fn receive_abandoned(&mut self, now: Instant, origin: &Fqcn, id: u64, message: &Message) {
        let source = (origin.clone(), id);
        let Some(stream) = self.remove_incoming(&source) else { return };
        self.stats.failed += 1;
        self.remember(now, source, Ended::Failed { notice: None });
        if let Some(request_id) = stream.request_id {
            let reason = message.headers.str(key::ERROR).unwrap_or_default().to_owned();
            let error = StreamError::Rejected { code: None, reason };
            self.outputs.push_back(Output::Broken { origin: origin.clone(), request_id, error });
        }
    }

    fn receive_ack(&mut self, now: Instant, origin: &Fqcn, id: StreamId, message: &Message) {
        let Some(stream) = self.outgoing.get_mut(&id).filter(|stream| stream.target == *origin) else {
            return;
        };
        let offset = message.headers.u64(key::OFFSET).unwrap_or_default();
        if stream.acknowledge(now, offset, message.headers.u64(key::SEQUENCE)) {
            if let Some(request_id) = stream.request_id.clone() {
                self.outputs.push_back(Output::Moved { peer: origin.clone(), request_id });
            }
            self.stand_in_line(id);
            self.settle_if_done(id);
        }
    }

    fn receive_error(&mut self, origin: &Fqcn, id: StreamId, message: &Message) {
        let Some(stream) = self.outgoing.get(&id) else { return };
        let headers = &message.headers;
        // whoever reports must be the target, or somebody on the way to it; and speak of this stream
        let by_target =
            stream.target == *origin || headers.str(key::UNREACHED) == Some(stream.target.as_str());
        let same = |key, expected: Option<&str>| headers.str(key).is_none_or(|text| Some(text) == expected);
        let about_it = same(key::CHANNEL, Some(&stream.channel))
            && same(key::TOPIC, Some(&stream.topic))
            && same(key::REQUEST, stream.request_id.as_deref());
        if !by_target || !about_it {
            return self.drop_malformed();
        }
        let reason = headers.str(key::ERROR).unwrap_or_default().to_owned();
        let code = message.return_code();
        let error = match headers.str(key::ERROR_KIND) {
            Some(fault::TOO_BIG) => StreamError::TooBig { reason },
            _ if stream.target != *origin => StreamError::Returned { by: origin.clone(), code, reason },
            Some(_) | None => StreamError::Rejected { code, reason },
        };
        self.fail(id, error);
    }

    fn remember(&mut self, now: Instant, source: Source, ended: Ended) {
        while self.ended_in_order.len() >= self.config.max_remembered.max(1) {
            if let Some((_, oldest)) = self.ended_in_order.pop_front() {
                self.ended.remove(&oldest);
            }
        }
        let until = now + self.config.retry_timeout + self.config.retry_wait;
        self.ended_in_order.push_back((until, source.clone()));
        self.ended.insert(source, ended);
    }

    fn drop_malformed(&mut self) {
        self.stats.malformed += 1;
    }
}

/// What an error says of its stream.
struct Context {
    channel: String,
    topic: String,
    request_id: Option<String>,
    reliable: bool,
}

impl Context {
    fn of(message: &Message) -> Self {
        let headers = &message.headers;
        let text = |key| headers.str(key).unwrap_or_default().to_owned();
        Self {
            channel: text(key::CHANNEL),
            topic: text(key::TOPIC),
            request_id: headers.str(key::REQUEST).map(str::to_owned),
            reliable: headers.bool(key::RELIABLE).unwrap_or_default(),
        }
    }
}

fn ack(target: Fqcn, id: u64, offset: u64, sequence: u64) -> Notice {
    let mut headers = Headers::new();
    headers.set(key::ID, id);
    headers.set(key::KIND, kind::ACK);
    headers.set(key::OFFSET, offset);
    headers.set(key::SEQUENCE, sequence);
    notice(target, ACK, headers)
}

fn error_headers(id: u64, reason: &str, fault: &str) -> Headers {
    let mut headers = Headers::new();
    headers.set(key::ID, id);
    headers.set(key::KIND, kind::ERROR);
    headers.set(key::ERROR, reason);
    headers.set(key::ERROR_KIND, fault);
    headers
}

fn notice(target: Fqcn, topic: &'static str, mut headers: Headers) -> Notice {
    headers.set(cell_key::PAYLOAD_LEN, 0u64);
    Notice { target, topic, headers, payload: Payload::none(), optional: true, secure: false }
}
