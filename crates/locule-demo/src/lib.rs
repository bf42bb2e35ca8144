//! The demo's data and trainer: three hospitals and a logistic regression.
