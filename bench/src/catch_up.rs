//! A follower that was down comes back under a steady load of writes, with a log bound far below what is written while
//! a snapshot is sent and installed: how long until it has caught up, and how many snapshots that took.

use crate::nodes::Nodes;
use crate::{data, report};
use kontiki_client::Client;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

#[derive(clap::Args)]
pub struct Arguments {
    /// The `kontiki` binary to run.
    #[arg(long, default_value = "../target/release/kontiki")]
    binary: PathBuf,
    /// Entries of 256 bytes that exist before.
    #[arg(long, default_value_t = 1_500_000)]
    entries: u64,
    /// Bytes written per second while the follower comes back.
    #[arg(long, default_value_t = 3 << 20)]
    bytes_per_second: u64,
    /// How long to wait at most, in seconds.
    #[arg(long, default_value_t = 120)]
    seconds: u64,
    /// How often all is done.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

/// Small bounds, so that a follower needs a snapshot after seconds.
const OPTIONS: [&str; 4] = ["--raft-log-bytes-max", "1048576", "--memtable-bytes-max", "4194304"];
const VALUE_BYTES: usize = 256;
const BATCH: u64 = 100;

async fn put_batch(client: &kontiki_client::RawClient, first: u64, count: u64) {
    let pairs = (first..first + count).map(|i| (data::key(i).to_vec(), data::value(i, VALUE_BYTES)));
    client.batch_put(pairs.collect::<Vec<_>>()).await.expect("the cluster accepts writes all the time");
}

/// Writes at a steady rate over the existing keys, until stopped.
async fn load(client: kontiki_client::RawClient, entries: u64, bytes_per_second: u64, stop: Arc<AtomicBool>) -> u64 {
    let (began, mut written) = (Instant::now(), 0u64);
    let mut batch = 0;
    while !stop.load(Ordering::Acquire) {
        put_batch(&client, batch * BATCH % (entries - BATCH), BATCH).await;
        batch += 1;
        written += BATCH * (VALUE_BYTES as u64 + 16);
        let due = Duration::from_secs_f64(written as f64 / bytes_per_second as f64);
        tokio::time::sleep(due.saturating_sub(began.elapsed())).await;
    }
    written
}

async fn round(arguments: &Arguments) -> Option<Duration> {
    let mut nodes = Nodes::start_with(&arguments.binary, 3, &OPTIONS);
    let client = Client::connect(nodes.endpoints()).await.expect("connects").raw();
    for first in (0..arguments.entries).step_by(1000) {
        put_batch(&client, first, 1000.min(arguments.entries - first)).await;
    }
    let leader = tokio::task::block_in_place(|| nodes.leader());
    let away = (leader + 1) % 3;
    nodes.kill(away);
    let stop = Arc::new(AtomicBool::new(false));
    let writing = tokio::spawn(load(client, arguments.entries, arguments.bytes_per_second, stop.clone()));
    // Long enough to be past the log's bound, so that it needs a snapshot.
    tokio::time::sleep(Duration::from_secs(8)).await;
    nodes.spawn(away);
    let began = Instant::now();
    let mut caught_up = None;
    while caught_up.is_none() && began.elapsed() < Duration::from_secs(arguments.seconds) {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let applied = |node: usize| tokio::task::block_in_place(|| nodes.applied_index(node));
        if let (Some(first), Some(second)) = (applied(leader), applied(away)) {
            caught_up = (second + 30 > first).then(|| began.elapsed());
        }
    }
    stop.store(true, Ordering::Release);
    let written = writing.await.expect("the load ends");
    let snapshots = nodes.metric(away, "kontiki_snapshots_installed");
    let sent = nodes.metric(leader, "kontiki_snapshots_prepared");
    let said = caught_up.map_or("not at all".to_owned(), report::latency);
    println!(
        "caught up: {said}; {sent} snapshots begun, {snapshots} installed; {} MiB written meanwhile",
        written >> 20
    );
    caught_up
}

pub fn run(arguments: &Arguments) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let mut times: Vec<Duration> = (0..arguments.rounds).filter_map(|_| runtime.block_on(round(arguments))).collect();
    println!("caught up in {} of {} rounds", times.len(), arguments.rounds);
    if !times.is_empty() {
        println!("median {}", report::latency(report::quantile(&mut times, 0.5)));
    }
}
