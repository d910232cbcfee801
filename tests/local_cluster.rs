//! `kontiki cluster`: starts, serves, survives the death of a node, stops, and continues.
#![allow(clippy::disallowed_methods)] // waits on processes with a deadline

mod support;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

const WAIT_MAX: Duration = Duration::from_secs(60);

/// Below the ephemeral ports: none of these is used by an outgoing connection.
const PORTS: std::ops::Range<u16> = 10_000..30_000;

/// The first of `count` neighbouring ports without a listener; each process begins its search elsewhere.
fn free_ports(count: u16) -> u16 {
    let slots = u32::from((PORTS.end - PORTS.start) / count);
    let first = |slot: u32| PORTS.start + (slot % slots) as u16 * count;
    let free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let mut candidates = (0..slots).map(|i| first(std::process::id().wrapping_add(i)));
    let found = candidates.find(|first| (*first..first + count).all(free));
    found.unwrap_or_else(|| panic!("no {count} neighbouring free ports in {PORTS:?}"))
}

/// A running cluster and its console output, both streams together.
struct Running {
    process: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Running {
    fn start(folder: &Path, port: u16) -> Running {
        let mut process = Command::new(env!("CARGO_BIN_EXE_kontiki"))
            .args(["cluster", "--nodes", "3", "--port", &port.to_string()])
            .args(["--status-port", &(port + 3).to_string(), "--dir"])
            .arg(folder)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let (sender, lines) = channel();
        let (out, err) = (process.stdout.take().expect("piped"), process.stderr.take().expect("piped"));
        let copy = sender.clone();
        std::thread::spawn(move || BufReader::new(out).lines().map_while(Result::ok).try_for_each(|l| copy.send(l)));
        std::thread::spawn(move || BufReader::new(err).lines().map_while(Result::ok).try_for_each(|l| sender.send(l)));
        Running { process, lines, seen: Vec::new() }
    }

    /// The next line that contains `text`.
    fn line(&mut self, text: &str) -> String {
        let deadline = Instant::now() + WAIT_MAX;
        loop {
            let line = self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now()));
            let line = line.unwrap_or_else(|_| panic!("waited for {text:?}; seen: {:#?}", self.seen));
            self.seen.push(line.clone());
            if line.contains(text) {
                return line;
            }
        }
    }

    fn interrupt(mut self) {
        kill_process(Pid::from_child(&self.process), Signal::INT).expect("signalled");
        self.line("stopped");
        assert!(self.process.wait().expect("waitable").success(), "{:#?}", self.seen);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill(); // it has ended already if all went well
    }
}

fn kontiki_at(endpoints: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kontiki"));
    command.args(arguments).args(["--endpoint", endpoints]).output().expect("the program starts")
}

fn kontiki(port: u16, arguments: &[&str]) -> Output {
    kontiki_at(&format!("127.0.0.1:{port}"), arguments)
}

fn succeeds_at(endpoints: &str, arguments: &[&str]) -> String {
    let output = kontiki_at(endpoints, arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

fn succeeds(port: u16, arguments: &[&str]) -> String {
    succeeds_at(&format!("127.0.0.1:{port}"), arguments)
}

/// The same, repeated while an election lasts longer than the command waits, or has left a put's outcome unknown.
fn succeeds_in_the_end(port: u16, arguments: &[&str]) -> String {
    let deadline = Instant::now() + WAIT_MAX;
    loop {
        let output = kontiki(port, arguments);
        if output.status.success() {
            return String::from_utf8(output.stdout).expect("text");
        }
        assert!(Instant::now() < deadline, "{arguments:?}: {output:?}");
    }
}

/// Asks until placement has a report of every store and every leader.
fn wait_for_status(port: u16) -> Value {
    let deadline = Instant::now() + WAIT_MAX;
    loop {
        let status: Value = serde_json::from_str(&succeeds_in_the_end(port, &["status", "--json"])).expect("JSON");
        let regions = status["regions"].as_array().expect("a list");
        if regions.len() > 1 && regions.iter().all(|region| region["leader_store"].is_u64()) {
            return status;
        }
        assert!(Instant::now() < deadline, "{status:#}");
    }
}

/// A killed store is not up for long; versions are the program's; counts of regions are those of the nodes.
fn check_status_without_the_second_store(port: u16) {
    let deadline = Instant::now() + WAIT_MAX;
    let states = |status: &Value| -> Vec<String> {
        let stores = status["stores"].as_array().expect("a list");
        stores.iter().map(|store| store["state"].as_str().expect("text").to_owned()).collect()
    };
    let mut status = wait_for_status(port);
    while states(&status) != ["up", "disconnected", "up"] {
        assert!(Instant::now() < deadline, "{status:#}");
        status = wait_for_status(port);
    }
    let regions = status["regions"].as_array().expect("a list").len();
    for store in status["stores"].as_array().expect("a list") {
        assert_eq!(store["version"], env!("CARGO_PKG_VERSION"), "{store:#}");
        assert_eq!(store["regions"], regions, "three replicas on three nodes: {store:#}");
    }
    let (code, metrics) = support::http_get(&format!("127.0.0.1:{}", port + 3), "/metrics").expect("answers");
    assert_eq!(code, 200);
    assert!(metrics.lines().any(|line| line == format!("kontiki_regions {regions}")), "{metrics}");
}

/// One of several endpoints may hang: it accepts connections and answers nothing. A status port is not an endpoint.
fn check_endpoints(port: u16) {
    let frozen = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let nodes = format!("{},127.0.0.1:{}", frozen.local_addr().expect("bound"), port + 2);
    for (arguments, printed) in [(&["get", "greeting"][..], "hello"), (&["scan"], "greeting"), (&["status"], "STORE")] {
        let printed_here = succeeds_at(&nodes, arguments);
        assert!(printed_here.contains(printed), "{arguments:?}: {printed_here}");
    }
    for arguments in [&["get", "greeting"][..], &["status"]] {
        let refused = kontiki(port + 3, arguments);
        assert_eq!(refused.status.code(), Some(2), "{refused:?}");
        assert!(String::from_utf8_lossy(&refused.stderr).contains("status port"), "{refused:?}");
    }
}

#[test]
fn it_starts_serves_survives_a_node_stops_and_continues() {
    let scratch = tempfile::tempdir().expect("a directory");
    let port = free_ports(6);
    let mut cluster = Running::start(scratch.path(), port);
    let victim = cluster.line(&format!("127.0.0.1:{} ", port + 1)); // the row of node 2
    cluster.line("ready");

    succeeds_in_the_end(port + 1, &["put", "greeting", "hello"]);
    assert_eq!(succeeds_in_the_end(port + 2, &["get", "greeting"]), "hello\n");
    assert!(succeeds_in_the_end(port, &["scan"]).contains("greeting"));
    let status = wait_for_status(port);
    assert_eq!(status["stores"].as_array().map(Vec::len), Some(3), "{status:#}");
    assert!(succeeds(port, &["status"]).contains("STORE"));
    assert!(scratch.path().join("node-3/log").is_file());

    check_endpoints(port);

    let process_id: i32 = victim.split_whitespace().nth(3).and_then(|id| id.parse().ok()).expect("a process id");
    kill_process(Pid::from_raw(process_id).expect("not 0"), Signal::KILL).expect("signalled");
    cluster.line("node 2 ended");
    succeeds_in_the_end(port, &["put", "after", "the loss of one"]);
    check_status_without_the_second_store(port);
    cluster.interrupt();

    let mut cluster = Running::start(scratch.path(), port);
    cluster.line("ready");
    assert_eq!(succeeds_in_the_end(port + 1, &["get", "greeting"]), "hello\n");
    assert_eq!(succeeds_in_the_end(port, &["get", "after"]), "the loss of one\n");
    let refused = kontiki(port, &["get", "greeting", "--hex"]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");

    let held = scratch.path().join("node-1");
    let second = Command::new(env!("CARGO_BIN_EXE_kontiki"))
        .args(["get", "greeting", "--data-dir"])
        .arg(&held)
        .output()
        .expect("the program starts");
    assert_eq!(second.status.code(), Some(1), "{second:?}");
    assert!(String::from_utf8_lossy(&second.stderr).contains("is in use"), "{second:?}");
    cluster.interrupt();
}
