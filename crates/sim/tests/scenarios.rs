//! Named situations, set up by hand in worlds without other faults.

use bytes::Bytes;
use kontiki_env::fs::{CrashMode, Op};
use kontiki_env::rng::Rng;
use kontiki_raftstore::{RegionId, StoreId};
use kontiki_server::config::RaftOptions;
use kontiki_sim::cluster::{Cluster, ClusterNode};
use kontiki_sim::history::{Answer, Operation, Outcome};
use kontiki_sim::workload::RawTarget;
use kontiki_sim::world::{Address, NodeId, Settings, World};
use std::time::Duration;

const PLACEMENT: RegionId = RegionId(1);
const DATA: RegionId = RegionId(2);

fn cluster(seed: u64) -> Cluster {
    Cluster::new(Rng::new(seed), 3, Settings::calm())
}

fn cut_off(world: &mut World<ClusterNode>, node: NodeId) {
    for other in (1..=3).filter(|other| *other != node) {
        world.network().cut(Address::Node(node), Address::Node(other));
        world.network().cut(Address::Node(other), Address::Node(node));
    }
}

fn run_for(cluster: &mut Cluster, seconds: u64) {
    let until = cluster.world.now() + Duration::from_secs(seconds);
    cluster.world.run_until(until);
}

/// Puts, and records the outcome.
fn put_at(cluster: &mut Cluster, client: u64, target: RawTarget, key: &str, value: &str) -> Outcome {
    let (history, executor) = (cluster.records.history.clone(), cluster.world.executor().clone());
    let (key, value) = (Bytes::from(key.to_owned()), Bytes::from(value.to_owned()));
    cluster.wait(async move {
        let operation = Operation::Put(value.clone());
        let id = history.lock().invoke(client, key.clone(), operation, executor.now());
        let outcome = target.put(key, value, false).await;
        history.lock().complete(id, outcome.clone(), executor.now());
        outcome
    })
}

/// Puts at `node` alone.
fn put_at_node(cluster: &mut Cluster, node: NodeId, key: &str, value: &str) -> Outcome {
    let target = at_node(cluster, node);
    put_at(cluster, 9, target, key, value)
}

/// A put whose outcome does not matter.
fn put_through_any(cluster: &mut Cluster, key: &str, value: &str) -> Outcome {
    let target = RawTarget::Cluster(cluster.client().raw());
    put_at(cluster, 1, target, key, value)
}

fn put(cluster: &mut Cluster, key: &str, value: &str) {
    assert_eq!(put_through_any(cluster, key, value), Outcome::Ok(Answer::Done), "{key}");
}

fn at_node(cluster: &Cluster, node: NodeId) -> RawTarget {
    RawTarget::Node(cluster.direct(50 + node, node))
}

/// The answer of a get at `node` alone; `None` if it refuses.
fn get_at(cluster: &mut Cluster, node: NodeId, key: &str) -> Option<Option<Bytes>> {
    let (target, key) = (at_node(cluster, node), Bytes::from(key.to_owned()));
    cluster.wait(async move { target.get(key).await }).ok()
}

fn timestamp(cluster: &mut Cluster) -> u64 {
    let client = cluster.client();
    cluster.wait(async move { client.timestamp().await }).expect("an answer")
}

/// Heals and runs the final checks; the world may have noted these failures on purpose.
fn assert_good(mut cluster: Cluster, expected_failures: usize) {
    assert_eq!(cluster.world.failures().len(), expected_failures, "{:?}", cluster.world.failures());
    cluster.world.heal();
    run_for(&mut cluster, 3);
    cluster.run_final_checks();
    let report = cluster.report(0);
    assert_eq!(report.violations.len(), expected_failures, "{:#?}", report.violations);
}

#[test]
fn a_leader_in_the_minority_neither_writes_nor_reads_while_the_majority_goes_on() {
    let mut cluster = cluster(29);
    let old = cluster.await_leader(DATA, None);
    put(&mut cluster, "k", "before");
    cut_off(&mut cluster.world, old);
    assert_ne!(put_at_node(&mut cluster, old, "lonely", "x"), Outcome::Ok(Answer::Done));
    let new = cluster.await_leader(DATA, Some(old));
    assert_ne!(new, old);
    assert_eq!(put_at_node(&mut cluster, new, "k", "after"), Outcome::Ok(Answer::Done));
    run_for(&mut cluster, 2);
    assert_eq!(get_at(&mut cluster, old, "k"), None, "a deposed leader refuses");
    assert_eq!(get_at(&mut cluster, new, "k"), Some(Some("after".into())));
    assert_good(cluster, 0);
}

#[test]
fn a_follower_refuses_writes_and_names_the_leader() {
    let mut cluster = cluster(16);
    let leader = cluster.await_leader(DATA, None);
    run_for(&mut cluster, 1);
    let follower = (1..=3).find(|id| *id != leader).expect("three nodes");
    assert_eq!(put_at_node(&mut cluster, follower, "k", "v"), Outcome::Failed);
    assert_eq!(get_at(&mut cluster, follower, "k"), None);
    let known = cluster.world.node(follower).and_then(ClusterNode::handle).and_then(|handle| handle.region(DATA));
    assert_eq!(known.and_then(|(_, leader)| leader).map(|peer| peer.store), Some(StoreId(leader)));
    assert_good(cluster, 0);
}

#[test]
fn leadership_moves_when_asked_and_nothing_is_lost() {
    let mut cluster = cluster(10);
    let old = cluster.await_leader(DATA, None);
    put(&mut cluster, "k", "1");
    let target = (1..=3).find(|id| *id != old).expect("three nodes");
    let handle = cluster.world.node(old).and_then(ClusterNode::handle).expect("it runs").clone();
    handle.transfer_leader(DATA, StoreId(target));
    assert_eq!(cluster.await_leader(DATA, Some(old)), target);
    assert_eq!(get_at(&mut cluster, target, "k"), Some(Some("1".into())));
    put(&mut cluster, "k", "2");
    assert_good(cluster, 0);
}

#[test]
fn a_node_cut_off_for_long_catches_up_by_a_snapshot() {
    let mut cluster = cluster(35);
    let leader = cluster.await_leader(DATA, None);
    let lagging = (1..=3).find(|id| *id != leader).expect("three nodes");
    put(&mut cluster, "first", "1");
    cut_off(&mut cluster.world, lagging);
    for number in 0..1_500 {
        put(&mut cluster, &format!("k{}", number % 100), &format!("{number}-{}", "x".repeat(200)));
    }
    run_for(&mut cluster, 10);
    let before = cluster.world.node(lagging).map(ClusterNode::snapshots_installed);
    cluster.world.heal();
    run_for(&mut cluster, 5);
    let after = cluster.world.node(lagging).map(ClusterNode::snapshots_installed);
    assert!(after > before, "the log was truncated, so only a snapshot helps: {before:?}, {after:?}");
    assert_good(cluster, 0);
}

#[test]
fn a_leader_that_stood_still_past_its_lease_reads_nothing_stale() {
    let mut cluster = cluster(94);
    let old = cluster.await_leader(DATA, None);
    put(&mut cluster, "k", "before");
    cluster.world.pause(old);
    let new = cluster.await_leader(DATA, Some(old));
    assert_eq!(put_at_node(&mut cluster, new, "k", "after"), Outcome::Ok(Answer::Done));
    // The request waits at the paused node, and is the first event when the node resumes.
    let target = at_node(&cluster, old);
    let seen = std::rc::Rc::new(std::cell::RefCell::new(None));
    let result = seen.clone();
    cluster.world.spawn_client(async move {
        *result.borrow_mut() = Some(target.get("k".into()).await);
    });
    let soon = cluster.world.now() + Duration::from_millis(5);
    cluster.world.run_until(soon);
    cluster.world.resume(old);
    run_for(&mut cluster, 2);
    let answer = seen.take().expect("answered");
    if let Ok(value) = answer {
        assert_eq!(value, Some(Bytes::from("after")), "a stale read");
    }
    assert_good(cluster, 0);
}

#[test]
fn all_nodes_lose_power_at_once_and_every_acknowledged_write_is_there() {
    let mut cluster = cluster(125);
    cluster.await_leader(DATA, None);
    for round in 0..4 {
        for number in 0..100 {
            put(&mut cluster, &format!("k{number}"), &format!("{round}-{number}"));
        }
        for id in 1..=3 {
            cluster.world.crash(id, CrashMode::LoseUnsynced);
            cluster.world.start_after(id, Duration::from_millis(50));
        }
        run_for(&mut cluster, 1);
        cluster.await_leader(DATA, None);
    }
    assert_good(cluster, 0);
}

#[test]
fn a_node_whose_sync_fails_stops_and_the_others_go_on() {
    let mut cluster = cluster(131);
    let leader = cluster.await_leader(DATA, None);
    put(&mut cluster, "before", "1");
    let node = cluster.world.node(leader).expect("it exists");
    kontiki_sim::world::SimNode::machine(node).fs.fail_next(Op::Sync, 1, |path| path.to_string_lossy().contains("wal"));
    let (began, raft) = (cluster.world.now(), RaftOptions::default());
    put_through_any(&mut cluster, "during", "2");
    cluster.await_leader(DATA, Some(leader));
    let election = raft.tick_interval * raft.election_ticks;
    assert!(cluster.world.now() < began + election, "its last orders made another one lead at once");
    put(&mut cluster, "after", "3");
    let stops = cluster.world.stops();
    assert!(stops.len() == 1 && stops[0].contains("storage engine failed"), "it stopped by itself, once: {stops:?}");
    assert_good(cluster, 0);
}

#[test]
fn full_disks_of_a_majority_refuse_writes_serve_reads_and_recover() {
    let mut cluster = cluster(132);
    let leader = cluster.await_leader(DATA, None);
    put(&mut cluster, "k", "before");
    for id in (1..=3).filter(|id| *id != leader).chain([leader]) {
        let node = cluster.world.node(id).expect("it exists");
        kontiki_sim::world::SimNode::machine(node).fs.set_quota(Some(0));
    }
    let full = |cluster: &Cluster| {
        let handle = cluster.world.node(leader).and_then(ClusterNode::handle);
        handle.is_some_and(|handle| handle.status().disk_full)
    };
    let mut puts = 0;
    while !full(&cluster) {
        puts += 1;
        assert!(puts < 2_000, "full disks accept no more than what was allocated");
        put_at_node(&mut cluster, leader, &format!("filler{}", puts % 50), &format!("{puts}-{}", "x".repeat(400)));
    }
    assert_eq!(put_at_node(&mut cluster, leader, "late", "x"), Outcome::Failed, "refused for certain");
    assert_eq!(get_at(&mut cluster, leader, "k"), Some(Some("before".into())), "reads continue");
    cluster.world.heal();
    run_for(&mut cluster, 2);
    put(&mut cluster, "k", "after");
    assert_good(cluster, 0);
}

#[test]
fn a_full_disk_of_three_costs_neither_writes_nor_timestamps() {
    for seed in 0..6 {
        let mut cluster = cluster(600 + seed);
        let leader = cluster.await_leader(DATA, None);
        // The same node leads placement, too.
        while cluster.await_leader(PLACEMENT, None) != leader {
            let placement = cluster.await_leader(PLACEMENT, None);
            let handle = cluster.world.node(placement).and_then(ClusterNode::handle).expect("it runs");
            handle.transfer_leader(PLACEMENT, StoreId(leader));
            run_for(&mut cluster, 1);
        }
        let before = timestamp(&mut cluster);
        let node = cluster.world.node(leader).expect("it exists");
        kontiki_sim::world::SimNode::machine(node).fs.set_quota(Some(0));
        // Until the disk is found to be full. A put at that moment may be refused.
        let mut puts = 0;
        while cluster.leaders(DATA).contains(&leader) || cluster.leaders(PLACEMENT).contains(&leader) {
            puts += 1;
            assert!(puts < 2_000, "seed {seed}: a full disk still leads");
            put_through_any(&mut cluster, &format!("filler{}", puts % 50), &format!("{puts}-{}", "x".repeat(400)));
            timestamp(&mut cluster);
        }
        put(&mut cluster, "after", "x");
        assert!(timestamp(&mut cluster) > before);
        // It does not take the leadership back while it cannot write, although the others are ordered to give it up.
        for _ in 0..5 {
            let now = cluster.await_leader(DATA, None);
            let handle = cluster.world.node(now).and_then(ClusterNode::handle).expect("it runs");
            handle.transfer_leader(DATA, StoreId(leader));
            run_for(&mut cluster, 2);
            assert!(!cluster.leaders(DATA).contains(&leader), "seed {seed}");
        }
        cluster.world.heal();
        run_for(&mut cluster, 3);
        put(&mut cluster, "healed", "x");
        assert_good(cluster, 0);
    }
}

#[test]
fn a_stalled_disk_that_leads_hands_over_and_the_others_go_on() {
    for seed in 0..6 {
        let mut cluster = cluster(700 + seed);
        let leader = cluster.await_leader(DATA, None);
        put(&mut cluster, "k", "before");
        cluster.world.stall_disk(leader, Duration::from_secs(30));
        // A write that the stalled disk delays makes it notice; its outcome may remain unknown.
        put_through_any(&mut cluster, "k", "during");
        let now = cluster.await_leader(DATA, Some(leader));
        assert_ne!(now, leader, "seed {seed}");
        let begun = cluster.world.now();
        for i in 0..5 {
            put(&mut cluster, &format!("k{i}"), "x");
        }
        assert!(cluster.world.now() < begun + Duration::from_secs(20), "seed {seed}: the others wait without reason");
        cluster.world.heal();
        run_for(&mut cluster, 3);
        put(&mut cluster, "healed", "x");
        assert_good(cluster, 0);
    }
}

/// Each sync of one disk takes much longer than those of the others.
#[test]
fn a_slow_disk_that_leads_hands_over_and_leads_again_when_it_is_fast() {
    for seed in 0..2 {
        let mut cluster = Cluster::with_signs_of_life(Rng::new(134 + seed), 3, Settings::calm());
        let leader = cluster.await_leader(DATA, None);
        let is_slow = |cluster: &Cluster| {
            let handle = cluster.world.node(leader).and_then(ClusterNode::handle);
            handle.is_some_and(|handle| handle.status().log_is_slow)
        };
        put(&mut cluster, "k", "before");
        cluster.world.slow_disk(leader, Duration::from_secs(600), Duration::from_millis(100));
        let mut puts = 0;
        while !is_slow(&cluster) {
            puts += 1;
            assert!(puts < 200, "seed {seed}: it does not notice");
            put_through_any(&mut cluster, &format!("k{}", puts % 9), "during");
        }
        let now = cluster.await_leader(DATA, Some(leader));
        let begun = cluster.world.now();
        for i in 0..20 {
            // Some callers hang up, so an outcome may be unknown.
            put_through_any(&mut cluster, &format!("k{i}"), "x");
        }
        assert!(cluster.world.now() < begun + Duration::from_secs(2), "seed {seed}: the others wait for it");
        assert_eq!(cluster.await_leader(DATA, None), now, "seed {seed}");
        cluster.world.heal();
        for i in 0..20_000 {
            if !is_slow(&cluster) {
                break;
            }
            assert!(i < 19_999, "seed {seed}: it does not recover");
            put_through_any(&mut cluster, &format!("k{}", i % 9), "after");
        }
        assert_good(cluster, 0);
    }
}

#[test]
fn timestamps_go_forward_whoever_dies_and_whoever_is_asked() {
    let mut cluster = cluster(135);
    let mut last = 0;
    for round in 0..5 {
        let leader = cluster.await_leader(PLACEMENT, None);
        for _ in 0..6 {
            let next = timestamp(&mut cluster);
            assert!(next > last, "round {round}: {next} after {last}");
            last = next;
        }
        cluster.world.crash(leader, CrashMode::Random);
        let next = timestamp(&mut cluster);
        assert!(next > last, "after the death of {leader}: {next} after {last}");
        last = next;
        cluster.world.start_after(leader, Duration::ZERO);
        run_for(&mut cluster, 2);
    }
    assert_good(cluster, 0);
}
