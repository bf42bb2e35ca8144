//! A communicator and a server made by hand, in real cells over links in memory, by a clock that moves
//! only when nothing else does. One binary, so that OpenSSL is linked once.

#[cfg(test)]
mod job;
#[cfg(test)]
mod presence;
#[cfg(test)]
mod registration;
#[cfg(test)]
mod support;
