//! The work on a task, and a whole run against a server's job made by hand, in real cells over links in
//! memory, by a clock that moves only when nothing else does.

#[cfg(test)]
mod bench;
#[cfg(test)]
mod run;
#[cfg(test)]
mod support;
