//! Decides where messages go; performs no I/O.
