//! One of three nodes has a disk that is slow, fails or is full: the others lead, and clients go on.

#![allow(clippy::disallowed_methods)] // a test over real processes touches the machine

mod support;

use std::time::Instant;
use support::sick_disk::{Syncs, Volume};
use support::{Cluster, DATA_REGION, Node, WAIT_MAX, connect_raw, eventually, http_get, wait_for};
use tikv_client::RawClient;

/// Three nodes of which the first leads if it can. `prepare` sees the first one before it starts.
fn start<T>(prepare: impl FnOnce(&mut Node, &std::path::Path) -> Result<T, String>) -> Result<(Cluster, T), String> {
    let mut cluster = Cluster::planned(3);
    let dir = cluster.dir.path().to_owned();
    let first = &mut cluster.nodes[0];
    first.options = vec!["--leader-priority".to_owned(), "1".to_owned()];
    let prepared = prepare(first, &dir)?;
    cluster.nodes.iter_mut().for_each(Node::start);
    cluster.wait_ready();
    wait_for("the first node to lead", || cluster.nodes[0].leads(DATA_REGION).then_some(()));
    Ok((cluster, prepared))
}

/// Puts until the condition holds.
async fn put_until(client: &RawClient, bytes: usize, what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + WAIT_MAX;
    for count in 0.. {
        // Its outcome may be unknown while leadership changes.
        let _ = client.put(format!("key{}", count % 20), "x".repeat(bytes)).await;
        if condition() {
            return;
        }
        assert!(Instant::now() < deadline, "put for {WAIT_MAX:?} without success: {what}");
    }
}

async fn put(client: &RawClient, key: &str) {
    eventually("a put", async || client.put(key.to_owned(), "yes".to_owned()).await).await;
}

/// A metric of a node.
fn metric(node: &Node, name: &str) -> Option<u64> {
    let (_, text) = http_get(&node.status_addr, "/metrics")?;
    let line = text.lines().find(|line| line.split_whitespace().next() == Some(name))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_a_slow_disk_leads_nothing_until_it_is_fast_again() {
    let (mut cluster, syncs) = match start(Syncs::of) {
        Ok(started) => started,
        Err(why) => return println!("skipped: {why}"),
    };
    let client = connect_raw(&cluster.endpoints()).await;
    put(&client, "before").await;
    syncs.take_longer_by_ms(400);
    let first = &cluster.nodes[0];
    put_until(&client, 100, "another node to lead", || !first.leads(DATA_REGION)).await;
    let slow = || metric(first, "kontiki_raft_log_slow");
    assert_eq!(wait_for("its metrics", slow), 1);
    assert_eq!(first.status().expect("it runs")["log_is_slow"], true);
    assert_eq!(http_get(&first.status_addr, "/readyz").map(|(code, _)| code), Some(200), "it follows, and is ready");
    syncs.take_longer_by_ms(0);
    put_until(&client, 100, "it leads again", || slow() == Some(0) && first.leads(DATA_REGION)).await;
    cluster.stop_with_equal_data();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_sync_fails_ends_with_the_reason_and_starts_again_on_a_good_disk() {
    let (mut cluster, syncs) = match start(Syncs::of) {
        Ok(started) => started,
        Err(why) => return println!("skipped: {why}"),
    };
    let client = connect_raw(&cluster.endpoints()).await;
    put(&client, "before").await;
    syncs.fail();
    let _ = client.put("during".to_owned(), "x".to_owned()).await;
    let status = tokio::task::block_in_place(|| cluster.nodes[0].wait_end());
    assert_eq!(status.code(), Some(1));
    let log = cluster.nodes[0].log_text();
    assert!(log.contains("the node stops: ") && log.contains("Input/output error"), "{log}");
    put(&client, "after").await;
    let value = eventually("a get", async || client.get("before".to_owned()).await).await;
    assert_eq!(value, Some(b"yes".to_vec()));
    syncs.take_longer_by_ms(0);
    tokio::task::block_in_place(|| {
        cluster.nodes[0].start();
        cluster.nodes[0].wait_ready();
        let data = cluster.stop_with_equal_data();
        let has = |key: &[u8]| data.iter().any(|(_, found, _)| found.windows(key.len()).any(|part| part == key));
        assert!(has(b"before") && has(b"after"));
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_disk_is_full_leads_nothing_until_there_is_space() {
    let mount = |node: &mut Node, _: &std::path::Path| Volume::mount(&node.data_dir, 160);
    let (mut cluster, volume) = match start(mount) {
        Ok(started) => started,
        Err(why) => return println!("skipped: {why}"),
    };
    let client = connect_raw(&cluster.endpoints()).await;
    put(&client, "before").await;
    volume.fill();
    let first = &cluster.nodes[0];
    let is_full = || first.status().is_some_and(|status| status["disk_full"] == true);
    let is_done = || is_full() && !first.leads(DATA_REGION);
    put_until(&client, 500_000, "its disk to be full, and another node to lead", is_done).await;
    assert_eq!(http_get(&first.status_addr, "/readyz").map(|(code, _)| code), Some(503));
    for i in 0..20 {
        put(&client, &format!("meanwhile{i}")).await;
    }
    assert!(!first.leads(DATA_REGION), "it does not come back by its priority");
    volume.free();
    put_until(&client, 100, "it leads again", || !is_full() && first.leads(DATA_REGION)).await;
    cluster.stop_with_equal_data();
}
