//! Whole networks of switches on virtual time, with seeded faults.
