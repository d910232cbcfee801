//! Regions in which nothing happens: docs/internals/hibernation.md.

use super::leader_transfer::{left, stop_leading};
use super::random;
use crate::cluster::{Cluster, EPOCH, REGION, small_config};
use kontiki_raftstore::{Answer, Config, Event, ReadRefusal, RegionError, RegionId, StoreId, Ticket};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
/// Ticks of 100 ms.
const HIBERNATE_TICKS: u64 = 30;

pub fn config() -> Config {
    Config { hibernate_ticks: HIBERNATE_TICKS, ..small_config() }
}

fn new_cluster(seed: u64) -> Cluster {
    Cluster::with_config(seed, 3, config())
}

fn hibernates(cluster: &Cluster, id: u64) -> bool {
    cluster.replica(id).is_some_and(|status| status.hibernates)
}

fn all_hibernate(cluster: &Cluster) -> bool {
    let replicas = cluster.nodes.values().filter_map(|node| node.store.as_ref()).flat_map(|store| store.status());
    cluster.nodes.values().all(|node| node.is_up()) && replicas.into_iter().all(|status| status.hibernates)
}

#[track_caller]
fn wait_until_all_hibernate(cluster: &mut Cluster) {
    cluster.until(20, "all hibernate", |cluster| all_hibernate(cluster));
}

/// A cluster that hibernates, and its leader.
fn asleep(seed: u64) -> (Cluster, u64) {
    let mut cluster = new_cluster(seed);
    cluster.put_surely(b"a", b"1");
    wait_until_all_hibernate(&mut cluster);
    let leader = cluster.wait_leader();
    (cluster, leader)
}

#[track_caller]
fn answer(cluster: &mut Cluster, ticket: Ticket) -> Answer {
    cluster.until(20, "an answer", |cluster| cluster.answers.contains_key(&ticket));
    cluster.answers[&ticket].clone()
}

#[test]
fn regions_without_work_send_nothing_but_one_sign_of_life_for_each_pair_of_stores() {
    let mut cluster = new_cluster(1);
    for (id, key) in [(9, b"d"), (10, b"h"), (11, b"p")] {
        cluster.split_surely(&[(RegionId(id), key)]);
    }
    wait_until_all_hibernate(&mut cluster);
    cluster.run(SECOND);
    cluster.record(2);
    let seconds = 20;
    cluster.run(SECOND * seconds);
    let messages = cluster.recorded().len() as u32;
    // Two other stores, each with one message in two ticks of 100 ms; clocks are within 5 %.
    assert!((180..=220).contains(&messages), "{messages} messages to a store with four regions in {seconds} s");
    assert!(all_hibernate(&cluster), "nothing wakes them");
    assert!(cluster.nodes.values().all(|node| node.persists.is_empty()));
}

#[test]
fn writes_and_reads_end_it_and_it_begins_again() {
    for seed in 0..20 {
        let (mut cluster, leader) = asleep(seed);
        cluster.run(SECOND * 2);
        assert_eq!(cluster.lease_read(leader, b"a"), Err(ReadRefusal::NoLease), "the lease has ended");
        let ticket = cluster.barrier(leader);
        let began = cluster.now;
        assert!(matches!(answer(&mut cluster, ticket), Answer::Ok { .. }), "seed {seed}");
        assert!(cluster.now - began < Duration::from_millis(200), "one round of messages");
        cluster.until(2, "a lease", |cluster| cluster.lease_read(leader, b"a").is_ok());
        let term = cluster.status(leader).term;
        wait_until_all_hibernate(&mut cluster);
        let ticket = cluster.put(leader, b"b", b"2");
        assert!(matches!(answer(&mut cluster, ticket), Answer::Ok { .. }), "seed {seed}");
        wait_until_all_hibernate(&mut cluster);
        assert_eq!(cluster.status(leader).term, term, "seed {seed}: no election");
        cluster.settle();
    }
}

#[test]
fn reads_by_lease_keep_a_region_awake() {
    let mut cluster = new_cluster(3);
    cluster.put_surely(b"a", b"1");
    let leader = cluster.wait_leader();
    for _ in 0..200 {
        cluster.run(SECOND / 10);
        assert!(cluster.lease_read(leader, b"a").is_ok());
        assert!(!hibernates(&cluster, leader));
    }
}

#[test]
fn a_silent_store_loses_its_leaders_as_fast_as_without_hibernation() {
    for seed in 0..30 {
        let (mut cluster, leader) = asleep(seed);
        cluster.crash(leader);
        let config = config();
        let bound = config.tick_interval * (4 * config.election_ticks as u32 + 10);
        let began = cluster.now;
        let has_other = |cluster: &Cluster| {
            (1..=3).any(|id| id != leader && cluster.replica(id).is_some_and(|status| status.leads))
        };
        cluster.until(30, "another leader", |cluster| has_other(cluster));
        assert!(cluster.now - began < bound, "seed {seed}: {:?}", cluster.now - began);
        cluster.start(leader);
        cluster.settle();
        wait_until_all_hibernate(&mut cluster);
    }
}

#[test]
fn a_store_that_starts_again_at_once_is_noticed() {
    for seed in 0..30 {
        let (mut cluster, leader) = asleep(seed);
        cluster.crash(leader);
        cluster.run(SECOND / 10);
        cluster.start(leader);
        // Its replica does not know that it led, and the others are not waiting for a heartbeat.
        cluster.until(10, "a leader", |cluster| (1..=3).any(|id| cluster.status(id).leads));
        cluster.settle();
        wait_until_all_hibernate(&mut cluster);
    }
}

#[test]
fn a_follower_that_starts_again_finds_the_leader() {
    for seed in 0..20 {
        let (mut cluster, leader) = asleep(seed);
        let follower = leader % 3 + 1;
        cluster.crash(follower);
        cluster.run(SECOND * 3);
        cluster.start(follower);
        cluster.until(10, "the leader is known", |cluster| cluster.status(follower).leader.is_some());
        wait_until_all_hibernate(&mut cluster);
        assert_eq!(cluster.wait_leader(), leader, "seed {seed}");
    }
}

#[test]
fn a_region_with_a_follower_that_lags_does_not_hibernate() {
    let mut cluster = new_cluster(4);
    cluster.put_surely(b"a", b"1");
    let leader = cluster.wait_leader();
    let follower = leader % 3 + 1;
    cluster.partition(&[follower]);
    cluster.put_surely(b"b", b"2");
    cluster.run(SECOND * 10);
    let leader = cluster.wait_leader();
    assert!(!hibernates(&cluster, leader));
    cluster.heal();
    wait_until_all_hibernate(&mut cluster);
    cluster.settle();
}

#[test]
fn lost_messages_only_delay_it() {
    let mut cluster = new_cluster(5);
    cluster.network_faults.loss = 40;
    cluster.put_surely(b"a", b"1");
    cluster.until(120, "all hibernate", |cluster| all_hibernate(cluster));
}

/// The first request after hibernation, whose messages are lost.
pub fn lost_request(seed: u64, config: Config) {
    let mut cluster = Cluster::with_config(seed, 3, config);
    cluster.put_surely(b"a", b"1");
    wait_until_all_hibernate(&mut cluster);
    let leader = cluster.wait_leader();
    cluster.partition(&[leader]);
    let ticket = if seed.is_multiple_of(2) { cluster.put(leader, b"a", b"2") } else { cluster.barrier(leader) };
    cluster.run(SECOND / 10);
    cluster.heal();
    answer(&mut cluster, ticket);
    cluster.settle();
}

#[test]
fn the_messages_of_a_request_that_ends_it_are_repeated() {
    for seed in 0..10 {
        lost_request(seed, config());
    }
}

#[test]
fn a_leader_that_is_cut_off_while_it_hibernates_serves_nothing_stale() {
    for seed in 0..20 {
        let (mut cluster, leader) = asleep(seed);
        cluster.partition(&[leader]);
        let has_other = |cluster: &Cluster| (1..=3).find(|id| *id != leader && cluster.status(*id).leads);
        cluster.until(10, "another leader", |cluster| has_other(cluster).is_some());
        let other = has_other(&cluster).expect("just seen");
        let ticket = cluster.put(other, b"a", b"2");
        assert!(matches!(answer(&mut cluster, ticket), Answer::Ok { .. }));
        assert_eq!(cluster.lease_read(leader, b"a"), Err(ReadRefusal::NoLease));
        let ticket = cluster.barrier(leader);
        cluster.run(SECOND * 5);
        assert!(!matches!(cluster.answers.get(&ticket), Some(Answer::Ok { .. })), "a quorum did not confirm it");
        cluster.settle();
    }
}

/// A cluster with 41 regions, whose replicas wake up one for each tick, and its region with the greatest number.
fn crowded(seed: u64) -> (Cluster, RegionId) {
    let mut cluster = Cluster::with_config(seed, 3, Config { wake_regions_per_tick_max: 1, ..config() });
    let keys: Vec<(RegionId, Vec<u8>)> = (0..40u8).map(|at| (RegionId(9 + u64::from(at)), vec![b'b', at])).collect();
    let keys: Vec<(RegionId, &[u8])> = keys.iter().map(|(id, key)| (*id, &key[..])).collect();
    cluster.split_surely(&keys);
    cluster.until(60, "all hibernate", |cluster| all_hibernate(cluster));
    (cluster, RegionId(48))
}

fn waking(cluster: &Cluster, id: u64) -> usize {
    cluster.nodes[&StoreId(id)].store.as_ref().map_or(0, |store| store.resting().1)
}

#[test]
fn a_region_that_is_asked_for_does_not_wait_its_turn() {
    for by_event in [true, false] {
        let (mut cluster, last) = crowded(6);
        let leader = cluster.leader_of(last).expect("it hibernates");
        cluster.crash(leader);
        let other = leader % 3 + 1;
        cluster.until(10, "others wake up", |cluster| waking(cluster, other) > 0);
        if by_event {
            cluster.barrier_in(other, last, EPOCH);
        } else {
            cluster.node(other).readers.note_request(last);
        }
        cluster.run(SECOND / 4);
        assert!(waking(&cluster, other) > 10, "most still wait");
        assert!(!cluster.replica_of(last, other).expect("there").hibernates, "{by_event}");
        cluster.until(5, "it has a leader", |cluster| {
            let replicas = (1..=3).filter_map(|id| cluster.replica_of(last, id));
            replicas.into_iter().any(|status| status.leads)
        });
    }
}

#[test]
fn a_leader_that_cannot_write_any_more_wakes_up_and_hands_over() {
    let (mut cluster, leader) = asleep(11);
    cluster.node(leader).inbox.push_back(Event::LogWritable { writable: false });
    cluster.until(20, "another leader", |cluster| (1..=3).any(|id| id != leader && cluster.status(id).leads));
    cluster.node(leader).inbox.push_back(Event::LogWritable { writable: true });
    cluster.settle();
}

#[test]
fn a_stall_of_a_store_is_not_the_silence_of_the_others() {
    let (mut cluster, leader) = asleep(9);
    let follower = leader % 3 + 1;
    cluster.node(follower).paused_until = cluster.now + SECOND * 4;
    cluster.run(SECOND * 12);
    assert!(all_hibernate(&cluster), "what had arrived during the stall was handled first");
}

#[test]
fn a_store_that_does_not_hibernate_does_not_agree_to() {
    let mut cluster = new_cluster(10);
    let leader = cluster.wait_leader();
    let follower = leader % 3 + 1;
    cluster.crash(follower);
    cluster.config.hibernate_ticks = 0;
    cluster.start(follower);
    cluster.run(SECOND * 15);
    assert!(!hibernates(&cluster, follower) && !hibernates(&cluster, leader));
}

#[test]
fn replicas_wake_up_a_few_at_a_time() {
    let (mut cluster, last) = crowded(7);
    let leader = cluster.leader_of(last).expect("it hibernates");
    cluster.crash(leader);
    let other = leader % 3 + 1;
    cluster.until(10, "they wake up", |cluster| waking(cluster, other) > 0);
    let (mut before, mut most) = (waking(&cluster, other), 0);
    while before > 0 {
        cluster.run(SECOND / 10);
        let now = waking(&cluster, other);
        assert!(now <= before, "the queue only gets shorter");
        most = most.max(before - now);
        before = now;
    }
    assert!(most <= 2, "one for each tick, of which two may be in 100 ms: {most}");
    cluster.start(leader);
    cluster.settle();
}

#[test]
fn a_log_is_truncated_during_hibernation() {
    let mut cluster = new_cluster(8);
    for i in 0..30u8 {
        cluster.put_surely(&[b'a' + i % 20], &[i]);
    }
    wait_until_all_hibernate(&mut cluster);
    for id in 1..=3 {
        cluster.node(id).flush();
    }
    cluster.run(SECOND * 3);
    for id in 1..=3 {
        let status = cluster.status(id);
        assert_eq!(status.truncated_index, status.last_index, "store {id}");
        assert!(status.hibernates);
    }
    cluster.put_surely(b"a", b"last");
    cluster.settle();
    assert!(cluster.nodes.values().all(|node| node.installs == 0), "no snapshot was needed");
}

/// Regions hibernate soon, and wake up one after the other.
pub fn random_config(seed: u64) -> Config {
    Config { hibernate_ticks: 3 + seed % 8, wake_regions_per_tick_max: 1, ..random::hasty() }
}

/// Random faults and work, with times without work in which regions hibernate. Returns how often a leader began to.
pub fn random_run(seed: u64, config: Config) -> (Cluster, u64) {
    let stores = if seed.is_multiple_of(5) { 5 } else { 3 };
    let mut cluster = Cluster::with_config(seed, stores, config);
    let mut hibernations = 0;
    let mut idle_until = Duration::ZERO;
    while cluster.now < SECOND * 25 {
        if cluster.rng.chance(1, 80) {
            random::disturb(&mut cluster, stores);
        }
        if cluster.rng.chance(1, 300) {
            idle_until = cluster.now + SECOND * (1 + cluster.rng.below(5) as u32);
        }
        if cluster.now >= idle_until {
            for _ in 0..cluster.rng.below(3) {
                random::work(&mut cluster, stores);
            }
        }
        let leads = |cluster: &Cluster| {
            (1..=stores).any(|id| cluster.replica(id).is_some_and(|status| status.leads && status.hibernates))
        };
        let before = leads(&cluster);
        cluster.step();
        hibernations += u64::from(!before && leads(&cluster));
    }
    (cluster, hibernations)
}

#[test]
fn random_faults_with_hibernation_from_100_seeds() {
    let mut hibernations = 0;
    for seed in 0..100 {
        let (mut cluster, count) = random_run(seed, random_config(seed));
        cluster.settle();
        wait_until_all_hibernate(&mut cluster);
        hibernations += count;
    }
    assert!(hibernations > 60, "the runs cover hibernation: {hibernations}");
}

/// The leaders wake up and hand over, a few with each tick.
#[test]
fn regions_that_hibernate_on_a_store_that_stops_get_other_leaders() {
    for seed in 0..10 {
        let mut cluster = Cluster::with_config(seed, 3, Config { wake_regions_per_tick_max: 1, ..config() });
        let keys: [&[u8]; 5] = [b"c", b"f", b"i", b"l", b"o"];
        for (id, key) in (10..).zip(keys) {
            cluster.split_surely(&[(RegionId(id), key)]);
        }
        wait_until_all_hibernate(&mut cluster);
        let led = |cluster: &Cluster, id| {
            cluster.regions().into_iter().filter(|region| cluster.leader_of(*region) == Some(id)).count()
        };
        let stopping = (1..=3).max_by_key(|id| led(&cluster, *id)).expect("three stores");
        assert!(led(&cluster, stopping) >= 2, "six regions on three stores");
        stop_leading(&mut cluster, stopping);
        cluster.until(10, "it is done", |cluster| left(cluster, stopping) == 0);
        let status = cluster.node(stopping).store.as_ref().expect("it is up").status();
        assert!(status.iter().all(|status| !status.leads), "seed {seed}");
        cluster.until(2, "the others lead", |cluster| {
            cluster.regions().into_iter().all(|region| cluster.leader_of(region).is_some_and(|id| id != stopping))
        });
        cluster.crash(stopping);
        cluster.settle();
    }
}

/// Whom a store names to clients as the leader.
fn named(cluster: &Cluster, by: u64) -> Option<u64> {
    let (_, leader) = cluster.nodes[&StoreId(by)].readers.region(REGION).expect("it has a replica");
    leader.map(|leader| leader.store.0)
}

/// Elections take their time; clients are not sent to a dead leader for so long.
#[test]
fn a_dead_leader_is_not_named_to_clients() {
    for seed in 0..10 {
        let mut cluster = Cluster::with_config(seed, 3, Config { election_ticks: 40, ..config() });
        cluster.put_surely(b"a", b"1");
        if seed % 2 == 0 {
            wait_until_all_hibernate(&mut cluster);
        }
        let leader = cluster.wait_leader();
        let follower = leader % 3 + 1;
        assert_eq!(named(&cluster, follower), Some(leader));
        cluster.crash(leader);
        cluster.until(3, "none is named", |cluster| named(cluster, follower).is_none());
        assert_eq!(cluster.status(follower).leader.map(|leader| leader.store.0), Some(leader), "no election yet");
        let ticket = cluster.put(follower, b"a", b"2");
        assert!(matches!(answer(&mut cluster, ticket), Answer::Refused(RegionError::NotLeader { leader: None, .. })));
        let other = 6 - leader - follower;
        cluster.until(30, "another leader is named", |cluster| {
            let named = named(cluster, follower);
            named.is_some_and(|named| named != leader) && named == self::named(cluster, other)
        });
        cluster.settle();
    }
}

#[test]
fn a_leader_to_which_the_connection_breaks_is_not_named_until_it_is_heard() {
    let (mut cluster, leader) = asleep(1);
    let follower = leader % 3 + 1;
    cluster.partition(&[leader]);
    cluster.node(follower).inbox.push_back(Event::Unreachable { store: StoreId(leader) });
    cluster.until(1, "none is named", |cluster| named(cluster, follower).is_none());
    cluster.heal();
    cluster.until(1, "it is named again", |cluster| named(cluster, follower) == Some(leader));
    assert!(all_hibernate(&cluster), "that is no reason to wake up");
}
