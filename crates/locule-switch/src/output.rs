use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use locule_message::{Fqcn, HeaderValue, Message};

use crate::{LinkFacts, LinkId, Refusal, Reply, RequestError, RequestId};

/// What a switch wants done, or wants known.
#[derive(Debug)]
pub enum Output {
    /// Hand this to a handler.
    Deliver(Delivery),
    /// A request is over at one of its targets.
    Settle(Settled),
    /// Messages wait for this link, which had none: call [`Switch::poll_transmit`](crate::Switch).
    Transmit(LinkId),
    /// Read no more from this link until it is relieved: what came by it finds no room to go on.
    Congested(LinkId),
    /// Read from this link again.
    Relieved(LinkId),
    /// The gate let something through that only a neighbour who has proved itself can send: larger
    /// frames may be taken from it. Links of those who are known already are [proven from the
    /// start](crate::Switch::is_proven).
    Proven(LinkId),
    /// Close this link; the switch has forgotten it already.
    Close(LinkId, CloseReason),
    /// The neighbour on this link said goodbye. Nothing new is sent by it; its end will follow.
    Left(LinkId),
    /// A chunk of a stream ended here, by its headers, for this reason. Its sender would wait in vain:
    /// tell it.
    Undelivered(Message, Refusal),
    /// The gate refused a message, which says that this cell made it. For logs: whoever waits is told.
    Refused(LinkId, Fqcn, Refusal),
    /// A message ended here. For logs and tests: [`Stats`](crate::Stats) counts it too.
    Dropped(LinkId, DropReason),
}

/// A request or a one-way message for this cell.
#[derive(Debug)]
pub struct Delivery {
    /// What is known of the link that it came by.
    pub link: Arc<LinkFacts>,
    /// The cell that made it. The gate let it through, which is all that vouches for the name.
    pub origin: Fqcn,
    /// The message as it came.
    pub message: Message,
    /// What a reply needs; `None` when nobody waits for one.
    pub reply_to: Option<ReplyTo>,
}

/// What a reply needs to find its requester. Used up by the reply, so that there is at most one.
pub struct ReplyTo {
    pub(crate) link: Arc<LinkFacts>,
    pub(crate) origin: Fqcn,
    pub(crate) channel: String,
    pub(crate) topic: String,
    pub(crate) req_id: HeaderValue<'static>,
    pub(crate) secure: bool,
    pub(crate) optional: bool,
}

impl ReplyTo {
    /// The cell that waits.
    #[must_use]
    pub fn origin(&self) -> &Fqcn {
        &self.origin
    }
}

impl fmt::Debug for ReplyTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplyTo")
            .field("origin", &self.origin)
            .field("channel", &self.channel)
            .field("topic", &self.topic)
            .finish_non_exhaustive()
    }
}

/// The end of a request at one target.
#[derive(Clone, Debug)]
pub struct Settled {
    /// The request.
    pub request: RequestId,
    /// The target.
    pub target: Fqcn,
    /// The reply, which may say failure too, or why there is none.
    pub outcome: Result<Reply, RequestError>,
    /// Whether this was the last target of the request.
    pub last: bool,
}

/// A message for a link: the headers and the body of one frame.
#[derive(Clone, Debug)]
pub struct Transmit {
    /// Encoded headers.
    pub headers: Bytes,
    /// The body; what is forwarded is the very bytes that came.
    pub body: Bytes,
}

/// Why the switch gives up a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// The neighbour came back over another link.
    Evicted,
    /// The neighbour said goodbye over another link as well; this one it should have closed.
    Left,
    /// The gate has let nothing through that came by it, for too long.
    Unheard,
}

/// Why a message ended here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// It lacks a header that every message has, or its link is not up.
    Malformed,
    /// The gate refused it.
    Gated,
    /// A filter or a stamp refused it.
    Filtered,
    /// There is no path, and nobody who waits to hear that.
    Unroutable,
    /// It is too big for a link, and nobody waits to hear that.
    TooBig,
    /// It replies to nothing that waits: late, repeated or invented.
    UnmatchedReply,
    /// It replies for somebody who was not asked.
    UnexpectedReply,
    /// There was no room for too long.
    Overflow,
    /// Its link went down while it waited.
    LinkLost,
}
