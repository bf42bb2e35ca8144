//! Components as a language of checkers.

use std::time::Duration;

use locule_checker::{Backend, Opening, Reviewer};
use locule_component::Verdict;

use crate::{Guest, GuestLimits};

/// The language `wasm`, for [`locule_checker::serve()`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WasmBackend;

impl Backend for WasmBackend {
    fn name(&self) -> &'static str {
        "wasm"
    }

    fn open(&self, opening: &Opening) -> Result<Box<dyn Reviewer>, String> {
        let name = opening.file.rsplit('/').next().unwrap_or(&opening.file);
        let memory = usize::try_from(opening.limits.memory_mib.saturating_mul(1 << 20)).unwrap_or(usize::MAX);
        let limits = GuestLimits {
            time: Duration::from_millis(opening.limits.time_ms),
            memory: memory / 2, // the other half is for the document and the compiler
            fuel: opening.limits.fuel.unwrap_or(GuestLimits::default().fuel),
        };
        let guest = Guest::open(&opening.source, limits).map_err(|error| format!("{name}: {error}"))?;
        Ok(Box::new(guest))
    }
}

impl Reviewer for Guest {
    fn about(&self) -> String {
        format!("WebAssembly component of {} bytes", self.len())
    }

    fn review(&mut self, document: &str) -> Result<Vec<Verdict>, String> {
        Guest::review(self, document).map_err(|error| error.to_string())
    }
}
