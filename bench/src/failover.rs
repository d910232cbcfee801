//! Kills the leader under load, repeatedly, and measures how long no write is acknowledged.

use crate::nodes::Nodes;
use crate::{data, report};
use kontiki_client::Client;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

#[derive(clap::Args)]
pub struct Arguments {
    /// The `kontiki` binary to run.
    #[arg(long, default_value = "../target/release/kontiki")]
    binary: PathBuf,
    /// How often to kill the leader.
    #[arg(long, default_value_t = 10)]
    kills: usize,
    /// Concurrent clients.
    #[arg(long, default_value_t = 8)]
    clients: usize,
}

/// What the clients share: the longest time between two acknowledgements since the last reset.
struct Shared {
    start: Instant,
    last_ack_us: AtomicU64,
    longest_gap_us: AtomicU64,
    errors: AtomicU64,
    stop: AtomicBool,
}

impl Shared {
    fn acknowledge(&self) {
        let now = self.start.elapsed().as_micros() as u64;
        let last = self.last_ack_us.fetch_max(now, Ordering::AcqRel);
        self.longest_gap_us.fetch_max(now.saturating_sub(last), Ordering::AcqRel);
    }
}

async fn writer(endpoints: Vec<String>, shared: Arc<Shared>, id: u64) {
    let client = Client::connect(endpoints).await.expect("connects").raw();
    let mut count = 0;
    while !shared.stop.load(Ordering::Acquire) {
        let index = id << 32 | count;
        count += 1;
        match client.put(data::key(index).to_vec(), data::value(index, 256)).await {
            Ok(()) => shared.acknowledge(),
            Err(_) => {
                shared.errors.fetch_add(1, Ordering::AcqRel);
            }
        }
    }
}

async fn all(arguments: &Arguments) {
    let mut nodes = Nodes::start(&arguments.binary, 3);
    let shared = Arc::new(Shared {
        start: Instant::now(),
        last_ack_us: AtomicU64::new(0),
        longest_gap_us: AtomicU64::new(0),
        errors: AtomicU64::new(0),
        stop: AtomicBool::new(false),
    });
    let writers: Vec<_> =
        (0..arguments.clients as u64).map(|id| tokio::spawn(writer(nodes.endpoints(), shared.clone(), id))).collect();
    let mut gaps = Vec::new();
    for kill in 0..arguments.kills {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let leader = tokio::task::block_in_place(|| nodes.leader());
        let errors = shared.errors.load(Ordering::Acquire);
        shared.longest_gap_us.store(0, Ordering::Release);
        nodes.kill(leader);
        tokio::time::sleep(Duration::from_secs(6)).await;
        let gap = Duration::from_micros(shared.longest_gap_us.load(Ordering::Acquire));
        let errors = shared.errors.load(Ordering::Acquire) - errors;
        println!(
            "kill {kill}: store {} led; no write acknowledged for {}; {errors} errors",
            leader + 1,
            report::latency(gap)
        );
        gaps.push(gap);
        nodes.spawn(leader);
        tokio::task::block_in_place(|| nodes.wait_ready());
    }
    shared.stop.store(true, Ordering::Release);
    for writer in writers {
        writer.await.expect("no writer panics");
    }
    let (p50, longest) = (report::quantile(&mut gaps, 0.5), report::quantile(&mut gaps, 1.0));
    println!(
        "\nleader killed under load, {} kills: median {}, longest {}",
        gaps.len(),
        report::latency(p50),
        report::latency(longest)
    );
}

pub fn run(arguments: &Arguments) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(all(arguments));
}
