//! Variables (3.5) and the list of allowed classes (4.3).

use super::*;

pub(crate) fn variables() -> Vec<Row> {
    let of = |written: &str| {
        let document = json!({
            "own": {"lr": 0.1, "site": "{SITE_NAME}"}, "yes": true, "nothing": null, "SITE_NAME": "hidden",
            "two words": 2, "rate": 0.1, "l": [1], "x": written,
            "@net": {"in": "{in}", "out": "{out}", "site": "{SITE_NAME}"}, "@plain": {"a": 1}, "@number": 1,
        });
        let document = Document::parse_json("x.json", &document.to_string()).unwrap();
        let variables =
            Variables::new().set("SITE_NAME", "hospital-1").set("ROUNDS", 3).environment("MYVAR", "v");
        match document.substitute(&variables) {
            Ok(document) => document.root().get("x").unwrap().to_json().to_string(),
            Err(mistakes) => codes(&mistakes),
        }
    };
    let circle = |length: usize| {
        let mut document = json!({"format_version": 2});
        (0..length).for_each(|i| document[format!("v{i}")] = format!("{{v{}}}", (i + 1) % length).into());
        let document = Document::parse_json("x.json", &document.to_string()).unwrap();
        codes(&document.substitute(&Variables::new()).unwrap_err())
            .split(' ')
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    vec![
        same("3.5", "{name}, whole", of("{ROUNDS}"), "3"),
        same("3.5", "{name}, an object", of("{own}"), r#"{"lr":0.1,"site":"hospital-1"}"#),
        same("3.5", "{name} with blanks around", of(" {ROUNDS}\n"), "3"),
        same("3.5", "{name} in text", of("data/{SITE_NAME}/{ROUNDS}.csv"), r#""data/hospital-1/3.csv""#),
        same("3.5", "a system variable counts before an entry", of("{SITE_NAME}"), r#""hospital-1""#),
        differs("3.5", "an unknown name, whole", "null", of("{missing}"), "E0301", "Unknown variables"),
        differs(
            "3.5",
            "an unknown name in text",
            "as written",
            of("a {missing} b"),
            "E0301",
            "Unknown variables",
        ),
        same("3.5", "a name that may be missing, whole", of("{missing?}"), "null"),
        differs(
            "3.5",
            "a name that may be missing, in text",
            "as written",
            of("a{missing?}b"),
            r#""ab""#,
            "Unknown variables",
        ),
        same("3.5", "{$NAME}", of("{$MYVAR}/x"), r#""v/x""#),
        differs("3.5", "an unknown {$NAME}", "null", of("{$NOPE}"), "E0301", "The environment"),
        same("3.5", "{@name:k=v}", of("{@net:in=3:out=4}"), r#"{"in":3,"out":4,"site":"hospital-1"}"#),
        same(
            "3.5",
            "{@name:k=v}, fractions, `=`",
            of("{@net:in=0.5:out=a=b}"),
            r#"{"in":0.5,"out":"a=b","site":"hospital-1"}"#,
        ),
        same(
            "3.5",
            "{@name:k=v}, truth values",
            of("{@net:in=yes:out=No}"),
            r#"{"in":true,"out":false,"site":"hospital-1"}"#,
        ),
        same(
            "3.5",
            "{@name:k={x}}",
            of("{@net:in={ROUNDS}:out={own}}"),
            r#"{"in":3,"out":{"lr":0.1,"site":"hospital-1"},"site":"hospital-1"}"#,
        ),
        same("3.5", "{@name} without parameters", of("{@plain}"), r#"{"a":1}"#),
        same("3.5", "parameters of an entry without @", of("{own:x=1}"), r#"{"lr":0.1,"site":"hospital-1"}"#),
        same("3.5", "{@name:…} that is not defined", of("{@nope:a=1}"), "E0301"),
        same("3.5", "{@name:…} that is no object", of("{@number:a=1}"), "E0304"),
        differs(
            "3.5",
            "a parameter without value",
            "empty text",
            of("{@net:in}"),
            "E0304",
            "References with parameters",
        ),
        differs(
            "3.5",
            "{@name} in text",
            "the object as Python writes it",
            of("a {@plain} b"),
            "E0303",
            "References with parameters",
        ),
        same("3.5", "${secret:NAME}", of("${secret:TOKEN}"), r#""${secret:TOKEN}""#),
        same(
            "3.5",
            "${secret:NAME} beside a variable",
            of("${secret:TOKEN} {ROUNDS}"),
            r#""${secret:TOKEN} 3""#,
        ),
        same("3.5", "${name} of a variable", of("${ROUNDS}"), r#""$3""#),
        same("3.5", "${name} of none", of("${HOME2}"), r#""${HOME2}""#),
        differs("3.5", "{{x}}", "the value of x", of("{{SITE_NAME}}"), r#""{SITE_NAME}""#, "Braces"),
        same("3.5", "braces around no name, in text", of("[a-z]{2,3}"), r#""[a-z]{2,3}""#),
        differs("3.5", "empty braces", "null", of("{}"), r#""{}""#, "Braces"),
        differs("3.5", "braces around a number", "null", of("{1}"), r#""{1}""#, "Braces"),
        differs(
            "3.5",
            "braces around what looks like JSON",
            "an exception",
            of("{ \"a\": 1 }"),
            r#""{ \"a\": 1 }""#,
            "Braces",
        ),
        same("3.5", "a name with blanks, whole", of("{two words}"), "2"),
        differs(
            "3.5",
            "a name with blanks, in text",
            "x 2",
            of("x {two words}"),
            r#""x {two words}""#,
            "Braces",
        ),
        differs(
            "3.5",
            "a format, whole",
            "an exception",
            of("{rate:.3f}"),
            "E0304",
            "Formats and attributes",
        ),
        differs("3.5", "a format in text", "r 0.100", of("r {rate:.3f}"), "E0304", "Formats and attributes"),
        differs(
            "3.5",
            "an attribute in text",
            "x <class 'dict'>",
            of("x {own.__class__}"),
            "E0301",
            "Formats and attributes",
        ),
        differs("3.5", "an item in text", "x 0.1", of("x {own[lr]}"), "E0301", "Formats and attributes"),
        differs("3.5", "a list in text", "a [1] b", of("a {l} b"), "E0303", "Values in text"),
        differs(
            "3.5",
            "truth values in text",
            "True None",
            of("{yes} {nothing}"),
            r#""true null""#,
            "Values in text",
        ),
        same("3.5", "a circle", circle(2), "E0302"),
        same("3.5", "more than 20 levels", circle(30), "E0302"),
        same(
            "3.5",
            "@ entries are no part of the document",
            {
                let document = Document::parse_json("x.json", r#"{"@a": {"b": "{c}"}, "d": 1}"#).unwrap();
                document.substitute(&Variables::new()).unwrap().root().to_json().to_string()
            },
            r#"{"d":1}"#,
        ),
        same(
            "3.5",
            "keys stay as they are",
            {
                let document = Document::parse_json("x.json", r#"{"a": 1, "b": {"{a}": "{a}"}}"#).unwrap();
                document.substitute(&Variables::new()).unwrap().root().get("b").unwrap().to_json().to_string()
            },
            r#"{"{a}":1}"#,
        ),
        differs(
            "3.5",
            "ROOT_URL, CP_URL, RELAY_URL of a site",
            "addresses",
            app(
                Side::Site,
                &site_app(json!({"path": "sample.Trainer", "args": {"notes": {"x": "{ROOT_URL}"}}})),
            ),
            "E0301",
            "System variables",
        ),
        same(
            "3.5",
            "the other system variables",
            app(
                Side::Site,
                &site_app(json!({"path": "sample.Trainer", "args": {"notes": {
                "x": "{SITE_NAME}{JOB_ID}{WORKSPACE}{SECURE_MODE}{JOB_CUSTOM_DIR}{JOB_CONFIG_DIR}"}}})),
            ),
            "executors.#1.executor",
        ),
    ]
}

pub(crate) fn allow_list() -> Vec<Row> {
    let with = |resources: Value, element: Value| {
        app_in(&[("local/resources.json", &resources.to_string())], Side::Site, &site_app(element))
    };
    let path = |list: Value, path: &str| with(json!({"class_allow_list": list}), json!({"path": path}));
    const NP: &str = "nvflare.app_common.np.np_trainer.NPTrainer";
    const PLANNED: &str = "executors.#1.executor";
    vec![
        same("4.3", "an exact class", path(json!([NP]), NP), PLANNED),
        same("4.3", "a prefix", path(json!(["nvflare.app_common."]), NP), PLANNED),
        same("4.3", "a module without dot at its end", path(json!(["nvflare.app_common"]), NP), PLANNED),
        same(
            "4.3",
            "no boundary at a dot",
            path(json!(["nvflare.app_comm"]), NP),
            "refused not-on-allow-list",
        ),
        same("4.3", "everything", path(json!(["x.Y", "*"]), "sample.Trainer"), PLANNED),
        same("4.3", "not on the list", path(json!(["a.B"]), NP), "refused not-on-allow-list"),
        differs(
            "4.3",
            "another name of a class on the list",
            "not on the list",
            path(json!([NP]), "sample.Trainer"),
            PLANNED,
            "The list of allowed classes",
        ),
        differs(
            "4.3",
            "no list",
            "88 classes of nvflare",
            with(json!({}), json!({"path": "sample.Trainer"})),
            PLANNED,
            "The list of allowed classes",
        ),
        same(
            "4.3",
            "a name",
            with(json!({"class_allow_list": ["a.B"]}), json!({"name": "Trainer"})),
            "refused short-name",
        ),
        differs(
            "4.3",
            "a name beside a path",
            "refused",
            with(
                json!({"class_allow_list": ["sample."]}),
                json!({"name": "Trainer", "path": "sample.Trainer"}),
            ),
            PLANNED,
            "The list of allowed classes",
        ),
        differs(
            "4.3",
            "an entry without dot",
            "every component is refused",
            path(json!(["sample"]), NP),
            "policy E0401",
            "The list of allowed classes",
        ),
        differs(
            "4.3",
            "an entry with blanks",
            "every component is refused",
            path(json!([" a.B"]), NP),
            "policy E0401",
            "The list of allowed classes",
        ),
        differs(
            "4.3",
            "a list that is none",
            "every component is refused",
            path(json!("a.B"), NP),
            "policy E0401",
            "The list of allowed classes",
        ),
        same(
            "4.3",
            "mode warn",
            with(
                json!({"class_allow_list": ["a.B"], "class_list_enforcement_mode": "warn"}),
                json!({"path": NP}),
            ),
            PLANNED,
        ),
        differs(
            "4.3",
            "a mode that is none",
            "every component is refused",
            with(
                json!({"class_allow_list": ["a.B"], "class_list_enforcement_mode": "wran"}),
                json!({"path": NP}),
            ),
            "policy E0401",
            "The list of allowed classes",
        ),
        differs(
            "4.3",
            "a job that brings code",
            "the list is skipped",
            {
                let (kit, deployed) = deployed(
                    &[("local/resources.json", r#"{"class_allow_list": ["a.B"]}"#)],
                    Side::Site,
                    &site_app(json!({"path": NP})),
                );
                fs::create_dir(deployed.app_dir.join("custom")).unwrap();
                let outcome = outcome(&deployed);
                drop(kit);
                outcome
            },
            "refused not-on-allow-list",
            "The list of allowed classes",
        ),
    ]
}
