//! Faults that must not disturb a region more than they have to: followers that restart, links that come and go, orders
//! that contradict each other.

use super::members::old_replica;
use crate::cluster::{Cluster, EPOCH, REGION, small_config};
use kontiki_engine::WriteBatch;
use kontiki_raftstore::{Answer, Config, Event, MemberChange, StoreId};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

fn others(leader: u64, stores: u64) -> Vec<u64> {
    (1..=stores).filter(|id| *id != leader).collect()
}

fn configs() -> [Config; 2] {
    [small_config(), Config { hibernate_ticks: 3, ..small_config() }]
}

/// Both followers restart at the same time: for less than an election timeout the leader does not notice, and for
/// longer it costs one election at most.
#[test]
fn prevote_reboot_majority() {
    for (seed, config) in (0..20_u64).flat_map(|seed| configs().map(|config| (seed, config))) {
        for (away, terms) in [(SECOND / 10, 0), (3 * SECOND, 1)] {
            let mut cluster = Cluster::with_config(seed, 3, config.clone());
            cluster.put_surely(b"k", b"v");
            let leader = cluster.wait_leader();
            let term = cluster.status(leader).term;
            let followers = others(leader, 3);
            if seed.is_multiple_of(2) {
                cluster.node(followers[0]).flush();
            }
            followers.iter().for_each(|id| cluster.crash(*id));
            cluster.run(away);
            followers.iter().for_each(|id| cluster.start(*id));
            cluster.put_surely(b"k", b"w");
            cluster.run(5 * SECOND);
            let now = cluster.wait_leader();
            let grown = cluster.status(now).term - term;
            assert!(grown <= terms, "seed {seed}, away for {away:?}: {grown} terms more");
            assert!(terms > 0 || now == leader, "seed {seed}: the leader stays");
            cluster.settle();
        }
    }
}

/// Of five stores, two that cannot exchange messages, leader or not: nothing happens.
#[test]
fn pair_isolated() {
    for (seed, config) in (0..4).flat_map(|seed| configs().map(|config| (seed, config))) {
        let mut cluster = Cluster::with_config(seed, 5, config);
        cluster.put_surely(b"k", b"v");
        let leader = cluster.wait_leader();
        let term = cluster.status(leader).term;
        let followers = others(leader, 5);
        let pairs = [(followers[0], followers[1]), (leader, followers[2]), (followers[1], followers[3])];
        for (one, other) in pairs {
            cluster.separate(one, other);
            for i in 0..100u32 {
                let ticket = cluster.put(leader, b"k", &i.to_le_bytes());
                cluster.until(2, "an answer", |cluster| cluster.answers.contains_key(&ticket));
                assert!(matches!(cluster.answers[&ticket], Answer::Ok { .. }), "seed {seed}, put {i}");
                cluster.run(SECOND / 20);
                assert!(cluster.lease_read(leader, b"k").is_ok(), "seed {seed}");
            }
            cluster.join(one, other);
            cluster.run(SECOND);
        }
        assert_eq!((cluster.leader(), cluster.status(leader).term), (Some(leader), term), "seed {seed}");
        assert!(cluster.nodes.values().all(|node| node.installs == 0), "no snapshot was needed");
        cluster.settle();
    }
}

/// One store after the other is cut off and comes back. Those that do not lead cost nothing; the leader costs an
/// election or two.
#[test]
fn flapping() {
    for (seed, config) in (0..4_u64).flat_map(|seed| configs().map(|config| (seed, config))) {
        let stores = if seed.is_multiple_of(2) { 3 } else { 5 };
        let mut cluster = Cluster::with_config(seed, stores, config);
        cluster.put_surely(b"k", b"v");
        let first = cluster.status(cluster.leader().expect("led")).term;
        let (mut leader_cuts, mut puts, mut done) = (0, Vec::new(), 0);
        for round in 0..20 {
            let cut = 1 + round % stores;
            leader_cuts += u64::from(cluster.leader() == Some(cut));
            let length = Duration::from_millis(300 + cluster.rng.below(1200));
            cluster.partition(&[cut]);
            for phase in 0..2 {
                let end = cluster.now + length;
                while cluster.now < end {
                    if let Some(leader) = cluster.leader() {
                        puts.push(cluster.put(leader, b"k", &cluster.now.as_millis().to_le_bytes()));
                    }
                    cluster.run(SECOND / 20);
                }
                if phase == 0 {
                    cluster.heal();
                }
            }
        }
        cluster.settle();
        let terms = cluster.status(cluster.leader().expect("led")).term - first;
        assert!(terms <= 2 * leader_cuts + 1, "seed {seed}: {terms} terms for {leader_cuts} cuts of a leader");
        for put in &puts {
            done += usize::from(matches!(cluster.answers.get(put), Some(Answer::Ok { .. })));
        }
        assert!(2 * done > puts.len() && puts.len() > 200, "seed {seed}: {done} of {} puts", puts.len());
    }
}

/// The last order counts.
#[test]
fn transfer_twice() {
    for seed in 0..20 {
        let mut cluster = Cluster::new(seed, 3);
        cluster.put_surely(b"k", b"v");
        let leader = cluster.wait_leader();
        let (first, second) = (others(leader, 3)[0], others(leader, 3)[1]);
        // The first target lags: its order waits.
        cluster.separate(leader, first);
        cluster.put_surely(b"k", b"w");
        for to in [first, second] {
            cluster.node(leader).inbox.push_back(Event::TransferLeader { region: REGION, to: StoreId(to) });
            cluster.step();
        }
        cluster.until(3, "the second leads", |cluster| cluster.leader() == Some(second));
        cluster.join(leader, first);
        for _ in 0..300 {
            cluster.step();
            assert_eq!(cluster.leader(), Some(second), "seed {seed}");
        }
        assert!(cluster.lease_read(second, b"k").is_ok());
        cluster.settle();
    }
}

/// A new leader by transfer whose applies are slow serves nothing that the earlier leader's clients could miss.
#[test]
fn transfer_slow_apply() {
    for seed in 0..10 {
        let mut cluster = Cluster::new(seed, 3);
        cluster.put_surely(b"k", b"v");
        let leader = cluster.wait_leader();
        let target = others(leader, 3)[0];
        cluster.node(target).apply_delay = 5 * SECOND;
        for i in 0..20u32 {
            cluster.put_surely(b"k", &i.to_le_bytes());
        }
        let applied = cluster.status(leader).applied_index;
        cluster.node(leader).inbox.push_back(Event::TransferLeader { region: REGION, to: StoreId(target) });
        cluster.until(5, "it is elected", |cluster| cluster.status(target).leads);
        let barrier = cluster.barrier(target);
        let mut refused = 0;
        cluster.until(60, "the barrier", |cluster| {
            let is_behind = cluster.status(target).applied_index < applied;
            assert!(!is_behind || !cluster.answers.contains_key(&barrier), "seed {seed}: early barrier");
            let read = cluster.lease_read(target, b"k");
            assert!(!is_behind || read.is_err(), "seed {seed}: an early read");
            refused += u32::from(read.is_err());
            cluster.answers.contains_key(&barrier)
        });
        assert!(refused > 50, "its applies took time");
        cluster.settle();
    }
}

/// The leader hands over, and the next one removes it. Writes stop for less than an election takes.
#[test]
fn remove_leader() {
    for seed in 0..20 {
        let mut cluster = Cluster::with_config(seed, 4, small_config());
        cluster.checker.members_change = true;
        cluster.put_surely(b"k", b"v");
        let old = cluster.wait_leader();
        let next = others(old, 4)[0];
        let id = old_replica(&cluster, old, old);
        cluster.node(old).inbox.push_back(Event::TransferLeader { region: REGION, to: StoreId(next) });
        let (mut last, mut longest, mut waiting, mut is_proposed) = (cluster.now, Duration::ZERO, None, false);
        let end = cluster.now + 10 * SECOND;
        while cluster.now < end {
            if let Some(ticket) = waiting.take_if(|ticket| cluster.answers.contains_key(ticket))
                && matches!(cluster.answers[&ticket], Answer::Ok { .. })
            {
                longest = longest.max(cluster.now - last);
                last = cluster.now;
            }
            if let Some(leader) = cluster.leader() {
                if waiting.is_none() {
                    let mut batch = WriteBatch::new();
                    batch.put(crate::cluster::families::DEFAULT, b"k", cluster.now.as_millis().to_le_bytes());
                    waiting = Some(cluster.propose(leader, EPOCH, batch));
                }
                if leader == next && !is_proposed {
                    cluster.change(next, EPOCH, MemberChange::Remove(id));
                    is_proposed = true;
                    if seed.is_multiple_of(2) {
                        cluster.crash(old);
                        cluster.start(old);
                    }
                }
            }
            cluster.step();
        }
        assert!(cluster.replica(old).is_none(), "seed {seed}: it is destroyed");
        assert_eq!(cluster.status(next).region.peers.len(), 3);
        assert!(longest < cluster.config.promise_duration(), "seed {seed}: no write for {longest:?}");
        cluster.put_surely(b"k", b"after");
    }
}
