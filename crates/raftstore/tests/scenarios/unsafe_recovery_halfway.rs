//! A majority of the stores is lost for good while a region changes: in a joint configuration, with learners only, and
//! in a merge.

use super::unsafe_recovery::{assert_equal, lose, lose_with, puts, recover, regions_on, value_on};
use crate::cluster::{Cluster, REGION, small_config};
use kontiki_raftstore::{
    Event, FaultKind, MemberChange, Peer, PeerRole, Region, RegionId, RoleChange, StoreId, meta, replica_id,
};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const RIGHT: RegionId = RegionId(9);

/// The replica that a store without one gets.
fn new_replica(store: u64) -> Peer {
    Peer { id: replica_id(store, REGION), store: StoreId(store) }
}

/// Voters on stores 1 to 3 and learners on stores 4 and 5.
fn with_learners(seed: u64) -> Cluster {
    let mut cluster = Cluster::with_members(seed, 5, 3, small_config());
    cluster.checker.members_change = true;
    puts(&mut cluster, "before", 6);
    for store in [4, 5] {
        cluster.change_surely(MemberChange::AddLearner(new_replica(store)));
    }
    cluster.settle();
    // The leader hears that they have their data.
    cluster.run(SECOND);
    cluster
}

/// Voters 1, 2 and 3 become 1, 4 and 5.
fn swap(region: &Region) -> MemberChange {
    let id = |store: u64| region.peer_on(StoreId(store)).expect("it is there").id;
    let promoted = [4, 5].map(|store| RoleChange::Promote(id(store)));
    let demoted = [2, 3].map(|store| RoleChange::Demote(id(store)));
    MemberChange::Jointly(promoted.into_iter().chain(demoted).collect())
}

/// Of the keys those that a store shows.
fn shown(cluster: &Cluster, id: u64, keys: &[String]) -> Vec<String> {
    keys.iter().filter(|key| value_on(cluster, id, key.as_bytes()).is_some()).cloned().collect()
}

fn is_recovered(cluster: &Cluster, left: &[u64]) -> bool {
    let is_done = |region: &Region| region.epoch.conf_version >> 32 == 1;
    left.iter().all(|id| regions_on(cluster, *id).values().all(is_done))
}

/// The loss comes before the joint change, within it, or behind its end, and some of those left know less than others.
#[test]
fn a_joint_configuration_goes_on_with_what_is_left_of_both_halves() {
    let lost_sets: [&[u64]; 6] = [&[2, 3], &[1, 2], &[4, 5], &[1, 2, 4], &[2, 3, 4, 5], &[1, 3, 5]];
    let (mut joint, mut kept) = (0, 0);
    for seed in 0..120 {
        let lost = lost_sets[seed as usize % lost_sets.len()];
        let mut cluster = with_learners(seed);
        let leader = cluster.wait_leader();
        let lags = 1 + cluster.rng.below(5);
        if lags != leader && seed % 4 != 0 {
            cluster.partition(&[lags]);
        }
        let region = cluster.status(leader).region;
        cluster.change(leader, region.epoch, swap(&region));
        let keys: Vec<String> = (0..10).map(|i| format!("during{i}")).collect();
        let count = cluster.rng.below(10) as usize;
        for key in &keys[..count] {
            cluster.put(leader, key.as_bytes(), b"1");
            let some = Duration::from_millis(cluster.rng.below(30));
            cluster.run(some);
        }
        let alive: Vec<u64> = (1..=5).filter(|id| !lost.contains(id)).collect();
        let regions: Vec<_> = alive.iter().map(|id| cluster.status(*id).region).collect();
        // By its descriptor an old voter may be the only one that is left: what it lacks is lost, and a replica that
        // has more refuses what comes. So it has everything here.
        let of_old = alive.iter().copied().find(|id| *id <= 3).expect("one is left");
        let last = cluster.status(of_old).durable_index;
        if alive.iter().any(|id| cluster.status(*id).committed_index > last) {
            continue;
        }
        let votes = |(id, region): (&u64, &std::sync::Arc<Region>)| {
            region.peer_on(StoreId(*id)).is_some_and(|peer| region.role(peer.id) != PeerRole::Learner)
        };
        if !alive.iter().zip(&regions).any(votes) {
            continue; // One does not know that it is to vote, and the other knows that it does not any more.
        }
        let had: Vec<String> = alive.iter().flat_map(|id| shown(&cluster, *id, &keys)).collect();
        kept += usize::from(!had.is_empty());
        joint += usize::from(regions.iter().any(|region| region.is_joint()));
        let left = lose(&mut cluster, 1, lost);
        recover(&mut cluster, &left);
        cluster.put_surely(b"after", b"1");
        cluster.until(30, "no joint configuration is left", |cluster| {
            left.iter().all(|id| !cluster.status(*id).region.is_joint())
        });
        assert_equal(&mut cluster, &left);
        for id in &left {
            assert_eq!(
                shown(&cluster, *id, &had),
                had,
                "seed {seed}: what a store that is left has shown is on store {id}"
            );
        }
    }
    assert!(kept >= 10, "{kept} runs had something to keep");
    assert!(joint >= 10, "{joint} runs met a joint configuration");
}

/// Nothing is left of one half: the other one decides alone, if no replica that is left knows of the end.
#[test]
fn a_joint_configuration_of_which_one_half_is_lost_goes_on_with_the_other() {
    let mut met = 0;
    for (seed, lost) in (0..40).zip([[1, 2, 3], [1, 4, 5]].into_iter().cycle()) {
        let mut cluster = with_learners(100 + seed);
        let leader = cluster.wait_leader();
        let region = cluster.status(leader).region;
        cluster.change(leader, region.epoch, swap(&region));
        let left: Vec<u64> = (2..=5).filter(|id| !lost.contains(id)).collect();
        let are_in_it = |cluster: &Cluster| left.iter().all(|id| cluster.status(*id).region.is_joint());
        for _ in 0..100 {
            if !are_in_it(&cluster) {
                cluster.step();
            }
        }
        if !are_in_it(&cluster) {
            continue; // It ended before all of them had begun it.
        }
        left.iter().for_each(|id| cluster.node(*id).flush());
        lose(&mut cluster, 1, &lost);
        recover(&mut cluster, &left);
        cluster.put_surely(b"after", b"1");
        assert_equal(&mut cluster, &left);
        let region = cluster.status(left[0]).region;
        assert!(region.peers.len() == 2 && region.voter_count() == 2 && !region.is_joint(), "seed {seed}: {region:?}");
        met += 1;
    }
    assert!(met >= 10, "{met} runs met it");
}

#[test]
fn only_learners_are_left_and_the_region_goes_on_from_the_one_that_is_named() {
    for seed in 0..20 {
        let mut cluster = with_learners(200 + seed);
        let away = if seed % 2 == 0 { 4 } else { 5 };
        let named = 9 - away;
        cluster.partition(&[away]);
        let keys: Vec<String> = puts(&mut cluster, "late", 5).into_iter().map(|(key, _)| key).collect();
        cluster.until(10, "a learner has them", |cluster| shown(cluster, named, &keys).len() == keys.len());
        // Without a name nothing counts: each could be behind the other.
        let left = lose(&mut cluster, 1, &[1, 2, 3]);
        cluster.run(10 * SECOND);
        assert!(cluster.leader().is_none() && !is_recovered(&cluster, &left), "seed {seed}");
        let left = lose_with(&mut cluster, 2, &[1, 2, 3], &[(REGION, named)]);
        recover(&mut cluster, &left);
        assert_eq!(cluster.wait_leader(), named, "seed {seed}");
        cluster.put_surely(b"after", b"1");
        assert_equal(&mut cluster, &left);
        left.iter().for_each(|id| assert_eq!(shown(&cluster, *id, &keys), keys, "seed {seed}"));
        let region = cluster.status(named).region;
        let roles: Vec<PeerRole> = [named, away].map(|id| region.role(new_replica(id).id)).into();
        assert_eq!((region.peers.len(), roles), (2, vec![PeerRole::Voter, PeerRole::Learner]));
        // It is an ordinary region: the other one is promoted.
        cluster.run(SECOND);
        cluster.change_surely(MemberChange::Promote(new_replica(away).id));
    }
}

/// Two regions; the left one is to take the right one over.
fn with_two_regions(seed: u64, stores: u64) -> Cluster {
    let mut cluster = Cluster::new(seed, stores);
    puts(&mut cluster, "a", 5);
    cluster.split_surely(&[(RIGHT, b"m")]);
    cluster.until(20, "both have leaders", |cluster| [REGION, RIGHT].iter().all(|id| cluster.leader_of(*id).is_some()));
    for i in 0..5 {
        cluster.put_anywhere(format!("n{i}").as_bytes(), b"1");
    }
    cluster.run(SECOND);
    cluster
}

fn begin_merge(cluster: &mut Cluster) {
    let (source, target) = (cluster.region_at(b"n"), cluster.region_at(b"a"));
    let leader = cluster.leader_of(RIGHT).expect("it has one");
    cluster.merge(leader, &source, &target);
}

/// The ranges of the regions of a store cover all keys once, and no region waits for a merge.
fn is_whole(cluster: &Cluster, id: u64) -> bool {
    let node = &cluster.nodes[&StoreId(id)];
    let mut regions = meta::regions(crate::cluster::families::META, &node.visible).expect("readable");
    regions.sort_by(|a, b| a.start_key.cmp(&b.start_key));
    assert!(regions.windows(2).all(|pair| pair[0].end_key == pair[1].start_key), "{regions:?}");
    regions.iter().all(|region| region.merging().is_none())
}

/// The loss comes before, within, or behind the merge, and of two that are left one may know less: the merge ends, or
/// is rolled back.
#[test]
fn a_merge_ends_or_is_rolled_back_among_those_that_are_left() {
    let (mut merged, mut apart, mut frozen) = (0, 0, 0);
    for seed in 0..80 {
        let stores = if seed % 2 == 0 { 3 } else { 5 };
        let mut cluster = with_two_regions(300 + seed, stores);
        begin_merge(&mut cluster);
        let some = Duration::from_millis(cluster.rng.below(120));
        cluster.run(some);
        if stores == 5 {
            // One of those left is cut off in the middle of it.
            cluster.partition(&[2]);
            let some = Duration::from_millis(cluster.rng.below(120));
            cluster.run(some);
        }
        let lost: Vec<u64> = if stores == 3 { vec![2, 3] } else { vec![3, 4, 5] };
        frozen += usize::from(cluster.replica_of(RIGHT, 1).is_some_and(|found| found.region.merging().is_some()));
        let left = lose(&mut cluster, 1, &lost);
        recover(&mut cluster, &left);
        cluster.until(60, "no region is frozen", |cluster| {
            recover(cluster, &left);
            left.iter().all(|id| is_whole(cluster, *id))
        });
        for key in [&b"a"[..], b"n"] {
            cluster.put_anywhere(key, b"after");
        }
        cluster.until(30, "all are equal", |cluster| {
            left.iter().all(|id| regions_on(cluster, *id) == regions_on(cluster, left[0]))
        });
        assert_equal(&mut cluster, &left);
        for i in 0..5 {
            for key in [format!("n{i}"), format!("a{i}")] {
                left.iter()
                    .for_each(|id| assert!(value_on(&cluster, *id, key.as_bytes()).is_some(), "seed {seed}: {key}"));
            }
        }
        let regions = regions_on(&cluster, left[0]).len();
        *if regions == 1 { &mut merged } else { &mut apart } += 1;
    }
    assert!(merged >= 10 && apart >= 3 && frozen >= 5, "{merged} merged, {apart} apart, {frozen} were frozen");
}

/// The target's log here has the commit of a merge whose source, here, has gone on without the preparation that it
/// lacks: what both have cannot be united. The node stops before it writes anything of it.
#[test]
fn a_commit_whose_source_has_gone_on_without_it_stops_the_node() {
    let mut stopped = 0;
    for seed in 0..20 {
        let mut cluster = with_two_regions(400 + seed, 3);
        // The source's leader is on 2, the target's on 3, and nothing of the preparation reaches 1.
        for (region, to) in [(RIGHT, 2), (REGION, 3)] {
            cluster.until(60, "a leader there", |cluster| {
                let leader = cluster.leader_of(region);
                if let Some(leader) = leader.filter(|leader| *leader != to) {
                    cluster.node(leader).inbox.push_back(Event::TransferLeader { region, to: StoreId(to) });
                    cluster.run(SECOND);
                }
                leader == Some(to)
            });
        }
        cluster.run(SECOND);
        let before = cluster.status(1).durable_index;
        begin_merge(&mut cluster);
        cluster.step();
        cluster.separate(1, 2);
        cluster.until(10, "the commit is in the log of 1", |cluster| cluster.status(1).durable_index > before);
        cluster.node(1).is_damaged = true;
        lose(&mut cluster, 1, &[2, 3]);
        cluster.run(20 * SECOND);
        match &cluster.node(1).fault {
            Some(fault) => {
                let is_known = fault.kind == FaultKind::Unable && fault.what.contains("after an unsafe recovery");
                assert!(is_known, "seed {seed}: {fault:?}");
                stopped += 1;
            }
            // The source's replica got the end of its log from the commit first.
            None => assert!(is_whole(&cluster, 1), "seed {seed}"),
        }
    }
    assert!(stopped > 0, "the two histories met");
}
