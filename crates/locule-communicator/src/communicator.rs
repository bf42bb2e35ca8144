//! The site-wide half of the conversation.

use std::sync::{Arc, PoisonError, RwLock};

use locule_auth::SessionStamp;
use locule_cell::Cell;
use locule_component::{Event, EventBus, RunContext};
use locule_fobs::PeerContext;
use locule_message::{Fqcn, ReturnCode};
use locule_protocol::{Dialect, OutcomeReport, Outcomes, Quit, QuitReply, outcome};
use tokio_util::sync::CancellationToken;

use crate::conversation::{Conversation, SayError, request};
use crate::redact::redact;
use crate::settings::Settings;

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
