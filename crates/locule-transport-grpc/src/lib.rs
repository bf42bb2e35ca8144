//! Links over gRPC bidirectional streams.
