//! Stamps what goes out, gates what comes in, binds links to identities; pure.
