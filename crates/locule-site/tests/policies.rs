//! What a site's operator wrote about privacy and rights, in jobs of a server by hand.

#![allow(clippy::unwrap_used, reason = "tests")]

#[allow(dead_code, reason = "shared with the other tests of sites")]
mod federation;

use std::fs;
use std::path::Path;

use bytes::Bytes;
use federation::{Heard, JOB, Server, Signers, make_kit, site_name, start_site};
use locule_cell::Request;
use locule_component::{
    BuildCx, BuildError, Built, Component, ExecuteError, Executor, Kind, Registry, Task, TaskCx,
};
use locule_fobs::{Array, DataKind, Dxo, Map, Shareable, Value};
use locule_identity_openssl::Subject;
use locule_job::{pack_app, sign_folder};
use locule_protocol::{AdminBody, AdminCommand, AdminReply, AdminRequest, Person};
use locule_site::Site;
use serde::Deserialize;
use serde_json::{Value as Json, json};
use tokio::sync::watch;

/// Answers with two variables.
struct Trains;

#[derive(Deserialize)]
struct NoArgs {}

impl Component for Trains {
    const KIND: Kind = Kind::Executor;
    const NAME: &'static str = "test.Trains";
    type Args = NoArgs;

    fn build(_: NoArgs, _: &BuildCx<'_>) -> Result<Built, BuildError> {
        Ok(Built::Executor(Box::new(Trains)))
    }
}

impl Executor for Trains {
    fn execute(&mut self, _: &Task, _: &TaskCx<'_>) -> Result<Shareable, ExecuteError> {
        let weights = Map::from_iter([
            ("body", Value::from(Array::from(&[3.0, 4.0][..]))),
            ("embedding.patients", Array::from(&[1.0][..]).into()),
        ]);
        Ok(Shareable::with_dxo(Dxo::new(DataKind::WeightDiff, weights)))
    }
}

fn registry() -> Registry {
    let mut registry = Registry::new();
    registry.register::<Trains>();
    locule_filter::register(&mut registry);
    registry
}

/// A registered site whose kit has these files in `local`.
struct Scene {
    server: Server,
    _site: Site,
    signers: Signers,
    kit: tempfile::TempDir,
}

impl Scene {
    async fn with(files: &[(&str, Json)]) -> Self {
        let (kit, signers) = (tempfile::tempdir().unwrap(), Signers::new());
        make_kit(kit.path());
        for (file, content) in files {
            write(kit.path(), file, content);
        }
        let mut server = Server::start().await;
        let site = start_site(&server, kit.path(), registry(), &signers).await;
        assert!(matches!(server.next().await, Heard::Registration));
        Self { server, _site: site, signers, kit }
    }

    /// An app that trains, with these result filters, signed by somebody of this role.
    fn app(&self, role: &str, filters: &Json, custom: bool) -> Bytes {
        self.app_of("ward", role, filters, custom)
    }

    fn app_of(&self, org: &str, role: &str, filters: &Json, custom: bool) -> Bytes {
        let scratch = tempfile::tempdir().unwrap();
        let executors = json!([{ "tasks": ["train"], "executor": { "path": "test.Trains" } }]);
        let filters = match filters.is_null() {
            true => json!([]),
            false => json!([{ "tasks": ["train"], "filters": filters }]),
        };
        let config = json!({ "format_version": 2, "executors": executors, "task_result_filters": filters });
        fs::create_dir(scratch.path().join("config")).unwrap();
        fs::write(scratch.path().join("config/config_fed_client.json"), config.to_string()).unwrap();
        if custom {
            fs::create_dir(scratch.path().join("custom")).unwrap();
            fs::write(scratch.path().join("custom/trainer.py"), "print()").unwrap();
        }
        let signer = self.signers.issue(&Subject::new("Ann@ward.org").organization(org).role(role));
        sign_folder(scratch.path(), &signer).unwrap();
        pack_app(scratch.path()).unwrap().into()
    }

    /// What the site says to a deployment of this app with these entries of the meta.
    async fn deploy(&self, zip: Bytes, meta: &Json) -> AdminReply {
        let meta = Value::from(meta).as_map().unwrap().clone();
        self.server
            .order(AdminCommand::Deploy { job_id: JOB.into(), app_name: "app".into(), meta, zip })
            .await
    }

    /// The result that leaves the site.
    async fn result(&mut self, zip: Bytes) -> Shareable {
        let (_end, ending) = watch::channel(false);
        let _job = self.server.open_job(ending).await;
        self.server.run_app(zip).await;
        let Heard::Result(update) = self.server.next().await else { panic!("no result") };
        update.result
    }
}

fn write(kit: &Path, file: &str, content: &Json) {
    fs::write(kit.join("local").join(file), content.to_string()).unwrap();
}

fn text(reply: &AdminReply) -> (bool, &str) {
    let AdminBody::Text(text) = &reply.body else { panic!("{reply:?}") };
    (reply.ok, text)
}

fn privacy(filters: &Json) -> (&'static str, Json) {
    let scopes = json!([{ "name": "patients", "task_result_filters": filters }, { "name": "open" }]);
    ("privacy.json", json!({ "scopes": scopes, "default_scope": "patients" }))
}

#[tokio::test]
async fn a_variable_that_the_job_excludes_does_not_leave_the_site() {
    let mut scene = Scene::with(&[]).await;
    let app = scene.app(
        "lead",
        &json!([{ "name": "ExcludeVars", "args": { "exclude_vars": ["embedding.patients"] } }]),
        false,
    );
    let dxo = scene.result(app).await.dxo().unwrap().unwrap();
    assert!(dxo.data.contains("body") && !dxo.data.contains("embedding.patients"));
}

#[tokio::test]
async fn the_default_scope_holds_for_a_job_that_names_none_and_comes_before_its_own_filters() {
    let exclude = json!({ "path": "locule.filter.ExcludeVars", "args": { "exclude_vars": "patients$" } });
    let mut scene = Scene::with(&[privacy(&json!([exclude]))]).await;
    let app = scene.app("lead", &json!([{ "name": "ClipNorm", "args": { "max_norm": 1 } }]), false);
    let dxo = scene.result(app).await.dxo().unwrap().unwrap();
    assert!(!dxo.data.contains("embedding.patients"));
    let body = dxo.data.get("body").unwrap().as_array().unwrap().to_f64();
    assert!((body[0] - 0.6).abs() < 1e-12 && (body[1] - 0.8).abs() < 1e-12, "{body:?}");
    let history = Value::List(vec!["ExcludeVars".into(), "ClipNorm".into()]);
    assert_eq!(dxo.meta.get("filter_history"), Some(&history));
}

#[tokio::test]
async fn a_result_that_a_scope_blocks_is_told_by_its_code() {
    let block = json!([{ "name": "DxoBlocker", "args": { "data_kinds": ["WEIGHT_DIFF"] } }]);
    let mut scene = Scene::with(&[privacy(&block)]).await;
    let app = scene.app("lead", &Json::Null, false);
    let result = scene.result(app).await;
    assert_eq!(result.return_code(), "TASK_RESULT_FILTER_ERROR");
    assert!(result.dxo().unwrap().is_none(), "nothing of it leaves");
}

#[tokio::test]
async fn a_scope_that_the_site_does_not_have_is_refused_at_deploy() {
    let scene = Scene::with(&[privacy(&json!([]))]).await;
    let app = || scene.app("lead", &Json::Null, false);
    let refused = scene.deploy(app(), &json!({ "scope": "nosuch" })).await;
    assert_eq!(text(&refused), (false, "NVFLARE_ERROR: privacy scope 'nosuch' is not allowed"));
    assert!(!scene.kit.path().join(JOB).exists(), "nothing of it stays");
    let audit = fs::read_to_string(scene.kit.path().join("state/audit.jsonl")).unwrap();
    assert!(audit.contains("is not admitted: privacy scope 'nosuch' is not allowed"), "{audit}");
    assert!(scene.deploy(app(), &json!({ "scope": "open" })).await.ok);
    let scopes = scene.server.order(AdminCommand::Other { topic: "train.get_scopes".into() }).await;
    let names = json!({ "scope_names": ["open", "patients"], "default_scope": "patients" });
    assert_eq!(scopes.json().unwrap(), names);
}

#[tokio::test]
async fn a_privacy_policy_with_a_mistake_admits_nobody_and_stays_private() {
    let scene = Scene::with(&[("privacy.json", json!({ "scops": [] }))]).await;
    let refused = scene.deploy(scene.app("lead", &Json::Null, false), &json!({})).await;
    let said =
        "NVFLARE_ERROR: the participant's own policy cannot be used; its operator can read why in its log";
    assert_eq!(text(&refused), (false, said));
}

#[tokio::test]
async fn a_filter_with_a_mistake_is_found_at_deploy_and_stays_private() {
    let scene = Scene::with(&[privacy(&json!([]))]).await;
    assert!(scene.deploy(scene.app("lead", &Json::Null, false), &json!({})).await.ok);
    // What an operator edits counts from then on.
    let (file, broken) = privacy(&json!([{ "name": "ClipNorm", "args": { "max_nrm": 1 } }]));
    write(scene.kit.path(), file, &broken);
    let refused = scene.deploy(scene.app("lead", &Json::Null, false), &json!({})).await;
    let (ok, said) = text(&refused);
    assert!(!ok && said.contains("site-cannot-judge") && !said.contains("max_nrm"), "{said}");
}

#[tokio::test]
async fn code_of_a_job_needs_the_right_to_it_of_whoever_signed() {
    let policy = json!({ "format_version": "1.0", "permissions": {
        "lead": { "submit_job": "any", "byoc": "o:other" }, "project_admin": "any" } });
    let scene = Scene::with(&[("authorization.json", policy)]).await;
    // What the server says of the submitter does not count where there is a signature.
    let boast =
        json!({ "submitter_name": "root", "submitter_org": "other", "submitter_role": "project_admin" });
    let refused = scene.deploy(scene.app("lead", &Json::Null, true), &boast).await;
    assert_eq!(text(&refused), (false, "NVFLARE_ERROR: BYOC not permitted"));
    let image = json!({ "launcher_spec": { "site-1": { "docker": { "image": "x" } } } });
    let refused = scene.deploy(scene.app("lead", &Json::Null, false), &image).await;
    assert_eq!(text(&refused), (false, "NVFLARE_ERROR: BYOC not permitted"));
    assert!(scene.deploy(scene.app("lead", &Json::Null, false), &json!({})).await.ok);
    assert!(scene.deploy(scene.app("project_admin", &Json::Null, true), &json!({})).await.ok);
}

#[tokio::test]
async fn a_job_needs_a_submitter_who_may_submit_at_this_site() {
    let scene = Scene::with(&[]).await; // the stock policy
    let refused = scene.deploy(scene.app("org_admin", &Json::Null, false), &json!({})).await;
    assert_eq!(
        text(&refused),
        (false, "NVFLARE_ERROR: user 'ann@ward.org' is not authorized for 'submit_job'")
    );
    // What an operator edits counts from then on.
    let policy =
        json!({ "format_version": "1.0", "permissions": { "org_admin": { "submit_job": "o:ward" } } });
    write(scene.kit.path(), "authorization.json", &policy);
    assert!(scene.deploy(scene.app("org_admin", &Json::Null, false), &json!({})).await.ok);
    write(scene.kit.path(), "authorization.json", &json!({ "format_version": "3" }));
    assert!(!scene.deploy(scene.app("org_admin", &Json::Null, false), &json!({})).await.ok);
}

#[tokio::test]
async fn a_console_command_needs_the_right_of_its_user_where_the_server_asks_for_that() {
    let scene = Scene::with(&[]).await;
    for (role, require_authz, right, may) in [
        ("member", true, "check_status", true),
        ("", true, "check_status", false),
        ("member", true, "shutdown", false),
        ("", false, "check_status", true),
    ] {
        let mut order = AdminRequest::new("7", AdminCommand::CheckStatus);
        order.context.admin_command = Some(right.into());
        order.context.require_authz = require_authz;
        order.context.user = Person { name: "Eve".into(), org: "ward".into(), role: role.into() };
        let parts = order.to_parts().unwrap();
        let request = Request::new(AdminRequest::CHANNEL, AdminRequest::TOPIC, parts.payload);
        let reply = scene.server.cell.request(&site_name(), request).await.unwrap().into_ok().unwrap();
        let reply = AdminReply::from_parts(&reply.headers, &reply.payload).unwrap();
        assert_eq!(reply.ok, may, "{role} {right}: {reply:?}");
        if !may {
            let refusal = format!("user 'eve' is not authorized for '{right}'");
            assert_eq!(text(&reply), (false, refusal.as_str()));
        }
    }
}

/// The documents that the page shows, in its order.
fn documents() -> Vec<Json> {
    let page = include_str!("../../../docs/privacy-and-rights.md");
    let blocks = page.split("```json\n").skip(1);
    blocks.map(|block| serde_json::from_str(block.split("```").next().unwrap()).unwrap()).collect()
}

#[tokio::test]
async fn the_files_of_the_page_do_what_it_says() {
    let [privacy, rights] = documents().try_into().unwrap();
    let mut scene = Scene::with(&[("privacy.json", privacy), ("authorization.json", rights)]).await;
    for (org, role, custom, refusal) in [
        ("hospital-a", "lead", true, None),
        ("university", "lead", true, Some("NVFLARE_ERROR: BYOC not permitted")),
        ("university", "lead", false, None),
        (
            "elsewhere",
            "lead",
            false,
            Some("NVFLARE_ERROR: user 'ann@ward.org' is not authorized for 'submit_job'"),
        ),
        (
            "hospital-a",
            "project_admin",
            false,
            Some("NVFLARE_ERROR: user 'ann@ward.org' is not authorized for 'submit_job'"),
        ),
    ] {
        let reply =
            scene.deploy(scene.app_of(org, role, &Json::Null, custom), &json!({ "scope": "public" })).await;
        assert_eq!((!reply.ok).then(|| text(&reply).1), refusal, "{org} {role}");
    }
    let refused = scene
        .deploy(scene.app_of("university", "lead", &Json::Null, false), &json!({ "scope": "secret" }))
        .await;
    assert_eq!(text(&refused).1, "NVFLARE_ERROR: privacy scope 'secret' is not allowed");

    let dxo =
        scene.result(scene.app_of("university", "lead", &Json::Null, false)).await.dxo().unwrap().unwrap();
    assert!(!dxo.data.contains("embedding.patients"));
    let body = dxo.data.get("body").unwrap().as_array().unwrap().to_f64();
    assert!((body[0] - 0.6).abs() < 0.2 && body[0] != 0.6, "clipped, and noisy: {body:?}");
    let names = ["ExcludeVars", "ClipNorm", "GaussianNoise"].map(Value::from).to_vec();
    assert_eq!(dxo.meta.get("filter_history"), Some(&Value::List(names)));
}
