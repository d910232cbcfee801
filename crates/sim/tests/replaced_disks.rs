//! A store that comes back with an empty disk, or with an older copy of its disk, has lost its promises.

use kontiki_env::fs::{CrashMode, SimFs};
use kontiki_env::rng::Rng;
use kontiki_raftstore::RegionId;
use kontiki_server::driver::{MembershipState, NodeHandle};
use kontiki_sim::cluster::{Cluster, ClusterNode};
use kontiki_sim::world::{Address, NodeId, Settings, SimNode};
use std::time::Duration;

const DATA: RegionId = RegionId(2);

fn run_for(cluster: &mut Cluster, time: Duration) {
    let until = cluster.world.now() + time;
    cluster.world.run_until(until);
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn put(cluster: &mut Cluster, key: &str) -> bool {
    let (client, key) = (cluster.client().raw(), key.to_owned());
    cluster.wait(async move { client.put(key, "paid").await }).is_ok()
}

/// Whether the cluster has a key; `None` if no node answers.
fn get(cluster: &mut Cluster, key: &str) -> Option<bool> {
    let (client, key) = (cluster.client().raw(), key.to_owned());
    cluster.wait(async move { client.get(key).await }).ok().map(|value| value.is_some())
}

fn membership(cluster: &Cluster, node: NodeId) -> MembershipState {
    cluster.world.node(node).and_then(ClusterNode::handle).expect("it runs").status().membership
}

fn disk(cluster: &Cluster, node: NodeId) -> SimFs {
    cluster.world.node(node).expect("it exists").machine().fs.clone()
}

fn stop(cluster: &mut Cluster, nodes: &[NodeId]) {
    for node in nodes {
        cluster.world.crash(*node, CrashMode::Kill);
    }
}

fn start(cluster: &mut Cluster, nodes: &[NodeId]) {
    for node in nodes {
        cluster.world.start_after(*node, Duration::ZERO);
    }
}

/// Five puts are acknowledged by nodes 1 and 2 while 3 is down. Then node 2 gets another disk, and starts with node 3
/// first. Returns the cluster with all of them up for a while.
fn replaced(seed: u64, another_disk: impl FnOnce(&SimFs) -> SimFs) -> Cluster {
    let mut cluster = Cluster::new(Rng::new(seed), 3, Settings::calm());
    cluster.await_leader(DATA, None);
    assert!(put(&mut cluster, "base"));
    let copied = disk(&cluster, 2).fork(Rng::new(seed));
    // The copy is old enough to be recognised: node 2 was restarted after the copy was made.
    stop(&mut cluster, &[2]);
    run_for(&mut cluster, seconds(1));
    start(&mut cluster, &[2]);
    run_for(&mut cluster, seconds(6));
    stop(&mut cluster, &[3]);
    for i in 0..5 {
        assert!(put(&mut cluster, &format!("paid{i}")));
    }
    stop(&mut cluster, &[1, 2]);
    let another = another_disk(&copied);
    cluster.world.node_mut(2).expect("it exists").replace_disk(another);
    start(&mut cluster, &[2, 3]);
    run_for(&mut cluster, seconds(10));
    cluster
}

#[test]
fn an_emptied_member_neither_votes_nor_counts() {
    for seed in 0..10 {
        let mut cluster = replaced(seed, |_| SimFs::new(Rng::new(seed)));
        assert!(
            cluster.leaders(DATA).is_empty(),
            "seed {seed}: node 3 lacks what was acknowledged, node 2 has nothing"
        );
        assert_eq!(membership(&cluster, 2), MembershipState::Replaced { reported_by: kontiki_raftstore::StoreId(3) });
        start(&mut cluster, &[1]);
        cluster.await_leader(DATA, None);
        for i in 0..5 {
            assert_eq!(get(&mut cluster, &format!("paid{i}")), Some(true), "seed {seed}");
        }
        assert!(put(&mut cluster, "later"), "two of three continue");
        // Node 2 does not take part: with it and one other there is no majority.
        stop(&mut cluster, &[1]);
        run_for(&mut cluster, seconds(10));
        assert!(cluster.leaders(DATA).is_empty() || !put(&mut cluster, "never"), "seed {seed}");
        assert!(cluster.world.failures().is_empty(), "{:?}", cluster.world.failures());
    }
}

#[test]
fn an_emptied_member_is_taken_in_as_a_new_replica_and_counts_again() {
    for seed in 0..10 {
        let mut cluster = replaced(seed, |_| SimFs::new(Rng::new(seed)));
        stop(&mut cluster, &[2]);
        let lost = disk(&cluster, 2);
        cluster.world.node_mut(2).expect("it exists").replace_lost_directory();
        start(&mut cluster, &[1, 2]);
        cluster.await_leader(DATA, None);
        // It is a member at once, and has replicas when their leaders have sent them.
        let until = cluster.world.now() + seconds(60);
        while cluster.world.node(2).and_then(ClusterNode::handle).is_none_or(|node| !has_all_data(node)) {
            assert!(cluster.world.now() < until, "seed {seed}: {:?}", cluster.world.failures());
            run_for(&mut cluster, seconds(1));
        }
        // Node 3 has everything as well by now. With node 2 it is a majority: what node 1 had acknowledged is on both.
        run_for(&mut cluster, seconds(5));
        stop(&mut cluster, &[1]);
        cluster.await_leader(DATA, None);
        for i in 0..5 {
            assert_eq!(get(&mut cluster, &format!("paid{i}")), Some(true), "seed {seed}");
        }
        assert!(put(&mut cluster, "with node 2"), "seed {seed}");
        start(&mut cluster, &[1]);
        run_for(&mut cluster, seconds(5));
        assert!(cluster.world.failures().is_empty(), "seed {seed}: {:?}", cluster.world.failures());
        cluster.run_final_checks();
        let report = cluster.report(seed);
        assert!(report.violations.is_empty(), "seed {seed}: {:#?}", report.violations);
        drop(lost);
    }
}

fn has_all_data(node: &NodeHandle) -> bool {
    let status = node.status();
    let has_data = status.regions.iter().all(|region| region.applied_index.is_some());
    status.membership == MembershipState::Member && status.missing.is_empty() && has_data
}

#[test]
fn a_lost_directory_that_comes_back_stops_when_another_has_taken_its_place() {
    for seed in 0..10 {
        let mut cluster = Cluster::new(Rng::new(seed), 3, Settings::calm());
        cluster.await_leader(DATA, None);
        assert!(put(&mut cluster, "paid0"));
        stop(&mut cluster, &[2]);
        let lost = disk(&cluster, 2).fork(Rng::new(seed));
        cluster.world.node_mut(2).expect("it exists").replace_disk(SimFs::new(Rng::new(seed)));
        cluster.world.node_mut(2).expect("it exists").replace_lost_directory();
        start(&mut cluster, &[2]);
        run_for(&mut cluster, seconds(20));
        assert!(cluster.world.node(2).and_then(ClusterNode::handle).is_some_and(has_all_data), "seed {seed}");
        stop(&mut cluster, &[2]);
        cluster.world.node_mut(2).expect("it exists").replace_disk(lost);
        start(&mut cluster, &[2]);
        run_for(&mut cluster, seconds(10));
        let failures = cluster.world.failures().to_vec();
        assert!(failures.len() == 1 && failures[0].contains("was given up"), "seed {seed}: {failures:?}");
        assert_eq!(get(&mut cluster, "paid0"), Some(true), "seed {seed}");
    }
}

#[test]
fn an_older_copy_of_a_member_stops_instead_of_voting() {
    for seed in 0..10 {
        let mut cluster = replaced(seed, |copied| copied.fork(Rng::new(seed + 1)));
        assert!(cluster.leaders(DATA).is_empty(), "seed {seed}: an older copy must not elect node 3");
        let failures = cluster.world.failures().to_vec();
        assert!(failures.len() == 1 && failures[0].contains("older copy"), "{failures:?}");
        start(&mut cluster, &[1]);
        cluster.await_leader(DATA, None);
        for i in 0..5 {
            assert_eq!(get(&mut cluster, &format!("paid{i}")), Some(true), "seed {seed}");
        }
    }
}

#[test]
fn an_older_copy_stays_refused_however_often_it_is_started() {
    for seed in 0..5 {
        let mut cluster = replaced(seed, |copied| copied.fork(Rng::new(seed + 1)));
        // A supervisor starts it repeatedly. If each start counted, it would overtake the generation that the others
        // know.
        for round in 2..8 {
            start(&mut cluster, &[2]);
            run_for(&mut cluster, seconds(5));
            assert!(cluster.leaders(DATA).is_empty(), "seed {seed}: start {round} of an older copy elects node 3");
            assert_eq!(cluster.world.failures().len(), round, "seed {seed}: {:?}", cluster.world.failures());
        }
        start(&mut cluster, &[1]);
        cluster.await_leader(DATA, None);
        for i in 0..5 {
            assert_eq!(get(&mut cluster, &format!("paid{i}")), Some(true), "seed {seed}");
        }
    }
}

#[test]
fn directories_that_are_only_missing_are_not_given_up_while_one_member_is_left() {
    let mut cluster = Cluster::new(Rng::new(9), 3, Settings::calm());
    cluster.await_leader(DATA, None);
    assert!(put(&mut cluster, "paid0"));
    stop(&mut cluster, &[1, 2]);
    let kept = [1, 2].map(|node| disk(&cluster, node).fork(Rng::new(node)));
    for node in [1, 2] {
        let machine = cluster.world.node_mut(node).expect("it exists");
        machine.replace_disk(SimFs::new(Rng::new(node)));
        machine.replace_lost_directory();
    }
    start(&mut cluster, &[1, 2]);
    run_for(&mut cluster, seconds(20));
    assert!([1, 2].iter().all(|node| matches!(membership(&cluster, *node), MembershipState::Replaced { .. })));
    // Both disks were not mounted: with them everything is available again.
    stop(&mut cluster, &[1, 2]);
    for (node, disk) in [1, 2].into_iter().zip(kept) {
        cluster.world.node_mut(node).expect("it exists").replace_disk(disk);
    }
    start(&mut cluster, &[1, 2]);
    cluster.await_leader(DATA, None);
    assert_eq!(get(&mut cluster, "paid0"), Some(true));
    assert!(cluster.world.failures().is_empty(), "{:?}", cluster.world.failures());
}

#[test]
fn a_cluster_is_formed_only_by_all_of_its_first_members() {
    let mut cluster = Cluster::new(Rng::new(5), 3, Settings::calm());
    for other in [1, 2] {
        cluster.world.network().cut(Address::Node(3), Address::Node(other));
        cluster.world.network().cut(Address::Node(other), Address::Node(3));
    }
    run_for(&mut cluster, seconds(10));
    assert!(cluster.leaders(DATA).is_empty(), "two empty directories of three do not form a cluster");
    assert_eq!(membership(&cluster, 1), MembershipState::Forming { waiting_for: vec![kontiki_raftstore::StoreId(3)] });
    cluster.world.network().heal();
    cluster.await_leader(DATA, None);
    run_for(&mut cluster, seconds(2));
    assert!((1..=3).all(|node| membership(&cluster, node) == MembershipState::Member));
    assert!(put(&mut cluster, "k"));
    cluster.world.heal();
    run_for(&mut cluster, seconds(3));
    cluster.run_final_checks();
    let report = cluster.report(5);
    assert!(report.violations.is_empty(), "{:#?}", report.violations);
}
