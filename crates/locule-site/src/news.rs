//! What a job tells its parent beside its status: JSON on a channel that only the two of them use.

/// Between a site's job and its parent.
pub(crate) const CHANNEL: &str = "locule.job";

/// A list of [`Refusal`](locule_protocol::Refusal)s.
pub(crate) const REFUSED: &str = "refused";

/// `{"tasks_done": n}`: results that this process of the job sent so far, and at its end those that the server took.
pub(crate) const DONE: &str = "done";

/// Longest body, in bytes.
pub(crate) const MAX_BODY: usize = 1 << 20;
