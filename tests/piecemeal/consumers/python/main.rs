//! A linter of script jobs: what a job says of its script, and what a site says of Python.

use locule_component::Registry;
use locule_config::Document;
use locule_python::PythonSettings;

const EXECUTOR: &str = "nvflare.app_common.executors.client_api_executor.ClientAPIExecutor";

fn main() {
    let mut registry = Registry::new();
    locule_python::register(&mut registry);
    let args =
        serde_json::json!({ "execution_mode": "in_process", "task_script": "train.py", "launch_once": 1 });
    let mistakes: Vec<String> =
        registry.check_args(EXECUTOR, args).into_iter().map(|mistake| mistake.path.join(".")).collect();
    assert_eq!(mistakes, ["task_script", "launch_once"]);

    let resources = Document::parse_json("resources.json", r#"{ "python": { "read": ["/data"] } }"#);
    let settings = resources.ok().and_then(|resources| PythonSettings::read(&resources).ok());
    assert_eq!(settings.map(|settings| (settings.read.len(), settings.confine)), Some((1, true)));
}
