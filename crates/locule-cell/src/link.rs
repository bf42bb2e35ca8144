//! One task per link: handshake, frames in, frames out.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use futures_util::StreamExt as _;
use locule_frame::{Event, Hello, LinkConfig, LinkProtocol, Prefix, Side};
use locule_message::{Fqcn, Headers, Message};
use locule_switch::{LinkFacts, LinkId, LinkSecurity, Transmit};
use locule_transport::{FrameSink, Link, LinkError, OutFrame, Security};
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::stats::Counters;
use crate::{CellConfig, now};

/// What a link reports to the driver.
#[derive(Debug)]
pub(crate) enum LinkEvent {
    /// The handshake is over; nothing more happens until the answer says what to do.
    Up(Box<Up>),
    /// A message arrived. The next ones wait when too much credit is out.
    Message { link: LinkId, message: Message, credit: OwnedSemaphorePermit },
    /// So many bytes of messages have left.
    Written { link: LinkId, bytes: usize },
    /// The link has ended.
    Down { link: LinkId },
}

/// A link that could be taken up.
#[derive(Debug)]
pub(crate) struct Up {
    pub(crate) facts: LinkFacts,
    pub(crate) max_frame_len: usize,
    /// Dropping it ends the link when all that was ordered is sent.
    pub(crate) orders: mpsc::UnboundedSender<Order>,
    /// Ends the link at once.
    pub(crate) stop: CancellationToken,
    pub(crate) answer: oneshot::Sender<Result<Admitted, locule_switch::LinkRefused>>,
}

/// What the driver wants of a link.
#[derive(Debug)]
pub(crate) enum Order {
    Send(Transmit),
    /// The neighbour has proved who it is: take larger frames.
    Admit,
}

/// The driver takes the link up; `proven` as with [`Order::Admit`]. No answer means no.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(crate) proven: bool,
}

/// What all link tasks of a cell share.
#[derive(Debug)]
pub(crate) struct LinkContext {
    pub(crate) config: CellConfig,
    pub(crate) counters: Counters,
    pub(crate) events: mpsc::Sender<LinkEvent>,
}

/// Bytes that one unit of credit stands for, and units per link: what a link may have under way to
/// the driver, or held there because it cannot go on. Two chunks of a stream; with four in the queue of
/// the next link, a relay stays within 16 MiB (`tests/e2e/tests/memory.rs`).
const CREDIT_UNIT: usize = 16 << 10;
const CREDIT_UNITS: usize = 128;
/// How long a link that has sent everything waits for the neighbour to close as well.
const CLOSE_WAIT: Duration = Duration::from_secs(1);

/// Why a link ended before or after its handshake.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkEnd {
    #[error("closed")]
    Closed,
    #[error("refused")]
    Refused(#[from] locule_switch::LinkRefused),
    #[error("handshake names no valid cell")]
    BadName(#[from] locule_message::FqcnError),
    #[error("malformed headers")]
    BadHeaders(#[from] locule_message::HeadersError),
    #[error("broken protocol")]
    Frame(#[from] locule_frame::FrameError),
    #[error("dead")]
    Dead(#[from] locule_frame::LinkDead),
    #[error("carrier failed")]
    Carrier(#[from] LinkError),
    #[error("cannot write")]
    Stalled,
}

impl LinkEnd {
    /// Whether another attempt may go better without anybody changing anything: a neighbour that may not bear its
    /// name will not bear it the next time.
    pub(crate) fn is_retryable(&self) -> bool {
        !matches!(self, Self::Refused(locule_switch::LinkRefused::Policy { .. }) | Self::BadName(_))
    }

    /// Whether the neighbour is to blame.
    fn is_broken(&self) -> bool {
        match self {
            Self::Closed | Self::Refused(_) | Self::Carrier(_) => false,
            Self::BadName(_) | Self::BadHeaders(_) | Self::Frame(_) | Self::Dead(_) | Self::Stalled => true,
        }
    }
}

/// Runs a link to its end. `established` gets the neighbour's name once the cell has taken the link up.
pub(crate) async fn run(
    context: &LinkContext,
    id: LinkId,
    link: Link,
    side: Side,
    stop: CancellationToken,
    established: impl FnOnce(&Fqcn),
) -> LinkEnd {
    let address = link.peer.address.clone();
    let mut pump = Pump::new(context, id, link, side);
    let end = match pump.open(&stop).await {
        Ok(peer) => {
            established(&peer);
            let end = pump.run(&stop).await.err().unwrap_or(LinkEnd::Closed);
            // the driver always reads, so this waits for nobody
            let _ = context.events.send(LinkEvent::Down { link: id }).await;
            end
        }
        Err(end) => end,
    };
    if end.is_broken() {
        Counters::add(&context.counters.links_broken, 1);
    }
    tracing::debug!(link = %id, %address, error = %end, "link ended");
    end
}

struct Pump<'a> {
    context: &'a LinkContext,
    id: LinkId,
    link: Link,
    side: Side,
    protocol: LinkProtocol,
    /// `None` before the link is taken up, and once it is to end.
    orders: Option<mpsc::UnboundedReceiver<Order>>,
    /// A frame that the carrier has not taken yet, with the bytes to report once it has.
    frame: Option<(OutFrame, usize)>,
    /// A message that must not leave before the neighbour can take it.
    transmit: Option<Transmit>,
    /// The carrier has taken frames that it has not sent.
    unflushed: bool,
    /// When the carrier last took or sent something while something waited.
    progress: Instant,
    /// Bytes sent and not reported.
    written: usize,
    /// A message not handed to the driver yet, with the credit for it.
    arrived: Option<(Message, Option<OwnedSemaphorePermit>)>,
    credit: Arc<Semaphore>,
}

impl<'a> Pump<'a> {
    fn new(context: &'a LinkContext, id: LinkId, link: Link, side: Side) -> Self {
        let config = &context.config;
        let mut protocol = LinkConfig::new(config.switch.name.as_str(), side);
        protocol.software = Some(concat!("locule/", env!("CARGO_PKG_VERSION")).to_owned());
        protocol.capabilities.clone_from(&config.capabilities);
        protocol.unproven_frame_len = config.unproven_frame_len;
        protocol.handshake_deadline = config.handshake_deadline;
        protocol.idle_ping = config.idle_ping;
        protocol.dead_after = config.dead_after;
        let now = now().instant;
        let protocol = LinkProtocol::new(protocol, now, SystemTime::now());
        link.receive_limit.set(protocol.max_incoming());
        Self {
            context,
            id,
            link,
            side,
            protocol,
            orders: None,
            frame: None,
            transmit: None,
            unflushed: false,
            progress: now,
            written: 0,
            arrived: None,
            credit: Arc::new(Semaphore::new(CREDIT_UNITS)),
        }
    }

    /// Shakes hands and asks the driver to take the link up.
    async fn open(&mut self, stop: &CancellationToken) -> Result<Fqcn, LinkEnd> {
        let hello = loop {
            self.fetch_control();
            let deadline = self.next_timeout();
            let (staged, writing) = (self.frame.is_some(), self.is_writing());
            tokio::select! {
                () = stop.cancelled() => return Err(LinkEnd::Closed),
                frame = self.link.incoming.next() => {
                    if let Some(Event::Established(hello)) = self.receive(frame)? {
                        break hello;
                    }
                }
                wrote = progress(&mut self.link.outgoing, staged), if writing => self.write(wrote)?,
                () = sleep_until(deadline), if deadline.is_some() => self.handle_timeout()?,
            }
        };
        let peer = Fqcn::parse(&hello.endpoint_name)?;
        let (orders, receiver) = mpsc::unbounded_channel();
        let (answer, admitted) = oneshot::channel();
        let up = LinkEvent::Up(Box::new(Up {
            facts: self.facts(peer.clone(), &hello),
            max_frame_len: self.link.max_frame_len.min(Prefix::MAX_FRAME_LEN),
            orders,
            stop: stop.clone(),
            answer,
        }));
        self.context.events.send(up).await.map_err(|_| LinkEnd::Closed)?;
        let admitted = admitted.await.map_err(|_| LinkEnd::Closed)??;
        self.orders = Some(receiver);
        if admitted.proven {
            self.protocol.admit();
        }
        self.link.receive_limit.set(self.protocol.max_incoming());
        Ok(peer)
    }

    /// Carries messages both ways until either end has enough. Both directions go on beside each
    /// other: whoever waits to write still reads, or two that write to each other would wait for ever.
    async fn run(&mut self, stop: &CancellationToken) -> Result<(), LinkEnd> {
        let events = self.context.events.clone();
        loop {
            self.fetch_control();
            self.fetch_data();
            if self.orders.is_none() && self.transmit.is_none() && !self.is_writing() {
                return self.close().await;
            }
            let deadline = self.next_timeout();
            let (staged, writing) = (self.frame.is_some(), self.is_writing());
            let credit = self.credit.clone();
            let (units, has_credit) = match &self.arrived {
                Some((message, credit)) => (units(message), Some(credit.is_some())),
                None => (0, None),
            };
            tokio::select! {
                () = stop.cancelled() => return Err(LinkEnd::Closed),
                frame = self.link.incoming.next(), if has_credit.is_none() => {
                    if let Some(Event::Data { headers, payload }) = self.receive(frame)? {
                        self.arrived = Some((message(headers, payload)?, None));
                    }
                }
                permit = credit.acquire_many_owned(units), if has_credit == Some(false) => {
                    if let (Some((_, credit)), Ok(permit)) = (&mut self.arrived, permit) {
                        *credit = Some(permit);
                    }
                }
                place = events.reserve(), if has_credit == Some(true) || self.written > 0 => {
                    let event = self.report();
                    place.map_err(|_| LinkEnd::Closed)?.send(event);
                }
                wrote = progress(&mut self.link.outgoing, staged), if writing => self.write(wrote)?,
                order = next_order(&mut self.orders), if self.transmit.is_none() => self.obey(order),
                () = sleep_until(deadline), if deadline.is_some() => self.handle_timeout()?,
            }
        }
    }

    /// Says that nothing more comes, and gives the neighbour a moment to have read it.
    async fn close(&mut self) -> Result<(), LinkEnd> {
        let both_closed = async {
            poll_fn(|cx| self.link.outgoing.as_mut().poll_close(cx)).await?;
            while let Some(Ok(_)) = self.link.incoming.next().await {}
            Ok(())
        };
        tokio::time::timeout(CLOSE_WAIT, both_closed).await.unwrap_or(Ok(()))
    }

    /// The event that waits: a message with its credit before what was written.
    fn report(&mut self) -> LinkEvent {
        match self.arrived.take() {
            Some((message, Some(credit))) => LinkEvent::Message { link: self.id, message, credit },
            waiting @ (Some((_, None)) | None) => {
                self.arrived = waiting;
                LinkEvent::Written { link: self.id, bytes: std::mem::take(&mut self.written) }
            }
        }
    }

    fn obey(&mut self, order: Option<Order>) {
        match order {
            Some(Order::Send(transmit)) => self.transmit = Some(transmit),
            Some(Order::Admit) => {
                self.protocol.admit();
                self.link.receive_limit.set(self.protocol.max_incoming());
            }
            None => self.orders = None,
        }
    }

    fn receive(&mut self, frame: Option<Result<Bytes, LinkError>>) -> Result<Option<Event>, LinkEnd> {
        let frame = frame.ok_or(LinkEnd::Closed)??;
        Counters::add(&self.context.counters.bytes_in, frame.len());
        Counters::add(&self.context.counters.frames_in, 1);
        self.count_internal(frame.len());
        let ignored = self.protocol.ignored();
        let event = self.protocol.handle_frame(now().instant, SystemTime::now(), frame)?;
        Counters::add(&self.context.counters.frames_ignored, (self.protocol.ignored() - ignored) as usize);
        Ok(event)
    }

    /// HELLO, READY, PING and PONG go before messages.
    fn fetch_control(&mut self) {
        if self.frame.is_none()
            && let Some(frame) = self.protocol.poll_transmit(now().instant)
        {
            self.stage(OutFrame::from(frame), 0);
        }
    }

    /// A stock peer loses messages that follow the handshake too closely.
    fn fetch_data(&mut self) {
        // several messages that wait leave with one flush
        while self.transmit.is_none() {
            match self.orders.as_mut().map(mpsc::UnboundedReceiver::try_recv) {
                Some(Ok(order)) => self.obey(Some(order)),
                Some(Err(TryRecvError::Disconnected)) => self.obey(None),
                Some(Err(TryRecvError::Empty)) | None => break,
            }
        }
        if self.frame.is_some() || self.protocol.settled_at().is_none_or(|at| now().instant < at) {
            return;
        }
        let Some(Transmit { headers, body }) = self.transmit.take() else { return };
        let len = headers.len() + body.len();
        match self.protocol.data(&headers, body) {
            Ok(frame) => self.stage(OutFrame::new(frame.head, frame.body), len),
            // the switch knows the limits of the link, so this does not happen; the link is fine
            Err(error) => {
                tracing::debug!(link = %self.id, %error, "message not framed");
                self.written += len;
            }
        }
    }

    fn stage(&mut self, frame: OutFrame, len: usize) {
        if !self.unflushed {
            self.progress = now().instant;
        }
        self.frame = Some((frame, len));
    }

    /// The carrier can take the staged frame, or has sent what it took.
    fn write(&mut self, wrote: Result<(), LinkError>) -> Result<(), LinkEnd> {
        wrote?;
        self.progress = now().instant;
        let Some((frame, len)) = self.frame.take() else {
            self.unflushed = false;
            return Ok(());
        };
        Counters::add(&self.context.counters.bytes_out, frame.len());
        Counters::add(&self.context.counters.frames_out, 1);
        self.count_internal(frame.len());
        self.link.outgoing.as_mut().start_send(frame)?;
        self.written += len;
        self.unflushed = true;
        Ok(())
    }

    fn is_writing(&self) -> bool {
        self.frame.is_some() || self.unflushed
    }

    fn next_timeout(&self) -> Option<Instant> {
        let stall = self.is_writing().then(|| self.progress + self.context.config.write_stall);
        let settled = self.transmit.as_ref().filter(|_| self.frame.is_none()).and(self.protocol.settled_at());
        self.protocol.poll_timeout().into_iter().chain(stall).chain(settled).min()
    }

    fn handle_timeout(&mut self) -> Result<(), LinkEnd> {
        let now = now().instant;
        self.protocol.handle_timeout(now)?;
        if self.is_writing() && now >= self.progress + self.context.config.write_stall {
            return Err(LinkEnd::Stalled);
        }
        Ok(())
    }

    fn count_internal(&self, bytes: usize) {
        if self.link.peer.security == Security::Internal {
            Counters::add(&self.context.counters.internal_bytes, bytes);
        }
    }

    fn facts(&self, peer: Fqcn, hello: &Hello) -> LinkFacts {
        let ours = hello.software.as_ref().is_some_and(|software| software.starts_with("locule/"));
        LinkFacts {
            link: self.id,
            peer,
            common_name: self.link.peer.common_name.clone(),
            security: match self.link.peer.security {
                Security::Mutual => LinkSecurity::Mutual,
                Security::ServerOnly => LinkSecurity::ServerOnly,
                Security::Clear => LinkSecurity::Clear,
                Security::Internal => LinkSecurity::Internal,
            },
            accepted: self.side == Side::Listener,
            ours,
        }
    }
}

fn message(headers: Bytes, body: Bytes) -> Result<Message, LinkEnd> {
    let headers = if headers.is_empty() { Headers::new() } else { Headers::decode(headers)? };
    Ok(Message { headers, body: body.into() })
}

fn units(message: &Message) -> u32 {
    (message.headers.byte_len() + message.body.len()).div_ceil(CREDIT_UNIT).clamp(1, CREDIT_UNITS) as u32
}

/// Waits until the carrier can take a frame, or without one until it has sent what it took.
async fn progress(outgoing: &mut FrameSink, staged: bool) -> Result<(), LinkError> {
    poll_fn(|cx| if staged { outgoing.as_mut().poll_ready(cx) } else { outgoing.as_mut().poll_flush(cx) })
        .await
}

async fn next_order(orders: &mut Option<mpsc::UnboundedReceiver<Order>>) -> Option<Order> {
    match orders {
        Some(orders) => orders.recv().await,
        None => std::future::pending().await,
    }
}

pub(crate) async fn sleep_until(deadline: Option<Instant>) {
    // without a deadline the branch is disabled and never polled
    let far = || now().instant + Duration::from_secs(3600);
    tokio::time::sleep_until(tokio::time::Instant::from_std(deadline.unwrap_or_else(far))).await;
}
