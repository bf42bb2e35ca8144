//! A nats-server for tests: found or fetched, started on a free port, gone with its test.
//!
//! [`Broker::start`] takes the `nats-server` of the `PATH`. If there is none, it fetches Debian's package into the
//! target folder, once, without installing anything. A broker stores nothing; it ends when it is dropped, and also
//! when its test ends without dropping it.

mod fetch;

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::{Context as _, bail};
use tempfile::TempDir;

/// Runs a broker, and ends it when the standard input closes: that also happens when whoever holds it is killed.
const KEEPER: &str = r#""$0" "$@" & server=$!; cat > /dev/null; kill -9 $server; wait $server"#;

/// A nats-server on loopback.
#[derive(Debug)]
pub struct Broker {
    dir: TempDir,
    configuration: String,
    /// Zero before it has run.
    port: u16,
    leaf_port: u16,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    keeper: Child,
    /// Open as long as the broker runs.
    stdin: ChildStdin,
}

impl Broker {
    /// A broker to which leaf nodes can connect.
    ///
    /// # Errors
    /// When there is no nats-server and none can be fetched; the text says what to do.
    pub fn start() -> anyhow::Result<Self> {
        Self::with("")
    }

    /// The same with more lines of configuration.
    ///
    /// # Errors
    /// As [`start`](Self::start), and what the broker says of the configuration.
    pub fn with(configuration: &str) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir().context("make a folder")?;
        let configuration = configuration.to_owned();
        let mut broker = Self { dir, configuration, port: 0, leaf_port: 0, running: None };
        broker.run()?;
        Ok(broker)
    }

    /// A leaf node of another broker.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn leaf_of(hub: &Broker) -> anyhow::Result<Self> {
        Self::with(&format!(
            "leafnodes {{ remotes: [ {{ url: \"nats-leaf://127.0.0.1:{}\" }} ] }}",
            hub.leaf_port
        ))
    }

    /// Where it listens: `127.0.0.1:4222`.
    pub fn authority(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The port of that.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Kills it.
    pub fn kill(&mut self) {
        if let Some(Running { mut keeper, stdin }) = self.running.take() {
            drop(stdin);
            keeper.wait().ok();
        }
    }

    /// Kills it and starts it again at the same ports.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.kill();
        self.run()
    }

    /// Runs it until it is ready. What it says then is read and forgotten.
    fn run(&mut self) -> anyhow::Result<()> {
        let program = fetch::nats_server()?;
        let file = self.dir.path().join("nats.conf");
        let port = |port| if port == 0 { "-1".to_owned() } else { format!("{port}") };
        let mut configuration = format!("{}\n", self.configuration);
        if !configuration.contains("leafnodes") {
            configuration += &format!("leafnodes {{ listen: \"127.0.0.1:{}\" }}\n", port(self.leaf_port));
        }
        fs::write(&file, configuration).context("write the configuration")?;
        let mut keeper = Command::new("sh")
            .args(["-c", KEEPER])
            .arg(&program)
            .args(["--addr", "127.0.0.1", "--port", &port(self.port), "--config"])
            .arg(&file)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("start sh")?;
        let stdin = keeper.stdin.take().context("its standard input is piped")?;
        let mut said = BufReader::new(keeper.stderr.take().context("its standard error is piped")?);
        self.running = Some(Running { keeper, stdin });
        let (mut line, mut all) = (String::new(), String::new());
        while said.read_line(&mut line).is_ok_and(|count| count > 0) {
            all.push_str(&line);
            let port = || line.trim().rsplit(':').next()?.parse().ok();
            if line.contains("Listening for client connections on") {
                self.port = port().with_context(|| format!("no port in {line:?}"))?;
            } else if line.contains("Listening for leafnode connections on") {
                self.leaf_port = port().with_context(|| format!("no port in {line:?}"))?;
            } else if line.contains("Server is ready") {
                std::thread::spawn(move || said.read_to_end(&mut Vec::new()));
                return Ok(());
            } else if line.contains("[FTL]") {
                break;
            }
            line.clear();
        }
        self.kill();
        bail!("{} does not start:\n{all}", program.display());
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}
