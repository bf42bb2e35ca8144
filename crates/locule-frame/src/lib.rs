//! SFM link framing, handshake and keep-alive as a state machine without I/O.
