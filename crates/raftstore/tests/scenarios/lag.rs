//! What a leader reports of followers that are behind.

use super::flow::narrow;
use crate::cluster::{Cluster, REGION};
use kontiki_raftstore::{Config, StoreId, StoreLag};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const VALUE_BYTES: usize = 4096;

fn lag_at(cluster: &Cluster, id: u64) -> StoreLag {
    cluster.nodes[&StoreId(id)].store.as_ref().expect("it runs").lag()
}

fn load(cluster: &mut Cluster, leader: u64, count: usize) {
    for _ in 0..count {
        cluster.put(leader, b"k", &[b'v'; VALUE_BYTES]);
        cluster.step();
    }
    cluster.run(SECOND);
}

#[test]
fn a_leader_names_the_follower_that_is_behind_and_by_how_much() {
    let retaining = Config {
        log_bytes_max: 64 << 20,
        snapshot_log_bytes_max: 64 << 20,
        follower_dead_ticks: 6000,
        lag_warn_bytes: 10 * VALUE_BYTES,
        ..narrow()
    };
    let mut cluster = Cluster::with_config(1, 3, retaining);
    cluster.put_surely(b"k", b"old");
    cluster.settle();
    let leader = cluster.wait_leader();
    assert_eq!(lag_at(&cluster, leader).worst, [], "all have everything");
    let away = leader % 3 + 1;
    cluster.crash(away);
    load(&mut cluster, leader, 5);
    let lag = lag_at(&cluster, leader);
    let [worst] = lag.worst[..] else { panic!("one is behind: {lag:?}") };
    assert_eq!((worst.region, worst.store, worst.needs_snapshot), (REGION, StoreId(away), false));
    assert!(worst.entries >= 5 && worst.bytes >= 5 * VALUE_BYTES as u64, "{worst:?}");
    assert_eq!((lag.follower_bytes, lag.follower_entries_max), (worst.bytes, worst.entries));
    assert_eq!(lag.beyond, [], "it is within the bound");
    load(&mut cluster, leader, 10);
    let lag = lag_at(&cluster, leader);
    assert_eq!(lag.beyond.len(), 1, "{lag:?}");
    let detail = cluster.nodes[&StoreId(leader)].store.as_ref().expect("it runs").replica_lag(REGION).expect("there");
    assert_eq!(detail.followers.len(), 2);
    assert!(detail.followers.contains(&lag.worst[0]) && detail.leads, "{detail:?}");
    cluster.start(away);
    cluster.until(30, "the follower catches up", |cluster| lag_at(cluster, leader).worst.is_empty());
    assert_eq!(lag_at(&cluster, leader).follower_bytes, 0);
    cluster.settle();
}

#[test]
fn a_follower_that_needs_a_snapshot_lags_however_short_the_log_is() {
    let mut cluster = Cluster::with_config(2, 3, Config { follower_dead_ticks: 20, ..narrow() });
    cluster.put_surely(b"k", b"old");
    let leader = cluster.wait_leader();
    let away = leader % 3 + 1;
    cluster.crash(away);
    load(&mut cluster, leader, 100);
    cluster.until(60, "the log is truncated", |cluster| {
        cluster.put(leader, b"k", b"more");
        cluster.node(leader).flush();
        lag_at(cluster, leader).beyond.iter().any(|lag| lag.needs_snapshot)
    });
    let lag = lag_at(&cluster, leader);
    assert_eq!(lag.worst[0].store, StoreId(away));
    cluster.start(away);
    cluster.until(60, "the follower catches up", |cluster| lag_at(cluster, leader).beyond.is_empty());
    cluster.settle();
}

/// A new leader does not know yet what its followers have: that is no lag.
#[test]
fn a_new_leader_takes_no_follower_for_one_that_has_nothing() {
    let mut cluster = Cluster::with_config(3, 3, Config { lag_warn_bytes: 0, ..narrow() });
    for key in [&b"a"[..], b"b", b"c"] {
        cluster.put_surely(key, &[b'v'; VALUE_BYTES]);
    }
    cluster.settle();
    for _ in 0..5 {
        let old = cluster.wait_leader();
        cluster.crash(old);
        let new = cluster.wait_leader();
        let lag = lag_at(&cluster, new);
        assert!(lag.worst.iter().all(|lag| lag.entries <= 2), "the first entry of a term at most: {lag:?}");
        cluster.start(old);
        cluster.settle();
    }
}

#[test]
fn a_replica_reports_what_it_has_not_applied_or_flushed() {
    let mut cluster = Cluster::with_config(4, 3, narrow());
    cluster.put_surely(b"k", b"old");
    let leader = cluster.wait_leader();
    (1..=3).for_each(|id| cluster.node(id).flush_stalls = true);
    let before = lag_at(&cluster, leader);
    load(&mut cluster, leader, 20);
    let lag = lag_at(&cluster, leader);
    assert!(lag.unflushed_entries >= before.unflushed_entries + 20, "{before:?} {lag:?}");
    assert_eq!(lag.unflushed_entries, lag.unflushed_entries_max, "of the only region");
    assert_eq!(lag.unapplied_entries, 0, "{lag:?}");
    assert!(lag.log_entries >= 20 && lag.largest[0] == (REGION, lag.log_bytes_max), "{lag:?}");
    (1..=3).for_each(|id| cluster.node(id).flush_stalls = false);
    cluster.settle();
}
