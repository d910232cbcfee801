//! Three nodes of Kontiki beside three of etcd and a bare gRPC echo, in one interleaved run: durable puts and
//! linearizable gets, each client side written with the same library. etcd is asked at its leader, as ours is.

pub mod echo;
mod nodes;
mod wire;

use crate::load::{Plan, Target, Work};
use crate::nodes::{Nodes, cpu_seconds_of, free_addresses};
use crate::{disk, load, report};
use echo::EchoServer;
use kontiki_client::{Client, RawClient};
pub use nodes::{Etcd, EtcdWriter};
use std::path::PathBuf;
use std::time::Duration;
use tonic::transport::Channel;
use wire::{Echo, PutRequest, PutResponse, RangeRequest, RangeResponse};

#[derive(clap::Args)]
pub struct Arguments {
    /// The `kontiki` binary to run.
    #[arg(long, default_value = "../target/release/kontiki")]
    binary: PathBuf,
    /// The `etcd` binary to run.
    #[arg(long, default_value = "etcd")]
    etcd: PathBuf,
    /// Numbers of concurrent clients.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 64])]
    clients: Vec<usize>,
    /// Seconds per measurement.
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// Rounds over all measurements; which store is first alternates.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Value size in bytes.
    #[arg(long, default_value_t = 256)]
    value: usize,
    /// Different keys.
    #[arg(long, default_value_t = 10_000)]
    keys: u64,
}

/// Who does the work.
#[derive(Clone)]
enum Store {
    Kontiki(RawClient),
    Etcd(Channel),
    /// Answers with as many bytes as a get.
    Echo(Channel),
}

impl Target for Store {
    async fn put(&self, key: Vec<u8>, value: Vec<u8>) {
        match self {
            Store::Kontiki(client) => client.put(key, value).await.expect("put"),
            Store::Etcd(channel) => {
                let _: PutResponse = wire::call(channel, wire::PUT, PutRequest { key, value }).await.expect("put");
            }
            Store::Echo(_) => unreachable!("the echo only answers"),
        }
    }

    async fn get(&self, key: Vec<u8>, expected: &[u8]) {
        let found = match self {
            Store::Kontiki(client) => client.get(key).await.expect("get").map(|value| value.to_vec()),
            Store::Etcd(channel) => {
                let found: RangeResponse = wire::call(channel, wire::RANGE, RangeRequest { key }).await.expect("get");
                found.kvs.into_iter().next().map(|pair| pair.value)
            }
            Store::Echo(channel) => {
                let answer: Echo = wire::call(channel, wire::ECHO, Echo { body: key }).await.expect("echo");
                assert_eq!(answer.body.len(), expected.len());
                return;
            }
        };
        assert!(found.as_deref() == Some(expected), "wrong answer");
    }
}

/// The figures of one kind of work by one store.
#[derive(Default)]
struct Figures {
    rates: Vec<f64>,
    latencies: Vec<Duration>,
    cpu_us: Vec<f64>,
}

struct Parties {
    kontiki: Nodes,
    etcd: Etcd,
    echo: EchoServer,
    stores: [Store; 3],
}

const NAMES: [&str; 3] = ["kontiki", "etcd", "echo"];
const ECHO: usize = 2;

impl Parties {
    async fn start(arguments: &Arguments) -> Parties {
        let kontiki = Nodes::start(&arguments.binary, 3);
        let etcd = Etcd::start(&arguments.etcd, 3);
        let echo = EchoServer::start(free_addresses(1).remove(0), arguments.value);
        let client = Client::connect(kontiki.endpoints()).await.expect("connects").raw();
        let leader = etcd.leader().await;
        let stores = [
            Store::Kontiki(client),
            Store::Etcd(nodes::channel(&etcd.addresses()[leader])),
            Store::Echo(nodes::channel(&echo.address)),
        ];
        Parties { kontiki, etcd, echo, stores }
    }

    fn cpu_seconds(&self, store: usize) -> f64 {
        match store {
            0 => self.kontiki.cpu_seconds(),
            1 => self.etcd.cpu_seconds(),
            _ => cpu_seconds_of(self.echo.process()),
        }
    }

    async fn measure(&self, store: usize, work: Work, clients: usize, plan: Plan, into: &mut Figures) {
        let cpu_seconds = || self.cpu_seconds(store);
        let outcome = load::measure(&self.stores[store], work, clients, plan, cpu_seconds).await;
        into.rates.push(outcome.per_second);
        into.cpu_us.push(outcome.cpu_us_per_operation);
        into.latencies.extend(outcome.latencies);
    }
}

async fn all(arguments: &Arguments) {
    let parties = Parties::start(arguments).await;
    let plan = Plan { keys: arguments.keys, value_bytes: arguments.value, seconds: arguments.seconds };
    for store in &parties.stores[..ECHO] {
        load::preload(store, plan).await;
    }
    let cases: Vec<_> =
        [Work::Put, Work::Get].iter().flat_map(|work| arguments.clients.iter().map(|count| (*work, *count))).collect();
    let mut figures: Vec<[Figures; 3]> = cases.iter().map(|_| Default::default()).collect();
    let mut flushes = Vec::new();
    for round in 0..arguments.rounds {
        flushes.extend(disk::sync_latencies(parties.etcd.data_dir(), 300, false));
        for ((work, clients), into) in cases.iter().zip(&mut figures) {
            let count = if *work == Work::Put { ECHO } else { ECHO + 1 };
            for turn in 0..count {
                let store = (turn + round) % count;
                parties.measure(store, *work, *clients, plan, &mut into[store]).await;
            }
        }
    }
    print(&cases, figures);
    let flush = report::latency(report::quantile(&mut flushes, 0.5));
    println!("\n{} B values; fdatasync of 128 B on the same disk in the same run: p50 {flush}.", arguments.value);
}

fn print(cases: &[(Work, usize)], figures: Vec<[Figures; 3]>) {
    report::head(&[
        "work",
        "clients",
        "store",
        "per second",
        "of etcd's",
        "p50",
        "of etcd's",
        "p99",
        "CPU",
        "of etcd's",
    ]);
    for ((work, clients), figures) in cases.iter().zip(figures) {
        let mut peer: Option<(f64, Duration, f64)> = None;
        let mut rows = Vec::new();
        for (name, mut found) in NAMES.iter().zip(figures) {
            if !found.rates.is_empty() {
                let p50 = report::quantile(&mut found.latencies, 0.5);
                let p99 = report::quantile(&mut found.latencies, 0.99);
                rows.push((name, report::median(found.rates), p50, p99, report::median(found.cpu_us)));
                if *name == "etcd" {
                    peer = rows.last().map(|row| (row.1, row.2, row.4));
                }
            }
        }
        let (rate, latency, cpu) = peer.expect("etcd does all work");
        for (name, per_second, p50, p99, cpu_us) in rows {
            report::row(&[
                format!("{work:?}").to_lowercase(),
                clients.to_string(),
                (*name).to_string(),
                report::rate(per_second),
                format!("{:.2}", per_second / rate),
                report::latency(p50),
                format!("{:.2}", p50.as_secs_f64() / latency.as_secs_f64()),
                report::latency(p99),
                format!("{cpu_us:.0} us"),
                format!("{:.2}", cpu_us / cpu),
            ]);
        }
    }
}

pub fn run(arguments: &Arguments) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    runtime.block_on(all(arguments));
}
