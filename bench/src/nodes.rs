//! Three local `kontiki serve` processes for a measurement; ended when dropped.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub struct Node {
    pub addr: String,
    pub status_addr: String,
    dir: PathBuf,
    arguments: Vec<String>,
    child: Option<Child>,
}

pub struct Nodes {
    pub nodes: Vec<Node>,
    binary: PathBuf,
    _dir: tempfile::TempDir,
}

fn get(addr: &str, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(addr).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {addr}\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    text.split_once("\r\n\r\n").filter(|(head, _)| head.contains(" 200 ")).map(|(_, body)| body.to_owned())
}

/// Loopback addresses that were free a moment ago.
pub fn free_addresses(count: usize) -> Vec<String> {
    let listeners: Vec<_> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").expect("a port")).collect();
    listeners.iter().map(|listener| listener.local_addr().expect("bound").to_string()).collect()
}

/// User plus system CPU of a process so far, in seconds (from /proc); 0 if it is gone.
pub fn cpu_seconds_of(process: u32) -> f64 {
    let ticks = || -> Option<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        Some(fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?)
    };
    ticks().unwrap_or(0.0) / 100.0
}

impl Nodes {
    /// Starts `count` nodes of `binary` and waits until they are ready.
    pub fn start(binary: &Path, count: usize) -> Nodes {
        Nodes::start_with(binary, count, &[])
    }

    /// The same, with further options.
    pub fn start_with(binary: &Path, count: usize, options: &[&str]) -> Nodes {
        let dir = tempfile::tempdir().expect("a directory");
        let addrs = free_addresses(2 * count);
        let members: Vec<_> = (0..count).map(|i| format!("{}={}", i + 1, addrs[i])).collect();
        let nodes = (0..count)
            .map(|i| {
                let data_dir = dir.path().join(format!("node-{}", i + 1));
                let mut arguments: Vec<String> =
                    ["serve", "--store-id"].map(String::from).into_iter().chain([(i + 1).to_string()]).collect();
                arguments.extend([
                    "--grpc-address".into(),
                    addrs[i].clone(),
                    "--status-address".into(),
                    addrs[count + i].clone(),
                ]);
                arguments.extend(["--data-dir".into(), data_dir.display().to_string()]);
                if count > 1 {
                    arguments.extend(["--initial-cluster".into(), members.join(",")]);
                }
                arguments.extend(options.iter().map(|option| (*option).to_owned()));
                Node {
                    addr: addrs[i].clone(),
                    status_addr: addrs[count + i].clone(),
                    dir: data_dir,
                    arguments,
                    child: None,
                }
            })
            .collect();
        let mut nodes = Nodes { nodes, binary: binary.to_owned(), _dir: dir };
        (0..count).for_each(|i| nodes.spawn(i));
        nodes.wait_ready();
        nodes
    }

    pub fn spawn(&mut self, i: usize) {
        let node = &mut self.nodes[i];
        let mut command = Command::new(&self.binary);
        command.args(&node.arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        node.child = Some(command.spawn().expect("kontiki starts; build it with `cargo build --release`"));
    }

    pub fn wait_ready(&self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        for node in &self.nodes {
            while get(&node.status_addr, "/readyz").is_none() {
                assert!(Instant::now() < deadline, "{} does not become ready", node.addr);
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }

    /// SIGKILL.
    pub fn kill(&mut self, i: usize) {
        if let Some(mut child) = self.nodes[i].child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// The node that reports that it leads the data region.
    pub fn leader(&self) -> usize {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            for (i, node) in self.nodes.iter().enumerate().filter(|(_, node)| node.child.is_some()) {
                let Some(body) = get(&node.status_addr, "/status") else { continue };
                let Ok(status) = serde_json::from_str::<serde_json::Value>(&body) else { continue };
                let regions = status["regions"].as_array().cloned().unwrap_or_default();
                if regions.iter().any(|region| region["id"] == 2 && region["leading_term"].is_u64()) {
                    return i;
                }
            }
            assert!(Instant::now() < deadline, "no node leads the data region");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The applied index of the data region at a node, if it answers.
    pub fn applied_index(&self, i: usize) -> Option<u64> {
        let body = get(&self.nodes[i].status_addr, "/status")?;
        let status = serde_json::from_str::<serde_json::Value>(&body).ok()?;
        status["regions"].as_array()?.iter().find(|region| region["id"] == 2)?["applied_index"].as_u64()
    }

    /// A counter or gauge of a node; 0 if it does not answer.
    pub fn metric(&self, i: usize, name: &str) -> u64 {
        let body = get(&self.nodes[i].status_addr, "/metrics").unwrap_or_default();
        let value = |line: &str| line.strip_prefix(name)?.rsplit(' ').next()?.parse::<f64>().ok();
        body.lines().filter_map(value).sum::<f64>() as u64
    }

    /// The peak memory of a node's process.
    pub fn peak_memory_bytes(&self, i: usize) -> u64 {
        self.memory(i, "VmHWM:")
    }

    /// The resident memory of a node's process.
    pub fn memory_bytes(&self, i: usize) -> u64 {
        self.memory(i, "VmRSS:")
    }

    fn memory(&self, i: usize, field: &str) -> u64 {
        let id = self.nodes[i].child.as_ref().map_or(0, Child::id);
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
        let kib = status.lines().find_map(|line| line.strip_prefix(field)?.trim().strip_suffix(" kB")?.parse().ok());
        kib.map_or(0, |kib: u64| kib << 10)
    }

    /// User plus system CPU of all nodes so far, in seconds.
    pub fn cpu_seconds(&self) -> f64 {
        self.nodes.iter().flat_map(|node| &node.child).map(|child| cpu_seconds_of(child.id())).sum()
    }

    pub fn endpoints(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.addr.clone()).collect()
    }

    /// The directory of the first node, to measure the disk where the data is.
    pub fn data_dir(&self) -> &Path {
        &self.nodes[0].dir
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        (0..self.nodes.len()).for_each(|i| self.kill(i));
    }
}
