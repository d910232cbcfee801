//! The promise behind a lease: a follower that confirmed a leader votes for no other replica until the lease that it
//! supports has ended. `Checker` looks for two leases, and for stale reads, after each step.

use crate::cluster::{Cluster, REGION, STEP, small_config};
use kontiki_raftstore::{Answer, Config, Event, ReadRefusal, StoreId};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

fn others(leader: u64) -> (u64, u64) {
    (leader % 3 + 1, (leader + 1) % 3 + 1)
}

/// A follower that confirmed the leader's lease learns a higher term from a pre-vote's refusal, which was delayed by
/// its sender's disk. The core then forgets the leader, and with it its own reason not to vote. Returns whether the
/// timeouts of this seed let the situation arise.
pub fn learns_a_term_from_a_late_refusal(seed: u64, config: Config) -> bool {
    let mut cluster = Cluster::with_config(seed, 3, config);
    let leader = cluster.wait_leader();
    cluster.put_surely(b"k", b"old");
    let term = cluster.status(leader).term;
    let (one, two) = others(leader);
    // The leader is cut off for a moment. One of the others wins the pre-votes, and its disk stalls: it sends neither
    // its vote nor any answer.
    cluster.partition(&[leader]);
    while [one, two].iter().all(|id| cluster.status(*id).term == term) {
        cluster.step();
        if !cluster.status(leader).leads {
            return false;
        }
    }
    let (stalled, near) = if cluster.status(one).term > term { (one, two) } else { (two, one) };
    if cluster.status(near).term != term {
        return false;
    }
    cluster.node(stalled).disk_stalled_until = cluster.now + 60 * SECOND;
    // The other one asks the stalled one for a pre-vote: the refusal waits for the disk.
    while cluster.status(near).leader.is_some() {
        cluster.step();
        if !cluster.status(leader).leads {
            return false;
        }
    }
    cluster.run(5 * STEP);
    // It finds the old leader again and confirms its lease, for two seconds.
    cluster.join(leader, near);
    cluster.run(2 * SECOND);
    if cluster.leader() != Some(leader) || cluster.status(near).term != term {
        return false;
    }
    // Their connection is cut, and at the same time the disk recovers.
    cluster.separate(leader, near);
    cluster.node(stalled).disk_stalled_until = cluster.now;
    let end = cluster.now + 2 * cluster.config.lease_duration();
    let mut write = None;
    while cluster.now < end {
        cluster.step();
        if write.is_none() && cluster.status(stalled).leads {
            write = Some(cluster.put(stalled, b"k", b"new"));
        }
        let _ = cluster.lease_read(leader, b"k");
    }
    cluster.settle();
    true
}

#[test]
fn a_follower_that_learns_a_higher_term_keeps_its_promise() {
    let fit = (0..100).filter(|seed| learns_a_term_from_a_late_refusal(*seed, small_config())).count();
    assert!(fit >= 5, "the situation arises: {fit} of 100 seeds");
}

/// A follower that was paused handles a heartbeat at the end of a tick's interval and counts the tick of that interval
/// after it: `n` ticks from a heartbeat on take little more than `n - 2` intervals. Returns whether the slow store
/// became leader.
pub fn handles_a_heartbeat_before_the_tick_of_its_interval(seed: u64, config: Config) -> bool {
    let config = Config { tick_interval: SECOND, election_ticks: 4, heartbeat_ticks: 1, ..config };
    let mut cluster = Cluster::with_config(seed, 3, config);
    // The most that is permitted: a slow leader, fast followers.
    let slow = 1 + seed % 3;
    for id in 1..=3 {
        cluster.node(id).rate_percent = if id == slow { 95 } else { 105 };
    }
    cluster.until(60, "a leader", |cluster| cluster.leader().is_some());
    let first = cluster.leader().expect("just seen");
    cluster.node(first).inbox.push_back(Event::TransferLeader { region: REGION, to: StoreId(slow) });
    cluster.run(5 * SECOND);
    let leader = slow;
    let (near, far) = others(leader);
    cluster.separate(leader, far);
    cluster.run(10 * SECOND);
    if cluster.leader() != Some(leader) {
        return false;
    }
    // The near one is paused from the end of one interval of its clock to the end of the next, and resumes when the
    // leader has just sent a heartbeat.
    let still = Duration::from_millis(940);
    let into = |cluster: &Cluster, id: u64, at: Duration| {
        cluster.nodes[&StoreId(id)].local(at).as_millis() % SECOND.as_millis()
    };
    cluster.until(600, "the clocks fit", |cluster| {
        into(cluster, near, cluster.now) >= 960 && (30..150).contains(&into(cluster, leader, cluster.now + still))
    });
    let wake = cluster.now + still;
    cluster.node(near).paused_until = wake;
    while cluster.now < wake + 2 * STEP {
        cluster.step();
    }
    cluster.separate(leader, near);
    let cut_at = cluster.now;
    while cluster.now < cut_at + 6 * SECOND {
        // Often enough to find the first moment at which the near one would vote, and seldom enough to be elected.
        cluster.node(far).inbox.push_back(Event::Campaign { region: REGION });
        cluster.run(15 * STEP);
    }
    cluster.settle();
    true
}

#[test]
fn a_heartbeat_that_is_handled_before_the_tick_of_its_interval_is_promised_the_whole_time() {
    let fit = (0..12).filter(|seed| handles_a_heartbeat_before_the_tick_of_its_interval(*seed, small_config())).count();
    assert!(fit >= 6, "the situation arises: {fit} of 12 seeds");
}

/// The leader orders a transfer and is cut off from all stores when the target campaigns.
pub fn is_cut_off_after_its_order(seed: u64, config: Config) {
    let mut cluster = Cluster::with_config(seed, 3, config);
    cluster.put_surely(b"k", b"old");
    cluster.settle();
    let leader = cluster.wait_leader();
    let (target, _) = others(leader);
    let term = cluster.status(leader).term;
    cluster.node(leader).inbox.push_back(Event::TransferLeader { region: REGION, to: StoreId(target) });
    cluster.until(2, "the target campaigns", |cluster| cluster.status(target).term > term);
    cluster.partition(&[leader]);
    let mut write = None;
    for _ in 0..150 {
        cluster.step();
        if write.is_none() && cluster.status(target).leads {
            write = Some(cluster.put(target, b"k", b"new"));
        }
        let _ = cluster.lease_read(leader, b"k");
    }
    let written = write.and_then(|ticket| cluster.answers.get(&ticket));
    assert!(matches!(written, Some(Answer::Ok { .. })), "the target was elected at once: {written:?}");
    cluster.settle();
}

#[test]
fn a_transfer_suspends_the_lease_of_a_leader_that_is_cut_off_after_its_order() {
    for seed in 0..10 {
        is_cut_off_after_its_order(seed, small_config());
    }
}

#[test]
fn a_transfer_to_a_store_that_dies_costs_the_lease_for_a_moment_only() {
    let mut cluster = Cluster::new(5, 3);
    cluster.put_surely(b"k", b"v");
    cluster.settle();
    let leader = cluster.wait_leader();
    let (target, _) = others(leader);
    cluster.node(leader).inbox.push_back(Event::TransferLeader { region: REGION, to: StoreId(target) });
    cluster.step();
    assert_eq!(cluster.lease_read(leader, b"k"), Err(ReadRefusal::NoLease), "the target may campaign");
    cluster.take_messages(leader, target);
    cluster.crash(target);
    cluster.until(4, "the transfer is given up and a quorum knows", |c| c.lease_read(leader, b"k").is_ok());
}

#[test]
fn a_second_transfer_does_not_end_the_suspicion_of_the_first() {
    for seed in 0..10 {
        let mut cluster = Cluster::new(seed, 3);
        cluster.put_surely(b"k", b"v");
        cluster.settle();
        let leader = cluster.wait_leader();
        let (first, second) = others(leader);
        // Both orders are delayed; the second target confirms entries later and so has not campaigned.
        cluster.node(leader).inbox.push_back(Event::TransferLeader { region: REGION, to: StoreId(first) });
        cluster.step();
        let held = cluster.take_messages(leader, first);
        assert!(!held.is_empty(), "the first order is in flight");
        cluster.cut.insert((StoreId(leader), StoreId(first)));
        cluster.node(leader).inbox.push_back(Event::TransferLeader { region: REGION, to: StoreId(second) });
        cluster.step();
        cluster.take_messages(leader, second);
        cluster.until(5, "a lease, confirmed by the second target", |c| c.lease_read(leader, b"k").is_ok());
        // The first order arrives. Its target received nothing since and may or may not campaign; no lease may be
        // broken by it.
        cluster.node(first).inbox.extend(held.into_iter().map(Event::Message));
        cluster.separate(leader, second);
        let write = cluster.put(first, b"k", b"new");
        for _ in 0..200 {
            cluster.step();
            let _ = cluster.lease_read(leader, b"k");
        }
        let _ = cluster.answers.get(&write);
        cluster.settle();
    }
}

#[test]
fn an_order_to_campaign_that_arrives_a_minute_late_does_no_harm() {
    for seed in 0..10 {
        let mut cluster = Cluster::new(seed, 3);
        cluster.put_surely(b"k", b"v");
        cluster.settle();
        let leader = cluster.wait_leader();
        let (target, _) = others(leader);
        cluster.node(leader).inbox.push_back(Event::TransferLeader { region: REGION, to: StoreId(target) });
        cluster.step();
        let late = cluster.take_messages(leader, target);
        cluster.run(60 * SECOND);
        let term = cluster.status(leader).term;
        // Nothing was written: the target's log ends where it ended when the order was given.
        cluster.node(target).inbox.extend(late.into_iter().map(Event::Message));
        cluster.run(2 * SECOND);
        assert_eq!((cluster.leader(), cluster.status(leader).term), (Some(leader), term));
    }
}

/// Followers promised a long time, and start again with a configuration that promises a short one.
pub fn restarts_with_a_shorter_promise(seed: u64, config: Config) {
    let long = Config { election_ticks: 60, ..config.clone() };
    let mut cluster = Cluster::with_config(seed, 3, long);
    cluster.until(60, "a leader", |cluster| cluster.leader().is_some());
    let leader = cluster.leader().expect("just seen");
    let (near, far) = others(leader);
    cluster.put_surely(b"k", b"old");
    cluster.run(2 * SECOND);
    cluster.config = config;
    for id in [near, far] {
        cluster.crash(id);
        cluster.start(id);
        cluster.separate(leader, id);
    }
    let mut write = None;
    for _ in 0..1500 {
        cluster.step();
        let new = [near, far].into_iter().find(|id| cluster.status(*id).leads);
        if let Some(new) = new.filter(|_| write.is_none()) {
            write = Some(cluster.put(new, b"k", b"new"));
        }
        let _ = cluster.lease_read(leader, b"k");
    }
    let written = write.and_then(|ticket| cluster.answers.get(&ticket));
    assert!(matches!(written, Some(Answer::Ok { .. })), "the two continue when the promise has ended");
}

#[test]
fn a_restart_with_a_shorter_promise_waits_for_the_longer_one() {
    for seed in 0..10 {
        restarts_with_a_shorter_promise(seed, small_config());
    }
}
