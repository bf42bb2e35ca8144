//! Texts and archives: configurations, projects, commands, jobs.

use std::path::Path;

use locule_admin::{CommandDocument, Item, ReplyDocument, Rights, line, words};
use locule_config::{Document, Variables, merge};
use locule_job::{JobMeta, Limits, unpack};
use locule_provision::ProjectFile;

use crate::{Allowance, Mutator, Target, some};

pub(crate) const CONFIG: Target = Target {
    name: "config",
    about: "configurations, in JSON and in YAML",
    seeds: || {
        let texts = [
            r#"{"format_version": 2, "min_clients": 2, "workflows": [{"id": "a", "args": {"n": "{min_clients}"}}]}"#,
            "// note\n{\"a\": [1, 2.5, -3e4, null, true], \"b\": \"\\u00fc\\n\", \"c\": \"{$WORKSPACE}/x\"}",
            "a: &x {b: [1, 2]}\nc: *x\nd:\n  <<: *x\n  e: |\n    text\n",
            r#"{"@net": {"in": "{in}"}, "a": "{@net:in={n}:x=2}", "n": [1], "b": "${secret:T} {c?}"}"#,
            "name: demo\nresource_spec: {}\nmin_clients: 2\ndeploy_map:\n  app: [\"@ALL\"]\n",
        ];
        let kits = include_str!("../../../vectors/kits/kits.json");
        texts
            .into_iter()
            .map(|text| text.as_bytes().to_vec())
            .chain([kits.as_bytes()[..4000.min(kits.len())].to_vec()])
            .collect()
    },
    edit: |_: &mut Mutator, _| None,
    run: |input| {
        let text = String::from_utf8_lossy(input);
        let mut outcome = String::new();
        for document in [Document::parse_json("a.json", &text), Document::parse_yaml("a.yml", &text)] {
            match document {
                Ok(document) => {
                    let json = document.root().to_json().to_string();
                    if json.len() <= Document::MAX_LEN {
                        let again = Document::parse_json("a.json", &json).expect("what is written is read");
                        assert_eq!(again.root().to_json().to_string(), json);
                    }
                    let variables = Variables::new().set("min_clients", 3).environment("WORKSPACE", "w");
                    outcome += match document.substitute(&variables) {
                        Ok(_) => "substituted ",
                        Err(_) => "not substituted ",
                    };
                    outcome +=
                        if merge(&[document.clone(), document.clone()]).is_ok() { "merged " } else { "" };
                    outcome += match JobMeta::from_document(&document, "job") {
                        Ok(_) => "meta",
                        Err(_) => "no meta",
                    };
                }
                Err(mistakes) => {
                    let first = mistakes.iter().next().expect("an error says what is wrong");
                    outcome += &format!("{} {}", first.code, first.message);
                    assert!(mistakes.to_string().len() <= 64 * 1024 + 8 * text.len(), "a report without end");
                }
            }
            outcome.push(';');
        }
        outcome
    },
    allowance: Allowance { memory: (1 << 20, 2500), work: (20_000, 300) },
};

pub(crate) const HOCON: Target = Target {
    name: "hocon",
    about: "configurations, in HOCON",
    seeds: || {
        let texts = [
            "format_version = 2 # note\nworkflows = [{ id : a, args { n = ${n} } }]\nn = 3\n",
            "a { b = 1, c.d = [x y, \"z\"] }\na.b = ${?a.c} // note\na += 1\nl = [1]\nl += 2\nl = ${l} [3]\n",
            "t = \"\"\"x\n\"y\"\"\"\"\nu = ${v}${v}\nv = ${?w} -1.5e3 10MB\nw { x = ${w.y}, y = {} } { z = null }\n",
            "{\"json\": [1, -2.5, true, {\"\\u00e9\": \"{x}\"}],}\n",
            "include \"x\"\n\"a.b\".c = [\n1\n2,\n]\nname = \"${secret:TOKEN}\"\n",
        ];
        texts.into_iter().map(|text| text.as_bytes().to_vec()).collect()
    },
    edit: |_: &mut Mutator, _| None,
    run: |input| match Document::parse_hocon("a.conf", &String::from_utf8_lossy(input)) {
        Ok(document) => {
            let json = document.root().to_json().to_string();
            if json.len() <= Document::MAX_LEN {
                for again in [Document::parse_json("a.json", &json), Document::parse_hocon("a.conf", &json)] {
                    let again = again.expect("what is written is read, and JSON is HOCON");
                    assert_eq!(again.root().to_json().to_string(), json);
                }
            }
            format!("{} entries", some(document.root().entries().count()))
        }
        Err(mistakes) => {
            let first = mistakes.iter().next().expect("an error says what is wrong");
            format!("{} {}", first.code, first.message)
        }
    },
    allowance: Allowance { memory: (48 << 20, 4000), work: (2_000_000, 400) },
};

pub(crate) const PROJECT: Target = Target {
    name: "project",
    about: "a project file of provisioning",
    seeds: || vec![include_bytes!("../../../vectors/kits/project.yml").to_vec()],
    edit: |_: &mut Mutator, _| None,
    run: |input| match ProjectFile::parse("project.yml", &String::from_utf8_lossy(input), Path::new("p")) {
        Ok(file) => format!("{} {}", some(file.project.sites.len()), some(file.warnings.len())),
        Err(mistakes) => {
            let first = mistakes.iter().next().expect("an error says what is wrong");
            format!("{} {}", first.code, first.message)
        }
    },
    allowance: Allowance { memory: (1 << 20, 2500), work: (20_000, 200) },
};

pub(crate) const ADMIN: Target = Target {
    name: "admin",
    about: "commands of administrators, the answers to them, and who may give them",
    seeds: || {
        let command = CommandDocument {
            token: Some("t".into()),
            timeout: Some(std::time::Duration::from_secs(5)),
            ..CommandDocument::new(r#"submit_job "a b" 'c' \d"#)
        };
        let mut reply = ReplyDocument::new();
        reply.items = vec![
            Item::Text("a".into()),
            Item::Table(vec![vec!["a".into(), 1.into()]]),
            Item::Dict(serde_json::json!({ "a": [1] })),
            Item::Token("t".into()),
        ];
        let rights = r#"{"format_version": "1.0", "permissions": {"lead": {"submit_job": "any", "view": ["o:site", "n:submitter"]}, "member": "none"}}"#;
        vec![
            command.to_text("now").into_bytes(),
            reply.to_text("now").into_bytes(),
            rights.as_bytes().to_vec(),
        ]
    },
    edit: |_: &mut Mutator, _| None,
    run: |input| {
        let text = String::from_utf8_lossy(input);
        let mut outcome = match CommandDocument::parse(&text) {
            Ok(command) => {
                let again = CommandDocument::parse(&command.to_text("now")).expect("what is written is read");
                assert!(again == command, "{again:?} {command:?}");
                let words = words(&command.command);
                assert_eq!(self::words(&line(words.iter().map(String::as_str))), words);
                format!("{} words {}", some(words.len()), command.timeout.is_some())
            }
            Err(error) => format!("{error:?}"),
        };
        outcome += &match ReplyDocument::parse(&text) {
            Ok(reply) => {
                let again = ReplyDocument::parse(&reply.to_text("now")).expect("what is written is read");
                assert!(again == reply, "{again:?} {reply:?}");
                format!("{} items", some(reply.items.len()))
            }
            Err(error) => format!("{error:?}"),
        };
        if let Ok(policy) = serde_json::from_str(&text) {
            outcome += &Rights::parse(&policy).err().unwrap_or_default();
        }
        outcome
    },
    allowance: Allowance { memory: (1 << 16, 1200), work: (1000, 60) },
};

pub(crate) const ARCHIVE: Target = Target {
    name: "archive",
    about: "a job as an archive",
    seeds: || {
        let folder = tempfile::tempdir().expect("a folder");
        let job = folder.path().join("job");
        std::fs::create_dir_all(job.join("app/config")).expect("a folder");
        std::fs::write(job.join("meta.json"), "{}").expect("a file");
        std::fs::write(job.join("app/config/a.json"), "[1]".repeat(100)).expect("a file");
        vec![
            locule_job::pack_job(&job).expect("it is small"),
            locule_job::pack_app(&job).expect("it is small"),
        ]
    },
    edit: |_: &mut Mutator, _| None,
    run: |input| {
        let folder = tempfile::tempdir().expect("a folder");
        let into = folder.path().join("job");
        let mut limits = Limits::default();
        (limits.max_bytes, limits.max_entries) = (1 << 16, 20);
        match unpack(input, &into, &limits) {
            Ok(unpacked) => {
                assert!(unpacked.bytes <= 1 << 16 && unpacked.entries <= 20, "{unpacked:?}");
                format!("{} {}", some(unpacked.entries), some(unpacked.bytes as usize))
            }
            Err(error) => {
                assert_eq!(
                    std::fs::read_dir(folder.path()).expect("it is there").count(),
                    0,
                    "nothing is left"
                );
                format!("{error:?}")
            }
        }
    },
    allowance: Allowance { memory: (256 << 10, 60), work: (1000, 8) },
};
