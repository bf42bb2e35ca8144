//! Apps (3.3) and component elements (3.4).

use super::*;

pub(crate) fn apps() -> Vec<Row> {
    let site = |value: Value| app(Side::Site, &value);
    let server = |value: Value| app(Side::Server, &value);
    let with = |key: &str, value: Value| {
        let mut app = site_app(json!({"path": "sample.Trainer"}));
        app[key] = value;
        site(app)
    };
    let executors = |value: Value| site(json!({"format_version": 2, "executors": value}));
    let trainer = json!({"path": "sample.Trainer"});
    let workflow = json!({"path": "sample.Average"});
    let filters = |value: Value| with("task_result_filters", value);
    let clip = json!({"path": "sample.Clip", "args": {"mark": "a"}});
    let with_server =
        |value: Value| server(json!({"format_version": 2, "workflows": [workflow], "server": value}));
    vec![
        same("3.3", "a job of a site", site(site_app(trainer.clone())), "executors.#1.executor"),
        same(
            "3.3",
            "a job of the server",
            server(json!({"format_version": 2, "workflows": [workflow]})),
            "workflows.#1",
        ),
        same("3.3", "no format_version", executors_without_version(), "E0101"),
        same("3.3", "a format_version that is text", with("format_version", json!("2")), "E0101"),
        same("3.3", "another format_version", with("format_version", json!(3)), "E0101"),
        differs(
            "3.3",
            "components that are no list",
            "ignored",
            with("components", json!({})),
            "E0102",
            "Sections of the wrong sort",
        ),
        same(
            "3.3",
            "a component without id",
            with("components", json!([{"path": "sample.Recorder"}])),
            "E0106",
        ),
        same("3.3", "no executors", site(json!({"format_version": 2})), "E0106"),
        same("3.3", "empty executors", executors(json!([])), "E0106"),
        same("3.3", "no workflows", server(json!({"format_version": 2})), "E0106"),
        same("3.3", "empty tasks", executors(json!([{"tasks": [], "executor": trainer}])), "E0106"),
        same(
            "3.3",
            "tasks that are no list",
            executors(json!([{"tasks": "train", "executor": trainer}])),
            "E0102",
        ),
        same(
            "3.3",
            "an executor that is none",
            executors(json!([{"tasks": ["t"], "executor": clip}])),
            "E0108",
        ),
        same(
            "3.3",
            "one task, two executors",
            executors(json!([{"tasks": ["t"], "executor": trainer}, {"tasks": ["t"], "executor": trainer}])),
            "E0107",
        ),
        same(
            "3.3",
            "patterns",
            executors(json!([{"tasks": ["t*"], "executor": trainer}])),
            "executors.#1.executor",
        ),
        same(
            "3.3",
            "two workflows of one id",
            server(json!({"format_version": 2, "workflows": [workflow, workflow]})),
            "E0107",
        ),
        same("3.3", "empty filters", filters(json!([{"tasks": ["train"], "filters": []}])), "E0106"),
        same(
            "3.3",
            "a filter that is none",
            filters(json!([{"tasks": ["train"], "filters": [trainer]}])),
            "E0108",
        ),
        same(
            "3.3",
            "a direction that is none",
            filters(json!([{"tasks": ["train"], "direction": "sideways", "filters": [clip]}])),
            "E0109",
        ),
        same(
            "3.3",
            "a direction in capitals",
            filters(json!([{"tasks": ["train"], "direction": "OUT", "filters": [clip]}])),
            "executors.#1.executor task_result_filters.#1.filters.#1",
        ),
        same(
            "3.3",
            "two chains for one task and direction",
            filters(
                json!([{"tasks": ["train"], "filters": [clip]}, {"tasks": ["train"], "filters": [clip]}]),
            ),
            "E0107",
        ),
        differs(
            "3.3",
            "a pattern as a filter's task",
            "never matches",
            filters(json!([{"tasks": ["tr*"], "filters": [clip]}])),
            "E0109",
            "Filters for tasks that there are none of",
        ),
        differs(
            "3.3",
            "a filter for a task without executor",
            "without effect",
            filters(json!([{"tasks": ["trian"], "filters": [clip]}])),
            "executors.#1.executor task_result_filters.#1.filters.#1 +E0112",
            "Filters for tasks that there are none of",
        ),
        same("3.3", "heart_beat_timeout", with_server(json!({"heart_beat_timeout": 600})), "workflows.#1"),
        same("3.3", "a heart_beat_timeout of zero", with_server(json!({"heart_beat_timeout": 0})), "E0102"),
        same(
            "3.3",
            "a task_request_interval that is text",
            with_server(json!({"task_request_interval": "2"})),
            "E0102",
        ),
        differs(
            "3.3",
            "a server that is no object",
            "ignored",
            with_server(json!(1)),
            "E0102",
            "Sections of the wrong sort",
        ),
        same(
            "3.3",
            "default_task_fetch_interval",
            with("default_task_fetch_interval", json!(0.1)),
            "executors.#1.executor",
        ),
        same(
            "3.3",
            "a default_task_fetch_interval of zero",
            with("default_task_fetch_interval", json!(0)),
            "E0102",
        ),
        differs(
            "3.3",
            "an argument called default_task_fetch_interval",
            "must be a positive number",
            site(site_app(
                json!({"path": "sample.Trainer", "args": {"notes": {"default_task_fetch_interval": "x"}}}),
            )),
            "executors.#1.executor",
            "Sections of the wrong sort",
        ),
        same(
            "3.3",
            "a configuration variable",
            with("task_check_interval", json!(1.5)),
            "executors.#1.executor",
        ),
        differs(
            "3.3",
            "a configuration variable below zero",
            "found at run time",
            with("get_task_timeout", json!(-1)),
            "E0102",
            "Configuration variables",
        ),
        differs(
            "3.3",
            "a key that nothing refers to",
            "ignored",
            with("componets", json!([])),
            "executors.#1.executor +E0110",
            "Unknown keys",
        ),
        same(
            "3.3",
            "a key that is a variable",
            {
                let mut app = site_app(json!({"path": "sample.Trainer", "args": {"notes": {"x": "{mine}"}}}));
                app["mine"] = json!(1);
                site(app)
            },
            "executors.#1.executor",
        ),
        differs(
            "3.3",
            "workflows in a site's half",
            "ignored",
            with("workflows", json!([])),
            "executors.#1.executor +E0110",
            "Unknown keys",
        ),
    ]
}

fn executors_without_version() -> String {
    app(Side::Site, &json!({"executors": [{"tasks": ["train"], "executor": {"path": "sample.Trainer"}}]}))
}

pub(crate) fn elements() -> Vec<Row> {
    let element = |value: Value| app(Side::Site, &site_app(value));
    let args = |value: Value| element(json!({"path": "sample.Trainer", "args": value}));
    let clip = json!({"path": "sample.Clip", "args": {"mark": "a"}});
    const ONE: &str = "executors.#1.executor";
    const TWO: &str = "executors.#1.executor.args.clip executors.#1.executor";
    vec![
        same("3.4", "path", element(json!({"path": "sample.Trainer"})), ONE),
        same("3.4", "class_path", element(json!({"class_path": "sample.Trainer"})), ONE),
        same("3.4", "name", element(json!({"name": "Trainer"})), ONE),
        same(
            "3.4",
            "nvflare's full name",
            element(json!({"path": "nvflare.app_common.np.np_trainer.NPTrainer"})),
            ONE,
        ),
        same(
            "3.4",
            "path counts before name",
            element(json!({"name": "Clip", "path": "sample.Trainer"})),
            ONE,
        ),
        same("3.4", "an empty path counts", element(json!({"path": "", "name": "Trainer"})), "E0102"),
        same("3.4", "a path that is no text", element(json!({"path": null, "name": "Trainer"})), "E0102"),
        same("3.4", "no name at all", element(json!({"args": {}})), "E0106"),
        same("3.4", "an element that is none", element(json!("Trainer")), "E0102"),
        same("3.4", "a name without module", element(json!({"path": "Trainer"})), "E0103"),
        same("3.4", "an unknown class", element(json!({"path": "no.such.Trainer"})), "E0103"),
        same("3.4", "an unknown name", element(json!({"name": "Trianer"})), "E0103"),
        same("3.4", "an unknown argument", args(json!({"delat": 1})), "E0104"),
        same("3.4", "arguments that are a list", args(json!([1])), "E0102"),
        same("3.4", "an argument that is a component", args(json!({"clip": clip})), TWO),
        differs(
            "3.4",
            "components in a list of arguments",
            "reach the constructor as data",
            args(json!({"clips": [clip]})),
            "executors.#1.executor.args.clips.#1 executors.#1.executor",
            "Components among arguments",
        ),
        differs(
            "3.4",
            "components deeper in an object",
            "reach the constructor as data",
            args(json!({"notes": {"deep": {"c": clip}}})),
            "executors.#1.executor.args.notes.deep.c executors.#1.executor",
            "Components among arguments",
        ),
        differs(
            "3.4",
            "an argument with a path that is no class",
            "Can't load class data.csv",
            args(json!({"notes": {"path": "data.csv"}})),
            ONE,
            "Components among arguments",
        ),
        same(
            "3.4",
            "config_type dict",
            args(json!({"notes": {"x": {"config_type": "dict", "path": "no.such.Class"}}})),
            ONE,
        ),
        same(
            "3.4",
            "config_type component",
            args(json!({"clip": {"config_type": "component", "path": "sample.Clip", "args": {"mark": "a"}}})),
            TWO,
        ),
        differs(
            "3.4",
            "a config_type that is none",
            "means dict",
            element(json!({"path": "sample.Trainer", "config_type": "dct"})),
            "E0109",
            "Unknown keys",
        ),
        differs(
            "3.4",
            "a nested mistake",
            "reported at the outer path",
            args(json!({"clip": {"path": "sample.Clip", "args": {"mark": "a", "mrak": "b"}}})),
            "E0104",
            "All mistakes at once",
        ),
        same(
            "3.4",
            "class_attributes",
            args(json!({"class_attributes": {"clip": clip}})),
            "executors.#1.executor.args.class_attributes.clip executors.#1.executor",
        ),
        same("3.4", "disabled", element(json!({"path": "sample.Trainer", "disabled": false})), ONE),
        same(
            "3.4",
            "a disabled argument is planned all the same",
            args(json!({"clip": {"path": "sample.Clip", "args": {"mark": "a"}, "disabled": true}})),
            TWO,
        ),
        differs(
            "3.4",
            "disabled that is no truth value",
            "not disabled",
            element(json!({"path": "sample.Trainer", "disabled": "yes"})),
            "E0102",
            "Unknown keys",
        ),
        differs(
            "3.4",
            "a misspelt key of an element",
            "ignored",
            element(json!({"path": "sample.Trainer", "disable": true})),
            "E0110",
            "Unknown keys",
        ),
        same(
            "3.4",
            "one element by a variable in two places",
            {
                app(
                    Side::Site,
                    &json!({"format_version": 2, "c": clip, "executors": [{"tasks": ["train"], "executor":
                {"path": "sample.Trainer", "args": {"clip": "{c}"}}}], "task_result_filters": [{"tasks": ["train"], "filters": ["{c}"]}]}),
                )
            },
            "executors.#1.executor.args.clip executors.#1.executor task_result_filters.#1.filters.#1",
        ),
        differs(
            "3.4",
            "an observer as an argument's component of the wrong sort",
            "its constructor decides",
            element(json!({"path": "sample.Guard"})),
            "E0108",
            "Any class",
        ),
    ]
}
