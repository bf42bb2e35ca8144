//! Which sites a command is about, and what they are asked for it.

use futures_util::future::join_all;
use locule_cell::Request;
use locule_protocol::{
    AdminBody, AdminCommand, AdminContext, AdminReply, AdminRequest, Person, ReplyDocument, Status,
    server_context,
};
use locule_server::{SiteThere, Submitter};
use uuid::Uuid;

use crate::desk::{Call, not_authorized};
use locule_rights::Who;

/// Longest answer of a site that is passed on, in bytes.
const LONGEST_ANSWER: usize = 256 << 10;

/// Whom a command is about.
#[derive(Debug)]
pub(crate) struct Targets {
    pub(crate) server: bool,
    /// Whether it may be about sites; there may be none.
    pub(crate) clients: bool,
    pub(crate) sites: Vec<SiteThere>,
}

/// What a site said.
#[derive(Debug)]
pub(crate) enum Word {
    Ok(String),
    Error(String),
    /// It did not answer in time.
    None,
}

impl Call {
    /// Reads `server|client|all [names]`, and makes sure that the user has the right there.
    ///
    /// # Source
    /// nvflare 2.9.0, `nvflare.private.fed.server.cmd_utils`. Stricter: there a server leaves it to each site
    /// whether the user may.
    pub(crate) fn targets(&self, words: &[String], submitter: &Submitter) -> Result<Targets, ReplyDocument> {
        let invalid = |text: String| ReplyDocument::error(Status::InvalidTarget, text.clone(), text);
        let (server, clients, names) = match words.split_first() {
            None => return Err(invalid("missing target type (server or client)".into())),
            Some((kind, names)) => match kind.as_str() {
                "server" => (true, false, &[][..]),
                "client" => (false, true, names),
                "all" => (true, true, &[][..]),
                other => return Err(invalid(format!("unknown target type {}", other.escape_debug()))),
            },
        };
        let mut sites = if clients { self.desk.server.sites() } else { Vec::new() };
        let unknown: Vec<&str> = names
            .iter()
            .filter(|name| !sites.iter().any(|site| site.name == **name))
            .map(String::as_str)
            .collect();
        if !unknown.is_empty() {
            return Err(invalid(format!("invalid client(s): {}", unknown.join(" ").escape_debug())));
        }
        sites.retain(|site| names.is_empty() || names.contains(&site.name));
        if !server && sites.is_empty() {
            return Err(invalid("no clients available".into()));
        }
        let may = |org: &str| self.desk.rights.allow(self.right(), self.who(), who(submitter), org);
        if (server && !may(&self.desk.org)) || !sites.iter().all(|site| may(&site.organization)) {
            return Err(not_authorized());
        }
        Ok(Targets { server, clients, sites })
    }

    fn right(&self) -> &'static str {
        match self.command.name {
            // Between programs; seen by those who may see the other.
            "admin_check_status" => "check_status",
            name => name,
        }
    }

    /// Asks sites, all at once; what each said, in their order.
    pub(crate) async fn ask(
        &self,
        sites: &[SiteThere],
        submitter: &Submitter,
        command: &AdminCommand,
    ) -> Vec<(String, Word)> {
        let asked = sites.iter().map(async |site| {
            let word = self.ask_one(site, submitter, command.clone()).await;
            (site.name.clone(), word)
        });
        join_all(asked).await
    }

    async fn ask_one(&self, site: &SiteThere, submitter: &Submitter, command: AdminCommand) -> Word {
        let mut order = AdminRequest::new(Uuid::from_u128(rand::random()).to_string(), command);
        let person = |who: Who<'_>| Person {
            name: who.name.to_owned(),
            org: who.org.to_owned(),
            role: who.role.to_owned(),
        };
        order.context = AdminContext {
            peer: Some(server_context("server", None)),
            admin_command: Some(self.right().to_owned()),
            require_authz: true,
            user: person(self.who()),
            submitter: person(who(submitter)),
            event_id: None,
        };
        let Ok(parts) = order.to_parts() else { return Word::None };
        let mut request = Request::new(AdminRequest::CHANNEL, AdminRequest::TOPIC, parts.payload);
        request.headers = parts.headers;
        let reply = self.desk.cell.request(&site.cell, request.timeout(self.timeout)).await;
        let Ok(reply) = reply.and_then(locule_cell::Reply::into_ok) else { return Word::None };
        match AdminReply::from_parts(&reply.headers, &reply.payload) {
            Ok(AdminReply { ok, body: AdminBody::Text(mut text), .. }) => {
                text.truncate(text.floor_char_boundary(LONGEST_ANSWER));
                if ok { Word::Ok(text) } else { Word::Error(text) }
            }
            Ok(AdminReply { body: AdminBody::Resource { .. } | AdminBody::Code(_), .. }) | Err(_) => {
                Word::Error("bad reply".into())
            }
        }
    }
}

impl Word {
    /// The document that a site answered with, or `error` as one.
    pub(crate) fn document(&self) -> Result<serde_json::Value, String> {
        match self {
            Self::Ok(text) => serde_json::from_str(text).map_err(|error| format!("Bad replies: {error}")),
            Self::Error(text) => Err(text.clone()),
            Self::None => Err("No replies".into()),
        }
    }
}

pub(crate) fn who(submitter: &Submitter) -> Who<'_> {
    Who { name: &submitter.name, org: &submitter.org, role: &submitter.role }
}
