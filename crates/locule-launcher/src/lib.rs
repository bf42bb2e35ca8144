//! The seam that starts a job; as a task of the daemon for now.
