//! An administrator's commands at a running server with two sites.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};

use e2e::{Running, provision, run, said, text};
use serde_json::{Value, json};

/// Kits of a server, two sites and an administrator, and a job.
struct Federation {
    dir: tempfile::TempDir,
    prod: PathBuf,
    admin: PathBuf,
    job: PathBuf,
}

impl Federation {
    /// What a demo leaves, and a job of so many rounds.
    fn new(rounds: u64, more: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut demo = vec!["demo", "--dir", text(dir.path()), "--sites", "2", "--rounds", "1"];
        demo.extend(more);
        let made = run(&demo);
        assert_eq!(made.status.success(), more.is_empty(), "{}", said(&made));
        let (prod, job) = (dir.path().join("project/prod_00"), dir.path().join("job"));
        // The server is to know of no job.
        fs::remove_dir_all(prod.join("server/state")).unwrap();
        let admin = prod.join("scientist@university.org");
        let federation = Self { dir, prod, admin, job };
        federation.edit("app/config/config_fed_server.json", |config| {
            for workflow in config["workflows"].as_array_mut().unwrap() {
                if let Some(num_rounds) = workflow["args"].get_mut("num_rounds") {
                    *num_rounds = json!(rounds);
                }
            }
        });
        federation
    }

    /// Changes a file of the job, and takes the signatures away.
    fn edit(&self, file: &str, change: impl FnOnce(&mut Value)) {
        let file = self.job.join(file);
        let mut document = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
        change(&mut document);
        fs::write(&file, serde_json::to_vec_pretty(&document).unwrap()).unwrap();
        for folder in ["", "app", "app/config"] {
            for name in [".__nvfl_sig.json", ".__nvfl_submitter.crt"] {
                fs::remove_file(self.job.join(folder).join(name)).ok();
            }
        }
    }

    fn start_server(&self) -> Running {
        let kit = self.prod.join("server");
        let mut server = Running::start(&["server", text(&kit), "-v", "--stop-with-stdin"]);
        server.wait_for("listening at");
        server
    }

    fn start_site(&self, name: &str, server: &mut Running) -> Running {
        let kit = self.prod.join(name);
        let site = Running::start(&["site", text(&kit), "--heartbeat", "1", "--stop-with-stdin"]);
        server.wait_for(&format!("{name} joined"));
        site
    }

    /// A command of the administrator: exit code, standard output, standard error.
    fn job(&self, arguments: &[&str]) -> (i32, String, String) {
        let mut all = vec!["job"];
        all.extend(arguments);
        all.extend(["--kit", text(&self.admin)]);
        let output = run(&all);
        let out = String::from_utf8(output.stdout.clone()).unwrap();
        (output.status.code().unwrap(), out, said(&output))
    }

    /// As [`job`](Self::job), for a script; the document that it prints.
    fn ask(&self, arguments: &[&str]) -> Value {
        let mut all = arguments.to_vec();
        all.extend(["--output", "json"]);
        let (code, out, said) = self.job(&all);
        assert_eq!(code, 0, "{arguments:?}: {said}");
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"))
    }

    fn submit(&self) -> String {
        let submitted = self.ask(&["submit", text(&self.job)]);
        submitted["job_id"].as_str().unwrap().to_owned()
    }

    /// Follows a job while the test goes on.
    fn watch(&self, id: &str) -> Running {
        Running::start(&["job", "watch", id, "--kit", text(&self.admin)])
    }
}

fn signatures(job: &Path) -> usize {
    let folders = ["", "app", "app/config"];
    folders.iter().filter(|folder| job.join(folder).join(".__nvfl_sig.json").exists()).count()
}

#[test]
fn a_job_is_submitted_followed_and_fetched() {
    let federation = Federation::new(3, &[]);
    let mut server = federation.start_server();
    let _one = federation.start_site("site-1", &mut server);

    // It waits for its second site.
    let (code, out, said) = federation.job(&["submit", text(&federation.job), "--submit-token", "monday"]);
    assert_eq!(code, 0, "{said}");
    let id = out.trim().rsplit(' ').next().unwrap().to_owned();
    assert_eq!(signatures(&federation.job), 0, "the folder stays as it is");
    server.wait_for("job waits");
    let shown = federation.ask(&["show", &id[..8]]);
    assert_eq!((&shown["id"], &shown["status"]), (&json!(id), &json!("SUBMITTED")));
    assert!(shown["waits"].as_str().unwrap().contains("waiting for"), "{shown}");
    let (code, text_shown, _) = federation.job(&["show", &id]);
    assert!(
        code == 0 && text_shown.contains("waits") && text_shown.contains("scientist@university.org"),
        "{text_shown}"
    );

    // The same submission makes no second job; another job under its name is refused.
    let again = federation.ask(&["submit", text(&federation.job), "--submit-token", "monday"]);
    assert_eq!(again["job_id"], json!(id));
    assert_eq!(federation.ask(&["list"]).as_array().unwrap().len(), 1);

    let mut watching = federation.watch(&id);
    watching.wait_for("it waits: waiting for");
    let _two = federation.start_site("site-2", &mut server);
    let (code, out, said) = watching.finish();
    assert_eq!(code, Some(0), "{out}{said}");
    for word in ["sites: site-1, site-2", "RUNNING", "round 3/3 is done", "accuracy=", "FINISHED:COMPLETED"] {
        assert!(out.contains(word), "{word}: {out}");
    }

    let listed = federation.ask(&["list"]);
    assert_eq!(listed[0]["status"], json!("FINISHED:COMPLETED"), "{listed}");
    assert_eq!(listed[0]["submitter"]["name"], json!("scientist@university.org"));
    let (_, table, _) = federation.job(&["list"]);
    assert!(table.starts_with("id ") && table.contains(&id), "{table}");
    let shown = federation.ask(&["show", &id]);
    let states: Vec<_> =
        shown["history"].as_array().unwrap().iter().map(|change| &change["status"]).collect();
    assert_eq!(states, ["SUBMITTED", "DISPATCHED", "RUNNING", "FINISHED:COMPLETED"]);
    assert_eq!((&shown["progress"]["rounds"], &shown["progress"]["rounds_done"]), (&json!(3), &json!(3)));
    assert_eq!(shown["outcomes"].as_array().unwrap().len(), 2, "{shown}");

    // Every round of both sites, with the last numbers that `show` has.
    let (code, csv, said) = federation.job(&["metrics", &id]);
    assert!(code == 0 && csv.starts_with("site,key,step,value,time,type\n"), "{csv}{said}");
    for site in shown["progress"]["metrics"].as_array().unwrap() {
        for metric in site["metrics"].as_array().unwrap() {
            let (site, key) = (site["site"].as_str().unwrap(), metric[0].as_str().unwrap());
            let rows: Vec<&str> =
                csv.lines().filter(|row| row.starts_with(&format!("{site},{key},"))).collect();
            assert_eq!(rows.len(), 3, "{csv}");
            let last = format!("{site},{key},2,{},", metric[1]);
            assert!(rows[2].starts_with(&last) && rows[2].ends_with(",ROUND"), "{last}: {csv}");
        }
    }
    assert_eq!(shown["progress"]["metrics"].as_array().unwrap().len(), 2, "{shown}");

    let into = federation.dir.path().join("result");
    let fetched = federation.ask(&["download", &id[..6], "--dir", text(&into)]);
    assert!(fetched["bytes"].as_u64().unwrap() > 0, "{fetched}");
    let job = into.join("job/job");
    assert!(job.join("meta.json").exists() && signatures(&job) == 3, "the server has it signed");
    let models = models(&into.join("workspace"));
    assert!(!models.is_empty(), "the model is there");
    let (code, _, said) = federation.job(&["download", &id, "--dir", text(&into)]);
    assert!(code == 73 && said.contains("is there already"), "{code}: {said}");

    let (code, log, said) = federation.job(&["logs", &id]);
    assert!(code == 0 && log.contains("FINISHED:COMPLETED") && log.contains("==> site-2 <=="), "{log}{said}");
    assert_eq!(federation.ask(&["logs", &id, "--site", "site-1"])["logs"].as_object().unwrap().len(), 1);

    let (code, _, said) = federation.job(&["logs", &id, "--site", "site-9"]);
    assert!(code == 1 && said.contains("site-9") && said.contains("locule job show"), "{code}: {said}");

    assert_eq!(federation.ask(&["delete", &id])["deleted"], json!(true));
    assert_eq!(federation.ask(&["list"]), json!([]));
    let (code, _, said) = federation.job(&["submit", text(&federation.job), "--submit-token", "monday"]);
    assert!(code == 1 && said.contains("was deleted"), "{code}: {said}");
}

fn models(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(models(&path));
        } else if path.extension().is_some_and(|ending| ending == "npz") {
            found.push(path);
        }
    }
    found
}

#[test]
fn a_job_that_runs_is_aborted_by_whoever_submitted_it() {
    let federation = Federation::new(100_000, &[]);
    let mut server = federation.start_server();
    let _sites = ["site-1", "site-2"].map(|site| federation.start_site(site, &mut server));
    let id = federation.submit();
    let mut watching = federation.watch(&id);
    watching.wait_for("round ");
    for command in ["delete", "download"] {
        let (code, _, said) = federation.job(&[command, &id]);
        assert!(code == 1 && said.contains("locule job watch"), "{command} {code}: {said}");
    }
    // Ctrl-C leaves the job as it is.
    let mut leaving = federation.watch(&id);
    leaving.wait_for("RUNNING");
    leaving.signal("INT");
    let (code, _, said) = leaving.finish();
    assert!(code == Some(130) && said.contains("goes on"), "{code:?}: {said}");

    assert_eq!(federation.ask(&["abort", &id])["job_id"], json!(id));
    let (code, out, said) = watching.finish();
    assert_eq!(code, Some(1), "{out}{said}");
    assert!(said.contains("FINISHED:ABORTED") && said.contains("scientist@university.org"), "{said}");
    federation.ask(&["delete", &id]);
    let (code, _, said) = federation.job(&["show", &id]);
    assert!(code == 66 && said.contains("locule job list"), "{code}: {said}");
}

#[test]
fn a_running_server_and_its_sites_say_what_they_would_refuse() {
    let federation = Federation::new(1, &["--refuse", "site-2"]);
    let mut server = federation.start_server();
    let _sites = ["site-1", "site-2"].map(|site| federation.start_site(site, &mut server));
    let check =
        |sites: &str| federation.job(&["check", text(&federation.job), "--sites", sites, "--output", "json"]);
    let (code, out, said) = check("all");
    assert!(code == 1 && said.contains("refused by site-2"), "{code}: {said}");
    let report: Value = serde_json::from_str(&out).unwrap();
    let verdicts: Vec<_> = report["checks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|check| (&check["site"], &check["verdict"]))
        .collect();
    assert_eq!(
        verdicts,
        [
            (&json!("server"), &json!("allowed")),
            (&json!("site-1"), &json!("allowed")),
            (&json!("site-2"), &json!("refused")),
        ]
    );
    assert_eq!(report["checks"][2]["refusals"][0]["code"], json!("not-agreed"));
    assert_eq!(check("server,site-1").0, 0);
    let (code, _, said) = check("site-1,site-9");
    assert!(code == 69 && said.contains("site-9"), "{code}: {said}");
    assert_eq!(federation.ask(&["list"]), json!([]), "nothing was submitted");

    // The same is found when it is submitted, and told.
    let (code, out, said) = federation.job(&["submit", text(&federation.job), "--watch"]);
    assert_eq!(code, 1, "{out}{said}");
    assert!(out.contains("site-2 refuses") && out.contains("not-agreed"), "{out}");
    assert!(said.contains("FINISHED:ABORTED"), "{said}");
}

/// Passes connections on from a port of its own. Of the first one nothing comes back any more once `limit` bytes have
/// gone out, until it is cut.
struct Wire {
    port: u16,
    /// The first connection, once it is that far.
    mute: Receiver<TcpStream>,
}

impl Wire {
    fn to(server: u16, limit: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (tell, mute) = channel();
        std::thread::spawn(move || {
            for (number, from) in listener.incoming().enumerate() {
                let (Ok(from), Ok(to)) = (from, TcpStream::connect(("127.0.0.1", server))) else { return };
                let sent = Arc::new(AtomicUsize::new(0));
                let limit = if number == 0 { limit } else { usize::MAX };
                let (out, back) = ((from.try_clone().unwrap(), to.try_clone().unwrap()), (to, from));
                let (counted, tell) = (Arc::clone(&sent), tell.clone());
                std::thread::spawn(move || {
                    pump(out.0, &out.1, |bytes| {
                        let before = counted.fetch_add(bytes, Ordering::SeqCst);
                        if before < limit && before + bytes >= limit {
                            tell.send(out.1.try_clone().unwrap()).ok();
                        }
                        true
                    });
                });
                std::thread::spawn(move || pump(back.0, &back.1, |_| sent.load(Ordering::SeqCst) < limit));
            }
        });
        Self { port, mute }
    }
}

/// Passes on what comes, as long as it is wanted; what is not is swallowed.
fn pump(mut from: TcpStream, mut to: &TcpStream, mut wanted: impl FnMut(usize) -> bool) {
    let mut buffer = [0; 16 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        if wanted(read) && to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    to.shutdown(Shutdown::Both).ok();
}

#[test]
fn a_job_whose_answer_is_lost_is_sent_again_and_is_one_job() {
    const BYTES: usize = 600_000;
    let federation = Federation::new(1, &[]);
    let mut noise = 7_u32;
    let noise = std::iter::repeat_with(|| {
        noise ^= noise << 13;
        noise ^= noise >> 17;
        noise ^= noise << 5;
        noise as u8
    });
    fs::write(federation.job.join("app/noise"), noise.take(BYTES).collect::<Vec<_>>()).unwrap();
    let mut server = federation.start_server();
    let config = federation.admin.join("startup/fed_admin.json");
    let mut document: Value = serde_json::from_str(&fs::read_to_string(&config).unwrap()).unwrap();
    let port = document["admin"]["port"].as_u64().unwrap();
    let wire = Wire::to(u16::try_from(port).unwrap(), BYTES);
    document["admin"]["port"] = json!(wire.port);
    fs::write(&config, document.to_string()).unwrap();

    let submitting =
        Running::start(&["job", "submit", text(&federation.job), "--kit", text(&federation.admin)]);
    let first = wire.mute.recv_timeout(e2e::PATIENCE).unwrap();
    server.wait_for("is SUBMITTED");
    first.shutdown(Shutdown::Both).unwrap();
    let (code, out, said) = submitting.finish();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("makes no second one"), "{said}");
    let listed = federation.ask(&["list"]);
    let [job] = listed.as_array().unwrap().as_slice() else { panic!("{listed}") };
    assert!(out.contains(job["id"].as_str().unwrap()), "{out}: {listed}");
}

#[test]
fn what_goes_wrong_at_a_console_says_what_to_do() {
    let federation = Federation::new(1, &[]);
    let admin = text(&federation.admin);
    let refused = |arguments: &[&str], code: i32, words: &[&str]| {
        let output = run(arguments);
        let said = said(&output);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        for word in words {
            assert!(said.contains(word), "{arguments:?} does not say {word:?}: {said}");
        }
        assert_eq!(said.matches("locule: ").count(), 1, "one message: {said}");
    };
    // No server.
    refused(
        &["job", "list", "--kit", admin, "--wait", "1"],
        69,
        &["not reached", "within 1 s", "is it started"],
    );

    // The administrator may look, and no more.
    let rights = json!({ "format_version": "1.0", "permissions": { "lead": { "view": "any" } } });
    fs::write(federation.prod.join("server/local/authorization.json"), rights.to_string()).unwrap();
    let mut server = federation.start_server();
    refused(
        &["job", "submit", text(&federation.job), "--kit", admin],
        77,
        &["scientist@university.org may not do that", "authorization.json"],
    );
    let site_kit = federation.prod.join("site-1");
    refused(&["job", "list", "--kit", text(&site_kit)], 78, &["administrator"]);
    refused(&["job", "list", "--kit", "nowhere"], 66, &["nowhere"]);
    for id in ["3e2d9f0e-1111-4222-8333-444455556666", "3e2d", "no-id", "--", ""] {
        refused(&["job", "show", "--kit", admin, "--", id], 66, &["locule job list"]);
    }
    let empty = federation.dir.path().join("empty");
    fs::create_dir(&empty).unwrap();
    refused(&["job", "submit", text(&empty), "--kit", admin], 65, &["meta"]);
    refused(&["job", "submit", "nowhere", "--kit", admin], 66, &["nowhere"]);
    refused(&["job", "check", text(&federation.job), "--sites", "all"], 64, &["--kit"]);
    let usage = run(&["job", "submit", "x", "--kit", admin, "--submit-token", "a b"]);
    assert!(usage.status.code() == Some(64) && said(&usage).contains("letters, digits"), "{}", said(&usage));

    // A folder that was changed after it was signed.
    let signed = run(&["sign", text(&federation.job), "--kit", admin]);
    assert!(signed.status.success(), "{}", said(&signed));
    let meta = federation.job.join("meta.json");
    fs::write(&meta, fs::read_to_string(&meta).unwrap() + "\n").unwrap();
    refused(&["job", "submit", text(&federation.job), "--kit", admin], 65, &["signatures", "locule sign"]);

    // Somebody else's project at the same address.
    let other = tempfile::tempdir().unwrap();
    let kits = provision(other.path(), 1);
    let config = kits.admin.join("startup/fed_admin.json");
    let port = fs::read_to_string(federation.admin.join("startup/fed_admin.json")).unwrap();
    let port = serde_json::from_str::<Value>(&port).unwrap()["admin"]["port"].clone();
    let mut document: Value = serde_json::from_str(&fs::read_to_string(&config).unwrap()).unwrap();
    document["admin"]["port"] = port;
    fs::write(&config, document.to_string()).unwrap();
    refused(&["job", "list", "--kit", text(&kits.admin)], 77, &["same project"]);
    server.close_stdin();
}

#[test]
fn jobs_wait_for_gpus_and_a_higher_priority_overtakes() {
    let federation = Federation::new(100_000, &[]);
    for name in ["site-1", "site-2"] {
        let local = federation.prod.join(name).join("local");
        let read = ["resources.json", "resources.json.default"]
            .iter()
            .find_map(|file| fs::read_to_string(local.join(file)).ok());
        let mut resources: Value = serde_json::from_str(&read.unwrap()).unwrap();
        resources["resources"] = json!({ "num_of_gpus": 2 });
        fs::write(local.join("resources.json"), resources.to_string()).unwrap();
    }
    let mut server = federation.start_server();
    let site = federation.start_site("site-1", &mut server);
    let _two = federation.start_site("site-2", &mut server);
    let submit = |gpus: u64, priority: i64| {
        federation.edit("meta.json", |meta| {
            meta["resource_spec"] = json!({ "@default": { "num_of_gpus": gpus } });
            meta["priority"] = json!(priority);
        });
        federation.submit()
    };
    let runs = |id: &str| {
        federation.watch(id).wait_for("RUNNING");
    };
    let why = |id: &str| federation.ask(&["show", id])["waits"].as_str().unwrap_or_default().to_owned();

    let first = submit(1, 0);
    runs(&first);
    let second = submit(1, 0);
    runs(&second);
    let mut given: Vec<String> = site.children().into_iter().filter_map(gpu_of).collect();
    given.sort();
    assert_eq!(given, ["0", "1"], "each has one of its own");

    let third = submit(1, 0);
    let told = federation.watch(&third).wait_for("it waits: too few sites are ready");
    assert!(told.contains("site-1: it has 0 of 2 GPUs free, and the job wants 1"), "{told}");
    let uses = |id: &str| format!("job {} uses 1", &id[..8]);
    assert!(told.contains(&uses(&first)) && told.contains(&uses(&second)), "{told}");
    assert!(told.contains("(since 20"), "{told}");
    let urgent = submit(1, 5);
    federation.watch(&urgent).wait_for("it waits: too few sites are ready");
    let (_, table, _) = federation.job(&["list"]);
    assert!(table.contains("0 of 2 GPUs free"), "{table}");
    assert!(federation.ask(&["show", &third])["waits_since"].as_f64().unwrap() > 1e9);

    federation.job(&["abort", &first]);
    runs(&urgent);
    assert!(why(&third).contains(&uses(&urgent)), "it was overtaken: {}", why(&third));
    federation.job(&["abort", &second]);
    runs(&third);
    assert_eq!(why(&third), "");

    let never = submit(3, 0);
    let (code, out, said) = federation.watch(&never).finish();
    assert_eq!(code, Some(1), "{out}{said}");
    let said = "too few sites are ready: site-1: it has 2 GPUs, and the job wants 3; site-2: it has 2 GPUs";
    assert!(out.contains("FINISHED:CAN_NOT_SCHEDULE") && out.contains(said), "{out}");
    for id in [&third, &urgent] {
        federation.job(&["abort", id]);
    }
}

/// The GPUs that a process was given.
fn gpu_of(process: u32) -> Option<String> {
    let environment = fs::read(format!("/proc/{process}/environ")).ok()?;
    let mut variables = environment.split(|byte| *byte == 0);
    let given = variables.find_map(|variable| variable.strip_prefix(b"CUDA_VISIBLE_DEVICES="))?;
    String::from_utf8(given.to_vec()).ok()
}
