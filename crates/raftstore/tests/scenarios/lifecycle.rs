//! How replicas end by a membership change, with crashes at each step. (How they begin: `split.rs`, `members.rs`.)

use crate::cluster::node::Node;
use crate::cluster::{Cluster, EPOCH, REGION, check, families, small_config};
use kontiki_engine::{Commit, StreamId};
use kontiki_raftstore::{Answer, Event, MemberChange, Observation, Peer, PeerId, StoreId, meta, replica_id};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
/// Whether anything of the region is on the disk or visible: all of it, or nothing.
fn is_there(node: &Node) -> bool {
    let descriptor = meta::region(families::META, &node.visible, REGION).expect("readable");
    let log = node.disk.streams.contains_key(&StreamId(REGION.0));
    if descriptor.is_none() && !log {
        assert!(check::region_state(&node.visible).is_empty(), "no key is left");
        assert_eq!(meta::applied_index(families::META, &node.visible, REGION).expect("readable"), None);
    }
    assert_eq!(descriptor.is_some(), log, "the end of a replica is one commit");
    log
}

/// A cluster that removes a follower which is up; returns its store.
fn with_a_removed_replica(seed: u64) -> (Cluster, u64) {
    let mut cluster = Cluster::with_config(seed, 3, small_config());
    cluster.checker.members_change = true;
    for i in 0..10u32 {
        cluster.put_surely(format!("k{i}").as_bytes(), &i.to_le_bytes());
    }
    cluster.run(SECOND);
    let removed = cluster.wait_leader() % 3 + 1;
    if seed.is_multiple_of(2) {
        cluster.node(removed).flush();
    }
    let leader = cluster.wait_leader();
    let old = cluster.status(leader).region.peer_on(StoreId(removed)).expect("a member").id;
    cluster.change_surely(MemberChange::Remove(old));
    (cluster, removed)
}

#[test]
fn a_replica_that_is_removed_leaves_a_tombstone_and_nothing_else() {
    for seed in 0..8 {
        let (mut cluster, removed) = with_a_removed_replica(seed);
        cluster.until(10, "it is destroyed", |cluster| !is_there(&cluster.nodes[&StoreId(removed)]));
        cluster.until(10, "it is reported", |cluster| {
            let node = &cluster.nodes[&StoreId(removed)];
            node.observations.contains(&Observation::RegionRemoved { region: REGION })
        });
        assert!(cluster.replica(removed).is_none() && cluster.node(removed).readers.region(REGION).is_none());
        let ticket = cluster.put(removed, b"k", b"v");
        cluster.until(5, "an answer", |cluster| cluster.answers.contains_key(&ticket));
        assert!(matches!(cluster.answers[&ticket], Answer::Refused(_)));
        // Nothing brings it back: a restart, or the others, which go on.
        cluster.crash(removed);
        cluster.start(removed);
        cluster.put_surely(b"without it", b"v");
        cluster.run(2 * SECOND);
        assert!(!is_there(cluster.node(removed)) && cluster.replica(removed).is_none());
    }
}

/// A cluster in which a follower is about to be removed; returns its store and identity.
fn with_a_removal_proposed(seed: u64) -> (Cluster, u64, PeerId) {
    let mut cluster = Cluster::with_config(seed, 3, small_config());
    cluster.checker.members_change = true;
    cluster.put_surely(b"k", b"v");
    cluster.run(SECOND);
    let leader = cluster.wait_leader();
    let removed = leader % 3 + 1;
    let old = cluster.status(leader).region.peer_on(StoreId(removed)).expect("a member").id;
    cluster.change(leader, EPOCH, MemberChange::Remove(old));
    (cluster, removed, old)
}

#[test]
fn a_crash_at_any_step_of_the_end_leaves_all_or_nothing() {
    let mut ended = 0;
    for crash_after in 0..40 {
        let (mut cluster, removed, _) = with_a_removal_proposed(500 + crash_after);
        for _ in 0..crash_after {
            cluster.step();
            if crash_after.is_multiple_of(2) {
                cluster.node(removed).flush();
            }
        }
        cluster.crash(removed);
        cluster.start(removed);
        cluster.run(3 * SECOND);
        ended += usize::from(!is_there(cluster.node(removed)));
        cluster.put_surely(b"without it", b"v");
    }
    assert!(ended > 10, "the runs cover it: {ended}");
}

/// Its group does not speak to it any more, so what it needs to end must be on its own disk before it ends.
#[test]
fn a_removed_replica_that_crashes_before_its_end_ends_after_a_restart_without_its_group() {
    for seed in 0..12 {
        let (mut cluster, removed, _) = with_a_removal_proposed(650 + seed);
        let is_end = |commit: &Commit| !commit.batch.is_empty();
        cluster.until(10, "its end is being written", |cluster| {
            cluster.node(removed).persists.iter().any(|(_, _, commit)| is_end(commit))
        });
        let earlier = cluster.node(removed).persists.iter().take_while(|(_, _, commit)| !is_end(commit)).count();
        cluster.node(removed).crash(earlier);
        (1..=3).filter(|store| *store != removed).for_each(|store| cluster.crash(store));
        assert!(is_there(cluster.node(removed)), "nothing of its end is durable");
        cluster.start(removed);
        cluster.until(10, "it is destroyed", |cluster| !is_there(&cluster.nodes[&StoreId(removed)]));
    }
}

/// The replica that was removed cannot vote any more: those that are left must not need it after a restart.
#[test]
fn members_that_are_left_know_after_a_restart_who_was_removed() {
    for seed in 0..12 {
        let (mut cluster, first, _) = with_a_removal_proposed(670 + seed);
        cluster.until(10, "one is destroyed", |cluster| !is_there(&cluster.nodes[&StoreId(first)]));
        cluster.crash(first);
        cluster.put_surely(b"by two", b"v");
        let leader = cluster.wait_leader();
        let second = (1..=3).find(|store| ![first, leader].contains(store)).expect("three stores");
        let old = cluster.status(leader).region.peer_on(StoreId(second)).expect("a member").id;
        cluster.change_surely(MemberChange::Remove(old));
        cluster.until(10, "two are destroyed", |cluster| !is_there(&cluster.nodes[&StoreId(second)]));
        cluster.run(SECOND);
        cluster.crash(second);
        // Nothing is flushed: tables have the descriptor of before.
        cluster.crash(leader);
        cluster.start(leader);
        cluster.put_surely(b"by one", b"v");
    }
}

#[test]
fn a_descriptor_without_a_peer_here_is_the_end_of_a_replica() {
    for seed in 0..6 {
        let (mut cluster, removed, old) = with_a_removal_proposed(600 + seed);
        cluster.until(10, "its end is being written", |cluster| {
            cluster.node(removed).persists.iter().any(|(_, _, commit)| !commit.batch.is_empty())
        });
        // Tables take the change of the descriptor, and the commit of the end is lost.
        cluster.node(removed).flush();
        cluster.node(removed).crash(0);
        let node = cluster.node(removed);
        let descriptor = meta::region(families::META, &node.disk.tables, REGION).expect("readable").expect("there");
        assert!(descriptor.peer(old).is_none() && node.disk.streams.contains_key(&StreamId(REGION.0)));
        cluster.start(removed);
        cluster.until(10, "it is destroyed", |cluster| !is_there(&cluster.nodes[&StoreId(removed)]));
        cluster.crash(removed);
        cluster.start(removed);
        cluster.put_surely(b"without it", b"v");
        cluster.run(SECOND);
        assert!(!is_there(cluster.node(removed)) && cluster.replica(removed).is_none());
    }
}

#[test]
fn late_messages_to_a_destroyed_replica_find_its_tombstone() {
    let directory = 77;
    for seed in 0..6 {
        let mut cluster = Cluster::with_config(700 + seed, 3, small_config());
        cluster.checker.members_change = true;
        cluster.put_surely(b"k", b"v");
        // A replica that messages may create: of the store's own directory.
        let store = cluster.wait_leader() % 3 + 1;
        let old = {
            let leader = cluster.wait_leader();
            cluster.status(leader).region.peer_on(StoreId(store)).expect("a member").id
        };
        cluster.crash(store);
        cluster.node(store).replace_disk(directory);
        cluster.start(store);
        let new = Peer { id: replica_id(directory, REGION), store: StoreId(store) };
        cluster.change_surely(MemberChange::Remove(old));
        cluster.change_surely(MemberChange::Add(new));
        cluster.until(30, "it is there", |cluster| cluster.node(store).installs > 0);
        cluster.run(SECOND);
        cluster.record(store);
        for i in 0..5u32 {
            cluster.put_surely(b"recorded", &i.to_le_bytes());
        }
        cluster.run(SECOND);
        let late = cluster.recorded();
        assert!(late.len() > 5, "there are messages to repeat");
        cluster.change_surely(MemberChange::Remove(new.id));
        cluster.until(10, "it is destroyed", |cluster| !is_there(&cluster.nodes[&StoreId(store)]));
        for restart in [false, true] {
            if restart {
                cluster.crash(store);
                cluster.start(store);
            }
            for message in &late {
                let now = cluster.now;
                let node = cluster.node(store);
                let (local, store) = (node.local(now), node.store.as_mut().expect("up"));
                store.handle(Event::Message(message.clone()), local);
                let effects = store.poll(local);
                assert!(effects.send.is_empty() && effects.persist.is_none(), "it is answered with nothing");
            }
            cluster.run(SECOND);
            assert!(!is_there(cluster.node(store)) && cluster.replica(store).is_none());
        }
    }
}
