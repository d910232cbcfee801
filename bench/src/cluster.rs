//! Raw put and get on three local nodes, at several numbers of clients, with the disk's flush latency for comparison.

use crate::nodes::Nodes;
use crate::{data, disk, report};
use kontiki_client::{Client, RawClient};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

#[derive(clap::Args)]
pub struct Arguments {
    /// The `kontiki` binary to run.
    #[arg(long, default_value = "../target/release/kontiki")]
    binary: PathBuf,
    /// Nodes.
    #[arg(long, default_value_t = 3)]
    nodes: usize,
    /// Numbers of concurrent clients.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 64])]
    clients: Vec<usize>,
    /// Seconds per measurement.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Rounds over all measurements.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Value size in bytes.
    #[arg(long, default_value_t = 256)]
    value: usize,
    /// Different keys.
    #[arg(long, default_value_t = 10_000)]
    keys: u64,
}

/// One measurement: rate, and every latency.
pub struct Outcome {
    pub per_second: f64,
    pub latencies: Vec<Duration>,
    pub cpu_us_per_operation: f64,
}

/// What the clients do.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Work {
    Put,
    Get,
}

struct Load {
    work: Work,
    keys: u64,
    value_bytes: usize,
    end: Instant,
    next: AtomicU64,
}

async fn client_task(client: Arc<RawClient>, load: Arc<Load>) -> Vec<Duration> {
    let mut latencies = Vec::new();
    while Instant::now() < load.end {
        let index = data::scatter(load.next.fetch_add(1, Ordering::Relaxed)) % load.keys;
        let (key, value) = (data::key(index).to_vec(), data::value(index, load.value_bytes));
        let start = Instant::now();
        match load.work {
            Work::Put => client.put(key, value).await.expect("put"),
            Work::Get => {
                let found = client.get(key).await.expect("get");
                assert!(found.as_deref() == Some(&value[..]), "wrong answer for key {index}");
            }
        }
        latencies.push(start.elapsed());
    }
    latencies
}

async fn measure(nodes: &Nodes, client: &Arc<RawClient>, arguments: &Arguments, work: Work, clients: usize) -> Outcome {
    let start = Instant::now();
    let load = Arc::new(Load {
        work,
        keys: arguments.keys,
        value_bytes: arguments.value,
        end: start + Duration::from_secs_f64(arguments.seconds),
        next: AtomicU64::new(0),
    });
    let cpu_before = nodes.cpu_seconds();
    let tasks: Vec<_> = (0..clients).map(|_| tokio::spawn(client_task(client.clone(), load.clone()))).collect();
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await.expect("no client fails"));
    }
    let operations = latencies.len() as f64;
    let cpu_us_per_operation = (nodes.cpu_seconds() - cpu_before) * 1e6 / operations;
    Outcome { per_second: operations / start.elapsed().as_secs_f64(), latencies, cpu_us_per_operation }
}

async fn all(arguments: &Arguments) {
    let nodes = Nodes::start(&arguments.binary, arguments.nodes);
    let client = Arc::new(Client::connect(nodes.endpoints()).await.expect("connects").raw());
    for index in 0..arguments.keys {
        client.put(data::key(index).to_vec(), data::value(index, arguments.value)).await.expect("preload");
    }
    let mut cases: Vec<(Work, usize, Vec<f64>, Vec<Duration>, Vec<f64>)> = Vec::new();
    for work in [Work::Put, Work::Get] {
        cases.extend(arguments.clients.iter().map(|&clients| (work, clients, vec![], vec![], vec![])));
    }
    let mut flushes = Vec::new();
    for _ in 0..arguments.rounds {
        flushes.extend(disk::sync_latencies(nodes.data_dir(), 500, false));
        for (work, clients, rates, latencies, cpu) in &mut cases {
            let outcome = measure(&nodes, &client, arguments, *work, *clients).await;
            rates.push(outcome.per_second);
            latencies.extend(outcome.latencies);
            cpu.push(outcome.cpu_us_per_operation);
        }
    }
    report::head(&["work", "clients", "per second", "p50", "p99", "p99.9", "CPU of all nodes per operation"]);
    for (work, clients, rates, mut latencies, cpu) in cases {
        let name = if work == Work::Put { "raw put" } else { "raw get" };
        let mut cells = vec![name.to_owned(), clients.to_string(), report::rate(report::median(rates))];
        cells.extend([0.5, 0.99, 0.999].map(|part| report::latency(report::quantile(&mut latencies, part))));
        cells.push(format!("{:.0} us", report::median(cpu)));
        report::row(&cells);
    }
    println!(
        "\n{} nodes, {} B values; fdatasync of 128 B on the same disk in the same run (nodes idle): p50 {}, p99 {}.",
        arguments.nodes,
        arguments.value,
        report::latency(report::quantile(&mut flushes, 0.5)),
        report::latency(report::quantile(&mut flushes, 0.99)),
    );
}

pub fn run(arguments: &Arguments) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    runtime.block_on(all(arguments));
}
