//! Regions that grow beyond their limit are split by the nodes themselves, while an unmodified client reads and writes.

mod support;

use kontiki_env::rng::Rng;
use std::collections::BTreeMap;
use support::{Cluster, connect_raw, eventually, http_get, kontiki, wait_for};
use tikv_client::KvPair;

const OPTIONS: [&str; 4] = ["--region-bytes-max", "1048576", "--memtable-bytes-max", "1048576"];
const ENTRIES: u32 = 8_000;
const BATCH: usize = 100;

fn key(i: u32) -> Vec<u8> {
    // In another order than they are written.
    format!("{:08x}", i.wrapping_mul(2_654_435_761)).into_bytes()
}

/// Bytes that cannot be compressed.
fn value(i: u32) -> Vec<u8> {
    let mut rng = Rng::new(i.into());
    (0..128).flat_map(|_| rng.next_u64().to_le_bytes()).collect()
}

/// The data regions that a node has: boundaries, in order.
fn regions(cluster: &Cluster, node: usize) -> Option<BTreeMap<String, String>> {
    let status = cluster.nodes[node].status()?;
    let text = |region: &serde_json::Value, name: &str| region[name].as_str().unwrap_or_default().to_owned();
    let all = status["regions"].as_array()?.iter().filter(|region| region["id"] != 1);
    Some(all.map(|region| (text(region, "start_key"), text(region, "end_key"))).collect())
}

#[test]
fn many_keys_are_split_by_few_requests() {
    let mut cluster = Cluster::start(1);
    let keys: Vec<String> = (1..=100).map(|i| format!("{i:03}")).collect();
    // Twice: a region that begins at a key already is no error.
    for _ in 0..2 {
        let mut command = kontiki();
        command.args(["split", "--endpoint", &cluster.nodes[0].addr]).args(&keys).arg("");
        let refused = command.output().expect("it runs");
        assert_eq!(refused.status.code(), Some(2), "an empty key is refused before anything is split");
        let mut command = kontiki();
        command.args(["split", "--endpoint", &cluster.nodes[0].addr]).args(keys.iter().rev());
        let output = command.output().expect("it runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(regions(&cluster, 0).expect("the node runs").len(), 102, "100, the first, and the tail");
    }
    let splits = wait_for("the metrics", || http_get(&cluster.nodes[0].status_addr, "/metrics")).1;
    assert!(splits.contains("kontiki_region_splits_total 2\n"), "64 keys and the other 36");
    cluster.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn regions_are_split_by_their_size_while_clients_work() {
    let mut cluster = Cluster::start(3);
    cluster.stop();
    cluster.nodes.iter_mut().for_each(|node| node.start_with(&OPTIONS));
    cluster.wait_ready();
    let client = connect_raw(&cluster.endpoints()).await;
    for chunk in (0..ENTRIES).collect::<Vec<u32>>().chunks(BATCH) {
        let pairs: Vec<KvPair> = chunk.iter().map(|&i| KvPair::new(key(i), value(i))).collect();
        eventually("a batch", async || client.batch_put(pairs.clone()).await).await;
    }
    // 8 MiB of values, in regions of at most 1 MiB.
    wait_for("the nodes to have split what has grown", || {
        let found: Vec<_> = (0..3).map(|node| regions(&cluster, node)).collect::<Option<_>>()?;
        (found.iter().all(|regions| regions.len() >= 9) && found[0] == found[1] && found[1] == found[2]).then_some(())
    });
    let boundaries = regions(&cluster, 0).expect("the node runs");
    let mut end = String::new();
    for (start_key, end_key) in &boundaries {
        assert_eq!(*start_key, end, "the regions follow one another: {boundaries:?}");
        end = end_key.clone();
    }
    assert_eq!(end, "", "and cover all keys");

    let client = connect_raw(&cluster.endpoints()).await;
    for chunk in (0..ENTRIES).collect::<Vec<u32>>().chunks(BATCH) {
        let keys: Vec<Vec<u8>> = chunk.iter().map(|&i| key(i)).collect();
        let found = eventually("a read", async || client.batch_get(keys.clone()).await).await;
        let mut expected: Vec<KvPair> = chunk.iter().map(|&i| KvPair::new(key(i), value(i))).collect();
        expected.sort_by(|a, b| a.key().cmp(b.key()));
        let mut found: Vec<KvPair> = found;
        found.sort_by(|a, b| a.key().cmp(b.key()));
        assert!(found == expected, "every value of {} to {}", chunk[0], chunk[chunk.len() - 1]);
    }
    assert_eq!(cluster.stop_with_equal_data().len(), ENTRIES as usize);
}
