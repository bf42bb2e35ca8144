//! The site-wide half of the conversation.

use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use locule_auth::SessionStamp;
use locule_cell::Cell;
use locule_component::{Event, EventBus, RunContext};
use locule_fobs::{Map, PeerContext, Value};
use locule_message::{Fqcn, ReturnCode};
use locule_protocol::{
    AuxReply, AuxRequest, Dialect, OutcomeReport, Outcomes, Quit, QuitReply, log_stream, outcome,
    site_context, to_props,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::conversation::{Conversation, SayError, request};
use crate::redact::redact;
use crate::settings::Settings;

/// Bytes of a piece of a log.
///
/// # Source
/// nvflare 2.9.0, `nvflare.app_common.streamers.log_streamer`.
const PIECE: usize = 64 << 10;

/// Speaks for a site: registers it, keeps it known, says good-bye.
///
/// After [`register`](Self::register) every message of the cell carries the session's token.
#[derive(Clone, Debug)]
pub struct Communicator {
    pub(crate) conversation: Conversation,
    pub(crate) settings: Arc<Settings>,
    pub(crate) stamp: Arc<SessionStamp>,
    pub(crate) cancel: CancellationToken,
    /// What the server speaks that the site registered with last.
    pub(crate) dialect: Arc<RwLock<&'static Dialect>>,
    events: Arc<EventBus>,
    context: RunContext,
}

impl Communicator {
    /// A communicator on `cell`; the session goes into `stamp`, which is that cell's.
    ///
    /// What is public in `context` goes with every message to the server; observers of `events` hear of
    /// registrations and heartbeats; `cancel` ends every wait and loop.
    #[must_use]
    pub fn new(
        cell: Cell,
        settings: Settings,
        stamp: Arc<SessionStamp>,
        context: RunContext,
        events: Arc<EventBus>,
        cancel: CancellationToken,
    ) -> Self {
        if let Some(compression) = &settings.compression {
            tracing::info!(compression, "compression is set but has no effect");
        }
        let conversation = Conversation::new(cell, Fqcn::server());
        let dialect = Arc::new(RwLock::new(Dialect::NEWEST));
        Self { conversation, settings: Arc::new(settings), stamp, cancel, dialect, events, context }
    }

    /// The settings it was made with.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Says good-bye and gives back the server's message, escaped, cut to 300 characters, without secrets.
    ///
    /// A server that does not know the site has answered too: the site is as gone as it wants to be. Is not
    /// ended by the communicator's cancellation, after which it is usually called.
    ///
    /// # Errors
    /// [`SayError`]; the site may leave all the same.
    pub async fn quit(&self) -> Result<String, SayError> {
        let quit = Quit { project_name: self.settings.project_name.clone(), peer: self.peer() };
        let ask = request(Quit::CHANNEL, Quit::TOPIC, quit.to_parts()?, self.settings.maintenance_timeout);
        let reply = self.conversation.ask(ask).await?;
        if reply.code == ReturnCode::Unauthenticated {
            let reason = redact(&reply.error.unwrap_or_default());
            tracing::info!(reason, "server had removed this site already");
            return Ok(reason);
        }
        let reply = reply.into_ok()?;
        Ok(redact(&QuitReply::from_parts(&reply.headers, &reply.payload)?.message))
    }

    /// Tells the server how the site's part of a job ended. The server waits for this, also after success; one
    /// of an older version hears of failures only, and acknowledges none.
    ///
    /// # Errors
    /// [`SayError`]; the report should be sent again until it is acknowledged.
    pub async fn report_outcome(&self, report: &OutcomeReport) -> Result<(), SayError> {
        let (channel, topic) = (OutcomeReport::CHANNEL, OutcomeReport::TOPIC);
        let ask = request(channel, topic, report.to_parts()?, self.settings.maintenance_timeout);
        match self.dialect().outcomes {
            Outcomes::Every => self.conversation.send(ask).await.map(drop)?,
            Outcomes::Failures if report.code == outcome::DONE => {}
            Outcomes::Failures => self.conversation.cell.notify(&self.conversation.with, ask).await?,
        }
        Ok(())
    }

    /// Sends the server a log of a job, in pieces, as nvflare's sites stream theirs; whether it takes it.
    ///
    /// # Errors
    /// [`SayError`] if a piece could not be sent.
    ///
    /// # Source
    /// nvflare 2.9.0, `nvflare.private.stream_runner` and `nvflare.app_common.streamers.log_streamer`.
    pub async fn send_log(&self, job_id: &str, name: &str, log: &Bytes) -> Result<bool, SayError> {
        let site = self.settings.site_name.as_str();
        let id = Uuid::from_u128(rand::random()).to_string();
        let pieces = (0..log.len()).step_by(PIECE).map(|at| log.slice(at..log.len().min(at + PIECE)));
        for (number, piece) in (0_i64..).zip(pieces.map(Some).chain([None])) {
            let mut aux = AuxRequest::new(log_stream::REQUEST, to_props(&site_context(site, Some(job_id))));
            aux.headers.insert(log_stream::ID, id.as_str());
            aux.headers.insert(log_stream::CHANNEL, log_stream::OF_LOGS);
            aux.headers.insert(log_stream::TOPIC, log_stream::LIVE);
            aux.headers.insert(log_stream::NUMBER, number);
            if number == 0 {
                let context = [
                    ("client_name", site),
                    ("job_id", job_id),
                    (log_stream::FILE_NAME, name),
                    ("__channel__", log_stream::OF_LOGS),
                    ("__topic__", log_stream::LIVE),
                ];
                aux.headers.insert(log_stream::CONTEXT, Map::from_iter(context));
            }
            aux.fields.insert(log_stream::SIZE, piece.as_ref().map_or(0, |piece| piece.len() as i64));
            aux.fields.insert(log_stream::END, piece.is_none());
            aux.fields.insert(log_stream::DATA, piece.map_or(Value::None, Value::Bytes));
            let ask =
                request(AuxRequest::CHANNEL, &aux.topic, aux.to_parts()?, self.settings.maintenance_timeout);
            let reply = self.conversation.send(ask.optional()).await?;
            if !AuxReply::from_parts(&reply.headers, &reply.payload)?.is_ok() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What the server speaks that it registered with last; the newest version before.
    #[must_use]
    pub fn dialect(&self) -> &'static Dialect {
        *self.dialect.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the server may know of this site's context.
    pub(crate) fn peer(&self) -> PeerContext {
        self.context.open().peer_context()
    }

    pub(crate) fn fire(&self, event: &Event<'_>) {
        self.events.fire(event, &self.context.open());
    }
}
