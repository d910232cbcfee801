//! Learners, promotions and demotions, and joint configurations (docs/internals/membership.md).

use crate::cluster::families;
use crate::cluster::{Cluster, EPOCH, REGION, small_config};
use kontiki_engine::WriteBatch;
use kontiki_raftstore::{
    Answer, Config, Event, MemberChange, Peer, PeerId, PeerRole, Region, RegionError, RegionId, RoleChange, StoreId,
    next_replica_id, replica_id,
};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// The replica that a store without one gets.
fn new_replica(store: u64) -> Peer {
    Peer { id: replica_id(store, REGION), store: StoreId(store) }
}

fn id_on(region: &Region, store: u64) -> PeerId {
    region.peer_on(StoreId(store)).unwrap_or_else(|| panic!("no replica on {store} of {region:?}")).id
}

fn promote(store: u64) -> RoleChange {
    RoleChange::Promote(new_replica(store).id)
}

/// Three voters on the first stores, and a learner on each of the others.
fn with_learners(seed: u64, stores: u64, config: Config) -> Cluster {
    let mut cluster = Cluster::with_members(seed, stores, 3, config);
    cluster.checker.members_change = true;
    for i in 0..20u32 {
        cluster.put_surely(format!("k{}", i % 7).as_bytes(), &i.to_le_bytes());
    }
    for store in 4..=stores {
        cluster.change_surely(MemberChange::AddLearner(new_replica(store)));
    }
    cluster.settle();
    // The leader hears that they have their data.
    cluster.run(SECOND);
    cluster
}

fn followers(cluster: &mut Cluster, voters: impl IntoIterator<Item = u64>) -> (u64, Vec<u64>) {
    let leader = cluster.wait_leader();
    (leader, voters.into_iter().filter(|id| *id != leader).collect())
}

/// Proposes a change at the leader and returns the answer.
fn answer_to(cluster: &mut Cluster, change: MemberChange) -> Answer {
    let leader = cluster.wait_leader();
    let epoch = cluster.status(leader).region.epoch;
    let ticket = cluster.change(leader, epoch, change);
    cluster.until(20, "an answer", |cluster| cluster.answers.contains_key(&ticket));
    cluster.answers[&ticket].clone()
}

fn assert_refused(answer: &Answer, why: &str) {
    let Answer::Refused(error) = answer else { panic!("{answer:?}, not a refusal because {why}") };
    assert!(error.to_string().contains(why), "{error} does not say that {why}");
}

#[test]
fn a_learner_has_everything_and_counts_for_no_quorum() {
    for seed in 0..10 {
        let mut cluster = with_learners(seed, 4, small_config());
        assert_eq!(cluster.status(4).region.role(new_replica(4).id), PeerRole::Learner);
        let (leader, others) = followers(&mut cluster, 1..=3);
        // Without it and one voter, two of three are a quorum.
        cluster.partition(&[4, others[0]]);
        cluster.put_surely(b"two voters", b"1");
        cluster.settle();
        // With it, one of three is none.
        others.iter().for_each(|id| cluster.crash(*id));
        let ticket = cluster.put(leader, b"one voter", b"1");
        cluster.run(5 * SECOND);
        assert!(!matches!(cluster.answers.get(&ticket), Some(Answer::Ok { .. })), "a learner acknowledged it");
        assert_eq!(cluster.leader(), None, "a learner confirmed the lease");
        cluster.settle();
    }
}

#[test]
fn a_learner_does_not_lead() {
    for seed in 0..10 {
        let mut cluster = with_learners(100 + seed, 4, small_config());
        let (leader, _) = followers(&mut cluster, 1..=3);
        let order = Event::TransferLeader { region: REGION, to: StoreId(4) };
        cluster.node(leader).inbox.push_back(order);
        cluster.run(2 * SECOND);
        assert_eq!(cluster.leader(), Some(leader), "a transfer to a learner is not begun");
        let term = cluster.status(4).term;
        (1..=3).for_each(|id| cluster.crash(id));
        cluster.run(10 * SECOND);
        assert_eq!((cluster.status(4).term, cluster.status(4).leads), (term, false), "it asks for no votes");
        cluster.settle();
    }
}

#[test]
fn a_learner_is_promoted_when_it_has_caught_up() {
    promotion(0, small_config());
}

/// A learner without data, one that lacks entries, one that is away, and then one that has everything.
pub fn promotion(seed: u64, config: Config) {
    let config = Config { promotion_lag_entries_max: 10, ..config };
    let mut cluster = Cluster::with_members(seed, 4, 3, config);
    cluster.checker.members_change = true;
    cluster.put_surely(b"k", b"0");
    let (_, why) = (cluster.wait_leader(), "does not answer, or lacks entries");
    let change = || MemberChange::Promote(new_replica(4).id);
    cluster.network_faults.snapshots_fail = true;
    cluster.change_surely(MemberChange::AddLearner(new_replica(4)));
    cluster.run(2 * SECOND);
    assert_refused(&answer_to(&mut cluster, change()), why);
    cluster.network_faults.snapshots_fail = false;
    cluster
        .until(30, "its data are here", |cluster| cluster.replica(4).is_some_and(|learner| learner.applied_index > 2));
    cluster.node(4).disk_stalled_until = cluster.now + 3600 * SECOND;
    for i in 0..30u32 {
        cluster.put_surely(b"k", &i.to_le_bytes());
    }
    assert_refused(&answer_to(&mut cluster, change()), why);
    cluster.node(4).disk_stalled_until = Duration::ZERO;
    cluster.settle();
    cluster.partition(&[4]);
    cluster.run(2 * SECOND);
    assert_refused(&answer_to(&mut cluster, change()), why);
    cluster.heal();
    cluster.run(2 * SECOND);
    assert!(matches!(answer_to(&mut cluster, change()), Answer::Ok { .. }));
    // Three of four are needed now.
    let (leader, others) = followers(&mut cluster, 1..=3);
    others.iter().for_each(|id| cluster.crash(*id));
    let ticket = cluster.put(leader, b"two of four", b"1");
    cluster.run(3 * SECOND);
    assert!(!matches!(cluster.answers.get(&ticket), Some(Answer::Ok { .. })));
    cluster.start(others[0]);
    cluster.put_surely(b"three of four", b"1");
    cluster.settle();
}

#[test]
fn changes_that_would_end_the_quorum_or_the_leader_are_refused() {
    let mut cluster = with_learners(7, 5, small_config());
    let (leader, others) = followers(&mut cluster, 1..=3);
    let region = cluster.status(leader).region;
    let own = id_on(&region, leader);
    for change in [
        MemberChange::Demote(own),
        MemberChange::Remove(own),
        MemberChange::Jointly(vec![promote(4), RoleChange::Demote(own)]),
    ] {
        assert_refused(&answer_to(&mut cluster, change), "a leader is not removed or demoted");
    }
    assert_refused(&answer_to(&mut cluster, MemberChange::LeaveJoint), "joint");
    cluster.crash(others[0]);
    cluster.run(2 * SECOND);
    // Of the other two one is down: two of three answer, but of two only one would.
    for change in [MemberChange::Demote(id_on(&region, others[1])), MemberChange::Remove(id_on(&region, others[1]))] {
        assert_refused(&answer_to(&mut cluster, change), "too few of the voters");
    }
    // The one that is down can be demoted, with or without a replacement.
    let down = RoleChange::Demote(id_on(&region, others[0]));
    cluster.change_surely(MemberChange::Jointly(vec![promote(4), down]));
    let voters = |region: &Region| region.voter_count();
    assert_eq!(voters(&cluster.status(leader).region), 3);
    cluster.settle();
}

/// A new voter answers before it has data: it is no part of a quorum that a removal may leave.
#[test]
fn a_voter_without_data_replaces_no_other() {
    let mut cluster = Cluster::with_members(8, 4, 3, small_config());
    cluster.checker.members_change = true;
    cluster.put_surely(b"k", b"0");
    cluster.settle();
    let (leader, others) = followers(&mut cluster, 1..=3);
    let region = cluster.status(leader).region;
    cluster.change_surely(MemberChange::Remove(id_on(&region, others[0])));
    cluster.network_faults.snapshots_fail = true;
    cluster.change_surely(MemberChange::Add(new_replica(4)));
    cluster.run(2 * SECOND);
    for change in [MemberChange::Demote(id_on(&region, others[1])), MemberChange::Remove(id_on(&region, others[1]))] {
        assert_refused(&answer_to(&mut cluster, change), "answer and have data");
    }
    cluster.network_faults.snapshots_fail = false;
    cluster.settle();
    cluster.run(SECOND);
    cluster.change_surely(MemberChange::Remove(id_on(&region, others[1])));
    cluster.settle();
}

/// Until the joint configuration has ended and its leader, if it was demoted, has handed over.
fn until_a_voter_leads(cluster: &mut Cluster) {
    cluster.until(30, "one that stays a voter leads", |cluster| {
        cluster.leader().is_some_and(|leader| {
            let region = cluster.status(leader).region;
            !region.is_joint() && region.is_lasting_voter(id_on(&region, leader))
        })
    });
}

/// Two of three voters are replaced in one step, and the old ones are removed.
fn replace_two(cluster: &mut Cluster) -> (u64, Vec<u64>) {
    let (leader, others) = followers(cluster, 1..=3);
    let region = cluster.status(leader).region;
    let demoted = others.iter().map(|store| RoleChange::Demote(id_on(&region, *store)));
    let changes = [promote(4), promote(5)].into_iter().chain(demoted).collect();
    let ticket = cluster.change(leader, region.epoch, MemberChange::Jointly(changes));
    cluster.step();
    assert!(!cluster.answers.contains_key(&ticket), "{:?}", cluster.answers[&ticket]);
    (leader, others)
}

#[test]
fn several_replicas_are_replaced_at_once() {
    for seed in 0..10 {
        let mut cluster = with_learners(200 + seed, 5, small_config());
        let (leader, others) = replace_two(&mut cluster);
        let has_left = |region: &Region| region.epoch.conf_version == 5 && !region.is_joint();
        cluster.until(10, "the joint configuration ends", |cluster| {
            (1..=5).all(|id| cluster.replica(id).is_some_and(|replica| has_left(&replica.region)))
        });
        let region = cluster.status(leader).region;
        for store in [leader, 4, 5] {
            assert_eq!(region.role(id_on(&region, store)), PeerRole::Voter);
        }
        for store in &others {
            assert_eq!(region.role(id_on(&region, *store)), PeerRole::Learner);
            cluster.change_surely(MemberChange::Remove(id_on(&region, *store)));
        }
        cluster.settle();
        assert!(others.iter().all(|store| cluster.replica(*store).is_none()), "they are destroyed");
        others.iter().for_each(|store| cluster.crash(*store));
        cluster.crash(leader);
        cluster.put_surely(b"the new two of three", b"1");
        cluster.settle();
    }
}

#[test]
fn a_joint_configuration_needs_both_halves() {
    (0..20).for_each(|seed| half_is_cut_off(seed, small_config()));
}

/// The leader of a joint configuration and one half of it are cut off from the others.
pub fn half_is_cut_off(seed: u64, config: Config) {
    let mut cluster = with_learners(300 + seed, 5, config);
    let (leader, others) = replace_two(&mut cluster);
    cluster.until(10, "it is joint", |cluster| cluster.status(leader).region.is_joint());
    let old_half_is_cut = seed.is_multiple_of(2);
    let side = if old_half_is_cut { others.clone() } else { vec![4, 5] };
    cluster.partition(&side);
    let ticket = cluster.put(leader, b"one half", b"1");
    cluster.run(4 * SECOND);
    let has_left = |cluster: &Cluster, id| cluster.replica(id).is_some_and(|replica| !replica.region.is_joint());
    // The end of the joint configuration may have been on its way to enough of them before the cut.
    if !has_left(&cluster, leader) {
        assert!(!matches!(cluster.answers.get(&ticket), Some(Answer::Ok { .. })), "half of it commits nothing");
        assert!(cluster.leader().is_none(), "half of it confirms no lease");
    }
    cluster.heal();
    cluster.until(20, "the joint configuration ends", |cluster| {
        cluster.leader().is_some_and(|leader| has_left(cluster, leader))
    });
    cluster.settle();
}

#[test]
fn a_crash_at_any_step_of_a_joint_change_is_survived() {
    let mut passing = 0;
    for crash_after in 0..80u64 {
        let mut cluster = with_learners(400 + crash_after, 5, small_config());
        let (leader, others) = replace_two(&mut cluster);
        for _ in 0..crash_after / 2 {
            cluster.step();
        }
        // The leader alone, or with it the others of one half, or all.
        let crashed = match crash_after % 4 {
            0 => vec![leader],
            1 => vec![leader, others[0]],
            2 => vec![leader, 4],
            _ => (1..=5).collect(),
        };
        crashed.iter().for_each(|id| cluster.crash(*id));
        for _ in 0..300 {
            cluster.step();
            let leads = |id: u64| cluster.replica(id).filter(|replica| replica.leads);
            let is_passing = |replica: &kontiki_raftstore::RegionStatus, id| {
                replica.region.is_joint() && !replica.region.is_lasting_voter(id_on(&replica.region, id))
            };
            passing += usize::from((1..=5).any(|id| leads(id).is_some_and(|replica| is_passing(&replica, id))));
        }
        cluster.settle();
        until_a_voter_leads(&mut cluster);
        cluster.put_surely(b"afterwards", b"1");
        cluster.settle();
    }
    assert!(passing > 0, "a replica that is demoted led a joint configuration, and handed over");
}

#[test]
fn a_learner_that_was_removed_while_it_was_away_destroys_itself() {
    for seed in 0..10 {
        let hibernate_ticks = if seed % 2 == 0 { 0 } else { 20 };
        let config = Config { hibernate_ticks, member_check_ticks: 50, ..small_config() };
        let mut cluster = with_learners(500 + seed, 4, config);
        cluster.crash(4);
        cluster.change_surely(MemberChange::Remove(new_replica(4).id));
        cluster.start(4);
        cluster.until(60, "it is gone", |cluster| cluster.replica(4).is_none());
        cluster.put_surely(b"k", b"1");
        cluster.settle();
    }
}

#[test]
fn a_sole_voter_serves_its_learners_and_grows() {
    for seed in 0..10 {
        let hibernate_ticks = if seed % 2 == 0 { 0 } else { 20 };
        let config = Config { hibernate_ticks, ..small_config() };
        let mut cluster = Cluster::with_members(600 + seed, 3, 1, config);
        cluster.checker.members_change = true;
        cluster.put_surely(b"alone", b"1");
        // Neither of two would be a quorum: an empty voter is not added to one.
        assert_refused(&answer_to(&mut cluster, MemberChange::Add(new_replica(2))), "too few of the voters");
        for store in [2, 3] {
            cluster.change_surely(MemberChange::AddLearner(new_replica(store)));
            cluster.settle();
            assert_eq!(cluster.leader(), Some(1), "it needs no one's confirmation");
            cluster.put_surely(b"with learners", b"1");
            cluster.settle();
        }
        cluster.change_surely(MemberChange::Jointly(vec![promote(2), promote(3)]));
        cluster.settle();
        cluster.crash(1);
        cluster.put_surely(b"the other two", b"1");
        cluster.settle();
    }
}

#[test]
fn a_region_with_a_learner_hibernates_and_splits() {
    // Longer than the time between two questions of a learner that misses its leader.
    let config = Config { hibernate_ticks: 100, ..small_config() };
    let mut cluster = with_learners(700, 4, config);
    let all_hibernate = |cluster: &mut Cluster| (1..=4).all(|id| cluster.status(id).hibernates);
    cluster.until(30, "all replicas hibernate", all_hibernate);
    cluster.split_surely(&[(RegionId(50), b"k3")]);
    cluster.until(30, "the learner has the new region", |cluster| cluster.replica_of(RegionId(50), 4).is_some());
    let child = cluster.replica_of(RegionId(50), 4).expect("just seen").region;
    assert_eq!(child.role(replica_id(4, RegionId(50))), PeerRole::Learner);
    cluster.put_anywhere(b"k5", b"1");
    cluster.until(30, "it has the put", |cluster| {
        let last =
            (1..=4).filter_map(|id| cluster.replica_of(RegionId(50), id)).map(|replica| replica.last_index).max();
        cluster.replica_of(RegionId(50), 4).is_some_and(|replica| Some(replica.applied_index) == last)
    });
}

/// Seed 429 of the simulator: after its restart the learner did not know that the end of its log is committed, and the
/// only voter hibernated.
#[test]
fn a_learner_that_restarts_wakes_a_leader_that_hibernates() {
    for seed in 0..10 {
        let config = Config { hibernate_ticks: 20, ..small_config() };
        let mut cluster = Cluster::with_members(750 + seed, 2, 1, config);
        cluster.checker.members_change = true;
        cluster.change_surely(MemberChange::AddLearner(new_replica(2)));
        cluster.settle();
        cluster.node(2).flush();
        for i in 0..4u32 {
            cluster.put_surely(b"k", &i.to_le_bytes());
        }
        let all_hibernate = |cluster: &mut Cluster| (1..=2).all(|id| cluster.status(id).hibernates);
        cluster.until(30, "both hibernate", all_hibernate);
        cluster.crash(2);
        cluster.start(2);
        let last = cluster.status(1).last_index;
        cluster.until(30, "it has applied everything again", |cluster| cluster.status(2).applied_index == last);
    }
}

/// Seeds 283 and 592 of the simulator: a sole voter leads without anyone's answer. It must not send entries in a term
/// that it does not know of after a crash.
#[test]
fn a_sole_voter_leads_in_a_term_once() {
    (0..20).for_each(|seed| crash_of_a_sole_voter(seed, small_config()));
}

/// A sole voter leads, has an entry in its log, and crashes before any of that is durable.
pub fn crash_of_a_sole_voter(seed: u64, config: Config) {
    let mut cluster = Cluster::with_members(770 + seed, 2, 1, config);
    cluster.checker.members_change = true;
    cluster.change_surely(MemberChange::AddLearner(new_replica(2)));
    cluster.settle();
    let last = cluster.status(1).last_index;
    for value in [b"first", b"other"] {
        cluster.crash(1);
        cluster.start(1);
        cluster.until(20, "it leads", |cluster| cluster.status(1).leads);
        cluster.node(1).disk_stalled_until = cluster.now + 3600 * SECOND;
        cluster.put(1, b"k", value);
        cluster.run(SECOND / 10);
        assert!(cluster.status(1).last_index >= last + 2);
        cluster.node(1).crash(0);
        cluster.node(1).disk_stalled_until = Duration::ZERO;
        cluster.start(1);
    }
    cluster.settle();
}

#[test]
fn a_joint_configuration_neither_hibernates_nor_splits() {
    let config = Config { hibernate_ticks: 20, ..small_config() };
    let mut cluster = with_learners(800, 5, config);
    let (leader, _) = replace_two(&mut cluster);
    cluster.until(10, "it is joint", |cluster| cluster.status(leader).region.is_joint());
    // Without the new half it cannot end.
    cluster.partition(&[4, 5]);
    let region = Region::clone(&cluster.status(leader).region);
    let ticket = cluster.split(leader, &region, &[(RegionId(50), b"k3")]);
    cluster.until(10, "an answer", |cluster| cluster.answers.contains_key(&ticket));
    let refused = cluster.answers[&ticket].clone();
    assert!(matches!(refused, Answer::Refused(RegionError::ServerIsBusy { .. })), "{refused:?}");
    cluster.run(10 * SECOND);
    assert!((1..=5).all(|id| !cluster.status(id).hibernates));
    cluster.settle();
}

/// Seed 3653 of the simulator: a leader that a committed entry has demoted goes on leading for a moment, and the only
/// voter is another replica. The consensus core confirmed its reads without a question.
#[test]
fn a_demoted_leader_confirms_no_read_by_itself() {
    let mut demoted = 0;
    for seed in 0..60 {
        let mut cluster = Cluster::with_members(1000 + seed, 2, 2, small_config());
        cluster.checker.members_change = true;
        cluster.put_surely(b"k", b"0");
        cluster.settle();
        let leader = cluster.wait_leader();
        let other = 3 - leader;
        let region = cluster.status(leader).region;
        let index = cluster.status(leader).last_index + 1;
        cluster.change(leader, region.epoch, MemberChange::Demote(id_on(&region, other)));
        cluster.until(5, "the entry is in both logs", |cluster| cluster.status(other).durable_index >= index);
        cluster.crash(leader);
        cluster.start(leader);
        let leads = |cluster: &Cluster, id| cluster.replica(id).is_some_and(|replica| replica.leads);
        cluster.until(20, "one leads", |cluster| leads(cluster, leader) || leads(cluster, other));
        let is_demoted = |cluster: &Cluster| {
            let region = cluster.status(other).region;
            let is_known = cluster.status(leader).region.epoch == region.epoch;
            leads(cluster, other) && is_known && !region.is_lasting_voter(id_on(&region, other))
        };
        for _ in 0..200 {
            if is_demoted(&cluster) {
                break;
            }
            cluster.step();
        }
        if is_demoted(&cluster) {
            demoted += 1;
            cluster.partition(&[other]);
            cluster.until(20, "the only voter leads", |cluster| leads(cluster, leader));
            cluster.until(20, "it acknowledges a write", |cluster| {
                let ticket = cluster.put(leader, b"k", b"1");
                cluster.run(SECOND / 10);
                matches!(cluster.answers.get(&ticket), Some(Answer::Ok { .. }))
            });
            // The checker compares its index with what is acknowledged.
            let ticket = cluster.barrier(other);
            cluster.run(SECOND);
            assert!(!matches!(cluster.answers.get(&ticket), Some(Answer::Ok { .. })), "a stale read");
        }
        cluster.settle();
    }
    assert!(demoted > 3, "a demoted replica led: {demoted}");
}

/// One random change of the roles, at the leader.
fn change_at_random(cluster: &mut Cluster, stores: u64) {
    let Some(leader) = cluster.leader() else { return };
    let region = cluster.status(leader).region;
    let store = 1 + cluster.rng.below(stores);
    let one = |cluster: &mut Cluster| region.peers[cluster.rng.below(region.peers.len() as u64) as usize].id;
    let change = match (region.peer_on(StoreId(store)), cluster.rng.below(4)) {
        (None, _) if cluster.node(store).is_up() => {
            let directory = cluster.node(store).directory.expect("set");
            MemberChange::AddLearner(Peer { id: next_replica_id(directory, &region), store: StoreId(store) })
        }
        (None, _) => return,
        (Some(peer), 0) => {
            let is_voter = region.role(peer.id) == PeerRole::Voter;
            if is_voter { MemberChange::Demote(peer.id) } else { MemberChange::Promote(peer.id) }
        }
        (Some(peer), 1) if region.role(peer.id) == PeerRole::Learner && region.peers.len() > 3 => {
            MemberChange::Remove(peer.id)
        }
        _ => {
            let count = 1 + cluster.rng.below(4);
            let mut ids: Vec<PeerId> = (0..count).map(|_| one(cluster)).collect();
            ids.sort_unstable();
            ids.dedup();
            let role = |id: PeerId| match region.role(id) {
                PeerRole::Learner => RoleChange::Promote(id),
                _ => RoleChange::Demote(id),
            };
            MemberChange::Jointly(ids.into_iter().map(role).collect())
        }
    };
    cluster.change(leader, region.epoch, change);
}

/// Roles change again and again, beside crashes, cuts, transfers and flushes at random moments.
pub fn at_random(seed: u64, config: Config) -> Cluster {
    let stores = 5;
    let mut cluster = Cluster::with_members(seed, stores, 3, config);
    cluster.checker.members_change = true;
    while cluster.now < 40 * SECOND {
        let id = 1 + cluster.rng.below(stores);
        match cluster.rng.below(300) {
            0..=5 => change_at_random(&mut cluster, stores),
            6 | 7 if cluster.node(id).is_up() => {
                cluster.crash(id);
                cluster.start(id);
            }
            8 | 9 => {
                let other = 1 + cluster.rng.below(stores);
                cluster.partition(&[id, other]);
            }
            10 => cluster.partition(&[id]),
            11..=14 => cluster.heal(),
            15 => {
                let to = StoreId(1 + cluster.rng.below(stores));
                cluster.node(id).inbox.push_back(Event::TransferLeader { region: REGION, to });
            }
            16 | 17 if cluster.replica(id).is_some() => cluster.node(id).flush(),
            20..=90 => {
                if let Some(leader) = cluster.leader() {
                    let (key, value) = ([b'a' + cluster.rng.below(8) as u8], cluster.rng.next_u64().to_le_bytes());
                    let mut batch = WriteBatch::new();
                    batch.put(families::DEFAULT, key, value);
                    cluster.propose(leader, EPOCH, batch);
                    let _ = cluster.lease_read(leader, &key);
                }
            }
            _ => {}
        }
        cluster.step();
    }
    cluster
}

#[test]
fn roles_that_change_again_and_again_lose_nothing() {
    let (mut changes, mut joint) = (0, 0);
    for seed in 0..40 {
        let mut cluster = at_random(seed, small_config());
        let acknowledged = cluster.checker.acknowledged(REGION);
        joint += usize::from((1..=5).filter_map(|id| cluster.replica(id)).any(|replica| replica.region.is_joint()));
        cluster.settle();
        let leader = cluster.wait_leader();
        let status = cluster.status(leader);
        assert!(status.applied_index >= acknowledged, "what was acknowledged is there");
        cluster.until(30, "no joint configuration is left", |cluster| {
            cluster.leader().is_some_and(|leader| !cluster.status(leader).region.is_joint())
        });
        changes += status.region.epoch.conf_version - 1;
    }
    assert!(changes > 200 && joint > 0, "the runs cover enough changes: {changes}, {joint} of them joint at the end");
}

/// Seed 214 of the simulator: the old half of the joint configuration had two voters, and the leader to be demoted
/// thought that the other could not elect a leader without it.
#[test]
fn a_leader_that_is_demoted_votes_for_its_successor() {
    for seed in 0..20 {
        let mut cluster = with_learners(900 + seed, 4, small_config());
        let (leader, others) = followers(&mut cluster, 1..=3);
        let region = cluster.status(leader).region;
        cluster.change_surely(MemberChange::Remove(id_on(&region, others[0])));
        // Two voters and a learner; the follower is to be replaced, and gets the leadership.
        let roles = vec![promote(4), RoleChange::Demote(id_on(&region, others[1]))];
        let epoch = cluster.status(leader).region.epoch;
        cluster.change(leader, epoch, MemberChange::Jointly(roles));
        let order = Event::TransferLeader { region: REGION, to: StoreId(others[1]) };
        cluster.node(leader).inbox.push_back(order);
        until_a_voter_leads(&mut cluster);
        cluster.settle();
    }
}
