//! The commands that are known here, as consoles are told of them.

use serde_json::{Value, json};

/// A command, as a console lists it.
///
/// # Source
/// nvflare 2.9.0, `nvflare.private.fed.server.{job_cmds,training_cmds,sys_cmd,info_coll_cmd}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Command {
    /// The group it belongs to; `scope.name` is its full name.
    pub scope: &'static str,
    /// Its name, which is also the right that it needs.
    pub name: &'static str,
    /// What it does.
    pub description: &'static str,
    /// How it is written.
    pub usage: &'static str,
    /// How a console makes sure that it is meant: `auth`, `yesno`.
    pub confirm: Option<&'static str>,
    /// What a console does itself with it: sends a folder, or fetches one.
    pub at_console: Option<&'static str>,
    /// Whether it is shown to people.
    pub visible: bool,
}

const PUSH: Option<&str> = Some("file_transfer.push_folder");
const PULL: Option<&str> = Some("file_transfer.pull_folder");
const AUTH: Option<&str> = Some("auth");

/// Every command that this server carries out, by scope and name. Those that begin with `_` are between
/// programs, and not here.
pub const COMMANDS: &[Command] = &[
    command(
        "info",
        "reset_errors",
        "forget the errors of a running job",
        "reset_errors job_id server|client|all [clients]",
    ),
    command(
        "info",
        "show_errors",
        "show the latest errors of a job",
        "show_errors job_id server|client|all [clients]",
    ),
    command(
        "info",
        "show_stats",
        "show statistics of a running job",
        "show_stats job_id server|client|all [clients]",
    ),
    command("job_mgmt", "abort_job", "abort a job", "abort_job job_id").confirm("yesno"),
    Command {
        at_console: PUSH,
        ..command(
            "job_mgmt",
            "check_job",
            "ask server and sites what they would say of a job",
            "check_job job_folder",
        )
    },
    command("job_mgmt", "clone_job", "submit a job once more", "clone_job job_id"),
    command("job_mgmt", "delete_job", "delete a job that is over, with its results", "delete_job job_id")
        .confirm("auth"),
    Command {
        at_console: PULL,
        ..command(
            "job_mgmt",
            "download_job",
            "download a job with its results",
            "download_job job_id [destination]",
        )
    },
    Command {
        at_console: PULL,
        ..command(
            "job_mgmt",
            "download_job_components",
            "download other parts of a job",
            "download_job_components job_id",
        )
    },
    command(
        "job_mgmt",
        "get_job_log",
        "show what the server knows of a job's course, and logs of it",
        "get_job_log job_id [server|all|client-name]",
    ),
    command("job_mgmt", "get_job_meta", "show all that is known of a job", "get_job_meta job_id"),
    command(
        "job_mgmt",
        "get_job_metrics",
        "show what sites track in a job",
        "get_job_metrics job_id [position]",
    ),
    command("job_mgmt", "list_job", "list other parts of a job", "list_job job_id"),
    command(
        "job_mgmt",
        "list_jobs",
        "list jobs",
        "list_jobs [-n name_prefix] [-d] [-u] [-r] [-m num_of_jobs] [--submit-token token] [job_id_prefix]",
    ),
    Command {
        at_console: PUSH,
        ..command("job_mgmt", "submit_job", "submit a job", "submit_job job_folder [--submit-token token]")
    },
    Command { visible: false, ..command("sess", "list_sessions", "list sessions of users", "list_sessions") },
    command("sys", "report_env", "show where sites run", "report_env [client-name ...]"),
    command(
        "sys",
        "report_resources",
        "show what sites have to give",
        "report_resources server|client|all [client-name ...]",
    ),
    command("sys", "report_version", "show versions", "report_version server|client|all [client-name ...]"),
    Command {
        visible: false,
        ..command(
            "training",
            "admin_check_status",
            "show how server and sites are",
            "admin_check_status server|client|all [client-name ...]",
        )
    },
    command(
        "training",
        "check_status",
        "show how server and sites are",
        "check_status server|client|all [client-name ...]",
    ),
    command(
        "training",
        "disable_client",
        "keep a site out until it is enabled",
        "disable_client client-name",
    )
    .confirm("auth"),
    command("training", "enable_client", "let a disabled site in again", "enable_client client-name")
        .confirm("auth"),
    Command {
        confirm: AUTH,
        visible: false,
        ..command("training", "remove_client", "end a site's registration", "remove_client client-name")
    },
    command(
        "training",
        "shutdown",
        "stop sites, the server, or both",
        "shutdown server|client|all [client-name ...]",
    )
    .confirm("auth"),
];

const fn command(
    scope: &'static str,
    name: &'static str,
    description: &'static str,
    usage: &'static str,
) -> Command {
    Command { scope, name, description, usage, confirm: None, at_console: None, visible: true }
}

impl Command {
    const fn confirm(self, how: &'static str) -> Self {
        Self { confirm: Some(how), ..self }
    }

    /// The command of this name, with or without its scope.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Self> {
        COMMANDS.iter().find(|command| match name.split_once('.') {
            Some((scope, name)) => command.scope == scope && command.name == name,
            None => command.name == name,
        })
    }

    /// Its row in the table of commands; see [`HEAD`].
    pub(crate) fn row(&self) -> Vec<Value> {
        let Self { scope, name, description, usage, confirm, at_console, visible } = self;
        let visible = if *visible { "True" } else { "False" };
        vec![
            json!(scope),
            json!(name),
            json!(description),
            json!(usage),
            json!(confirm),
            json!(at_console),
            json!(visible),
        ]
    }
}

/// The head of the table of commands.
pub(crate) const HEAD: [&str; 7] =
    ["Scope", "Command", "Description", "Usage", "Confirm", "ClientCmd", "Visible"];

/// A command line as words. Quotes and backslashes count as in a shell; a line whose quotes do not match is
/// cut at white space only, as there.
#[must_use]
pub fn words(line: &str) -> Vec<String> {
    let quoted = if line.contains(['"', '\'']) { shlex::split(line) } else { None };
    quoted.unwrap_or_else(|| line.split_whitespace().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use locule_protocol::command_line as line;

    #[test]
    fn a_command_is_found_with_and_without_its_scope() {
        assert_eq!(Command::find("job_mgmt.submit_job"), Command::find("submit_job"));
        assert!(Command::find("submit_job").is_some());
        for unknown in ["training.submit_job", "_cert_login", "rm", ""] {
            assert_eq!(Command::find(unknown), None);
        }
    }

    #[test]
    fn commands_are_listed_in_order_and_once() {
        assert!(COMMANDS.is_sorted_by(|a, b| (a.scope, a.name) < (b.scope, b.name)));
        let row = Command::find("submit_job").unwrap().row();
        assert_eq!(row[4..], [Value::Null, json!("file_transfer.push_folder"), json!("True")]);
    }

    #[test]
    fn lines_are_cut_into_words_as_a_shell_would() {
        assert_eq!(words(" list_jobs  -n a "), ["list_jobs", "-n", "a"]);
        assert_eq!(words(r#"submit_job "my job" 'b c'"#), ["submit_job", "my job", "b c"]);
        assert_eq!(words("it's broken"), ["it's", "broken"]);
        let hard = ["a b", r#"q"\"#, "", "#x", "'", "plain"];
        assert_eq!(words(&line(hard)), hard);
    }
}
