//! One connection to a broker.

use std::error::Error as _;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, ConnectError, ConnectErrorKind, ConnectOptions, Event, Subscriber};
use bytes::Bytes;
use locule_transport::{DialError, Endpoint};
use rustls::ClientConfig;
use tokio::sync::watch;

use crate::Fault;
use crate::message::{PIECE_COST, WINDOW};

/// Where brokers listen, unless told otherwise.
const PORT: u16 = 4222;
/// How long a broker may take to let us in.
const CONNECT_TIME: Duration = Duration::from_secs(5);
/// How often a silent broker is asked whether it is there; it may miss two.
const PING: Duration = Duration::from_secs(10);
/// Messages of one subscription that wait here: as many as a window has, and those without bytes. What comes
/// above is lost, and missed.
const SUBSCRIPTION: usize = (WINDOW / PIECE_COST) as usize + 256;

/// How to be let in by a broker; its `Debug` tells no secrets.
#[derive(Clone, Default)]
pub struct Login {
    by: By,
    tls: Option<Arc<ClientConfig>>,
}

#[derive(Clone, Default)]
enum By {
    #[default]
    Nothing,
    User {
        name: String,
        password: String,
    },
    Token(String),
    Credentials(String),
}

impl Login {
    /// Without a name, for brokers that let everybody in.
    pub fn anonymous() -> Self {
        Self::default()
    }

    /// With a user's name and password.
    pub fn user(name: impl Into<String>, password: impl Into<String>) -> Self {
        Self { by: By::User { name: name.into(), password: password.into() }, tls: None }
    }

    /// With a token that all share.
    pub fn token(token: impl Into<String>) -> Self {
        Self { by: By::Token(token.into()), tls: None }
    }

    /// With a user's JWT and seed, as they stand in a `.creds` file; this is its text, not its name.
    pub fn credentials(text: impl Into<String>) -> Self {
        Self { by: By::Credentials(text.into()), tls: None }
    }

    /// The same over TLS to the broker, whose host name must stand in its certificate. Without, a broker that
    /// asks for TLS must have a certificate that the platform trusts.
    #[must_use]
    pub fn with_tls(mut self, config: Arc<ClientConfig>) -> Self {
        self.tls = Some(config);
        self
    }

    fn options(&self) -> Result<ConnectOptions, io::Error> {
        let options = ConnectOptions::new();
        let options = match &self.by {
            By::Nothing => options,
            By::User { name, password } => options.user_and_password(name.clone(), password.clone()),
            By::Token(token) => options.token(token.clone()),
            By::Credentials(text) => options.credentials(text)?,
        };
        Ok(match &self.tls {
            Some(config) => options.require_tls(true).tls_client_config(ClientConfig::clone(config)),
            None => options,
        })
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by = match self.by {
            By::Nothing => "nothing",
            By::User { .. } => "user",
            By::Token(_) => "token",
            By::Credentials(_) => "credentials",
        };
        f.debug_struct("Login").field("by", &by).field("tls", &self.tls.is_some()).finish()
    }
}

/// A connection that ends for good when the broker does; whoever needs another makes one.
#[derive(Clone, Debug)]
pub(crate) struct Broker {
    client: Client,
    ended: watch::Receiver<Option<Fault>>,
}

impl Broker {
    pub(crate) async fn connect(at: &Endpoint, login: &Login) -> Result<Self, ConnectError> {
        let options = login
            .options()
            .map_err(|error| ConnectError::with_source(ConnectErrorKind::Authentication, error))?;
        let (end, ended) = watch::channel(None);
        let client = options
            .name("locule")
            .no_echo()
            .connection_timeout(CONNECT_TIME)
            .ping_interval(PING)
            .subscription_capacity(SUBSCRIPTION)
            .ignore_discovered_servers()
            // It cannot be told to make none.
            .max_reconnects(1)
            .event_callback(move |event| {
                if let Some(fault) = fault(event) {
                    end.send_if_modified(|ended| {
                        let is_first = ended.is_none();
                        ended.get_or_insert(fault);
                        is_first
                    });
                }
                std::future::ready(())
            })
            .connect(format!("nats://{}", at.clone().with_port(at.port().unwrap_or(PORT)).authority()))
            .await?;
        Ok(Self { client, ended })
    }

    pub(crate) async fn subscribe(&self, subject: &str) -> Result<Subscriber, Fault> {
        self.client.subscribe(subject.to_owned()).await.map_err(|_| Fault::BrokerGone)
    }

    pub(crate) async fn publish(&self, subject: &str, payload: Bytes) -> Result<(), Fault> {
        self.client.publish(subject.to_owned(), payload).await.map_err(|_| Fault::BrokerGone)
    }

    /// Publishes what is to be answered: if nobody listens, it is the broker that answers.
    pub(crate) async fn ask(&self, subject: &str, reply: &str, payload: Bytes) -> Result<(), Fault> {
        let asked = self.client.publish_with_reply(subject.to_owned(), reply.to_owned(), payload);
        asked.await.map_err(|_| Fault::BrokerGone)
    }

    /// Waits until all that was published has left.
    pub(crate) async fn flush(&self) -> Result<(), Fault> {
        self.client.flush().await.map_err(|_| Fault::BrokerGone)
    }

    /// Largest message that the broker takes, in bytes.
    pub(crate) fn max_payload(&self) -> usize {
        self.client.max_payload()
    }

    /// Waits for the connection's end, or for a complaint of the broker.
    pub(crate) async fn ended(&mut self) -> Fault {
        match self.ended.wait_for(Option::is_some).await {
            Ok(fault) => fault.clone().unwrap_or(Fault::BrokerGone),
            Err(_) => Fault::BrokerGone,
        }
    }
}

fn fault(event: Event) -> Option<Fault> {
    match event {
        Event::Disconnected | Event::Closed => Some(Fault::BrokerGone),
        Event::ServerError(error) => Some(Fault::BrokerSays(error.to_string())),
        Event::Connected
        | Event::LameDuckMode
        | Event::Draining
        | Event::SlowConsumer(_)
        | Event::ClientError(_) => None,
    }
}

/// Sorts why a broker was not reached.
pub(crate) fn dial_error(to: &Endpoint, error: ConnectError) -> DialError {
    let endpoint = to.clone();
    if is_untrusted(&error) {
        return DialError::Untrusted { endpoint, source: error.into() };
    }
    match error.kind() {
        ConnectErrorKind::Dns => DialError::UnknownHost { endpoint, source: io::Error::other(error) },
        ConnectErrorKind::TimedOut => DialError::TimedOut { endpoint, after: CONNECT_TIME },
        ConnectErrorKind::Authentication
        | ConnectErrorKind::AuthorizationViolation
        | ConnectErrorKind::Tls
        | ConnectErrorKind::ServerParse
        | ConnectErrorKind::Io
        | ConnectErrorKind::MaxReconnects => DialError::Unreachable { endpoint, source: error.into() },
    }
}

/// Whether the broker does not let us in, or we do not take it for the one that it should be.
pub(crate) fn is_untrusted(error: &ConnectError) -> bool {
    let refuses =
        [ConnectErrorKind::Authentication, ConnectErrorKind::AuthorizationViolation, ConnectErrorKind::Tls];
    let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>());
    let of_tls = cause.and_then(io::Error::get_ref).is_some_and(|cause| cause.is::<rustls::Error>());
    of_tls || refuses.contains(&error.kind())
}
