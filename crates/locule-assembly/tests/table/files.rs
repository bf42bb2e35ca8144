//! Finding files (3.1), files of a site (3.2), metas (3.6).

use super::*;

pub(crate) fn files() -> Vec<Row> {
    let found = |files: &[&str]| {
        let dir = tree(files.iter().map(|file| (*file, "{}")));
        let found = ConfigFile::find_below(&[dir.path()], "config_fed_client.json").unwrap();
        found.map_or("nothing".to_owned(), |file| shown(file.path.strip_prefix(dir.path()).unwrap()))
    };
    let read = |name: &str, text: &str| {
        let dir = tree([(name, text)]);
        match ConfigFile::find_below(&[dir.path()], name).unwrap().unwrap().read() {
            Ok(document) => document.root().to_json().to_string(),
            Err(ReadConfigError::Mistakes(mistakes)) => codes(&mistakes),
            Err(error) => error.to_string(),
        }
    };
    vec![
        same(
            "3.1",
            "JSON first",
            found(&["config_fed_client.conf", "config_fed_client.json"]),
            "config_fed_client.json",
        ),
        same(
            "3.1",
            "then HOCON",
            found(&["config_fed_client.yml", "config_fed_client.conf"]),
            "config_fed_client.conf",
        ),
        same(
            "3.1",
            "then .yml",
            found(&["config_fed_client.yaml", "config_fed_client.yml"]),
            "config_fed_client.yml",
        ),
        same(
            "3.1",
            "then .yaml, then defaults",
            found(&["config_fed_client.json.default", "config_fed_client.yaml"]),
            "config_fed_client.yaml",
        ),
        same(
            "3.1",
            "defaults in the same order",
            found(&["config_fed_client.yml.default", "config_fed_client.conf.default"]),
            "config_fed_client.conf.default",
        ),
        same(
            "3.1",
            "the ending counts more than the depth",
            found(&["config_fed_client.conf", "a/b/config_fed_client.json"]),
            "a/b/config_fed_client.json",
        ),
        same("3.1", "another ending is none", found(&["config_fed_client.toml"]), "nothing"),
        differs(
            "3.1",
            "two of one name in two folders",
            "whichever the file system lists first",
            found(&["b/config_fed_client.json", "a/config_fed_client.json"]),
            "a/config_fed_client.json",
            "Files of one name in several folders",
        ),
        differs("3.1", "comments in JSON", "refused", read("x.json", "{} // note"), "{}", "Comments in JSON"),
        same("3.1", "a root that is no object", read("x.json", "[]"), "E0005"),
        differs(
            "3.1",
            "a key twice in JSON",
            "the last one counts",
            read("x.json", r#"{"a": 1, "a": 2}"#),
            "E0002",
            "Keys that are written twice",
        ),
        differs(
            "3.1",
            "interpolations in YAML",
            "OmegaConf replaces them",
            read("x.yml", "a: ${b}\nb: 1"),
            "E0006",
            "YAML is not OmegaConf",
        ),
        same("3.1", "YAML words", read("x.yml", "a: yes\nb: 0x10\nc: ~"), r#"{"a":true,"b":16,"c":null}"#),
        same(
            "3.1",
            "HOCON values",
            read("x.conf", "a.b = [x y, 1]\nc = ${a} { d = true }"),
            r#"{"a":{"b":["x y",1]},"c":{"b":["x y",1],"d":true}}"#,
        ),
        differs(
            "3.1",
            "HOCON durations",
            "a timedelta",
            read("x.conf", "a = 5 s"),
            r#"{"a":"5 s"}"#,
            "HOCON",
        ),
        differs(
            "3.1",
            "HOCON and the environment",
            "its value",
            read("x.conf", "a = ${HOME}"),
            "E0301",
            "HOCON",
        ),
        differs(
            "3.1",
            "HOCON include",
            "the file, or nothing",
            read("x.conf", "include \"y\""),
            "E0006",
            "HOCON",
        ),
    ]
}

pub(crate) fn site_files() -> Vec<Row> {
    let merged = |files: &[(&str, &str)], key: &str| {
        let kit = kit(files);
        match job_resources(&Workspace::new(kit.path()), "fed_client.json") {
            Ok(document) => {
                document.root().get(key).map_or("absent".into(), |node| node.to_json().to_string())
            }
            Err(KitError::Configuration { mistakes, .. }) => codes(&mistakes),
            Err(error) => error.to_string(),
        }
    };
    let two = |first: &str, second: &str, key: &str| {
        merged(&[("local/resources.json", first), ("local/job_resources.json", second)], key)
    };
    let checkers = |components: Value| {
        let resources = json!({ "class_allow_list": ["*"], "components": components }).to_string();
        app_in(
            &[("local/resources.json", &resources)],
            Side::Site,
            &site_app(json!({"path": "sample.Trainer"})),
        )
    };
    let guard = json!({"id": "g", "path": "sample.Guard"});
    vec![
        same(
            "3.2",
            "what the operator wrote replaces the default",
            merged(
                &[
                    ("local/resources.json", r#"{"a": 1}"#),
                    ("local/resources.json.default", r#"{"a": 2, "b": 3}"#),
                ],
                "b",
            ),
            "absent",
        ),
        same(
            "3.2",
            "the startup file comes first",
            merged(
                &[("startup/fed_client.json", r#"{"a": 1}"#), ("local/resources.json", r#"{"a": 2}"#)],
                "a",
            ),
            "1",
        ),
        same(
            "3.2",
            "patterns, startup before local, jobs' before parents'",
            merged(
                &[
                    ("local/resources.json", r#"{"components": [1]}"#),
                    ("local/job_resources.json", r#"{"components": [2]}"#),
                    ("startup/x__resources.json", r#"{"components": [3]}"#),
                    ("startup/x__j_resources.json", r#"{"components": [4]}"#),
                    ("startup/x__p_resources.json", r#"{"components": ["of the parent"]}"#),
                    ("local/x__resources.json", r#"{"components": [5]}"#),
                    ("local/x__j_resources.json", r#"{"components": [6]}"#),
                ],
                "components",
            ),
            "[1,2,3,4,5,6]",
        ),
        same("3.2", "new keys are added", two(r#"{"a": 1}"#, r#"{"b": 2}"#, "b"), "2"),
        same(
            "3.2",
            "objects merge",
            two(r#"{"o": {"a": 1}}"#, r#"{"o": {"a": 2, "b": 3}}"#, "o"),
            r#"{"a":1,"b":3}"#,
        ),
        same(
            "3.2",
            "components are appended",
            two(r#"{"components": [1]}"#, r#"{"components": [2]}"#, "components"),
            "[1,2]",
        ),
        same(
            "3.2",
            "lists of objects merge pairwise",
            two(r#"{"l": [{"a": 1}]}"#, r#"{"l": [{"b": 2}]}"#, "l"),
            r#"[{"a":1,"b":2}]"#,
        ),
        same("3.2", "an earlier scalar stays", two(r#"{"a": "x"}"#, r#"{"a": "y"}"#, "a"), r#""x""#),
        differs(
            "3.2",
            "lists of equal scalars",
            "the rest of the file is dropped",
            two(r#"{"l": [1, 2]}"#, r#"{"l": [1, 2], "b": 3}"#, "b"),
            "3",
            "Files of a site that disagree",
        ),
        differs(
            "3.2",
            "lists of other lengths",
            "the rest of the file is dropped",
            two(r#"{"l": [{}]}"#, r#"{"l": [{}, {}], "b": 3}"#, "b"),
            "E0201",
            "Files of a site that disagree",
        ),
        differs(
            "3.2",
            "other types",
            "the rest of the file is dropped",
            two(r#"{"format_version": 2}"#, r#"{"format_version": "2", "components": []}"#, "components"),
            "E0201",
            "Files of a site that disagree",
        ),
        differs(
            "3.2",
            "a whole number and a fraction",
            "the rest of the file is dropped",
            two(r#"{"a": 1}"#, r#"{"a": 1.5, "b": 2}"#, "b"),
            "2",
            "Files of a site that disagree",
        ),
        differs(
            "3.2",
            "mistakes in two files",
            "the first",
            merged(&[("local/resources.json", "{"), ("local/job_resources.json", "[")], "a"),
            "E0001 E0001",
            "All mistakes at once",
        ),
        same("3.2", "no format_version", two("{}", "{}", "format_version"), "absent"),
        same("3.2", "a component without id", checkers(json!([{"path": "sample.Guard"}])), "policy E0106"),
        same(
            "3.2",
            "an id that is no text",
            checkers(json!([{"id": 1, "path": "sample.Guard"}])),
            "policy E0102",
        ),
        same("3.2", "an id twice", checkers(json!([guard, guard])), "policy E0107"),
        same(
            "3.2",
            "a class that cannot be loaded",
            checkers(json!([{"id": "g", "path": "no.such.Guard"}])),
            "policy E0402",
        ),
        differs(
            "3.2",
            "a misspelt policy",
            "without effect",
            app_in(
                &[("local/resources.json", r#"{"class_alow_list": []}"#)],
                Side::Site,
                &site_app(json!({"path": "sample.Trainer"})),
            ),
            "policy E0110",
            "Misspelt policies",
        ),
    ]
}

pub(crate) fn metas() -> Vec<Row> {
    let meta = |value: Value| {
        let document = Document::parse_json("meta.json", &value.to_string()).unwrap();
        match JobMeta::from_document(&document, "j") {
            Ok(_) => "taken".to_owned(),
            Err(mistakes) => mistakes.iter().next().unwrap().message.clone(),
        }
    };
    let map = |value: Value| meta(json!({"deploy_map": value}));
    vec![
        same("3.6", "all sites", map(json!({"app": ["@ALL"]})), "taken"),
        same("3.6", "sites by name", map(json!({"a": ["server"], "b": ["site-1"]})), "taken"),
        same("3.6", "objects", map(json!({"a": ["server"], "b": [{"sites": ["site-1"]}]})), "taken"),
        same("3.6", "targets", map(json!({"a": ["server"], "b": [{"targets": ["site-1"]}]})), "taken"),
        same("3.6", "no deploy_map", meta(json!({})), "deploy_map is empty for job j"),
        same(
            "3.6",
            "a deploy_map that is none",
            map(json!([1])),
            "deploy_map must be a dictionary for job j",
        ),
        same(
            "3.6",
            "@ALL and another",
            map(json!({"a": ["@ALL", "x"]})),
            "No other site can be specified if @ALL is used for job j",
        ),
        same(
            "3.6",
            "no server",
            map(json!({"a": ["site-1"]})),
            "Missing server site in deploy_map for job j",
        ),
        same(
            "3.6",
            "too few clients",
            meta(json!({"deploy_map": {"a": ["server", "x"]}, "min_clients": 2})),
            "min 2 clients required for job j, found 1.",
        ),
        same(
            "3.6",
            "min_clients of zero",
            meta(json!({"deploy_map": {"a": ["@ALL"]}, "min_clients": 0})),
            "min_clients 0 must be positive for job j",
        ),
        same(
            "3.6",
            "resources that are none",
            meta(json!({"deploy_map": {"a": ["@ALL"]}, "resource_spec": 1})),
            "Invalid resource_spec for job j",
        ),
        same(
            "3.6",
            "byoc in the upload is discarded",
            {
                let text = json!({"deploy_map": {"a": ["@ALL"]}, "byoc": true}).to_string();
                let meta =
                    JobMeta::from_document(&Document::parse_json("meta.json", &text).unwrap(), "j").unwrap();
                meta.to_json(false)["byoc"].to_string()
            },
            "null",
        ),
    ]
}
