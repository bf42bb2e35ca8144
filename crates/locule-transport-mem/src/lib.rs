//! In-process links with scriptable faults.
