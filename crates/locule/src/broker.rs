//! How a kit is let in by a NATS broker: `local/nats.json`, if there is one.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use locule_config::Document;
use locule_kit::Workspace;
use locule_tls::{HostCheck, TlsFiles, client_config};
use locule_transport_nats::Login;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::exit::{Code, Failure, OrExit as _};
use crate::setting;

/// How a NATS broker is reached; one of `user`, `token` and `credentials` at most. Files lie in the same folder.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct BrokerSettings {
    /// A user of the broker.
    user: Option<String>,
    /// That user's password.
    password: Option<String>,
    /// A token that all who may connect share.
    token: Option<String>,
    /// A file with a user's JWT and seed, as `nsc` writes them.
    credentials: Option<PathBuf>,
    /// The root of the broker's certificate, as a PEM file: it is spoken to over TLS, and shown the kit's own
    /// certificate if it asks.
    ca: Option<PathBuf>,
}

impl BrokerSettings {
    /// What its mistakes are shown under, and its schema.
    pub(crate) const KEY: &str = "nats";
}

/// What the kit says; without a word, a broker that lets everybody in.
pub(crate) fn login(kit: &Workspace, own: &TlsFiles) -> Result<Login, Failure> {
    let file = kit.local().join("nats.json");
    if !file.exists() {
        return Ok(Login::anonymous());
    }
    let text = secret(&file)?;
    let document = Document::parse_json("local/nats.json", &text).or_exit(Code::Config)?;
    let said: BrokerSettings = setting::read(document.root(), BrokerSettings::KEY)?;
    let login = match (said.user, said.password, said.token, said.credentials) {
        (None, None, None, None) => Login::anonymous(),
        (Some(user), Some(password), None, None) => Login::user(user, password),
        (None, None, Some(token), None) => Login::token(token),
        (None, None, None, Some(name)) => Login::credentials(secret(&kit.local().join(name))?),
        _ => {
            let why =
                "it takes `user` and `password`, or `token`, or `credentials`, and nothing of the others";
            return Err(setting::mistake(document.root(), BrokerSettings::KEY, why));
        }
    };
    let Some(ca) = said.ca else { return Ok(login) };
    let files = TlsFiles { ca: kit.local().join(ca), ..own.clone() };
    Ok(login.with_tls(Arc::new(client_config(&files, HostCheck::San).or_exit(Code::Config)?)))
}

/// The text of a file that is nobody else's.
fn secret(file: &Path) -> Result<String, Failure> {
    let read = || format!("read {}", file.display());
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        let mode = fs::metadata(file).with_context(read).or_exit(Code::Config)?.mode() & 0o7777;
        if mode & 0o077 != 0 {
            let file = file.display();
            let error = anyhow!("{file} is open to others (mode {mode:04o}): run `chmod 600 {file}`");
            return Err(Failure::new(Code::NoPermission, error));
        }
    }
    fs::read_to_string(file).with_context(read).or_exit(Code::Config)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<String, String> {
        with_mode(text, 0o600)
    }

    fn with_mode(text: &str, mode: u32) -> Result<String, String> {
        let dir = tempfile::tempdir().unwrap();
        let kit = Workspace::new(dir.path());
        fs::create_dir(kit.local()).unwrap();
        for (name, text) in [("nats.json", text), ("site.creds", "secret")] {
            let file = kit.local().join(name);
            fs::write(&file, text).unwrap();
            #[cfg(unix)]
            fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        }
        login(&kit, &TlsFiles::in_folder(kit.startup(), "client"))
            .map(|login| format!("{login:?}"))
            .map_err(|failure| failure.text())
    }

    #[test]
    fn a_kit_says_how_it_is_let_in() {
        for (text, by) in [
            ("{}", "nothing"),
            (r#"{ "user": "site-1", "password": "secret" }"#, "user"),
            (r#"{ "token": "secret" }"#, "token"),
            (r#"{ "credentials": "site.creds" }"#, "credentials"),
        ] {
            let login = of(text).unwrap();
            assert!(login.contains(by) && !login.contains("secret"), "{login}");
        }
    }

    #[test]
    fn what_is_not_known_is_a_mistake_with_its_place() {
        for (text, why) in [
            ("{\n\"usr\": \"x\" }", "`usr`"),
            ("{\n\"user\": 3 }", "expected a string"),
            ("{ \"user\": \"x\" }", "`user` and `password`"),
            ("{ \"user\": \"x\", \"password\": \"y\", \"token\": \"z\" }", "nothing of the others"),
            ("[]", "an object is expected"),
        ] {
            let error = of(text).unwrap_err();
            assert!(error.contains(why) && error.contains("nats.json:"), "{error}");
        }
        assert!(of(r#"{ "credentials": "none.creds" }"#).unwrap_err().contains("none.creds"));
    }

    #[cfg(unix)]
    #[test]
    fn a_password_that_others_can_read_is_not_used() {
        let error = with_mode("{}", 0o644).unwrap_err();
        assert!(error.contains("is open to others (mode 0644): run `chmod 600"), "{error}");
    }
}
