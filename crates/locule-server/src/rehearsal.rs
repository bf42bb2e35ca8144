//! Asks the server's own checkers and those of the sites about a job that nobody has submitted yet.

use std::sync::Arc;

use futures_util::future::join_all;
use locule_protocol::Refusal;
use serde::Serialize;

use crate::admit::{one_line, refusals_of};
use crate::intake::{Intake, Package, SubmitError};
use crate::orders::{Orders, to_map};
use crate::record::SERVER;
use crate::server::{Server, blocking};

/// What one participant says of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct JobCheck {
    /// The site, or `server`.
    pub site: String,
    /// `allowed`, `refused`, `mistakes`, `cannot-judge`; `no-answer` if it gave none.
    pub verdict: String,
    /// A sentence, or the mistakes.
    pub text: String,
    /// What its checkers refuse, as far as the submitter may know it.
    pub refusals: Vec<Refusal>,
}

impl Server {
    /// What the server and every site of a job that is there would say of it; its own word comes first. Nothing is
    /// submitted, and the package stays where it is. Sites may refuse to answer.
    ///
    /// # Errors
    /// [`SubmitError`] if the package is no job.
    pub async fn check_package(&self, package: Package) -> Result<Vec<JobCheck>, SubmitError> {
        let job_id = uuid::Builder::from_random_bytes(rand::random()).into_uuid().to_string();
        let (shared, id, submitter) = (Arc::clone(&self.shared), job_id.clone(), package.submitter.clone());
        let (looked, own) = blocking(move || {
            let looked = Intake::look(&shared, &id, &package)?;
            let own = looked
                .job
                .meta
                .app_of(SERVER)
                .map(|app| shared.host.check(&id, &looked.job.app_dir(app), looked.document.clone()));
            Ok((looked, own))
        })
        .await?;
        let own = own.map(|(verdict, text, refusals)| JobCheck {
            site: SERVER.to_owned(),
            verdict: verdict.to_owned(),
            text,
            refusals,
        });
        let orders = Orders { shared: Arc::clone(&self.shared), submitter };
        let meta = to_map(&looked.document);
        let sites = self.shared.sites();
        let asked = sites.iter().filter_map(|(site, cell)| Some((site, cell, looked.job.meta.app_of(site)?)));
        let asked = asked.map(async |(site, cell, app)| {
            let zip = looked.apps.get(app).cloned().unwrap_or_default();
            let answer = orders.check_job(cell, &job_id, app, &meta, zip).await;
            let (verdict, text, refusals) =
                answer.unwrap_or_else(|error| ("no-answer".to_owned(), error.to_string(), Vec::new()));
            let text = text.lines().map(one_line).collect::<Vec<_>>().join("\n");
            JobCheck {
                site: site.clone(),
                verdict: one_line(&verdict),
                text,
                refusals: refusals_of(site, refusals),
            }
        });
        Ok(own.into_iter().chain(join_all(asked).await).collect())
    }
}
