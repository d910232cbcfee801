//! A majority of the stores is lost for good: those that are left go on without it.

use crate::cluster::check::region_state;
use crate::cluster::{Cluster, EPOCH, REGION, families, small_config};
use bytes::Bytes;
use kontiki_engine::{Commit, Durability, View, WriteBatch};
use kontiki_raftstore::command::{Action, Command};
use kontiki_raftstore::{Config, Event, MemberChange, Peer, Recovery, Region, RegionId, StoreId, meta, replica_id};
use std::collections::BTreeMap;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// Crashes every store, and records on those that are left that the others are lost.
pub fn lose(cluster: &mut Cluster, number: u64, lost: &[u64]) -> Vec<u64> {
    lose_with(cluster, number, lost, &[])
}

/// The same; regions go on from the learners on these stores.
pub fn lose_with(cluster: &mut Cluster, number: u64, lost: &[u64], learners: &[(RegionId, u64)]) -> Vec<u64> {
    let learners = learners.iter().map(|(region, store)| (*region, StoreId(*store))).collect();
    let recovery = Recovery { number, lost: lost.iter().copied().map(StoreId).collect(), learners };
    let ids: Vec<u64> = cluster.nodes.keys().map(|store| store.0).collect();
    for id in &ids {
        if cluster.node(*id).is_up() {
            cluster.crash(*id);
        }
    }
    cluster.heal();
    cluster.checker.forget();
    let left: Vec<u64> = ids.into_iter().filter(|id| !lost.contains(id)).collect();
    for id in &left {
        let mut batch = WriteBatch::new();
        meta::put_recovery(families::META, &mut batch, &recovery);
        let commit = Commit { batch, streams: vec![], durability: Durability::Sync, unchanged: vec![] };
        cluster.node(*id).disk.commit(&commit);
    }
    for id in &left {
        cluster.start(*id);
    }
    left
}

/// The regions of a store that is up, as they are visible there.
pub fn regions_on(cluster: &Cluster, id: u64) -> BTreeMap<RegionId, Region> {
    let status = cluster.nodes[&StoreId(id)].store.as_ref().expect("up").status();
    status.into_iter().map(|status| (status.region.id, Region::clone(&status.region))).collect()
}

/// Orders the recovery of each region at its leader, as a node does, until all replicas that are left have done it.
#[track_caller]
pub fn recover(cluster: &mut Cluster, left: &[u64]) {
    for _ in 0..100 {
        let mut is_due = false;
        for id in left {
            let recovery = cluster.nodes[&StoreId(*id)].store.as_ref().expect("up").recovery().clone();
            for region in regions_on(cluster, *id).into_values().filter(|region| recovery.is_due(region)) {
                is_due = true;
                if cluster.leader_of(region.id) == Some(*id) {
                    let action = Action::Recover(recovery.clone());
                    cluster.command(*id, region.id, Command { epoch: region.epoch, action });
                }
            }
        }
        if !is_due {
            return;
        }
        cluster.run(SECOND / 5);
    }
    let found: Vec<_> = left.iter().map(|id| regions_on(cluster, *id)).collect();
    panic!("not recovered: {found:#?}");
}

/// What readers of a store see of a key.
pub fn value_on(cluster: &Cluster, id: u64, key: &[u8]) -> Option<Bytes> {
    cluster.nodes[&StoreId(id)].visible.get(families::DEFAULT, key).expect("readable")
}

/// Puts keys, all of which are acknowledged; returns them with their places in the log.
pub fn puts(cluster: &mut Cluster, name: &str, count: u64) -> Vec<(String, u64)> {
    let put = |i| {
        let key = format!("{name}{i}");
        let index = cluster.put_surely(key.as_bytes(), b"1");
        (key, index)
    };
    (0..count).map(put).collect()
}

/// The last index of the log on a store's disk.
pub fn last_on_disk(cluster: &Cluster, id: u64) -> u64 {
    let log = &cluster.nodes[&StoreId(id)].disk.streams[&kontiki_engine::StreamId(REGION.0)];
    log.truncated_through + log.entries.len() as u64
}

#[track_caller]
pub fn assert_equal(cluster: &mut Cluster, left: &[u64]) {
    cluster.until(30, "equal replicas", |cluster| {
        let states: Vec<_> = left.iter().map(|id| region_state(&cluster.nodes[&StoreId(*id)].visible)).collect();
        let regions: Vec<_> = left.iter().map(|id| regions_on(cluster, *id)).collect();
        states.windows(2).all(|pair| pair[0] == pair[1]) && regions.windows(2).all(|pair| pair[0] == pair[1])
    });
}

#[test]
fn one_of_three_goes_on_with_what_its_log_has() {
    for seed in 0..20 {
        let mut cluster = Cluster::new(seed, 3);
        let (left, lost) = (1 + seed % 3, [1 + (seed + 1) % 3, 1 + (seed + 2) % 3]);
        let mut acknowledged = puts(&mut cluster, "before", 12);
        if seed % 2 == 0 {
            // Without the one that will be left.
            cluster.partition(&[left]);
            cluster
                .until(20, "a leader of the others", |cluster| cluster.leader().is_some_and(|leader| leader != left));
            acknowledged.extend(puts(&mut cluster, "beside", 5));
        }
        lose(&mut cluster, 1, &lost);
        let last = last_on_disk(&cluster, left);
        recover(&mut cluster, &[left]);
        for (key, index) in acknowledged {
            let found = value_on(&cluster, left, key.as_bytes());
            assert_eq!(found.is_some(), index <= last, "seed {seed}: {key} at {index}, the log ends at {last}");
        }
        let region = cluster.status(left).region;
        assert_eq!(region.peers.len(), 1);
        assert_eq!(region.epoch.conf_version >> 32, 1);
        cluster.put_surely(b"after", b"1");
        // It is all there after another crash, and needs no further recovery.
        cluster.crash(left);
        cluster.start(left);
        cluster.put_surely(b"again", b"1");
        assert!(value_on(&cluster, left, b"after").is_some());
    }
}

#[test]
fn of_two_that_are_left_of_five_the_one_with_the_longer_log_leads_and_both_become_equal() {
    for seed in 0..20 {
        let mut cluster = Cluster::new(seed, 5);
        puts(&mut cluster, "both", 6);
        cluster.partition(&[2]);
        cluster.until(20, "a leader of the others", |cluster| cluster.leader().is_some_and(|leader| leader != 2));
        let late = puts(&mut cluster, "late", 6);
        cluster.until(20, "store 1 has all", |cluster| last_on_disk(cluster, 1) >= late[5].1);
        let left = lose(&mut cluster, 1, &[3, 4, 5]);
        recover(&mut cluster, &left);
        cluster.put_surely(b"after", b"1");
        assert_equal(&mut cluster, &left);
        for (key, _) in &late {
            assert!(value_on(&cluster, 2, key.as_bytes()).is_some(), "seed {seed}: {key} is on store 2, too");
        }
        let region = cluster.status(1).region;
        assert_eq!(region.peers.iter().map(|peer| peer.store.0).collect::<Vec<_>>(), [1, 2]);
        // Both count: one alone acknowledges nothing.
        let leader = cluster.wait_leader();
        cluster.crash(3 - leader);
        let ticket = cluster.put(leader, b"alone", b"1");
        cluster.run(2 * SECOND);
        assert!(!matches!(cluster.answers.get(&ticket), Some(kontiki_raftstore::Answer::Ok { .. })));
    }
}

#[test]
fn a_split_that_one_of_those_left_has_not_seen_is_done_by_both() {
    for seed in 0..20 {
        let mut cluster = Cluster::new(seed, 5);
        puts(&mut cluster, "a", 3);
        cluster.partition(&[2]);
        cluster.until(20, "a leader of the others", |cluster| cluster.leader().is_some_and(|leader| leader != 2));
        cluster.split_surely(&[(RegionId(9), b"m")]);
        cluster.put_anywhere(b"n", b"behind the split");
        cluster.put_anywhere(b"b", b"before the split");
        cluster.until(20, "store 1 has applied it", |cluster| cluster.replica_of(RegionId(9), 1).is_some());
        if seed % 2 == 0 {
            // Its tables have the result, and its log may begin behind it.
            cluster.node(1).flush();
        }
        cluster.run(SECOND / 2);
        let left = lose(&mut cluster, 1, &[3, 4, 5]);
        cluster.until(30, "both have both regions", |cluster| {
            recover(cluster, &left);
            left.iter().all(|id| regions_on(cluster, *id).len() == 2)
        });
        cluster.put_anywhere(b"m", b"1");
        cluster.put_anywhere(b"c", b"1");
        assert_equal(&mut cluster, &left);
        for id in left {
            assert!(regions_on(&cluster, id).values().all(|region| region.peers.len() == 2), "seed {seed}");
            let found = [b"n", b"b"].map(|key| value_on(&cluster, id, key).is_some());
            assert_eq!(found, [true, true], "seed {seed}: acknowledged writes that store 1 has are on store {id}");
        }
    }
}

#[test]
fn a_change_of_members_that_one_of_those_left_has_not_seen_is_done_by_both() {
    for seed in 0..20 {
        let mut cluster = Cluster::new(seed, 5);
        puts(&mut cluster, "a", 3);
        cluster.partition(&[2]);
        cluster.until(20, "a leader of the others", |cluster| cluster.leader().is_some_and(|leader| leader != 2));
        cluster.checker.members_change = true;
        // A lost replica, or one that is on a store which is not lost.
        let gone = if seed % 2 == 0 { 5 } else { 3 };
        while cluster.wait_leader() == gone {
            cluster.node(gone).inbox.push_back(Event::TransferLeader { region: REGION, to: StoreId(1) });
            cluster.run(SECOND);
        }
        cluster.change_surely(MemberChange::Remove(kontiki_raftstore::PeerId(2000 + gone)));
        let put = puts(&mut cluster, "late", 2);
        cluster.until(20, "store 1 has it", |cluster| last_on_disk(cluster, 1) >= put[1].1);
        // Store 2 knows five members. If store 3 is left, those that are left are a majority of these, but only half of
        // the four members that store 1 knows.
        lose(&mut cluster, 1, if gone == 5 { &[3, 4, 5] } else { &[4, 5] });
        recover(&mut cluster, &[1, 2]);
        cluster.put_surely(b"after", b"1");
        assert_equal(&mut cluster, &[1, 2]);
        assert_eq!(cluster.status(1).region.peers.len(), 2, "seed {seed}");
    }
}

#[test]
fn a_lost_store_that_comes_back_gets_no_vote_and_keeps_what_it_has() {
    for seed in 0..10 {
        let mut cluster = Cluster::new(seed, 3);
        puts(&mut cluster, "k", 5);
        let left = lose(&mut cluster, 1, &[2, 3]);
        recover(&mut cluster, &left);
        cluster.put_surely(b"after", b"1");
        let term = cluster.status(1).term;
        cluster.start(2);
        cluster.run(10 * SECOND);
        assert_eq!((cluster.status(1).term, cluster.leader()), (term, Some(1)), "it disturbs nothing");
        assert!(!cluster.status(2).leads);
        // A person may want to read what the cluster lacks.
        assert_eq!(cluster.status(2).region.peers.len(), 3, "it is not notified of its removal, which would end it");
    }
}

#[test]
fn before_a_region_is_recovered_a_lost_store_is_not_listened_to_either() {
    for seed in 0..10 {
        let mut cluster = Cluster::new(seed, 3);
        puts(&mut cluster, "k", 5);
        lose(&mut cluster, 1, &[2, 3]);
        cluster.start(2);
        // No recovery is ordered: the descriptor still names store 2, and is that of store 2.
        cluster.until(20, "store 1 leads", |cluster| cluster.status(1).leads);
        let term = cluster.status(1).term;
        cluster.run(5 * SECOND);
        assert!(cluster.status(1).leads && cluster.status(1).term == term, "seed {seed}");
        assert!(!cluster.status(2).leads, "one of three is no majority");
    }
}

#[test]
fn empty_stores_take_the_places_of_lost_ones() {
    for seed in 0..10 {
        let config = Config { follower_dead_ticks: 20, ..small_config() };
        let mut cluster = Cluster::with_config(seed, 3, config);
        puts(&mut cluster, "k", 12);
        let left = lose(&mut cluster, 1, &[2, 3]);
        recover(&mut cluster, &left);
        for store in [2, 3] {
            let directory = 70 + store;
            cluster.node(store).replace_disk(directory);
            cluster.start(store);
            let peer = Peer { id: replica_id(directory, REGION), store: StoreId(store) };
            cluster.change_surely(MemberChange::AddLearner(peer));
            cluster.until(30, "its data are here", |cluster| cluster.node(store).installs > 0);
            cluster.change_surely(MemberChange::Promote(peer.id));
        }
        cluster.put_surely(b"after", b"1");
        assert_equal(&mut cluster, &[1, 2, 3]);
        cluster.crash(1);
        assert_eq!(cluster.lease_read_surely(b"after"), Some(Bytes::from_static(b"1")));
    }
}

#[test]
fn a_second_recovery_counts_above_the_first() {
    let mut cluster = Cluster::new(3, 5);
    puts(&mut cluster, "k", 5);
    let left = lose(&mut cluster, 1, &[3, 4, 5]);
    recover(&mut cluster, &left);
    cluster.put_surely(b"between", b"1");
    assert_equal(&mut cluster, &left);
    let left = lose(&mut cluster, 2, &[2, 3, 4, 5]);
    recover(&mut cluster, &left);
    let region = cluster.status(1).region;
    assert_eq!((region.epoch.conf_version >> 32, region.peers.len()), (2, 1));
    assert!(value_on(&cluster, 1, b"between").is_some());
    assert_eq!(EPOCH.version, region.epoch.version);
}
