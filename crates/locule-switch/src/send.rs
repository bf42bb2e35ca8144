//! How messages leave: composing, stamping, queueing, and what becomes of those that cannot.

use std::time::{Duration, Instant};

use bytes::Bytes;
use locule_message::{Body, Fqcn, HeaderValue, Headers, Message, MessageKind, Payload, ReturnCode, key};

use crate::pending::Match;
use crate::queue::{LaneKind, Offer, Outgoing, Source};
use crate::route::{Hop, append_to_route};
use crate::{
    DropReason, LinkFacts, LinkId, LinkRefused, LinkSecurity, Now, Output, Pass, Refusal, Reply, ReplyTo,
    Request, RequestError, RequestId, Settled, Switch,
};

/// Bodies above this are bulk, in bytes; so are the chunks of streams after the first, whatever their size.
const BULK_FROM: usize = 64 << 10;
/// Channel of streams, topic of their chunks, and the header that numbers these.
const STREAM: &str = "sm__STREAM";
const CHUNK: &str = "sm__DATA";
const SEQUENCE: &str = "sm__sq";
/// Bytes of a frame that are neither headers nor body.
const PREFIX_LEN: usize = 16;
/// Longest text to a return code, in characters.
const MAX_ERROR_CHARS: usize = 2000;
/// How often the waiting lines of a link are looked through.
const LINE_CHECK: Duration = Duration::from_secs(1);

impl Switch {
    pub(crate) fn judge_link(&self, facts: &LinkFacts) -> Result<(), LinkRefused> {
        let peer = || facts.peer.clone();
        if self.leaving {
            return Err(LinkRefused::Closed);
        }
        if facts.link == LinkId::LOOPBACK || self.links.contains_key(&facts.link) {
            return Err(LinkRefused::DuplicateId);
        }
        if facts.peer == self.config.name {
            return Err(LinkRefused::OwnName);
        }
        if let Some(policy) = &self.link_policy {
            policy.admit(facts).map_err(|refusal| LinkRefused::Policy { peer: peer(), refusal })?;
        }
        let live = self.neighbours.get(&facts.peer).and_then(|link| self.links.get(&link));
        match live {
            Some(live) if strength(facts.security) < strength(live.facts.security) => {
                Err(LinkRefused::WeakerThanLive { peer: peer() })
            }
            None if self.links.len() >= self.config.max_links => Err(LinkRefused::TooMany),
            Some(_) | None => Ok(()),
        }
    }

    /// Sends a request, or a one-way message when nobody waits for a reply.
    pub(crate) fn send_request(
        &mut self,
        now: Now,
        target: &Fqcn,
        request: &Request,
        awaited: Option<(RequestId, Instant)>,
    ) -> Result<(), RequestError> {
        let mut message = self.compose_request(now, target, request, awaited.map(|(id, _)| id));
        self.filter_unsealed(Pass::OutgoingRequest, now, &mut message)
            .map_err(|refusal| self.filtered(refusal))?;
        if message.body.len() > self.config.max_message_size {
            self.stats.too_big += 1;
            return Err(RequestError::TooBig);
        }
        let hop = self.stamp_and_route(now, &mut message, target)?;
        match awaited {
            Some(_) => self.stats.requests += 1,
            None => self.stats.notices += 1,
        }
        let Hop::Over(link) = hop else {
            message.headers.set(key::TO_CELL, &self.config.name);
            self.deliver(now, &self.loopback.clone(), self.config.name.clone(), message);
            return Ok(());
        };
        self.address(now, &mut message, link);
        let source = awaited.map_or(Source::Own, |(id, _)| Source::Request(id));
        // bulk waits for room as long as its sender would; what is small should not have to
        let patience = match (lane(&message), awaited) {
            (LaneKind::Answers | LaneKind::Control, _) if !is_chunk(&message) => None,
            (_, Some((_, deadline))) => Some(deadline),
            (_, None) => Some(now.instant + self.config.patience),
        };
        self.enqueue(now, link, &message, source, patience)?;
        if let Some((id, _)) = awaited {
            self.pending.sent(id, target, link);
        }
        Ok(())
    }

    pub(crate) fn send_reply(&mut self, now: Now, to: &ReplyTo, reply: Reply) {
        let mut message = self.compose_reply(now, to, reply);
        if let Err(refusal) = self.filter_unsealed(Pass::OutgoingReply, now, &mut message) {
            self.stats.filtered += 1;
            message = self.compose_reply(now, to, Reply::error(refusal.code, refusal.reason));
        }
        if message.body.len() > self.config.max_message_size {
            self.stats.too_big += 1;
            message = self.compose_reply(now, to, Reply::error(ReturnCode::MsgTooBig, "reply is too big"));
        }
        // the neighbour may have come back over another link meanwhile; it is still that neighbour
        let delivered_by = to.link.link;
        let link = self.links.contains_key(&delivered_by).then_some(delivered_by);
        let mut hop = match link.or_else(|| self.neighbours.get(&to.link.peer)) {
            Some(link) => Hop::Over(link),
            None if delivered_by == LinkId::LOOPBACK => Hop::Here,
            None => return self.drop_message(delivered_by, DropReason::LinkLost),
        };
        if self.stamp(now, &mut message, &to.link.peer).is_err() {
            return self.drop_message(delivered_by, DropReason::Filtered);
        }
        // a stamp may demand that the reply crosses the server
        if message.headers.bool(key::SERVER_TRANSIT_REQUIRED) == Some(true) {
            match self.neighbours.next_hop(&to.origin, &message, None) {
                Ok(by_server) => hop = by_server,
                Err(_) => return self.drop_message(delivered_by, DropReason::Unroutable),
            }
        }
        match hop {
            Hop::Here => {
                self.stats.replies += 1;
                self.accept_reply(now, &self.loopback.clone(), self.config.name.clone(), message);
            }
            Hop::Over(link) => {
                self.address(now, &mut message, link);
                let said = message.return_code();
                let sent = self.enqueue_own(now, link, message);
                // a link may take less than this cell; whoever waits should hear of it
                if sent == Err(RequestError::TooBig) && said != Some(ReturnCode::MsgTooBig) {
                    let reply = Reply::error(ReturnCode::MsgTooBig, "reply is too big for the link");
                    self.send_reply(now, to, reply);
                }
            }
        }
    }

    /// Sends `message`, a request that came by `from`, back with the reason why it goes no further.
    pub(crate) fn send_back(
        &mut self,
        now: Now,
        from: &LinkFacts,
        message: &Message,
        refusal: &Refusal,
        return_reason: &str,
    ) {
        let Some(origin) = message.origin() else { return };
        let req_id = message.headers.get(key::REQ_ID).unwrap_or_else(|| "".into()).into_owned();
        let mut original = message.headers.clone();
        // whoever reads a return needs the names in it, never the bearer's secrets
        for secret in CREDENTIALS {
            original.remove(secret);
        }
        let mut headers = Headers::new();
        set_code(&mut headers, refusal.code, Some(&refusal.reason));
        headers.set(key::ORIGINAL_HEADERS, original.to_value());
        headers.set(key::ORIGIN, &self.config.name);
        headers.set(key::DESTINATION, &origin);
        headers.set(key::REQ_ID, vec![req_id]);
        headers.set(key::MSG_TYPE, MessageKind::Return.as_str());
        headers.set(key::RETURN_REASON, return_reason);
        let mut back = Message::new(headers, Payload::none());
        append_to_route(&mut back, &self.config.name, now.unix_seconds());
        self.stats.returns += 1;
        if self.stamp(now, &mut back, &from.peer).is_err() {
            return self.drop_message(from.link, DropReason::Filtered);
        }
        self.address(now, &mut back, from.link);
        let _ = self.enqueue_own(now, from.link, back);
    }

    /// Queues a message for a link and says so when the link had none.
    ///
    /// Without `patience` a full queue is an error, otherwise the message stands in line that long.
    pub(crate) fn enqueue(
        &mut self,
        now: Now,
        link: LinkId,
        message: &Message,
        source: Source,
        mut patience: Option<Instant>,
    ) -> Result<(), RequestError> {
        if let Source::Forwarded { from, .. } = source
            && self.links.get(&from).is_some_and(|link| link.held >= self.config.max_line)
        {
            patience = None;
        }
        let Some(state) = self.links.get_mut(&link) else { return Err(RequestError::Unreachable) };
        let headers = message.headers.encode().unwrap_or_else(|_| Bytes::new());
        let frame_len = PREFIX_LEN + headers.len() + message.body.len();
        if headers.is_empty() || frame_len > state.max_frame_len {
            self.stats.too_big += 1;
            return Err(RequestError::TooBig);
        }
        let outgoing = Outgoing { headers, body: message.body.whole(), lane: lane(message), source };
        let was_empty = state.queue.is_empty();
        match state.queue.offer(outgoing, patience) {
            Offer::Queued if was_empty => self.outputs.push_back(Output::Transmit(link)),
            Offer::Queued => {}
            Offer::InLine => {
                self.stats.congested += 1;
                self.schedule_line_check(now, link);
                self.hold(source);
            }
            Offer::Full => {
                self.stats.congested += 1;
                return Err(RequestError::Congested);
            }
        }
        Ok(())
    }

    /// Queues an answer of this cell. What fails has been counted.
    fn enqueue_own(&mut self, now: Now, link: LinkId, message: Message) -> Result<(), RequestError> {
        let patience = Some(now.instant + self.config.patience);
        let is_reply = message.kind() == Some(MessageKind::Reply);
        let sent = self.enqueue(now, link, &message, Source::Own, patience);
        match &sent {
            Ok(()) => self.stats.replies += u64::from(is_reply),
            Err(RequestError::TooBig) => self.outputs.push_back(Output::Dropped(link, DropReason::TooBig)),
            Err(_) => self.drop_message(link, DropReason::Overflow),
        }
        sent
    }

    /// What waited for `link` and will not leave by it.
    pub(crate) fn lose(&mut self, now: Now, link: LinkId, lost: Outgoing, in_line: bool, why: DropReason) {
        if in_line {
            self.release(lost.source);
        }
        match lost.source {
            // settled by whoever took the link down, or by its deadline
            Source::Request(_) => {}
            Source::Own => self.drop_message(link, why),
            Source::Forwarded { from, reply_expected } => {
                self.drop_message(link, why);
                if reply_expected
                    && let Some(from) = self.links.get(&from).map(|link| link.facts.clone())
                    && let Ok(headers) = Headers::decode(lost.headers)
                {
                    let message = Message { headers, body: Body::new() };
                    self.send_back(now, &from, &message, &cannot_forward(), CANT_FORWARD);
                }
            }
        }
    }

    /// One more message that came by its source's link stands in line.
    fn hold(&mut self, source: Source) {
        let Source::Forwarded { from, .. } = source else { return };
        let Some(link) = self.links.get_mut(&from) else { return };
        link.held += 1;
        if link.held == 1 {
            self.outputs.push_back(Output::Congested(from));
        }
    }

    /// One less.
    pub(crate) fn release(&mut self, source: Source) {
        let Source::Forwarded { from, .. } = source else { return };
        let Some(link) = self.links.get_mut(&from) else { return };
        link.held -= 1;
        if link.held == 0 {
            self.outputs.push_back(Output::Relieved(from));
        }
    }

    pub(crate) fn schedule_line_check(&mut self, now: Now, link: LinkId) {
        let Some(state) = self.links.get_mut(&link) else { return };
        if state.line_check.is_none() && state.queue.has_line() {
            let at = now.instant + LINE_CHECK;
            state.line_check = Some(at);
            self.line_checks.insert((at, link));
        }
    }

    /// Fills in the names of this hop and its time.
    pub(crate) fn address(&self, now: Now, message: &mut Message, link: LinkId) {
        message.headers.set(key::FROM_CELL, &self.config.name);
        if let Some(link) = self.links.get(&link) {
            message.headers.set(key::TO_CELL, &link.facts.peer);
        }
        message.headers.set(key::SEND_TIME, now.unix_seconds());
    }

    pub(crate) fn settle(
        &mut self,
        id: RequestId,
        target: &Fqcn,
        outcome: Result<Reply, RequestError>,
    ) -> Match {
        let matched = self.pending.settle(id, target);
        if matched == Match::Settled {
            match &outcome {
                Ok(_) => self.stats.replied += 1,
                Err(_) => self.stats.failed += 1,
            }
            let last = !self.pending.contains(id);
            self.outputs.push_back(Output::Settle(Settled {
                request: id,
                target: target.clone(),
                outcome,
                last,
            }));
        }
        matched
    }

    /// Settles all that is left of a request, which is no longer pending.
    pub(crate) fn settle_rest(&mut self, request: RequestId, targets: Vec<Fqcn>, error: &RequestError) {
        let mut targets = targets.into_iter().peekable();
        while let Some(target) = targets.next() {
            let last = targets.peek().is_none();
            self.outputs.push_back(Output::Settle(Settled {
                request,
                target,
                outcome: Err(error.clone()),
                last,
            }));
        }
    }

    pub(crate) fn drop_message(&mut self, link: LinkId, why: DropReason) {
        *match why {
            DropReason::Malformed => &mut self.stats.malformed,
            DropReason::Gated => &mut self.stats.gated,
            DropReason::Filtered => &mut self.stats.filtered,
            DropReason::Unroutable => &mut self.stats.unroutable,
            DropReason::TooBig => &mut self.stats.too_big,
            DropReason::UnmatchedReply => &mut self.stats.unmatched_replies,
            DropReason::UnexpectedReply => &mut self.stats.unexpected_replies,
            DropReason::Overflow => &mut self.stats.overflowed,
            DropReason::LinkLost => &mut self.stats.lost_with_link,
        } += 1;
        self.outputs.push_back(Output::Dropped(link, why));
    }

    pub(crate) fn compose_request(
        &self,
        now: Now,
        target: &Fqcn,
        request: &Request,
        awaited: Option<RequestId>,
    ) -> Message {
        let me = &self.config.name;
        let mut headers = request.headers.clone();
        headers.set(key::CHANNEL, &request.channel);
        headers.set(key::TOPIC, &request.topic);
        headers.set(key::FROM_CELL, me);
        headers.set(key::TO_CELL, target);
        headers.set(key::ORIGIN, me);
        headers.set(key::DESTINATION, target);
        headers.set(key::MSG_TYPE, MessageKind::Request.as_str());
        headers.set(key::ROUTE, route_from(me, now));
        match awaited {
            Some(id) => headers.set(key::REQ_ID, id.to_string()),
            None => _ = headers.remove(key::REQ_ID),
        }
        headers.set(key::REPLY_EXPECTED, awaited.is_some());
        headers.set(key::SECURE, request.secure);
        headers.set(key::OPTIONAL, request.optional);
        Message::new(headers, request.payload.clone())
    }

    pub(crate) fn compose_reply(&self, now: Now, to: &ReplyTo, reply: Reply) -> Message {
        let me = &self.config.name;
        let mut headers = reply.headers;
        set_code(&mut headers, reply.code, reply.error.as_deref());
        headers.set(key::SECURE, to.secure);
        headers.set(key::OPTIONAL, to.optional);
        headers.set(key::CHANNEL, &to.channel);
        headers.set(key::TOPIC, &to.topic);
        headers.set(key::FROM_CELL, me);
        headers.set(key::TO_CELL, &to.link.peer);
        headers.set(key::ORIGIN, me);
        headers.set(key::DESTINATION, &to.origin);
        headers.set(key::REQ_ID, to.req_id.clone());
        headers.set(key::MSG_TYPE, MessageKind::Reply.as_str());
        headers.set(key::ROUTE, route_from(me, now));
        Message::new(headers, reply.payload)
    }

    fn stamp_and_route(
        &mut self,
        now: Now,
        message: &mut Message,
        target: &Fqcn,
    ) -> Result<Hop, RequestError> {
        let route = |switch: &Self, message: &Message| {
            switch.neighbours.next_hop(target, message, None).map_err(|_| RequestError::Unreachable)
        };
        let hop = route(self, message)?;
        let next_hop = match hop {
            Hop::Here => self.config.name.clone(),
            Hop::Over(link) => {
                self.links.get(&link).map_or_else(|| target.clone(), |link| link.facts.peer.clone())
            }
        };
        self.stamp(now, message, &next_hop).map_err(|refusal| self.filtered(refusal))?;
        // a stamp may demand that the message crosses the server
        if message.headers.bool(key::SERVER_TRANSIT_REQUIRED) == Some(true) {
            route(self, message)
        } else {
            Ok(hop)
        }
    }

    /// Applies filters to what they can read.
    pub(crate) fn filter_unsealed(&self, pass: Pass, now: Now, message: &mut Message) -> Result<(), Refusal> {
        if message.is_sealed() { Ok(()) } else { self.filters.apply(pass, now, message) }
    }

    fn stamp(&self, now: Now, message: &mut Message, next_hop: &Fqcn) -> Result<(), Refusal> {
        self.stamps.iter().try_for_each(|stamp| stamp.stamp(now, message, next_hop))
    }

    pub(crate) fn filtered(&mut self, refusal: Refusal) -> RequestError {
        self.stats.filtered += 1;
        RequestError::Refused { code: refusal.code, reason: refusal.reason }
    }
}

/// Headers that prove who sends: for the server, never for other sites.
pub(crate) const CREDENTIALS: [&str; 4] = [key::CLIENT_NAME, key::TOKEN, key::TOKEN_SIGNATURE, key::SSID];

/// Why a request is sent back: no path, or no room.
pub(crate) const CANT_FORWARD: &str = "cant_forward";

pub(crate) fn cannot_forward() -> Refusal {
    Refusal::new(ReturnCode::CommError, "cannot forward")
}

fn lane(message: &Message) -> LaneKind {
    let (stream, chunk) = (message.channel() == STREAM, message.topic() == CHUNK);
    // a chunk must not overtake one before it; the first has none before it
    let follows = stream && chunk && message.headers.u64(SEQUENCE) != Some(0);
    if follows || message.body.len() > BULK_FROM {
        LaneKind::Bulk
    } else if message.kind() == Some(MessageKind::Request) && (!stream || chunk) {
        LaneKind::Control
    } else {
        LaneKind::Answers
    }
}

/// Whether the message is a chunk of a stream, which waits for room like any bulk.
pub(crate) fn is_chunk(message: &Message) -> bool {
    message.channel() == STREAM && message.topic() == CHUNK
}

/// How hard it is to pretend to be the neighbour on such a link.
fn strength(security: LinkSecurity) -> u8 {
    match security {
        LinkSecurity::Clear => 0,
        LinkSecurity::ServerOnly => 1,
        LinkSecurity::Mutual | LinkSecurity::Internal => 2,
    }
}

fn route_from(me: &Fqcn, now: Now) -> Vec<HeaderValue<'static>> {
    vec![HeaderValue::Array(vec![HeaderValue::from(me).into_owned(), now.unix_seconds().into()])]
}

fn set_code(headers: &mut Headers, code: ReturnCode, error: Option<&str>) {
    headers.set(key::RETURN_CODE, code.as_str());
    match error {
        Some(text) if !text.is_empty() => {
            headers.set(key::ERROR, text.chars().take(MAX_ERROR_CHARS).collect::<String>());
        }
        Some(_) | None => _ = headers.remove(key::ERROR),
    }
}
