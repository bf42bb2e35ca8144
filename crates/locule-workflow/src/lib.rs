//! Federated averaging and its kin; aggregation in constant memory.
