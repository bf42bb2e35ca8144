//! What a site says before and beside its jobs: challenge, register, heartbeat, quit, outcomes.

use std::future::Future;
use std::sync::Arc;
use std::time::SystemTime;

use locule_auth::{IssueRefused, Pulse};
use locule_cell::{HandlerError, Incoming, LinkSecurity, Reply};
use locule_component::{Event, Question, with_causes};
use locule_identity::{Party, RegistrationProof as Proof};
use locule_message::{Payload, ReturnCode, key};
use locule_protocol::{
    AuxReply, AuxRequest, ChallengeReply, ChallengeRequest, ClientType, DecodeError, Dialect, EncodeError,
    Heartbeat, HeartbeatReply, NVFLARE_VERSION, OutcomeReport, Parts, Quit, QuitReply, Refusal,
    RegisterReply, RegisterRequest, log_stream, prop, server_context,
};

use crate::book::Entry;
use crate::job::{JobReport, Told};
use crate::life::Signal;
use crate::record::{JobRecord, SiteOutcome};
use crate::server::{Shared, lock, now};

/// Longest text that is kept of an outcome, in bytes.
const LONGEST_REASON: usize = 4096;

/// Registers the handlers on the server's cell.
pub(crate) fn open(shared: &Arc<Shared>) {
    on(shared, ChallengeRequest::CHANNEL, ChallengeRequest::TOPIC, challenge);
    on(shared, RegisterRequest::CHANNEL, RegisterRequest::TOPIC, register);
    on(shared, Heartbeat::CHANNEL, Heartbeat::TOPIC, heartbeat);
    on(shared, Quit::CHANNEL, Quit::TOPIC, quit);
    on(shared, OutcomeReport::CHANNEL, OutcomeReport::TOPIC, outcome);
    on(shared, AuxRequest::CHANNEL, "*", aux);
    on(shared, JobReport::CHANNEL, JobReport::TOPIC, job_report);
}

fn on<F, R>(shared: &Arc<Shared>, channel: &str, topic: &str, handler: F)
where
    F: Fn(Arc<Shared>, Incoming) -> R + Send + Sync + 'static,
    R: Future<Output = Result<Reply, HandlerError>> + Send + 'static,
{
    // Weak, since the cell holds its handlers and the server holds the cell.
    let shared_weak = Arc::downgrade(shared);
    let handler = Arc::new(handler);
    shared.cell.handle(channel, topic, move |incoming| {
        let (shared, handler) = (shared_weak.upgrade(), Arc::clone(&handler));
        async move {
            match shared {
                Some(shared) => handler(shared, incoming).await,
                None => Err(HandlerError::new(ReturnCode::ServiceUnavailable, "server is shutting down")),
            }
        }
    });
}

async fn challenge(shared: Arc<Shared>, incoming: Incoming) -> Result<Reply, HandlerError> {
    let ask = ChallengeRequest::from_parts(&incoming.headers, &incoming.payload()).map_err(not_understood)?;
    let opening = lock(&shared.admission).open(
        incoming.link.link.0,
        incoming.origin.as_str(),
        &ask.common_name,
        &ask.nonce,
        &mut rand::rng(),
        now().instant,
    );
    let opening = opening.map_err(|refused| {
        // A site tries again after `comm_error` and gives up after `unauthenticated`.
        let code = if refused.is_retryable() { ReturnCode::CommError } else { ReturnCode::Unauthenticated };
        HandlerError::new(code, refused.to_string())
    })?;
    let proof = shared.sign(move |server| opening.prove(&*server.signer).map_err(|e| failed(&e))).await?;
    let answer = ChallengeReply {
        nonce: proof.nonce,
        common_name: proof.cn,
        certificate: proof.cert.into(),
        signature: proof.signature.into(),
    };
    reply(answer.to_parts())
}

async fn register(shared: Arc<Shared>, incoming: Incoming) -> Result<Reply, HandlerError> {
    // Whatever becomes of it, the registration uses the challenge up.
    let open = lock(&shared.admission).take(incoming.link.link.0, incoming.origin.as_str(), now().instant);
    let ask = RegisterRequest::from_parts(&incoming.headers, &incoming.payload());
    let ask = ask.map_err(|error| {
        // A site shows why it is not authenticated, and nothing else.
        let shown = matches!(error, DecodeError::Protocol { .. });
        if shown { unauthenticated(error.to_string()) } else { not_understood(error) }
    })?;
    let dialect = Dialect::of_participant(&ask).map_err(|error| unauthenticated(error.to_string()))?;
    let open = open.ok_or_else(|| unauthenticated("no registration session"))?;
    shared.notice(&Event::ClientRegisterReceived { site: &ask.client_name });
    if ask.project_name != shared.settings.project {
        return Err(unauthenticated("Requested task does not match the current server task"));
    }
    let party = match ask.client_type {
        ClientType::Regular => Party::Site,
        ClientType::Admin => Party::Admin,
        ClientType::Relay => Party::Relay,
    };
    // Certificates do not tell relays from sites; the kit does.
    if (party == Party::Relay) != shared.settings.relays.contains(&ask.client_name) && party != Party::Admin {
        return Err(unauthenticated("provisioning does not know a participant of this kind by that name"));
    }
    if ask.peer.str(prop::FQSN).is_some_and(|fqsn| fqsn.contains('.')) {
        return Err(unauthenticated("a site below another site cannot register here"));
    }
    let proof = ask.proof.ok_or_else(|| unauthenticated("registration carries no proof of identity"))?;
    let proof = Proof {
        cert: proof.certificate.to_vec(),
        cn: proof.common_name,
        signature: proof.signature.to_vec(),
    };
    let name = ask.client_name;
    let granted = shared
        .sign(move |server| {
            let refused = |error: &dyn std::error::Error| unauthenticated(with_causes(error));
            let proven =
                open.verify(&proof, &name, &*server.verifier, SystemTime::now()).map_err(|e| refused(&e))?;
            let proven = if party == Party::Relay { proven.into_relay() } else { proven };
            if proven.party() != party {
                return Err(unauthenticated("certificate does not say what the registration says"));
            }
            let name = name.clone();
            let question = Question::ClientRegister { name, party: word(party) };
            server.attendants.gates.ask_blocking(question).map_err(|no| unauthenticated(no.to_string()))?;
            let grant = proven.grant(&*server.signer, &mut rand::rng()).map_err(|e| failed(&e))?;
            let grant = if dialect == Dialect::NEWEST { grant } else { grant.in_dialect(dialect.name) };
            // The ledger's record is durable before the token leaves.
            server.ledger.issue(&grant, now()).map_err(|e: IssueRefused| {
                let code = if e.is_retryable() {
                    ReturnCode::ServiceUnavailable
                } else {
                    ReturnCode::Unauthenticated
                };
                HandlerError::new(code, with_causes(&e))
            })?;
            Ok(grant)
        })
        .await;
    let grant = granted.inspect_err(|error| {
        tracing::warn!(peer = %incoming.origin, reason = error.reason, "registration refused");
    })?;
    tracing::info!(name = grant.name(), party = ?grant.party(), version = dialect.name, "registered");
    if grant.party() == Party::Site {
        shared.registered(grant.name());
    }
    shared.notice(&Event::ClientRegisterProcessed { site: grant.name() });
    let answer = RegisterReply::Granted {
        token: grant.token().expose().to_owned(),
        signature: grant.signature().expose().to_owned(),
        ssid: dialect.session.to_owned(),
        version: Some(NVFLARE_VERSION.to_owned()),
    };
    // Older sites look for their token in the headers.
    let mut reply = reply(answer.to_parts())?;
    reply.headers.set(key::CLIENT_NAME, grant.name());
    reply.headers.set(key::TOKEN, grant.token().expose());
    reply.headers.set(key::TOKEN_SIGNATURE, grant.signature().expose());
    reply.headers.set(key::SSID, dialect.session);
    Ok(reply)
}

async fn heartbeat(shared: Arc<Shared>, incoming: Incoming) -> Result<Reply, HandlerError> {
    let beat = Heartbeat::from_parts(&incoming.headers, &incoming.payload()).map_err(not_understood)?;
    let site = claimed(&incoming)?;
    shared.notice(&Event::ClientHeartbeatReceived { site: &site });
    let pulse = shared.ledger.heartbeat(&site, &incoming.origin, now());
    let pulse = pulse.map_err(|refused| unauthenticated(refused.to_string()))?;
    tracing::debug!(site, jobs = beat.job_ids.len(), "heartbeat");
    let is_new = shared.heard(&site, pulse == Pulse::Back);
    shared.notice(&Event::ClientHeartbeatProcessed { site: &site });
    reply(HeartbeatReply::new(shared.holds(&site, beat.job_ids, is_new)).to_parts())
}

async fn quit(shared: Arc<Shared>, incoming: Incoming) -> Result<Reply, HandlerError> {
    let ask = Quit::from_parts(&incoming.headers, &incoming.payload()).map_err(not_understood)?;
    if ask.project_name != shared.settings.project {
        return Err(unauthenticated("Requested task does not match the current server task"));
    }
    let site = claimed(&incoming)?;
    if shared.ledger.site(&site).is_none_or(|holder| holder.origin != incoming.origin) {
        return Err(unauthenticated("Unknown client identity"));
    }
    let name = site.clone();
    let had = shared.sign(move |server| server.ledger.quit(&name).map_err(|e| failed(&e))).await?;
    if !had {
        return Err(unauthenticated("Unknown client identity"));
    }
    shared.notice(&Event::ClientQuit { site: &site });
    shared.quit(&site).await;
    reply(QuitReply::new().to_parts())
}

async fn outcome(shared: Arc<Shared>, incoming: Incoming) -> Result<Reply, HandlerError> {
    let report = OutcomeReport::from_parts(&incoming.headers, &incoming.payload()).map_err(not_understood)?;
    let site = claimed(&incoming)?;
    // As nvflare: a report that nobody waits for is acknowledged, so that the site can let go. Of two reports
    // of one site the first counts.
    let record = shared.book.record(&report.job_id);
    let wanted = |record: &JobRecord| record.sites.contains(&site) && !record.outcomes.contains_key(&site);
    if !record.as_ref().is_some_and(wanted) {
        tracing::debug!(site, "outcome of a job that nobody waits for");
        return Ok(Reply::ok(Payload::none()));
    }
    let refusals = refusals_of(&site, report.refusals);
    let reason = report.reason.map(|reason| reason.lines().map(one_line).collect::<Vec<_>>().join("\n    "));
    let reason = reason.map(|mut reason| {
        reason.truncate(reason.floor_char_boundary(LONGEST_REASON));
        reason
    });
    let outcome = SiteOutcome { code: report.code, reason, refusals, tasks_done: report.tasks_done };
    let entry = Entry::Outcome { job: report.job_id.clone(), site: site.clone(), outcome: outcome.clone() };
    shared.write(entry).await.map_err(|error| failed(&error))?;
    shared.signal(&report.job_id, Signal::Outcome { site, outcome }).await;
    Ok(Reply::ok(Payload::none()))
}

/// What a site refuses, under its own name whatever it says, and fit to be shown.
pub(crate) fn refusals_of(site: &str, mut refusals: Vec<Refusal>) -> Vec<Refusal> {
    for refusal in &mut refusals {
        site.clone_into(&mut refusal.site);
        let Refusal { site: _, component, file, path, code, reason } = refusal;
        for text in [component, file, path, code, reason] {
            *text = one_line(text);
        }
    }
    refusals
}

/// A site's words, fit for a log and a terminal: what would move the cursor or turn the text around is escaped.
pub(crate) fn one_line(text: &str) -> String {
    let unsafe_to_show =
        |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let mut shown = String::new();
    for c in text.chars().take(LONGEST_REASON) {
        if unsafe_to_show(c) {
            shown.extend(c.escape_unicode());
        } else {
            shown.push(c);
        }
    }
    shown.truncate(shown.floor_char_boundary(LONGEST_REASON));
    shown
}

pub(crate) async fn aux(shared: Arc<Shared>, incoming: Incoming) -> Result<Reply, HandlerError> {
    let peer = server_context("server", None);
    let code = match AuxRequest::from_parts(&incoming.headers, &incoming.payload()) {
        Ok(aux) if matches!(aux.topic.as_str(), log_stream::REQUEST | log_stream::ABORT) => {
            let site = claimed(&incoming)?;
            let taking = tokio::task::spawn_blocking(move || log(&shared, &site, &aux));
            taking.await.unwrap_or("EXECUTION_EXCEPTION")
        }
        Ok(_) => "TOPIC_UNKNOWN",
        Err(_) => "MISSING_PEER_CONTEXT",
    };
    reply(AuxReply::new(code, peer).to_parts())
}

/// A site, or its half of a job, sends a log of a job that it takes part in.
fn log(shared: &Shared, site: &str, aux: &AuxRequest) -> &'static str {
    if aux.topic == log_stream::ABORT {
        return shared.site_logs.abort(site, aux);
    }
    let run_dir = || {
        let job = aux.peer_props.str(prop::RUN_NUM)?;
        let takes_part = shared.book.record(job)?.sites.iter().any(|named| named == site);
        let run_dir = shared.kit.run_dir(job).ok().filter(|_| takes_part)?;
        Some(run_dir.path().to_owned())
    };
    shared.site_logs.take(site, run_dir, aux)
}

async fn job_report(shared: Arc<Shared>, incoming: Incoming) -> Result<Reply, HandlerError> {
    let of_ours = incoming.link.security == LinkSecurity::Internal
        && incoming.origin.parent() == Some(shared.cell.name().clone());
    if !of_ours {
        return Err(HandlerError::new(
            ReturnCode::AuthenticationError,
            "only this server's own jobs report here",
        ));
    }
    let Told { bytes_moved, report } = serde_json::from_slice(&incoming.body)
        .map_err(|error| HandlerError::invalid_request(error.to_string()))?;
    shared.note_moved(incoming.origin.leaf(), bytes_moved);
    shared.signal(incoming.origin.leaf(), Signal::Report(report)).await;
    Ok(Reply::ok(Payload::none()))
}

fn word(party: Party) -> &'static str {
    match party {
        Party::Site => "site",
        Party::Admin => "admin",
        Party::Relay => "relay",
    }
}

/// The site that the token is of; the gate has checked both.
fn claimed(incoming: &Incoming) -> Result<String, HandlerError> {
    let name = incoming.headers.str(key::CLIENT_NAME);
    name.map(str::to_owned).ok_or_else(|| unauthenticated("message carries no client name"))
}

pub(crate) fn reply(parts: Result<Parts, EncodeError>) -> Result<Reply, HandlerError> {
    let parts = parts.map_err(|error| failed(&error))?;
    let mut reply = Reply::ok(parts.payload);
    reply.headers = parts.headers;
    Ok(reply)
}

pub(crate) fn not_understood(error: DecodeError) -> HandlerError {
    HandlerError::invalid_request(with_causes(&error))
}

fn unauthenticated(reason: impl Into<String>) -> HandlerError {
    HandlerError::new(ReturnCode::Unauthenticated, reason)
}

fn failed(error: &dyn std::error::Error) -> HandlerError {
    HandlerError::failed(with_causes(error))
}

#[cfg(test)]
mod tests {
    use super::one_line;

    #[test]
    fn a_site_cannot_write_to_the_operators_terminal() {
        assert_eq!(one_line("a\x1b[31m\nFAKE"), "a\\u{1b}[31m\\u{a}FAKE");
        assert_eq!(one_line("\u{202e}txt"), "\\u{202e}txt");
        assert_eq!(one_line("ordinary, naïve text"), "ordinary, naïve text");
        assert!(one_line(&"x".repeat(1 << 20)).len() <= 4096);
    }
}
