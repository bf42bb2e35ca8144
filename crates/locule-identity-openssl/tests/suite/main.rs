//! One binary, so that OpenSSL is linked once.

#[cfg(test)]
mod chain;
#[cfg(test)]
mod cipher;
#[cfg(test)]
mod conversation;
#[cfg(test)]
mod support;
#[cfg(test)]
mod vectors;
