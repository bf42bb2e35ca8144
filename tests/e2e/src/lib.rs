//! Tests that spawn the binary.
