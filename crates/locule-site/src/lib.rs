//! The site's parent: check, deploy, start and supervise jobs.
