//! What the server orders its sites to do for a job.

use std::sync::Arc;

use locule_cell::{Request, RequestError};
use locule_component::Event;
use locule_fobs::{Map, Value};
use locule_message::{Fqcn, ReturnCode};
use locule_protocol::{
    AdminBody, AdminCommand, AdminContext, AdminReply, AdminRequest, DecodeError, EncodeError, Person,
    Refusal, Shortage, server_context,
};
use uuid::Uuid;

use crate::admit::one_line;
use crate::record::Submitter;
use crate::server::Shared;

/// Gives orders in the name of one job.
#[derive(Debug, Clone)]
pub(crate) struct Orders {
    pub(crate) shared: Arc<Shared>,
    pub(crate) submitter: Submitter,
}

/// Why an order was not carried out, as a sentence without the site's name.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OrderError {
    #[error("{0}")]
    Request(#[from] RequestError),
    #[error("its answer is not understood: {0}")]
    Answer(#[from] DecodeError),
    #[error("the order cannot be encoded: {0}")]
    Encode(#[from] EncodeError),
    #[error("{0}")]
    Refused(String),
    /// It lacks what a job needs; for how long, if it says so.
    #[error("{0}")]
    Short(String, Option<Shortage>),
    /// Its checkers refuse the app.
    #[error("{reason}")]
    Unsafe { reason: String, refusals: Vec<Refusal> },
}

impl OrderError {
    /// Whether the site has gone: nothing leads to it, or no longer.
    pub(crate) fn is_of_absence(&self) -> bool {
        match self {
            Self::Request(RequestError::Unreachable | RequestError::LinkLost) => true,
            Self::Request(RequestError::Returned { code, .. }) => {
                matches!(code, ReturnCode::TargetUnreachable | ReturnCode::CommError)
            }
            Self::Request(_)
            | Self::Answer(_)
            | Self::Encode(_)
            | Self::Refused(_)
            | Self::Short(..)
            | Self::Unsafe { .. } => false,
        }
    }
}

impl Orders {
    /// Whether the site has what the job needs: the reservation that it gives.
    pub(crate) async fn check_resource(
        &self,
        site: &Fqcn,
        job_id: &str,
        meta: &Map,
        spec: &Map,
    ) -> Result<String, OrderError> {
        let (job_id, meta, spec) = (job_id.to_owned(), meta.clone(), spec.clone());
        let command = AdminCommand::CheckResource { job_id, meta, spec };
        match self.give(site, command, Some("check_resources"), false).await?.body {
            AdminBody::Resource { enough: true, token, .. } => Ok(token),
            AdminBody::Resource { enough: false, token, shortage } => {
                let reason = if token.is_empty() { "it has too few resources" } else { &token };
                Err(OrderError::Short(one_line(reason), shortage))
            }
            AdminBody::Text(text) => Err(OrderError::Refused(one_line(&text))),
            AdminBody::Code(_) => Err(OrderError::Refused("its answer is not one to this order".into())),
        }
    }

    /// Gives the reservation back.
    pub(crate) async fn cancel_resource(
        &self,
        site: &Fqcn,
        job_id: &str,
        token: String,
    ) -> Result<(), OrderError> {
        let command = AdminCommand::CancelResource { job_id: job_id.to_owned(), token, spec: Map::new() };
        self.give(site, command, None, false).await.map(|_| ())
    }

    /// Gives the site its app.
    pub(crate) async fn deploy(
        &self,
        site: &Fqcn,
        job_id: &str,
        app_name: &str,
        meta: &Map,
        zip: bytes::Bytes,
    ) -> Result<(), OrderError> {
        let (job_id, app_name, meta) = (job_id.to_owned(), app_name.to_owned(), meta.clone());
        let command = AdminCommand::Deploy { job_id, app_name, meta, zip };
        self.give(site, command, Some("submit_job"), true).await.map(|_| ())
    }

    /// Asks what the site's checkers would say of an app: its verdict in a word, a text, and what it refuses.
    pub(crate) async fn check_job(
        &self,
        site: &Fqcn,
        job_id: &str,
        app_name: &str,
        meta: &Map,
        zip: bytes::Bytes,
    ) -> Result<(String, String, Vec<Refusal>), OrderError> {
        let (job_id, app_name, meta) = (job_id.to_owned(), app_name.to_owned(), meta.clone());
        let command = AdminCommand::CheckJob { job_id, app_name, meta, zip };
        // Who may submit a job may ask about it; a site's policy knows no right of its own for that.
        let answer = self.give(site, command, Some("submit_job"), true).await?;
        let document = answer.json().unwrap_or_default();
        let text =
            |key: &str| document.get(key).and_then(|text| text.as_str()).unwrap_or_default().to_owned();
        Ok((text("verdict"), text("text"), answer.refusals))
    }

    /// Starts the site's half of the job.
    pub(crate) async fn start(
        &self,
        site: &Fqcn,
        job_id: &str,
        meta: &Map,
        spec: &Map,
        token: String,
    ) -> Result<(), OrderError> {
        let (job_id, meta, spec) = (job_id.to_owned(), meta.clone(), spec.clone());
        self.give(site, AdminCommand::StartJob { job_id, meta, spec, token }, None, false).await.map(|_| ())
    }

    /// Stops the site's half of the job.
    pub(crate) async fn abort(&self, site: &Fqcn, job_id: &str) -> Result<(), OrderError> {
        self.give(site, AdminCommand::Abort { job_id: job_id.to_owned() }, None, false).await.map(|_| ())
    }

    async fn give(
        &self,
        site: &Fqcn,
        command: AdminCommand,
        admin_command: Option<&str>,
        require_authz: bool,
    ) -> Result<AdminReply, OrderError> {
        let mut order = AdminRequest::new(Uuid::from_u128(rand::random()).to_string(), command);
        let submitter = Person {
            name: self.submitter.name.clone(),
            org: self.submitter.org.clone(),
            role: self.submitter.role.clone(),
        };
        order.context = AdminContext {
            peer: Some(server_context("server", None)),
            admin_command: admin_command.map(str::to_owned),
            require_authz,
            user: submitter.clone(),
            submitter,
            event_id: None,
        };
        let parts = order.to_parts()?;
        let mut request = Request::new(AdminRequest::CHANNEL, AdminRequest::TOPIC, parts.payload)
            .timeout(self.shared.settings.order_timeout);
        request.headers = parts.headers;
        self.shared.notice(&Event::BeforeSendAdminCommand { site: site.leaf() });
        let reply = self.shared.cell.request(site, request).await?.into_ok()?;
        let answer = AdminReply::from_parts(&reply.headers, &reply.payload)?;
        match (answer.ok, &answer.body) {
            (true, _) => Ok(answer),
            (false, AdminBody::Text(text)) if !answer.refusals.is_empty() => {
                Err(OrderError::Unsafe { reason: one_line(text), refusals: answer.refusals })
            }
            (false, AdminBody::Text(text)) => Err(OrderError::Refused(one_line(text))),
            (false, AdminBody::Resource { .. } | AdminBody::Code(_)) => {
                Err(OrderError::Refused("it gave no reason".into()))
            }
        }
    }
}

/// JSON as the object format has it; nothing if it is no object.
pub(crate) fn to_map(json: &serde_json::Value) -> Map {
    Value::from(json).as_map().cloned().unwrap_or_default()
}
