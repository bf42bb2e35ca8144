//! The cell's own arrays, for others to fetch.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use locule_cell::{Cell, HandlerError, Incoming, Reply};
use locule_fobs::{Array, ArrayRef, DownloadSource, RefKind, Value};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng as _;

use crate::{DOWNLOAD, DOWNLOADS, NpzError, Offers, write_npz};

/// Holds arrays of a cell ready for others; clones share them.
#[derive(Clone)]
pub struct Source {
    name: String,
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    offers: Offers,
    rng: ChaCha20Rng,
}

/// Why arrays cannot be offered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OfferError {
    /// There are as many offers as there may be.
    #[error("too many offers")]
    TooMany,
    /// An array does not fit the form in which it is downloaded.
    #[error("array cannot be offered")]
    Array(#[from] NpzError),
}

impl Source {
    /// Answers downloads at `cell` from now on.
    pub fn serve(cell: &Cell) -> Self {
        let shared = Shared { offers: Offers::default(), rng: ChaCha20Rng::from_os_rng() };
        let source = Self { name: cell.name().to_string(), shared: Arc::new(Mutex::new(shared)) };
        let answering = source.shared.clone();
        cell.handle(DOWNLOADS, DOWNLOAD, move |incoming: Incoming| {
            let answer = answer(&answering, incoming);
            async move { answer }
        });
        source
    }

    /// Offers arrays to so many receivers; they are let go when all have them, or when nobody has asked
    /// for `idle`. Gives one reference for each array, in order.
    ///
    /// # Errors
    /// [`OfferError`].
    pub fn offer(
        &self,
        arrays: Vec<Array>,
        receivers: usize,
        idle: Duration,
    ) -> Result<Vec<Value>, OfferError> {
        let names: Vec<_> = (0..arrays.len()).map(|at| format!("T{at}")).collect();
        let items = names.iter().zip(&arrays).map(|(name, array)| write_npz(name, array));
        let items = items.collect::<Result<_, _>>()?;
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let Shared { offers, rng } = &mut *shared;
        let now = tokio::time::Instant::now().into_std();
        let ref_id = offers.offer(now, rng, items, receivers, idle).ok_or(OfferError::TooMany)?;
        let source = Arc::new(DownloadSource { fqcn: self.name.clone(), ref_id });
        let reference = |item| {
            Value::ArrayRef(ArrayRef { kind: RefKind::Numpy, item, source: source.clone(), passed_on: false })
        };
        Ok(names.into_iter().map(reference).collect())
    }
}

fn answer(shared: &Mutex<Shared>, incoming: Incoming) -> Result<Reply, HandlerError> {
    let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
    let Shared { offers, rng } = &mut *shared;
    let now = tokio::time::Instant::now().into_std();
    let receiver = incoming.origin.clone();
    let answer = offers.answer(now, rng, &receiver, incoming.into_payload());
    while let Some((ref_id, outcome)) = offers.poll_ended() {
        tracing::debug!(ref_id, ?outcome, "offer ended");
    }
    Ok(Reply {
        code: answer.code,
        error: None,
        headers: locule_message::Headers::new(),
        payload: answer.payload,
    })
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("name", &self.name).finish_non_exhaustive()
    }
}
