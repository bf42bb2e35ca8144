//! The listening end: hears who dials, and goes to meet each.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{ConnectError, Message, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt as _;
use locule_socket::{Place, places};
use locule_transport::{AcceptError, BoxFuture, Endpoint, Link, ListenError, Listener};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{debug, info, warn};

use crate::broker::{Broker, is_untrusted};
use crate::message::{ANYBODY, DIAL, HERE, TAKEN};
use crate::stream::{Ends, NatsStream};
use crate::subjects::Subjects;
use crate::{Fault, NatsTransport};

/// Links that wait to be accepted.
const BACKLOG: usize = 1024;
/// Those that have dialled and are no links yet.
const HANDSHAKES: usize = 256;
/// How long one of them may take, its TLS handshake included.
const HANDSHAKE_TIME: Duration = Duration::from_secs(5);
/// Who has taken longer gives way to somebody new.
const YOUNG: Duration = Duration::from_secs(1);
/// How long another listener may take to say that it is there.
const ANYBODY_TIME: Duration = Duration::from_secs(2);
/// Pauses before a broker is tried again.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

pub(crate) async fn bind(on: &Endpoint, carrier: NatsTransport) -> Result<NatsListener, ListenError> {
    let subjects = Subjects::of(on).map_err(|reason| ListenError::invalid(on, reason))?;
    if on.is_all_interfaces() {
        return Err(ListenError::invalid(on, "its host must be a broker's; nobody connects to us"));
    }
    carrier.sockets.to_listen(on)?;
    let broker = Broker::connect(on, &carrier.login).await.map_err(|error| not_reached(on, error))?;
    let dials = broker.subscribe(&subjects.dial()).await.map_err(|fault| failed(on, fault))?;
    let (arrivals, links) = mpsc::channel(BACKLOG);
    let closed = CancellationToken::new();
    let asking = broker.clone();
    let hall = Hall {
        at: on.clone(),
        places: Arc::new(Semaphore::new(places(carrier.max_links).min(Semaphore::MAX_PERMITS))),
        carrier,
        subjects: subjects.clone(),
        arrivals,
        handshakes: JoinSet::new(),
        unfinished: VecDeque::new(),
    };
    tokio::spawn(closed.clone().run_until_cancelled_owned(hall.serve(broker, dials)));
    let listener = NatsListener { local: on.clone(), links, _closed: closed.drop_guard() };
    // Asked by one that could be asked itself already: of two at once, neither overlooks the other.
    if is_taken(asking, &subjects).await.map_err(|fault| failed(on, fault))? {
        return Err(ListenError::AddressInUse { endpoint: on.clone() });
    }
    Ok(listener)
}

/// Whether somebody else listens there. Who says nothing does not: a broker may take minutes to forget a machine
/// that was switched off.
async fn is_taken(mut broker: Broker, subjects: &Subjects) -> Result<bool, Fault> {
    let own = subjects.fresh();
    let mut answers = broker.subscribe(&own).await?;
    broker.ask(&subjects.dial(), &own, Bytes::from_static(ANYBODY)).await?;
    tokio::select! {
        answer = timeout(ANYBODY_TIME, answers.next()) => {
            Ok(matches!(answer, Ok(Some(message)) if message.payload == TAKEN))
        }
        fault = broker.ended() => Err(fault),
    }
}

fn not_reached(on: &Endpoint, error: ConnectError) -> ListenError {
    if is_untrusted(&error) {
        return ListenError::invalid(on, format!("no trust between us and the broker: {error}"));
    }
    let reason = format!("its broker is not reached ({error}); start it, or look at host and port");
    ListenError::Io { endpoint: on.clone(), source: io::Error::other(reason) }
}

fn failed(on: &Endpoint, fault: Fault) -> ListenError {
    ListenError::Io { endpoint: on.clone(), source: fault.into() }
}

pub(crate) struct NatsListener {
    local: Endpoint,
    links: mpsc::Receiver<Link>,
    _closed: DropGuard,
}

impl Listener for NatsListener {
    fn local(&self) -> Endpoint {
        self.local.clone()
    }

    fn accept<'a>(&'a mut self) -> BoxFuture<'a, Result<Link, AcceptError>> {
        Box::pin(async move { self.links.recv().await.ok_or(AcceptError::Closed) })
    }
}

impl fmt::Debug for NatsListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsListener").field("local", &self.local.to_string()).finish_non_exhaustive()
    }
}

/// Where those who dial are received, none waiting for another.
struct Hall {
    at: Endpoint,
    carrier: NatsTransport,
    subjects: Subjects,
    places: Arc<Semaphore>,
    arrivals: mpsc::Sender<Link>,
    handshakes: JoinSet<()>,
    /// Oldest first.
    unfinished: VecDeque<(Instant, AbortHandle)>,
}

impl Hall {
    /// Listens, and goes on when the broker has gone and returned.
    async fn serve(mut self, mut broker: Broker, mut dials: Subscriber) {
        loop {
            let fault = loop {
                tokio::select! {
                    dial = dials.next() => match dial {
                        Some(dial) => self.hear(dial, &broker),
                        None => break Fault::BrokerGone,
                    },
                    fault = broker.ended() => break fault,
                    Some(_) = self.handshakes.join_next() => {}
                }
            };
            warn!(endpoint = %self.at, error = %fault, "nobody can dial until the broker is back");
            (broker, dials) = self.again().await;
            info!(endpoint = %self.at, "the broker is back");
        }
    }

    async fn again(&self) -> (Broker, Subscriber) {
        let mut pause = SHORTEST_PAUSE;
        loop {
            match Broker::connect(&self.at, &self.carrier.login).await {
                Ok(broker) => match broker.subscribe(&self.subjects.dial()).await {
                    Ok(dials) => return (broker, dials),
                    Err(error) => debug!(endpoint = %self.at, %error, "the broker has gone again"),
                },
                Err(error) => debug!(endpoint = %self.at, %error, "the broker is not back"),
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Takes a message of whoever may publish to the broker; waits for nothing.
    fn hear(&mut self, message: Message, broker: &Broker) {
        let peer = message.reply.filter(|reply| self.subjects.is_link(reply));
        let Some(peer) = peer.map(|peer| peer.to_string()) else {
            debug!(endpoint = %self.at, "message of a stranger dropped");
            return;
        };
        if !self.make_room() {
            debug!(endpoint = %self.at, "too many dial at once, turned away");
            return;
        }
        let handle = if message.payload == DIAL {
            let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
                debug!(endpoint = %self.at, "too many links, turned away");
                return;
            };
            let meeting =
                meet(self.at.clone(), self.carrier.clone(), self.subjects.fresh(), peer, Place::new(place));
            let arrivals = self.arrivals.clone();
            self.handshakes.spawn(async move {
                match timeout(HANDSHAKE_TIME, meeting).await.unwrap_or_else(|late| Err(late.into())) {
                    // Fails when the listener is gone, and the link goes with it.
                    Ok(link) => drop(arrivals.send(link).await),
                    Err(error) => debug!(%error, "link ended before it was one"),
                }
            })
        } else if message.payload == ANYBODY {
            let broker = broker.clone();
            self.handshakes.spawn(async move {
                // If the broker has gone, that is seen where it is listened to.
                broker.publish(&peer, Bytes::from_static(TAKEN)).await.ok();
            })
        } else {
            debug!(endpoint = %self.at, "message of no known kind dropped");
            return;
        };
        self.unfinished.push_back((Instant::now(), handle));
    }

    /// Whether one more may begin.
    fn make_room(&mut self) -> bool {
        if self.unfinished.len() < HANDSHAKES {
            return true;
        }
        self.unfinished.retain(|(_, handshake)| !handshake.is_finished());
        match self.unfinished.front() {
            Some((since, oldest)) if self.unfinished.len() >= HANDSHAKES => {
                if since.elapsed() < YOUNG {
                    return false;
                }
                oldest.abort();
                self.unfinished.pop_front();
                true
            }
            Some(_) | None => true,
        }
    }
}

/// Opens the listening end of a link over a connection of its own: so no link waits for another, and the broker
/// never has more for one of them than its window.
async fn meet(
    at: Endpoint,
    carrier: NatsTransport,
    own: String,
    peer: String,
    place: Place,
) -> io::Result<Link> {
    let mut broker = Broker::connect(&at, &carrier.login).await.map_err(io::Error::other)?;
    let mut subscriber = broker.subscribe(&own).await?;
    broker.ask(&peer, &own, Bytes::from_static(HERE)).await?;
    // The dialling end is one that hears what is said to it; before, nothing is done for it.
    let first = tokio::select! {
        first = subscriber.next() => first.ok_or(Fault::BrokerGone)?,
        fault = broker.ended() => return Err(fault.into()),
    };
    if first.status.is_some() {
        return Err(Fault::Gone.into());
    }
    let stream = NatsStream::start(Ends { broker, subscriber, own, peer: peer.clone() }, Some(first));
    let connection = carrier.sockets.welcome(stream, peer, place).await?;
    Ok(carrier.link(connection)?)
}
