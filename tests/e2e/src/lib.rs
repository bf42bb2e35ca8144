//! Runs the binary as a person would, and waits for what it does rather than for time to pass.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

/// How long anything here may take before the test gives up.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// The binary, built with the workspace's default features.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(build)
}

/// Builds the binary; where it is.
fn build() -> PathBuf {
    let output = Command::new(env!("CARGO"))
        .args(["build", "--package", "locule", "--bin", "locule", "--message-format", "json"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let messages = String::from_utf8(output.stdout).expect("cargo speaks UTF-8");
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let built = messages.filter_map(|message| message["executable"].as_str().map(PathBuf::from)).last();
    built.expect("cargo names the executable")
}

/// The root of the workspace.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A command of the binary.
pub fn locule(arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(arguments).stdin(Stdio::null());
    command
}

/// Runs a command of the binary to its end.
pub fn run(arguments: &[&str]) -> Output {
    locule(arguments).output().expect("the binary starts")
}

/// What a finished command printed on standard error.
pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A command that runs while the test goes on; killed when dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    stderr: BufReader<ChildStderr>,
}

impl Running {
    /// Starts a command of the binary; its standard input stays open.
    pub fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(binary());
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary starts");
        let stderr = BufReader::new(child.stderr.take().expect("standard error is piped"));
        Self { child, stderr }
    }

    /// Process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Reads standard error until a line contains `text`; that line.
    pub fn wait_for(&mut self, text: &str) -> String {
        let mut seen = String::new();
        loop {
            let mut line = String::new();
            let read = self.stderr.read_line(&mut line).expect("standard error is text");
            assert!(read > 0, "ended without saying {text:?}; it said:\n{seen}");
            if line.contains(text) {
                return line;
            }
            seen.push_str(&line);
        }
    }

    /// Ids of the processes that it started.
    pub fn children(&self) -> Vec<u32> {
        let listed = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.id()));
        let mut children: Vec<u32> =
            listed.unwrap_or_default().split_whitespace().filter_map(|id| id.parse().ok()).collect();
        for task in std::fs::read_dir(format!("/proc/{}/task", self.id())).into_iter().flatten().flatten() {
            let listed = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
            children.extend(listed.split_whitespace().filter_map(|id| id.parse::<u32>().ok()));
        }
        children.sort_unstable();
        children.dedup();
        children
    }

    /// Closes its standard input.
    pub fn close_stdin(&mut self) {
        drop(self.child.stdin.take());
    }

    /// Sends it a signal by name, like `INT`.
    pub fn signal(&self, name: &str) {
        signal(self.id(), name);
    }

    /// Waits for its end: exit code (none if a signal ended it), standard output, rest of standard error.
    pub fn finish(mut self) -> (Option<i32>, String, String) {
        let (mut out, mut err) = (String::new(), String::new());
        let stdout = self.child.stdout.take();
        self.stderr.read_to_string(&mut err).expect("standard error is text");
        stdout.map(|mut stdout| stdout.read_to_string(&mut out).expect("standard output is text"));
        let status = self.child.wait().expect("the process can be waited for");
        (status.code(), out, err)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Sends a signal to a process.
pub fn signal(id: u32, name: &str) {
    let status = Command::new("kill").args([&format!("-{name}"), &id.to_string()]).status();
    assert!(status.expect("kill runs").success(), "process {id} is gone already");
}

/// Waits until a process is gone; whether it went within [`PATIENCE`].
pub fn is_gone(id: u32) -> bool {
    let seconds = PATIENCE.as_secs().to_string();
    let waiting = Command::new("timeout")
        .args([&seconds, "tail", &format!("--pid={id}"), "--sleep-interval=0.05", "--follow", "/dev/null"])
        .stderr(Stdio::null())
        .status();
    waiting.expect("timeout and tail run").success()
}

/// Kits for a server and `sites` sites in `dir`, on a free port.
pub fn provision(dir: &Path, sites: u32) -> Kits {
    let port = free_port();
    let (root, sites_text, port_text) = (dir.display().to_string(), sites.to_string(), port.to_string());
    let output = run(&["provision", "--dir", &root, "--sites", &sites_text, "--port", &port_text]);
    assert!(output.status.success(), "{}", said(&output));
    let prod = dir.join("project/prod_00");
    let site = |n| prod.join(format!("site-{n}"));
    Kits { server: prod.join("server"), sites: (1..=sites).map(site).collect(), port }
}

/// Startup kits that a test made.
#[derive(Debug)]
pub struct Kits {
    /// The server's kit.
    pub server: PathBuf,
    /// The kits of `site-1`, `site-2`, …
    pub sites: Vec<PathBuf>,
    /// The server's port on loopback.
    pub port: u16,
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    listener.local_addr().expect("a bound listener has an address").port()
}
