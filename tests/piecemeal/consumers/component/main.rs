//! A job author's check: which components a configuration names, and what is wrong with it.

use std::error::Error;

use locule_component::{BuildCx, BuildError, Built, Component, ExecuteError, Executor};
use locule_component::{Kind, Plan, Registry, Side, Task, TaskCx};
use locule_config::Document;
use locule_fobs::Shareable;

struct Echo;

impl Component for Echo {
    const KIND: Kind = Kind::Executor;
    const NAME: &'static str = "example.Echo";
    type Args = std::collections::BTreeMap<String, u32>;
    fn build(_: Self::Args, _: &BuildCx<'_>) -> Result<Built, BuildError> {
        Ok(Built::Executor(Box::new(Echo)))
    }
}

impl Executor for Echo {
    fn execute(&mut self, task: &Task, _: &TaskCx<'_>) -> Result<Shareable, ExecuteError> {
        Ok(task.data.clone())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut registry = Registry::new();
    registry.register::<Echo>();
    let plan = |path: &str| {
        let text = format!(
            r#"{{ "format_version": 2, "executors": [{{ "tasks": ["train"], "executor": {{ "path": "{path}" }} }}] }}"#
        );
        Plan::from_document(&Document::parse_json("config_fed_client.json", &text)?, Side::Site, &registry)
    };
    assert_eq!(plan("example.Echo")?.components().len(), 1);
    let mistake = plan("example.Ecko").err().ok_or("it is not registered")?;
    assert!(mistake.to_string().contains("example.Echo"), "{mistake}"); // did you mean
    Ok(())
}
