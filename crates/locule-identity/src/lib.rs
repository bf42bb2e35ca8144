//! Challenge, registration and token as typestates; no cryptography of its own.
