//! Project file to certificates and startup kits.
