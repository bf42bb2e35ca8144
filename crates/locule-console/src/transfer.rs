//! Files to the server and from it, in chunks.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use locule_cell::{Request, RequestError};
use locule_download::{DOWNLOAD, DOWNLOADS, Download, DownloadError, Piece};
use locule_job::{Limits, UnpackError, unpack_file};
use locule_message::{Fqcn, Payload};
use locule_protocol::{AuxReply, AuxRequest, ReplyDocument, UploadChunk, site_context, to_props};
use tokio::io::AsyncWriteExt as _;
use uuid::Uuid;

use crate::console::{AskError, Console, stamp};
use crate::parcel::Parcel;

/// Bytes of a chunk that is sent. Each is answered before the next.
///
/// # Source
/// nvflare 2.9.0, `nvflare.app_common.streamers.file_streamer`.
const CHUNK: usize = 1 << 20;

/// How long the answer to a chunk may take.
const CHUNK_PATIENCE: Duration = Duration::from_secs(60);

/// Pauses before a chunk is asked for again.
const PAUSES: [Duration; 4] =
    [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4), Duration::from_secs(8)];

/// Most files that a result may consist of; there are three.
const MAX_FILES: usize = 16;

/// Most bytes unpacked for each byte of a result: models that have not been trained yet are all zeros.
const MAX_RATIO: u64 = 1_100;

/// How much of a file has passed, and how much there is if that is known, in bytes.
pub type Passed<'a> = &'a mut (dyn FnMut(u64, Option<u64>) + Send);

/// Why a file was not sent, or what the server says of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The command that it was sent with was not carried out.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// The server has everything, and its answer is lost: it may have carried the command out.
    #[error("the server's answer to what was sent is lost")]
    AnswerLost(#[source] RequestError),
    /// The server broke off.
    #[error("the server broke off: {code}")]
    BrokenOff {
        /// Its code.
        code: String,
    },
    /// The file cannot be read.
    #[error("cannot read the packed job")]
    Read(#[source] io::Error),
}

/// Why a result was not fetched; nothing of it is left.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The server does not offer it.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// The server's offer makes no sense.
    #[error("the server's offer is not understood")]
    Offer,
    /// The server does not give a file that it offers.
    #[error("the server does not give {file}")]
    Source {
        /// The file.
        file: String,
        /// Why.
        #[source]
        error: DownloadError,
    },
    /// There is something already where the result should go.
    #[error("{} is there already", path.display())]
    Occupied {
        /// Where.
        path: PathBuf,
    },
    /// An archive cannot be unpacked.
    #[error("{file} cannot be unpacked")]
    Unpack {
        /// The file.
        file: String,
        /// Why.
        #[source]
        error: UnpackError,
    },
    /// The disk does not take it.
    #[error("cannot write {}", path.display())]
    Write {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Console {
    /// Sends a packed job with a command; the server's answer to it.
    ///
    /// # Errors
    /// [`SendError`].
    ///
    /// # Source
    /// nvflare 2.9.0, `nvflare.fuel.hci.client.file_transfer`, `nvflare.private.stream_runner`.
    pub async fn send_job(
        &self,
        words: &[&str],
        parcel: &Parcel,
        passed: Passed<'_>,
    ) -> Result<ReplyDocument, SendError> {
        let name = words.first().copied().unwrap_or_default();
        if self.usage(name).is_none() {
            return Err(AskError::Unsupported { command: name.to_owned() }.into());
        }
        let command = self.document(words.iter().copied()).to_text(&stamp());
        let id = Uuid::from_u128(rand::random()).to_string();
        let mut file = parcel.open().map_err(SendError::Read)?;
        let (mut seq, mut sent) = (0, 0);
        loop {
            let read = tokio::task::spawn_blocking(move || read_chunk(file)).await;
            let (data, rest) =
                read.map_err(|error| SendError::Read(io::Error::other(error)))?.map_err(SendError::Read)?;
            file = rest;
            sent += data.len() as u64;
            let last = sent >= parcel.bytes || data.is_empty();
            let opening = (seq == 0).then(|| (command.clone(), parcel.bytes));
            let chunk = UploadChunk { id: id.clone(), seq, opening, data, last };
            let answer = self.send_chunk(&chunk).await?;
            passed(sent, Some(parcel.bytes));
            if last {
                let result = answer.headers.str(UploadChunk::END_RESULT).ok_or(AskError::NotUnderstood)?;
                let answer = ReplyDocument::parse(result).map_err(|_| AskError::NotUnderstood)?;
                return Ok(self.judge(answer)?);
            }
            seq += 1;
        }
    }

    async fn send_chunk(&self, chunk: &UploadChunk) -> Result<AuxReply, SendError> {
        if let Some(reason) = self.over() {
            return Err(AskError::SessionOver { reason }.into());
        }
        let timeout = if chunk.last { self.settings.verdict } else { CHUNK_PATIENCE };
        let request = chunk.to_request(to_props(&site_context(&self.settings.user, None)), self.dialect);
        // Texts, numbers and bytes: there is nothing that cannot be encoded.
        let payload = request.to_parts().map_or_else(|_| Payload::none(), |parts| parts.payload);
        let request = Request::new(AuxRequest::CHANNEL, UploadChunk::TOPIC, payload).timeout(timeout);
        let reply = self.cell.request(&Fqcn::server(), request).await.and_then(locule_cell::Reply::into_ok);
        let reply = reply.map_err(|error| {
            let sent = matches!(
                error,
                RequestError::Timeout | RequestError::LinkLost | RequestError::Returned { .. }
            );
            let lost = chunk.last && sent && error.is_retryable();
            if lost { SendError::AnswerLost(error) } else { AskError::Request(error).into() }
        })?;
        let answer =
            AuxReply::from_parts(&reply.headers, &reply.payload).map_err(|_| AskError::NotUnderstood)?;
        if answer.is_ok() {
            Ok(answer)
        } else {
            Err(SendError::BrokenOff { code: crate::console::shown(&answer.code) })
        }
    }

    /// Fetches a job and its results into the folder `into`, which must not exist yet: `meta.json`, and what the
    /// archives hold in `job` and `workspace`. The folder holds all of it or does not exist.
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn fetch_job(
        &self,
        id: &str,
        into: &Path,
        most: u64,
        passed: Passed<'_>,
    ) -> Result<u64, FetchError> {
        if into.symlink_metadata().is_ok() {
            return Err(FetchError::Occupied { path: into.to_owned() });
        }
        let answer = self.ask(&["download_job", id]).await?;
        let source = answer.meta.get("source_fqcn").and_then(serde_json::Value::as_str);
        let source: Fqcn = source.and_then(|source| source.parse().ok()).ok_or(FetchError::Offer)?;
        if !Fqcn::server().contains(&source) {
            return Err(FetchError::Offer);
        }
        let files = offered(&answer).ok_or(FetchError::Offer)?;
        let partial = Partial::create(into)?;
        let mut fetched = 0;
        for (name, reference) in &files {
            let place = partial.path.join(name);
            let mut so_far = |bytes: u64| passed(fetched + bytes, None);
            fetched += self.fetch_file(&source, name, reference, &place, most - fetched, &mut so_far).await?;
        }
        let (names, into) = (files.into_iter().map(|(name, _)| name).collect::<Vec<_>>(), into.to_owned());
        let finished = tokio::task::spawn_blocking(move || partial.finish(&names, &into, most)).await;
        finished.unwrap_or(Err(FetchError::Offer))?;
        Ok(fetched)
    }

    async fn fetch_file(
        &self,
        source: &Fqcn,
        name: &str,
        reference: &str,
        place: &Path,
        most: u64,
        passed: &mut (dyn FnMut(u64) + Send),
    ) -> Result<u64, FetchError> {
        let write = |source| FetchError::Write { path: place.to_owned(), source };
        let mut file = tokio::fs::File::create_new(place).await.map_err(write)?;
        let mut download = Download::new(reference, most);
        let mut bytes = 0;
        loop {
            let reply = self.ask_for_piece(source, &download).await?;
            let piece = download.accept(reply);
            match piece.map_err(|error| FetchError::Source { file: name.to_owned(), error })? {
                Piece::Data(pieces) => {
                    for piece in pieces {
                        file.write_all(&piece).await.map_err(write)?;
                        bytes += piece.len() as u64;
                    }
                    passed(bytes);
                }
                Piece::End { nonce } => {
                    file.flush().await.map_err(write)?;
                    if let Some(nonce) = nonce {
                        let confirmation = download.confirmation(&nonce, true);
                        let word = Request::new(DOWNLOADS, DOWNLOAD, confirmation).optional();
                        // The file is here, whether the server hears so or not.
                        self.cell.notify(source, word).await.ok();
                    }
                    return Ok(bytes);
                }
            }
        }
    }

    /// Asks for the next piece, again when there was no answer: the server gives the same piece then.
    async fn ask_for_piece(&self, source: &Fqcn, download: &Download) -> Result<Payload, FetchError> {
        let mut pauses = PAUSES.iter();
        loop {
            if let Some(reason) = self.over() {
                return Err(AskError::SessionOver { reason }.into());
            }
            let request = Request::new(DOWNLOADS, DOWNLOAD, download.request()).timeout(CHUNK_PATIENCE);
            let answer = self.cell.request(source, request).await.and_then(locule_cell::Reply::into_ok);
            match (answer, pauses.next()) {
                (Ok(reply), _) => return Ok(reply.payload),
                (Err(error), Some(pause)) if error.is_retryable() => {
                    tracing::debug!(%error, "piece of a result asked again");
                    tokio::time::sleep(*pause).await;
                }
                (Err(error), _) => return Err(AskError::Request(error).into()),
            }
        }
    }
}

/// The next chunk, as long as it can be: a shorter one is the last.
fn read_chunk(mut file: File) -> io::Result<(Bytes, File)> {
    let mut data = Vec::with_capacity(CHUNK);
    file.by_ref().take(CHUNK as u64).read_to_end(&mut data)?;
    Ok((data.into(), file))
}

/// Names and references of the files that a server offers; each name is that of a plain file.
fn offered(answer: &ReplyDocument) -> Option<Vec<(String, String)>> {
    let files = answer.meta.get("files")?.as_array().filter(|files| files.len() <= MAX_FILES)?;
    let file = |file: &serde_json::Value| {
        let (name, reference) = (file.get(0)?.as_str()?, file.get(1)?.as_str()?);
        let mut parts = Path::new(name).components();
        let plain =
            matches!((parts.next(), parts.next()), (Some(Component::Normal(part)), None) if part == name);
        (plain && name.len() <= 128 && !name.starts_with('.'))
            .then(|| (name.to_owned(), reference.to_owned()))
    };
    let files: Vec<_> = files.iter().map(file).collect::<Option<_>>()?;
    let mut names: Vec<&str> = files.iter().map(|(name, _)| name.trim_end_matches(".zip")).collect();
    names.sort_unstable();
    names.dedup();
    (!files.is_empty() && names.len() == files.len()).then_some(files)
}

/// A folder beside the one that is to be, removed unless it becomes that.
struct Partial {
    path: PathBuf,
}

impl Partial {
    fn create(into: &Path) -> Result<Self, FetchError> {
        let write = |path: &Path, source| FetchError::Write { path: path.to_owned(), source };
        let name = into.file_name().unwrap_or_default().to_string_lossy();
        let parent = into.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::create_dir_all(parent).map_err(|source| write(parent, source))?;
        let path = parent.join(format!(".{name}.{}", Uuid::from_u128(rand::random()).simple()));
        fs::create_dir(&path).map_err(|source| write(&path, source))?;
        Ok(Self { path })
    }

    /// Unpacks the archives, and gives the folder its name. Blocking.
    fn finish(self, names: &[String], into: &Path, most: u64) -> Result<(), FetchError> {
        let write = |path: &Path, source| FetchError::Write { path: path.to_owned(), source };
        let mut limits = Limits::default();
        (limits.max_bytes, limits.max_ratio) = (most, MAX_RATIO);
        for name in names.iter().filter(|name| name.ends_with(".zip")) {
            let archive = self.path.join(name);
            let folder = self.path.join(name.trim_end_matches(".zip"));
            unpack_file(&archive, &folder, &limits)
                .map_err(|error| FetchError::Unpack { file: name.clone(), error })?;
            fs::remove_file(&archive).map_err(|source| write(&archive, source))?;
        }
        if into.symlink_metadata().is_ok() {
            return Err(FetchError::Occupied { path: into.to_owned() });
        }
        fs::rename(&self.path, into).map_err(|source| write(into, source))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.path).ok(); // gone if it has its name
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn offer(names: &[&str]) -> Option<Vec<(String, String)>> {
        let files: Vec<_> = names.iter().map(|name| json!([name, "ref"])).collect();
        offered(&ReplyDocument::new().meta("files", files))
    }

    #[test]
    fn files_that_are_offered_stay_in_their_folder() {
        assert_eq!(offer(&["job.zip", "meta.json", "workspace.zip"]).map(|files| files.len()), Some(3));
        for bad in ["../x", "/x", "a/b", "", ".", "..", ".x", "a/"] {
            assert_eq!(offer(&["meta.json", bad]), None, "{bad}");
        }
        assert_eq!(offer(&["job.zip", "job"]), None, "one would unpack onto the other");
        assert_eq!(offer(&[]), None);
        assert_eq!(offer(&["a"; MAX_FILES + 1]), None);
    }

    #[test]
    fn what_is_not_finished_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let into = dir.path().join("result");
        let partial = Partial::create(&into).unwrap();
        fs::write(partial.path.join("job.zip"), b"no archive").unwrap();
        let refused = partial.finish(&["job.zip".into()], &into, 1 << 20);
        assert!(matches!(refused, Err(FetchError::Unpack { .. })));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
