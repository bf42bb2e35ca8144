/// What a switch has done so far: counters that only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Requests sent, one per target.
    pub requests: u64,
    /// One-way messages sent.
    pub notices: u64,
    /// Replies sent.
    pub replies: u64,
    /// Requests sent back because they could not be passed on.
    pub returns: u64,
    /// Requests and one-way messages handed to this cell's handlers.
    pub delivered: u64,
    /// Messages of others passed on.
    pub forwarded: u64,
    /// Requests settled with a reply.
    pub replied: u64,
    /// Requests settled with an error other than a timeout.
    pub failed: u64,
    /// Requests whose deadline passed.
    pub timed_out: u64,
    /// Messages that the gate refused.
    pub gated: u64,
    /// Messages that a filter or a stamp refused.
    pub filtered: u64,
    /// Links that the policy refused, or that claimed a name they may not have.
    pub links_refused: u64,
    /// Links closed because their neighbour came back over another.
    pub links_evicted: u64,
    /// Links closed because the gate let nothing through that came by them.
    pub links_unheard: u64,
    /// Messages without the headers that every message has, or over a link that is not up.
    pub malformed: u64,
    /// Replies to nothing that waits: late, repeated or invented.
    pub unmatched_replies: u64,
    /// Replies by somebody who was not asked.
    pub unexpected_replies: u64,
    /// Messages of others for which there was no path.
    pub unroutable: u64,
    /// Messages over the size limit of this cell or of a link.
    pub too_big: u64,
    /// Times a message found its queue full.
    pub congested: u64,
    /// Messages dropped because even the waiting line was full, or they waited too long.
    pub overflowed: u64,
    /// Messages lost in the queue of a link that went down.
    pub lost_with_link: u64,
    /// Requests refused because too many were waiting already.
    pub overloaded: u64,
}
