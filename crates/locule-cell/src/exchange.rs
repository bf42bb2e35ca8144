//! Requests and replies that go as streams.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use locule_journal::Spool;
use locule_message::{Fqcn, Headers, Message, Payload, ReturnCode, key};
use locule_stream::{Arrival, Blob, Output, REPLIES, StreamConfig, StreamError, StreamId, Streams};
use locule_switch::{Now, Pass, Reply, Request, RequestError, Switch};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{RngCore as _, SeedableRng as _};
use tokio::sync::oneshot;

use crate::driver::Outcomes;

/// Pairs the blobs of requests with those of their replies.
///
/// A request's time runs only while nothing moves: each chunk that arrives or is acknowledged starts it
/// over, so that a slow transfer is not taken for a dead one.
pub(crate) struct Exchange {
    pub(crate) streams: Streams,
    rng: ChaCha20Rng,
    requests: HashMap<String, Waiting>,
    /// The requests of streams, and of those who asked.
    by_stream: HashMap<StreamId, String>,
    by_token: HashMap<u64, Vec<String>>,
    /// Those who wait for a one-way message to have left.
    notices: HashMap<StreamId, oneshot::Sender<Result<(), RequestError>>>,
    deadlines: BTreeSet<(Instant, String)>,
    max_requests: usize,
    /// Replies to nothing that waits, and requests without one.
    pub(crate) unmatched: u64,
    pub(crate) timed_out: u64,
}

struct Waiting {
    token: u64,
    stream: StreamId,
    target: Fqcn,
    secure: bool,
    outcomes: Outcomes,
    timeout: Duration,
    deadline: Instant,
    /// Where it stands among the deadlines; at `deadline` or before.
    noted: Instant,
}

/// What a reply needs to find its requester.
#[derive(Debug)]
pub(crate) struct StreamReplyTo {
    origin: Fqcn,
    request_id: String,
    channel: String,
    topic: String,
    secure: bool,
}

/// A blob for a handler.
#[derive(Debug)]
pub(crate) struct Arrived {
    pub(crate) origin: Fqcn,
    pub(crate) channel: String,
    pub(crate) topic: String,
    pub(crate) headers: Headers,
    pub(crate) payload: Payload,
    /// Where the body is, if not in the payload.
    pub(crate) elsewhere: Option<Arc<dyn Spool>>,
    pub(crate) reply_to: Option<StreamReplyTo>,
}

/// What the driver has to do.
#[derive(Debug)]
pub(crate) enum Todo {
    Send(locule_stream::Notice),
    Handle(Arrived),
}

impl Exchange {
    pub(crate) fn new(config: StreamConfig, max_requests: usize) -> Self {
        let mut rng = ChaCha20Rng::from_os_rng();
        Self {
            streams: Streams::new(config, rng.next_u64()),
            rng,
            requests: HashMap::new(),
            by_stream: HashMap::new(),
            by_token: HashMap::new(),
            notices: HashMap::new(),
            deadlines: BTreeSet::new(),
            max_requests,
            unmatched: 0,
            timed_out: 0,
        }
    }

    /// Sends a request to each target, each of which settles exactly once.
    pub(crate) fn request(
        &mut self,
        now: Now,
        switch: &mut Switch,
        token: u64,
        targets: &[Fqcn],
        request: &Request,
        outcomes: &Outcomes,
    ) {
        for target in targets.iter().collect::<BTreeSet<_>>() {
            if let Err(error) = self.begin(now, switch, token, target, request, outcomes) {
                // the one who asked may have gone
                let _ = outcomes.send((target.clone(), Err(error)));
            }
        }
    }

    fn begin(
        &mut self,
        now: Now,
        switch: &mut Switch,
        token: u64,
        target: &Fqcn,
        request: &Request,
        outcomes: &Outcomes,
    ) -> Result<(), RequestError> {
        if self.requests.len() >= self.max_requests {
            return Err(RequestError::Overloaded);
        }
        let id = uuid::Builder::from_random_bytes(self.random()).into_uuid().to_string();
        let blob = blob_of(now, switch, target, request, Some(id.clone()))?;
        let stream = self.streams.send(now.instant, target.clone(), blob).ok_or(RequestError::Overloaded)?;
        let timeout = request.timeout.min(Request::MAX_TIMEOUT);
        let deadline = now.instant + timeout;
        let (target, secure, outcomes) = (target.clone(), request.secure, outcomes.clone());
        let noted = deadline;
        let waiting = Waiting { token, stream, target, secure, outcomes, timeout, deadline, noted };
        self.requests.insert(id.clone(), waiting);
        self.by_stream.insert(stream, id.clone());
        self.by_token.entry(token).or_default().push(id.clone());
        self.deadlines.insert((deadline, id));
        Ok(())
    }

    /// Sends a one-way message; `outcome` hears when all of it has left.
    pub(crate) fn notify(
        &mut self,
        now: Now,
        switch: &mut Switch,
        target: &Fqcn,
        notice: &Request,
        outcome: oneshot::Sender<Result<(), RequestError>>,
    ) {
        let begun = blob_of(now, switch, target, notice, None).and_then(|blob| {
            self.streams.send(now.instant, target.clone(), blob).ok_or(RequestError::Overloaded)
        });
        match begun {
            Ok(stream) => _ = self.notices.insert(stream, outcome),
            Err(error) => _ = outcome.send(Err(error)),
        }
    }

    /// Answers a request that came as a stream.
    pub(crate) fn reply(&mut self, now: Now, switch: &mut Switch, to: StreamReplyTo, reply: Reply) {
        let StreamReplyTo { origin, request_id, channel, topic, secure } = to;
        let mut message = Message::new(reply.headers, reply.payload);
        message.headers.set(key::CHANNEL, &channel);
        message.headers.set(key::TOPIC, &topic);
        let (mut code, mut error) = (reply.code, reply.error);
        if let Err(refusal) = switch.filter(Pass::OutgoingReply, now, &mut message) {
            message = Message::new(Headers::new(), Payload::none());
            (code, error) = (refusal.code, Some(refusal.reason));
        }
        let payload = message.payload();
        let mut headers = application_headers(message.headers);
        headers.set(key::RETURN_CODE, code.as_str());
        if let Some(error) = error.filter(|error| !error.is_empty()) {
            headers.set(key::ERROR, &error);
        }
        headers.set(key::REQ_ID, "");
        let blob = Blob {
            channel: REPLIES.to_owned(),
            topic: format!("{channel}:{topic}"),
            headers,
            payload,
            request_id: Some(request_id),
            reliable: true,
            optional: true,
            secure,
        };
        if self.streams.send(now.instant, origin, blob).is_none() {
            tracing::warn!("reply dropped: too many streams");
        }
    }

    /// Nobody waits for what `token` asked.
    pub(crate) fn forget(&mut self, token: u64) {
        for id in self.by_token.remove(&token).unwrap_or_default() {
            if let Some(waiting) = self.requests.remove(&id) {
                self.end(&id, &waiting);
            }
        }
    }

    /// This stream's chunk was not taken.
    pub(crate) fn fail(&mut self, stream: StreamId, error: RequestError) {
        self.streams.cancel(stream);
        self.ended(stream, Err(error));
    }

    pub(crate) fn handle_timeout(&mut self, now: Now) {
        self.streams.handle_timeout(now.instant);
        while let Some((at, id)) = self.deadlines.first().filter(|(at, _)| *at <= now.instant).cloned() {
            self.deadlines.pop_first();
            match self.requests.get_mut(&id) {
                Some(waiting) if waiting.deadline > at => {
                    waiting.noted = waiting.deadline;
                    self.deadlines.insert((waiting.deadline, id));
                }
                Some(_) => {
                    self.timed_out += 1;
                    self.settle(&id, Err(RequestError::Timeout));
                }
                None => {}
            }
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let deadline = self.deadlines.first().map(|(at, _)| *at);
        self.streams.poll_timeout().into_iter().chain(deadline).min()
    }

    /// What is to be done next; settles requests on the way.
    pub(crate) fn poll(&mut self, now: Now, switch: &mut Switch) -> Option<Todo> {
        loop {
            match self.streams.poll_output()? {
                Output::Send(notice) => return Some(Todo::Send(notice)),
                Output::Arrived(arrival) if arrival.blob.channel == REPLIES => {
                    self.accept_reply(now, switch, arrival);
                }
                Output::Arrived(arrival) => return Some(Todo::Handle(arrived(arrival))),
                Output::Broken { origin, request_id, error } => {
                    if self.requests.get(&request_id).is_some_and(|waiting| waiting.target == origin) {
                        self.settle(&request_id, outcome_of(error));
                    }
                }
                Output::Moved { peer, request_id } => {
                    if let Some(waiting) =
                        self.requests.get_mut(&request_id).filter(|waiting| waiting.target == peer)
                    {
                        waiting.deadline = now.instant + waiting.timeout;
                    }
                }
                Output::Sent(stream) => {
                    if let Some(id) = self.by_stream.get(&stream)
                        && let Some(waiting) = self.requests.get_mut(id)
                    {
                        waiting.deadline = now.instant + waiting.timeout;
                    } else {
                        self.ended(stream, Ok(Reply::ok(Payload::none())));
                    }
                }
                Output::Failed(stream, error) => self.ended(stream, outcome_of(error)),
            }
        }
    }

    /// Requests that wait.
    pub(crate) fn pending(&self) -> usize {
        self.requests.len()
    }

    /// Fails everything that waits.
    pub(crate) fn close(&mut self) {
        for id in self.requests.keys().cloned().collect::<Vec<_>>() {
            self.settle(&id, Err(RequestError::Closed));
        }
        self.notices.clear();
    }

    fn accept_reply(&mut self, now: Now, switch: &mut Switch, arrival: Arrival) {
        let Arrival { origin, blob, .. } = arrival;
        let sealed = blob.secure;
        let expected = |id: &String| self.requests.get(id).is_some_and(|waiting| waiting.target == origin);
        let Some(id) = blob.request_id.filter(expected) else {
            self.unmatched += 1;
            return;
        };
        // filters look for the request's channel and topic
        let (channel, topic) = blob.topic.split_once(':').unwrap_or_default();
        let mut message = Message::new(blob.headers, blob.payload);
        message.headers.set(key::CHANNEL, channel);
        message.headers.set(key::TOPIC, topic);
        let outcome = match switch.filter(Pass::IncomingReply, now, &mut message) {
            Ok(()) => Ok(Reply {
                code: message.return_code().unwrap_or(ReturnCode::Ok),
                error: message.error().map(str::to_owned),
                payload: message.payload(),
                headers: message.headers,
            })
            .and_then(|reply| as_asked(reply, sealed, self.requests.get(&id).is_some_and(|w| w.secure))),
            Err(refusal) => Err(RequestError::Refused { code: refusal.code, reason: refusal.reason }),
        };
        self.settle(&id, outcome);
    }

    /// A stream of this cell is over, with this as its outcome.
    fn ended(&mut self, stream: StreamId, outcome: Result<Reply, RequestError>) {
        if let Some(notice) = self.notices.remove(&stream) {
            // the one who asked may have gone
            let _ = notice.send(outcome.and_then(Reply::into_ok).map(|_| ()));
        } else if let Some(id) = self.by_stream.get(&stream).cloned() {
            self.settle(&id, outcome);
        }
    }

    fn settle(&mut self, id: &str, outcome: Result<Reply, RequestError>) {
        let Some(waiting) = self.requests.remove(id) else { return };
        self.end(id, &waiting);
        if let Some(others) = self.by_token.get_mut(&waiting.token) {
            others.retain(|other| other != id);
            if others.is_empty() {
                self.by_token.remove(&waiting.token);
            }
        }
        // the one who asked may have gone
        let _ = waiting.outcomes.send((waiting.target, outcome));
    }

    fn end(&mut self, id: &str, waiting: &Waiting) {
        self.by_stream.remove(&waiting.stream);
        self.streams.cancel(waiting.stream);
        self.deadlines.remove(&(waiting.noted, id.to_owned()));
    }

    fn random(&mut self) -> [u8; 16] {
        let mut bytes = [0; 16];
        self.rng.fill_bytes(&mut bytes);
        bytes
    }
}

fn blob_of(
    now: Now,
    switch: &mut Switch,
    target: &Fqcn,
    request: &Request,
    request_id: Option<String>,
) -> Result<Blob, RequestError> {
    let mut message = Message::new(request.headers.clone(), request.payload.clone());
    message.headers.set(key::CHANNEL, &request.channel);
    message.headers.set(key::TOPIC, &request.topic);
    message.headers.set(key::DESTINATION, target);
    switch
        .filter(Pass::OutgoingRequest, now, &mut message)
        .map_err(|refusal| RequestError::Refused { code: refusal.code, reason: refusal.reason })?;
    let payload = message.payload();
    Ok(Blob {
        channel: request.channel.clone(),
        topic: request.topic.clone(),
        headers: application_headers(message.headers),
        payload,
        request_id,
        reliable: false,
        optional: request.optional,
        secure: request.secure,
    })
}

/// What is left when the headers that each message gets anew are gone.
fn application_headers(mut headers: Headers) -> Headers {
    for own in [
        key::CHANNEL,
        key::TOPIC,
        key::DESTINATION,
        key::PAYLOAD_ENCODING,
        key::PAYLOAD_LEN,
        key::RETURN_CODE,
        key::ERROR,
    ] {
        headers.remove(own);
    }
    headers
}

fn arrived(arrival: Arrival) -> Arrived {
    let Arrival { origin, blob, elsewhere, .. } = arrival;
    let Blob { channel, topic, mut headers, payload, request_id, secure, .. } = blob;
    headers.set(key::CHANNEL, &channel);
    headers.set(key::TOPIC, &topic);
    headers.set(key::PAYLOAD_ENCODING, payload.encoding.as_str());
    let reply_to = request_id.map(|request_id| StreamReplyTo {
        origin: origin.clone(),
        request_id,
        channel: channel.clone(),
        topic: topic.clone(),
        secure,
    });
    Arrived { origin, channel, topic, headers, payload, elsewhere, reply_to }
}

/// A reply that came sealed or not, as its request was. Errors without a body are taken in clear too: some are
/// of cells, or parts of them, that cannot seal.
pub(crate) fn as_asked(reply: Reply, sealed: bool, secure: bool) -> Result<Reply, RequestError> {
    if sealed || !secure || (!reply.code.is_ok() && reply.payload.body.is_empty()) {
        return Ok(reply);
    }
    Err(RequestError::Insecure { reason: "the reply came in clear".to_owned() })
}

/// What a stream's end means for its request. What the target itself says is a reply.
fn outcome_of(error: StreamError) -> Result<Reply, RequestError> {
    match error {
        StreamError::Rejected { code, reason } => {
            Ok(Reply::error(code.unwrap_or(ReturnCode::CommError), reason))
        }
        StreamError::TooBig { reason } => Ok(Reply::error(ReturnCode::MsgTooBig, reason)),
        StreamError::Returned { by, code, reason } => {
            Err(RequestError::Returned { by, code: code.unwrap_or(ReturnCode::CommError), reason })
        }
        StreamError::Unreachable => Err(RequestError::Unreachable),
        StreamError::LinkLost => Err(RequestError::LinkLost),
        StreamError::Stalled => Err(RequestError::Timeout),
        _ => Ok(Reply::error(ReturnCode::CommError, error.to_string())),
    }
}
