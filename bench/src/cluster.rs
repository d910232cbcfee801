//! Raw put and get on three local nodes, at several numbers of clients, with the disk's flush latency for comparison.

use crate::load::{Plan, Work};
use crate::nodes::Nodes;
use crate::{disk, load, report};
use kontiki_client::Client;
use std::path::PathBuf;
use std::time::Duration;

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

async fn all(arguments: &Arguments) {
    let nodes = Nodes::start(&arguments.binary, arguments.nodes);
    let client = Client::connect(nodes.endpoints()).await.expect("connects").raw();
    let plan = Plan { keys: arguments.keys, value_bytes: arguments.value, seconds: arguments.seconds };
    load::preload(&client, plan).await;
    let mut cases: Vec<(Work, usize, Vec<f64>, Vec<Duration>, Vec<f64>)> = Vec::new();
    for work in [Work::Put, Work::Get] {
        cases.extend(arguments.clients.iter().map(|&clients| (work, clients, vec![], vec![], vec![])));
    }
    let mut flushes = Vec::new();
    for _ in 0..arguments.rounds {
        flushes.extend(disk::sync_latencies(nodes.data_dir(), 500, false));
        for (work, clients, rates, latencies, cpu) in &mut cases {
            let outcome = load::measure(&client, *work, *clients, plan, || nodes.cpu_seconds()).await;
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
