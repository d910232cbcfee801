//! `kontiki cluster`: several nodes on this machine, for experiments.
//!
//! Every node is a child process that runs `serve`, so it is the same program as in production. Logs are written to
//! files; the console shows the addresses of the nodes and when one ends. A node that ends by itself is reported and
//! not started again, so that the cluster can be observed without it.

use super::node::{Node, Running};
use super::{Failure, block_on, text};
use clap::Args;
use kontiki_env::fs::{Fs, RealFs};
use kontiki_server::config::CLUSTER_NODES_MAX;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// How long the nodes may take to elect leaders before their state is reported.
const READY_WAIT_MAX: Duration = Duration::from_secs(30);
/// The polling interval.
const READY_INTERVAL: Duration = Duration::from_millis(100);
/// How long a node may take to end: it flushes its memtables first, so that the next start is short.
const STOP_GRACE: Duration = Duration::from_secs(30);

/// A Ctrl-C may arrive twice: from the terminal, and from a program that started this one and passes it on.
const ECHO_TIME: Duration = Duration::from_millis(500);

/// Arguments of `kontiki cluster`.
#[derive(Args, Debug)]
pub struct Cluster {
    /// How many nodes, 1 to 9; the same at every start
    #[arg(long, value_name = "COUNT", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=CLUSTER_NODES_MAX as u64))]
    nodes: u64,

    /// Folder of the nodes: node i uses DIR/node-i, with its log in the file DIR/node-i/log
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,

    /// Address that the nodes listen on; the same at every start
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    host: IpAddr,

    /// Port of the first node for clients; node i listens on PORT + i - 1; the same at every start
    #[arg(long, value_name = "PORT", default_value_t = 20160)]
    port: u16,

    /// Status port of the first node; node i listens on PORT + i - 1
    #[arg(long, value_name = "PORT", default_value_t = 20180)]
    status_port: u16,

    /// More options for every node, as of `kontiki serve`
    #[arg(last = true, value_name = "SERVE OPTIONS")]
    serve_options: Vec<String>,
}

/// A node ended.
struct Ended {
    number: u64,
    status: std::io::Result<ExitStatus>,
    last_lines: Vec<String>,
}

impl Cluster {
    /// Runs until Ctrl-C, or until no node is left.
    pub fn run(self) -> Result<(), Failure> {
        let nodes = self.plan()?;
        block_on(self.supervise(nodes))
    }

    fn plan(&self) -> Result<Vec<Node>, Failure> {
        let port = |name: &str, first: u16, number: u64| {
            u16::try_from(u64::from(first) + number - 1).ok().filter(|port| *port > 0).ok_or_else(|| {
                let last = u64::from(u16::MAX) - self.nodes + 1;
                Failure::usage(format!("{name} = {first}: accepted is 1 to {last} with {} nodes", self.nodes))
            })
        };
        let cannot = |error| Failure::usage(format!("dir = {}: {error}; use another path", self.dir.display()));
        let dir = RealFs.absolute(&self.dir).map_err(cannot)?;
        let overlap = self.port.abs_diff(self.status_port);
        if u64::from(overlap) < self.nodes {
            let what = format!("status-port = {}: accepted is one at least {} from port", self.status_port, self.nodes);
            return Err(Failure::usage(what));
        }
        let node = |number| {
            Ok(Node {
                number,
                grpc: SocketAddr::new(self.host, port("port", self.port, number)?),
                status: SocketAddr::new(self.host, port("status-port", self.status_port, number)?),
                folder: dir.join(format!("node-{number}")),
            })
        };
        (1..=self.nodes).map(node).collect()
    }

    async fn supervise(self, nodes: Vec<Node>) -> Result<(), Failure> {
        let mut interrupts = Interrupts::listen()?;
        let members: Vec<String> = nodes.iter().map(|node| format!("{}={}", node.number, node.grpc)).collect();
        let (stop, stopped) = watch::channel(false);
        let (sender, mut endings) = mpsc::channel(nodes.len());
        let mut rows = Vec::new();
        for node in &nodes {
            let running = node.start(&members.join(","), &self.serve_options)?;
            let show = |value: &dyn std::fmt::Display| value.to_string();
            let process_id = running.process_id();
            rows.push(vec![
                show(&node.number),
                show(&node.grpc),
                show(&node.status),
                show(&process_id),
                show(&node.log().display()),
            ]);
            tokio::spawn(look_after(node.number, running, stopped.clone(), sender.clone()));
        }
        drop(sender);
        println!("{}\n", text::table(&["NODE", "GRPC", "STATUS", "PROCESS", "LOG"], rows));
        let mut alive = nodes.len();
        let mut announce = std::pin::pin!(announce(&nodes));
        let mut announced = false;
        loop {
            tokio::select! {
                () = &mut announce, if !announced => announced = true,
                ended = endings.recv() => match ended {
                    Some(ended) => {
                        alive -= 1;
                        report(nodes.len(), &ended, alive);
                    }
                    None => return Err(Failure::new("no node is left")),
                },
                () = interrupts.next() => break,
            }
        }
        println!("stopping {alive} nodes; Ctrl-C again kills them");
        let _ = stop.send(true); // an error means that no node is left
        let mut echoes = std::pin::pin!(tokio::time::sleep(ECHO_TIME));
        let mut may_echo = true;
        loop {
            tokio::select! {
                ended = endings.recv() => if ended.is_none() {
                    println!("stopped; the same command continues");
                    return Ok(());
                },
                () = &mut echoes, if may_echo => may_echo = false,
                () = interrupts.next() => if !may_echo {
                    // Leaving drops the nodes, which kills them.
                    println!("killed, as asked; what was acknowledged is in their logs; the same command continues");
                    return Ok(());
                },
            }
        }
    }
}

/// Owns a node until it ends, by itself or on request.
async fn look_after(number: u64, mut node: Running, mut stopped: watch::Receiver<bool>, ended: mpsc::Sender<Ended>) {
    let status = tokio::select! {
        status = node.ended() => status,
        _ = stopped.changed() => {
            if !node.stop(STOP_GRACE).await {
                eprintln!("node {number} did not end within {} s and was killed", STOP_GRACE.as_secs());
            }
            return;
        }
    };
    let last_lines = node.last_lines();
    let _ = ended.send(Ended { number, status, last_lines }).await; // an error means that the supervisor is leaving
}

/// Prints when the cluster can be used, and how.
async fn announce(nodes: &[Node]) {
    let all_ready = async {
        for node in nodes {
            while !node.is_ready().await {
                tokio::time::sleep(READY_INTERVAL).await;
            }
        }
    };
    let first = nodes.first().map_or_else(String::new, |node| node.grpc.to_string());
    match tokio::time::timeout(READY_WAIT_MAX, all_ready).await {
        Ok(()) => println!(
            "ready; try, in another terminal:\n  kontiki put greeting hello --endpoint {first}\n  \
             kontiki get greeting --endpoint {first}\n  kontiki status --endpoint {first}\nCtrl-C stops all nodes"
        ),
        Err(_) => {
            println!(
                "not every node is ready after {} s; their logs may show why; continuing",
                READY_WAIT_MAX.as_secs()
            )
        }
    }
}

fn report(count: usize, ended: &Ended, alive: usize) {
    let how = match &ended.status {
        Ok(status) => status.to_string(),
        Err(error) => format!("unknown exit status: {error}"),
    };
    eprintln!("node {} ended ({how}); {alive} of {count} are left", ended.number);
    for line in &ended.last_lines {
        eprintln!("node-{} | {line}", ended.number);
    }
}

/// Ctrl-C, or a request of the system to end.
pub struct Interrupts {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Interrupts {
    /// From now on signals are received here.
    pub fn listen() -> Result<Interrupts, Failure> {
        use tokio::signal::unix::{SignalKind, signal};
        let cannot = |error| Failure::new(format!("cannot listen for signals: {error}"));
        let interrupt = signal(SignalKind::interrupt()).map_err(cannot)?;
        Ok(Interrupts { interrupt, terminate: signal(SignalKind::terminate()).map_err(cannot)? })
    }

    /// The next one.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
