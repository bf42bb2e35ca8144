//! The demo's data and trainer: hospitals that learn to tell benign from malignant tumours together.
//!
//! It holds the Wisconsin breast cancer data ([`DataSet`]), divides them over sites, trains a
//! [`LogisticRegression`] at each, and judges the [`Model`]s that come out. It starts no server and no site:
//! the program does that, with the job that [`write_job`] writes. What the sites could reach alone
//! or with everybody's rows in one place is a function call:
//!
//! ```
//! use locule_demo::{DataSet, Training, train_alone, train_pooled};
//!
//! let split = DataSet::wisconsin().split(1, 3)?;
//! let pooled = train_pooled(&split, &Training::default(), 20).judge(&split.held_out);
//! let smallest = train_alone("site-3", &split.sites[2], &Training::default(), 20).judge(&split.held_out);
//! assert!(pooled.auc > 0.99 && smallest.auc < pooled.auc);
//! # Ok::<(), locule_demo::TooManySites>(())
//! ```
//!
//! Start with [`DataSet::split`], [`LogisticRegression`] and [`Model`].

mod data;
mod job;
mod logistic;
mod metrics;
mod model;
mod plot;
mod split;
mod trainer;

pub use data::{DataSet, ReadRowsError, Rows, WriteRowsError, WrongWidth};
pub use job::{DemoJob, WriteJobError, write_job};
pub use logistic::Training;
pub use metrics::{Judgement, auc};
pub use model::{Model, ReadModelError, train_alone, train_pooled};
pub use plot::{PlotError, RoundPoint, rounds_svg};
pub use split::{MAX_SITES, Split, TooManySites};
pub use trainer::{LogisticRegression, TrainerArgs};

/// Makes the demo's trainer known to a registry.
pub fn register(registry: &mut locule_component::Registry) {
    registry.register::<LogisticRegression>();
}
