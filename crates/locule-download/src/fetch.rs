//! Putting arrays in the place of their references.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use locule_cell::{Cell, Request, RequestError};
use locule_fobs::{Array, DownloadSource, RefKind, Shareable, Value};
use locule_message::{Fqcn, FqcnError};

use crate::{DOWNLOAD, DOWNLOADS, Download, DownloadError, NpzError, Piece, read_npz};

/// How much to fetch, and how long to wait for it.
#[derive(Clone, Debug)]
pub struct FetchLimits {
    /// Most bytes in all.
    pub max_bytes: u64,
    /// Most sources that one message may refer to.
    pub max_sources: usize,
    /// How long a source may let a request wait while nothing moves.
    pub patience: Duration,
    /// Pauses before a request is repeated that was not answered in time.
    pub pauses: Vec<Duration>,
}

impl Default for FetchLimits {
    fn default() -> Self {
        let pauses = [2, 4, 8].map(Duration::from_secs).to_vec();
        Self { max_bytes: 4 << 30, max_sources: 64, patience: Duration::from_secs(60), pauses }
    }
}

/// Why arrays could not be fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The source is no cell.
    #[error("source is no valid cell")]
    Source(#[from] FqcnError),
    /// The source is not one that the sender may refer to.
    #[error("source {by} is not {holder} nor below it")]
    Foreign {
        /// The source.
        by: Fqcn,
        /// Who should hold the arrays.
        holder: Fqcn,
    },
    /// The message refers to more sources than it may.
    #[error("more than {0} sources")]
    TooManySources(usize),
    /// The source does not answer, or refuses.
    #[error("source {by} does not answer")]
    Request {
        /// The source.
        by: Fqcn,
        /// Why.
        #[source]
        error: RequestError,
    },
    /// The source's answer is not what it should be.
    #[error("source {by} cannot be read")]
    Download {
        /// The source.
        by: Fqcn,
        /// What is wrong.
        #[source]
        error: DownloadError,
    },
    /// What was downloaded is no array.
    #[error("item of {by} is no array")]
    Item {
        /// The source.
        by: Fqcn,
        /// What is wrong.
        #[source]
        error: NpzError,
    },
    /// The source does not have what the message refers to.
    #[error("source {by} has no item {item:?}")]
    Missing {
        /// The source.
        by: Fqcn,
        /// The name that the message gives it, shortened.
        item: String,
    },
    /// The reference is to a torch tensor, which has no place among arrays.
    #[error("torch tensors cannot be fetched; have the job send numpy arrays (server_expected_format numpy)")]
    Tensor,
}

impl FetchError {
    /// Whether the same reference may be fetched later without anybody changing anything.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Request { error, .. } => error.is_retryable(),
            Self::Source(_)
            | Self::Foreign { .. }
            | Self::TooManySources(_)
            | Self::Download { .. }
            | Self::Item { .. }
            | Self::Missing { .. }
            | Self::Tensor => false,
        }
    }
}

/// Fetches every array that `shareable` refers to and puts it in the place of its reference. Returns how
/// many bytes were fetched.
///
/// Who sent the shareable wrote the references, so only `holder` and the cells below it are asked.
///
/// # Errors
/// [`FetchError`]; the shareable is as it was then.
pub async fn fetch(
    cell: &Cell,
    shareable: &mut Shareable,
    holder: &Fqcn,
    limits: &FetchLimits,
) -> Result<u64, FetchError> {
    let mut sources: HashMap<Arc<DownloadSource>, HashMap<String, Array>> = HashMap::new();
    shareable.visit_array_refs(&mut |reference| {
        if reference.kind == RefKind::Tensor {
            return Err(FetchError::Tensor);
        }
        if let Entry::Vacant(entry) = sources.entry(reference.source.clone()) {
            entry.insert(HashMap::new());
        }
        if sources.len() > limits.max_sources {
            return Err(FetchError::TooManySources(limits.max_sources));
        }
        Ok(None)
    })?;
    let mut fetched = 0;
    for (source, arrays) in &mut sources {
        let by: Fqcn = source.fqcn.parse()?;
        if !holder.contains(&by) {
            return Err(FetchError::Foreign { by, holder: holder.clone() });
        }
        let left = limits.max_bytes.saturating_sub(fetched);
        for item in download(cell, &by, &source.ref_id, left, limits).await? {
            fetched += item.len() as u64;
            let (name, array) =
                read_npz(&item).map_err(|error| FetchError::Item { by: by.clone(), error })?;
            arrays.insert(name, array);
        }
    }
    // looked up before anything is replaced, so that an error leaves the whole as it was
    let find = |source: &DownloadSource, item: &str| {
        let array = sources.get(source).and_then(|arrays| arrays.get(item));
        array.cloned().ok_or_else(|| FetchError::Missing {
            by: source.fqcn.parse().unwrap_or_else(|_| Fqcn::server()),
            item: item.chars().take(64).collect(),
        })
    };
    shareable.visit_array_refs(&mut |reference| find(&reference.source, &reference.item).map(|_| None))?;
    shareable.visit_array_refs(&mut |reference| {
        find(&reference.source, &reference.item).map(|array| Some(Value::Array(array)))
    })?;
    Ok(fetched)
}

/// Downloads the items that `source` holds under `ref_id`, at most `max_bytes`, and confirms.
///
/// # Errors
/// [`FetchError`]; the source has been told.
pub async fn download(
    cell: &Cell,
    source: &Fqcn,
    ref_id: &str,
    max_bytes: u64,
    limits: &FetchLimits,
) -> Result<Vec<Bytes>, FetchError> {
    let mut download = Download::new(ref_id, max_bytes);
    let mut items = Vec::new();
    loop {
        let reply = ask(cell, source, &download, limits).await?;
        let piece =
            download.accept(reply).map_err(|error| FetchError::Download { by: source.clone(), error });
        match piece? {
            Piece::Data(pieces) => items.extend(pieces),
            Piece::End { nonce } => {
                if let Some(nonce) = nonce {
                    let confirmation = Request::new(DOWNLOADS, DOWNLOAD, download.confirmation(&nonce, true));
                    // the data are here, whether the source hears so or not
                    if let Err(error) = cell.notify(source, confirmation).await {
                        tracing::debug!(%source, %error, "download not confirmed");
                    }
                }
                return Ok(items);
            }
        }
    }
}

/// Asks for the next piece, again when there was no answer: the source gives the same piece then.
async fn ask(
    cell: &Cell,
    source: &Fqcn,
    download: &Download,
    limits: &FetchLimits,
) -> Result<locule_message::Payload, FetchError> {
    let mut pauses = limits.pauses.iter();
    loop {
        let request = Request::new(DOWNLOADS, DOWNLOAD, download.request()).timeout(limits.patience);
        let answer = cell.request(source, request).await.and_then(locule_cell::Reply::into_ok);
        match (answer, pauses.next()) {
            (Ok(reply), _) => return Ok(reply.payload),
            (Err(error), Some(pause)) if error.is_retryable() => {
                tracing::debug!(%source, %error, "download asked again");
                tokio::time::sleep(*pause).await;
            }
            (Err(error), _) => return Err(FetchError::Request { by: source.clone(), error }),
        }
    }
}
