//! Project habits.

fn main() {}
