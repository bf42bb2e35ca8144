//! From the command line to a console that is logged in, and from its errors to what a person can do.

use std::path::Path;
use std::time::Duration;

use anyhow::anyhow;
use locule_cell::RequestError;
use locule_console::{AskError, Console, FetchError, FindError, LogInError, ParcelError, SendError};
use locule_identity::Usage;
use locule_kit::AdminKit;
use locule_message::ReturnCode;

pub(super) use crate::arguments::AtServer;
use crate::commands::site::register_code;
use crate::exit::{Code, Failure};
use crate::network::Network;
use crate::wire::{self, Means};

/// An administrator's kit, to log in with.
pub(super) struct Desk {
    kit: AdminKit,
    wait: Option<Duration>,
}

impl Desk {
    pub(super) fn open(at: &AtServer) -> Result<Self, Failure> {
        let kit = AdminKit::open(&at.kit)?;
        Ok(Self { kit, wait: at.wait.map(Duration::from_secs) })
    }

    pub(super) fn kit_folder(&self) -> &Path {
        self.kit.workspace.root()
    }

    pub(super) fn credentials(&self) -> Result<Means, Failure> {
        wire::credentials(&self.kit.files, Usage::Client)
    }

    /// Who asks.
    pub(super) fn user(&self) -> Result<String, Failure> {
        Ok(self.credentials()?.0.identity().common_name.clone())
    }

    pub(super) async fn log_in(&self) -> Result<Console, Failure> {
        Box::pin(wire::console(&self.kit, self.wait, &Network::outside())).await.map_err(|failure| {
            let server = format!("server \"{}\" at {}", self.kit.server_identity, self.kit.server);
            Failure { error: failure.error.context(server), ..failure }
        })
    }
}

/// An error with what to do about it.
pub(super) fn with_remedy(code: Code, error: impl Into<anyhow::Error>, remedy: &str) -> Failure {
    let error: anyhow::Error = error.into();
    if remedy.is_empty() {
        return Failure::new(code, error);
    }
    let text = Failure::new(code, error).text();
    Failure::new(code, anyhow!("{}; {remedy}", text.trim_end_matches('.')))
}

impl From<LogInError> for Failure {
    fn from(error: LogInError) -> Self {
        let (code, remedy) = match &error {
            LogInError::Unreachable { .. } => (
                Code::Unavailable,
                "is it started, and do address and port of the kit lead to it? --wait waits longer",
            ),
            LogInError::NotReady { .. } => {
                (Code::Unavailable, "its operator can read more in its log; --wait tries for longer")
            }
            LogInError::NotLetIn { .. } => (
                Code::NoPermission,
                "check that the kit is of the same project as the server's, that no certificate has expired, and \
                 that nothing else answers there",
            ),
            LogInError::Register(cause) => {
                (register_code(cause), "is the kit of an administrator of this project?")
            }
            LogInError::Rejected(_) => (Code::NoPermission, ""),
            LogInError::Sign(_) => (Code::Config, ""),
            LogInError::Ask(cause) => (code_of(cause), ""),
            _ => (Code::Unavailable, ""),
        };
        with_remedy(code, error, remedy)
    }
}

/// The exit code for a command that was not carried out.
fn code_of(error: &AskError) -> Code {
    match error {
        AskError::Request(RequestError::Refused { code, .. } | RequestError::Returned { code, .. })
            if *code == ReturnCode::Unauthenticated =>
        {
            Code::NoPermission
        }
        AskError::NotAllowed { .. } => Code::NoPermission,
        AskError::UnknownJob => Code::NoInput,
        AskError::BadJob { .. } => Code::Data,
        AskError::Refused { .. } => Code::JobFailed,
        AskError::Request(_) | AskError::SessionOver { .. } | AskError::Unsupported { .. } => {
            Code::Unavailable
        }
        AskError::NotUnderstood | _ => Code::Unavailable,
    }
}

pub(super) fn code_of_sending(error: &SendError) -> Code {
    match error {
        SendError::Ask(error) => code_of(error),
        SendError::Read(_) => Code::NoInput,
        SendError::AnswerLost(_) | SendError::BrokenOff { .. } | _ => Code::Unavailable,
    }
}

pub(super) fn failed(error: AskError) -> Failure {
    let remedy = match &error {
        AskError::Request(error) if error.is_retryable() => "the same command may be given again",
        AskError::SessionOver { .. } => "the same command may be given again: it logs in anew",
        AskError::Unsupported { .. } => "it is a server of nvflare, or of an older version",
        AskError::NotAllowed { .. } => {
            "what each role may do says local/authorization.json of the server's kit"
        }
        AskError::Request(_)
        | AskError::UnknownJob
        | AskError::BadJob { .. }
        | AskError::Refused { .. }
        | AskError::NotUnderstood
        | _ => "",
    };
    with_remedy(code_of(&error), error, remedy)
}

/// As [`failed`], of a command about one job.
pub(super) fn failed_of(error: AskError, id: &str, kit: &Path) -> Failure {
    let kit = kit.display();
    let running = matches!(&error, AskError::Refused { status, .. } if status == "job_running");
    let failure = if running {
        let remedy = format!("wait for its end (locule job watch {id} --kit {kit}), or abort it");
        with_remedy(code_of(&error), error, &remedy)
    } else if matches!(error, AskError::UnknownJob) {
        with_remedy(code_of(&error), error, &format!("which there are says: locule job list --kit {kit}"))
    } else {
        failed(error)
    };
    Failure { error: failure.error.context(format!("job {id}")), ..failure }
}

pub(super) fn not_found(error: FindError) -> Failure {
    if let FindError::Ask(error) = error {
        return failed(error);
    }
    let (code, remedy) = match &error {
        FindError::Several { .. } => (Code::Usage, "give more of the id"),
        FindError::None(_) | FindError::Ask(_) | _ => {
            (Code::NoInput, "which there are says: locule job list")
        }
    };
    with_remedy(code, error, remedy)
}

pub(super) fn not_fetched(error: FetchError, id: &str, kit: &Path) -> Failure {
    let (code, remedy) = match error {
        FetchError::Ask(error) => return failed_of(error, id, kit),
        FetchError::Occupied { .. } => (Code::CannotCreate, "give another --dir, or remove it"),
        FetchError::Write { .. } => (Code::CannotCreate, "give another --dir, or make room there"),
        FetchError::Unpack { .. } => (Code::Data, "--max-size lets more in"),
        FetchError::Source { .. } => (Code::Unavailable, "--max-size lets more in"),
        FetchError::Offer | _ => (Code::Unavailable, ""),
    };
    let failure = with_remedy(code, error, remedy);
    Failure { error: failure.error.context(format!("job {id}")), ..failure }
}

pub(super) fn not_packed(error: ParcelError, folder: &Path, kit: &Path) -> Failure {
    if let ParcelError::Job(error) = error {
        return Failure::from(error).about(folder);
    }
    let (code, remedy) = match &error {
        ParcelError::Signature(_) => {
            let (folder, kit) = (folder.display(), kit.display());
            let remedy = format!(
                "it was changed after it was signed, or is another project's; sign it again if you know why: \
                 locule sign {folder} --kit {kit}"
            );
            (Code::Data, remedy)
        }
        ParcelError::Scratch(_) | ParcelError::Sign(_) => (Code::CannotCreate, String::new()),
        ParcelError::Job(_) | ParcelError::Pack(_) | ParcelError::Unpack(_) | _ => {
            (Code::Data, String::new())
        }
    };
    with_remedy(code, error, &remedy).about(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_refuses_is_followed_by_what_to_do() {
        let running = |status: &str, reason: &str| AskError::Refused {
            status: status.to_owned(),
            reason: reason.to_owned(),
        };
        let said = failed_of(running("job_running", "it is running."), "4f1c", Path::new("kit")).text();
        assert_eq!(
            said,
            "job 4f1c: the server refuses: it is running; wait for its end (locule job watch 4f1c --kit kit), or \
             abort it"
        );
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        let full = FetchError::Write { path: "out".into(), source: full };
        assert!(not_fetched(full, "4f1c", Path::new("kit")).text().contains("give another --dir"));
    }
}
