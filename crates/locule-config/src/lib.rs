//! Configuration documents with positions: read, merge, substitute, report every mistake.
