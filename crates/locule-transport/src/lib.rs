//! The seam that a carrier implements: endpoints, links, listeners.
