//! A policy linter: judges a review document by a policy, and shows what can never count in another.

use std::error::Error;

use locule_component::Decision;
use locule_policy_rego::{Policy, TEMPLATE};

fn main() -> Result<(), Box<dyn Error>> {
    let mut policy = Policy::parse("policy.rego", TEMPLATE)?;
    let document =
        r#"{"components": [{"name": "locule.demo.Trainer", "path": "executors.#1.executor"}], "job": {}}"#;
    let verdicts = policy.review(document)?;
    assert_eq!(verdicts[0].decision, Decision::Deny);
    let typo = TEMPLATE.replace("component.name", "component.nmae");
    assert!(Policy::parse("policy.rego", &typo).is_err());
    Ok(())
}
