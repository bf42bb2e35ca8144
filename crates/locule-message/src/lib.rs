//! Fully qualified cell names, message headers, return codes; the unit that travels end to end.
