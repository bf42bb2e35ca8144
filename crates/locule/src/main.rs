//! The `locule` binary: arguments, logs, a command, an exit code.

mod arguments;
#[cfg(feature = "nats")]
mod broker;
mod commands;
#[cfg(feature = "demo")]
mod demo;
mod descriptors;
mod exit;
#[cfg(feature = "simulate")]
mod federation;
#[cfg(feature = "simulate")]
mod folder;
mod launcher;
mod logs;
mod mistakes;
mod network;
mod retention;
mod scheduler;
mod setting;
#[cfg(feature = "simulate")]
mod simulate;
mod stop;
#[cfg(feature = "simulate")]
mod table;
mod version;
mod wire;

use std::process::ExitCode;

use clap::Parser as _;

use crate::arguments::{Arguments, Called, Child, Command};
use crate::exit::{Code, Failure, OrExit as _};

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return exit::usage(error),
    };
    let verbose = arguments.verbose;
    let ended = match arguments.called {
        Called::ByPerson(command) => run(command, verbose),
        Called::ByProgram(Child::Checker(arguments)) => commands::checker(arguments),
        Called::ByProgram(Child::JobProcess(arguments)) => commands::job_process(&arguments, verbose),
        // the exit code of a script's keeper is the script's
        Called::ByProgram(Child::Script(arguments)) => return commands::script(&arguments),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn run(command: Command, verbose: u8) -> Result<(), Failure> {
    descriptors::raise_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().or_exit(Code::Software)?;
    runtime.block_on(async {
        match command {
            #[cfg(feature = "demo")]
            Command::Demo(arguments) => Box::pin(demo::run(arguments, verbose)).await,
            #[cfg(feature = "simulate")]
            Command::Simulate(arguments) => Box::pin(simulate::run(arguments, verbose)).await,
            Command::Server(arguments) => Box::pin(commands::server(arguments, verbose)).await,
            Command::Relay(arguments) => Box::pin(commands::relay(arguments, verbose)).await,
            Command::Site(arguments) => Box::pin(commands::site(arguments, verbose)).await,
            Command::Provision(arguments) => commands::provision(&arguments),
            Command::Sign(arguments) => commands::sign(&arguments),
            Command::Schema(arguments) => commands::schema(&arguments),
            Command::Job(arguments) => Box::pin(commands::job(arguments, verbose)).await,
            Command::Audit(arguments) => commands::audit(&arguments),
            Command::Policy(arguments) => commands::policy(&arguments, verbose),
        }
    })
}
