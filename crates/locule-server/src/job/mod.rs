//! A job at the server: a cell of its own that runs the job's workflows.

mod board;
mod desk;
mod report;
mod run;
mod standing;

pub(crate) use report::JobReport;
pub use run::{JobHost, run_job};
