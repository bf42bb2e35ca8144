//! Job folders: meta, zip with limits, signatures.
