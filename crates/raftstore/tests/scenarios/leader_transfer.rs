//! A leader whose log cannot be written, or whose process is about to end, transfers its leadership, and does not take
//! it back before that has changed. Leaders move to stores with a higher priority.

use crate::cluster::{Cluster, REGION, small_config};
use kontiki_raftstore::{Answer, Config, Event, RegionId, StoreId};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_leader_whose_disk_stalls_transfers_its_leadership_and_stays_a_follower_until_it_recovers() {
    for seed in 0..10 {
        let mut cluster = Cluster::new(seed, 3);
        cluster.put_surely(b"k", b"v");
        let stalled = cluster.wait_leader();
        cluster.node(stalled).disk_stalled_until = cluster.now + 600 * SECOND;
        let stuck = cluster.put(stalled, b"k", b"stuck");
        cluster.until(8, "another leader", |cluster| cluster.leader().is_some_and(|leader| leader != stalled));
        cluster.until(5, "the old one knows", |cluster| !cluster.status(stalled).leads);
        cluster.put_surely(b"k", b"after");
        // Neither an order nor the silence of the others makes it lead.
        let leader = cluster.wait_leader();
        cluster.node(leader).inbox.push_back(Event::TransferLeader { region: REGION, to: StoreId(stalled) });
        cluster.run(5 * SECOND);
        cluster.partition(&[stalled]);
        for _ in 0..500 {
            cluster.step();
            assert!(
                !cluster.status(stalled).leads && cluster.status(stalled).leader.is_none_or(|l| l.store.0 != stalled)
            );
        }
        cluster.settle();
        assert!(cluster.answers.contains_key(&stuck));
        let leader = cluster.wait_leader();
        if leader != stalled {
            cluster.node(leader).inbox.push_back(Event::TransferLeader { region: REGION, to: StoreId(stalled) });
            cluster.until(5, "it leads again", |cluster| cluster.leader() == Some(stalled));
        }
        cluster.settle();
    }
}

/// An election needs durable votes: without a quorum of them the leader stays, and serves reads.
#[test]
fn a_leader_among_stores_that_cannot_write_stays() {
    for seed in 0..5 {
        let mut cluster = Cluster::new(seed, 3);
        cluster.put_surely(b"k", b"v");
        let leader = cluster.wait_leader();
        let term = cluster.status(leader).term;
        for id in [leader, leader % 3 + 1] {
            cluster.node(id).disk_stalled_until = cluster.now + 20 * SECOND;
        }
        let stuck = cluster.put(leader, b"k", b"stuck");
        for _ in 0..1900 {
            cluster.step();
            assert!(cluster.lease_read(leader, b"k").is_ok(), "its lease needs no disk");
        }
        assert!(!cluster.answers.contains_key(&stuck));
        cluster.until(5, "the write continues when they can write", |cluster| cluster.answers.contains_key(&stuck));
        assert_eq!((cluster.leader(), cluster.status(leader).term), (Some(leader), term));
        cluster.settle();
    }
}

#[test]
fn a_store_that_can_write_keeps_what_it_leads() {
    let mut cluster = Cluster::new(3, 3);
    let leader = cluster.wait_leader();
    let write = cluster.put(leader, b"k", b"v");
    cluster.node(leader).inbox.push_back(Event::LogWritable { writable: true });
    cluster.run(5 * SECOND);
    assert_eq!(cluster.leader(), Some(leader));
    assert!(matches!(cluster.answers[&write], Answer::Ok { .. }));
}

/// What a store still has to hand over.
pub fn left(cluster: &Cluster, id: u64) -> usize {
    cluster.nodes[&StoreId(id)].store.as_ref().expect("it is up").leaderships_to_hand_over()
}

pub fn stop_leading(cluster: &mut Cluster, id: u64) {
    cluster.node(id).inbox.push_back(Event::StopLeading);
    cluster.step();
}

#[test]
fn a_store_that_stops_hands_its_leadership_over_and_takes_none_any_more() {
    for seed in 0..20 {
        let mut cluster = Cluster::new(seed, 3);
        cluster.put_surely(b"k", b"v");
        let stopping = cluster.wait_leader();
        let (began, election) = (cluster.now, cluster.config.promise_duration());
        stop_leading(&mut cluster, stopping);
        cluster.until(5, "it is done", |cluster| left(cluster, stopping) == 0);
        assert!(cluster.now - began < election, "seed {seed}: sooner than the others would notice its end");
        assert!(!cluster.status(stopping).leads);
        let next = cluster.wait_leader();
        assert!(cluster.now - began < election, "seed {seed}: and then one of them leads");
        // Neither an order nor the silence of the leader makes it lead, but it votes.
        cluster.node(next).inbox.push_back(Event::TransferLeader { region: REGION, to: StoreId(stopping) });
        cluster.node(stopping).inbox.push_back(Event::Campaign { region: REGION });
        cluster.run(5 * SECOND);
        let leader = cluster.wait_leader();
        assert_ne!(leader, stopping);
        cluster.partition(&[leader]);
        let third = 6 - leader - stopping;
        cluster.until(20, "the third leads, by its vote", |cluster| cluster.status(third).leads);
        cluster.heal();
        // Another process of the store leads again.
        cluster.crash(stopping);
        cluster.start(stopping);
        cluster.put_surely(b"k", b"after");
        let leader = cluster.wait_leader();
        if leader != stopping {
            cluster.run(SECOND);
            cluster.node(leader).inbox.push_back(Event::TransferLeader { region: REGION, to: StoreId(stopping) });
        }
        cluster.until(20, "it leads", |cluster| cluster.leader() == Some(stopping));
        cluster.settle();
    }
}

/// Its writes are decided before another store can lead: clients of a store that stops get no unknown outcome.
#[test]
fn a_store_that_stops_knows_the_outcome_of_its_writes() {
    let mut refused = 0;
    for seed in 0..200 {
        let mut cluster = Cluster::new(seed, 3);
        cluster.put_surely(b"k", b"v");
        let stopping = cluster.wait_leader();
        let mut writes = Vec::new();
        for _ in 0..10 {
            writes.push(cluster.put(stopping, b"k", b"before"));
            cluster.step();
        }
        stop_leading(&mut cluster, stopping);
        while cluster.status(stopping).leads {
            writes.push(cluster.put(stopping, b"k", b"while it hands over"));
            // One follower has everything, while the disks of the other two are slow.
            for id in [stopping, stopping % 3 + 1] {
                cluster.node(id).disk_stalled_until = cluster.now + Duration::from_millis(cluster.rng.below(100));
            }
            cluster.step();
        }
        cluster.until(5, "all are answered", |cluster| writes.iter().all(|write| cluster.answers.contains_key(write)));
        for write in writes {
            let answer = &cluster.answers[&write];
            assert!(!matches!(answer, Answer::Dropped), "seed {seed}");
            refused += usize::from(matches!(answer, Answer::Refused(_)));
        }
        cluster.settle();
    }
    assert!(refused > 0, "writes meet the transfer");
}

/// Every store is asked at the same time, as when a whole cluster is stopped: none waits for the others.
#[test]
fn stores_that_all_stop_do_not_wait_for_each_other() {
    for seed in 0..20 {
        let mut cluster = Cluster::new(seed, 3);
        cluster.put_surely(b"k", b"v");
        let leader = cluster.wait_leader();
        (1..=3).for_each(|id| cluster.node(id).inbox.push_back(Event::StopLeading));
        cluster.step();
        cluster.until(2, "all are done", |cluster| (1..=3).all(|id| left(cluster, id) == 0));
        assert_eq!(cluster.leader(), Some(leader), "seed {seed}: none of the others could lead");
        (1..=3).for_each(|id| cluster.crash(id));
        cluster.settle();
    }
}

#[test]
fn a_store_that_no_other_can_replace_hands_nothing_over() {
    let mut cluster = Cluster::new(1, 3);
    cluster.put_surely(b"k", b"v");
    let leader = cluster.wait_leader();
    cluster.crash(leader % 3 + 1);
    cluster.run(2 * SECOND);
    stop_leading(&mut cluster, leader);
    cluster.until(2, "it is done", |cluster| left(cluster, leader) == 0);
    assert_eq!(cluster.leader(), Some(leader), "one other is no quorum");
    assert!(cluster.lease_read(leader, b"k").is_ok());
    let mut alone = Cluster::new(1, 1);
    alone.put_surely(b"k", b"v");
    stop_leading(&mut alone, 1);
    assert_eq!(left(&alone, 1), 0);
    alone.put_surely(b"k", b"it still serves");
}

fn priority_config() -> Config {
    Config { settled_ticks: 30, ..small_config() }
}

/// Restarts a store with a priority.
pub fn restart_with_priority(cluster: &mut Cluster, id: u64, priority: i32) {
    cluster.crash(id);
    let before = std::mem::replace(&mut cluster.config.leader_priority, priority);
    cluster.start(id);
    cluster.config.leader_priority = before;
}

#[test]
fn leaders_move_to_the_store_with_the_highest_priority() {
    for seed in 0..10 {
        let mut cluster = Cluster::with_config(seed, 3, priority_config());
        cluster.put_surely(b"k", b"v");
        cluster.split_surely(&[(RegionId(9), b"h")]);
        restart_with_priority(&mut cluster, 2, 1);
        restart_with_priority(&mut cluster, 3, 7);
        let leads_all = |cluster: &Cluster, id| [REGION, RegionId(9)].map(|r| cluster.leader_of(r)) == [Some(id); 2];
        cluster.until(60, "store 3 leads both", |cluster| leads_all(cluster, 3));
        // It stays there.
        for _ in 0..2000 {
            cluster.step();
            assert!(leads_all(&cluster, 3), "seed {seed}");
        }
        // While it is away, the one with the second priority leads.
        cluster.crash(3);
        cluster.until(60, "store 2 leads both", |cluster| leads_all(cluster, 2));
        let (before, _) = (std::mem::replace(&mut cluster.config.leader_priority, 7), cluster.start(3));
        cluster.config.leader_priority = before;
        cluster.until(60, "store 3 leads both again", |cluster| leads_all(cluster, 3));
        cluster.settle();
    }
}

/// No proposals are accepted while a transfer waits for its target: a preferred store that lags has to catch up first.
#[test]
fn a_preferred_store_that_lags_does_not_lead() {
    let mut cluster = Cluster::with_config(5, 3, priority_config());
    cluster.put_surely(b"k", b"v");
    restart_with_priority(&mut cluster, 3, 1);
    cluster.until(60, "store 3 leads", |cluster| cluster.leader() == Some(3));
    cluster.crash(3);
    let leader = cluster.wait_leader();
    for i in 0..400_u32 {
        cluster.put(leader, &i.to_be_bytes(), b"v");
    }
    // So long that it could transfer its leadership at once.
    cluster.run(5 * SECOND);
    // It answers heartbeats, but the writes of its log take long.
    let (before, _) = (std::mem::replace(&mut cluster.config.leader_priority, 1), cluster.start(3));
    cluster.config.leader_priority = before;
    let stalled_until = cluster.now + Duration::from_millis(1900);
    cluster.node(3).disk_stalled_until = stalled_until;
    let mut refused = 0;
    while cluster.leader() != Some(3) {
        let Some(leader) = cluster.leader() else {
            cluster.step();
            continue;
        };
        let ticket = cluster.put(leader, b"k", b"w");
        cluster.run(Duration::from_millis(50));
        refused += u32::from(matches!(cluster.answers.get(&ticket), Some(Answer::Refused(_))));
    }
    assert!(cluster.now > stalled_until);
    assert!(refused <= 4, "{refused} puts of 50 ms each were refused");
    cluster.settle();
}

/// Stores that stop do not take a transfer that priorities ask for.
#[test]
fn a_preferred_store_that_stops_gets_no_leader() {
    let mut cluster = Cluster::with_config(6, 3, priority_config());
    cluster.put_surely(b"k", b"v");
    restart_with_priority(&mut cluster, 3, 1);
    cluster.until(60, "store 3 leads", |cluster| cluster.leader() == Some(3));
    stop_leading(&mut cluster, 3);
    cluster.until(5, "it is done", |cluster| left(cluster, 3) == 0);
    for _ in 0..3000 {
        cluster.step();
        assert!(!cluster.status(3).leads);
    }
    cluster.settle();
}
