//! Replicas of a region are compared: docs/internals/consistency.md.

use super::random;
use crate::cluster::{Cluster, EPOCH, REGION, small_config};
use kontiki_raftstore::command::{Action, Command};
use kontiki_raftstore::{
    Answer, CheckOutcome, Config, FaultKind, MemberChange, Observation, Peer, RegionError, StoreId, Ticket, replica_id,
};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
/// No key of these tests expires.
const EXPIRES_AFTER_MS: u64 = 1 << 40;

fn config() -> Config {
    Config { checksum_ticks_max: 30, ..small_config() }
}

/// A cluster with some keys, in which every checksum is computed.
fn with_keys(seed: u64, stores: u64) -> Cluster {
    with_keys_and(seed, stores, config())
}

fn with_keys_and(seed: u64, stores: u64, config: Config) -> Cluster {
    let mut cluster = Cluster::with_config(seed, stores, config);
    cluster.nodes.values_mut().for_each(|node| node.view_failures_percent = 0);
    for i in 0..10u32 {
        cluster.put_surely(format!("k{i}").as_bytes(), &i.to_le_bytes());
    }
    cluster
}

fn begin(cluster: &mut Cluster, at: u64) -> Ticket {
    let epoch = cluster.region_at(b"k").epoch;
    let action = Action::ComputeChecksum { expires_after_ms: EXPIRES_AFTER_MS };
    cluster.command(at, REGION, Command { epoch, action })
}

/// What the leaders have found so far, by index.
fn outcomes(cluster: &Cluster) -> Vec<CheckOutcome> {
    let seen = cluster.nodes.values().flat_map(|node| &node.observations);
    let checked = seen.filter_map(|seen| match seen {
        Observation::Checked { index, outcome, .. } => Some((*index, outcome.clone())),
        _ => None,
    });
    let mut checked: Vec<_> = checked.collect();
    checked.sort_by_key(|(index, _)| *index);
    checked.into_iter().map(|(_, outcome)| outcome).collect()
}

/// Compares the replicas; returns what came of it.
#[track_caller]
fn check(cluster: &mut Cluster) -> CheckOutcome {
    let before = outcomes(cluster).len();
    let leader = cluster.wait_leader();
    let ticket = begin(cluster, leader);
    cluster.until(10, "an outcome", |cluster| outcomes(cluster).len() > before);
    assert!(matches!(cluster.answers[&ticket], Answer::Ok { .. }), "{:?}", cluster.answers[&ticket]);
    outcomes(cluster).pop().expect("just seen")
}

fn stopped(cluster: &Cluster) -> Vec<u64> {
    let faulty = cluster.nodes.values().filter(|node| node.fault.is_some());
    faulty.map(|node| node.id.0).collect()
}

fn ids(stores: &[StoreId]) -> Vec<u64> {
    stores.iter().map(|store| store.0).collect()
}

#[test]
fn equal_replicas_have_one_checksum_and_nothing_more_is_written() {
    for seed in 0..10 {
        let mut cluster = with_keys(seed, 3);
        let leader = cluster.wait_leader();
        let outcome = check(&mut cluster);
        assert!(outcome.is_equal(), "{outcome:?}");
        assert_eq!(ids(&outcome.agreeing), [1, 2, 3]);
        let end = cluster.status(leader).last_index;
        cluster.run(SECOND);
        assert_eq!(cluster.status(leader).last_index, end, "no second command");
        cluster.put_surely(b"k3", b"changed");
        assert_ne!(check(&mut cluster).checksum, outcome.checksum, "another state has another checksum");
        cluster.settle();
    }
}

#[test]
fn a_replica_that_differs_from_a_quorum_stops_whether_it_leads_or_not() {
    for seed in 10..20 {
        for damaged in 1..=3 {
            let mut cluster = with_keys(seed, 3);
            cluster.node(damaged).is_damaged = true;
            let outcome = check(&mut cluster);
            assert!(outcome.checksum.is_some() && !outcome.is_equal());
            assert_eq!(ids(&outcome.differing), [damaged]);
            cluster.until(10, "it stops", |cluster| !stopped(cluster).is_empty());
            let fault = cluster.nodes[&StoreId(damaged)].fault.clone().expect("that store and no other");
            assert_eq!((fault.region, fault.kind), (REGION, FaultKind::Inconsistent));
            assert!(fault.what.contains("differ from those of a quorum"), "{fault}");
            cluster.put_anywhere(b"k9", b"the others go on");
            assert_eq!(stopped(&cluster), [damaged]);
        }
    }
}

/// It is not known which one is right.
#[test]
fn without_a_majority_none_stops() {
    let mut cluster = with_keys(20, 2);
    cluster.node(1).is_damaged = true;
    let outcome = check(&mut cluster);
    assert_eq!((outcome.checksum, ids(&outcome.differing)), (None, vec![1, 2]));
    cluster.run(5 * SECOND);
    assert!(stopped(&cluster).is_empty());
    cluster.settle();
}

#[test]
fn a_replica_that_was_away_is_compared_when_it_has_the_log() {
    for damaged in [false, true] {
        let mut cluster = with_keys(21, 3);
        let leader = cluster.wait_leader();
        let away = 1 + leader % 3;
        cluster.crash(away);
        let outcome = check(&mut cluster);
        assert!(outcome.checksum.is_some() && outcome.differing.is_empty());
        assert_eq!(ids(&outcome.missing), [away]);
        cluster.node(away).is_damaged = damaged;
        cluster.start(away);
        cluster.run(5 * SECOND);
        assert_eq!(!stopped(&cluster).is_empty(), damaged);
    }
}

#[test]
fn a_leader_compares_only_what_every_store_is_known_to_execute() {
    let mut cluster = with_keys(22, 3);
    let leader = cluster.wait_leader();
    // It has heard of all, and one of them may be of an earlier version when it is replaced.
    cluster.crash(leader);
    cluster.start(leader);
    let away = 1 + leader % 3;
    cluster.crash(away);
    let other = 6 - leader - away;
    cluster.until(20, "a leader", |cluster| cluster.leader().is_some_and(|at| at == leader || at == other));
    let at = cluster.leader().expect("just seen");
    if at == other {
        let transfer = kontiki_raftstore::Event::TransferLeader { region: REGION, to: StoreId(leader) };
        cluster.node(other).inbox.push_back(transfer);
        cluster.until(20, "it leads", |cluster| cluster.leader() == Some(leader));
    }
    let ticket = begin(&mut cluster, leader);
    cluster.until(10, "an answer", |cluster| cluster.answers.contains_key(&ticket));
    let Answer::Refused(RegionError::ServerIsBusy { reason, .. }) = &cluster.answers[&ticket] else {
        panic!("{:?}", cluster.answers[&ticket])
    };
    assert!(reason.contains(&format!("store {away} has not said")), "{reason}");
    cluster.start(away);
    cluster.run(3 * SECOND);
    assert!(check(&mut cluster).is_equal());
}

#[test]
fn one_check_at_a_time_and_one_after_the_other() {
    let mut cluster = with_keys(23, 3);
    let leader = cluster.wait_leader();
    cluster.nodes.values_mut().for_each(|node| node.job_delay_ms_max = 2000);
    begin(&mut cluster, leader);
    cluster.run(SECOND / 20);
    let second = begin(&mut cluster, leader);
    cluster.until(10, "an answer", |cluster| cluster.answers.contains_key(&second));
    assert!(matches!(cluster.answers[&second], Answer::Refused(RegionError::ServerIsBusy { .. })));
    cluster.until(10, "an outcome", |cluster| !outcomes(cluster).is_empty());
    assert!(check(&mut cluster).is_equal());
}

#[test]
fn a_leader_that_steps_down_says_that_its_check_has_no_end() {
    let mut cluster = with_keys(24, 3);
    let leader = cluster.wait_leader();
    cluster.nodes.values_mut().for_each(|node| node.job_delay_ms_max = 60_000);
    begin(&mut cluster, leader);
    cluster.run(SECOND / 2);
    cluster.partition(&[leader]);
    cluster.until(20, "an outcome", |cluster| !outcomes(cluster).is_empty());
    assert!(!outcomes(&cluster)[0].is_equal());
    cluster.heal();
    cluster.nodes.values_mut().for_each(|node| node.job_delay_ms_max = 100);
    cluster.run(5 * SECOND);
    assert!(check(&mut cluster).is_equal());
}

#[test]
fn a_region_that_hibernates_is_compared_and_hibernates_again() {
    let mut cluster = with_keys_and(25, 3, Config { hibernate_ticks: 10, ..config() });
    let hibernates = |cluster: &mut Cluster| (1..=3).all(|id| cluster.status(id).hibernates);
    cluster.until(20, "it hibernates", hibernates);
    assert!(check(&mut cluster).is_equal());
    cluster.until(20, "it hibernates again", hibernates);
}

#[test]
fn the_only_replica_of_a_region_agrees_with_itself() {
    let mut cluster = with_keys(26, 1);
    assert!(check(&mut cluster).is_equal());
}

#[test]
fn replicas_that_come_later_and_regions_of_splits_are_compared() {
    let mut cluster = with_keys(27, 3);
    let right = kontiki_raftstore::RegionId(9);
    cluster.split_surely(&[(right, b"k5")]);
    assert!(check(&mut cluster).is_equal());
    // A new replica starts from a snapshot.
    let leader = cluster.wait_leader();
    let gone = 1 + leader % 3;
    let region = cluster.region_at(b"k1");
    let old = region.peer_on(StoreId(gone)).expect("a member");
    cluster.checker.members_change = true;
    cluster.change_surely(MemberChange::Remove(old.id));
    let id = replica_id(77, REGION);
    cluster.crash(gone);
    cluster.node(gone).replace_disk(77);
    cluster.start(gone);
    cluster.change_surely(MemberChange::Add(Peer { id, store: StoreId(gone) }));
    cluster
        .until(20, "it has the data", |cluster| cluster.replica(gone).is_some_and(|status| status.applied_index > 1));
    assert!(check(&mut cluster).is_equal());
}

/// Random faults, writes and checks: no replica is ever blamed, because all are equal.
pub fn run(seed: u64, config: Config) -> Cluster {
    let mut cluster = Cluster::with_config(seed, 3, config);
    let end = 15 * SECOND;
    while cluster.now < end {
        if cluster.rng.chance(1, 60) {
            random::disturb(&mut cluster, 3);
        }
        for _ in 0..cluster.rng.below(4) {
            random::work(&mut cluster, 3);
        }
        if cluster.rng.chance(1, 30)
            && let Some(leader) = cluster.leader()
        {
            let action = Action::ComputeChecksum { expires_after_ms: EXPIRES_AFTER_MS };
            cluster.command(leader, REGION, Command { epoch: EPOCH, action });
        }
        cluster.step();
    }
    cluster
}

#[test]
fn random_faults_never_make_equal_replicas_differ() {
    let (mut equal, mut all) = (0, 0);
    for seed in 100..150 {
        let mut cluster = run(seed, Config { checksum_ticks_max: 30, ..random::hasty() });
        cluster.settle();
        let outcomes = outcomes(&cluster);
        assert!(outcomes.iter().all(|outcome| outcome.differing.is_empty()), "seed {seed}: {outcomes:?}");
        equal += outcomes.iter().filter(|outcome| outcome.is_equal()).count();
        all += outcomes.len();
    }
    assert!(equal > 100 && all > equal, "the runs cover checks of all kinds: {equal} of {all}");
}

/// A leader hands out what is durable on its own disk; its followers need not wait for that.
#[test]
fn results_that_come_before_the_leader_has_handed_out_the_command_count() {
    for seed in 30..35 {
        let mut cluster = with_keys(seed, 3);
        let leader = cluster.wait_leader();
        cluster.nodes.values_mut().for_each(|node| node.job_delay_ms_max = 1);
        cluster.node(leader).disk_stalled_until = cluster.now + Duration::from_millis(600);
        assert!(check(&mut cluster).is_equal(), "seed {seed}");
    }
}

#[test]
fn a_check_does_not_wait_for_a_store_that_is_silent_and_none_begins_then() {
    let config = Config { checksum_ticks_max: 6000, hibernate_ticks: 10, ..small_config() };
    let mut cluster = with_keys_and(40, 3, config);
    let leader = cluster.wait_leader();
    let away = 1 + leader % 3;
    cluster.nodes.values_mut().for_each(|node| node.job_delay_ms_max = 1000);
    begin(&mut cluster, leader);
    cluster.run(SECOND / 10);
    cluster.crash(away);
    cluster.until(20, "an outcome", |cluster| !outcomes(cluster).is_empty());
    let outcome = outcomes(&cluster).pop().expect("just seen");
    assert!(outcome.checksum.is_some() && ids(&outcome.missing) == [away], "{outcome:?}");
    let refused = begin(&mut cluster, leader);
    cluster.until(10, "an answer", |cluster| cluster.answers.contains_key(&refused));
    let Answer::Refused(RegionError::Impossible { why, .. }) = &cluster.answers[&refused] else {
        panic!("{:?}", cluster.answers[&refused])
    };
    assert!(why.contains("does not answer"), "{why}");
    cluster.nodes.values_mut().for_each(|node| node.job_delay_ms_max = 100);
    cluster.start(away);
    cluster.run(5 * SECOND);
    assert!(check(&mut cluster).is_equal());
}

#[test]
fn two_checks_that_are_asked_for_at_once_are_one() {
    let mut cluster = with_keys(41, 3);
    let leader = cluster.wait_leader();
    let (first, second) = (begin(&mut cluster, leader), begin(&mut cluster, leader));
    cluster.until(10, "an outcome", |cluster| !outcomes(cluster).is_empty());
    cluster.run(2 * SECOND);
    assert!(matches!(cluster.answers[&first], Answer::Ok { .. }));
    assert!(matches!(cluster.answers[&second], Answer::Refused(RegionError::ServerIsBusy { .. })));
    assert!(outcomes(&cluster).len() == 1 && outcomes(&cluster)[0].is_equal());
}
