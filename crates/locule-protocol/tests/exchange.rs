//! What is written is read again; what is left out has a default; what is wrong is refused.

use std::time::Duration;

use bytes::Bytes;
use locule_fobs::{Class, Map, Shareable, Value, encode};
use locule_message::{Headers, Payload};
use locule_protocol::{
    AdminBody, AdminCommand, AdminContext, AdminReply, AdminRequest, Assignment, AuxReply, AuxRequest,
    ChallengeReply, ClientType, DecodeError, GetTask, Heartbeat, HeartbeatReply, OutcomeReport, Parts,
    Person, Quit, QuitReply, Refusal, RegisterReply, RegisterRequest, Shortage, SubmitUpdate, TaskReply,
    aux_topic, outcome, server_context, site_context, to_props,
};
use proptest::prelude::*;

fn fobs(value: impl Into<Value>) -> Payload {
    Payload::fobs(encode(&value.into()).expect("plain"))
}

fn meta() -> Map {
    Map::from_iter([
        ("job_id", Value::from("j")),
        ("name", "demo".into()),
        ("resource_spec", Map::new().into()),
    ])
}

fn commands() -> Vec<AdminCommand> {
    let job_id = || "j".to_owned();
    let spec = || Map::from_iter([("gpus", 1_i64)]);
    vec![
        AdminCommand::CheckResource { job_id: job_id(), meta: meta(), spec: spec() },
        AdminCommand::CancelResource { job_id: job_id(), token: "t".into(), spec: Map::new() },
        AdminCommand::Deploy {
            job_id: job_id(),
            app_name: "app".into(),
            meta: meta(),
            zip: Bytes::from_static(b"PK"),
        },
        AdminCommand::CheckJob {
            job_id: job_id(),
            app_name: "app".into(),
            meta: meta(),
            zip: Bytes::from_static(b"PK"),
        },
        AdminCommand::StartJob { job_id: job_id(), meta: meta(), spec: spec(), token: "t".into() },
        AdminCommand::Abort { job_id: job_id() },
        AdminCommand::CheckStatus,
        AdminCommand::Shutdown,
        AdminCommand::ShowStats { job_id: job_id() },
        AdminCommand::ShowErrors { job_id: job_id() },
        AdminCommand::Other { topic: "sys.shell".into() },
    ]
}

#[test]
fn every_order_is_read_back() {
    for command in commands() {
        let mut order = AdminRequest::new("id", command);
        let check = |order: &AdminRequest| {
            let Parts { headers, payload } = order.to_parts().expect("plain");
            assert_eq!(AdminRequest::from_parts(&headers, &payload).as_ref(), Ok(order));
        };
        check(&order);
        order.context = AdminContext {
            peer: Some(server_context("server", None)),
            admin_command: Some("submit_job".into()),
            require_authz: true,
            user: Person { name: "ada".into(), org: "lab".into(), role: "lead".into() },
            submitter: Person { name: "bob".into(), ..Person::default() },
            event_id: Some("e".into()),
        };
        check(&order);
    }
}

#[test]
fn every_answer_is_read_back() {
    for body in [
        AdminBody::Text("deployed".into()),
        AdminBody::room("t"),
        AdminBody::no_room("no gpu", None),
        AdminBody::no_room("no gpu", Some(Shortage::Taken)),
        AdminBody::no_room("no gpu", Some(Shortage::Never)),
        AdminBody::Code("EXECUTION_EXCEPTION".into()),
    ] {
        for ok in [true, false] {
            let reply = AdminRequest::new("id", AdminCommand::CheckStatus).reply(ok, body.clone());
            assert_eq!(reply.topic, "reply_train.check_status");
            let Parts { headers, payload } = reply.to_parts().expect("plain");
            assert_eq!(AdminReply::from_parts(&headers, &payload), Ok(reply));
        }
    }
}

#[test]
fn refusals_in_an_answer_are_read_back_and_bounded() {
    let refusal = Refusal {
        site: "site-1".into(),
        component: "vendor.Trainer".into(),
        file: "config_fed_client.json".into(),
        path: "executors.#1.executor".into(),
        code: "house-rule".into(),
        reason: "not here".into(),
    };
    let mut reply =
        AdminRequest::new("id", AdminCommand::CheckStatus).reply(false, AdminBody::Text("no".into()));
    reply.refusals = vec![refusal.clone(); OutcomeReport::MAX_REFUSALS + 1];
    let Parts { headers, payload } = reply.to_parts().expect("plain");
    let read = AdminReply::from_parts(&headers, &payload).expect("valid");
    assert_eq!(read.refusals, vec![refusal.clone(); OutcomeReport::MAX_REFUSALS]);
    assert_eq!(
        Refusal::sentence(&read.refusals[..1]),
        "refused: vendor.Trainer at executors.#1.executor of config_fed_client.json: not here (house-rule)"
    );
    assert!(Refusal::sentence(&read.refusals).ends_with("; and 248 more"));
}

#[test]
fn a_text_that_says_error_is_an_error_whatever_the_code() {
    let body = AdminBody::Text("NVFLARE_ERROR: no such reservation".into());
    let reply = AdminRequest::new("id", AdminCommand::Shutdown).reply(true, body);
    let Parts { headers, payload } = reply.to_parts().expect("plain");
    assert!(!AdminReply::from_parts(&headers, &payload).expect("valid").ok);
}

#[test]
fn a_document_in_an_answer_is_read() {
    let document = serde_json::json!({"client_name": "site-1", "running_jobs": []});
    let reply = AdminRequest::new("id", AdminCommand::CheckStatus).reply(true, AdminBody::json(&document));
    assert_eq!(reply.json(), Some(document));
    let text = AdminRequest::new("id", AdminCommand::Shutdown).reply(true, AdminBody::Text("bye".into()));
    assert_eq!(text.json(), None);
}

#[test]
fn keys_of_meta_data_that_are_members_of_an_enumeration_become_text() {
    let member = |name: &str| Value::Enum { class: Class::JOB_META_KEY, member: name.into() };
    let mut stock = Map::from_iter([("job_id", "j")]);
    stock.insert_value(member("JOB_CLIENTS"), vec![Map::from_iter([("name", "site-1")])]);
    stock.insert_value(member("JOB_NAME"), "demo");
    let order = AdminRequest::new(
        "id",
        AdminCommand::StartJob { job_id: "j".into(), meta: stock, spec: Map::new(), token: "t".into() },
    );
    let Parts { headers, payload } = order.to_parts().expect("plain");
    let read = AdminRequest::from_parts(&headers, &payload).expect("valid");
    let AdminCommand::StartJob { meta, .. } = read.command else { panic!("start") };
    assert_eq!(meta.list("job_clients").map(<[_]>::len), Some(1));
    assert_eq!(meta.str("name"), Some("demo"));
}

#[test]
fn an_outcome_is_read_back_with_its_refusals() {
    let mut report = OutcomeReport::new("j", outcome::UNSAFE_COMPONENT, Some("refused".into()));
    report.refusals.push(Refusal {
        site: "site-1".into(),
        component: "trainer".into(),
        file: "config_fed_client.json".into(),
        path: "executors.#1.executor".into(),
        code: "not-allowed".into(),
        reason: "not on the list".into(),
    });
    report.tasks_done = 3;
    let Parts { headers, payload } = report.to_parts().expect("plain");
    assert_eq!(OutcomeReport::from_parts(&headers, &payload), Ok(report));
}

#[test]
fn a_stock_outcome_is_read_and_ours_looks_like_one_when_there_is_nothing_to_add() {
    let stock =
        Map::from_iter([("job_id", Value::from("j")), ("code", 0_i64.into()), ("reason", Value::None)]);
    let report = OutcomeReport::from_parts(&Headers::new(), &fobs(stock.clone())).expect("stock");
    assert_eq!(report, OutcomeReport::new("j", outcome::DONE, None));
    assert_eq!(report.to_parts().expect("plain").payload, fobs(stock));
}

#[test]
fn an_outcome_has_a_bounded_number_of_refusals() {
    let mut report = OutcomeReport::new("j", outcome::UNSAFE_COMPONENT, None);
    report.refusals = vec![Refusal::default(); 1000];
    let Parts { headers, payload } = report.to_parts().expect("plain");
    let read = OutcomeReport::from_parts(&headers, &payload).expect("valid");
    assert_eq!(read.refusals.len(), OutcomeReport::MAX_REFUSALS);
}

#[test]
fn a_quit_is_read_back() {
    let quit = Quit { project_name: "p".into(), peer: site_context("site-1", None) };
    let Parts { headers, payload } = quit.to_parts().expect("plain");
    assert_eq!(Quit::from_parts(&headers, &payload), Ok(quit));
    let Parts { headers, payload } = QuitReply::new().to_parts().expect("plain");
    assert_eq!(QuitReply::from_parts(&headers, &payload), Ok(QuitReply::new()));
}

#[test]
fn a_heartbeat_carries_jobs_both_ways() {
    let beat = Heartbeat {
        project_name: "p".into(),
        job_ids: vec!["a".into(), "b".into()],
        peer: site_context("site-1", None),
    };
    let Parts { headers, payload } = beat.to_parts().expect("plain");
    assert_eq!(Heartbeat::from_parts(&headers, &payload), Ok(beat));
    let reply = HeartbeatReply::new(vec!["a".into()]);
    let Parts { headers, payload } = reply.to_parts().expect("plain");
    assert_eq!(HeartbeatReply::from_parts(&headers, &payload), Ok(reply));
}

#[test]
fn a_task_is_read_back_and_its_cookie_names_it() {
    let mut data = Shareable::new();
    data.set_header("current_round", 3_i64);
    data.set_peer_context(server_context("p", Some("j")));
    let mut task = Assignment::new("train", "t", data);
    task.wait = Duration::from_millis(1500);
    task.cookies.insert("__workflow__", "w");
    let Parts { headers, payload } = TaskReply::Task(Box::new(task.clone())).to_parts().expect("plain");
    task.cookies.insert("__task_id__", "t");
    assert_eq!(TaskReply::from_parts(&headers, &payload), Ok(TaskReply::Task(Box::new(task))));
}

#[test]
fn nothing_to_do_and_the_end_are_read_back() {
    let peer = server_context("p", Some("j"));
    for reply in [
        TaskReply::TryAgain { wait: Duration::from_secs(2), peer: peer.clone() },
        TaskReply::TryAgain { wait: Duration::ZERO, peer: peer.clone() },
        TaskReply::EndRun { peer },
    ] {
        let Parts { headers, payload } = reply.to_parts().expect("plain");
        assert_eq!(TaskReply::from_parts(&headers, &payload), Ok(reply));
    }
}

#[test]
fn no_wait_is_too_long_or_too_strange() {
    let check = |wait: Value, expected: Duration| {
        let mut reply = Shareable::new();
        reply.set_header("task_name", "__try_again__");
        reply.set_header("__wait_time__", wait);
        let read = TaskReply::from_parts(&Headers::new(), &fobs(reply)).expect("valid");
        assert!(matches!(read, TaskReply::TryAgain { wait, .. } if wait == expected), "{read:?}");
    };
    check(0.5.into(), Duration::from_millis(500));
    check((-1_i64).into(), Duration::ZERO);
    check(f64::NAN.into(), Duration::ZERO);
    check(f64::INFINITY.into(), TaskReply::MAX_WAIT);
    check(u64::MAX.into(), TaskReply::MAX_WAIT);
    check("soon".into(), Duration::ZERO);
}

#[test]
fn the_cookie_decides_which_task_a_result_is_for() {
    let mut result = Shareable::new();
    result.set_return_code("EXECUTION_EXCEPTION");
    let update = SubmitUpdate {
        project_name: "p".into(),
        task_name: "train".into(),
        task_id: "header".into(),
        cookies: Map::from_iter([("__task_id__", "cookie")]),
        result,
        peer: site_context("site-1", Some("j")),
    };
    let read = |update: &SubmitUpdate| {
        let Parts { headers, payload } = update.to_parts().expect("plain");
        SubmitUpdate::from_parts(&headers, &payload).expect("valid")
    };
    assert_eq!(read(&update).task_id, "cookie");
    assert_eq!(read(&update).result.return_code(), "EXECUTION_EXCEPTION");
    let without = SubmitUpdate { cookies: Map::new(), ..update };
    assert_eq!(read(&without), without);
}

#[test]
fn a_pull_must_name_its_job() {
    let mut get = GetTask {
        project_name: "p".into(),
        peer: site_context("site-1", Some("j")),
        last_task_id: Some("t".into()),
    };
    let Parts { headers, payload } = get.to_parts().expect("plain");
    assert_eq!(GetTask::from_parts(&headers, &payload).as_ref(), Ok(&get));
    get.peer.props.clear();
    let Parts { headers, payload } = get.to_parts().expect("plain");
    assert_eq!(GetTask::from_parts(&headers, &payload), Err(DecodeError::Field("__run_num__")));
}

#[test]
fn auxiliary_messages_are_read_back() {
    let mut request = AuxRequest::task_check("t", to_props(&site_context("site-1", Some("j"))));
    request.fields.insert("x", 1_i64);
    let Parts { headers, payload } = request.to_parts().expect("plain");
    let read = AuxRequest::from_parts(&headers, &payload).expect("valid");
    assert_eq!((read.topic.as_str(), read.task_id()), (aux_topic::TASK_CHECK, Some("t")));
    assert_eq!(read, request);

    let reply = AuxReply::new("TASK_UNKNOWN", server_context("p", Some("j")));
    let Parts { headers, payload } = reply.to_parts().expect("plain");
    assert!(!reply.is_ok());
    assert_eq!(AuxReply::from_parts(&headers, &payload), Ok(reply));
}

#[test]
fn private_properties_stay_at_home() {
    let mut context = site_context("site-1", None);
    context.props[0].1.private = true;
    assert!(!to_props(&context).contains("__run_num__"));
}

#[test]
fn a_site_that_does_not_say_what_it_is_is_a_site() {
    let mut headers = Headers::new();
    headers.set("client_name", "site-1");
    headers.set("project_name", "p");
    let mut request = Shareable::new();
    request.set_peer_context(site_context("site-1", None));
    let payload = fobs(request);
    let read = RegisterRequest::from_parts(&headers, &payload).expect("valid");
    assert_eq!((read.client_type, read.client_ip.as_str(), read.proof), (ClientType::Regular, "", None));
    headers.set("client_type", "emperor\n");
    let refused = RegisterRequest::from_parts(&headers, &payload).expect_err("no such type");
    assert_eq!(refused.to_string(), r#"client_type may not be "emperor\n""#);
}

#[test]
fn another_version_of_the_protocol_is_refused_by_the_name_of_its_software() {
    let mut headers = Headers::new();
    headers.set("client_name", "site-1");
    headers.set("project_name", "p");
    headers.set("federation_protocol_version", 2);
    headers.set("nvflare_version", "3.1.0");
    let mut request = Shareable::new();
    request.set_peer_context(site_context("site-1", None));
    let refused = RegisterRequest::from_parts(&headers, &fobs(request)).expect_err("another protocol");
    let text = "version 2 of the protocol is not spoken here: peer is nvflare 3.1.0";
    assert_eq!(refused.to_string(), text);

    let mut granted = Map::from_iter([("nvflare_version", "3.1.0"), ("__token__", "t")]);
    granted.insert("federation_protocol_version", 2_i64);
    let refused = RegisterReply::from_parts(&Headers::new(), &fobs(granted)).expect_err("another protocol");
    assert_eq!(refused.to_string(), text);
}

#[test]
fn half_a_proof_is_none() {
    let mut headers = Headers::new();
    headers.set("client_name", "site-1");
    headers.set("project_name", "p");
    let mut request = Shareable::new();
    request.set_peer_context(site_context("site-1", None));
    request.fields.insert("cert", Bytes::from_static(b"PEM"));
    let refused = RegisterRequest::from_parts(&headers, &fobs(request));
    assert_eq!(refused, Err(DecodeError::Field("cn")));
}

#[test]
fn a_token_called_server_is_no_token_wherever_it_stands() {
    let reply = Map::from_iter([("__token__", "server"), ("__token_signature__", "s")]);
    assert_eq!(RegisterReply::from_parts(&Headers::new(), &fobs(reply)), Ok(RegisterReply::Refused));
    let without_signature = Map::from_iter([("__token__", "t")]);
    let refused = RegisterReply::from_parts(&Headers::new(), &fobs(without_signature));
    assert_eq!(refused, Err(DecodeError::Field("__token_signature__")));
}

#[test]
fn a_payload_of_another_kind_is_refused() {
    let text = fobs("hello");
    fn kind<T>(expected: &'static str) -> Result<T, DecodeError> {
        Err(DecodeError::Kind { expected, found: "str" })
    }
    let none = Headers::new();
    assert_eq!(ChallengeReply::from_parts(&none, &text), kind("shareable"));
    assert_eq!(GetTask::from_parts(&none, &text), kind("shareable"));
    assert_eq!(OutcomeReport::from_parts(&none, &text), kind("map"));
    assert_eq!(AdminRequest::from_parts(&none, &text), kind("admin message"));
    let garbage = Payload::fobs(Bytes::from_static(b"garbage"));
    assert!(matches!(TaskReply::from_parts(&none, &garbage), Err(DecodeError::Payload(_))));
}

proptest! {
    #[test]
    fn no_mutation_of_a_payload_makes_reading_panic(
        which in any::<prop::sample::Index>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let parts: Vec<Parts> =
            commands().into_iter().map(|command| AdminRequest::new("i", command).to_parts().expect("plain")).collect();
        let Parts { headers, payload } = which.get(&parts);
        let mut bytes = payload.body.whole().to_vec();
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let payload = Payload::fobs(bytes.into());
        let _ = AdminRequest::from_parts(headers, &payload);
        let _ = AdminReply::from_parts(headers, &payload);
        let _ = RegisterRequest::from_parts(headers, &payload);
        let _ = RegisterReply::from_parts(headers, &payload);
        let _ = TaskReply::from_parts(headers, &payload);
        let _ = SubmitUpdate::from_parts(headers, &payload);
        let _ = AuxRequest::from_parts(headers, &payload);
        let _ = OutcomeReport::from_parts(headers, &payload);
        let _ = Heartbeat::from_parts(headers, &payload);
    }
}
