//! A site's checker as a WebAssembly component: refuses what the operator names in the entry of the checker.
//!
//! ```json
//! { "id": "comp_checker", "path": "comp_auth.wasm", "args": { "refused": ["example.Shell"] } }
//! ```
//!
//! Without such `args` it refuses every plan, with the reason in the site's log.

use serde::Deserialize;

wit_bindgen::generate!({ path: "../wit", world: "checker" });

struct CompAuth;

export!(CompAuth);

impl Guest for CompAuth {
    fn review(plan: String) -> Result<Vec<Verdict>, String> {
        judge(&plan)
    }
}

#[derive(Deserialize)]
struct Plan {
    components: Vec<Component>,
    args: Args,
}

#[derive(Deserialize)]
struct Component {
    requested: String,
    path: String,
}

#[derive(Deserialize)]
struct Args {
    refused: Vec<String>,
}

fn judge(plan: &str) -> Result<Vec<Verdict>, String> {
    let plan: Plan = serde_json::from_str(plan).map_err(|error| error.to_string())?;
    let refused = |one: &&Component| plan.args.refused.contains(&one.requested);
    Ok(plan.components.iter().filter(refused).map(deny).collect())
}

fn deny(component: &Component) -> Verdict {
    let finding = Finding {
        code: "refused-here".to_owned(),
        message: format!("{} is not run here", component.requested),
        path: component.path.clone(),
        public: true,
    };
    Verdict { component: component.path.clone(), decision: Decision::Deny, findings: vec![finding] }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: &str = r#"{"components": [{"requested": "example.Shell", "path": "executors.#1.executor"}],
        "args": {"refused": ["example.Shell"]}}"#;

    #[test]
    fn what_the_operator_names_is_refused() {
        let verdicts = judge(PLAN).unwrap();
        assert_eq!(verdicts.len(), 1);
        assert_eq!(verdicts[0].component, "executors.#1.executor");
        assert!(matches!(verdicts[0].decision, Decision::Deny));
    }

    #[test]
    fn everything_else_is_not() {
        assert!(judge(&PLAN.replace("\"path\"", "\"name\"")).is_err());
        assert!(judge(&PLAN.replacen("example.Shell", "example.Echo", 1)).unwrap().is_empty());
    }
}
