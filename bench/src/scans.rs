//! Gets concurrently with scans of everything: the effect of a few clients that read everything in one request on other
//! clients. Our own client reads in pages; these clients use the protocol directly.

use crate::nodes::Nodes;
use crate::{data, report};
use kontiki_client::Client;
use kontiki_proto::kvrpcpb::{Context, RawScanRequest};
use kontiki_proto::pdpb::{GetRegionRequest, pd_client::PdClient};
use kontiki_proto::tikvpb::tikv_client::TikvClient;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tonic::transport::Channel;

#[derive(clap::Args)]
pub struct Arguments {
    /// The `kontiki` binary to run.
    #[arg(long, default_value = "../target/release/kontiki")]
    binary: PathBuf,
    /// Entries of 64 bytes.
    #[arg(long, default_value_t = 600_000)]
    entries: u64,
    /// Number of clients that scan everything, keys only, repeatedly, in one request each time.
    #[arg(long, default_value_t = 4)]
    scanners: u64,
    /// For how long, in seconds.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
}

/// A connection to the leader, and the context of requests to the region.
async fn scanner(address: &str) -> (TikvClient<Channel>, Context) {
    let endpoint = format!("http://{address}");
    let mut pd = PdClient::connect(endpoint.clone()).await.expect("connects");
    let found = pd.get_region(GetRegionRequest { region_key: data::key(0).to_vec().into(), ..Default::default() });
    let found = found.await.expect("answered").into_inner();
    let region = found.region.expect("the region is known");
    let context =
        Context { region_id: region.id, region_epoch: region.region_epoch, peer: found.leader, ..Default::default() };
    let client = TikvClient::connect(endpoint).await.expect("connects");
    (client.max_decoding_message_size(usize::MAX), context)
}

async fn scans(arguments: &Arguments) {
    let nodes = Nodes::start_with(&arguments.binary, 3, &[]);
    let client = Client::connect(nodes.endpoints()).await.expect("connects").raw();
    for first in (0..arguments.entries).step_by(2000) {
        let keys = first..arguments.entries.min(first + 2000);
        let pairs: Vec<_> = keys.map(|i| (data::key(i).to_vec(), data::value(i, 64))).collect();
        client.batch_put(pairs).await.expect("taken");
    }
    let leader = |nodes: &Nodes| tokio::task::block_in_place(|| nodes.leader());
    let before = leader(&nodes);
    let (stop, scanned) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let scanners: Vec<_> = (0..arguments.scanners)
        .map(|_| {
            let (stop, scanned, entries) = (stop.clone(), scanned.clone(), arguments.entries);
            let address = nodes.nodes[before].addr.clone();
            tokio::spawn(async move {
                let (mut scanner, context) = scanner(&address).await;
                while !stop.load(Ordering::Acquire) {
                    let context = Some(context.clone());
                    let request = RawScanRequest { context, limit: u32::MAX, key_only: true, ..Default::default() };
                    let answer = scanner.raw_scan(request).await.expect("answered").into_inner();
                    match answer.region_error {
                        None => assert_eq!(answer.kvs.len() as u64, entries, "a scan misses entries"),
                        // The leader has changed: what is reported at the end.
                        Some(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                    }
                    scanned.fetch_add(1, Ordering::AcqRel);
                }
            })
        })
        .collect();
    let (began, mut latencies) = (Instant::now(), Vec::new());
    while began.elapsed() < Duration::from_secs(arguments.seconds) {
        let begin = Instant::now();
        let found = client.get(data::key(5).to_vec()).await.expect("read");
        assert_eq!(found.as_deref(), Some(&data::value(5, 64)[..]), "a wrong value");
        latencies.push(begin.elapsed());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stop.store(true, Ordering::Release);
    for scanner in scanners {
        scanner.await.expect("no scanner panics");
    }
    let quantile = |latencies: &mut Vec<Duration>, q| report::latency(report::quantile(latencies, q));
    println!(
        "{} scans of {} keys by {} clients; {} gets: p50 {}, p99 {}, longest {}; the leader {}; its memory at most {} MiB",
        scanned.load(Ordering::Acquire),
        arguments.entries,
        arguments.scanners,
        latencies.len(),
        quantile(&mut latencies, 0.5),
        quantile(&mut latencies, 0.99),
        quantile(&mut latencies, 1.0),
        if leader(&nodes) == before { "is the same" } else { "has changed" },
        nodes.peak_memory_bytes(before) >> 20,
    );
}

pub fn run(arguments: &Arguments) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(scans(arguments));
}
