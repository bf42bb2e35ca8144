//! `locule script`: this program as the keeper of a training script, and as the script.

use std::process::ExitCode;

use locule_python::{NOT_STARTED, ServeError};

use crate::arguments::Script;
use crate::exit::{Code, Failure};

/// Keeps a script to its end; its exit code.
pub(crate) fn script(arguments: &Script) -> ExitCode {
    match locule_python::serve(&arguments.entry) {
        Ok(code) => code.into(),
        Err(error) => {
            if matches!(error, ServeError::Arguments) {
                return Failure::new(Code::Usage, error).report();
            }
            Failure::new(Code::Software, error).report();
            NOT_STARTED.into()
        }
    }
}
