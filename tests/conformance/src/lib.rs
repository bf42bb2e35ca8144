//! One suite that every transport crate passes.
