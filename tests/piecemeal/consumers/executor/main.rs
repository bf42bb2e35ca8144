//! A trainer's test bench: one task through an executor, as a site would run it, without a network.

use locule_component::{AbortFlag, Assembled, ExecuteError, Executor, RunContext, Task, TaskCx};
use locule_executor::Workbench;
use locule_fobs::Shareable;
use locule_protocol::{Assignment, server_context};

/// Knows one task, and trips over another.
struct Trainer;

impl Executor for Trainer {
    fn execute(&mut self, task: &Task, _: &TaskCx<'_>) -> Result<Shareable, ExecuteError> {
        match task.name.as_str() {
            "train" => Ok(Shareable::new()),
            _ => Err(ExecuteError::BadTask("I only train".into())),
        }
    }
}

fn main() {
    let mut assembled = Assembled::default();
    assembled.executors.insert(["train".into(), "validate".into()], Box::new(Trainer));
    let run = RunContext::new("site-1", "job-7");
    let mut bench = Workbench::new("site-1", "job-7", run, assembled, AbortFlag::new());
    let mut code_of = |task: &str| {
        let mut data = Shareable::new();
        data.set_peer_context(server_context("server", Some("job-7")));
        bench.perform(&Assignment::new(task, "task-1", data)).return_code().to_owned()
    };
    assert_eq!(code_of("train"), "OK");
    assert_eq!(code_of("validate"), "BAD_TASK_DATA");
    assert_eq!(code_of("infer"), "TASK_UNKNOWN");
}
