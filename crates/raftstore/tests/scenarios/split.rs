//! A region becomes several: the situations of docs/internals/split.md, and random ones from seeds.

use super::members::old_replica;
use crate::cluster::check::{entries_of, region_state};
use crate::cluster::node::{Job, Node};
use crate::cluster::{Cluster, EPOCH, NetworkFaults, REGION, families, small_config};
use kontiki_engine::{StreamId, WriteBatch};
use kontiki_raftstore::command::{Action, Command, SplitChild};
use kontiki_raftstore::{
    Answer, Config, Event, MemberChange, Peer, ReadRefusal, Region, RegionError, RegionId, StoreId, meta, replica_id,
};
use std::collections::BTreeSet;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const LEFT: RegionId = REGION;
const RIGHT: RegionId = RegionId(9);

/// Followers that are away soon need snapshots.
pub fn config() -> Config {
    Config { follower_dead_ticks: 15, ..small_config() }
}

/// A cluster with twenty keys, `k00` to `k19`.
pub fn with_keys(seed: u64) -> Cluster {
    with_keys_and(seed, config())
}

pub fn with_keys_and(seed: u64, config: Config) -> Cluster {
    let mut cluster = Cluster::with_config(seed, 3, config);
    for i in 0..20u32 {
        cluster.put_surely(format!("k{i:02}").as_bytes(), &i.to_le_bytes());
    }
    cluster
}

/// All regions, on every store that is up, are in line with each other.
pub fn tile(cluster: &Cluster) {
    for node in cluster.nodes.values().filter(|node| node.is_up()) {
        let mut regions = meta::regions(families::META, &node.visible).expect("readable");
        regions.sort_by(|a, b| a.start_key.cmp(&b.start_key));
        assert!(regions.windows(2).all(|pair| pair[0].end_key == pair[1].start_key), "{regions:?}");
        assert_eq!(regions.last().expect("some").end_key.as_ref(), b"y");
    }
}

fn region_on(cluster: &Cluster, region: RegionId, store: u64) -> Option<Region> {
    let node = &cluster.nodes[&StoreId(store)];
    meta::region(families::META, &node.visible, region).expect("readable")
}

#[test]
fn a_split_makes_two_regions_that_serve_at_once() {
    for seed in 0..10 {
        let mut cluster = with_keys(seed);
        let leader = cluster.wait_leader();
        let before = cluster.region_at(b"k");
        let ticket = cluster.split(leader, &before, &[(RIGHT, b"k10")]);
        cluster.until(10, "it is applied", |cluster| cluster.answers.contains_key(&ticket));
        let applied_at = cluster.now;
        assert!(matches!(cluster.answers[&ticket], Answer::Ok { .. }), "{:?}", cluster.answers[&ticket]);
        cluster.until(10, "the new region has a leader", |cluster| cluster.leader_of(RIGHT).is_some());
        let waited = cluster.now - applied_at;
        assert!(waited < Duration::from_millis(500), "seed {seed}: less than an election timeout, but {waited:?}");
        assert_eq!(cluster.leader_of(RIGHT), Some(leader), "on the store of the parent's leader");
        cluster.until(10, "all have it", |cluster| (1..=3).all(|id| region_on(cluster, RIGHT, id).is_some()));
        tile(&cluster);
        for (key, region) in [(b"k05", LEFT), (b"k10", RIGHT), (b"k19", RIGHT)] {
            let at = cluster.region_at(key);
            assert_eq!((at.id, at.epoch.version), (region, before.epoch.version + 1));
            let value: u32 = String::from_utf8_lossy(&key[1..]).parse().expect("a number");
            let read = cluster.lease_read_in(leader, region, at.epoch, key).expect("a lease");
            assert_eq!(read.expect("the key is there"), value.to_le_bytes().to_vec());
            cluster.put_anywhere(key, b"new");
        }
        cluster.settle();
    }
}

/// The leader is asked to hand over while it splits its region: the new region has a leader after one election, or
/// there is no split.
#[test]
fn split_transfer() {
    let mut moved = 0;
    for seed in 0..30 {
        let mut cluster = with_keys(seed);
        let leader = cluster.wait_leader();
        let before = cluster.region_at(b"k");
        let ticket = cluster.split(leader, &before, &[(RIGHT, b"k10")]);
        for _ in 0..seed % 6 {
            cluster.step();
        }
        let transfer = Event::TransferLeader { region: LEFT, to: StoreId(leader % 3 + 1) };
        cluster.node(leader).inbox.push_back(transfer);
        cluster.until(10, "it is applied or refused", |cluster| cluster.answers.contains_key(&ticket));
        let is_split = |cluster: &Cluster| cluster.region_at(b"k10").id == RIGHT;
        // A split whose leader is gone may be committed by the next one.
        let until = cluster.now + SECOND;
        while cluster.now < until && !is_split(&cluster) {
            cluster.step();
        }
        if is_split(&cluster) {
            cluster.until(4, "the new region has a leader after one election", |cluster| {
                cluster.leader_of(RIGHT).is_some()
            });
            moved += u32::from(cluster.leader_of(LEFT) != Some(leader));
        }
        cluster.settle();
        tile(&cluster);
    }
    assert!(moved > 5, "in {moved} runs both happened");
}

/// Scenario split-tombstone: a store applies the split when the new region's replica there was removed already. What
/// the split creates ends, and stays ended.
#[test]
fn a_replica_that_a_late_split_creates_after_its_removal_ends() {
    let mut created = 0;
    for seed in 0..10 {
        let mut cluster = with_keys(2_000 + seed);
        cluster.checker.members_change = true;
        let leader = cluster.wait_leader();
        let late = leader % 3 + 1;
        // It has the split in its log, and applies it late.
        cluster.node(late).apply_delay = Duration::from_secs(4 + seed);
        cluster.split_surely(&[(RIGHT, b"k10")]);
        cluster.until(10, "the new region has a leader", |cluster| cluster.leader_of(RIGHT).is_some());
        let child = cluster.region_at(b"k12");
        let removed = child.peer_on(StoreId(late)).expect("made there too").id;
        cluster.until(20, "it is removed", |cluster| {
            let region = cluster.region_at(b"k12");
            if let Some(leader) = cluster.leader_of(RIGHT)
                && region.peer(removed).is_some()
            {
                let action = Action::ChangeMembers(MemberChange::Remove(removed));
                cluster.command(leader, RIGHT, Command { epoch: region.epoch, action });
                cluster.run(Duration::from_millis(200));
            }
            cluster.region_at(b"k12").peer(removed).is_none()
        });
        let is_late = cluster.replica_of(RIGHT, late).is_none();
        cluster.node(late).apply_delay = Duration::ZERO;
        for _ in 0..1_500 {
            cluster.step();
            created += usize::from(is_late && cluster.replica_of(RIGHT, late).is_some());
        }
        let is_gone = |cluster: &mut Cluster| {
            let data = entries_of(&cluster.nodes[&StoreId(late)].visible, &child);
            cluster.replica_of(RIGHT, late).is_none() && region_on(cluster, RIGHT, late).is_none() && data.is_empty()
        };
        cluster.until(30, "nothing of it is left", is_gone);
        cluster.node(late).flush();
        cluster.crash(late);
        cluster.start(late);
        cluster.put_anywhere(b"k12", b"after");
        cluster.put_anywhere(b"k05", b"after");
        cluster.run(3 * SECOND);
        assert!(is_gone(&mut cluster), "seed {seed}: it stays ended");
        assert!(cluster.nodes[&StoreId(late)].is_up());
    }
    assert!(created > 10, "the split created it after its removal, in {created} steps");
}

#[test]
fn a_split_at_ten_keys_makes_ten_regions() {
    let mut cluster = with_keys(20);
    let keys: Vec<String> = (1..=10).map(|i| format!("k{i:02}")).collect();
    let children: Vec<(RegionId, &[u8])> = (100..).map(RegionId).zip(keys.iter().map(String::as_bytes)).collect();
    cluster.split_surely(&children);
    cluster.until(20, "all have leaders", |cluster| {
        children.iter().all(|(region, _)| cluster.leader_of(*region).is_some())
    });
    assert_eq!(cluster.region_at(b"k10").epoch.version, EPOCH.version + 10);
    for key in &keys {
        cluster.put_anywhere(key.as_bytes(), b"new");
    }
    cluster.settle();
    tile(&cluster);
}

#[test]
fn requests_of_the_epoch_before_are_refused() {
    let mut cluster = with_keys(21);
    cluster.split_surely(&[(RIGHT, b"k10")]);
    cluster.until(10, "both have leaders", |cluster| [LEFT, RIGHT].iter().all(|id| cluster.leader_of(*id).is_some()));
    let leader = cluster.wait_leader();
    let ticket = cluster.put(leader, b"k15", b"of the parent");
    let barrier = cluster.barrier(leader);
    cluster.until(10, "an answer", |cluster| cluster.answers.contains_key(&ticket));
    cluster.until(10, "an answer", |cluster| cluster.answers.contains_key(&barrier));
    for ticket in [ticket, barrier] {
        let Answer::Refused(RegionError::EpochNotMatch { current }) = &cluster.answers[&ticket] else {
            panic!("{:?}", cluster.answers[&ticket])
        };
        assert_eq!(current[0].end_key.as_ref(), b"k10");
    }
    let read = cluster.lease_read(leader, b"k15");
    assert!(matches!(read, Err(ReadRefusal::Region(RegionError::EpochNotMatch { .. }))), "{read:?}");
}

/// Writes that are in the log behind a split, and so had been admitted before it, have no effect.
#[test]
fn writes_behind_a_split_are_refused_on_all_replicas() {
    for seed in 30..40 {
        let mut cluster = with_keys(seed);
        let leader = cluster.wait_leader();
        let before = cluster.region_at(b"k");
        let split = cluster.split(leader, &before, &[(RIGHT, b"k10")]);
        let behind = [cluster.put(leader, b"k05", b"late"), cluster.put(leader, b"k15", b"late")];
        cluster.until(10, "answers", |cluster| behind.iter().all(|ticket| cluster.answers.contains_key(ticket)));
        assert!(matches!(cluster.answers[&split], Answer::Ok { .. }));
        for ticket in behind {
            let Answer::Refused(RegionError::EpochNotMatch { .. }) = &cluster.answers[&ticket] else {
                panic!("{:?}", cluster.answers[&ticket])
            };
        }
        cluster.settle();
        let entries = entries_of(&cluster.nodes[&StoreId(1)].visible, &before);
        assert!(entries.iter().all(|(_, _, value)| value.as_ref() != b"late"));
    }
}

#[test]
fn a_second_split_of_the_same_version_is_refused() {
    let mut cluster = with_keys(41);
    let leader = cluster.wait_leader();
    let before = cluster.region_at(b"k");
    let first = cluster.split(leader, &before, &[(RIGHT, b"k10")]);
    let second = cluster.split(leader, &before, &[(RegionId(10), b"k05")]);
    cluster.until(10, "answers", |cluster| [first, second].iter().all(|ticket| cluster.answers.contains_key(ticket)));
    assert!(matches!(cluster.answers[&first], Answer::Ok { .. }), "{:?}", cluster.answers[&first]);
    let refused = &cluster.answers[&second];
    assert!(matches!(refused, Answer::Refused(RegionError::EpochNotMatch { .. })), "{refused:?}");
    cluster.settle();
    assert_eq!(cluster.regions(), BTreeSet::from([LEFT, RIGHT]));
}

#[test]
fn a_split_that_cannot_be_made_is_refused_with_the_reason() {
    let mut cluster = with_keys(42);
    let leader = cluster.wait_leader();
    let before = cluster.region_at(b"k");
    let outside: &[(RegionId, &[u8])] = &[(RIGHT, b"z")];
    let descending: &[(RegionId, &[u8])] = &[(RIGHT, b"k10"), (RegionId(10), b"k05")];
    let own: &[(RegionId, &[u8])] = &[(LEFT, b"k10")];
    for children in [outside, descending, own, &[]] {
        let ticket = cluster.split(leader, &before, children);
        cluster.until(10, "an answer", |cluster| cluster.answers.contains_key(&ticket));
        let answer = &cluster.answers[&ticket];
        assert!(matches!(answer, Answer::Refused(RegionError::Impossible { .. })), "{answer:?}");
    }
    let follower = leader % 3 + 1;
    let ticket = cluster.split(follower, &before, &[(RIGHT, b"k10")]);
    cluster.until(10, "an answer", |cluster| cluster.answers.contains_key(&ticket));
    assert!(matches!(cluster.answers[&ticket], Answer::Refused(RegionError::NotLeader { .. })));
    cluster.settle();
    assert_eq!(cluster.regions(), BTreeSet::from([LEFT]));
}

/// Of a split and a change of the members that were proposed by the same descriptor, one is refused.
#[test]
fn a_split_and_a_change_of_the_members_exclude_each_other() {
    for (seed, split_first) in [(43, true), (44, false)] {
        let mut cluster = with_keys(seed);
        cluster.checker.members_change = true;
        let leader = cluster.wait_leader();
        let before = cluster.region_at(b"k");
        let other = before.peers.iter().find(|peer| peer.store.0 != leader).expect("a follower").id;
        let change = |cluster: &mut Cluster| cluster.change(leader, before.epoch, MemberChange::Remove(other));
        let split = |cluster: &mut Cluster| cluster.split(leader, &before, &[(RIGHT, b"k10")]);
        let (first, second) = match split_first {
            true => (split(&mut cluster), change(&mut cluster)),
            false => (change(&mut cluster), split(&mut cluster)),
        };
        cluster.until(10, "answers", |c| [first, second].iter().all(|ticket| c.answers.contains_key(ticket)));
        assert!(matches!(cluster.answers[&first], Answer::Ok { .. }), "{:?}", cluster.answers[&first]);
        assert!(matches!(cluster.answers[&second], Answer::Refused(_)), "{:?}", cluster.answers[&second]);
    }
}

/// The parent's leader applies a split seconds later than others. Returns how often the new region was led elsewhere,
/// and the parent read.
pub fn leader_applies_late(seed: u64, config: Config) -> (usize, usize) {
    let (mut elsewhere, mut reads) = (0, 0);
    let mut cluster = with_keys_and(seed, config);
    let leader = cluster.wait_leader();
    let before = cluster.region_at(b"k");
    cluster.node(leader).apply_delay = 5 * SECOND;
    cluster.split(leader, &before, &[(RIGHT, b"k10")]);
    let end = cluster.now + 4 * SECOND;
    while cluster.now < end {
        cluster.step();
        if let Some(other) = cluster.leader_of(RIGHT).filter(|other| *other != leader) {
            let region = cluster.region_at(b"k15");
            let mut batch = WriteBatch::new();
            batch.put(families::DEFAULT, b"k15", cluster.rng.next_u64().to_le_bytes());
            cluster.propose_in(other, RIGHT, region.epoch, batch);
            elsewhere += 1;
        }
        // The checker compares it with what was acknowledged elsewhere.
        reads += usize::from(cluster.lease_read(leader, b"k15").is_ok());
        cluster.barrier(leader);
    }
    cluster.settle();
    (elsewhere, reads)
}

/// While the parent's leader has not applied a split, others may have, and a new region may have a leader among them.
#[test]
fn the_parent_serves_nothing_of_what_it_may_have_lost() {
    let runs = (50..90).map(|seed| leader_applies_late(seed, config()));
    let elsewhere: usize = runs.map(|(elsewhere, _)| elsewhere).sum();
    assert!(elsewhere > 100, "the new region was led elsewhere: {elsewhere}");
}

fn crash_around(seed: u64, steps: u64, flush_every: Option<u64>) -> (bool, bool) {
    let mut cluster = with_keys(seed);
    let leader = cluster.wait_leader();
    let before = cluster.region_at(b"k");
    cluster.split(leader, &before, &[(RIGHT, b"k10"), (RegionId(10), b"k15")]);
    let crashed = 1 + seed % 3;
    for step in 0..steps {
        cluster.step();
        if flush_every.is_some_and(|every| step.is_multiple_of(every)) {
            cluster.node(crashed).flush();
        }
    }
    cluster.crash(crashed);
    let disk = &cluster.node(crashed).disk;
    let log = disk.streams.contains_key(&StreamId(RIGHT.0));
    let descriptor = meta::region(families::META, &disk.tables, RIGHT).expect("readable").is_some();
    assert!(log || !descriptor, "the log is durable before the descriptor is applied");
    // The others go on meanwhile, so votes and entries of the new regions are durable on some.
    cluster.split_surely(&[(RIGHT, b"k10"), (RegionId(10), b"k15")]);
    cluster.put_anywhere(b"k12", b"new");
    cluster.start(crashed);
    for (key, seen) in [(b"k05", LEFT), (b"k12", RIGHT), (b"k17", RegionId(10))] {
        assert_eq!(cluster.region_at(key).id, seen);
        cluster.put_anywhere(key, b"newer");
    }
    cluster.settle();
    tile(&cluster);
    (log, descriptor)
}

#[test]
fn a_crash_at_any_step_of_a_split_leaves_all_or_nothing() {
    let (mut logs_alone, mut wholes) = (0, 0);
    for seed in 0..45 {
        let (log, descriptor) = crash_around(1_000 + seed, seed, (seed % 4 == 0).then_some(3));
        logs_alone += usize::from(log && !descriptor);
        wholes += usize::from(log && descriptor);
    }
    assert!(logs_alone > 5 && wholes > 3, "the runs cover both: {logs_alone}, {wholes}");
}

/// A region that a split made is split again, and nothing of it is in tables: the second one's log waits for a region
/// whose own log waits.
#[test]
fn a_crash_after_a_split_of_a_new_region() {
    for seed in 1_100..1_110 {
        let mut cluster = with_keys(seed);
        cluster.split_surely(&[(RIGHT, b"k10")]);
        cluster.until(10, "it has a leader", |cluster| cluster.leader_of(RIGHT).is_some());
        cluster.split_surely(&[(RegionId(10), b"k15")]);
        cluster.until(10, "it has a leader", |cluster| cluster.leader_of(RegionId(10)).is_some());
        cluster.put_anywhere(b"k17", b"new");
        cluster.run(SECOND);
        for store in 1..=3 {
            cluster.crash(store);
        }
        let disk = &cluster.node(1).disk;
        assert!(disk.streams.contains_key(&StreamId(10)), "its log is durable");
        assert!(meta::region(families::META, &disk.tables, RIGHT).expect("readable").is_none());
        for store in 1..=3 {
            cluster.start(store);
        }
        cluster.put_anywhere(b"k12", b"new");
        cluster.put_anywhere(b"k17", b"newer");
        cluster.settle();
        tile(&cluster);
    }
}

/// A store that was away gets a snapshot of the parent that already lacks the range, and the new regions by theirs.
#[test]
fn a_store_that_was_away_during_a_split_gets_all_regions() {
    let mut cleared = 0;
    for seed in 1_200..1_210 {
        let mut cluster = with_keys(seed);
        let away = cluster.wait_leader() % 3 + 1;
        cluster.crash(away);
        for i in 0..10u32 {
            cluster.put_surely(b"k12", &i.to_le_bytes());
        }
        cluster.split_surely(&[(RIGHT, b"k10")]);
        cluster.split_surely(&[(RegionId(10), b"k15")]);
        for i in 0..60u32 {
            for key in [&b"k03"[..], b"k12", b"k17"] {
                cluster.put_anywhere(key, &i.to_le_bytes());
            }
            (1..=3).filter(|store| *store != away).for_each(|store| cluster.node(store).flush());
        }
        cluster.run(10 * SECOND);
        cluster.start(away);
        // The parent first: then nothing of the lost range is left.
        cluster.until(60, "the parent is shrunk", |cluster| {
            region_on(cluster, LEFT, away).is_some_and(|region| region.end_key.as_ref() == b"k10")
        });
        if region_on(&cluster, RIGHT, away).is_none() {
            let left = region_state(&cluster.node(away).visible);
            assert!(left.iter().all(|(_, key, _)| key.as_slice() < b"k10".as_slice()), "seed {seed}: {left:?}");
            cleared += 1;
        }
        cluster.until(60, "it has them", |cluster| {
            [RIGHT, RegionId(10)].iter().all(|region| region_on(cluster, *region, away).is_some())
        });
        cluster.settle();
        tile(&cluster);
        assert!(cluster.node(away).installs > 0, "seed {seed}: by a snapshot");
    }
    assert!(cleared > 3, "the runs see the moment between both: {cleared}");
}

/// A new region's leader finds a store that has not applied the split: it is not asked for a snapshot.
#[test]
fn a_store_that_applies_a_split_late_needs_no_snapshot() {
    for seed in 1_300..1_320 {
        let mut cluster = with_keys(seed);
        let late = cluster.wait_leader() % 3 + 1;
        cluster.node(late).apply_delay = 3 * SECOND;
        cluster.split_surely(&[(RIGHT, b"k10")]);
        cluster.put_anywhere(b"k15", b"new");
        cluster.run(2 * SECOND);
        assert!(region_on(&cluster, RIGHT, late).is_none(), "it is late");
        cluster.run(3 * SECOND);
        cluster.settle();
        assert_eq!(cluster.node(late).installs, 0, "seed {seed}");
        let sends = |node: &Node| node.jobs.iter().any(|(_, job)| matches!(job, Job::Send { .. }));
        assert!(!cluster.nodes.values().any(sends));
    }
}

/// A region that a split made takes a snapshot before tables hold its descriptor: a restart needs its log's word that
/// the split will be applied again.
#[test]
fn a_new_region_that_takes_a_snapshot_survives_a_crash_before_a_flush() {
    let mut installed = 0;
    for seed in 1_350..1_370 {
        let mut cluster = with_keys(seed);
        let late = cluster.wait_leader() % 3 + 1;
        cluster.node(late).apply_delay = 3 * SECOND;
        cluster.node(late).installs_tables = false; // Before tables are taken in, everything is flushed.
        cluster.split_surely(&[(RIGHT, b"k10")]);
        let others: Vec<u64> = (1..=3).filter(|store| *store != late).collect();
        for i in 0..30u32 {
            cluster.put_anywhere(b"k15", &i.to_le_bytes());
            others.iter().for_each(|store| cluster.node(*store).flush());
        }
        cluster.run(4 * SECOND);
        cluster.node(late).release_applies();
        cluster.run(3 * SECOND);
        let flushed = meta::region(families::META, &cluster.node(late).disk.tables, RIGHT).expect("readable");
        installed += usize::from(flushed.is_none() && cluster.node(late).installs > 0);
        // A change of the term makes it write its state.
        let leader = cluster.leader_of(RIGHT).expect("it has one");
        let to = StoreId(*others.iter().find(|store| **store != leader).unwrap_or(&late));
        cluster.node(leader).inbox.push_back(Event::TransferLeader { region: RIGHT, to });
        cluster.run(2 * SECOND);
        cluster.crash(late);
        cluster.start(late);
        cluster.put_anywhere(b"k15", b"after");
        cluster.settle();
        tile(&cluster);
    }
    assert!(installed > 3, "the runs cover it: {installed}");
}

/// A view that was taken for a follower before a split has the range of the new regions.
#[test]
fn a_snapshot_from_before_a_split_takes_no_range_of_the_new_region() {
    for seed in 1_400..1_410 {
        let mut cluster = with_keys(seed);
        let away = cluster.wait_leader() % 3 + 1;
        cluster.crash(away);
        for i in 0..40u32 {
            cluster.put_surely(b"k12", &i.to_le_bytes());
            (1..=3).filter(|store| *store != away).for_each(|store| cluster.node(store).flush());
        }
        cluster.run(10 * SECOND);
        cluster.nodes.values_mut().for_each(|node| node.send_delay_ms_max = 3_000);
        cluster.start(away);
        cluster.until(20, "a snapshot is sent", |cluster| {
            let jobs = cluster.nodes.values().flat_map(|node| &node.jobs);
            jobs.into_iter().any(|(_, job)| matches!(job, Job::Send { .. }))
        });
        cluster.split_surely(&[(RIGHT, b"k10")]);
        for i in 0..20u32 {
            cluster.put_anywhere(b"k12", &i.to_le_bytes());
            cluster.put_anywhere(b"k03", &i.to_le_bytes());
            (1..=3).filter(|store| *store != away).for_each(|store| cluster.node(store).flush());
        }
        cluster.until(60, "it has both", |cluster| region_on(cluster, RIGHT, away).is_some());
        cluster.settle();
        tile(&cluster);
    }
}

/// A replica that is removed after it has split its region, before tables hold that: the new region does not lose the
/// log that would make it again.
#[test]
fn a_parent_that_is_removed_at_once_leaves_its_children_whole() {
    for seed in 1_500..1_520 {
        let mut cluster = with_keys(seed);
        cluster.checker.members_change = true;
        let leader = cluster.wait_leader();
        let removed = leader % 3 + 1;
        cluster.split_surely(&[(RIGHT, b"k10")]);
        let old = old_replica(&cluster, leader, removed);
        cluster.change_surely(MemberChange::Remove(old));
        for _ in 0..seed % 8 {
            cluster.step();
        }
        cluster.crash(removed);
        cluster.start(removed);
        cluster.until(20, "the parent is gone", |cluster| cluster.replica(removed).is_none());
        cluster.until(20, "the new region is there", |cluster| cluster.replica_of(RIGHT, removed).is_some());
        cluster.put_anywhere(b"k15", b"new");
        cluster.put_anywhere(b"k05", b"new");
        let disk = &cluster.nodes[&StoreId(removed)].disk;
        assert!(meta::region(families::META, &disk.tables, RIGHT).expect("readable").is_some());
    }
}

/// A replacement of a lost disk gets a region that a split made.
#[test]
fn a_lost_disk_gets_the_new_regions_again() {
    for seed in 1_600..1_605 {
        let mut cluster = with_keys(seed);
        cluster.checker.members_change = true;
        cluster.split_surely(&[(RIGHT, b"k10")]);
        cluster.put_anywhere(b"k15", b"new");
        let lost = cluster.leader_of(RIGHT).expect("it has one") % 3 + 1;
        let directory = 4_711;
        cluster.crash(lost);
        cluster.node(lost).replace_disk(directory);
        cluster.start(lost);
        for region in [LEFT, RIGHT] {
            for is_there in [false, true] {
                let is_done = |cluster: &Cluster| {
                    let leader = cluster.leader_of(region)?;
                    let now = cluster.replica_of(region, leader)?.region;
                    let new = replica_id(directory, region);
                    Some(
                        now.peer_on(StoreId(lost)).is_some_and(|peer| peer.id == new) == is_there
                            && (is_there || now.peer_on(StoreId(lost)).is_none()),
                    )
                };
                cluster.until(60, "the member is replaced", |cluster| {
                    if is_done(cluster) == Some(true) {
                        return true;
                    }
                    let Some(leader) = cluster.leader_of(region) else { return false };
                    let now = cluster.replica_of(region, leader).expect("it leads").region;
                    let new = Peer { id: replica_id(directory, region), store: StoreId(lost) };
                    let change = match now.peer_on(StoreId(lost)) {
                        Some(old) if old != new => MemberChange::Remove(old.id),
                        _ => MemberChange::Add(new),
                    };
                    let command = Command { epoch: now.epoch, action: Action::ChangeMembers(change) };
                    cluster.command(leader, region, command);
                    false
                });
            }
        }
        cluster.until(60, "it has both", |cluster| {
            [LEFT, RIGHT].iter().all(|region| region_on(cluster, *region, lost).is_some())
        });
        cluster.settle();
        tile(&cluster);
    }
}

/// One thing that happens to a random cluster.
pub fn disturb(cluster: &mut Cluster, next_region: &mut u64) {
    let id = 1 + cluster.rng.below(3);
    let up = cluster.nodes.values().filter(|node| node.is_up()).count();
    match cluster.rng.below(12) {
        0 if cluster.node(id).is_up() && up > 2 => cluster.crash(id),
        0..=2 => {
            if let Some(id) = (1..=3).find(|id| !cluster.nodes[&StoreId(*id)].is_up()) {
                cluster.start(id);
            }
        }
        3 => cluster.partition(&[id]),
        4 => cluster.heal(),
        5 => {
            let stall = Duration::from_millis(cluster.rng.below(2_000));
            cluster.node(id).disk_stalled_until = cluster.now + stall;
        }
        6 => {
            let (loss, duplication) = (cluster.rng.below(20), cluster.rng.below(20));
            let delay_ms_max = 1 + cluster.rng.below(300);
            cluster.network_faults = NetworkFaults { loss, duplication, delay_ms_max, ..NetworkFaults::default() };
        }
        7 => {
            cluster.node(id).apply_delay = Duration::from_millis(cluster.rng.below(400));
            cluster.node(id).job_delay_ms_max = 1 << cluster.rng.below(12);
        }
        8 => {
            let regions: Vec<RegionId> = cluster.regions().into_iter().collect();
            let region = *cluster.rng.pick(&regions).expect("some");
            if cluster.node(id).is_up() {
                let to = StoreId(1 + cluster.rng.below(3));
                cluster.node(id).inbox.push_back(Event::TransferLeader { region, to });
            }
        }
        _ if *next_region < 120 => {
            let key = [b'a' + cluster.rng.below(24) as u8, b'a' + cluster.rng.below(24) as u8];
            let region = cluster.region_at(&key);
            // Mostly at the leader, if there is one.
            let at = cluster.leader_of(region.id).filter(|_| cluster.rng.chance(9, 10)).unwrap_or(id);
            if region.start_key.as_ref() != key && cluster.node(at).is_up() {
                *next_region += 1;
                cluster.split(at, &region, &[(RegionId(*next_region), &key)]);
            }
        }
        _ => {}
    }
}

fn work(cluster: &mut Cluster) {
    let id = 1 + cluster.rng.below(3);
    if !cluster.node(id).is_up() {
        return;
    }
    let key = [b'a' + cluster.rng.below(24) as u8, b'a' + cluster.rng.below(24) as u8];
    // Sometimes by an old descriptor, as a client would.
    let known = cluster.nodes[&StoreId(id)].readers.regions().into_iter().map(|(region, _)| region);
    let known: Vec<_> = known.filter(|region| region.contains(&key)).collect();
    let region = match cluster.rng.pick(&known) {
        Some(region) if cluster.rng.chance(2, 3) => Region::clone(region),
        _ => cluster.region_at(&key),
    };
    match cluster.rng.below(10) {
        0..=4 => {
            let value = cluster.rng.next_u64().to_le_bytes();
            let mut batch = WriteBatch::new();
            batch.put(families::DEFAULT, key, value);
            cluster.propose_in(id, region.id, region.epoch, batch);
        }
        5 => {
            cluster.barrier_in(id, region.id, region.epoch);
        }
        6 if cluster.rng.chance(1, 20) => cluster.node(id).flush(),
        _ => {
            let read = cluster.lease_read_in(id, region.id, region.epoch, &key);
            if read == Err(ReadRefusal::NoLease) {
                cluster.barrier_in(id, region.id, region.epoch);
            }
        }
    }
}

/// Random splits under faults, to the end.
pub fn run(seed: u64, config: Config) -> Cluster {
    run_with(5_000 + seed, config, 12 * SECOND, 40, disturb)
}

/// Random work, and on average in one step of so many a disturbance, to the end.
pub fn run_with(
    seed: u64,
    config: Config,
    duration: Duration,
    disturbed_one_in: u64,
    disturb: impl Fn(&mut Cluster, &mut u64),
) -> Cluster {
    run_working(seed, config, duration, disturbed_one_in, disturb, &mut work)
}

/// The same, with other work.
pub fn run_working(
    seed: u64,
    config: Config,
    duration: Duration,
    disturbed_one_in: u64,
    disturb: impl Fn(&mut Cluster, &mut u64),
    work: &mut dyn FnMut(&mut Cluster),
) -> Cluster {
    let mut cluster = Cluster::with_config(seed, 3, config);
    let mut next_region = 99;
    while cluster.now < duration {
        if cluster.rng.chance(1, disturbed_one_in) {
            disturb(&mut cluster, &mut next_region);
        }
        for _ in 0..cluster.rng.below(4) {
            work(&mut cluster);
        }
        cluster.step();
    }
    cluster.settle();
    tile(&cluster);
    cluster
}

#[test]
fn random_splits_and_faults_from_100_seeds() {
    let (mut lease_reads, mut regions, mut installs) = (0, 0, 0);
    for seed in 0..100 {
        let cluster = run(seed, config());
        lease_reads += cluster.checker.lease_reads;
        regions += cluster.regions().len();
        installs += cluster.nodes.values().map(|node| node.installs).sum::<usize>();
    }
    assert!(
        lease_reads > 10_000 && regions > 400 && installs > 5,
        "the runs cover enough: {lease_reads} reads, {regions} regions, {installs} installs"
    );
}

/// A child's replica identities, as the driver chooses them.
#[test]
fn a_split_names_a_replica_for_each_store() {
    let mut cluster = with_keys(45);
    let leader = cluster.wait_leader();
    let region = cluster.region_at(b"k");
    let child = SplitChild { start_key: "k10".into(), id: RIGHT, peers: vec![replica_id(1, RIGHT)] };
    let command = Command { epoch: region.epoch, action: Action::Split(vec![child]) };
    let ticket = cluster.command(leader, REGION, command);
    cluster.until(10, "an answer", |cluster| cluster.answers.contains_key(&ticket));
    assert!(matches!(cluster.answers[&ticket], Answer::Refused(RegionError::Impossible { .. })));
}
