//! A program that is a checker in Rego when a site starts it as one, and nothing else.

use std::io;

use locule_checker::{ServeError, serve};
use locule_policy_rego::RegoBackend;

fn main() -> Result<(), ServeError> {
    serve(std::env::args_os().skip(1), io::stdin(), io::stdout(), &[&RegoBackend])
}
