//! Arrays that a message only refers to, fetched from the cell that holds them, or held for others.
//!
//! An nvflare cell never puts an array into a message: it names a *download*, and the receiver fetches
//! the arrays from their source, a few megabytes at a time, and confirms. [`fetch`] does so for all
//! references in a task or a result, and puts the arrays in their place. [`Source`] is the other end.
//! What the arrays mean is not for this crate to know.
//!
//! ```
//! use std::time::Duration;
//!
//! use locule_cell::{Cell, CellConfig};
//! use locule_download::{FetchLimits, Source, fetch};
//! use locule_fobs::{Array, Shareable, Value};
//! use locule_message::Fqcn;
//! use locule_transport::{Endpoint, Transports};
//! use locule_transport_mem::MemTransport;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let transports = Transports::new().with(MemTransport::new());
//! # let endpoint = Endpoint::parse("mem://server")?;
//! # let server = Cell::builder(CellConfig::new(Fqcn::server())).transports(transports.clone()).start();
//! # server.listen(&endpoint).await?;
//! # let site = Cell::builder(CellConfig::new("site-1".parse()?)).transports(transports).start();
//! # site.connect(endpoint);
//! # assert!(site.wait_linked(&Fqcn::server(), Duration::from_secs(5)).await);
//! // The server holds an array for one site and sends a reference to it.
//! let source = Source::serve(&server);
//! let weights = Array::from_f64(&[2], &[0.5, -1.0])?;
//! let mut task = Shareable::new();
//! task.fields.insert("weights", source.offer(vec![weights.clone()], 1, Duration::from_secs(600))?.remove(0));
//!
//! // The site fetches it.
//! fetch(&site, &mut task, &Fqcn::server(), &FetchLimits::default()).await?;
//! assert_eq!(task.fields.get("weights"), Some(&Value::Array(weights)));
//! # Ok(())
//! # }
//! ```
//!
//! Start with [`fetch`] and [`Source`]; beneath them are [`Download`] and [`Offers`], which do no I/O.
//!
//! # Source
//! nvflare 2.9.0, `nvflare.fuel.f3.streaming.download_service` and
//! `nvflare.fuel.utils.fobs.decomposers.via_downloader`; vectors in `tests/vectors/download.json`.

mod download;
mod fetch;
mod npz;
mod offer;
mod source;
pub mod wire;

pub use download::{Download, DownloadError, Piece};
pub use fetch::{FetchError, FetchLimits, Gathered, fetch, gather};
pub use npz::{NpzError, read_npz, write_npz};
pub use offer::{Answer, Offers, Outcome};
pub use source::{OfferError, Source};
pub use wire::{DOWNLOAD, DOWNLOADS};
