//! Many regions in a store: what idle ones cost in memory and processor time, how long a restart takes, and the
//! throughput of puts that are spread over them.

use crate::nodes::Nodes;
use crate::{data, report};
use kontiki_client::{Client, RawClient};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

#[derive(clap::Args)]
pub struct Arguments {
    /// The `kontiki` binary to run.
    #[arg(long, default_value = "../target/release/kontiki")]
    binary: PathBuf,
    /// Nodes; each has a replica of every region.
    #[arg(long, default_value_t = 3)]
    nodes: usize,
    /// Numbers of regions whose idle cost and restart are measured.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 100, 1_000, 10_000])]
    counts: Vec<usize>,
    /// Seconds over which the processor time of idle nodes is measured.
    #[arg(long, default_value_t = 20.0)]
    idle_seconds: f64,
    /// Regions whose throughput is compared with that of one; 0: none.
    #[arg(long, default_value_t = 1_000)]
    throughput_regions: usize,
    /// Concurrent clients of that comparison.
    #[arg(long, default_value_t = 64)]
    clients: u64,
    /// Seconds per measurement of throughput.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Rounds, in each of which both are measured.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Value size in bytes.
    #[arg(long, default_value_t = 256)]
    value: usize,
    /// Different keys, at least two for each region.
    #[arg(long, default_value_t = 20_000)]
    keys: u64,
}

/// No region splits by itself.
const OPTIONS: [&str; 4] = ["--region-bytes-max", "0", "--region-requests-per-second-max", "0"];
/// Keys of one split.
const SPLIT_KEYS: usize = 64;
/// The longest that anything here may take.
const WAIT_MAX: Duration = Duration::from_secs(300);

/// The nodes, and what was written.
struct Store {
    nodes: Nodes,
    client: Arc<RawClient>,
    value_bytes: usize,
    /// The version of each key that was acknowledged last. One client writes a key.
    versions: Vec<AtomicU64>,
}

fn value(index: u64, version: u64, bytes: usize) -> Vec<u8> {
    data::value(data::scatter(index) ^ version, bytes)
}

impl Store {
    /// With so many regions, and every key written once.
    async fn with_regions(arguments: &Arguments, count: usize) -> Store {
        let nodes = Nodes::start_with(&arguments.binary, arguments.nodes, &OPTIONS);
        let client = Client::connect(nodes.endpoints()).await.expect("connects").raw();
        let versions = (0..arguments.keys).map(|_| AtomicU64::new(0)).collect();
        let store = Store { nodes, client: Arc::new(client), value_bytes: arguments.value, versions };
        // The first eight bytes of a key decide where it can be split: "key-", and four digits.
        let boundary = |region: usize| format!("key-{:04x}", region * 0x1_0000 / count).into_bytes();
        // From the end, so that the region that is split is always the first one.
        for part in (1..count).map(boundary).collect::<Vec<_>>().rchunks(SPLIT_KEYS) {
            store.client.split(part.to_vec()).await.expect("the regions are made");
        }
        let batch = 500.min(arguments.keys);
        for first in (0..arguments.keys).step_by(batch as usize) {
            let indices = first..(first + batch).min(arguments.keys);
            let pairs = indices.map(|index| (data::key(index).to_vec(), value(index, 0, arguments.value)));
            store.client.batch_put(pairs.collect::<Vec<_>>()).await.expect("preload");
        }
        store
    }

    /// The time until so many regions have a leader, and every node is ready.
    async fn led(&self, count: usize) -> Duration {
        let began = Instant::now();
        let led = || (0..self.nodes.nodes.len()).map(|i| self.nodes.metric(i, "kontiki_regions_led ")).sum::<u64>();
        // Two more: placement's, and the one without the first boundary's prefix.
        self.until("the regions have leaders", || led() > count as u64).await;
        tokio::task::block_in_place(|| self.nodes.wait_ready());
        began.elapsed()
    }

    /// Until no replica of these regions gets ticks.
    async fn rests(&self, count: usize) {
        let nodes = self.nodes.nodes.len();
        let resting = |i| self.nodes.metric(i, "kontiki_regions_resting ") >= count as u64;
        self.until("the regions are at rest", || (0..nodes).all(resting)).await;
    }

    async fn until(&self, what: &str, is_done: impl Fn() -> bool) {
        let deadline = Instant::now() + WAIT_MAX;
        while !tokio::task::block_in_place(&is_done) {
            assert!(Instant::now() < deadline, "not after {WAIT_MAX:?}: {what}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Reads every key and compares it with what was acknowledged last.
    async fn check(&self) {
        let indices: Vec<u64> = (0..self.versions.len() as u64).collect();
        for part in indices.chunks(500) {
            let keys: Vec<Vec<u8>> = part.iter().map(|index| data::key(*index).to_vec()).collect();
            let found = self.client.batch_get(keys).await.expect("get");
            let found: BTreeMap<Vec<u8>, Vec<u8>> =
                found.into_iter().map(|pair| (pair.key.to_vec(), pair.value.to_vec())).collect();
            for index in part {
                let version = self.versions[*index as usize].load(Ordering::Acquire);
                let wanted = value(*index, version, self.value_bytes);
                let is_right = found.get(&data::key(*index)[..]) == Some(&wanted);
                assert!(is_right, "wrong answer for key {index}, version {version}");
            }
        }
    }

    /// Puts by so many clients; operations per second, and processor time of all nodes for each, in microseconds.
    async fn puts(self: &Arc<Store>, clients: u64, seconds: f64) -> (f64, f64) {
        let (began, before) = (Instant::now(), self.nodes.cpu_seconds());
        let end = began + Duration::from_secs_f64(seconds);
        let tasks: Vec<_> = (0..clients)
            .map(|client| {
                let store = self.clone();
                tokio::spawn(async move {
                    let (mut done, count) = (0, store.versions.len() as u64);
                    let own = (count - client).div_ceil(clients);
                    while Instant::now() < end {
                        let index = client + clients * (data::scatter(done ^ client << 32) % own);
                        let version = &store.versions[index as usize];
                        let next = version.load(Ordering::Acquire) + 1;
                        let (key, value) = (data::key(index).to_vec(), value(index, next, store.value_bytes));
                        store.client.put(key, value).await.expect("put");
                        version.store(next, Ordering::Release);
                        done += 1;
                    }
                    done
                })
            })
            .collect();
        let mut done = 0;
        for task in tasks {
            done += task.await.expect("no client fails");
        }
        let cpu = (self.nodes.cpu_seconds() - before) * 1e6 / done as f64;
        (done as f64 / began.elapsed().as_secs_f64(), cpu)
    }
}

/// What an idle store costs, and its restart.
struct Idle {
    memory_bytes: u64,
    core_percent: f64,
    restart: Duration,
    restart_cpu_seconds: f64,
}

async fn idle(arguments: &Arguments, count: usize) -> Idle {
    let mut store = Store::with_regions(arguments, count).await;
    store.led(count).await;
    store.rests(count).await;
    let nodes = arguments.nodes as f64;
    let before = store.nodes.cpu_seconds();
    tokio::time::sleep(Duration::from_secs_f64(arguments.idle_seconds)).await;
    let core_percent = (store.nodes.cpu_seconds() - before) * 100.0 / arguments.idle_seconds / nodes;
    let memory = (0..arguments.nodes).map(|i| store.nodes.memory_bytes(i)).sum::<u64>();
    (0..arguments.nodes).for_each(|i| store.nodes.kill(i));
    let began = Instant::now();
    (0..arguments.nodes).for_each(|i| store.nodes.spawn(i));
    store.led(count).await;
    let (restart, restart_cpu_seconds) = (began.elapsed(), store.nodes.cpu_seconds() / nodes);
    store.check().await;
    Idle { memory_bytes: memory / arguments.nodes as u64, core_percent, restart, restart_cpu_seconds }
}

async fn all(arguments: &Arguments) {
    let mut base = None;
    report::head(&["regions", "memory", "for each region", "idle, of a core", "restart", "its processor time"]);
    for &count in &arguments.counts {
        let found = idle(arguments, count).await;
        let (first, least) = *base.get_or_insert((count, found.memory_bytes));
        let more = (count - first) as f64;
        let each = (found.memory_bytes as f64 - least as f64) / 1024.0 / more;
        report::row(&[
            count.to_string(),
            format!("{:.1} MiB", found.memory_bytes as f64 / (1 << 20) as f64),
            if more > 0.0 { format!("{each:.1} KiB") } else { String::new() },
            format!("{:.2} %", found.core_percent),
            format!("{:.2} s", found.restart.as_secs_f64()),
            format!("{:.2} s", found.restart_cpu_seconds),
        ]);
    }
    println!("\nFor each of {} nodes; values of {} B, {} keys.", arguments.nodes, arguments.value, arguments.keys);
    if arguments.throughput_regions > 0 {
        throughput(arguments).await;
    }
}

/// One and many regions, one after the other in each round.
async fn throughput(arguments: &Arguments) {
    let one = Arc::new(Store::with_regions(arguments, 1).await);
    let many = Arc::new(Store::with_regions(arguments, arguments.throughput_regions).await);
    let (mut rates, mut cpu): ([Vec<f64>; 2], [Vec<f64>; 2]) = Default::default();
    let mut ratios = Vec::new();
    for _ in 0..arguments.rounds {
        for (i, store) in [&one, &many].into_iter().enumerate() {
            let (rate, each) = store.puts(arguments.clients, arguments.seconds).await;
            rates[i].push(rate);
            cpu[i].push(each);
        }
        ratios.push(rates[1][rates[1].len() - 1] / rates[0][rates[0].len() - 1]);
    }
    one.check().await;
    many.check().await;
    println!();
    report::head(&["regions", "puts per second", "processor time of all nodes for each"]);
    for (count, (rates, cpu)) in [1, arguments.throughput_regions].into_iter().zip(rates.into_iter().zip(cpu)) {
        let rate = report::rate(report::median(rates));
        report::row(&[count.to_string(), rate, format!("{:.0} us", report::median(cpu))]);
    }
    println!("\n{} clients; median of the ratios of each round: {:.2}.", arguments.clients, report::median(ratios));
}

pub fn run(arguments: &Arguments) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(all(arguments));
}
