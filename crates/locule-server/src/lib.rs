//! Admits sites, runs jobs, hands out tasks and collects results.
