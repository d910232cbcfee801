//! A region takes over the range of its neighbour: the situations of docs/internals/merge.md, and random ones from
//! seeds.

use super::split::{self, tile};
use crate::cluster::check::region_state;
use crate::cluster::node::Job;
use crate::cluster::{Cluster, REGION, families};
use kontiki_engine::{StreamId, WriteBatch};
use kontiki_raftstore::{
    Answer, Config, Event, MemberChange, Peer, ReadRefusal, Region, RegionError, RegionId, StoreId, meta,
    next_replica_id,
};
use std::collections::BTreeSet;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const LEFT: RegionId = REGION;
const RIGHT: RegionId = RegionId(9);
const LAST: RegionId = RegionId(10);

/// Three regions, `LEFT` to `k10`, `RIGHT` to `k15`, and `LAST`, with twenty keys.
fn with_regions(seed: u64) -> Cluster {
    with_regions_and(seed, split::config())
}

fn with_regions_and(seed: u64, config: Config) -> Cluster {
    let mut cluster = split::with_keys_and(seed, config);
    cluster.split_surely(&[(RIGHT, b"k10"), (LAST, b"k15")]);
    cluster.until(20, "all have leaders", |cluster| {
        [LEFT, RIGHT, LAST].iter().all(|region| cluster.leader_of(*region).is_some())
    });
    cluster.run(SECOND);
    cluster
}

/// Every key has the value that was written last.
fn has_all_keys(cluster: &mut Cluster) {
    for i in 0..20u32 {
        let key = format!("k{i:02}").into_bytes();
        let mut read = None;
        // The leader may not have applied yet what another store has.
        cluster.until(20, "a read", |cluster| {
            let region = cluster.region_at(&key);
            let leader = cluster.leader_of(region.id);
            read = leader.and_then(|leader| cluster.lease_read_in(leader, region.id, region.epoch, &key).ok());
            read.is_some()
        });
        assert_eq!(read.flatten().as_deref(), Some(&i.to_le_bytes()[..]), "key {i}");
    }
}

#[test]
fn a_region_takes_over_the_range_of_its_neighbour() {
    for seed in 0..10 {
        let mut cluster = with_regions(seed);
        let (left, right) = (cluster.region_at(b"k05"), cluster.region_at(b"k12"));
        // Into the one before it, and into the one behind it.
        cluster.merge_surely(b"k12", b"k05");
        let merged = cluster.region_at(b"k12");
        assert_eq!((merged.id, &merged.start_key, &merged.end_key), (LEFT, &left.start_key, &right.end_key));
        assert!(merged.epoch.version > left.epoch.version.max(right.epoch.version));
        cluster.merge_surely(b"k05", b"k17");
        assert_eq!(cluster.region_at(b"k05").id, LAST);
        has_all_keys(&mut cluster);
        for key in [b"k05", b"k12", b"k17"] {
            cluster.put_anywhere(key, b"new");
        }
        cluster.settle();
        tile(&cluster);
        assert_eq!(cluster.regions(), BTreeSet::from([LAST]));
        (1..=3).for_each(|store| cluster.node(store).flush());
        cluster.run(SECOND);
        for node in cluster.nodes.values() {
            let streams: Vec<_> = node.disk.streams.keys().copied().collect();
            assert_eq!(streams, [StreamId(LAST.0)], "the logs of the others are gone");
        }
        // All of it is there after a restart.
        (1..=3).for_each(|store| cluster.crash(store));
        (1..=3).for_each(|store| cluster.start(store));
        cluster.put_anywhere(b"k12", b"newer");
        cluster.settle();
        tile(&cluster);
    }
}

#[test]
fn the_leaders_of_both_may_be_on_different_stores() {
    for seed in 20..30 {
        let mut cluster = with_regions(seed);
        let leader = cluster.leader_of(LEFT).expect("a leader");
        let other = leader % 3 + 1;
        cluster.node(leader).inbox.push_back(Event::TransferLeader { region: RIGHT, to: StoreId(other) });
        cluster.until(10, "the transfer", |cluster| cluster.leader_of(RIGHT) == Some(other));
        cluster.merge_surely(b"k12", b"k05");
        has_all_keys(&mut cluster);
        cluster.settle();
        tile(&cluster);
    }
}

/// The target changes before it gets the commit: it will not take the range, and the source goes on.
#[test]
fn a_merge_whose_target_changes_is_rolled_back() {
    let mut rolled_back = 0;
    for seed in 40..60 {
        let mut cluster = with_regions(seed);
        let (source, target) = (cluster.region_at(b"k12"), cluster.region_at(b"k05"));
        let (at, target_at) = (cluster.leader_of(RIGHT).expect("one"), cluster.leader_of(LEFT).expect("one"));
        cluster.merge(at, &source, &target);
        cluster.split(target_at, &target, &[(RegionId(20), b"k02")]);
        cluster.run(3 * SECOND);
        cluster.until(20, "no region is frozen", |cluster| {
            let stores = cluster.nodes.values().filter_map(|node| node.store.as_ref());
            stores.flat_map(|store| store.status()).all(|status| status.region.merging().is_none())
        });
        let now = cluster.region_at(b"k12");
        rolled_back += usize::from(now.id == RIGHT && now.epoch.version == source.epoch.version + 2);
        has_all_keys(&mut cluster);
        cluster.put_anywhere(b"k12", b"new");
        cluster.settle();
        tile(&cluster);
    }
    assert!(rolled_back >= 5, "it was rolled back in {rolled_back} runs");
}

/// Two neighbours that are prepared to merge into each other both go on.
#[test]
fn regions_that_merge_into_each_other_stay_apart() {
    for seed in 60..70 {
        let mut cluster = with_regions(seed);
        let (left, right) = (cluster.region_at(b"k05"), cluster.region_at(b"k12"));
        let (left_at, right_at) = (cluster.leader_of(LEFT).expect("one"), cluster.leader_of(RIGHT).expect("one"));
        cluster.merge(left_at, &left, &right);
        cluster.merge(right_at, &right, &left);
        cluster.run(5 * SECOND);
        for key in [b"k05", b"k12"] {
            cluster.put_anywhere(key, b"new");
        }
        cluster.settle();
        tile(&cluster);
    }
}

#[test]
fn a_merge_that_cannot_be_made_is_refused_with_the_reason() {
    let mut cluster = with_regions(70);
    let (left, right, last) = (cluster.region_at(b"k05"), cluster.region_at(b"k12"), cluster.region_at(b"k17"));
    let leader = cluster.leader_of(LEFT).expect("one");
    let unknown = Region { id: RegionId(77), ..right.clone() };
    for target in [&last, &left, &unknown] {
        let ticket = cluster.merge(leader, &left, target);
        cluster.until(10, "an answer", |cluster| cluster.answers.contains_key(&ticket));
        let answer = &cluster.answers[&ticket];
        assert!(matches!(answer, Answer::Refused(RegionError::Impossible { .. })), "{answer:?}");
    }
    let outdated = Region { epoch: kontiki_raftstore::Epoch { version: 1, ..right.epoch }, ..right.clone() };
    let ticket = cluster.merge(leader, &left, &outdated);
    cluster.until(10, "an answer", |cluster| cluster.answers.contains_key(&ticket));
    assert!(matches!(&cluster.answers[&ticket], Answer::Refused(RegionError::EpochNotMatch { .. })));
    // A follower that does not answer: its store could not take part.
    let away = leader % 3 + 1;
    cluster.crash(away);
    cluster.run(2 * SECOND);
    let ticket = cluster.merge(leader, &left, &right);
    cluster.until(10, "an answer", |cluster| cluster.answers.contains_key(&ticket));
    let Answer::Refused(RegionError::ServerIsBusy { reason, .. }) = &cluster.answers[&ticket] else {
        panic!("{:?}", cluster.answers[&ticket])
    };
    assert!(reason.contains(&format!("store {away}")), "{reason}");
    cluster.start(away);
    cluster.settle();
}

#[test]
fn regions_on_different_stores_are_not_merged() {
    let mut cluster = Cluster::with_members(71, 4, 3, split::config());
    cluster.checker.members_change = true;
    cluster.split_surely(&[(RIGHT, b"k10")]);
    let region = cluster.region_at(b"k05");
    let peer = Peer { id: next_replica_id(4, &region), store: StoreId(4) };
    cluster.change_surely(MemberChange::Add(peer));
    cluster.until(20, "it is there", |cluster| cluster.replica_of(LEFT, 4).is_some());
    let (left, right) = (cluster.region_at(b"k05"), cluster.region_at(b"k12"));
    let leader = cluster.leader_of(RIGHT).expect("one");
    let ticket = cluster.merge(leader, &right, &left);
    cluster.until(10, "an answer", |cluster| cluster.answers.contains_key(&ticket));
    let answer = &cluster.answers[&ticket];
    assert!(matches!(answer, Answer::Refused(RegionError::Impossible { .. })), "{answer:?}");
}

/// While a region is the source of a merge, nothing is read or written there.
#[test]
fn a_source_serves_nothing() {
    for seed in 80..90 {
        let mut cluster = with_regions(seed);
        let (source, target) = (cluster.region_at(b"k12"), cluster.region_at(b"k05"));
        let leader = cluster.leader_of(RIGHT).expect("one");
        // The target has no leader that could commit it.
        let others: Vec<u64> = (1..=3).filter(|store| *store != leader).collect();
        cluster.merge(leader, &source, &target);
        cluster.until(10, "it is prepared", |cluster| cluster.region_at(b"k12").merging().is_some());
        let frozen = cluster.region_at(b"k12");
        for store in others {
            cluster.crash(store);
        }
        if let Some(status) = cluster.replica_of(RIGHT, leader).filter(|status| status.region.merging().is_some()) {
            let read = cluster.lease_read_in(leader, RIGHT, frozen.epoch, b"k12");
            assert!(read.is_err(), "{status:?}");
            let mut batch = WriteBatch::new();
            batch.put(families::DEFAULT, b"k12", b"lost");
            let write = cluster.propose_in(leader, RIGHT, frozen.epoch, batch);
            let barrier = cluster.barrier_in(leader, RIGHT, frozen.epoch);
            cluster.run(SECOND);
            for ticket in [write, barrier] {
                let answer = cluster.answers.get(&ticket);
                assert!(!matches!(answer, Some(Answer::Ok { .. })), "{answer:?}");
            }
        }
        (1..=3).filter(|store| *store != leader).for_each(|store| cluster.start(store));
        cluster.until(30, "the merge ends", |cluster| cluster.region_at(b"k12").id == LEFT);
        has_all_keys(&mut cluster);
        cluster.settle();
        tile(&cluster);
    }
}

/// A follower of the source that lacks its end gets it with the commit, although the other replicas are gone.
#[test]
fn a_follower_that_lags_gets_the_end_of_the_source_with_the_commit() {
    let mut lagged = 0;
    for seed in 100..120 {
        let mut cluster = with_regions(seed);
        let (source, target) = (cluster.region_at(b"k12"), cluster.region_at(b"k05"));
        let leader = cluster.leader_of(RIGHT).expect("one");
        let slow = leader % 3 + 1;
        // Its disk is slow: it answers, but has not the last entries.
        cluster.node(slow).disk_stalled_until = cluster.now + Duration::from_millis(600);
        for i in 0..3u64 {
            let mut batch = WriteBatch::new();
            batch.put(families::DEFAULT, b"k12", i.to_le_bytes());
            cluster.propose_in(leader, RIGHT, source.epoch, batch);
        }
        cluster.merge(leader, &source, &target);
        cluster.run(Duration::from_millis(100));
        lagged += usize::from(cluster.replica_of(RIGHT, slow).is_some_and(|status| status.region.merging().is_none()));
        cluster.crash(slow);
        cluster.merge_surely(b"k12", b"k05");
        cluster.put_anywhere(b"k12", b"new");
        (1..=3).filter(|store| *store != slow).for_each(|store| cluster.node(store).flush());
        cluster.run(SECOND);
        cluster.start(slow);
        cluster.settle();
        tile(&cluster);
    }
    assert!(lagged > 10, "the follower lagged in {lagged} runs");
}

/// A change of the members among what a follower lacks: it could not know by itself whether it is still one of them.
#[test]
fn a_merge_waits_for_changes_of_the_members() {
    let mut cluster = Cluster::with_members(130, 4, 3, split::config());
    cluster.checker.members_change = true;
    cluster.split_surely(&[(RIGHT, b"k10")]);
    let (left, right) = (cluster.region_at(b"k05"), cluster.region_at(b"k12"));
    let leader = cluster.wait_leader();
    let peer = Peer { id: next_replica_id(4, &left), store: StoreId(4) };
    let change = cluster.change(leader, left.epoch, MemberChange::AddLearner(peer));
    let merge = cluster.merge(leader, &left, &right);
    cluster.until(10, "answers", |cluster| [change, merge].iter().all(|ticket| cluster.answers.contains_key(ticket)));
    assert!(matches!(cluster.answers[&change], Answer::Ok { .. }), "{:?}", cluster.answers[&change]);
    let answer = &cluster.answers[&merge];
    assert!(matches!(answer, Answer::Refused(RegionError::ServerIsBusy { .. })), "{answer:?}");
}

#[test]
fn leaders_that_change_at_any_step_of_a_merge_leave_one_outcome() {
    for seed in 0..40 {
        let mut cluster = with_regions(1_500 + seed);
        let (source, target) = (cluster.region_at(b"k12"), cluster.region_at(b"k05"));
        let leader = cluster.leader_of(RIGHT).expect("one");
        cluster.merge(leader, &source, &target);
        for _ in 0..seed % 20 {
            cluster.step();
        }
        // Of the source, of the target, or of both.
        let moved = [&[LEFT][..], &[RIGHT], &[LEFT, RIGHT]][(seed % 3) as usize];
        for (region, to) in moved.iter().zip([leader % 3 + 1, (leader + 1) % 3 + 1]) {
            if let Some(at) = cluster.leader_of(*region) {
                cluster.node(at).inbox.push_back(Event::TransferLeader { region: *region, to: StoreId(to) });
            }
        }
        cluster.run(2 * SECOND);
        cluster.merge_surely(b"k12", b"k05");
        has_all_keys(&mut cluster);
        cluster.settle();
        tile(&cluster);
    }
}

fn crash_around(seed: u64, steps: u64, flush_every: Option<u64>) -> bool {
    let mut cluster = with_regions(seed);
    let (source, target) = (cluster.region_at(b"k12"), cluster.region_at(b"k05"));
    let leader = cluster.leader_of(RIGHT).expect("one");
    let crashed = 1 + seed % 3;
    cluster.merge(leader, &source, &target);
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
    assert!(log || !descriptor, "the log stays until tables have the end of the region");
    cluster.run(3 * SECOND);
    cluster.put_anywhere(b"k05", b"new");
    cluster.start(crashed);
    cluster.merge_surely(b"k12", b"k05");
    for key in [b"k05", b"k12", b"k17"] {
        cluster.put_anywhere(key, b"newer");
    }
    cluster.settle();
    tile(&cluster);
    // And with all of them restarted.
    (1..=3).for_each(|store| cluster.crash(store));
    (1..=3).for_each(|store| cluster.start(store));
    cluster.put_anywhere(b"k12", b"newest");
    cluster.settle();
    tile(&cluster);
    log && !descriptor
}

#[test]
fn a_crash_at_any_step_of_a_merge_leaves_all_or_nothing() {
    let mut logs_alone = 0;
    for seed in 0..60 {
        let flush_every = [None, Some(3), Some(1)][(seed % 3) as usize];
        logs_alone += usize::from(crash_around(1_000 + seed, seed, flush_every));
    }
    assert!(logs_alone > 3, "the runs find logs whose regions tables do not have any more: {logs_alone}");
}

/// A store that was away while a region was merged gets a snapshot of the target, which replaces both.
#[test]
fn a_store_that_was_away_during_a_merge_gets_a_snapshot_of_the_target() {
    for seed in 1_200..1_215 {
        let mut cluster = with_regions(seed);
        let leader = cluster.leader_of(RIGHT).expect("one");
        let away = leader % 3 + 1;
        let (source, target) = (cluster.region_at(b"k12"), cluster.region_at(b"k05"));
        cluster.merge(leader, &source, &target);
        // It has the preparation in some runs.
        for _ in 0..seed % 5 * 3 {
            cluster.step();
        }
        cluster.crash(away);
        cluster.run(2 * SECOND);
        if cluster.region_at(b"k12").id != LEFT {
            cluster.start(away);
            cluster.merge_surely(b"k12", b"k05");
            cluster.settle();
            continue;
        }
        if seed % 2 == 0 {
            // The range that it took over is another region's by now.
            cluster.split_surely(&[(RegionId(21), b"k11")]);
        }
        for i in 0..60u32 {
            for key in [&b"k03"[..], b"k12"] {
                cluster.put_anywhere(key, &i.to_le_bytes());
            }
            (1..=3).filter(|store| *store != away).for_each(|store| cluster.node(store).flush());
        }
        cluster.run(10 * SECOND);
        cluster.start(away);
        cluster.settle();
        tile(&cluster);
        let states: Vec<_> = cluster.nodes.values().map(|node| region_state(&node.visible)).collect();
        assert!(states.windows(2).all(|pair| pair[0] == pair[1]), "seed {seed}");
    }
}

/// The replica of the source on a store that was away is installing a snapshot, again after a crash, when the target's
/// replica there learns of the commit: the entries that it lacks are taken when that has ended.
#[test]
fn a_source_that_installs_a_snapshot_gets_its_end_afterwards() {
    let installing: usize = (1_300..1_320).map(|seed| source_installs(seed, split::config())).sum();
    assert!(installing > 100, "it was installing while the target waited, in {installing} steps");
}

/// Returns in how many steps the source was installing while the target waited.
pub fn source_installs(seed: u64, config: Config) -> usize {
    let mut installing = 0;
    let mut cluster = with_regions_and(seed, config);
    let leader = cluster.leader_of(RIGHT).expect("one");
    let away = leader % 3 + 1;
    cluster.crash(away);
    for i in 0..60u32 {
        cluster.put_anywhere(b"k12", &i.to_le_bytes());
        (1..=3).filter(|store| *store != away).for_each(|store| cluster.node(store).flush());
    }
    cluster.run(10 * SECOND);
    cluster.start(away);
    let end = cluster.region_at(b"k12").id;
    cluster.until(30, "it has everything", |cluster| {
        let applied = |store| cluster.replica_of(end, store).map(|status| status.applied_index);
        applied(away).is_some() && applied(away) == applied(leader)
    });
    let (source, target) = (cluster.region_at(b"k12"), cluster.region_at(b"k05"));
    cluster.run(SECOND);
    let at = cluster.leader_of(RIGHT).unwrap_or(leader);
    cluster.merge(at, &source, &target);
    let prepared = |cluster: &mut Cluster| {
        let stores = cluster.nodes.values().filter_map(|node| node.store.as_ref());
        stores.flat_map(|store| store.status()).any(|status| status.region.merging().is_some())
    };
    cluster.until(10, "it is prepared on a store", prepared);
    cluster.crash(away);
    cluster.run(3 * SECOND);
    let is_merged = cluster.region_at(b"k12").id == LEFT;
    cluster.node(away).job_delay_ms_max = 3_000;
    cluster.start(away);
    for _ in 0..100 {
        cluster.step();
        let installs = |job: &(Duration, Job)| matches!(job.1, Job::Install { region: RIGHT, .. });
        installing += usize::from(is_merged && cluster.node(away).jobs.iter().any(installs));
    }
    cluster.settle();
    tile(&cluster);
    installing
}

/// One thing that happens to a random cluster, besides those of splits.
pub fn disturb(cluster: &mut Cluster, next_region: &mut u64) {
    if cluster.rng.chance(1, 2) {
        return split::disturb(cluster, next_region);
    }
    let id = 1 + cluster.rng.below(3);
    let key = [b'a' + cluster.rng.below(24) as u8, b'a' + cluster.rng.below(24) as u8];
    let source = cluster.region_at(&key);
    let before = cluster.rng.chance(1, 2) && !source.start_key.is_empty();
    let neighbour = if before {
        let mut key = source.start_key.to_vec();
        let last = key.last_mut().expect("not empty");
        *last -= 1;
        key.push(0xff);
        key
    } else {
        source.end_key.to_vec()
    };
    if neighbour.is_empty() || neighbour >= b"y".to_vec() {
        return;
    }
    let target = cluster.region_at(&neighbour);
    let at = cluster.leader_of(source.id).filter(|_| cluster.rng.chance(9, 10)).unwrap_or(id);
    if cluster.node(at).is_up() {
        cluster.merge(at, &source, &target);
    }
}

/// Random splits and merges under faults, to the end.
pub fn run(seed: u64, config: Config) -> Cluster {
    split::run_with(7_000 + seed, config, 14 * SECOND, 25, disturb)
}

/// Whether proposals wait for others. With this one, seed 21 has tables that hold a snapshot before its install is
/// reported.
fn gather_round_max(seed: u64) -> Duration {
    [Duration::from_millis(5), Duration::ZERO, Duration::MAX][seed as usize % 3]
}

#[test]
fn random_splits_and_merges_and_faults_from_100_seeds() {
    let (mut lease_reads, mut merges, mut installs) = (0, 0, 0);
    for seed in 0..100 {
        let cluster = run(seed, Config { gather_round_max: gather_round_max(seed), ..split::config() });
        lease_reads += cluster.checker.lease_reads;
        let node = &cluster.nodes[&StoreId(1)];
        let regions = meta::regions(families::META, &node.visible).expect("readable");
        merges += regions.iter().map(|region| region.merges.absorbed.len()).sum::<usize>();
        installs += cluster.nodes.values().map(|node| node.installs).sum::<usize>();
    }
    assert!(
        lease_reads > 10_000 && merges > 100 && installs > 5,
        "the runs cover enough: {lease_reads} reads, {merges} merges, {installs} installs"
    );
}

/// For long runs: `MERGE_SEEDS=1000..2000`.
#[test]
#[ignore = "takes the seeds from the environment, and as long as they say"]
fn random_seeds() {
    let seeds = std::env::var("MERGE_SEEDS").expect("set");
    let (a, b) = seeds.split_once("..").expect("a range");
    for seed in a.parse::<u64>().expect("number")..b.parse().expect("number") {
        eprintln!("seed {seed}");
        run(seed, Config { gather_round_max: gather_round_max(seed), ..split::config() });
    }
}

#[test]
fn a_read_of_the_source_is_refused_while_it_is_merged() {
    let mut cluster = with_regions(90);
    cluster.merge_surely(b"k12", b"k05");
    let source = Region { id: RIGHT, ..cluster.region_at(b"k12") };
    let read = cluster.lease_read_in(1, RIGHT, source.epoch, b"k12");
    assert!(matches!(read, Err(ReadRefusal::Region(_))), "{read:?}");
}
