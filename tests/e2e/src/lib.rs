//! Runs the binary as a person would, and waits for what it does rather than for time to pass.

use std::io::{BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// How long anything here may take before the test gives up.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// The binary, built with the workspace's default features, and as the tests are: optimised or not.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| build(&[]))
}

/// The binary, which also takes checkers in WebAssembly. It lies where [`binary`] does: use one of both.
pub fn binary_with_wasm() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| build(&["--features", "wasm"]))
}

/// Builds the binary; where it is.
fn build(features: &[&str]) -> PathBuf {
    let output = Command::new(env!("CARGO"))
        .args(["build", "--package", "locule", "--bin", "locule", "--message-format", "json"])
        .args(features)
        .args((!cfg!(debug_assertions)).then_some("--release"))
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let messages = String::from_utf8(output.stdout).expect("cargo speaks UTF-8");
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut built = messages.filter_map(|message| message["executable"].as_str().map(PathBuf::from));
    built.next_back().expect("cargo names the executable")
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
    Running::spawn(&mut locule(arguments)).end()
}

/// What a finished command printed on standard error.
pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A command that runs while the test goes on; killed when dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    lines: Receiver<(Stream, String)>,
    printed: [String; 2],
    /// How much of each stream was waited for, in bytes.
    waited_for: [usize; 2],
}

/// One of the two streams that a command prints to, as an index.
type Stream = usize;
const OUT: Stream = 0;
const ERR: Stream = 1;

impl Running {
    /// Starts a command of the binary; its standard input stays open.
    pub fn start(arguments: &[&str]) -> Self {
        Self::spawn(Command::new(binary()).args(arguments).stdin(Stdio::piped()))
    }

    /// The same, with these variables in its environment.
    pub fn start_with(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut command = Command::new(binary());
        Self::spawn(command.args(arguments).envs(environment.iter().copied()).stdin(Stdio::piped()))
    }

    fn spawn(command: &mut Command) -> Self {
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts");
        let (to, lines) = channel();
        follow(OUT, child.stdout.take().expect("standard output is piped"), to.clone());
        follow(ERR, child.stderr.take().expect("standard error is piped"), to);
        Self { child, lines, printed: Default::default(), waited_for: [0; 2] }
    }

    /// Process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line that contains `text` on either stream, behind those waited for before; that line.
    pub fn wait_for(&mut self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            for stream in [OUT, ERR] {
                let new = &self.printed[stream][self.waited_for[stream]..];
                if let Some(at) = new.find(text) {
                    let start = new[..at].rfind('\n').map_or(0, |end| end + 1);
                    let end = new[at..].find('\n').map_or(new.len(), |end| at + end + 1);
                    let line = new[start..end].to_owned();
                    self.waited_for[stream] += end;
                    return line;
                }
            }
            assert!(
                self.read_line(deadline),
                "ended without saying {text:?}; it said:\n{}",
                self.printed.concat()
            );
        }
    }

    /// Takes in one line more; whether there was one before both streams closed.
    fn read_line(&mut self, deadline: Instant) -> bool {
        match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok((stream, line)) => {
                self.printed[stream] += &line;
                true
            }
            Err(RecvTimeoutError::Disconnected) => false,
            Err(RecvTimeoutError::Timeout) => {
                panic!("still running after {PATIENCE:?}; it said:\n{}", self.printed.concat())
            }
        }
    }

    /// Ids of the processes that it started.
    pub fn children(&self) -> Vec<u32> {
        children_of(self.id())
    }

    /// Closes its standard input.
    pub fn close_stdin(&mut self) {
        drop(self.child.stdin.take());
    }

    /// Sends it a signal by name, like `INT`.
    pub fn signal(&self, name: &str) {
        signal(self.id(), name);
    }

    /// Waits for its end: exit code (none if a signal ended it), standard output, standard error.
    pub fn finish(self) -> (Option<i32>, String, String) {
        let Output { status, stdout, stderr } = self.end();
        let text = |bytes| String::from_utf8(bytes).expect("the binary speaks UTF-8");
        (status.code(), text(stdout), text(stderr))
    }

    fn end(mut self) -> Output {
        let deadline = Instant::now() + PATIENCE;
        while self.read_line(deadline) {}
        let status = self.child.wait().expect("the process can be waited for");
        let [stdout, stderr] = std::mem::take(&mut self.printed).map(String::into_bytes);
        Output { status, stdout, stderr }
    }
}

/// Passes on what a process prints, line by line.
fn follow(stream: Stream, from: impl Read + Send + 'static, to: Sender<(Stream, String)>) {
    std::thread::spawn(move || {
        let mut from = BufReader::new(from);
        let mut line = String::new();
        while from.read_line(&mut line).is_ok_and(|read| read > 0) {
            if to.send((stream, std::mem::take(&mut line))).is_err() {
                return;
            }
        }
    });
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Ids of the processes that a process has started and that are still there.
pub fn children_of(id: u32) -> Vec<u32> {
    let mut children = Vec::new();
    for thread in std::fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten().flatten() {
        let listed = std::fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        children.extend(listed.split_whitespace().filter_map(|id| id.parse::<u32>().ok()));
    }
    children.sort_unstable();
    children.dedup();
    children
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
    let (sites_text, port_text) = (sites.to_string(), port.to_string());
    let output = run(&["provision", "--dir", text(dir), "--sites", &sites_text, "--port", &port_text]);
    assert!(output.status.success(), "{}", said(&output));
    let prod = dir.join("project/prod_00");
    let site = |n| prod.join(format!("site-{n}"));
    let admin = prod.join("admin@locule.org");
    Kits { server: prod.join("server"), sites: (1..=sites).map(site).collect(), admin, port }
}

/// Startup kits that a test made.
#[derive(Debug)]
pub struct Kits {
    /// The server's kit.
    pub server: PathBuf,
    /// The kits of `site-1`, `site-2`, …
    pub sites: Vec<PathBuf>,
    /// The administrator's kit.
    pub admin: PathBuf,
    /// The server's port on loopback.
    pub port: u16,
}

impl Kits {
    /// Starts the server, with every request in its log, and waits until it listens.
    pub fn start_server(&self) -> Running {
        let mut server = Running::start(&["server", text(&self.server), "-vv", "--stop-with-stdin"]);
        server.wait_for("listening at");
        server
    }

    /// Starts `site-1`, `site-2`, … (from 1) with a heartbeat every second.
    pub fn start_site(&self, number: usize) -> Running {
        let kit = text(&self.sites[number - 1]);
        Running::start(&["site", kit, "-vv", "--heartbeat", "1", "--stop-with-stdin"])
    }
}

/// A path as an argument.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("tests use UTF-8 paths")
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    listener.local_addr().expect("a bound listener has an address").port()
}
