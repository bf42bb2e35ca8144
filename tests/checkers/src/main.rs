//! A checker's process with every language that this workspace has, as `locule checker` is one with those that it
//! was built with.

use std::io;
use std::process::ExitCode;

use locule_checker::{Backend, serve};

const BACKENDS: &[&dyn Backend] = &[
    &locule_policy_rego::RegoBackend,
    #[cfg(feature = "wasm")]
    &locule_policy_wasm::WasmBackend,
];

fn main() -> ExitCode {
    let arguments = std::env::args_os().skip(1);
    match serve(arguments, io::stdin().lock(), io::stdout().lock(), BACKENDS) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
