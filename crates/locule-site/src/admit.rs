//! What the site's own policies say of jobs and orders.

use std::path::Path;
use std::sync::Arc;

use locule_assembly::{Admission, NotAdmitted};
use locule_component::ScopeNames;
use locule_identity::Identity;
use locule_protocol::{AdminBody, AdminContext, Person};
use locule_rights::Who;
use serde_json::{Value as Json, json};

use crate::folder::RunFolders;
use crate::parent::Parent;

impl RunFolders {
    /// Whether the site takes this job, from those who signed it. Blocking.
    pub(crate) fn admit(&self, app_dir: &Path, meta: &Json, signers: &[Identity]) -> Result<(), NotAdmitted> {
        let signers: Vec<Who<'_>> = signers.iter().map(of_certificate).collect();
        self.logged(self.admission().decide(app_dir, meta, &signers, true))
    }

    fn permit(&self, context: &AdminContext, right: &str) -> Result<(), NotAdmitted> {
        self.logged(self.admission().order(right, who(&context.user), who(&context.submitter)))
    }

    fn admission(&self) -> Admission<'_> {
        Admission { kit: &self.kit, participant: &self.site, org: &self.org, strict: self.require_signed }
    }

    /// The operator reads what is wrong with the site's own files; others do not.
    fn logged<T>(&self, decided: Result<T, NotAdmitted>) -> Result<T, NotAdmitted> {
        if let Some(mistake) = decided.as_ref().err().and_then(NotAdmitted::own_mistake) {
            tracing::error!(
                site = self.site,
                error = mistake,
                "site admits nobody: its own policy cannot be used"
            );
        }
        decided
    }
}

impl Parent {
    /// Whether the user behind an order may give it here. Asked only of orders that come with a console command and
    /// call for it; what the server does by itself has nobody behind it.
    ///
    /// # Source
    /// nvflare 2.9.0, `nvflare.private.fed.client.admin`.
    pub(crate) async fn permit(self: &Arc<Self>, context: &AdminContext) -> Result<(), String> {
        let Some(right) = context.admin_command.clone().filter(|_| context.require_authz) else {
            return Ok(());
        };
        let (this, context) = (Arc::clone(self), context.clone());
        let permitted = tokio::task::spawn_blocking(move || this.folders.permit(&context, &right)).await;
        permitted.map_err(|_| "the site cannot judge this".to_owned())?.map_err(|refused| refused.to_string())
    }

    /// The site's privacy scopes, by name.
    ///
    /// # Source
    /// nvflare 2.9.0, `nvflare.private.fed.client.training_cmds` (`ScopeInfoProcessor`).
    pub(crate) async fn scopes(self: &Arc<Self>) -> Result<AdminBody, String> {
        let this = Arc::clone(self);
        let scopes = tokio::task::spawn_blocking(move || {
            let scopes = this.folders.admission().scopes();
            this.folders.logged(scopes)
        });
        let scopes = scopes.await.map_err(|_| "the site cannot tell".to_owned())?;
        let scopes = scopes.map_err(|refused| refused.to_string())?;
        let mut names: Vec<&str> = scopes.iter().flat_map(ScopeNames::names).collect();
        names.sort_unstable();
        let default = scopes.as_ref().and_then(ScopeNames::default_scope).unwrap_or_default();
        Ok(AdminBody::json(&json!({ "scope_names": names, "default_scope": default })))
    }
}

fn who(person: &Person) -> Who<'_> {
    Who { name: &person.name, org: &person.org, role: &person.role }
}

fn of_certificate(identity: &Identity) -> Who<'_> {
    Who {
        name: &identity.common_name,
        org: identity.organization.as_deref().unwrap_or_default(),
        role: identity.role.as_deref().unwrap_or_default(),
    }
}
