//! The child's side.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::Command;

use locule_component::{Verdict, panic_text};

use crate::confine::Confinement;
use crate::wire::{Answer, MAX_ANSWER, MAX_REQUEST, Opening, Request, read_frame, write_frame};

/// A language that checkers may be written in.
pub trait Backend {
    /// What [`Opening::backend`] says for it.
    fn name(&self) -> &'static str;

    /// Reads a checker, and makes sure that it can judge.
    ///
    /// # Errors
    /// Why it cannot, for the operator: with file, line and what to do, as far as these are known.
    fn open(&self, opening: &Opening) -> Result<Box<dyn Reviewer>, String>;
}

/// A checker that was opened.
pub trait Reviewer {
    /// What it is, for the log: the language's version, and how much there is.
    fn about(&self) -> String;

    /// Judges a plan: `document` is JSON, as [`REVIEW_SCHEMA`](crate::REVIEW_SCHEMA) describes it.
    ///
    /// # Errors
    /// Why it could not, for the operator. That refuses the plan.
    fn review(&mut self, document: &str) -> Result<Vec<Verdict>, String>;
}

/// Why a child ended other than by its host's wish.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// It was not started by [`SiteCheckers`](crate::SiteCheckers).
    #[error("this is started by a site for its checkers, and by nobody else")]
    Arguments,
    /// It could not limit itself.
    #[error("cannot limit this process")]
    Confine(#[source] io::Error),
    /// The interpreter could not be started.
    #[error("cannot start {program}")]
    Python {
        /// The interpreter.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The host cannot be understood, or not be answered.
    #[error("cannot talk to the host")]
    Talk(#[source] io::Error),
}

/// Is a checker: confines this process, then answers the host on the two streams until it hangs up.
///
/// `arguments` are those of the command line behind what
/// [`CheckerCommand::args`](crate::CheckerCommand::args) says. A checker in Python takes this process's place.
///
/// # Errors
/// [`ServeError`]. A checker that cannot be opened, or cannot judge, is none: the host is told.
pub fn serve(
    arguments: impl IntoIterator<Item = OsString>,
    mut requests: impl Read,
    mut answers: impl Write,
    backends: &[&dyn Backend],
) -> Result<(), ServeError> {
    let confinement = Confinement::parse(arguments).ok_or(ServeError::Arguments)?;
    confinement.take_effect().map_err(ServeError::Confine)?;
    if let Some(python) = &confinement.python {
        return Err(become_python(python));
    }
    let mut reviewer = None;
    while let Some(request) = read_frame(&mut requests, MAX_REQUEST).map_err(ServeError::Talk)? {
        confinement.next_review().map_err(ServeError::Confine)?;
        let answer = catch_unwind(AssertUnwindSafe(|| answer(&request, backends, &mut reviewer)))
            .unwrap_or_else(|panic| Answer::Failed(format!("panicked: {}", panic_text(&*panic))));
        write_frame(&mut answers, &encode(&answer)).map_err(ServeError::Talk)?;
    }
    Ok(())
}

fn answer(request: &[u8], backends: &[&dyn Backend], reviewer: &mut Option<Box<dyn Reviewer>>) -> Answer {
    let request = match serde_json::from_slice(request) {
        Ok(request) => request,
        Err(error) => return Answer::Failed(format!("not a request: {error}")),
    };
    match (request, reviewer) {
        (Request::Open(opening), reviewer @ None) => {
            let Some(backend) = backends.iter().find(|backend| backend.name() == opening.backend) else {
                return Answer::Failed(format!(
                    "this program was built without checkers in {}",
                    opening.backend
                ));
            };
            match backend.open(&opening) {
                Ok(opened) => {
                    let about = opened.about();
                    *reviewer = Some(opened);
                    Answer::Ready { about }
                }
                Err(why) => Answer::Failed(why),
            }
        }
        (Request::Review(document), Some(reviewer)) => match reviewer.review(document.get()) {
            Ok(verdicts) => Answer::Verdicts(verdicts),
            Err(why) => Answer::Failed(why),
        },
        (Request::Open(_), Some(_)) | (Request::Review(_), None) => {
            Answer::Failed("expected `open` once and then `review`".to_owned())
        }
    }
}

fn encode(answer: &Answer) -> Vec<u8> {
    let failed = |why: String| serde_json::to_vec(&Answer::Failed(why)).unwrap_or_default();
    match serde_json::to_vec(answer) {
        Ok(body) if body.len() <= MAX_ANSWER => body,
        Ok(body) => failed(format!("the verdicts have {} bytes, more than {MAX_ANSWER}", body.len())),
        Err(error) => failed(error.to_string()),
    }
}

/// What checkers in Python import, and the program that runs one.
const PYTHON_HOST: &str = concat!(include_str!("nvflare_names.py"), "\n", include_str!("python_host.py"));

/// Gives this process to an interpreter; comes back only if that failed.
fn become_python(python: &Path) -> ServeError {
    let source = Command::new(python)
        .args(["-I", "-B", "-X", "utf8", "-c", PYTHON_HOST])
        .env_clear()
        .env("OPENBLAS_NUM_THREADS", "1") // no child may start threads: they count as processes
        .env("OMP_NUM_THREADS", "1")
        .exec();
    ServeError::Python { program: python.display().to_string(), source }
}
