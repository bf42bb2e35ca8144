//! What becomes of messages that arrive: the gate first, then forward, deliver or settle.

use std::sync::Arc;

use locule_message::{Body, Fqcn, HeaderValue, Message, MessageKind, ReturnCode, key};

use crate::pending::Match;
use crate::queue::Source;
use crate::route::{Hop, append_to_route};
use crate::send::{CANT_FORWARD, CREDENTIALS, cannot_forward, is_chunk};
use crate::switch::{BYE, CELLNET};
use crate::{
    CloseReason, Delivery, DropReason, LinkFacts, LinkId, Now, Output, Pass, Refusal, Reply, ReplyTo,
    RequestError, RequestId, Switch,
};

/// Why a request is sent back: somebody on the way objected.
const INTERCEPT: &str = "intercept";

impl Switch {
    /// Takes a message that arrived by `link`. Nothing comes of it before the gate has passed it.
    pub fn handle_message(&mut self, now: Now, link: LinkId, message: Message) {
        let Some(from) = self.links.get(&link).map(|link| link.facts.clone()) else {
            return self.drop_message(link, DropReason::Malformed);
        };
        let (Some(kind), Some(origin)) = (message.kind(), message.origin()) else {
            return self.drop_message(link, DropReason::Malformed);
        };
        // what this cell made does not come back to it; whoever says so forges or loops
        if origin == self.config.name || !message.headers.contains(key::DESTINATION) {
            return self.drop_message(link, DropReason::Malformed);
        }
        if let Some(gate) = &self.gate
            && let Err(refusal) = gate.check(now, &from, &message)
        {
            return self.refuse(now, &from, kind, origin, &message, refusal);
        }
        self.note_proof(now, link, &message);
        match message.destination() {
            Some(destination) if destination == self.config.name => match kind {
                MessageKind::Request => self.receive_request(now, &from, origin, message),
                MessageKind::Reply | MessageKind::Return => self.accept_reply(now, &from, origin, message),
            },
            Some(destination) => self.forward(now, &from, kind, &destination, message),
            None => self.fail_forward(now, &from, kind, &message, DropReason::Unroutable),
        }
    }

    fn note_proof(&mut self, now: Now, link: LinkId, message: &Message) {
        let Some(gate) = &self.gate else { return };
        let Some(state) = self.links.get_mut(&link) else { return };
        if let Some(until) = state.unheard.take() {
            self.unheard.remove(&(until, link));
        }
        if state.proven {
            return;
        }
        if gate.is_exempt(message) {
            // it is on its way to prove itself, and may have to wait and ask again
            let until = now.instant + self.config.unheard_time;
            state.unheard = Some(until);
            self.unheard.insert((until, link));
        } else {
            state.proven = true;
            self.outputs.push_back(Output::Proven(link));
        }
    }

    fn refuse(
        &mut self,
        now: Now,
        from: &Arc<LinkFacts>,
        kind: MessageKind,
        origin: Fqcn,
        message: &Message,
        refusal: Refusal,
    ) {
        self.outputs.push_back(Output::Refused(from.link, origin.clone(), refusal.clone()));
        if kind != MessageKind::Request || !message.reply_expected() {
            // whoever is not behind this link has nothing to hear because of it
            if is_chunk(message) && from.peer.contains(&origin) {
                self.report_undelivered(message, refusal);
            }
            return self.drop_message(from.link, DropReason::Gated);
        }
        self.stats.gated += 1;
        if message.destination().as_ref() == Some(&self.config.name) {
            let to = reply_to(from, origin, message);
            self.send_reply(now, &to, Reply::error(refusal.code, refusal.reason));
        } else {
            self.send_back(now, from, message, &refusal, INTERCEPT);
        }
    }

    fn forward(
        &mut self,
        now: Now,
        from: &Arc<LinkFacts>,
        kind: MessageKind,
        destination: &Fqcn,
        mut message: Message,
    ) {
        let hop = self.neighbours.next_hop(destination, &message, Some(&from.peer));
        let Ok(Hop::Over(link)) = hop else {
            return self.fail_forward(now, from, kind, &message, DropReason::Unroutable);
        };
        if message.body.len() > self.config.max_message_size {
            return self.fail_forward(now, from, kind, &message, DropReason::TooBig);
        }
        self.address(now, &mut message, link);
        message.headers.set(key::PAYLOAD_LEN, message.body.len() as u64);
        append_to_route(&mut message, &self.config.name, now.unix_seconds());
        if self.config.name == Fqcn::server()
            && message.headers.bool(key::SERVER_TRANSIT_REQUIRED) == Some(true)
        {
            // one site's proofs are not for another, nor is an invitation past the server
            for header in CREDENTIALS.into_iter().chain([key::CONN_URL]) {
                message.headers.remove(header);
            }
        }
        let reply_expected = kind == MessageKind::Request && message.reply_expected();
        let source = Source::Forwarded { from: from.link, reply_expected };
        let patience = Some(now.instant + self.config.patience);
        match self.enqueue(now, link, &message, source, patience) {
            Ok(()) => self.stats.forwarded += 1,
            Err(RequestError::TooBig) => self.fail_forward(now, from, kind, &message, DropReason::TooBig),
            Err(_) => self.fail_forward(now, from, kind, &message, DropReason::Overflow),
        }
    }

    fn fail_forward(
        &mut self,
        now: Now,
        from: &Arc<LinkFacts>,
        kind: MessageKind,
        message: &Message,
        why: DropReason,
    ) {
        self.drop_message(from.link, why);
        if kind == MessageKind::Request && message.reply_expected() {
            self.send_back(now, from, message, &cannot_forward(), CANT_FORWARD);
        } else if is_chunk(message) && matches!(why, DropReason::Unroutable | DropReason::TooBig) {
            self.report_undelivered(message, cannot_forward());
        }
    }

    fn report_undelivered(&mut self, message: &Message, refusal: Refusal) {
        let headers = Message { headers: message.headers.clone(), body: Body::new() };
        self.outputs.push_back(Output::Undelivered(headers, refusal));
    }

    fn receive_request(&mut self, now: Now, from: &Arc<LinkFacts>, origin: Fqcn, message: Message) {
        if (message.channel(), message.topic()) == (CELLNET, BYE) {
            return self.receive_goodbye(now, from, origin, &message);
        }
        if self.leaving {
            if message.reply_expected() {
                let to = reply_to(from, origin, &message);
                self.send_reply(now, &to, Reply::error(ReturnCode::ServiceUnavailable, "cell is closed"));
            }
            return;
        }
        self.deliver(now, from, origin, message);
    }

    /// A goodbye counts only for the neighbour itself: anybody behind it may send one as well, and
    /// must not cut off the rest.
    fn receive_goodbye(&mut self, now: Now, from: &Arc<LinkFacts>, origin: Fqcn, message: &Message) {
        if origin == from.peer {
            self.neighbours.remove(&from.peer, from.link);
            self.outputs.push_back(Output::Left(from.link));
            if let Some(other) = self.left.insert(origin.clone(), from.link)
                && other != from.link
            {
                self.link_down(now, other);
                self.outputs.push_back(Output::Close(other, CloseReason::Left));
            }
        }
        if message.reply_expected() {
            let to = reply_to(from, origin, message);
            self.send_reply(now, &to, Reply::ok(locule_message::Payload::none()));
        }
    }

    pub(crate) fn deliver(&mut self, now: Now, from: &Arc<LinkFacts>, origin: Fqcn, mut message: Message) {
        let reply_to = message.reply_expected().then(|| reply_to(from, origin.clone(), &message));
        if let Err(refusal) = self.filter_unsealed(Pass::IncomingRequest, now, &mut message) {
            let Some(to) = reply_to else { return self.drop_message(from.link, DropReason::Filtered) };
            self.stats.filtered += 1;
            return self.send_reply(now, &to, Reply::error(refusal.code, refusal.reason));
        }
        self.stats.delivered += 1;
        self.outputs.push_back(Output::Deliver(Delivery { link: from.clone(), origin, message, reply_to }));
    }

    /// Settles what a reply or a return replies to.
    pub(crate) fn accept_reply(
        &mut self,
        now: Now,
        from: &Arc<LinkFacts>,
        origin: Fqcn,
        mut message: Message,
    ) {
        let returned = message.kind() == Some(MessageKind::Return);
        let asked = if returned { original_destination(&message) } else { Some(origin.clone()) };
        let Some(asked) = asked else { return self.drop_message(from.link, DropReason::Malformed) };
        let filtered =
            if returned { Ok(()) } else { self.filter_unsealed(Pass::IncomingReply, now, &mut message) };
        let ids = message.req_ids();
        let outcome = match filtered {
            Err(refusal) => {
                self.stats.filtered += 1;
                Err(RequestError::Refused { code: refusal.code, reason: refusal.reason })
            }
            Ok(()) if returned => Err(returned_by(origin, &message)),
            Ok(()) => Ok(Reply::from_message(message)),
        };
        let mut matched = Match::Unknown;
        for id in ids.iter().filter_map(|id| RequestId::parse(id)) {
            match self.settle(id, &asked, outcome.clone()) {
                Match::Settled => matched = Match::Settled,
                Match::NotAsked if matched == Match::Unknown => matched = Match::NotAsked,
                Match::NotAsked | Match::Unknown => {}
            }
        }
        match matched {
            Match::Settled => {}
            Match::NotAsked => self.drop_message(from.link, DropReason::UnexpectedReply),
            Match::Unknown => self.drop_message(from.link, DropReason::UnmatchedReply),
        }
    }
}

fn reply_to(from: &Arc<LinkFacts>, origin: Fqcn, message: &Message) -> ReplyTo {
    ReplyTo {
        link: from.clone(),
        origin,
        channel: message.channel().to_owned(),
        topic: message.topic().to_owned(),
        req_id: message.headers.get(key::REQ_ID).unwrap_or_else(|| "".into()).into_owned(),
        secure: message.secure(),
        optional: message.optional(),
    }
}

fn original_destination(message: &Message) -> Option<Fqcn> {
    let original = message.headers.get(key::ORIGINAL_HEADERS)?;
    original.get(key::DESTINATION).and_then(HeaderValue::as_str)?.parse().ok()
}

fn returned_by(by: Fqcn, message: &Message) -> RequestError {
    let code = message.return_code().filter(|code| !code.is_ok()).unwrap_or(ReturnCode::CommError);
    RequestError::Returned { by, code, reason: message.error().unwrap_or_default().to_owned() }
}
