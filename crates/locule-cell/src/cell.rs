use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures_util::future::join_all;
use locule_identity::Cipher;
use locule_message::{Fqcn, Message, key};
use locule_switch::{
    IncomingFilter, LinkPolicy, MessageFilter, Now, OutgoingFilter, Pass, Refusal, Reply, Request,
    RequestError, Switch,
};
use locule_transport::{Endpoint, ListenError, Transports};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng as _;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::CellConfig;
use crate::connect::{Connection, Connections, Dialing};
use crate::driver::{Command, Driver, Running, Waiting};
use crate::envelope::Envelopes;
use crate::exchange::Exchange;
use crate::handler::{Handler, Handlers};
use crate::link::LinkContext;
use crate::stats::{CellStats, Counters};

/// Commands that may wait for the driver.
const COMMANDS: usize = 1024;
/// Link events that may wait for the driver.
const EVENTS: usize = 256;

/// A handle to a running cell; clones are handles to the same one.
///
/// The cell runs until [`shutdown`](Self::shutdown), or until the last handle is gone. A handler that
/// holds a handle keeps the cell alive.
#[derive(Clone)]
pub struct Cell {
    shared: Arc<Shared>,
}

struct Shared {
    name: Fqcn,
    commands: mpsc::Sender<Command>,
    /// Requests that nobody waits for any more.
    forgotten: mpsc::UnboundedSender<u64>,
    handlers: Arc<Handlers>,
    stamps: Arc<Stamps>,
    connections: Arc<Connections>,
    next_token: AtomicU64,
    ended: watch::Receiver<bool>,
    /// Ends what listens and dials with the last handle.
    _stop_on_drop: tokio_util::sync::DropGuard,
}

/// The cell ended without anybody having wanted it: something in it panicked. Whoever runs it starts over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cell ended unexpectedly")]
#[non_exhaustive]
pub struct CellLost;

/// A cell that has not started.
pub struct CellBuilder {
    config: CellConfig,
    transports: Transports,
    gate: Option<Arc<dyn IncomingFilter>>,
    stamps: Vec<Arc<dyn OutgoingFilter>>,
    link_policy: Option<Arc<dyn LinkPolicy>>,
    cipher: Option<Arc<dyn Cipher>>,
    filters: Vec<(Pass, String, String, Arc<dyn MessageFilter>)>,
}

impl CellBuilder {
    /// The carriers by which it listens and dials.
    #[must_use]
    pub fn transports(mut self, transports: Transports) -> Self {
        self.transports = transports;
        self
    }

    /// The gate that every arriving message must pass. Without one all do.
    #[must_use]
    pub fn gate(mut self, gate: Arc<dyn IncomingFilter>) -> Self {
        self.gate = Some(gate);
        self
    }

    /// A stamp for every message that the cell makes; see also [`Cell::add_stamp`].
    #[must_use]
    pub fn stamp(mut self, stamp: Arc<dyn OutgoingFilter>) -> Self {
        self.stamps.push(stamp);
        self
    }

    /// Who may bear which name. Without a policy anybody may bear any but this cell's.
    #[must_use]
    pub fn link_policy(mut self, policy: Arc<dyn LinkPolicy>) -> Self {
        self.link_policy = Some(policy);
        self
    }

    /// Seals and opens [secure](Request::secure) messages. Of whom a certificate is believed to be says the link
    /// policy. Without a cipher the cell sends none, and refuses those that come.
    #[must_use]
    pub fn cipher(mut self, cipher: Arc<dyn Cipher>) -> Self {
        self.cipher = Some(cipher);
        self
    }

    /// A filter at `pass` for a channel and topic, each of which may be `*`.
    #[must_use]
    pub fn filter(mut self, pass: Pass, channel: &str, topic: &str, filter: Arc<dyn MessageFilter>) -> Self {
        self.filters.push((pass, channel.to_owned(), topic.to_owned(), filter));
        self
    }

    /// Starts the cell, as tasks of the current runtime.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    #[must_use]
    pub fn start(self) -> Cell {
        let stop = CancellationToken::new();
        let name = self.config.switch.name.clone();
        let (events, events_in) = mpsc::channel(EVENTS);
        let (commands, commands_in) = mpsc::channel(COMMANDS);
        let (forgotten, forgotten_in) = mpsc::unbounded_channel();
        let (neighbours, neighbours_out) = watch::channel(Vec::new());
        let (end, ended) = watch::channel(false);
        let stamps = Arc::new(Stamps(RwLock::new(self.stamps)));

        let policy = self.link_policy.clone();
        let mut switch = Switch::new(self.config.switch.clone(), Box::new(ChaCha20Rng::from_os_rng()));
        switch.add_stamp(stamps.clone());
        if let Some(gate) = self.gate {
            switch.set_gate(gate);
        }
        if let Some(policy) = self.link_policy {
            switch.set_link_policy(policy);
        }
        for (pass, channel, topic, filter) in self.filters {
            switch.add_filter(pass, &channel, &topic, filter);
        }

        let handlers = Arc::new(Handlers::default());
        let running = Running::new(self.config.max_handlers);
        let handshakes = Arc::new(Semaphore::new(self.config.max_unestablished));
        let context = Arc::new(LinkContext { config: self.config, counters: Counters::default(), events });
        let streams = context.config.streams.clone();
        let driver = Driver {
            switch,
            exchange: Exchange::new(streams, context.config.switch.max_pending),
            context: context.clone(),
            handlers: handlers.clone(),
            events: events_in,
            commands: commands_in,
            forgotten: forgotten_in,
            neighbours,
            stop: stop.clone(),
            links: BTreeMap::new(),
            waiting: Waiting::default(),
            running,
            leaving: None,
            refusals: Default::default(),
            envelopes: Envelopes::new(self.cipher, policy, context.clone()),
            credit: None,
        };
        let driver = tokio::spawn(driver.run());
        let stop_of_driver = stop.clone();
        tokio::spawn(async move {
            match driver.await {
                Ok(()) => _ = end.send_replace(true),
                Err(error) => {
                    // whoever waits hears of it by the end of `end`
                    if error.is_panic() {
                        tracing::error!(%error, "cell ended unexpectedly; nothing goes in or out any more");
                    }
                    stop_of_driver.cancel();
                }
            }
        });

        let connections = Arc::new(Connections {
            context,
            transports: self.transports,
            neighbours: neighbours_out,
            stop: stop.clone(),
            tasks: TaskTracker::new(),
            next_link: AtomicU64::new(1),
            handshakes,
        });
        let shared = Shared {
            name,
            commands,
            forgotten,
            handlers,
            stamps,
            connections,
            next_token: AtomicU64::new(1),
            ended,
            _stop_on_drop: stop.drop_guard(),
        };
        Cell { shared: Arc::new(shared) }
    }
}

impl Cell {
    /// Begins a cell.
    #[must_use]
    pub fn builder(config: CellConfig) -> CellBuilder {
        CellBuilder {
            config,
            transports: Transports::new(),
            gate: None,
            stamps: Vec::new(),
            link_policy: None,
            cipher: None,
            filters: Vec::new(),
        }
    }

    /// The cell's name.
    #[must_use]
    pub fn name(&self) -> &Fqcn {
        &self.shared.name
    }

    /// Accepts links at `endpoint` until the cell stops; tells the endpoint with its real port.
    ///
    /// # Errors
    /// What the carrier says, or that there is none for the scheme.
    pub async fn listen(&self, endpoint: &Endpoint) -> Result<Endpoint, ListenError> {
        let connections = self.shared.connections.clone();
        let listener = connections.transports.listen(endpoint).await?;
        let local = listener.local();
        let tasks = connections.tasks.clone();
        tasks.spawn(connections.accept(listener));
        Ok(local)
    }

    /// Keeps a link to `endpoint` up until the cell stops: dials, and dials again after a pause of up
    /// to 1, 2, 4, 8, 10, 10, … s. The pauses start over after a link that lived longer than 10 s.
    ///
    /// Does not wait: [`wait_linked`](Self::wait_linked) does, and the [`Connection`] tells how dialing
    /// goes. It may be dropped.
    pub fn connect(&self, endpoint: Endpoint) -> Connection {
        let connections = self.shared.connections.clone();
        let (state, watcher) = watch::channel(Dialing::Trying);
        let give_up = CancellationToken::new();
        let tasks = connections.tasks.clone();
        tasks.spawn(connections.dial(endpoint, give_up.clone(), state));
        Connection { give_up, state: watcher }
    }

    /// Handles the messages of a channel and topic, each of which may be `*`; replaces an earlier
    /// handler of the same two. The most specific handler gets a message.
    pub fn handle(&self, channel: &str, topic: &str, handler: impl Handler) {
        self.shared.handlers.insert(channel, topic, Arc::new(handler));
    }

    /// Adds a stamp for the messages that the cell makes from now on.
    pub fn add_stamp(&self, stamp: Arc<dyn OutgoingFilter>) {
        self.shared.stamps.0.write().unwrap_or_else(PoisonError::into_inner).push(stamp);
    }

    /// Sends a request and waits for its reply, whatever its code says; see [`Reply::into_ok`].
    ///
    /// Dropping the future gives the request up; the target may handle it nevertheless.
    ///
    /// # Errors
    /// [`RequestError`], at the latest when the request's time is up.
    pub async fn request(&self, target: &Fqcn, request: Request) -> Result<Reply, RequestError> {
        let mut outcomes = self.send(vec![target.clone()], request).await?;
        outcomes.receiver.recv().await.map_or(Err(RequestError::Closed), |(_, outcome)| outcome)
    }

    /// Sends a request to several targets at once, and waits until each has settled. The outcomes come
    /// in the order of the targets; a target given twice is asked once.
    ///
    /// Dropping the future gives the request up.
    pub async fn broadcast(
        &self,
        targets: &[Fqcn],
        request: Request,
    ) -> Vec<(Fqcn, Result<Reply, RequestError>)> {
        let mut settled = BTreeMap::new();
        if request.secure {
            // for each of them it is another message
            let targets: BTreeSet<Fqcn> = targets.iter().cloned().collect();
            let asked = targets.into_iter().map(|target| {
                let request = request.clone();
                async move { (target.clone(), self.request(&target, request).await) }
            });
            settled.extend(join_all(asked).await);
        } else if let Ok(mut outcomes) = self.send(targets.to_vec(), request).await {
            while let Some((target, outcome)) = outcomes.receiver.recv().await {
                settled.insert(target, outcome);
            }
        }
        let closed = || Err(RequestError::Closed);
        let mut seen = BTreeSet::new();
        let once = targets.iter().filter(|target| seen.insert((*target).clone()));
        once.map(|target| (target.clone(), settled.remove(target).unwrap_or_else(closed))).collect()
    }

    /// Sends a message to which no reply is expected.
    ///
    /// # Errors
    /// When it did not get as far as the queue of a link; later losses are silent.
    pub async fn notify(&self, target: &Fqcn, mut notice: Request) -> Result<(), RequestError> {
        notice.headers.remove(key::ENCRYPTED);
        let (outcome, done) = oneshot::channel();
        let command = Command::Notify { target: target.clone(), notice, outcome };
        self.shared.commands.send(command).await.map_err(|_| RequestError::Closed)?;
        done.await.unwrap_or(Err(RequestError::Closed))
    }

    /// Waits until `peer` is a neighbour; false when it is not in time, or the cell has ended.
    pub async fn wait_linked(&self, peer: &Fqcn, timeout: Duration) -> bool {
        let mut links = self.links();
        let linked = links.wait_for(|names| names.contains(peer));
        matches!(tokio::time::timeout(timeout, linked).await, Ok(Ok(_)))
    }

    /// The names of the neighbours, now and later; sorted. Ends with the cell.
    #[must_use]
    pub fn links(&self) -> watch::Receiver<Vec<Fqcn>> {
        self.shared.connections.neighbours.clone()
    }

    /// Waits until the cell has stopped. Cancel-safe.
    ///
    /// # Errors
    /// [`CellLost`] when it ended otherwise than by [`shutdown`](Self::shutdown). Requests fail with
    /// [`RequestError::Closed`] then, and links are gone.
    pub async fn closed(&self) -> Result<(), CellLost> {
        let mut ended = self.shared.ended.clone();
        ended.wait_for(|ended| *ended).await.map(drop).map_err(|_| CellLost)
    }

    /// What the cell has done so far.
    #[must_use]
    pub fn stats(&self) -> CellStats {
        self.shared.connections.context.counters.snapshot()
    }

    /// Stops the cell: takes nothing more on, says goodbye to its neighbours, lets handlers finish,
    /// sends what is queued, closes the links. Gives up on what is not done after `grace`. Returns when
    /// the cell has stopped; every request that still waited has failed with [`RequestError::Closed`].
    pub async fn shutdown(&self, grace: Duration) {
        // when the driver has ended there is nothing left to stop
        let _ = self.shared.commands.send(Command::Shutdown { grace }).await;
        let mut ended = self.shared.ended.clone();
        let _ = ended.wait_for(|ended| *ended).await;
        self.shared.connections.tasks.close();
        let _ = tokio::time::timeout(grace, self.shared.connections.tasks.wait()).await;
    }

    async fn send(&self, targets: Vec<Fqcn>, mut request: Request) -> Result<OutcomesOf, RequestError> {
        // a message is an envelope only if this cell made one of it
        request.headers.remove(key::ENCRYPTED);
        let token = self.shared.next_token.fetch_add(1, Ordering::Relaxed);
        let (outcomes, receiver) = mpsc::unbounded_channel();
        let command = Command::Request { token, targets, request, outcomes };
        let waiting = OutcomesOf { token, receiver, forgotten: self.shared.forgotten.clone() };
        self.shared.commands.send(command).await.map_err(|_| RequestError::Closed)?;
        Ok(waiting)
    }
}

impl fmt::Debug for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cell").field("name", &self.shared.name).finish_non_exhaustive()
    }
}

impl fmt::Debug for CellBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CellBuilder").field("config", &self.config).finish_non_exhaustive()
    }
}

/// Somebody waiting for the outcomes of a request; dropped early, the request is given up.
struct OutcomesOf {
    token: u64,
    receiver: mpsc::UnboundedReceiver<(Fqcn, Result<Reply, RequestError>)>,
    forgotten: mpsc::UnboundedSender<u64>,
}

impl Drop for OutcomesOf {
    fn drop(&mut self) {
        // the driver drops the other end with the last outcome
        if !self.receiver.is_closed() {
            let _ = self.forgotten.send(self.token);
        }
    }
}

/// All stamps as one, so that more can be added while the cell runs.
struct Stamps(RwLock<Vec<Arc<dyn OutgoingFilter>>>);

impl OutgoingFilter for Stamps {
    fn stamp(&self, now: Now, message: &mut Message, next_hop: &Fqcn) -> Result<(), Refusal> {
        let stamps = self.0.read().unwrap_or_else(PoisonError::into_inner);
        stamps.iter().try_for_each(|stamp| stamp.stamp(now, message, next_hop))
    }
}
