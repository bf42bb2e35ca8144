//! A job's task loop at a site.
