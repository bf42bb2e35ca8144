//! The site-wide half of the conversation.

use std::sync::Arc;

use locule_auth::SessionStamp;
use locule_cell::Cell;
use locule_component::{Event, EventBus, RunContext};
use locule_fobs::PeerContext;
use locule_message::{Fqcn, ReturnCode};
use locule_protocol::{OutcomeReport, Quit, QuitReply};
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
        Self { conversation, settings: Arc::new(settings), stamp, cancel, events, context }
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

    /// Tells the server how the site's part of a job ended. The server waits for this, also after success.
    ///
    /// # Errors
    /// [`SayError`]; the report should be sent again until it is acknowledged.
    pub async fn report_outcome(&self, report: &OutcomeReport) -> Result<(), SayError> {
        let (channel, topic) = (OutcomeReport::CHANNEL, OutcomeReport::TOPIC);
        let ask = request(channel, topic, report.to_parts()?, self.settings.maintenance_timeout);
        self.conversation.send(ask).await.map(|_| ()).map_err(SayError::from)
    }

    /// What the server may know of this site's context.
    pub(crate) fn peer(&self) -> PeerContext {
        self.context.open().peer_context()
    }

    pub(crate) fn fire(&self, event: &Event<'_>) {
        self.events.fire(event, &self.context.open());
    }
}
