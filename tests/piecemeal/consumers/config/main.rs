//! A linter: every mistake of a configuration file at once, each with its place and a suggestion.

use locule_config::{Diagnostics, Document, Variables, merge};

const SHIPPED: &str = r#"{ "port": 8002, "components": [] }"#;
const OWN: &str = r#"{ // what this site adds
    "components": [
        { "id": "log", "args": { "file": "{SITE_NAM}.log" } },
        { "id": "mail", "args": { "to": "{$MAIL}" } } ] }"#;

fn main() -> Result<(), Diagnostics> {
    let document = merge(&[
        Document::parse_json("resources.json", SHIPPED)?,
        Document::parse_json("job_resources.json", OWN)?,
    ])?;
    let mistakes =
        document.substitute(&Variables::new().set("SITE_NAME", "site-1")).err().unwrap_or_default();
    let places: Vec<_> =
        mistakes.iter().map(|one| (one.file.as_str(), one.line, one.path.as_str())).collect();
    assert_eq!(
        places,
        [
            ("job_resources.json", 3, "components.#1.args.file"),
            ("job_resources.json", 4, "components.#2.args.to")
        ]
    );
    assert!(mistakes.to_string().contains("did you mean"), "{mistakes}");
    Ok(())
}
