//! Reads at replicas with real processes: as fresh as at the leader, and of the past without it; and when the leader is
//! stopped.

#![allow(clippy::disallowed_methods)] // a test over real processes waits on the real clock

mod support;

use kontiki::client::{Client, Options, ReadFrom};
use std::time::{Duration, Instant};
use support::{Cluster, DATA_REGION, eventually, http_get};

/// A counter of a node.
fn metric(cluster: &Cluster, node: usize, name: &str) -> u64 {
    let (_, text) = http_get(&cluster.nodes[node].status_addr, "/metrics").expect("it runs");
    let line = text.lines().find(|line| line.starts_with(&format!("{name} "))).expect("it is there").to_owned();
    line.rsplit(' ').next().and_then(|value| value.parse().ok()).expect("a number")
}

fn sum(cluster: &Cluster, name: &str) -> u64 {
    (0..3).map(|node| metric(cluster, node, name)).sum()
}

async fn put(client: &Client, value: u32) -> u64 {
    eventually("a commit", async || {
        let mut transaction = client.begin().await?;
        transaction.put("account", value.to_string());
        transaction.put("copy", value.to_string());
        transaction.commit().await
    })
    .await
    .expect("it wrote")
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_serve_the_past_alone_and_the_present_with_their_leader() {
    let mut cluster = Cluster::start(3);
    let endpoints = cluster.endpoints();
    let options = Options { request_timeout: Duration::from_secs(2), ..Options::default() };
    let client = eventually("a client", async || Client::connect_with(&endpoints, options.clone()).await).await;
    let mut commits = vec![put(&client, 0).await];
    client.raw().put("raw", "0").await.expect("written");

    // As fresh as the leader, at every node.
    let raw = client.raw().read_from(ReadFrom::Replica);
    for value in 1..=6u32 {
        commits.push(put(&client, value).await);
        client.raw().put("raw", value.to_string()).await.expect("written");
        assert_eq!(raw.get("raw").await.expect("read").expect("there"), value.to_string());
        let now = client.snapshot(client.timestamp().await.expect("a timestamp")).read_from(ReadFrom::Replica);
        assert_eq!(now.get("account").await.expect("read").expect("there"), value.to_string());
    }
    assert!(sum(&cluster, "kontiki_reads_replica_total") > 3, "replicas that do not lead served some of them");

    // Of the past, until the replicas serve it alone: then every commit is seen from its timestamp on.
    let deadline = Instant::now() + support::WAIT_MAX;
    loop {
        let (served, refused) =
            (sum(&cluster, "kontiki_reads_stale_total"), sum(&cluster, "kontiki_reads_stale_refused_total"));
        for (value, commit_ts) in commits.iter().enumerate() {
            let snapshot = client.stale_snapshot_at(*commit_ts);
            let pairs = snapshot.scan("", "", 10).await.expect("read");
            let found: Vec<&[u8]> = pairs.iter().map(|pair| &pair.value[..]).collect();
            assert_eq!(found, [value.to_string().as_bytes(); 2]);
            let before = client.stale_snapshot_at(commit_ts - 1).get("copy").await.expect("read");
            assert_eq!(
                before.map(|value| value.to_vec()),
                value.checked_sub(1).map(|value| value.to_string().into_bytes())
            );
        }
        if sum(&cluster, "kontiki_reads_stale_refused_total") == refused {
            // A scan visits the empty region at the end, too.
            assert_eq!(sum(&cluster, "kontiki_reads_stale_total"), served + 3 * commits.len() as u64);
            break;
        }
        assert!(Instant::now() < deadline, "replicas never served them all");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let recent = client.stale_snapshot(Duration::from_secs(1)).await.expect("a timestamp");
    recent.get("account").await.expect("read");

    // What is safe stays so when the leader is gone: the two others serve it at once, and their successor goes on.
    let leader = cluster.leader_of(DATA_REGION);
    cluster.nodes[leader].kill();
    let snapshot = client.stale_snapshot_at(commits[3]);
    for _ in 0..6 {
        let value = eventually("a read of the past", async || snapshot.get("account").await).await;
        assert_eq!(value.expect("there"), "3");
    }
    let last = put(&client, 7).await;
    let value = eventually("a read", async || client.stale_snapshot_at(last).get("account").await).await;
    assert_eq!(value.expect("there"), "7");
}
