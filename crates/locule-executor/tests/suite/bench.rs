use locule_component::{Chain, ExecuteError, FilterError};
use locule_fobs::{PeerContext, Shareable, header};
use locule_protocol::{Assignment, server_context};

use crate::support::{Job, assignment};

/// Does the work in the usual way.
fn good() -> Job {
    Job::with(|task, cx| {
        assert_eq!((cx.site, cx.job_id, &*task.name, &*task.id), ("site-1", "job-1", "train", "task-1"));
        assert_eq!(cx.context.peer().and_then(|peer| peer.str("__identity_name__")), Some("ward-7"));
        let mut result = Shareable::new();
        result.fields.insert("weights", task.data.fields.int("weights").unwrap_or_default() + 1);
        Ok(result)
    })
}

#[track_caller]
fn check(job: Job, assignment: &Assignment, code: &str) -> Shareable {
    let result = job.bench().perform(assignment);
    assert_eq!(result.return_code(), code);
    if code != "OK" {
        assert!(result.fields.is_empty(), "an error carries no data");
    }
    result
}

#[track_caller]
fn check_work(work: fn() -> Result<Shareable, ExecuteError>, code: &str) {
    check(Job::with(move |_, _| work()), &assignment("train", "task-1"), code);
}

#[test]
fn a_task_goes_through_filters_executor_and_filters_with_events_around_each() {
    let (job, task) = (good(), assignment("train", "task-1"));
    let (diary, before, after) = (job.diary.clone(), job.diary.clone(), job.diary.clone());
    let job = job.filter(Chain::TaskData, move |mut data| {
        before.write("data filter");
        data.fields.insert("weights", 70_i64);
        Ok(data)
    });
    let job = job.filter(Chain::TaskResult, move |mut data| {
        after.write("result filter");
        let weights = data.fields.int("weights").unwrap();
        data.fields.insert("weights", weights * 10);
        Ok(data)
    });
    let result = check(job, &task, "OK");
    assert_eq!(result.fields.int("weights"), Some(710));
    assert_eq!(
        diary.entries(),
        [
            "_before_task_data_filter",
            "data filter",
            "_after_task_data_filter",
            "_before_task_execution",
            "_after_task_execution",
            "_before_task_result_filter",
            "result filter",
            "_after_task_result_filter",
        ]
    );
}

#[test]
fn a_failed_execution_has_no_after_event_and_no_result_filter() {
    let job = Job::with(|_, _| Err(ExecuteError::Failed("no rows".into())));
    let diary = job.diary.clone();
    let job = job.filter(Chain::TaskResult, |_| panic!("an error is not filtered"));
    check(job, &assignment("train", "task-1"), "EXECUTION_EXCEPTION");
    assert_eq!(
        diary.entries(),
        ["_before_task_data_filter", "_after_task_data_filter", "_before_task_execution"]
    );
}

#[test]
fn a_task_without_executor_is_unknown() {
    let job = good();
    let diary = job.diary.clone();
    check(job, &assignment("infer", "task-1"), "TASK_UNKNOWN");
    assert!(diary.entries().is_empty());
}

#[test]
fn a_task_without_peer_context_is_not_done() {
    let mut task = assignment("train", "task-1");
    task.data.headers.remove(header::PEER_CONTEXT);
    check(good(), &task, "MISSING_PEER_CONTEXT");
}

#[test]
fn a_task_whose_peer_context_is_something_else_is_not_done() {
    let mut task = assignment("train", "task-1");
    task.data.set_header(header::PEER_CONTEXT, "job-1");
    check(good(), &task, "BAD_PEER_CONTEXT");
}

#[test]
fn a_task_of_another_job_or_of_none_is_not_done() {
    for peer in [server_context("ward-7", Some("job-2")), server_context("ward-7", None), PeerContext::new()]
    {
        let mut task = assignment("train", "task-1");
        task.data.set_peer_context(peer);
        check(good(), &task, "RUN_MISMATCH");
    }
}

#[test]
fn every_failure_of_an_executor_has_its_code() {
    check_work(|| Err(ExecuteError::Failed("no rows".into())), "EXECUTION_EXCEPTION");
    check_work(|| panic!("index out of bounds"), "EXECUTION_EXCEPTION");
    check_work(|| Err(ExecuteError::Aborted), "TASK_ABORTED");
    check_work(|| Err(ExecuteError::UnknownTask("train".into())), "TASK_UNKNOWN");
    check_work(|| Err(ExecuteError::BadTask("no weights".into())), "BAD_TASK_DATA");
    check_work(|| Err(ExecuteError::Unsafe("it is".into())), "UNSAFE_JOB");
    check_work(|| Ok(Shareable::with_return_code("EMPTY_RESULT")), "EMPTY_RESULT");
}

#[test]
fn every_failure_of_a_filter_has_its_code() {
    type Failure = fn() -> FilterError;
    let failures: [(Failure, [&str; 2]); 4] = [
        (|| FilterError::Blocked("rows".into()), ["TASK_DATA_FILTER_ERROR", "TASK_RESULT_FILTER_ERROR"]),
        (|| FilterError::Failed("no key".into()), ["TASK_DATA_FILTER_ERROR", "TASK_RESULT_FILTER_ERROR"]),
        (|| panic!("out of order"), ["TASK_DATA_FILTER_ERROR", "TASK_RESULT_FILTER_ERROR"]),
        (|| FilterError::Unsafe("it is".into()), ["UNSAFE_JOB", "UNSAFE_JOB"]),
    ];
    for (failure, codes) in failures {
        for (chain, code) in [Chain::TaskData, Chain::TaskResult].into_iter().zip(codes) {
            check(good().filter(chain, move |_| Err(failure())), &assignment("train", "task-1"), code);
        }
    }
}

#[test]
fn a_panic_spoils_only_its_own_task() {
    let mut tasks = 0;
    let job = Job::with(move |_, _| {
        tasks += 1;
        if tasks == 1 { panic!("index out of bounds") } else { Ok(Shareable::new()) }
    });
    let mut bench = job.bench();
    assert_eq!(bench.perform(&assignment("train", "task-1")).return_code(), "EXECUTION_EXCEPTION");
    assert_eq!(bench.perform(&assignment("train", "task-2")).return_code(), "OK");
}

#[test]
fn after_the_abort_flag_was_raised_a_task_counts_as_aborted_whatever_it_gave() {
    let works: [fn() -> Result<Shareable, ExecuteError>; 3] = [
        || Ok(Shareable::new()),
        || Err(ExecuteError::Failed("interrupted".into())),
        || panic!("interrupted"),
    ];
    for work in works {
        let job = Job::with(move |_, cx| {
            cx.abort.raise();
            work()
        });
        check(job, &assignment("train", "task-1"), "TASK_ABORTED");
    }
    let job = good();
    job.abort.raise();
    let job = job.filter(Chain::TaskData, |_| Err(FilterError::Failed("interrupted".into())));
    check(job, &assignment("train", "task-1"), "TASK_ABORTED");
}

#[test]
fn nothing_of_a_job_runs_once_it_was_judged_to_be_unsafe() {
    let mut tasks = 0;
    let job = Job::with(move |_, _| {
        tasks += 1;
        assert_eq!(tasks, 1, "an unsafe job runs no further");
        Err(ExecuteError::Unsafe("it reads files".into()))
    });
    let diary = job.diary.clone();
    let mut bench = job.bench();
    for _ in 0..3 {
        assert_eq!(bench.perform(&assignment("train", "task-1")).return_code(), "UNSAFE_JOB");
    }
    assert_eq!(diary.count("_before_task_execution"), 1);
}

#[test]
fn the_round_goes_back_with_result_and_error_unless_the_executor_says_another() {
    let round = |result: &Shareable| result.headers.int("current_round");
    assert_eq!(round(&check(good(), &assignment("train", "task-1"), "OK")), Some(3));
    let unknown = check(good(), &assignment("infer", "task-1"), "TASK_UNKNOWN");
    assert_eq!((round(&unknown), unknown.headers.int("num_rounds")), (Some(3), Some(5)));
    let job = Job::with(|_, _| {
        let mut result = Shareable::new();
        result.set_header("current_round", 9_i64);
        Ok(result)
    });
    assert_eq!(round(&check(job, &assignment("train", "task-1"), "OK")), Some(9));
}
