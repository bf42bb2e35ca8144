use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use locule_message::{Fqcn, Message, ReturnCode};

use crate::{LinkFacts, Now};

/// Why a link or a message is not let through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Code for the requester.
    pub code: ReturnCode,
    /// Reason for the requester and the log; holds no secret.
    pub reason: String,
}

impl Refusal {
    /// A refusal with `code`, for `reason`.
    pub fn new(code: ReturnCode, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into() }
    }
}

/// The gate: sees every message that arrives over a link before anything else does.
///
/// Called before a message is forwarded, handled or matched with a request. A refused request that
/// expects a reply is answered with the refusal's code; every other refused message is dropped and
/// counted. Must not block: look things up, leave asymmetric cryptography to others.
pub trait IncomingFilter: Send + Sync {
    /// Judges `message`, which arrived over `from`.
    ///
    /// # Errors
    /// The [`Refusal`] keeps the message out.
    fn check(&self, now: Now, from: &LinkFacts, message: &Message) -> Result<(), Refusal>;

    /// Whether the neighbour of an accepted link has proved over an earlier one who it is, and the certificate
    /// that it shows is the same. Such a link is [proven](crate::Switch::is_proven) from the start, so that what
    /// was interrupted can go on.
    ///
    /// By default nobody is known.
    fn knows(&self, now: Now, link: &LinkFacts) -> bool {
        let _ = (now, link);
        false
    }

    /// Whether `message` passes without proof of who sent it. Such a message does not make its link
    /// [`Output::Proven`](crate::Output::Proven).
    ///
    /// By default the three topics that have to do without: challenge, registration, goodbye.
    fn is_exempt(&self, message: &Message) -> bool {
        matches!(
            (message.channel(), message.topic()),
            ("task", "challenge" | "register") | ("cellnet.channel", "bye")
        )
    }
}

/// A stamp: adds headers to every message that this cell makes, once its next hop is known.
///
/// Not called for messages that are only passed on. Must not block.
pub trait OutgoingFilter: Send + Sync {
    /// Stamps `message`, about to leave for `next_hop` (this cell's own name when it stays here).
    ///
    /// # Errors
    /// The [`Refusal`] keeps the message in: a request fails with
    /// [`RequestError::Refused`](crate::RequestError::Refused), anything else is dropped and counted.
    fn stamp(&self, now: Now, message: &mut Message, next_hop: &Fqcn) -> Result<(), Refusal>;
}

/// Decides whether a neighbour may bear the name it claims.
///
/// Asked once per link, before the link carries anything and before an older link of the same name
/// is closed in its favour.
pub trait LinkPolicy: Send + Sync {
    /// Admits the link or not.
    ///
    /// # Errors
    /// The [`Refusal`] closes the link.
    fn admit(&self, link: &LinkFacts) -> Result<(), Refusal>;

    /// Says whether the cell `name`, a neighbour or not, may have a certificate for `common_name`. The
    /// switch does not ask: whoever seals messages for that cell does.
    ///
    /// # Errors
    /// The [`Refusal`] keeps the certificate from being used.
    fn admit_certificate(&self, name: &Fqcn, common_name: &str) -> Result<(), Refusal>;
}

/// Looks at, changes or refuses the messages of chosen channels and topics at one of the four
/// [`Pass`]es. Must not block.
///
/// What is encrypted end to end crosses a pass in clear: before it is sealed, after it was opened. See
/// [`Switch::filter_request`](crate::Switch::filter_request).
pub trait MessageFilter: Send + Sync {
    /// Judges `message` and may change its headers and body.
    ///
    /// # Errors
    /// The [`Refusal`] stops the message; each [`Pass`] says what follows.
    fn apply(&self, now: Now, message: &mut Message) -> Result<(), Refusal>;
}

/// The points at which filters see the messages of this cell; what is only passed on crosses none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Pass {
    /// A request or one-way message leaves. A refusal becomes its error.
    OutgoingRequest,
    /// A request or one-way message is about to be delivered. A refusal becomes the reply.
    IncomingRequest,
    /// A reply leaves. A refusal takes its place.
    OutgoingReply,
    /// A reply arrives. A refusal becomes the error of the request.
    IncomingReply,
}

/// The filters of a cell by pass, channel and topic.
///
/// The most specific registration wins: channel and topic, then channel and `*`, then `*` and `*`.
///
/// # Source
/// nvflare 2.9.0, `nvflare.fuel.f3.cellnet.registry`.
#[derive(Default)]
pub(crate) struct Filters {
    by_place: BTreeMap<(Pass, String, String), Vec<Arc<dyn MessageFilter>>>,
}

impl Filters {
    pub(crate) fn add(&mut self, pass: Pass, channel: &str, topic: &str, filter: Arc<dyn MessageFilter>) {
        self.by_place.entry((pass, channel.to_owned(), topic.to_owned())).or_default().push(filter);
    }

    pub(crate) fn apply(&self, pass: Pass, now: Now, message: &mut Message) -> Result<(), Refusal> {
        if self.by_place.is_empty() {
            return Ok(());
        }
        let (channel, topic) = (message.channel().to_owned(), message.topic().to_owned());
        let places = [(&*channel, &*topic), (&*channel, "*"), ("*", "*")];
        let found = places.iter().find_map(|(channel, topic)| {
            self.by_place.get(&(pass, (*channel).to_owned(), (*topic).to_owned()))
        });
        found.into_iter().flatten().try_for_each(|filter| filter.apply(now, message))
    }
}

impl fmt::Debug for Filters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.by_place.keys()).finish()
    }
}
