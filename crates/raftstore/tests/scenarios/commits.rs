//! When followers learn what is committed (docs/internals/raftstore.md, "A write").

use super::replica_reads::read;
use super::split::with_keys_and;
use crate::cluster::{Cluster, REGION, small_config};
use kontiki_raftstore::{Config, Event, RegionId, StoreId};
use std::time::Duration;

/// Heartbeats are so rare that whatever waits for one is noticed.
fn rare_heartbeats() -> Config {
    Config { announce_commits: false, election_ticks: 100, heartbeat_ticks: 40, ..small_config() }
}

/// What began at this time did not wait for a heartbeat.
#[track_caller]
fn assert_prompt(cluster: &Cluster, since: Duration) {
    let (waited, config) = (cluster.now - since, rare_heartbeats());
    assert!(waited < config.tick_interval * config.heartbeat_ticks as u32 / 4, "after {waited:?}");
}

/// Messages to a follower for fifty puts, one after the other.
fn messages_for_puts(seed: u64, announce_commits: bool) -> usize {
    let mut cluster = Cluster::with_config(seed, 3, Config { announce_commits, ..small_config() });
    let leader = cluster.wait_leader();
    let follower = 1 + leader % 3;
    cluster.record(follower);
    let mut index = 0;
    for i in 0..50u32 {
        index = cluster.put_surely(b"k", &i.to_le_bytes());
    }
    assert_eq!(cluster.wait_leader(), leader, "nothing is in the way");
    let messages = cluster.recorded().len();
    // Without another put.
    cluster
        .until(1, "the last one is applied by the follower", |cluster| cluster.status(follower).applied_index >= index);
    cluster.settle();
    messages
}

#[test]
fn a_commit_is_announced_with_the_next_entries_or_heartbeat() {
    for seed in 0..5 {
        let (announced, later) = (messages_for_puts(seed, true), messages_for_puts(seed, false));
        assert!(later * 3 < announced * 2, "{later} messages to a follower, and {announced} if each is announced");
    }
}

#[test]
fn a_split_is_announced_at_once() {
    for seed in 0..5 {
        let mut cluster = with_keys_and(seed, rare_heartbeats());
        let (leader, region, child) = (cluster.wait_leader(), cluster.region_at(b"k"), RegionId(9));
        let ticket = cluster.split(leader, &region, &[(child, b"k10")]);
        cluster.until(1, "the leader splits", |cluster| cluster.answers.contains_key(&ticket));
        let applied_at = cluster.now;
        cluster.until(5, "all replicas of the new region", |cluster| {
            (1..=3).all(|store| cluster.replica_of(child, store).is_some())
        });
        assert_prompt(&cluster, applied_at);
    }
}

#[test]
fn a_read_at_a_replica_waits_for_no_heartbeat() {
    for seed in 0..5 {
        let mut cluster = Cluster::with_config(seed, 3, rare_heartbeats());
        let follower = 1 + cluster.wait_leader() % 3;
        for i in 0..10u32 {
            cluster.put_surely(b"k", &i.to_le_bytes());
            let asked_at = cluster.now;
            let (value, _) = read(&mut cluster, follower, b"k").expect("nothing is in the way");
            assert_eq!(value, Some(i.to_le_bytes().to_vec()));
            assert_prompt(&cluster, asked_at);
        }
    }
}

/// The leader has no lease yet, and the follower has its first entry on disk only when it has answered the question.
#[test]
fn a_read_at_a_replica_of_a_new_leader_waits_for_no_heartbeat() {
    for seed in 0..30 {
        let mut cluster = Cluster::with_config(seed, 3, rare_heartbeats());
        // Elections are as rare as heartbeats.
        cluster.until(120, "the first leader", |cluster| cluster.leader().is_some());
        cluster.put_surely(b"k", b"old");
        let before = cluster.wait_leader();
        let (leader, follower) = (1 + before % 3, 1 + (before + 1) % 3);
        cluster.node(follower).disk_slower_by = Duration::from_millis(50);
        let transfer = Event::TransferLeader { region: REGION, to: StoreId(leader) };
        cluster.node(before).inbox.push_back(transfer);
        cluster.until(5, "another leader", |cluster| cluster.leader() == Some(leader));
        let asked_at = cluster.now;
        // It is refused until the follower knows the leader.
        while read(&mut cluster, follower, b"k").is_none() {
            cluster.step();
            assert_prompt(&cluster, asked_at);
        }
        assert_prompt(&cluster, asked_at);
    }
}
