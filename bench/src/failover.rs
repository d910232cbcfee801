//! Kills the leader under load, repeatedly, and measures how long no write is acknowledged; beside etcd, if asked for.

use crate::etcd::{Etcd, EtcdWriter};
use crate::nodes::Nodes;
use crate::{data, report};
use kontiki_client::{Client, RawClient};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

#[derive(clap::Args)]
pub struct Arguments {
    /// The `kontiki` binary to run.
    #[arg(long, default_value = "../target/release/kontiki")]
    binary: PathBuf,
    /// An `etcd` binary, whose leader is killed in turns with ours.
    #[arg(long)]
    etcd: Option<PathBuf>,
    /// How often to kill each leader.
    #[arg(long, default_value_t = 10)]
    kills: usize,
    /// Concurrent clients.
    #[arg(long, default_value_t = 8)]
    clients: usize,
}

/// What the clients of one kill share: the longest time between two acknowledgements since the last reset.
struct Shared {
    start: Instant,
    last_ack_us: AtomicU64,
    longest_gap_us: AtomicU64,
    errors: AtomicU64,
    stop: AtomicBool,
}

impl Shared {
    fn new() -> Arc<Shared> {
        Arc::new(Shared {
            start: Instant::now(),
            last_ack_us: AtomicU64::new(0),
            longest_gap_us: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        })
    }

    fn acknowledge(&self) {
        let now = self.start.elapsed().as_micros() as u64;
        let last = self.last_ack_us.fetch_max(now, Ordering::AcqRel);
        self.longest_gap_us.fetch_max(now.saturating_sub(last), Ordering::AcqRel);
    }
}

/// Three nodes whose leader is killed.
enum Target {
    Kontiki(Nodes),
    Etcd(Etcd),
}

/// A client of them.
enum Writer {
    Kontiki(RawClient),
    Etcd(EtcdWriter),
}

impl Target {
    fn name(&self) -> &'static str {
        match self {
            Target::Kontiki(_) => "kontiki",
            Target::Etcd(_) => "etcd",
        }
    }

    async fn leader(&self) -> usize {
        match self {
            Target::Kontiki(nodes) => tokio::task::block_in_place(|| nodes.leader()),
            Target::Etcd(etcd) => etcd.leader().await,
        }
    }

    fn kill(&mut self, i: usize) {
        match self {
            Target::Kontiki(nodes) => nodes.kill(i),
            Target::Etcd(etcd) => etcd.kill(i),
        }
    }

    async fn restart(&mut self, i: usize) {
        match self {
            Target::Kontiki(nodes) => {
                nodes.spawn(i);
                tokio::task::block_in_place(|| nodes.wait_ready());
            }
            Target::Etcd(etcd) => {
                etcd.spawn(i);
                etcd.leader().await;
            }
        }
    }

    async fn writer(&self) -> Writer {
        match self {
            Target::Kontiki(nodes) => {
                Writer::Kontiki(Client::connect(nodes.endpoints()).await.expect("connects").raw())
            }
            Target::Etcd(etcd) => Writer::Etcd(EtcdWriter::new(etcd)),
        }
    }
}

impl Writer {
    async fn put(&mut self, key: Vec<u8>, value: Vec<u8>) -> bool {
        match self {
            Writer::Kontiki(client) => client.put(key, value).await.is_ok(),
            Writer::Etcd(writer) => writer.put(key, value).await,
        }
    }
}

async fn write(mut writer: Writer, shared: Arc<Shared>, id: u64) {
    let mut count = 0;
    while !shared.stop.load(Ordering::Acquire) {
        let index = id << 32 | count;
        count += 1;
        if writer.put(data::key(index).to_vec(), data::value(index, 256)).await {
            shared.acknowledge();
        } else {
            shared.errors.fetch_add(1, Ordering::AcqRel);
        }
    }
}

/// The longest time without an acknowledged write around the kill of the leader.
async fn kill(target: &mut Target, clients: usize) -> Duration {
    let shared = Shared::new();
    let mut writers = Vec::new();
    for id in 0..clients as u64 {
        writers.push(tokio::spawn(write(target.writer().await, shared.clone(), id)));
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let leader = target.leader().await;
    let errors = shared.errors.load(Ordering::Acquire);
    shared.longest_gap_us.store(0, Ordering::Release);
    target.kill(leader);
    tokio::time::sleep(Duration::from_secs(6)).await;
    let gap = Duration::from_micros(shared.longest_gap_us.load(Ordering::Acquire));
    let errors = shared.errors.load(Ordering::Acquire) - errors;
    let name = target.name();
    println!("{name}: node {} led; no write acknowledged for {}; {errors} errors", leader + 1, report::latency(gap));
    shared.stop.store(true, Ordering::Release);
    for writer in writers {
        writer.await.expect("no writer panics");
    }
    target.restart(leader).await;
    gap
}

async fn all(arguments: &Arguments) {
    let mut targets = vec![(Target::Kontiki(Nodes::start(&arguments.binary, 3)), Vec::new())];
    if let Some(binary) = &arguments.etcd {
        targets.push((Target::Etcd(Etcd::start(binary, 3)), Vec::new()));
    }
    for _ in 0..arguments.kills {
        for (target, gaps) in &mut targets {
            gaps.push(kill(target, arguments.clients).await);
        }
    }
    println!();
    for (target, mut gaps) in targets {
        let (p50, longest) = (report::quantile(&mut gaps, 0.5), report::quantile(&mut gaps, 1.0));
        let (name, kills) = (target.name(), gaps.len());
        println!(
            "{name}: leader killed under load, {kills} kills: median {}, longest {}",
            report::latency(p50),
            report::latency(longest)
        );
    }
}

pub fn run(arguments: &Arguments) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(all(arguments));
}
