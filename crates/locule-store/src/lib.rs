//! Journals in plain files, flushed before they answer.
