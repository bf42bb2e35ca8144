//! The `locule` binary.

fn main() {}
