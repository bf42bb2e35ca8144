//! Who may do what at a participant: the authorization policy of its kit.
//!
//! [`Rights`] are read from `local/authorization.json` and asked whether somebody has a right; who that is, and
//! whether it is true, others found out before. A policy that cannot be understood is an error and never an empty
//! policy.
//!
//! ```
//! use locule_rights::{Rights, Who};
//!
//! let policy = serde_json::json!({ "format_version": "1.0", "permissions": {
//!     "lead": { "submit_job": "o:ward", "byoc": "none", "view": "any" } } });
//! let rights = Rights::parse(&policy)?;
//! let ann = Who { name: "ann@ward.org", org: "ward", role: "lead" };
//! assert!(rights.demand("submit_job", ann, ann, "ward").is_ok());
//! let refused = rights.demand("byoc", ann, ann, "ward").unwrap_err();
//! assert_eq!(refused.to_string(), "user 'ann@ward.org' is not authorized for 'byoc'");
//! # Ok::<(), String>(())
//! ```
//!
//! Start with [`Rights`] and [`Who`].

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use locule_config::{Diagnostic, Diagnostics, Document, Node, NodeKind, suggest};
use serde_json::Value;

/// Somebody, as a policy sees them; what is not known is empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Who<'a> {
    /// Name.
    pub name: &'a str,
    /// Organisation.
    pub org: &'a str,
    /// Role.
    pub role: &'a str,
}

/// Rights by role.
///
/// A right that a role does not name is refused. Names, organisations and roles are compared without regard
/// to case, as there.
///
/// ```
/// use locule_rights::{Rights, Who};
///
/// let rights = Rights::stock();
/// let member = Who { name: "ann@ward.org", org: "ward", role: "member" };
/// assert!(rights.allow("list_jobs", member, Who::default(), "ward"));
/// assert!(!rights.allow("submit_job", member, Who::default(), "ward"));
/// ```
///
/// # Source
/// nvflare 2.9.0, `nvflare.fuel.sec.authz`, `nvflare.security.security`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rights {
    /// By role and right; the right `*` is all of them.
    rules: HashMap<(String, String), Rule>,
}

/// Allowed if no blocking condition holds, and one of the others does if there are any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Rule {
    allowing: Vec<Condition>,
    blocking: Vec<Condition>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Condition {
    Always,
    Never,
    Org(Target),
    Name(Target),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Target {
    Site,
    Submitter,
    Is(String),
}

const ANY_RIGHT: &str = "*";

/// What provisioning gives to every participant.
const STOCK: &str = r#"{"format_version": "1.0", "permissions": {
    "project_admin": "any",
    "org_admin": {"submit_job": "none", "clone_job": "none", "manage_job": "o:submitter",
        "download_job": "o:submitter", "view": "any", "operate": "o:site", "shell_commands": "o:site",
        "byoc": "none", "server-predeployed-flwr": "none"},
    "lead": {"submit_job": "any", "clone_job": "n:submitter", "manage_job": "n:submitter",
        "download_job": "n:submitter", "view": "any", "operate": "o:site", "shell_commands": "o:site",
        "byoc": "any", "server-predeployed-flwr": "none"},
    "member": {"view": "any"}}}"#;

/// Rights that stand for several.
const CATEGORIES: [(&str, &[&str]); 5] = [
    ("manage_job", &["abort", "abort_job", "delete_job", "delete_workspace", "configure_job_log"]),
    (
        "operate",
        &[
            "sys_info",
            "report_resources",
            "report_env",
            "restart",
            "shutdown",
            "remove_client",
            "disable_client",
            "enable_client",
            "set_timeout",
            "call",
            "configure_site_log",
        ],
    ),
    (
        "view",
        &[
            "check_status",
            "show_scopes",
            "show_stats",
            "reset_errors",
            "show_errors",
            "list_jobs",
            "get_job_meta",
        ],
    ),
    ("shell_commands", &["cat", "grep", "head", "ls", "pwd", "tail"]),
    ("download_job", &["download_job"]),
];

/// Rights that belong to none of these: the other commands of an administrator, and what jobs may hold.
///
/// # Source
/// nvflare 2.9.0, `nvflare.apis.fl_constant` (`AdminCommandNames`).
const OTHERS: [&str; 24] = [
    "*",
    "submit_job",
    "clone_job",
    "check_job",
    "byoc",
    "server-predeployed-flwr",
    "register_study",
    "add_study_site",
    "remove_study_site",
    "remove_study",
    "list_studies",
    "show_study",
    "add_study_user",
    "remove_study_user",
    "list_job",
    "download_job_components",
    "check_resources",
    "deploy_app",
    "admin_check_status",
    "abort_task",
    "get_job_log",
    "aux_command",
    "report_version",
    "app_command",
];

impl Rights {
    /// The policy that provisioning gives to every participant.
    #[must_use]
    pub fn stock() -> Self {
        let policy = serde_json::from_str(STOCK).expect("the stock policy is JSON");
        Self::parse(&policy).expect("the stock policy is one")
    }

    /// The policy in the folder `local` of a kit: `authorization.json`, else `authorization.json.default`,
    /// else the [stock](Self::stock) one.
    ///
    /// # Errors
    /// [`RightsError`]; without a policy that is understood nobody is let in.
    pub fn read(local: &Path) -> Result<Self, RightsError> {
        Ok(Self::find(local)?.unwrap_or_else(Self::stock))
    }

    /// The policy in the folder `local` of a kit, if one was written or provisioned.
    ///
    /// # Errors
    /// [`RightsError`].
    pub fn find(local: &Path) -> Result<Option<Self>, RightsError> {
        for name in ["authorization.json", "authorization.json.default"] {
            let file = local.join(name);
            match fs::read_to_string(&file) {
                Ok(text) => {
                    let rights = Document::parse_json(&format!("local/{name}"), &text)
                        .and_then(|document| Self::from_document(&document));
                    return rights.map(Some).map_err(|mistakes| RightsError::Policy { file, mistakes });
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(RightsError::Read { file, source }),
            }
        }
        Ok(None)
    }

    /// A policy as it is written, every key and right in it one that means something.
    ///
    /// # Errors
    /// Every mistake, at its place.
    pub fn from_document(document: &Document) -> Result<Self, Diagnostics> {
        let root = document.root();
        let mut mistakes = Diagnostics::new();
        known(root, &["format_version", "permissions"], &mut mistakes);
        let rights: Vec<&str> = CATEGORIES
            .iter()
            .flat_map(|(name, rights)| rights.iter().chain([name]))
            .chain(&OTHERS)
            .copied()
            .collect();
        let roles = root.get("permissions").map(|roles| roles.entries().collect::<Vec<_>>());
        for (_, role) in roles.unwrap_or_default() {
            known(role, &rights, &mut mistakes);
            let rules = match role.kind() {
                NodeKind::Object => role.entries().map(|(_, rule)| rule).collect(),
                NodeKind::Null | NodeKind::Bool | NodeKind::Number | NodeKind::Text | NodeKind::List => {
                    vec![role]
                }
            };
            for rule in rules {
                if let Err(mistake) = Rule::parse(&rule.to_json()) {
                    mistakes.push(Diagnostic::at(rule, POLICY, mistake).help(CONDITIONS));
                }
            }
        }
        if mistakes.is_empty() {
            match Self::parse(&root.to_json()) {
                Ok(rights) => return Ok(rights),
                Err(mistake) => mistakes.push(Diagnostic::at(root, POLICY, mistake)),
            }
        }
        mistakes.sort();
        Err(mistakes)
    }

    /// A policy without places, whatever its rights are called.
    ///
    /// # Errors
    /// What is wrong with it, as a sentence.
    pub fn parse(policy: &Value) -> Result<Self, String> {
        if policy["format_version"] != "1.0" {
            return Err("`format_version` must be \"1.0\"".into());
        }
        let roles = policy["permissions"].as_object().filter(|roles| !roles.is_empty());
        let mut rules = HashMap::new();
        for (role, rights) in roles.ok_or("`permissions` must map roles to rights")? {
            let role = normal(role);
            let Some(rights) = rights.as_object() else {
                rules.insert((role, ANY_RIGHT.to_owned()), Rule::parse(rights)?);
                continue;
            };
            let category = |right: &str| CATEGORIES.iter().find(|(name, _)| *name == right);
            let (of_many, of_one): (Vec<_>, Vec<_>) = rights
                .iter()
                .map(|(right, rule)| (normal(right), rule))
                .partition(|(right, _)| category(right).is_some());
            // What is said of one right overrides what is said of many.
            for (right, rule) in of_many.into_iter().chain(of_one) {
                let rule = Rule::parse(rule)?;
                for one in category(&right).into_iter().flat_map(|(_, rights)| *rights) {
                    rules.insert((role.clone(), (*one).to_owned()), rule.clone());
                }
                rules.insert((role.clone(), right), rule);
            }
        }
        Ok(Self { rules })
    }

    /// Whether `user` has the right to what concerns a job of `submitter`, at a participant of this
    /// organisation.
    #[must_use]
    pub fn allow(&self, right: &str, user: Who<'_>, submitter: Who<'_>, site_org: &str) -> bool {
        let rule = |right: &str| self.rules.get(&(normal(user.role), right.to_owned()));
        rule(ANY_RIGHT).or_else(|| rule(right)).is_some_and(|rule| rule.holds(user, submitter, site_org))
    }

    /// As [`allow`](Self::allow), with the sentence in which a refusal is told.
    ///
    /// # Errors
    /// [`NotAuthorized`].
    pub fn demand(
        &self,
        right: &str,
        user: Who<'_>,
        submitter: Who<'_>,
        site_org: &str,
    ) -> Result<(), NotAuthorized> {
        if self.allow(right, user, submitter, site_org) {
            return Ok(());
        }
        let shown = |text: &str| text.escape_debug().take(96).collect();
        Err(NotAuthorized { user: shown(&normal(user.name)), right: shown(right) })
    }
}

/// The code of mistakes in an authorization policy.
const POLICY: &str = "E0113";

const CONDITIONS: &str = "a condition is any, none, o:ORG, o:site, o:submitter, n:NAME or n:submitter, or one of these \
    behind `not`, or a list of them";

/// A key that means nothing may be one that was meant to refuse something.
fn known(node: &Node, known: &[&str], mistakes: &mut Diagnostics) {
    for (key, value) in node.entries().filter(|(key, _)| !known.contains(&normal(key).as_str())) {
        let mistake = Diagnostic::at_key(value, POLICY, format!("`{key}` means nothing here"));
        mistakes.push(match suggest(key, known.iter().copied()) {
            Some(near) => mistake.label(format!("did you mean `{near}`?")),
            None => mistake.help(format!("known: {}", known.join(", "))),
        });
    }
}

impl Rule {
    fn parse(text: &Value) -> Result<Self, String> {
        let texts = match text {
            Value::String(_) => std::slice::from_ref(text),
            Value::Array(texts) if !texts.is_empty() => texts.as_slice(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
                return Err(format!("{text} is no condition: it must be a text or a list of texts"));
            }
        };
        let mut rule = Self::default();
        for text in texts {
            let text = text.as_str().ok_or_else(|| format!("{text} is no condition: it must be a text"))?;
            let normal = normal(text);
            let (to, condition) = match normal.strip_prefix("not ") {
                Some(condition) => (&mut rule.blocking, condition),
                None => (&mut rule.allowing, normal.as_str()),
            };
            to.push(Condition::parse(condition).ok_or_else(|| format!("{text:?} is no condition"))?);
        }
        Ok(rule)
    }

    fn holds(&self, user: Who<'_>, submitter: Who<'_>, site_org: &str) -> bool {
        let any =
            |conditions: &[Condition]| conditions.iter().any(|one| one.holds(user, submitter, site_org));
        !any(&self.blocking) && (self.allowing.is_empty() || any(&self.allowing))
    }
}

impl Condition {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "all" | "any" => return Some(Self::Always),
            "none" | "no" => return Some(Self::Never),
            _ => {}
        }
        let (kind, target) = text.split_once(':')?;
        let target = match target.trim() {
            "site" => Target::Site,
            "submitter" => Target::Submitter,
            other if !other.contains(':') => Target::Is(other.to_owned()),
            _ => return None,
        };
        match kind.trim() {
            "o" | "org" => Some(Self::Org(target)),
            // For a name, `site` is nothing special.
            "n" | "name" if target == Target::Site => Some(Self::Name(Target::Is("site".into()))),
            "n" | "name" => Some(Self::Name(target)),
            _ => None,
        }
    }

    fn holds(&self, user: Who<'_>, submitter: Who<'_>, site_org: &str) -> bool {
        let (target, own, of_submitter) = match self {
            Self::Always => return true,
            Self::Never => return false,
            Self::Org(target) => (target, user.org, submitter.org),
            Self::Name(target) => (target, user.name, submitter.name),
        };
        let other = match target {
            Target::Site => site_org,
            Target::Submitter => of_submitter,
            Target::Is(text) => text,
        };
        // Nobody is the same as one who is not known.
        !own.is_empty() && normal(own) == normal(other)
    }
}

/// Lower case, with single spaces.
fn normal(text: &str) -> String {
    text.to_lowercase().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Somebody lacks a right.
///
/// # Source
/// The sentence is that of nvflare 2.9.0, `nvflare.fuel.sec.authz`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("user '{user}' is not authorized for '{right}'")]
pub struct NotAuthorized {
    /// Who, in lower case, shortened and escaped.
    pub user: String,
    /// The right.
    pub right: String,
}

/// Why a policy is not used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RightsError {
    /// The file cannot be read.
    #[error("cannot read {}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is no policy.
    #[error("{} is no authorization policy\n\n{mistakes}", file.display())]
    Policy {
        /// The file.
        file: PathBuf,
        /// What is wrong, at its place.
        mistakes: Diagnostics,
    },
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn who<'a>(name: &'a str, org: &'a str, role: &'a str) -> Who<'a> {
        Who { name, org, role }
    }

    #[test]
    fn the_stock_policy_is_the_one_of_nvflare() {
        let rights = Rights::stock();
        let ann = who("ann", "ward", "lead");
        let bob = who("bob", "ward", "lead");
        let org_admin = who("eve", "ward", "org_admin");
        let checks = [
            ("submit_job", who("x", "y", "project_admin"), ann, true),
            ("anything", who("x", "y", "project_admin"), ann, true),
            ("submit_job", ann, ann, true),
            ("abort_job", ann, ann, true),
            ("abort_job", bob, ann, false),
            ("download_job", bob, ann, false),
            ("clone_job", bob, ann, false),
            ("byoc", ann, ann, true),
            ("shutdown", ann, ann, true),
            ("report_version", ann, ann, false),
            ("submit_job", org_admin, org_admin, false),
            ("abort_job", org_admin, ann, true),
            ("abort_job", who("eve", "other", "org_admin"), ann, false),
            ("shutdown", who("eve", "other", "org_admin"), ann, false),
            ("list_jobs", who("m", "", "member"), ann, true),
            ("abort_job", who("m", "ward", "member"), ann, false),
            ("list_jobs", who("s", "ward", ""), ann, false),
            ("list_jobs", who("s", "ward", "stranger"), ann, false),
        ];
        for (right, user, submitter, allowed) in checks {
            assert_eq!(rights.allow(right, user, submitter, "ward"), allowed, "{right} {user:?}");
        }
    }

    #[test]
    fn an_unknown_submitter_is_nobody() {
        let rights = Rights::stock();
        assert!(!rights.allow("abort_job", who("", "", "lead"), Who::default(), ""));
        assert!(!rights.allow("abort_job", who("", "", "org_admin"), Who::default(), ""));
    }

    #[test]
    fn one_right_overrides_its_category_and_blocks_come_first() {
        let policy = json!({ "format_version": "1.0", "permissions": { "Lead": {
            "view": "any", "list_jobs": ["not n:Bob", "o:ward", "n:carol"] , "get_job_meta": "not o:ward" } } });
        let rights = Rights::parse(&policy).unwrap();
        let list = |name, org| rights.allow("list_jobs", who(name, org, "LEAD"), Who::default(), "");
        assert!(list("ann", "Ward") && list("carol", "x") && !list("bob", "ward") && !list("dan", "x"));
        assert!(rights.allow("check_status", who("dan", "x", "lead"), Who::default(), ""));
        assert!(rights.allow("get_job_meta", who("dan", "x", "lead"), Who::default(), ""));
        assert!(!rights.allow("get_job_meta", who("dan", "ward", "lead"), Who::default(), ""));
    }

    #[test]
    fn mistakes_of_a_file_are_told_at_their_places() {
        let local = tempfile::tempdir().unwrap();
        let read = |text: &str| {
            fs::write(local.path().join("authorization.json"), text).unwrap();
            Rights::find(local.path())
        };
        let good = r#"{ "format_version": "1.0", "permissions": { "lead": { "Submit_Job": "any", "byoc": "none" }, "x": "any" } }"#;
        assert!(read(good).unwrap().is_some());
        assert!(read(STOCK).unwrap().is_some());
        for (text, place, what) in [
            (
                "{ \"format_version\": \"1.0\",\n  \"permissions\": { \"lead\": { \"sumbit_job\": \"none\" } } }",
                "2:30",
                "did you mean `submit_job`?",
            ),
            (
                "{ \"format_version\": \"1.0\", \"permissions\": { \"lead\": \"any\" },\n \"permission\": {} }",
                "2:2",
                "did you mean `permissions`?",
            ),
            (
                "{ \"format_version\": \"1.0\", \"permissions\": { \"lead\": { \"fly\": \"none\" } } }",
                "1:55",
                "`fly` means nothing here",
            ),
            (
                "{ \"format_version\": \"1.0\", \"permissions\": { \"lead\": { \"view\": [\"any\", \"sometimes\"] } } }",
                "1:63",
                "is no condition",
            ),
            ("{ \"format_version\": \"1.0\",,", "1:27", "expected"),
            (
                "{ \"format_version\": \"2.0\", \"permissions\": { \"lead\": \"any\" } }",
                "1:1",
                "must be \"1.0\"",
            ),
        ] {
            let shown = read(text).unwrap_err().to_string();
            assert!(
                shown.contains(&format!("local/authorization.json:{place}")) && shown.contains(what),
                "{text}: {shown}"
            );
        }
    }

    #[test]
    fn a_policy_that_is_not_understood_is_no_policy() {
        for bad in [
            json!({}),
            json!({ "format_version": "2.0", "permissions": { "lead": "any" } }),
            json!({ "format_version": "1.0", "permissions": {} }),
            json!({ "format_version": "1.0", "permissions": { "lead": 1 } }),
            json!({ "format_version": "1.0", "permissions": { "lead": [] } }),
            json!({ "format_version": "1.0", "permissions": { "lead": "sometimes" } }),
            json!({ "format_version": "1.0", "permissions": { "lead": { "view": "x:y" } } }),
        ] {
            assert!(Rights::parse(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_kits_own_policy_comes_before_the_default() {
        let local = tempfile::tempdir().unwrap();
        let none = json!({ "format_version": "1.0", "permissions": { "project_admin": "none" } });
        assert_eq!(Rights::read(local.path()).unwrap(), Rights::stock());
        fs::write(local.path().join("authorization.json.default"), STOCK).unwrap();
        fs::write(local.path().join("authorization.json"), none.to_string()).unwrap();
        let rights = Rights::read(local.path()).unwrap();
        assert!(!rights.allow("list_jobs", who("x", "y", "project_admin"), Who::default(), ""));
        fs::write(local.path().join("authorization.json"), "{").unwrap();
        assert!(Rights::read(local.path()).is_err());
    }
}
