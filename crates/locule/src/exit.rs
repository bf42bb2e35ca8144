//! How a command ends: the exit codes of sysexits, and one clear message.

use std::io;
use std::path::Path;
use std::process::ExitCode;

use anyhow::anyhow;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use locule_cell::{Cell, CellLost};
use locule_job::JobError;
use locule_kit::KitError;
use locule_provision::{ProvisionError, ReadError};
use locule_server::SubmitError;
use locule_transport::ListenError;

/// Exit codes, after `sysexits.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Code {
    /// The job did not reach its end, or the answer to what was asked is no.
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
    /// Stopped by a person.
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

    /// Somebody stopped it before it was done.
    pub(crate) fn interrupted() -> Self {
        Self::new(Code::Interrupted, anyhow!("interrupted"))
    }

    /// The same failure, with the file or folder that it is about in front.
    pub(crate) fn about(self, path: &Path) -> Self {
        Self { error: self.error.context(path.display().to_string()), ..self }
    }

    /// Shows the whole chain of causes and gives the exit code.
    #[expect(clippy::print_stderr, reason = "the command's last word")]
    pub(crate) fn report(&self) -> ExitCode {
        eprintln!("locule: {}", self.text());
        ExitCode::from(self.code as u8)
    }

    /// The error with its causes in one line, each once: some say their cause themselves.
    pub(crate) fn text(&self) -> String {
        let mut text = self.error.to_string();
        for cause in self.error.chain().skip(1) {
            let cause = cause.to_string();
            if !text.contains(&cause) {
                text = format!("{text}: {cause}");
            }
        }
        text
    }
}

/// Shows what is wrong with the command line, or the help that was asked for.
pub(crate) fn usage(error: clap::Error) -> ExitCode {
    let error = with_other_way(error);
    error.print().ok();
    if error.use_stderr() { ExitCode::from(Code::Usage as u8) } else { ExitCode::SUCCESS }
}

/// Names the variable that stands in for an administrator's kit that is missing.
fn with_other_way(mut error: clap::Error) -> clap::Error {
    let missing = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::Strings(missing)) if error.kind() == ErrorKind::MissingRequiredArgument => missing,
        _ => return error,
    };
    if missing.iter().any(|argument| argument.contains("<ADMIN_KIT>")) {
        let tip = "the variable LOCULE_ADMIN_KIT may name the kit instead, for all commands".into();
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip]));
    }
    error
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

impl From<KitError> for Failure {
    fn from(error: KitError) -> Self {
        let code = match &error {
            KitError::OpenKey { .. } => Code::NoPermission,
            KitError::Read { .. } => Code::NoInput,
            KitError::NotThisKit { folder, .. } if !folder.exists() => Code::NoInput,
            KitError::NotThisKit { .. }
            | KitError::Missing { .. }
            | KitError::WritableByAnybody { .. }
            | KitError::NotText { .. }
            | KitError::Configuration { .. }
            | KitError::Certificate { .. }
            | _ => Code::Config,
        };
        Self::new(code, error)
    }
}

impl From<ListenError> for Failure {
    fn from(error: ListenError) -> Self {
        match error {
            ListenError::AddressInUse { .. } => {
                Self::new(Code::Unavailable, anyhow!(error).context("address in use"))
            }
            ListenError::Forbidden { .. } => Self::new(Code::NoPermission, error),
            ListenError::Io { .. } => Self::new(Code::Unavailable, error),
            ListenError::UnknownScheme(_)
            | ListenError::Invalid { .. }
            | ListenError::NotLocal { .. }
            | _ => Self::new(Code::Config, error),
        }
    }
}

impl From<CellLost> for Failure {
    fn from(error: CellLost) -> Self {
        let text = "something in this program panicked, see its log; start it again";
        Self::new(Code::Software, anyhow!(error).context(text))
    }
}

/// Resolves when a cell ends that nobody stopped: without it the process does nothing.
pub(crate) async fn lost(cell: &Cell) -> Failure {
    match cell.closed().await {
        Err(error) => error.into(),
        Ok(()) => std::future::pending().await, // whoever stopped it knows
    }
}

impl From<JobError> for Failure {
    fn from(error: JobError) -> Self {
        let absent = |source: &io::Error| source.kind() == io::ErrorKind::NotFound;
        let is_absent = matches!(&error, JobError::Read { source, .. } if absent(source));
        let code = if is_absent { Code::NoInput } else { Code::Data };
        Self::new(code, error)
    }
}

impl From<SubmitError> for Failure {
    fn from(error: SubmitError) -> Self {
        if let SubmitError::Job(error) = error {
            return error.into();
        }
        let code = if error.is_the_jobs_fault() { Code::Data } else { Code::CannotCreate };
        Self::new(code, error)
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        let code = match &error {
            ReadError::Read { .. } => Code::NoInput,
            ReadError::NotText { .. } | ReadError::Mistakes { .. } | _ => Code::Data,
        };
        Self::new(code, error)
    }
}

impl From<ProvisionError> for Failure {
    fn from(error: ProvisionError) -> Self {
        let code = match &error {
            ProvisionError::Project { .. } => Code::Usage,
            ProvisionError::Ledger { .. } | ProvisionError::RootExpired { .. } => Code::Data,
            ProvisionError::Write { .. } => Code::CannotCreate,
            ProvisionError::CustomCa { .. } => Code::NoInput,
            ProvisionError::Issue { .. }
            | ProvisionError::Unacceptable { .. }
            | ProvisionError::Root(_)
            | _ => Code::Software,
        };
        Self::new(code, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_gives_no_kit_is_told_of_both_ways_to_give_one() {
        use clap::CommandFactory as _;
        let said = |words: &[&str]| {
            // Whoever runs the tests may have set the variable.
            let command = crate::arguments::Arguments::command();
            let command = command.mut_subcommand("job", |job| {
                job.mut_subcommand("show", |show| show.mut_arg("kit", |kit| kit.env(None)))
            });
            with_other_way(command.try_get_matches_from(words).unwrap_err()).to_string()
        };
        let both = said(&["locule", "job", "show", "4f1c"]);
        assert!(both.contains("--kit <ADMIN_KIT>") && both.contains("LOCULE_ADMIN_KIT"), "{both}");
        for other in [&["locule", "job", "show", "--kit", "kit"][..], &["locule", "sign", "job"]] {
            let said = said(other);
            assert!(said.contains("were not provided") && !said.contains("LOCULE_ADMIN_KIT"), "{said}");
        }
    }

    #[test]
    fn each_cause_is_shown_once() {
        let error = anyhow!("no such file").context("cannot read a.json: no such file").context("kit");
        assert_eq!(Failure::new(Code::Config, error).text(), "kit: cannot read a.json: no such file");
    }

    /// A gate with a mistake in it.
    struct Tripping;

    impl locule_cell::IncomingFilter for Tripping {
        fn check(
            &self,
            _: locule_cell::Now,
            _: &locule_cell::LinkFacts,
            _: &locule_message::Message,
        ) -> Result<(), locule_cell::Refusal> {
            panic!("the mistake")
        }
    }

    #[tokio::test]
    async fn a_cell_that_panics_ends_the_process_as_broken_software() {
        use locule_cell::{CellConfig, Request};
        let network = locule_transport_mem::MemTransport::new();
        let at = locule_transport::Endpoint::parse("mem://server").unwrap();
        let cell = |name: &str| {
            let transports = locule_transport::Transports::new().with(network.clone());
            Cell::builder(CellConfig::new(name.parse().unwrap())).transports(transports)
        };
        let server = cell("server").gate(std::sync::Arc::new(Tripping)).start();
        server.listen(&at).await.unwrap();
        let site = cell("site-1").start();
        site.connect(at);
        let target = server.name().clone();
        assert!(site.wait_linked(&target, std::time::Duration::from_secs(60)).await);
        site.notify(&target, Request::new("task", "x", locule_message::Payload::none())).await.unwrap();
        let failure = lost(&server).await;
        assert_eq!(failure.code, Code::Software);
        assert!(failure.text().contains("panicked"), "{}", failure.text());
    }

    #[test]
    fn an_address_in_use_is_said_so_and_is_no_mistake_of_the_user() {
        let endpoint = locule_transport::Endpoint::parse("grpc://localhost:8002").unwrap();
        let failure = Failure::from(ListenError::AddressInUse { endpoint });
        assert_eq!(failure.code, Code::Unavailable);
        assert!(failure.text().contains("address in use"), "{}", failure.text());
        assert!(failure.text().contains("grpc://localhost:8002"), "{}", failure.text());
    }
}
