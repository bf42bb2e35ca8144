//! A door that asks an authorization policy.

use std::error::Error;

use locule_rights::{Rights, Who};

fn main() -> Result<(), Box<dyn Error>> {
    let policy = serde_json::json!({ "format_version": "1.0", "permissions": {
        "lead": { "submit_job": "o:ward", "byoc": "none" },
    } });
    let rights = Rights::parse(&policy)?;
    let ann = Who { name: "ann@ward.org", org: "ward", role: "lead" };
    let ben = Who { name: "ben@lab.org", org: "lab", role: "lead" };
    assert!(rights.allow("submit_job", ann, ann, "ward"));
    assert!(!rights.allow("submit_job", ben, ben, "ward"));
    assert!(!rights.allow("byoc", ann, ann, "ward"));
    Ok(())
}
