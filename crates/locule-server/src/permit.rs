//! What the server's own policies say of a job.

use std::sync::Arc;

use locule_assembly::{Admission, NotAdmitted};
use locule_rights::Who;

use crate::intake::Intake;
use crate::record::{SERVER, Submitter};
use crate::server::Shared;

/// Whether the server takes its half of a job: its privacy scope, and the code that it brings. Whether the submitter
/// may submit jobs at all was asked when the job was taken in.
pub(crate) async fn permit(shared: &Arc<Shared>, intake: &Arc<Intake>) -> Result<(), String> {
    let (shared, intake) = (Arc::clone(shared), Arc::clone(intake));
    let judged = tokio::task::spawn_blocking(move || {
        let org = shared.signer.identity().organization.clone().unwrap_or_default();
        let admission = Admission {
            kit: &shared.kit,
            participant: SERVER,
            org: &org,
            strict: shared.settings.require_signed_jobs,
        };
        let Submitter { name, org, role } = &intake.submitter;
        let submitter = [Who { name, org, role }];
        admission.decide(&intake.run_dir.join("app_server"), &intake.document, &submitter, false)
    });
    let judged = judged.await.map_err(|error| error.to_string())?;
    if let Some(mistake) = judged.as_ref().err().and_then(NotAdmitted::own_mistake) {
        tracing::error!(error = mistake, "server takes no jobs: its own policy cannot be used");
    }
    judged.map_err(|refused| refused.to_string())
}
