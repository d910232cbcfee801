//! Replicas are compared: docs/internals/consistency.md.

use kontiki_env::rng::Rng;
use kontiki_raftstore::{CheckOutcome, RegionId, StoreId};
use kontiki_server::driver::NodeError;
use kontiki_sim::cluster::{Cluster, ClusterNode};
use kontiki_sim::world::{NodeId, Settings};
use std::time::Duration;

const DATA: RegionId = RegionId(2);

fn with_keys(seed: u64) -> Cluster {
    let mut cluster = Cluster::new(Rng::new(seed), 3, Settings::calm());
    cluster.await_leader(DATA, None);
    for i in 0..20 {
        let (client, key) = (cluster.client().raw(), format!("key{i:02}"));
        cluster.wait(async move { client.put(key, "value").await }).expect("written");
    }
    cluster
}

fn run_for(cluster: &mut Cluster, time: Duration) {
    let until = cluster.world.now() + time;
    cluster.world.run_until(until);
}

fn compare(cluster: &mut Cluster, at: NodeId) -> Result<CheckOutcome, NodeError> {
    let handle = cluster.world.node(at).and_then(ClusterNode::handle).expect("it runs").clone();
    cluster.wait(async move { handle.compare_replicas(DATA).await })
}

#[test]
fn equal_replicas_are_found_equal_and_followers_refuse() {
    for seed in 0..5 {
        let mut cluster = with_keys(seed);
        let leader = cluster.await_leader(DATA, None);
        let outcome = compare(&mut cluster, leader).expect("it leads");
        assert!(outcome.is_equal() && outcome.agreeing.len() == 3, "{outcome:?}");
        let refused = compare(&mut cluster, 1 + leader % 3).expect_err("it does not lead");
        assert!(matches!(refused, NodeError::Region(_)), "{refused}");
        assert!(cluster.world.failures().is_empty(), "{:?}", cluster.world.failures());
    }
}

#[test]
fn a_node_with_other_data_stops_and_is_not_served_again_until_it_is_replaced() {
    for seed in 10..16 {
        let mut cluster = with_keys(seed);
        let leader = cluster.await_leader(DATA, None);
        // Every second time the leader's own data are wrong.
        let damaged = if seed.is_multiple_of(2) { leader } else { 1 + leader % 3 };
        cluster.world.node_mut(damaged).expect("it exists").lose_key(b"key07");
        run_for(&mut cluster, Duration::from_secs(1));
        let outcome = compare(&mut cluster, leader);
        let outcome = outcome.expect("the leader waits for all");
        assert_eq!(outcome.differing, [StoreId(damaged)], "seed {seed}: {outcome:?}");
        run_for(&mut cluster, Duration::from_secs(10));
        let failures = cluster.world.failures().join("\n");
        assert!(failures.contains("differ from those of a quorum of replicas"), "seed {seed}: {failures}");
        assert!(cluster.world.node(damaged).and_then(ClusterNode::handle).is_none(), "it has stopped");
        cluster.await_leader(DATA, Some(damaged));
        let client = cluster.client().raw();
        let value = cluster.wait(async move { client.get("key07").await }).expect("the others serve");
        assert_eq!(value.as_deref(), Some(b"value".as_slice()));

        cluster.world.start_after(damaged, Duration::ZERO);
        run_for(&mut cluster, Duration::from_secs(1));
        let failures = cluster.world.failures().last().expect("it was refused").clone();
        assert!(failures.contains("cannot be served") && failures.contains("--replace-lost-directory"), "{failures}");
    }
}
