//! How a site talks to its server: names, waits, limits.

use std::time::Duration;

use locule_fobs::Map;
use locule_protocol::ClientType;

/// Settings of a [`Communicator`](crate::Communicator).
///
/// [`Settings::new`] fills in what `fed_client.json` may leave out.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// Name of the federation's project; the server refuses another.
    pub project_name: String,
    /// Name of the site; in secure mode the common name of its certificate.
    pub site_name: String,
    /// As what it registers: a site, or a relay that provisioning knows as one.
    pub client_type: ClientType,
    /// Common name that the server's certificate must carry.
    pub expected_server: String,
    /// Whether server and site prove who they are. Without it there is no challenge.
    pub secure: bool,
    /// Whether this is a simulation: heartbeats end at the first answer that is not `ok`.
    pub simulate: bool,
    /// How long to wait for the cell's first link before the first challenge (15 s).
    pub cell_wait: Duration,
    /// Pause before a challenge or a registration is tried again (2 s).
    pub register_interval: Duration,
    /// How long an answer to a challenge, registration, heartbeat or quit may take (30 s).
    pub maintenance_timeout: Duration,
    /// How long an answer to a pull or a submission may take (300 s).
    pub communication_timeout: Duration,
    /// Pause after the server did not accept our token on a pull (5 s).
    pub auth_error_pause: Duration,
    /// From one heartbeat to the next (10 s).
    pub heartbeat_interval: Duration,
    /// Pause after a heartbeat that failed (5 s).
    pub heartbeat_retry: Duration,
    /// What the server is told of the site's configuration; at most 64 KiB as JSON.
    pub site_config: Option<Map>,
    /// Compression that the kit asks for. There is none yet: it is read and reported as without effect.
    pub compression: Option<String>,
}

impl Settings {
    /// The defaults of nvflare 2.9.0 for a site of this project.
    #[must_use]
    pub fn new(
        project_name: impl Into<String>,
        site_name: impl Into<String>,
        expected_server: impl Into<String>,
    ) -> Self {
        Self {
            project_name: project_name.into(),
            site_name: site_name.into(),
            client_type: ClientType::Regular,
            expected_server: expected_server.into(),
            secure: true,
            simulate: false,
            cell_wait: Duration::from_secs(15),
            register_interval: Duration::from_secs(2),
            maintenance_timeout: Duration::from_secs(30),
            communication_timeout: Duration::from_secs(300),
            auth_error_pause: Duration::from_secs(5),
            heartbeat_interval: Duration::from_secs(10),
            heartbeat_retry: Duration::from_secs(5),
            site_config: None,
            compression: None,
        }
    }
}
