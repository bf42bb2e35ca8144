use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use locule_message::{Fqcn, Message, ReturnCode};
use locule_switch::{
    IncomingFilter, LinkFacts, LinkId, Now, OutgoingFilter, Refusal, RequestId, Switch, SwitchConfig,
};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

/// Header that tells messages apart; a request and its reply have the same.
pub(crate) const NONCE: &str = "sim-nonce";
/// Header with the length of the body, in bytes.
pub(crate) const SIZE: &str = "sim-size";
/// Header of a reply: who made it.
pub(crate) const HANDLED_BY: &str = "sim-handled-by";
/// Header that honest cells stamp, unique per message.
const PROOF: &str = "sim-proof";

/// Largest frame of a link, in bytes.
pub(crate) const MAX_FRAME: usize = 16 << 20;
const CONTROL_QUEUE: usize = 32 << 10;
const BULK_QUEUE: usize = 256 << 10;
/// Largest message of each kind with its headers, in bytes: an empty lane takes one of any size.
const LARGEST_CONTROL: usize = 70 << 10;
const LARGEST_BULK: usize = 1 << 20;

/// A cell: a switch, what it waits for, and what its gate has let through.
#[derive(Debug)]
pub(crate) struct Cell {
    pub(crate) switch: Switch,
    /// Nonce and deadline of each request at each target.
    pub(crate) open: BTreeMap<(RequestId, Fqcn), (u64, Instant)>,
    /// Changes with each restart.
    pub(crate) life: u64,
    gate: Arc<Gate>,
}

impl Cell {
    pub(crate) fn start(name: Fqcn, seed: u64) -> Self {
        let mut config = SwitchConfig::new(name);
        (config.control_queue, config.bulk_queue) = (CONTROL_QUEUE, BULK_QUEUE);
        let mut switch = Switch::new(config, Box::new(ChaCha8Rng::seed_from_u64(seed)));
        let gate = Arc::new(Gate::default());
        switch.set_gate(gate.clone());
        switch.add_stamp(Arc::new(Stamp));
        Self { switch, open: BTreeMap::new(), life: 0, gate }
    }

    /// Nothing goes on that the gate has not let through.
    pub(crate) fn assert_gated(&self, message: &Message) {
        let proof = message.headers.u64(PROOF).expect("a message without proof went past the gate");
        assert!(self.gate.has_passed(proof), "a message went past the gate unseen");
    }

    pub(crate) fn assert_in_time(&self, now: Instant) {
        for ((id, target), (_, deadline)) in &self.open {
            assert!(now <= *deadline, "request {id} to {target} did not settle by its deadline");
        }
        assert_eq!(self.open.len(), self.switch.pending(), "settled and told are the same");
    }

    pub(crate) fn assert_within_bounds(&self, link: LinkId) {
        let (control, bulk) = self.switch.queued_bytes(link);
        assert!(control <= CONTROL_QUEUE.max(LARGEST_CONTROL), "{control} bytes of control queued");
        assert!(bulk <= BULK_QUEUE.max(LARGEST_BULK), "{bulk} bytes of bulk queued");
    }
}

/// A body that can be told from every other.
pub(crate) fn body(nonce: u64, size: usize) -> Bytes {
    let mut body = vec![nonce as u8; size];
    let len = size.min(8);
    body[..len].copy_from_slice(&nonce.to_be_bytes()[8 - len..]);
    body.into()
}

#[derive(Default)]
struct Gate {
    passed: Mutex<Passed>,
}

/// The proofs seen lately; those of long ago are no more asked for.
#[derive(Default)]
struct Passed {
    recent: std::collections::BTreeSet<u64>,
}

impl Gate {
    fn has_passed(&self, proof: u64) -> bool {
        self.passed.lock().unwrap_or_else(PoisonError::into_inner).recent.contains(&proof)
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").finish_non_exhaustive()
    }
}

impl IncomingFilter for Gate {
    fn check(&self, _: Now, _: &LinkFacts, message: &Message) -> Result<(), Refusal> {
        let Some(proof) = message.headers.u64(PROOF) else {
            return Err(Refusal::new(ReturnCode::Unauthenticated, "no proof"));
        };
        self.passed.lock().unwrap_or_else(PoisonError::into_inner).recent.insert(proof);
        Ok(())
    }
}

struct Stamp;

/// Proofs are compared, never counted, so that runs beside each other may share the counter.
static NEXT_PROOF: AtomicU64 = AtomicU64::new(1);

impl OutgoingFilter for Stamp {
    fn stamp(&self, _: Now, message: &mut Message, _: &Fqcn) -> Result<(), Refusal> {
        message.headers.set(PROOF, NEXT_PROOF.fetch_add(1, Ordering::Relaxed));
        Ok(())
    }
}
