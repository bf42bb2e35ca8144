//! How a command ends: the exit codes of sysexits, and one clear message.

use std::process::ExitCode;

/// Exit codes, after `sysexits.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Code {
    /// The job did not reach its end.
    JobFailed = 1,
    /// The command line is wrong.
    Usage = 64,
    /// What the user gave is malformed: a job folder, a data file.
    Data = 65,
    /// A file or folder that was named does not exist or cannot be read.
    NoInput = 66,
    /// A service cannot be reached, or an address is in use.
    Unavailable = 69,
    /// Something that this program promises did not hold.
    Software = 70,
    /// A file or folder could not be written.
    CannotCreate = 73,
    /// The peer does not let us in, or a key is readable by others.
    NoPermission = 77,
    /// A startup kit or a configuration is wrong.
    Config = 78,
    /// Stopped by Ctrl-C.
    Interrupted = 130,
}

/// Why a command failed: what to show and what to end with.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: Code,
    pub(crate) error: anyhow::Error,
}

impl Failure {
    pub(crate) fn new(code: Code, error: impl Into<anyhow::Error>) -> Self {
        Self { code, error: error.into() }
    }

    /// Shows the whole chain of causes and gives the exit code.
    #[expect(clippy::print_stderr, reason = "the command's last word")]
    pub(crate) fn report(&self) -> ExitCode {
        eprintln!("locule: {:#}", self.error);
        ExitCode::from(self.code as u8)
    }
}

/// Gives an error the exit code that it ends the command with.
pub(crate) trait OrExit<T> {
    /// Ends with `code` on an error.
    fn or_exit(self, code: Code) -> Result<T, Failure>;
}

impl<T, E: Into<anyhow::Error>> OrExit<T> for Result<T, E> {
    fn or_exit(self, code: Code) -> Result<T, Failure> {
        self.map_err(|error| Failure::new(code, error))
    }
}
