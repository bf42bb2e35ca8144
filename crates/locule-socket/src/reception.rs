//! Where connections come in, and wait until they are links.

use std::collections::{BTreeMap, HashMap};
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{AbortHandle, Id, JoinSet};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, warn};

/// Connections at a time that are not links yet.
const HANDSHAKES: usize = 1024;
/// Pause when the operating system has no more connections to give.
const PAUSE: Duration = Duration::from_millis(100);
/// How often the log is told so.
const TELL_EVERY: Duration = Duration::from_secs(10);
/// Handshakes that take longer give way to new ones from the same address.
const YOUNG: Duration = Duration::from_secs(1);

/// Accepts TCP connections and has each greeted, none waiting for another.
///
/// There are at most as many connections as places, and no more places than half of the file descriptors that
/// the process may have. 1,024 greetings at a time may be unfinished, and half of the places: beyond that, the
/// address that has most of them gives up its oldest.
#[derive(Debug)]
pub struct Reception<T> {
    arrivals: Arrivals<TcpListener>,
    greetings: JoinSet<T>,
    unfinished: Unfinished<AbortHandle>,
}

/// A place among a listener's connections; whoever has the connection keeps it.
#[derive(Debug)]
pub struct Place(#[expect(dead_code, reason = "it is held")] OwnedSemaphorePermit);

impl Place {
    /// One of a semaphore's.
    pub fn new(permit: OwnedSemaphorePermit) -> Self {
        Self(permit)
    }
}

impl<T: Send + 'static> Reception<T> {
    /// At this socket, for so many connections at a time.
    pub fn new(socket: TcpListener, max_connections: usize) -> Self {
        let places = places(max_connections);
        Self {
            arrivals: Arrivals::new(socket, places),
            greetings: JoinSet::new(),
            unfinished: Unfinished::new(HANDSHAKES.min(places / 2).max(1)),
        }
    }

    /// The outcome of the next greeting that is over; meanwhile, those who arrive are greeted. Cancel-safe.
    pub async fn next<F>(&mut self, greet: impl Fn(TcpStream, SocketAddr, Place) -> F) -> T
    where
        F: Future<Output = T> + Send + 'static,
    {
        loop {
            tokio::select! {
                (tcp, address, place) = self.arrivals.next() => {
                    let now = Instant::now();
                    match self.unfinished.make_room(address.ip(), now) {
                        Room::Free => {}
                        Room::Of(oldest) => oldest.abort(),
                        Room::None => {
                            debug!(link = %address, "too many connections of that address, turned away");
                            continue;
                        }
                    }
                    let greeting = self.greetings.spawn(greet(tcp, address, Place(place)));
                    self.unfinished.add(greeting.id(), address.ip(), now, greeting);
                }
                Some(done) = self.greetings.join_next_with_id() => match done {
                    Ok((id, outcome)) => {
                        self.unfinished.remove(id);
                        return outcome;
                    }
                    Err(error) => self.unfinished.remove(error.id()),
                },
            }
        }
    }
}

/// How many places a listener has that should have so many: at least one, and no more than half of the file
/// descriptors that the process may have.
pub fn places(wanted: usize) -> usize {
    wanted.min(share_of_descriptors()).max(1)
}

/// What one listener may take of the file descriptors that the process may have.
fn share_of_descriptors() -> usize {
    #[cfg(unix)]
    {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        limit.map_or(usize::MAX, |limit| usize::try_from(limit / 2).unwrap_or(usize::MAX))
    }
    #[cfg(not(unix))]
    usize::MAX
}

/// Greetings that are not over, by the addresses that they are for.
#[derive(Debug)]
struct Unfinished<H> {
    most: usize,
    by_id: HashMap<Id, (IpAddr, Instant)>,
    /// Oldest first, as ids grow.
    by_address: HashMap<IpAddr, BTreeMap<(Instant, Id), H>>,
}

#[derive(Debug, PartialEq, Eq)]
enum Room<H> {
    Free,
    /// When this one has gone.
    Of(H),
    None,
}

impl<H> Unfinished<H> {
    fn new(most: usize) -> Self {
        Self { most, by_id: HashMap::new(), by_address: HashMap::new() }
    }

    /// Room for a greeting more. An address that itself has most gives up none that may be about to finish:
    /// of a crowd behind one address that comes at once, some get through.
    fn make_room(&mut self, address: IpAddr, now: Instant) -> Room<H> {
        if self.by_id.len() < self.most {
            return Room::Free;
        }
        let own = self.by_address.get(&party(address)).map_or(0, BTreeMap::len);
        let largest = self.by_address.iter().max_by_key(|(_, greetings)| greetings.len());
        let Some((largest, greetings)) = largest else { return Room::Free };
        let (largest, len) = (*largest, greetings.len());
        let Some(((since, id), _)) = greetings.first_key_value() else { return Room::Free };
        let (since, id) = (*since, *id);
        if own + 1 >= len && now.saturating_duration_since(since) < YOUNG {
            return Room::None;
        }
        let handle = self.by_address.get_mut(&largest).and_then(|greetings| greetings.remove(&(since, id)));
        self.remove(id);
        handle.map_or(Room::Free, Room::Of)
    }

    fn add(&mut self, id: Id, address: IpAddr, now: Instant, handle: H) {
        let party = party(address);
        self.by_id.insert(id, (party, now));
        self.by_address.entry(party).or_default().insert((now, id), handle);
    }

    fn remove(&mut self, id: Id) {
        let Some((party, since)) = self.by_id.remove(&id) else { return };
        if let Some(greetings) = self.by_address.get_mut(&party) {
            greetings.remove(&(since, id));
            if greetings.is_empty() {
                self.by_address.remove(&party);
            }
        }
    }
}

/// Whose an address is: of the newer kind, whoever has one has 2^64 of them.
fn party(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() & !u128::from(u64::MAX)).into()),
        address @ IpAddr::V4(_) => address,
    }
}

/// Connections, one after another, each with its place.
#[derive(Debug)]
struct Arrivals<S> {
    source: S,
    places: Arc<Semaphore>,
    place: Option<OwnedSemaphorePermit>,
    /// Nothing is accepted before then.
    pause: Option<Instant>,
    /// When the log was last told of an error, and how many have come since.
    told: Option<Instant>,
    untold: u64,
}

trait Source {
    type Connection;

    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Self::Connection, SocketAddr)>>;
}

impl Source for TcpListener {
    type Connection = TcpStream;

    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        TcpListener::poll_accept(self, cx)
    }
}

impl<S: Source> Arrivals<S> {
    fn new(source: S, places: usize) -> Self {
        let places = Arc::new(Semaphore::new(places.min(Semaphore::MAX_PERMITS)));
        Self { source, places, place: None, pause: None, told: None, untold: 0 }
    }

    /// Dropping the future loses nothing, and no pause ends early by it.
    async fn next(&mut self) -> (S::Connection, SocketAddr, OwnedSemaphorePermit) {
        loop {
            if let Some(until) = self.pause {
                sleep_until(until).await;
                self.pause = None;
            }
            let place = match self.place.take() {
                Some(place) => place,
                None => Arc::clone(&self.places).acquire_owned().await.expect("nobody closes the semaphore"),
            };
            let place = self.place.insert(place);
            debug_assert_eq!(place.num_permits(), 1);
            match poll_fn(|cx| self.source.poll_accept(cx)).await {
                Ok((connection, address)) => {
                    if let Some(place) = self.place.take() {
                        return (connection, address, place);
                    }
                }
                Err(error) if is_the_peers(&error) => {
                    debug!(%error, "connection lost before it was accepted");
                }
                Err(error) => {
                    let now = Instant::now();
                    self.tell(now, &error);
                    self.pause = Some(now + PAUSE);
                }
            }
        }
    }

    fn tell(&mut self, now: Instant, error: &io::Error) {
        self.untold += 1;
        if self.told.is_none_or(|told| now.saturating_duration_since(told) >= TELL_EVERY) {
            warn!(%error, times = self.untold, "no connection can be accepted at the moment");
            (self.told, self.untold) = (Some(now), 0);
        }
    }
}

fn is_the_peers(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    /// An operating system that has no more descriptors.
    #[derive(Default)]
    struct Exhausted {
        asked: Cell<u32>,
    }

    impl Source for Exhausted {
        type Connection = ();

        fn poll_accept(&self, _: &mut Context<'_>) -> Poll<io::Result<((), SocketAddr)>> {
            self.asked.set(self.asked.get() + 1);
            Poll::Ready(Err(io::Error::other("too many open files")))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_accepted_for_a_while_after_an_error_whatever_happens_meanwhile() {
        let mut arrivals = Arrivals::new(Exhausted::default(), 1);
        for _ in 0..1000 {
            // somebody's handshake ends every millisecond
            let _ = tokio::time::timeout(Duration::from_millis(1), arrivals.next()).await;
        }
        let asked = arrivals.source.asked.get();
        assert!((5..=11).contains(&asked), "{asked} times in a second");
        assert_eq!(arrivals.untold, u64::from(asked) - 1, "the log was told once");
        tokio::time::advance(TELL_EVERY).await;
        let _ = tokio::time::timeout(Duration::from_millis(1), arrivals.next()).await;
        assert_eq!(arrivals.untold, 0, "and once more");
    }

    async fn ids(count: usize) -> Vec<Id> {
        let mut tasks = JoinSet::new();
        (0..count).map(|_| tasks.spawn(async {}).id()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_most_gives_way_and_the_oldest_first() {
        let ids = ids(8).await;
        let address = |last: u8| IpAddr::from([192, 0, 2, last]);
        let now = Instant::now();
        let mut unfinished = Unfinished::new(4);
        for (number, id) in ids.iter().enumerate().take(3) {
            let at = now + Duration::from_millis(number as u64);
            assert_eq!(unfinished.make_room(address(1), at), Room::Free);
            unfinished.add(*id, address(1), at, number);
        }
        unfinished.add(ids[3], address(2), now, 3);
        assert_eq!(unfinished.make_room(address(1), now), Room::None, "they may be about to finish");
        assert_eq!(unfinished.make_room(address(3), now), Room::Of(0));
        unfinished.add(ids[4], address(3), now, 4);
        assert_eq!(unfinished.make_room(address(1), now + YOUNG * 2), Room::Of(1));
        unfinished.remove(ids[4]);
        assert_eq!(unfinished.make_room(address(1), now), Room::Free);
        assert_eq!(party("2001:db8::1:2:3:4".parse().unwrap()), party("2001:db8::5".parse().unwrap()));
        assert_eq!(party("::ffff:192.0.2.1".parse().unwrap()), address(1));
    }

    #[tokio::test]
    async fn those_who_say_nothing_delay_nobody() {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = socket.local_addr().unwrap();
        let mut reception = Reception::new(socket, 8); // four greetings at a time
        let mut idle = Vec::new();
        for _ in 0..4 {
            idle.push(TcpStream::connect(at).await.unwrap());
        }
        let greeted = tokio::spawn(async move {
            reception
                .next(|mut tcp, _, _place| async move {
                    let mut said = [0; 2];
                    tcp.read_exact(&mut said).await.is_ok()
                })
                .await
        });
        // another address of this machine; the idle ones never finish by themselves
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        let mut honest = socket.connect(at).await.unwrap();
        honest.write_all(b"hi").await.unwrap();
        assert!(greeted.await.unwrap());
        let closed = idle[0].read(&mut [0; 1]).await;
        assert!(matches!(closed, Ok(0) | Err(_)), "the oldest gave way");
    }
}
