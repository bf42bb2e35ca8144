//! A job at the server: a cell of its own that runs the job's workflows.

mod board;
mod brief;
mod desk;
mod hold;
mod log;
mod report;
mod run;
mod spool;
mod standing;
mod tracking;

pub use brief::ServerBrief;
pub(crate) use desk::SITE_JOINS;
pub(crate) use report::{JobReport, Told};
pub use run::{JobHost, run_job};
pub use tracking::{LastTracked, Tracked};
