//! What this cell holds ready for others to download.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use locule_fobs::{Map, Value};
use locule_message::{Fqcn, Payload, ReturnCode};
use rand_core::RngCore;

use crate::download::{payload, read};
use crate::wire::{key, status};

/// Bytes of items after which a piece is full.
const PIECE: usize = 2 << 20;
/// How long a download that is over is remembered, for those who ask once more.
const REMEMBERED: Duration = Duration::from_secs(1800);
/// Most offers at a time, and most that are remembered.
const MAX_OFFERS: usize = 16_384;
/// Most receivers of one offer.
const MAX_RECEIVERS: usize = 65_536;

/// Items that others may download, each offer under a name that nobody can guess.
///
/// The owner gives requests on channel [`DOWNLOADS`](crate::DOWNLOADS) to [`answer`](Self::answer). An
/// offer ends when all its receivers have what they came for, when nobody has asked for so long, or when
/// it is withdrawn.
#[derive(Debug, Default)]
pub struct Offers {
    open: HashMap<String, Offer>,
    /// When each of them ends if nobody asks.
    deadlines: BTreeSet<(Instant, String)>,
    over: HashMap<String, bool>,
    over_in_order: VecDeque<(Instant, String)>,
    ended: VecDeque<(String, Outcome)>,
}

#[derive(Debug)]
struct Offer {
    items: Vec<Bytes>,
    receivers: usize,
    /// Receivers that have settled, and whether they got everything.
    settled: BTreeMap<Fqcn, bool>,
    /// Receivers at the end that have yet to confirm, with what they have to repeat.
    confirming: BTreeMap<Fqcn, String>,
    idle: Duration,
    until: Instant,
}

/// How an offer ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// Every receiver has settled; those named did not get everything.
    Settled {
        /// Who gave up.
        failed: BTreeSet<Fqcn>,
    },
    /// Nobody asked for too long.
    Expired,
}

/// A source's answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Whether there is such an offer.
    pub code: ReturnCode,
    /// The piece, or how it ends.
    pub payload: Payload,
}

impl Offers {
    /// Offers `items` to so many receivers, until nobody asks for `idle`. Gives the name of the offer;
    /// `None` when there are too many.
    pub fn offer(
        &mut self,
        now: Instant,
        rng: &mut dyn RngCore,
        items: Vec<Bytes>,
        receivers: usize,
        idle: Duration,
    ) -> Option<String> {
        self.handle_timeout(now);
        if self.open.len() >= MAX_OFFERS {
            return None;
        }
        let mut random = [0; 16];
        rng.fill_bytes(&mut random);
        let ref_id = uuid::Builder::from_random_bytes(random).into_uuid().to_string();
        let offer = Offer {
            items,
            receivers: receivers.clamp(1, MAX_RECEIVERS),
            settled: BTreeMap::new(),
            confirming: BTreeMap::new(),
            idle,
            until: now + idle,
        };
        self.deadlines.insert((offer.until, ref_id.clone()));
        self.open.insert(ref_id.clone(), offer);
        Some(ref_id)
    }

    /// Takes an offer back.
    pub fn withdraw(&mut self, now: Instant, ref_id: &str) {
        if self.close(ref_id) {
            self.remember(now, ref_id.to_owned(), false);
        }
    }

    /// Answers a request of `receiver`. What it says of a download's end needs no answer; it gets one
    /// that can be dropped.
    pub fn answer(
        &mut self,
        now: Instant,
        rng: &mut dyn RngCore,
        receiver: &Fqcn,
        request: Payload,
    ) -> Answer {
        self.handle_timeout(now);
        let invalid = || Answer { code: ReturnCode::InvalidRequest, payload: Payload::none() };
        let Some(Ok(Value::Map(request))) = read(request) else { return invalid() };
        let Some(ref_id) = request.str(key::REF_ID) else { return invalid() };
        let Some(offer) = self.open.get_mut(ref_id) else {
            return match self.over.get(ref_id) {
                Some(true) => say(status::EOF),
                Some(false) => say(status::ERROR),
                None => invalid(),
            };
        };
        self.deadlines.remove(&(offer.until, ref_id.to_owned()));
        offer.until = now + offer.idle;
        self.deadlines.insert((offer.until, ref_id.to_owned()));
        let answer = if request.bool(key::CANCEL) == Some(true) {
            offer.settle(receiver, false);
            say(status::EOF)
        } else if let Some(said) = request.str(key::CONFIRM) {
            // only who was asked at the end may say how it went
            if offer.confirming.get(receiver).map(String::as_str) == request.str(key::CONFIRM_NONCE) {
                offer.settle(receiver, said == status::SUCCESS);
            }
            say(status::EOF)
        } else {
            offer.serve(rng, receiver, &request)
        };
        if offer.settled.len() >= offer.receivers {
            let failed: BTreeSet<_> = offer
                .settled
                .iter()
                .filter(|(_, success)| !**success)
                .map(|(name, _)| name.clone())
                .collect();
            let ref_id = ref_id.to_owned();
            self.close(&ref_id);
            self.remember(now, ref_id.clone(), true);
            self.ended.push_back((ref_id, Outcome::Settled { failed }));
        }
        answer
    }

    /// Ends offers that nobody asks for.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((_, ref_id)) = self.deadlines.first().filter(|(until, _)| *until <= now).cloned() {
            self.close(&ref_id);
            self.remember(now, ref_id.clone(), false);
            self.ended.push_back((ref_id, Outcome::Expired));
        }
        while let Some((_, ref_id)) = self.over_in_order.pop_front_if(|(until, _)| *until <= now) {
            self.over.remove(&ref_id);
        }
    }

    /// When to call [`handle_timeout`](Self::handle_timeout).
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.first().map(|(until, _)| *until)
    }

    /// An offer that has ended, and how.
    pub fn poll_ended(&mut self) -> Option<(String, Outcome)> {
        self.ended.pop_front()
    }

    fn close(&mut self, ref_id: &str) -> bool {
        let Some(offer) = self.open.remove(ref_id) else { return false };
        self.deadlines.remove(&(offer.until, ref_id.to_owned()))
    }

    fn remember(&mut self, now: Instant, ref_id: String, whole: bool) {
        while self.over_in_order.len() >= MAX_OFFERS {
            if let Some((_, oldest)) = self.over_in_order.pop_front() {
                self.over.remove(&oldest);
            }
        }
        self.over_in_order.push_back((now + REMEMBERED, ref_id.clone()));
        self.over.insert(ref_id, whole);
    }
}

impl Offer {
    fn serve(&mut self, rng: &mut dyn RngCore, receiver: &Fqcn, request: &Map) -> Answer {
        let state = request.map(key::STATE);
        let at = |name| state.and_then(|state| state.int(name)).and_then(|at| usize::try_from(at).ok());
        let start = at(key::START).unwrap_or_default().saturating_add(at(key::COUNT).unwrap_or_default());
        let rest = self.items.get(start..).unwrap_or_default();
        if rest.is_empty() {
            return self.finish(rng, receiver, request.bool(key::CONFIRM_CAPABLE) == Some(true));
        }
        let mut bytes = 0;
        let fits = |item: &&Bytes| {
            bytes += item.len();
            bytes <= PIECE
        };
        let count = rest.iter().take_while(fits).count().max(1);
        let data = rest[..count].iter().cloned().map(Value::Bytes).collect();
        let state = Map::from_iter([(key::START, start as i64), (key::COUNT, count as i64)]);
        let mut reply = Map::new();
        reply.insert(key::STATUS, status::OK);
        reply.insert(key::STATE, state);
        reply.insert(key::DATA, Value::List(data));
        reply.insert(key::CANCEL_CAPABLE, true);
        Answer { code: ReturnCode::Ok, payload: payload(reply) }
    }

    fn finish(&mut self, rng: &mut dyn RngCore, receiver: &Fqcn, confirms: bool) -> Answer {
        if !confirms || self.settled.contains_key(receiver) || self.confirming.len() >= MAX_RECEIVERS {
            self.settle(receiver, true);
            return say(status::EOF);
        }
        let mut random = [0; 16];
        rng.fill_bytes(&mut random);
        let nonce = uuid::Builder::from_random_bytes(random).into_uuid().simple().to_string();
        let mut reply = Map::new();
        reply.insert(key::STATUS, status::EOF);
        reply.insert(key::CONFIRM_EXPECTED, true);
        reply.insert(key::CONFIRM_NONCE, nonce.as_str());
        self.confirming.insert(receiver.clone(), nonce);
        Answer { code: ReturnCode::Ok, payload: payload(reply) }
    }

    fn settle(&mut self, receiver: &Fqcn, success: bool) {
        self.confirming.remove(receiver);
        self.settled.entry(receiver.clone()).or_insert(success);
    }
}

fn say(status: &str) -> Answer {
    Answer { code: ReturnCode::Ok, payload: payload(Map::from_iter([(key::STATUS, status)])) }
}
