//! Gives files out in chunks to whoever was told of them; opens none of them itself.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use locule_download::wire::{key, status};
use locule_fobs::{Map, Value};
use locule_message::Fqcn;

const RECEIVED: &str = "received_bytes";

/// Bounds of a [`FileSource`].
#[derive(Clone, Copy, Debug)]
pub struct SourceLimits {
    /// Folders that may wait to be fetched at one time.
    pub folders: usize,
    /// Of one receiver.
    pub folders_per_receiver: usize,
    /// Bytes of a chunk.
    pub chunk: usize,
    /// A folder that nobody asked for during this time is given up.
    pub idle: Duration,
}

impl Default for SourceLimits {
    fn default() -> Self {
        Self {
            folders: 16,
            folders_per_receiver: 4,
            chunk: 5 << 20,
            // Longer than a session may be idle, as there.
            idle: Duration::from_secs(1_805),
        }
    }
}

/// Files of folders that wait to be fetched, each by one receiver.
///
/// Requests go in and [`Answer`]s come out; reading the bytes is for the caller. A folder is done when each of
/// its files was received, or when nobody asked for too long; [`done`](Self::done) then gives it back, to be
/// removed. That a file was received is remembered as long as another file of its folder is not, so that an
/// answer that was lost can be repeated.
///
/// # Source
/// nvflare 2.9.0, `nvflare.fuel.f3.streaming.download_service`, `nvflare.fuel.f3.streaming.file_downloader`.
#[derive(Debug)]
pub struct FileSource {
    limits: SourceLimits,
    folders: HashMap<String, Folder>,
    /// The folder of each reference.
    refs: HashMap<String, String>,
    done: Vec<PathBuf>,
}

#[derive(Debug)]
struct Folder {
    path: PathBuf,
    /// Who may fetch it.
    receiver: Fqcn,
    session: String,
    files: HashMap<String, File>,
    used: Instant,
}

#[derive(Debug)]
struct File {
    path: PathBuf,
    size: u64,
    /// What a receiver that says so must repeat to confirm that it has everything.
    nonce: Option<String>,
    state: Fate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Open,
    Received,
    Failed,
}

/// A folder to be fetched.
#[derive(Clone, Debug)]
pub struct Offer {
    /// The folder; handed back when it is done.
    pub folder: PathBuf,
    /// The cell that may fetch it.
    pub receiver: Fqcn,
    /// The session on whose behalf; see [`FileSource::end_session`].
    pub session: String,
    /// Its files: reference, path and size in bytes.
    pub files: Vec<(String, PathBuf, u64)>,
}

/// What a request is answered with.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Read these bytes of this file, then answer with [`chunk`].
    Read {
        /// The file.
        file: PathBuf,
        /// Where to begin, in bytes.
        offset: u64,
        /// How many bytes; they are there.
        len: usize,
        /// The session on whose behalf.
        session: String,
    },
    /// Answer with this.
    Reply(Map),
    /// It was no question; nothing has to be answered.
    Noted,
    /// There is no such reference, or it is somebody else's: an invalid request.
    Unknown,
}

/// The answer with the bytes that were read from `offset` on.
#[must_use]
pub fn chunk(offset: u64, bytes: Bytes) -> Map {
    let received = offset.saturating_add(bytes.len() as u64);
    let state = Map::from_iter([(RECEIVED, i64::try_from(received).unwrap_or(i64::MAX))]);
    Map::from_iter([
        (key::STATUS, Value::from(status::OK)),
        (key::STATE, state.into()),
        (key::DATA, Value::Bytes(bytes)),
        (key::CANCEL_CAPABLE, true.into()),
    ])
}

impl FileSource {
    /// A source without files.
    #[must_use]
    pub fn new(limits: SourceLimits) -> Self {
        Self { limits, folders: HashMap::new(), refs: HashMap::new(), done: Vec::new() }
    }

    /// Whether one more folder may wait for this receiver.
    #[must_use]
    pub fn has_room(&self, receiver: &Fqcn) -> bool {
        let theirs = self.folders.values().filter(|folder| folder.receiver == *receiver).count();
        self.folders.len() < self.limits.folders && theirs < self.limits.folders_per_receiver
    }

    /// Lets a folder be fetched; false, and nothing happened, if there is no room. `id` names it.
    #[must_use]
    pub fn offer(&mut self, id: &str, offer: Offer, now: Instant) -> bool {
        if !self.has_room(&offer.receiver) || offer.files.is_empty() {
            return false;
        }
        let Offer { folder, receiver, session, files } = offer;
        self.refs.extend(files.iter().map(|(reference, ..)| (reference.clone(), id.to_owned())));
        let file = |(reference, path, size)| (reference, File { path, size, nonce: None, state: Fate::Open });
        let files = files.into_iter().map(file).collect();
        self.folders.insert(id.to_owned(), Folder { path: folder, receiver, session, files, used: now });
        true
    }

    /// What to do with a request that came from `origin`. `nonce` is fresh.
    pub fn ask(&mut self, origin: &Fqcn, request: &Map, nonce: &str, now: Instant) -> Answer {
        let Some(reference) = request.str(key::REF_ID) else { return Answer::Unknown };
        let id = self.refs.get(reference).cloned().unwrap_or_default();
        let folder = self.folders.get_mut(&id).filter(|folder| folder.receiver == *origin);
        let Some(folder) = folder else { return Answer::Unknown };
        let Some(file) = folder.files.get_mut(reference) else { return Answer::Unknown };
        let answer = file.ask(request, nonce, self.limits.chunk);
        let answer = match answer {
            Answer::Read { file, offset, len, .. } => {
                folder.used = now;
                Answer::Read { file, offset, len, session: folder.session.clone() }
            }
            Answer::Reply(_) | Answer::Noted | Answer::Unknown => answer,
        };
        if folder.files.values().all(|file| file.state != Fate::Open) {
            self.drop_folders(|other, _| other == id);
        }
        answer
    }

    /// Gives up what was offered to a session.
    pub fn end_session(&mut self, session: &str) {
        self.drop_folders(|_, folder| folder.session == session);
    }

    /// Gives up the folders that nobody asked for.
    pub fn sweep(&mut self, now: Instant) {
        let idle = self.limits.idle;
        self.drop_folders(|_, folder| now.saturating_duration_since(folder.used) > idle);
    }

    /// The folders that are done since the last call.
    pub fn done(&mut self) -> Vec<PathBuf> {
        std::mem::take(&mut self.done)
    }

    fn drop_folders(&mut self, which: impl Fn(&str, &Folder) -> bool) {
        let done = &mut self.done;
        self.folders.retain(|id, folder| {
            let goes = which(id, folder);
            if goes {
                done.push(folder.path.clone());
            }
            !goes
        });
        let folders = &self.folders;
        self.refs.retain(|_, id| folders.contains_key(id));
    }
}

impl File {
    fn ask(&mut self, request: &Map, nonce: &str, chunk: usize) -> Answer {
        if let Some(confirmed) = request.str(key::CONFIRM) {
            if self.nonce.is_some() && request.str(key::CONFIRM_NONCE) == self.nonce.as_deref() {
                self.state = if confirmed == status::SUCCESS { Fate::Received } else { Fate::Failed };
            }
            return Answer::Noted;
        }
        if request.bool(key::CANCEL) == Some(true) {
            self.state = Fate::Failed;
            return Answer::Noted;
        }
        match self.state {
            Fate::Received => return Answer::Reply(reply_of(status::EOF)),
            Fate::Failed => return Answer::Reply(reply_of(status::ERROR)),
            Fate::Open => {}
        }
        let received = match request.map(key::STATE).and_then(|state| state.get(RECEIVED)) {
            None => Some(0),
            Some(received) => received.as_i64().and_then(|received| u64::try_from(received).ok()),
        };
        let Some(offset) = received else { return Answer::Reply(reply_of(status::ERROR)) };
        if offset < self.size {
            let left = usize::try_from(self.size - offset).unwrap_or(usize::MAX);
            let (file, len) = (self.path.clone(), left.min(chunk));
            return Answer::Read { file, offset, len, session: String::new() };
        }
        let mut reply = reply_of(status::EOF);
        if request.bool(key::CONFIRM_CAPABLE) == Some(true) {
            reply.insert(key::CONFIRM_EXPECTED, true);
            reply.insert(key::CONFIRM_NONCE, nonce);
            self.nonce = Some(nonce.to_owned());
        } else {
            self.state = Fate::Received;
        }
        Answer::Reply(reply)
    }
}

fn reply_of(status: &str) -> Map {
    Map::from_iter([(key::STATUS, status)])
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn name(text: &str) -> Fqcn {
        text.parse().unwrap()
    }

    fn offer(receiver: &str, id: &str, sizes: &[u64]) -> Offer {
        let file = |(index, size): (usize, &u64)| {
            (format!("{id}-{index}"), PathBuf::from(format!("f{index}")), *size)
        };
        Offer {
            folder: PathBuf::from(id),
            receiver: name(receiver),
            session: "s".into(),
            files: sizes.iter().enumerate().map(file).collect(),
        }
    }

    fn request(reference: &str, received: Option<i64>) -> Map {
        let mut request =
            Map::from_iter([("ref_id", Value::from(reference)), ("confirm_capable", true.into())]);
        if let Some(received) = received {
            request.insert("state", Map::from_iter([("received_bytes", received)]));
        }
        request
    }

    fn source(sizes: &[u64]) -> (FileSource, Fqcn, Instant) {
        let mut source = FileSource::new(SourceLimits { chunk: 10, ..SourceLimits::default() });
        let now = Instant::now();
        assert!(source.offer("t", offer("a", "t", sizes), now));
        (source, name("a"), now)
    }

    fn read(answer: Answer) -> (u64, usize) {
        match answer {
            Answer::Read { offset, len, .. } => (offset, len),
            other @ (Answer::Reply(_) | Answer::Noted | Answer::Unknown) => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_file_comes_in_chunks_and_is_confirmed() {
        let (mut source, a, now) = source(&[25]);
        assert_eq!(read(source.ask(&a, &request("t-0", None), "n", now)), (0, 10));
        assert_eq!(read(source.ask(&a, &request("t-0", Some(10)), "n", now)), (10, 10));
        assert_eq!(read(source.ask(&a, &request("t-0", Some(10)), "n", now)), (10, 10), "asked again");
        assert_eq!(read(source.ask(&a, &request("t-0", Some(20)), "n", now)), (20, 5));
        let Answer::Reply(end) = source.ask(&a, &request("t-0", Some(25)), "n", now) else { panic!() };
        assert_eq!((end.str("status"), end.bool("confirm_expected")), (Some("eof"), Some(true)));
        assert!(source.done().is_empty(), "not before it is confirmed");
        let confirm = |nonce: &str| {
            Map::from_iter([("ref_id", "t-0"), ("confirm", "success"), ("confirm_nonce", nonce)])
        };
        assert_eq!(source.ask(&a, &confirm("guess"), "m", now), Answer::Noted);
        assert!(source.done().is_empty());
        assert_eq!(source.ask(&a, &confirm("n"), "m", now), Answer::Noted);
        assert_eq!(source.done(), [PathBuf::from("t")]);
        assert_eq!(source.ask(&a, &request("t-0", None), "n", now), Answer::Unknown);
    }

    #[test]
    fn a_chunk_says_how_far_it_goes() {
        let map = chunk(10, Bytes::from_static(b"abc"));
        assert_eq!(map.map("state").and_then(|state| state.int("received_bytes")), Some(13));
        assert_eq!(
            (map.str("status"), map.bytes("data").map(|data| &data[..])),
            (Some("ok"), Some(&b"abc"[..]))
        );
    }

    #[test]
    fn nobody_else_gets_the_file() {
        let (mut source, _, now) = source(&[25]);
        assert_eq!(source.ask(&name("b"), &request("t-0", None), "n", now), Answer::Unknown);
        assert_eq!(source.ask(&name("a"), &request("t-9", None), "n", now), Answer::Unknown);
        assert_eq!(source.ask(&name("a"), &Map::new(), "n", now), Answer::Unknown);
    }

    #[test]
    fn an_old_receiver_and_an_empty_file_end_without_confirmation() {
        let (mut source, a, now) = source(&[0, 3]);
        let plain = |reference: &str, received: i64| {
            let state = Map::from_iter([("received_bytes", received)]);
            Map::from_iter([("ref_id", Value::from(reference)), ("state", state.into())])
        };
        assert_eq!(source.ask(&a, &plain("t-0", 0), "n", now), Answer::Reply(reply_of("eof")));
        assert_eq!(source.ask(&a, &plain("t-0", 0), "n", now), Answer::Reply(reply_of("eof")), "asked again");
        assert_eq!(source.ask(&a, &plain("t-1", -1), "n", now), Answer::Reply(reply_of("error")));
        assert_eq!(source.ask(&a, &plain("t-1", 3), "n", now), Answer::Reply(reply_of("eof")));
        assert_eq!(source.done().len(), 1);
    }

    #[test]
    fn what_is_cancelled_idle_or_of_an_ended_session_is_given_up() {
        let (mut source, a, now) = source(&[25]);
        let cancel = Map::from_iter([("ref_id", Value::from("t-0")), ("cancel", true.into())]);
        assert_eq!(source.ask(&a, &cancel, "n", now), Answer::Noted);
        assert_eq!(source.done().len(), 1);

        assert!(source.offer("u", offer("a", "u", &[1]), now));
        source.sweep(now + source.limits.idle);
        assert!(source.done().is_empty());
        source.sweep(now + source.limits.idle + SECOND);
        assert_eq!(source.done().len(), 1);

        assert!(source.offer("v", offer("a", "v", &[1]), now));
        source.end_session("other");
        assert!(source.done().is_empty());
        source.end_session("s");
        assert_eq!(source.done().len(), 1);
        assert!(source.refs.is_empty() && source.folders.is_empty());
    }

    #[test]
    fn there_is_room_for_so_many() {
        let limits = SourceLimits { folders: 3, folders_per_receiver: 2, ..SourceLimits::default() };
        let (mut source, now) = (FileSource::new(limits), Instant::now());
        assert!(source.offer("1", offer("a", "1", &[1]), now));
        assert!(source.offer("2", offer("a", "2", &[1]), now));
        assert!(!source.offer("3", offer("a", "3", &[1]), now));
        assert!(source.offer("4", offer("b", "4", &[1]), now));
        assert!(!source.offer("5", offer("c", "5", &[1]), now));
        assert!(!source.offer("6", offer("c", "6", &[]), now), "nothing to fetch");
    }
}
