//! What a site tells the processes of its jobs in confidence.

use std::path::PathBuf;

use locule_identity::{Session, Token};
use locule_launcher::Brief;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::SiteJobHost;

/// What a job's process has to know of its site beside what lies in the kit: names, and the session of now, without
/// the key that it was proven with.
///
/// The site [passes it on](SiteBrief::follow) through its launcher; the process [reads it](SiteBrief::read) and
/// [follows](SiteBrief::sessions) the session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SiteBrief {
    /// The folder of the kit.
    pub kit: PathBuf,
    /// Name of the site.
    pub site_name: String,
    /// Its organisation.
    pub org: String,
    session: Option<Words>,
}

/// A session as text.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Words {
    token: String,
    signature: String,
    ssid: String,
}

impl std::fmt::Debug for Words {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Words(…)")
    }
}

impl SiteBrief {
    /// What the jobs of `host` are told, now and whenever the site's session changes. Must be called in a runtime.
    #[must_use]
    pub fn follow(host: &SiteJobHost) -> watch::Receiver<Brief> {
        let known = SiteBrief {
            kit: host.kit.root().to_owned(),
            site_name: host.settings.site_name.clone(),
            org: host.org.clone(),
            session: None,
        };
        let mut sessions = host.session.clone();
        let (tell, briefs) = watch::channel(known.with(sessions.borrow_and_update().as_ref()));
        tokio::spawn(async move {
            while sessions.changed().await.is_ok() {
                let brief = known.with(sessions.borrow_and_update().as_ref());
                if tell.send(brief).is_err() {
                    return; // nobody is told any more
                }
            }
            tell.closed().await;
        });
        briefs
    }

    fn with(&self, session: Option<&Session>) -> Brief {
        let session = session.map(|session| Words {
            token: session.token().expose().to_owned(),
            signature: session.token_signature().expose().to_owned(),
            ssid: session.ssid().to_owned(),
        });
        let said = SiteBrief { session, ..self.clone() };
        Brief::new(serde_json::to_string(&said).unwrap_or_default())
    }

    /// Reads what a process was told.
    ///
    /// # Errors
    /// What is wrong with it, without its words.
    pub fn read(brief: &Brief) -> Result<SiteBrief, String> {
        serde_json::from_str(brief.expose())
            .map_err(|error| format!("what the site told its job makes no sense (column {})", error.column()))
    }

    /// The session of now.
    fn session(&self) -> Option<Session> {
        let Words { token, signature, ssid } = self.session.clone()?;
        let token = Token { token: token.into(), signature: signature.into(), ssid };
        Session::handed_on(&self.site_name, token).ok()
    }

    /// The sessions that a process is told of. Must be called in a runtime.
    #[must_use]
    pub fn sessions(mut briefs: watch::Receiver<Brief>) -> watch::Receiver<Option<Session>> {
        let session = |brief: &Brief| SiteBrief::read(brief).ok().and_then(|brief| brief.session());
        let (tell, sessions) = watch::channel(session(&briefs.borrow_and_update()));
        tokio::spawn(async move {
            while briefs.changed().await.is_ok() {
                let session = session(&briefs.borrow_and_update());
                if tell.send(session).is_err() {
                    return;
                }
            }
            tell.closed().await;
        });
        sessions
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use locule_communicator::Settings;
    use locule_component::Registry;
    use locule_kit::Workspace;
    use locule_transport::Transports;

    use super::*;

    fn session(token: &str) -> Session {
        let token = Token { token: token.into(), signature: "signed".into(), ssid: "ssid".into() };
        Session::handed_on("site-1", token).unwrap()
    }

    #[tokio::test]
    async fn a_process_hears_of_every_session_of_its_site() {
        let (sessions, of_now) = watch::channel(None);
        let settings = Settings::new("ward-7", "site-1", "server");
        let (kit, registry) = (Workspace::new("kits/site-1"), Arc::new(Registry::new()));
        let host = SiteJobHost::new(settings, kit, registry, Transports::new(), of_now);
        let briefs = SiteBrief::follow(&host);
        let mut heard = SiteBrief::sessions(briefs.clone());
        assert!(heard.borrow_and_update().is_none());
        for token in ["first", "second"] {
            sessions.send_replace(Some(session(token)));
            heard.changed().await.unwrap();
            let session = heard.borrow_and_update().clone().unwrap();
            let said = [session.site_name(), session.token().expose(), session.token_signature().expose()];
            assert_eq!((said, session.ssid()), (["site-1", token, "signed"], "ssid"));
        }
        let brief = SiteBrief::read(&briefs.borrow()).unwrap();
        assert_eq!((brief.kit, brief.site_name.as_str()), (PathBuf::from("kits/site-1"), "site-1"));
        assert!(!format!("{:?}", SiteBrief::read(&briefs.borrow())).contains("second"));
        assert!(SiteBrief::read(&Brief::new(r#"{"token": "second"}"#)).unwrap_err().contains("no sense"));
    }
}
