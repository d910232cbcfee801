//! Runs real `kontiki serve` processes for the tests in this folder. Only processes started here are ended.
#![allow(dead_code, clippy::disallowed_methods)] // each test file uses its part; tests may touch the machine

pub mod certificates;
pub mod sick_disk;

use serde_json::Value;
use std::fmt::Debug;
use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tikv_client::{RawClient, TransactionClient};

/// How long a wait may take before the test fails with the condition that it waited for.
pub const WAIT_MAX: Duration = Duration::from_secs(60);

/// The first data region: everything but the empty tail that the wire contract asks for.
pub const DATA_REGION: u64 = 2;

/// One node: its addresses, its directory and, while it runs, its process.
pub struct Node {
    pub store_id: u64,
    pub addr: String,
    pub status_addr: String,
    pub data_dir: PathBuf,
    /// Further options of every start.
    pub options: Vec<String>,
    /// Further variables of its environment.
    pub environment: Vec<(&'static str, PathBuf)>,
    log: PathBuf,
    /// The list of nodes with which it is started; empty: none.
    pub initial_cluster: String,
    child: Option<Child>,
}

/// Nodes of one cluster, in a directory that is removed when the test ends. A failed test prints the nodes' logs.
pub struct Cluster {
    pub nodes: Vec<Node>,
    pub dir: tempfile::TempDir,
}

/// The addresses of the nodes, on an IP address of the test: the first ports for clients and for the status pages.
const GRPC_PORT: u16 = 20_160;
const STATUS_PORT: u16 = 20_180;

/// Calls `probe` until it gives a value; panics with `what` after [`WAIT_MAX`].
pub fn wait_for<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + WAIT_MAX;
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited {WAIT_MAX:?} without success for: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Repeats `attempt` until it succeeds, at most for [`WAIT_MAX`]; panics with its last error. For operations that may
/// be repeated.
///
/// Clients give up before some conditions end: an election on a busy machine, or the time to live of a lock (3 s) that
/// a killed client or leader left. A user would retry, and so does a test.
pub async fn eventually<T, E, F>(what: &str, mut attempt: impl FnMut() -> F) -> T
where
    E: Debug,
    F: Future<Output = Result<T, E>>,
{
    let deadline = Instant::now() + WAIT_MAX;
    loop {
        match attempt().await {
            Ok(value) => return value,
            Err(error) => {
                assert!(Instant::now() < deadline, "tried for {WAIT_MAX:?} without success: {what}: {error:?}")
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The unmodified client's settings: a request may take as long as this machine needs; the default timeout of 2 s would
/// fail on a busy one.
fn client_config() -> tikv_client::Config {
    tikv_client::Config::default().with_timeout(WAIT_MAX / 3)
}

/// A raw client, once there is a leader to talk to.
pub async fn connect_raw(endpoints: &[String]) -> RawClient {
    eventually("a raw client", async || RawClient::new_with_config(endpoints.to_vec(), client_config()).await).await
}

/// A transactional client, once there is a leader to talk to.
pub async fn connect_transactions(endpoints: &[String]) -> TransactionClient {
    let connect = async || TransactionClient::new_with_config(endpoints.to_vec(), client_config()).await;
    eventually("a transactional client", connect).await
}

/// The same of API version 2, for keys that have the prefix of their keyspace already.
pub async fn connect_keyspaces(endpoints: &[String]) -> TransactionClient {
    let connect =
        async || TransactionClient::new_with_config_api_v2_no_prefix(endpoints.to_vec(), client_config()).await;
    eventually("a transactional client", connect).await
}

/// A plain HTTP GET; `None` if there is no answer.
pub fn http_get(addr: &str, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(addr).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split_whitespace().nth(1)?.parse().ok()?;
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    Some((status, if chunked { unchunk(body) } else { body.to_owned() }))
}

fn unchunk(mut body: &str) -> String {
    let mut out = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
        if size == 0 || rest.len() < size {
            break;
        }
        out.push_str(&rest[..size]);
        body = rest[size..].strip_prefix("\r\n").unwrap_or("");
    }
    out
}

/// The command under test.
pub fn kontiki() -> Command {
    Command::new(env!("CARGO_BIN_EXE_kontiki"))
}

impl Node {
    pub fn start(&mut self) {
        self.start_with(&[]);
    }

    /// With further options.
    pub fn start_with(&mut self, options: &[&str]) {
        assert!(self.child.is_none(), "store {} runs already", self.store_id);
        let log = File::options().create(true).append(true).open(&self.log).expect("log file");
        let mut command = kontiki();
        command.args(["serve", "--store-id", &self.store_id.to_string(), "--grpc-address", &self.addr]);
        command.args(["--status-address", &self.status_addr, "--data-dir"]).arg(&self.data_dir);
        if !self.initial_cluster.is_empty() {
            command.args(["--initial-cluster", &self.initial_cluster]);
        }
        command
            .args(&self.options)
            .args(options)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("log handle"))
            .stderr(log);
        self.child = Some(command.spawn().expect("kontiki starts"));
    }

    pub fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// The number of its process while it runs.
    pub fn process_id(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Sends a signal that does not end it.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(self.child.as_ref().expect("runs"));
        rustix::process::kill_process(pid, signal).expect("signalled");
    }

    /// Fails if its process ended by itself.
    pub fn check_running(&mut self) {
        if let Some(status) = self.child.as_mut().and_then(|child| child.try_wait().expect("waitable")) {
            panic!("store {} ended with {status}: {}", self.store_id, self.log_text());
        }
    }

    /// Ready: every region this node holds has a known leader.
    pub fn wait_ready(&mut self) {
        let what = format!("store {} to be ready; its log: {}", self.store_id, self.log.display());
        wait_for(&what, || {
            self.check_running();
            matches!(http_get(&self.status_addr, "/readyz"), Some((200, _))).then_some(())
        });
    }

    pub fn status(&self) -> Option<Value> {
        let (code, body) = http_get(&self.status_addr, "/status")?;
        (code == 200).then(|| serde_json::from_str(&body).expect("status is JSON"))
    }

    /// SIGKILL: nothing is flushed or reported.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("runs");
        child.kill().expect("killable");
        child.wait().expect("waitable");
    }

    /// SIGTERM, and waits for the clean end.
    pub fn stop(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("runs");
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("signalled");
        let what = format!("store {} to stop; its log: {}", self.store_id, self.log.display());
        wait_for(&what, || child.try_wait().expect("waitable"))
    }

    /// Waits until it ends by itself.
    pub fn wait_end(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("runs");
        let what = format!("store {} to end by itself; its log: {}", self.store_id, self.log.display());
        wait_for(&what, || child.try_wait().expect("waitable"))
    }

    /// Whether it says that it leads `region`.
    pub fn leads(&self, region: u64) -> bool {
        let Some(status) = self.is_running().then(|| self.status()).flatten() else { return false };
        region_of(&status, region).is_some_and(|found| found["leading_term"].is_u64())
    }

    pub fn log_text(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Cluster {
    /// `count` nodes, started and ready.
    pub fn start(count: usize) -> Cluster {
        Cluster::prepared(count, |_| ())
    }

    /// The same; each node's directory is prepared before it starts.
    pub fn prepared(count: usize, prepare: impl Fn(&Node)) -> Cluster {
        let mut cluster = Cluster::planned(count);
        cluster.nodes.iter().for_each(prepare);
        cluster.nodes.iter_mut().for_each(Node::start);
        cluster.wait_ready();
        cluster
    }

    /// `count` nodes that are not started yet.
    pub fn planned(count: usize) -> Cluster {
        let dir = tempfile::tempdir().expect("a directory");
        let host = kontiki_env::testing::loopback_address();
        let addr = |first: u16, i: usize| format!("{host}:{}", first + i as u16);
        let members: Vec<String> = (0..count).map(|i| format!("{}={}", i + 1, addr(GRPC_PORT, i))).collect();
        let initial_cluster = if count == 1 { String::new() } else { members.join(",") };
        let nodes = (0..count)
            .map(|i| Node {
                store_id: i as u64 + 1,
                addr: addr(GRPC_PORT, i),
                status_addr: addr(STATUS_PORT, i),
                data_dir: dir.path().join(format!("node-{}", i + 1)),
                options: Vec::new(),
                environment: Vec::new(),
                log: dir.path().join(format!("node-{}.log", i + 1)),
                initial_cluster: initial_cluster.clone(),
                child: None,
            })
            .collect();
        Cluster { nodes, dir }
    }

    pub fn wait_ready(&mut self) {
        self.nodes.iter_mut().for_each(Node::wait_ready);
    }

    /// Endpoints for a client.
    pub fn endpoints(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.addr.clone()).collect()
    }

    /// Index of the node that reports that it leads `region`.
    pub fn leader_of(&self, region: u64) -> usize {
        wait_for(&format!("a leader of region {region}"), || self.nodes.iter().position(|node| node.leads(region)))
    }

    /// Waits until every running node has applied the same index of every region, twice in a row.
    pub fn wait_quiet(&self) {
        let mut previous = None;
        wait_for("all replicas to have applied the same", || {
            let applied: Option<Vec<Vec<(u64, u64)>>> =
                self.nodes.iter().map(|node| applied(&node.status()?)).collect();
            let applied = applied?;
            let equal = applied.windows(2).all(|pair| pair[0] == pair[1]);
            let stable = equal && previous.as_ref() == Some(&applied);
            previous = Some(applied);
            stable.then_some(())
        });
    }

    /// Stops all nodes once they have applied the same, and compares their data, which it returns.
    pub fn stop_with_equal_data(&mut self) -> Vec<(u32, Vec<u8>, Vec<u8>)> {
        self.wait_quiet();
        self.stop();
        let first = dump_data(&self.nodes[0].data_dir);
        for node in &self.nodes[1..] {
            assert!(dump_data(&node.data_dir) == first, "store {} differs from store 1", node.store_id);
        }
        first
    }

    pub fn stop(&mut self) {
        for node in self.nodes.iter_mut().filter(|node| node.is_running()) {
            let status = node.stop();
            assert!(status.success(), "store {} ended with {status}: {}", node.store_id, node.log_text());
        }
    }
}

/// The entry of `region` in a node's `/status`.
pub fn region_of(status: &Value, region: u64) -> Option<&Value> {
    status["regions"].as_array()?.iter().find(|found| found["id"] == region)
}

fn applied(status: &Value) -> Option<Vec<(u64, u64)>> {
    let regions = status["regions"].as_array()?;
    regions.iter().map(|region| Some((region["id"].as_u64()?, region["applied_index"].as_u64()?))).collect()
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            if let Some(mut child) = node.child.take() {
                let _ = child.kill();
                let _ = child.wait();
            }
            if std::thread::panicking() {
                eprintln!("--- log of store {}\n{}", node.store_id, node.log_text());
            }
        }
    }
}

/// Every entry of the data families of a stopped node's directory: (family, key, value).
pub fn dump_data(dir: &Path) -> Vec<(u32, Vec<u8>, Vec<u8>)> {
    use kontiki_engine::{Direction, Family, Range, View};
    let db =
        kontiki_engine::Db::open(dir, kontiki_engine::Options::default()).expect("a stopped node's directory opens");
    let view = db.snapshot();
    let mut found = Vec::new();
    let families = db.families().into_iter().map(|spec| spec.family);
    for family in families.filter(|family| !Family::NODE_STATE.contains(family)) {
        let mut entries = view.entries(family, Range::all(), Direction::Forward).expect("iterates");
        while let Some((key, value)) = entries.next().transpose().expect("reads") {
            found.push((family.0, key.to_vec(), value.to_vec()));
        }
    }
    found
}
