//! Whether a participant takes a job at all: its privacy scopes, and the rights of those who stand for the job.

use std::path::Path;
use std::time::SystemTime;

use locule_audit::Entry;
use locule_component::{ScopeNames, ScopeNotAllowed, one_line, with_causes};
use locule_config::Diagnostics;
use locule_kit::{KitError, Workspace};
use locule_rights::{NotAuthorized, Rights, RightsError, Who};
use serde_json::Value as Json;

use crate::AssemblyError;

/// Decides by a participant's own policies, `local/privacy.json` and `local/authorization.json`, whether it takes a
/// job, and whether somebody may give it an order.
///
/// Both files are read for each decision, so that an edit counts from then on. One that cannot be understood admits
/// nobody.
#[derive(Debug, Clone, Copy)]
pub struct Admission<'a> {
    /// The participant's kit.
    pub kit: &'a Workspace,
    /// `server`, or the name of the site.
    pub participant: &'a str,
    /// Its organisation; empty if nobody said.
    pub org: &'a str,
    /// Whether it is one of a federation that takes signed jobs only. There the policy that provisioning gives to
    /// everybody holds where no file says otherwise; elsewhere, without a file, everything is allowed.
    pub strict: bool,
}

impl Admission<'_> {
    /// Whether the participant takes a job with this meta, whose app lies unpacked in `app_dir`. Blocking.
    ///
    /// `stands_for` are those who signed the app. If nobody did, it is the submitter whom the meta names. All of them
    /// need the right `submit_job` if `submits`, and `byoc` if the app brings code.
    ///
    /// # Errors
    /// [`NotAdmitted`], with the sentence that the submitter is to read.
    ///
    /// # Source
    /// nvflare 2.9.0, `nvflare.private.fed.utils.app_deployer`. There a server that sends an app says in a header
    /// whether the site is to ask about `submit_job`; here the site always does.
    pub fn admit(
        &self,
        app_dir: &Path,
        meta: &Json,
        stands_for: &[Who<'_>],
        submits: bool,
    ) -> Result<(), NotAdmitted> {
        self.scope(meta)?;
        let Some(rights) = self.rights()? else { return Ok(()) };
        let text = |key: &str| meta.get(key).and_then(Json::as_str).unwrap_or_default();
        let submitter =
            [Who { name: text("submitter_name"), org: text("submitter_org"), role: text("submitter_role") }];
        let people = if stands_for.is_empty() { &submitter } else { stands_for };
        for who in people {
            if submits {
                rights.demand("submit_job", *who, *who, self.org)?;
            }
        }
        let byoc = brings_code(app_dir, meta, self.participant);
        if byoc && !people.iter().all(|who| rights.allow("byoc", *who, *who, self.org)) {
            return Err(NotAdmitted::Byoc);
        }
        Ok(())
    }

    /// Whether the participant has the privacy scope that a job with this meta asks for. Blocking.
    ///
    /// # Errors
    /// [`NotAdmitted::Scope`], and as [`Admission::scopes`].
    pub fn scope(&self, meta: &Json) -> Result<(), NotAdmitted> {
        if let Some(scopes) = self.scopes()? {
            scopes.effective(scope_of(meta))?;
        }
        Ok(())
    }

    /// [`Admission::admit`], and a refusal is noted in the kit's audit log. Blocking.
    ///
    /// # Errors
    /// As [`Admission::admit`]. That a note cannot be written is told to the log only: the job is refused already.
    pub fn decide(
        &self,
        app_dir: &Path,
        meta: &Json,
        stands_for: &[Who<'_>],
        submits: bool,
    ) -> Result<(), NotAdmitted> {
        let decided = self.admit(app_dir, meta, stands_for, submits);
        if let Err(refused) = &decided
            && let Err(error) = self.note(meta, refused)
        {
            tracing::error!(participant = self.participant, %error, "a refusal is not in the audit log");
        }
        decided
    }

    fn note(&self, meta: &Json, refused: &NotAdmitted) -> Result<(), AssemblyError> {
        let job = meta.get("job_id").and_then(Json::as_str).unwrap_or_default();
        let why = refused.own_mistake().unwrap_or_else(|| refused.to_string());
        let note = one_line(&format!("job {job} is not admitted: {why}"));
        crate::audit_log(self.kit)?.append(&Entry::note(note), SystemTime::now())?;
        Ok(())
    }

    /// Whether this user may give the order that the right is named for; `submitter` is that of the job that it is
    /// about, if any. Blocking.
    ///
    /// # Errors
    /// [`NotAdmitted`], with the sentence that the user is to read.
    ///
    /// # Source
    /// nvflare 2.9.0, `nvflare.private.fed.client.admin`.
    pub fn order(&self, right: &str, user: Who<'_>, submitter: Who<'_>) -> Result<(), NotAdmitted> {
        match self.rights()? {
            Some(rights) => Ok(rights.demand(right, user, submitter, self.org)?),
            None => Ok(()),
        }
    }

    /// The participant's privacy scopes, by name; nothing if it has no privacy policy. Blocking.
    ///
    /// # Errors
    /// [`NotAdmitted::Kit`] and [`NotAdmitted::Privacy`].
    pub fn scopes(&self) -> Result<Option<ScopeNames>, NotAdmitted> {
        let document = locule_kit::privacy(self.kit)?;
        let scopes = document.map(|document| ScopeNames::from_document(&document));
        scopes.transpose().map_err(NotAdmitted::Privacy)
    }

    /// Nothing where everything is allowed.
    fn rights(&self) -> Result<Option<Rights>, RightsError> {
        let own = Rights::find(&self.kit.local())?;
        Ok(own.or_else(|| self.strict.then(Rights::stock)))
    }
}

/// Why a participant does not take a job or an order.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotAdmitted {
    /// It has no such privacy scope.
    #[error(transparent)]
    Scope(#[from] ScopeNotAllowed),
    /// Somebody lacks the right.
    #[error(transparent)]
    Right(#[from] NotAuthorized),
    /// The app brings code, and somebody who stands for it lacks the right to that.
    #[error("BYOC not permitted")]
    Byoc,
    /// Its privacy policy has mistakes, which concern its operator only.
    #[error("{CLOSED}")]
    Privacy(Diagnostics),
    /// Its privacy policy cannot be read.
    #[error("{CLOSED}")]
    Kit(#[from] KitError),
    /// Its authorization policy cannot be read.
    #[error("{CLOSED}")]
    Rights(#[from] RightsError),
}

const CLOSED: &str = "the participant's own policy cannot be used; its operator can read why in its log";

impl NotAdmitted {
    /// What the participant's operator has to mend, if that is why.
    #[must_use]
    pub fn own_mistake(&self) -> Option<String> {
        match self {
            Self::Scope(_) | Self::Right(_) | Self::Byoc => None,
            Self::Privacy(mistakes) => Some(mistakes.to_string()),
            Self::Kit(error) => Some(with_causes(error)),
            Self::Rights(error) => Some(with_causes(error)),
        }
    }
}

/// The privacy scope that a job asks for; empty if it asks for none.
pub(crate) fn scope_of(meta: &Json) -> &str {
    meta.get("scope").and_then(Json::as_str).unwrap_or_default()
}

/// Whether a job brings code to this participant: a folder `custom`, or a launcher that is to run what the job says.
///
/// # Source
/// nvflare 2.9.0, `nvflare.private.fed.utils.app_authz`.
fn brings_code(app_dir: &Path, meta: &Json, participant: &str) -> bool {
    const OF_JOB: [(&str, &[&str]); 3] = [
        ("docker", &["image", "python_path", "entrypoint"]),
        ("k8s", &["image", "python_path"]),
        ("slurm", &["image", "python_path", "additional_node_command"]),
    ];
    let says = |spec: &str, whose: &str| {
        OF_JOB.iter().any(|(mode, keys)| {
            let asked = &meta[spec][whose][mode];
            keys.iter().any(|key| asked.get(key).is_some_and(|value| !value.is_null()))
        })
    };
    app_dir.join("custom").symlink_metadata().is_ok()
        || says("launcher_spec", "default")
        || says("launcher_spec", participant)
        || says("resource_spec", participant)
}
