//! Checkers written in Rego.
