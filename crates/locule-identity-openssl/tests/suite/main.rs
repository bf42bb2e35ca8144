//! One binary, so that OpenSSL is linked once.

mod chain;
mod conversation;
mod support;
mod vectors;
