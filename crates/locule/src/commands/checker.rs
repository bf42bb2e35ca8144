//! `locule checker`: this process is one checker of a site.

use std::io;

use locule_checker::{ServeError, serve};

use crate::arguments::Checker;
use crate::exit::{Code, Failure};
use crate::wire::CHECKER_BACKENDS;

/// Answers the site that started this process until it hangs up.
pub(crate) fn checker(arguments: Checker) -> Result<(), Failure> {
    serve(arguments.limits, io::stdin().lock(), io::stdout().lock(), CHECKER_BACKENDS).map_err(|error| {
        let code = match &error {
            ServeError::Arguments => Code::Usage,
            ServeError::Python { .. } => Code::NoInput,
            ServeError::Confine(_) | ServeError::Talk(_) | _ => Code::Software,
        };
        Failure::new(code, error)
    })
}
