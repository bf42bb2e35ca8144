//! One end of a link as a stream of bytes, and the task that carries them.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_nats::{Message, StatusCode, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::io::{DuplexStream, ReadHalf, WriteHalf, duplex, split};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tokio_util::sync::{CancellationToken, DropGuard, WaitForCancellationFutureOwned};
use tracing::debug;

use crate::Fault;
use crate::broker::Broker;
use crate::message::{HEADER_LEN, Header, Incoming, Kind, MAX_PIECE, Outgoing, WINDOW};

/// How often an end says that it is there.
const ALIVE: Duration = Duration::from_secs(5);
/// How often it may do so without hearing anything. Told by its own signs of life, so that an end which was itself
/// asleep does not blame the peer.
const UNHEARD: u32 = 4;
/// How long what was written may take to leave once the stream is dropped.
const LEAVE_TIME: Duration = Duration::from_secs(5);
/// How long the last message may take.
const LAST_TIME: Duration = Duration::from_secs(1);
/// What passed on opens the window so far again before the peer is told.
const TELL: u64 = WINDOW / 4;

/// One end of a link, as a stream of bytes.
///
/// It ends in order only if the peer has said so; otherwise reading and writing fail, and say why. Shutting it
/// down waits until what was written has left. Dropped, what was written has five seconds for that.
#[derive(Debug)]
pub(crate) struct NatsStream {
    io: DuplexStream,
    outcome: Arc<Outcome>,
    delivered: Pin<Box<WaitForCancellationFutureOwned>>,
    _left: DropGuard,
}

/// What became of a stream, as its owner sees it.
#[derive(Debug, Default)]
struct Outcome {
    /// The peer has ended its direction, and all of it was passed on.
    has_ended: OnceLock<()>,
    fault: OnceLock<Fault>,
    /// Our direction has left, or will not.
    delivered: CancellationToken,
}

/// How two ends reach each other.
#[derive(Debug)]
pub(crate) struct Ends {
    pub(crate) broker: Broker,
    /// What comes to `own`.
    pub(crate) subscriber: Subscriber,
    pub(crate) own: String,
    pub(crate) peer: String,
}

impl NatsStream {
    /// Starts it; `first` is what the peer has said already.
    pub(crate) fn start(ends: Ends, first: Option<Message>) -> Self {
        let (io, other) = duplex(MAX_PIECE);
        let (read, write) = split(other);
        let (outcome, left) = (Arc::new(Outcome::default()), CancellationToken::new());
        let carrier = Carrier {
            ends,
            read,
            write,
            left: left.clone(),
            outcome: Arc::clone(&outcome),
            incoming: Incoming::default(),
            outgoing: Outgoing::default(),
            told: 0,
            has_ended: false,
        };
        tokio::spawn(carrier.run(first));
        let delivered = Box::pin(outcome.delivered.clone().cancelled_owned());
        Self { io, outcome, delivered, _left: left.drop_guard() }
    }

    fn check(&self) -> io::Result<()> {
        self.outcome.fault.get().map_or(Ok(()), |fault| Err(fault.clone().into()))
    }
}

impl AsyncRead for NatsStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        let is_end = buf.filled().len() == before && buf.remaining() > 0;
        if is_end && self.outcome.has_ended.get().is_none() {
            self.check()?;
            return Poll::Ready(Err(Fault::Gone.into()));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for NatsStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.io).poll_write(cx, buf).map(|outcome| {
            // It may have come to its end meanwhile.
            outcome.map_err(|error| self.check().err().unwrap_or(error))
        })
    }

    /// What was written leaves by itself. That the peer has gone is no reason not to read what it has said.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        ready!(Pin::new(&mut self.io).poll_shutdown(cx))?;
        if !self.outcome.delivered.is_cancelled() {
            ready!(self.delivered.as_mut().poll(cx));
        }
        Poll::Ready(self.check())
    }
}

/// Carries bytes between a stream's owner and the broker.
struct Carrier {
    ends: Ends,
    /// What the owner writes, and what it reads.
    read: ReadHalf<DuplexStream>,
    write: WriteHalf<DuplexStream>,
    /// Cancelled when the owner has dropped its stream.
    left: CancellationToken,
    outcome: Arc<Outcome>,
    incoming: Incoming,
    outgoing: Outgoing,
    /// The allowance that the peer knows of.
    told: u64,
    /// Whether our direction has.
    has_ended: bool,
}

impl Carrier {
    async fn run(mut self, first: Option<Message>) {
        let outcome = self.carry(first).await;
        if let Err(fault) = &outcome {
            debug!(link = %self.ends.own, error = %fault, "link ended");
            self.outcome.fault.set(fault.clone()).ok();
        }
        let last = async {
            if outcome.is_err() || !self.incoming.has_ended() {
                self.say(Kind::Gone, &[]).await?;
            }
            self.ends.broker.flush().await
        };
        // Who has gone hears nothing, and who is there will miss us.
        drop(timeout(LAST_TIME, last).await);
        self.outcome.delivered.cancel();
        if self.incoming.has_ended() {
            let Self { read, write, left, outcome, incoming, .. } = self;
            pass(incoming, read, write, &left, &outcome).await;
        }
    }

    /// Until both directions have ended, or the owner has left and its bytes, too.
    async fn carry(&mut self, first: Option<Message>) -> Result<(), Fault> {
        if let Some(message) = first {
            self.take(message)?;
        }
        let most = self.ends.broker.max_payload().saturating_sub(HEADER_LEN).clamp(1, MAX_PIECE);
        let mut bytes = vec![0; most];
        let mut alive = interval(ALIVE);
        alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut unheard = 0;
        let mut leaves_until: Option<Instant> = None;
        let mut broker = self.ends.broker.clone();
        loop {
            if self.incoming.has_ended() && self.incoming.is_empty() {
                if self.outcome.has_ended.set(()).is_ok() {
                    // If the owner has left, it is told nothing.
                    self.write.shutdown().await.ok();
                }
                if self.has_ended {
                    return Ok(());
                }
            }
            if self.has_ended && leaves_until.is_some() {
                return Ok(());
            }
            let room = self.outgoing.room().min(most);
            tokio::select! {
                message = self.ends.subscriber.next() => {
                    self.take(message.ok_or(Fault::BrokerGone)?)?;
                    unheard = 0;
                }
                count = self.write.write(self.incoming.front()), if !self.incoming.is_empty() => {
                    match count {
                        Ok(count) => self.incoming.pass(count),
                        Err(_) => self.incoming.pass_all(), // nobody reads any more
                    }
                    if self.incoming.allowance() - self.told >= TELL {
                        self.say(Kind::Alive, &[]).await?;
                    }
                }
                count = self.read.read(&mut bytes[..room]), if room > 0 && !self.has_ended => {
                    match count {
                        Ok(count) if count > 0 => {
                            self.say(Kind::Piece, &bytes[..count]).await?;
                            self.outgoing.send(count);
                        }
                        Ok(_) | Err(_) => {
                            self.say(Kind::End, &[]).await?;
                            self.ends.broker.flush().await?;
                            self.has_ended = true;
                            self.outcome.delivered.cancel();
                        }
                    }
                }
                _ = alive.tick() => {
                    if unheard == UNHEARD {
                        return Err(Fault::Silent(ALIVE * UNHEARD));
                    }
                    unheard += 1;
                    self.ask().await?;
                }
                () = self.left.cancelled(), if leaves_until.is_none() => {
                    leaves_until = Some(Instant::now() + LEAVE_TIME);
                }
                () = sleep_until(leaves_until.unwrap_or_else(Instant::now)), if leaves_until.is_some() => return Err(Fault::Gone),
                fault = broker.ended() => return Err(fault),
            }
        }
    }

    fn take(&mut self, message: Message) -> Result<(), Fault> {
        if message.status == Some(StatusCode::NO_RESPONDERS) {
            return Err(Fault::Gone);
        }
        let (header, bytes) = Header::read(message.payload)?;
        self.outgoing.allow(header.allowance);
        self.incoming.take(header, bytes, self.told)
    }

    async fn say(&mut self, kind: Kind, bytes: &[u8]) -> Result<(), Fault> {
        let message = self.message(kind, bytes);
        self.ends.broker.publish(&self.ends.peer, message).await
    }

    /// Says that we are there, and hears if the peer is not.
    async fn ask(&mut self) -> Result<(), Fault> {
        let message = self.message(Kind::Alive, &[]);
        self.ends.broker.ask(&self.ends.peer, &self.ends.own, message).await
    }

    fn message(&mut self, kind: Kind, bytes: &[u8]) -> Bytes {
        self.told = self.incoming.allowance();
        Header { kind, number: self.outgoing.number, allowance: self.told }.before(bytes)
    }
}

/// Passes on what has come in order, also when the peer has gone since.
async fn pass(
    mut incoming: Incoming,
    mut read: ReadHalf<DuplexStream>,
    mut write: WriteHalf<DuplexStream>,
    left: &CancellationToken,
    outcome: &Outcome,
) {
    let (mut lost, mut writes) = (vec![0; MAX_PIECE], true);
    while !incoming.is_empty() {
        tokio::select! {
            count = write.write(incoming.front()) => match count {
                Ok(count) => incoming.pass(count),
                Err(_) => return,
            },
            // Whoever waits to write is to see that it is in vain.
            count = read.read(&mut lost), if writes => writes = count.is_ok_and(|count| count > 0),
            () = left.cancelled() => return,
        }
    }
    // Before the owner sees the end.
    outcome.has_ended.set(()).ok();
}
