//! Durable records: encoding, checksums, format versions; the journal seam and one in memory.
