//! A preview of an authorization policy: who may do what, before a server is started with it.

use std::error::Error;

use locule_admin::{COMMANDS, Rights, Who};
use serde_json::json;

fn main() -> Result<(), Box<dyn Error>> {
    let policy = json!({ "format_version": "1.0", "permissions": {
        "project_admin": "any",
        "lead": { "view": "any", "submit_job": "any", "manage_job": "n:submitter", "abort_job": "o:submitter" },
    } });
    let rights = Rights::parse(&policy)?;
    let ann = Who { name: "ann", org: "ward", role: "lead" };
    let bob = Who { name: "bob", org: "ward", role: "lead" };
    let may = |right| rights.allow(right, bob, ann, "university");
    let list: Vec<&str> = COMMANDS.iter().map(|command| command.name).filter(|name| may(name)).collect();
    assert!(list.contains(&"abort_job"), "of the same organisation");
    assert!(!list.contains(&"delete_job"), "not the submitter");
    assert!(!list.contains(&"shutdown"), "said nowhere");
    Ok(())
}
