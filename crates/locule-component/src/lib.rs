//! Components, context, events, registry; plan, review, then build.
