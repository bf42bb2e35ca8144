//! Putting arrays in the place of their references.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use locule_cell::{Cell, Request, RequestError};
use locule_fobs::{DownloadSource, RefKind, Shareable, Value};
use locule_journal::{Spool, SpoolError};
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
    /// There is no room for what is fetched.
    #[error("what is fetched cannot be kept")]
    Spool(#[from] SpoolError),
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
            Self::Spool(_) => true,
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
    gather(cell, shareable, holder, limits, || None).await?.place(shareable)
}

/// The same, but for the last step: what is fetched waits in spools that `spool` gives, one for each source, or in
/// memory where it gives none, until it is [placed](Gathered::place).
///
/// # Errors
/// As [`fetch`].
pub async fn gather(
    cell: &Cell,
    shareable: &mut Shareable,
    holder: &Fqcn,
    limits: &FetchLimits,
    spool: impl Fn() -> Option<Box<dyn Spool>>,
) -> Result<Gathered, FetchError> {
    let mut sources = HashSet::new();
    shareable.visit_array_refs(&mut |reference| {
        if reference.kind == RefKind::Tensor {
            return Err(FetchError::Tensor);
        }
        sources.insert(Arc::clone(&reference.source));
        if sources.len() > limits.max_sources {
            return Err(FetchError::TooManySources(limits.max_sources));
        }
        Ok(None)
    })?;
    let mut gathered = Gathered { sources: Vec::new(), bytes: 0 };
    for source in sources {
        let by: Fqcn = source.fqcn.parse()?;
        if !holder.contains(&by) {
            return Err(FetchError::Foreign { by, holder: holder.clone() });
        }
        let left = limits.max_bytes.saturating_sub(gathered.bytes);
        let items = download(Items::new(spool()), cell, &by, &source.ref_id, left, limits).await?;
        gathered.bytes += items.len();
        gathered.sources.push((source, items));
    }
    Ok(gathered)
}

/// Arrays that a message refers to, fetched and not yet in their places.
#[derive(Debug)]
pub struct Gathered {
    sources: Vec<(Arc<DownloadSource>, Items)>,
    bytes: u64,
}

impl Gathered {
    /// Puts the arrays into memory, and in the places of their references. Returns how many bytes they had. It blocks
    /// if they are in spools.
    ///
    /// # Errors
    /// [`FetchError`]; the shareable is as it was then.
    pub fn place(self, shareable: &mut Shareable) -> Result<u64, FetchError> {
        let mut arrays = HashMap::new();
        for (source, items) in self.sources {
            let mut named = HashMap::new();
            for item in items.read()? {
                let (name, array) =
                    read_npz(&item).map_err(|error| FetchError::Item { by: cell_of(&source), error })?;
                named.insert(name, array);
            }
            arrays.insert(source, named);
        }
        // looked up before anything is replaced, so that an error leaves the whole as it was
        let find = |source: &DownloadSource, item: &str| {
            let array = arrays.get(source).and_then(|named| named.get(item));
            array.cloned().ok_or_else(|| FetchError::Missing {
                by: cell_of(source),
                item: item.chars().take(64).collect(),
            })
        };
        shareable
            .visit_array_refs(&mut |reference| find(&reference.source, &reference.item).map(|_| None))?;
        shareable.visit_array_refs(&mut |reference| {
            find(&reference.source, &reference.item).map(|array| Some(Value::Array(array)))
        })?;
        Ok(self.bytes)
    }
}

/// The cell of a source that was asked.
fn cell_of(source: &DownloadSource) -> Fqcn {
    source.fqcn.parse().unwrap_or_else(|_| Fqcn::server())
}

/// Items of a download, as far as they have come.
#[derive(Debug)]
enum Items {
    Memory(Vec<Bytes>),
    /// One after the other, with the length of each.
    Spool(Box<dyn Spool>, Vec<usize>),
}

impl Items {
    fn new(spool: Option<Box<dyn Spool>>) -> Self {
        spool.map_or(Self::Memory(Vec::new()), |spool| Self::Spool(spool, Vec::new()))
    }

    fn len(&self) -> u64 {
        match self {
            Self::Memory(items) => items.iter().map(|item| item.len() as u64).sum(),
            Self::Spool(_, lengths) => lengths.iter().map(|len| *len as u64).sum(),
        }
    }

    async fn extend(self, more: Vec<Bytes>) -> Result<Self, SpoolError> {
        let (mut spool, mut lengths) = match self {
            Self::Memory(mut items) => {
                items.extend(more);
                return Ok(Self::Memory(items));
            }
            Self::Spool(spool, lengths) => (spool, lengths),
        };
        let write = move || {
            for item in more {
                spool.write_at(spool.received().contiguous(), &item)?;
                lengths.push(item.len());
            }
            Ok(Self::Spool(spool, lengths))
        };
        let written = tokio::task::spawn_blocking(write).await;
        written.unwrap_or_else(|error| Err(SpoolError::Io(std::io::Error::other(error))))
    }

    /// All of them, in memory.
    fn read(self) -> Result<Vec<Bytes>, SpoolError> {
        match self {
            Self::Memory(items) => Ok(items),
            Self::Spool(spool, lengths) => {
                let mut rest = spool.read()?;
                Ok(lengths.into_iter().map(|len| rest.split_to(len)).collect())
            }
        }
    }
}

/// Downloads what `source` holds under `ref_id`, at most `max_bytes`, and confirms.
async fn download(
    mut items: Items,
    cell: &Cell,
    source: &Fqcn,
    ref_id: &str,
    max_bytes: u64,
    limits: &FetchLimits,
) -> Result<Items, FetchError> {
    let mut download = Download::new(ref_id, max_bytes);
    loop {
        let reply = ask(cell, source, &download, limits).await?;
        let piece =
            download.accept(reply).map_err(|error| FetchError::Download { by: source.clone(), error });
        match piece? {
            Piece::Data(pieces) => items = items.extend(pieces).await?,
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
