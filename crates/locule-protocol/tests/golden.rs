//! Requests and replies captured from real peers; see `tests/vectors/PROVENANCE.md`.

use std::time::Duration;

use bytes::Bytes;
use locule_fobs::{DataKind, Value};
use locule_message::{Headers, Message, Payload};
use locule_protocol::{
    AdminBody, AdminCommand, AdminReply, AdminRequest, AuxReply, AuxRequest, ChallengeReply,
    ChallengeRequest, ClientType, GetTask, Heartbeat, HeartbeatReply, JobStatus, Parts, RegisterReply,
    RegisterRequest, SubmitReply, SubmitUpdate, TaskReply, aux_topic, prop, server_context, site_context,
    to_props,
};

const JOB: &str = "e44df025-1221-4ad7-aec9-246f5d7885bc";
const TASK: &str = "5f8fba3c-cee9-425e-becc-4d4cdc70be12";

fn unhex(text: &str) -> Bytes {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex")).collect()
}

fn message(frame: &serde_json::Value) -> Message {
    let bytes = unhex(frame["hex"].as_str().expect("hex"));
    let body_at = 16 + usize::from(u16::from_be_bytes([bytes[4], bytes[5]]));
    let headers = Headers::decode(bytes.slice(16..body_at)).expect("headers");
    Message { headers, body: bytes.slice(body_at..).into() }
}

/// A frame of a registration, by its name.
fn registration(name: &str) -> (Headers, Payload) {
    let file: serde_json::Value =
        serde_json::from_str(include_str!("../../../tests/vectors/registration.json")).expect("json");
    let frames = file["frames"].as_array().expect("array");
    let message = message(frames.iter().find(|frame| frame["name"] == name).expect(name));
    let payload = message.payload();
    (message.headers, payload)
}

/// A frame of a whole job, by its number. Most payloads are single chunks of a stream.
fn job(index: usize) -> (Headers, Payload) {
    let file: serde_json::Value =
        serde_json::from_str(include_str!("../../../tests/vectors/download.json")).expect("json");
    let message = message(&file["sequences"][2]["frames"][index]);
    (message.headers, Payload::fobs(message.body.whole()))
}

/// The headers of a request are among those that were captured, and the payload is the captured one.
fn same_bytes(parts: &Parts, headers: &Headers, payload: &Payload) {
    for key in parts.headers.keys() {
        assert_eq!(parts.headers.get(key), headers.get(key), "{key}");
    }
    assert_eq!(parts.payload, *payload);
}

#[test]
fn a_challenge_is_read_and_written_back() {
    let (headers, payload) = registration("challenge req");
    let request = ChallengeRequest::from_parts(&headers, &payload).expect("golden");
    assert_eq!(request.common_name, "site-1");
    assert_eq!(request.nonce, "1f9257b4-7111-42d0-84a4-5beac975f581");
    same_bytes(&request.to_parts().expect("plain"), &headers, &payload);

    let (headers, payload) = registration("challenge reply");
    let reply = ChallengeReply::from_parts(&headers, &payload).expect("golden");
    assert_eq!(reply.nonce, "5d61e2f8-9123-4856-b064-c6fbd8b6c2aa");
    assert_eq!(reply.common_name, "localhost");
    assert!(reply.certificate.starts_with(b"-----BEGIN CERTIFICATE-----"));
    assert_eq!(reply.signature.len(), 256);
    same_bytes(&reply.to_parts().expect("plain"), &headers, &payload);
}

#[test]
fn a_registration_is_read_and_written_back() {
    let (headers, payload) = registration("register req");
    let request = RegisterRequest::from_parts(&headers, &payload).expect("golden");
    assert_eq!((request.client_name.as_str(), request.client_type), ("site-1", ClientType::Regular));
    assert_eq!((request.client_ip.as_str(), request.project_name.as_str()), ("192.0.2.2", "vecproj"));
    assert_eq!(request.peer, site_context("site-1", None));
    let proof = request.proof.as_ref().expect("secure mode");
    assert_eq!((proof.common_name.as_str(), proof.signature.len()), ("site-1", 256));
    let config = request.site_config.as_ref().expect("site config");
    assert_eq!(config.bool("allow_log_streaming"), Some(true));
    same_bytes(&request.to_parts().expect("plain"), &headers, &payload);
}

#[test]
fn the_token_of_a_2_9_server_is_in_the_payload() {
    let (headers, payload) = registration("register reply");
    assert_eq!(headers.str("__token__"), Some("server"), "the server's own token is there, too");
    let reply = RegisterReply::from_parts(&headers, &payload).expect("golden");
    let RegisterReply::Granted { token, signature, ssid, version } = &reply else { panic!("granted") };
    assert_eq!(token, "940d0ce0-f5ed-4170-8f4e-56137b39df78");
    assert!(signature.starts_with("TMuEsi8d"));
    assert_eq!((ssid.as_str(), version.as_deref()), ("NA", Some("2.9.0")));
    assert_eq!(reply.to_parts().expect("plain").payload, payload);
}

#[test]
fn a_refusal_of_a_2_9_server_grants_nothing() {
    let (headers, _) = registration("register reply");
    let refused = RegisterReply::Refused.to_parts().expect("plain");
    let reply = RegisterReply::from_parts(&headers, &refused.payload).expect("an empty map");
    assert_eq!(reply, RegisterReply::Refused, "the token in the headers is the server's own");
    assert_eq!(refused.payload.body, unhex("6400000000000000000180"));
}

#[test]
fn the_token_of_an_older_server_is_in_the_headers() {
    let mut headers = Headers::new();
    headers.set("__token__", "0189e7c8");
    headers.set("__token_signature__", "c2ln");
    headers.set("ssid", "5c1e");
    let RegisterReply::Granted { token, signature, ssid, version } =
        RegisterReply::from_parts(&headers, &Payload::none()).expect("granted")
    else {
        panic!("granted")
    };
    assert_eq!(
        (token.as_str(), signature.as_str(), ssid.as_str(), version),
        ("0189e7c8", "c2ln", "5c1e", None)
    );
}

#[test]
fn a_token_is_not_shown() {
    let (headers, payload) = registration("register reply");
    let shown = format!("{:?}", RegisterReply::from_parts(&headers, &payload).expect("golden"));
    assert!(!shown.contains("940d0ce0") && !shown.contains("TMuEsi8d"), "{shown}");
}

#[test]
fn a_heartbeat_is_read_and_written_back() {
    let (headers, payload) = registration("heart_beat req");
    let beat = Heartbeat::from_parts(&headers, &payload).expect("golden");
    assert_eq!((beat.project_name.as_str(), beat.job_ids.len()), ("vecproj", 0));
    assert_eq!(beat.peer, site_context("site-1", None));
    same_bytes(&beat.to_parts().expect("plain"), &headers, &payload);

    let (headers, payload) = registration("heart_beat reply");
    let reply = HeartbeatReply::from_parts(&headers, &payload).expect("golden");
    assert_eq!(reply, HeartbeatReply::new(Vec::new()));
    same_bytes(&reply.to_parts().expect("plain"), &headers, &payload);
}

#[test]
fn a_job_tells_its_parent_how_it_stands() {
    let (headers, payload) = job(0);
    assert_eq!(headers.str("cn__topic"), Some(AdminRequest::NOTIFY_TOPIC));
    let order = AdminRequest::from_parts(&headers, &payload).expect("golden");
    let started = AdminCommand::NotifyJobStatus { job_id: JOB.into(), status: JobStatus::Started };
    assert_eq!(order, AdminRequest::new("5a6067e6-3bb8-4dca-a4b5-ab69e36b257a", started));
    same_bytes(&order.to_parts().expect("plain"), &headers, &payload);

    let (headers, payload) = job(1);
    let reply = AdminReply::from_parts(&headers, &payload).expect("golden");
    assert!(reply.ok);
    assert_eq!(reply.topic, "reply_train.notify_job_status");
    assert_eq!(reply.body, AdminBody::Text("notify status: 2".into()));
    same_bytes(&reply.to_parts().expect("plain"), &headers, &payload);
}

#[test]
fn auxiliary_messages_are_read_and_written_back() {
    let site = to_props(&site_context("site-1", Some(JOB)));
    let check = |index, expected: AuxRequest| {
        let (headers, payload) = job(index);
        let request = AuxRequest::from_parts(&headers, &payload).expect("golden");
        assert_eq!(request, expected);
        same_bytes(&request.to_parts().expect("plain"), &headers, &payload);
    };
    check(2, AuxRequest::new(aux_topic::SYNC_RUNNER, site.clone()));
    check(6, AuxRequest::new(aux_topic::JOB_HEARTBEAT, site.clone()));
    check(22, AuxRequest::task_check(TASK, site));
    check(40, AuxRequest::new(aux_topic::END_RUN, to_props(&server_context("vecproj", Some(JOB)))));

    for index in [4, 24] {
        let (headers, payload) = job(index);
        let reply = AuxReply::from_parts(&headers, &payload).expect("golden");
        assert_eq!(reply, AuxReply::new("OK", server_context("vecproj", Some(JOB))));
        same_bytes(&reply.to_parts().expect("plain"), &headers, &payload);
    }
}

#[test]
fn a_pull_is_read_and_written_back() {
    let (headers, payload) = job(7);
    let get = GetTask::from_parts(&headers, &payload).expect("golden");
    assert_eq!((get.project_name.as_str(), get.job_id(), &get.last_task_id), ("vecproj", JOB, &None));
    assert_eq!(get.peer, site_context("site-1", Some(JOB)));
    same_bytes(&get.to_parts().expect("plain"), &headers, &payload);
}

#[test]
fn a_task_is_read_and_read_again_after_writing() {
    let (headers, payload) = job(10);
    let reply = TaskReply::from_parts(&headers, &payload).expect("golden");
    let TaskReply::Task(task) = &reply else { panic!("a task") };
    assert_eq!((task.name.as_str(), task.id.as_str(), task.wait), ("train", TASK, Duration::from_secs(2)));
    assert_eq!(task.cookies.str("__workflow__"), Some("scatter_and_gather"));
    assert_eq!(task.cookies.int("contribution_round"), Some(0));
    assert_eq!(task.data.header("num_rounds").and_then(Value::as_i64), Some(1));
    let peer = task.data.peer_context().expect("context");
    assert_eq!((peer.str(prop::RUN_NUM), peer.str(prop::IDENTITY)), (Some(JOB), Some("vecproj")));
    let dxo = task.data.dxo().expect("dxo").expect("dxo");
    assert_eq!(dxo.kind, DataKind::Weights);
    assert!(matches!(dxo.data.get("numpy_key"), Some(Value::ArrayRef(_))));

    let again = reply.to_parts().expect("plain");
    assert_eq!(TaskReply::from_parts(&again.headers, &again.payload), Ok(reply));
}

#[test]
fn a_result_is_read_and_read_again_after_writing() {
    let (headers, payload) = job(26);
    let update = SubmitUpdate::from_parts(&headers, &payload).expect("golden");
    assert_eq!((update.job_id(), update.task_name.as_str(), update.task_id.as_str()), (JOB, "train", TASK));
    assert_eq!(update.cookies.str("__workflow__"), Some("scatter_and_gather"));
    assert_eq!(update.peer, site_context("site-1", Some(JOB)));
    assert_eq!(update.result.return_code(), "OK");
    let dxo = update.result.dxo().expect("dxo").expect("dxo");
    assert_eq!(dxo.meta.int("NUM_STEPS_CURRENT_ROUND"), Some(1));

    let again = update.to_parts().expect("plain");
    assert_eq!(SubmitUpdate::from_parts(&again.headers, &again.payload), Ok(update));

    let (headers, payload) = job(38);
    assert_eq!(SubmitReply::from_parts(&headers, &payload), Ok(SubmitReply));
    assert_eq!(SubmitReply.to_parts().expect("plain").payload, payload);
}
