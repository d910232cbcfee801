//! One node of a local cluster: a child process that runs `serve`.

use super::{Failure, local};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdin, Command};

/// Number of log lines in the report of a node that ended.
const LAST_LINES: usize = 8;
/// Bytes at the end of a log that are read for them.
const LAST_BYTES: u64 = 8 << 10;
/// The answer to a readiness probe is a few lines; a longer one is not read to its end.
const ANSWER_BYTES_MAX: u64 = 4 << 10;

/// The parameters of a node.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its number, from 1, which is its store id.
    pub number: u64,
    /// Its address for clients.
    pub grpc: SocketAddr,
    /// Its status address.
    pub status: SocketAddr,
    /// Its data directory; the log file is in it, too.
    pub folder: PathBuf,
}

/// A running node. Dropping it kills the process.
pub struct Running {
    child: Child,
    /// The log, and how long it was before this start: earlier runs have written to it, too.
    log: (PathBuf, u64),
    /// The child runs while this pipe is open, so it ends with this process even if this one is killed.
    lifeline: Option<ChildStdin>,
}

impl Node {
    /// The file for the node's output and log.
    pub fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// Starts the process, in its own process group: Ctrl-C reaches only this process, which stops the nodes.
    #[allow(clippy::disallowed_methods, clippy::disallowed_types)] // a child's output needs a file of the system
    pub fn start(&self, initial_cluster: &str, more: &[String]) -> Result<Running, Failure> {
        let cannot = |what: &str, error: std::io::Error| Failure::new(format!("node {}: {what}: {error}", self.number));
        let unusable = |path: &Path, error: std::io::Error| local::failed(kontiki_engine::Error::io(path, &error));
        std::fs::create_dir_all(&self.folder).map_err(|error| unusable(&self.folder, error))?;
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log());
        let log = log.map_err(|error| unusable(&self.log(), error))?;
        let before = log.metadata().map_or(0, |metadata| metadata.len());
        let copy = log.try_clone().map_err(|error| cannot("cannot share its log", error))?;
        let program = std::env::current_exe().map_err(|error| cannot("cannot find this program", error))?;
        let mut child = Command::new(program)
            .args(["serve", "--stop-with-stdin", "--store-id", &self.number.to_string()])
            .args(["--initial-cluster", initial_cluster])
            .args(["--status-address", &self.status.to_string()])
            .arg("--data-dir")
            .arg(&self.folder)
            .args(more)
            .env("NO_COLOR", "1") // its output goes to a file
            .stdin(Stdio::piped())
            .stdout(log)
            .stderr(copy)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| cannot("cannot start it", error))?;
        let lifeline = child.stdin.take();
        Ok(Running { child, log: (self.log(), before), lifeline })
    }

    /// Whether it answers that it is ready. Bounded in time.
    pub async fn is_ready(&self) -> bool {
        let ask = async {
            let mut stream = TcpStream::connect(self.status).await.ok()?;
            let request = format!("GET /readyz HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.status);
            stream.write_all(request.as_bytes()).await.ok()?;
            let mut answer = Vec::new();
            stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await.ok()?;
            answer.starts_with(b"HTTP/1.1 200").then_some(())
        };
        matches!(tokio::time::timeout(Duration::from_secs(1), ask).await, Ok(Some(())))
    }
}

impl Running {
    /// The last lines that it has written to its log.
    pub fn last_lines(&self) -> Vec<String> {
        let (path, before) = &self.log;
        let end = read_end(path, *before).unwrap_or_default();
        let text = String::from_utf8_lossy(&end).into_owned();
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        lines.iter().skip(lines.len().saturating_sub(LAST_LINES)).map(ToString::to_string).collect()
    }

    /// The process id.
    pub fn process_id(&self) -> u32 {
        self.child.id().unwrap_or(0)
    }

    /// Waits until the process ends.
    pub async fn ended(&mut self) -> std::io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Asks it to end, and kills it if it has not done so in time. Returns whether it ended by itself.
    pub async fn stop(&mut self, grace: Duration) -> bool {
        self.lifeline = None;
        if tokio::time::timeout(grace, self.child.wait()).await.is_ok() {
            return true;
        }
        let _ = self.child.kill().await; // an error means that it has ended
        false
    }
}

/// The end of what is behind `before`.
fn read_end(path: &Path, before: u64) -> std::io::Result<Vec<u8>> {
    use kontiki_env::fs::{Fs, OpenMode, RealFs};
    let file = RealFs.open(path, OpenMode::Read)?;
    let length = file.len()?;
    let start = length.saturating_sub(LAST_BYTES).max(before).min(length);
    let mut bytes = vec![0; (length - start) as usize];
    let count = file.read_at(&mut bytes, start)?;
    bytes.truncate(count);
    Ok(bytes)
}
