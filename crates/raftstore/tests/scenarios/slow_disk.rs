//! A store whose log is slow leads nothing while other stores can, and the others do not wait for it. One whose log
//! fails hands over what it leads.

use super::leader_transfer::restart_with_priority;
use crate::cluster::{Cluster, REGION, small_config};
use kontiki_raftstore::{Answer, Config, Event, MemoryStatus, SlowLog, StoreId};
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
/// Ten times what a write of another disk takes.
const SLOWER_BY: Duration = Duration::from_millis(200);

/// Stores say how long their writes take in signs of life, which they give where regions may hibernate.
fn config() -> Config {
    let slow_log = SlowLog { fast_windows: 20, ..SlowLog::default() };
    Config { hibernate_ticks: 100, settled_ticks: 30, slow_log, ..small_config() }
}

fn log_is_slow(cluster: &Cluster, id: u64) -> bool {
    cluster.nodes[&StoreId(id)].store.as_ref().is_some_and(|store| store.log_speed().1)
}

fn memory(cluster: &Cluster, id: u64) -> MemoryStatus {
    cluster.nodes[&StoreId(id)].store.as_ref().expect("it is up").memory()
}

/// Writes at the leader, all the time, until the condition holds.
#[track_caller]
fn write_until(cluster: &mut Cluster, seconds: u64, what: &str, mut condition: impl FnMut(&mut Cluster) -> bool) {
    let mut count = 0_u32;
    cluster.until(seconds, what, |cluster| {
        count += 1;
        if let Some(leader) = cluster.leader() {
            cluster.put(leader, &(count % 50).to_be_bytes(), b"v");
        }
        condition(cluster)
    });
}

fn write_for(cluster: &mut Cluster, duration: Duration, mut check: impl FnMut(&mut Cluster)) {
    let end = cluster.now + duration;
    write_until(cluster, duration.as_secs() + 1, "time passes", |cluster| {
        check(cluster);
        cluster.now >= end
    });
}

#[test]
fn a_leader_with_a_slow_disk_moves_and_leads_again_when_the_disk_is_fast() {
    for seed in 0..10 {
        let mut cluster = Cluster::with_config(seed, 3, config());
        cluster.put_surely(b"k", b"v");
        restart_with_priority(&mut cluster, 2, 1);
        write_until(&mut cluster, 60, "store 2 leads", |cluster| cluster.leader() == Some(2));
        cluster.node(2).disk_slower_by = SLOWER_BY;
        write_until(&mut cluster, 5, "another leads", |cluster| cluster.leader().is_some_and(|leader| leader != 2));
        assert!(log_is_slow(&cluster, 2));
        // Neither its priority nor an order keeps leadership there.
        let leader = cluster.wait_leader();
        write_for(&mut cluster, 10 * SECOND, |cluster| assert_ne!(cluster.leader(), Some(2), "seed {seed}"));
        cluster.node(leader).inbox.push_back(Event::TransferLeader { region: REGION, to: StoreId(2) });
        write_until(&mut cluster, 10, "the order is executed", |cluster| cluster.status(2).leads);
        write_until(&mut cluster, 10, "and it moves again", |cluster| cluster.leader().is_some_and(|id| id != 2));
        cluster.node(2).disk_slower_by = Duration::ZERO;
        write_until(&mut cluster, 30, "it is fast again", |cluster| !log_is_slow(cluster, 2));
        write_until(&mut cluster, 60, "it leads again", |cluster| cluster.leader() == Some(2));
        cluster.settle();
    }
}

/// Writes have to wait for a slow disk wherever the leader is: it stays.
#[test]
fn a_leader_stays_where_no_majority_of_the_others_is_faster() {
    for seed in 0..5 {
        let mut cluster = Cluster::with_config(seed, 3, config());
        let leader = cluster.wait_leader();
        let term = cluster.status(leader).term;
        for id in [leader, leader % 3 + 1] {
            cluster.node(id).disk_slower_by = SLOWER_BY;
        }
        write_for(&mut cluster, 20 * SECOND, |cluster| assert!(cluster.status(leader).leads, "seed {seed}"));
        assert_eq!(cluster.status(leader).term, term);
        cluster.settle();
    }
}

/// A store whose disk is slow now and then, or only a little slower than others, keeps what it leads.
#[test]
fn a_leader_with_a_usual_disk_stays() {
    for seed in 0..5 {
        let mut cluster = Cluster::with_config(seed, 3, config());
        let leader = cluster.wait_leader();
        let mut step = 0;
        write_for(&mut cluster, 20 * SECOND, |cluster| {
            step += 1;
            let slower_by = if step % 200 < 10 { SLOWER_BY } else { 30 * MS };
            cluster.node(leader).disk_slower_by = slower_by;
            assert!(cluster.status(leader).leads && !log_is_slow(cluster, leader), "seed {seed}");
        });
        cluster.settle();
    }
}

/// Of five stores two are slow: the leader moves to one of the other three, not to the second slow one.
#[test]
fn no_leader_moves_to_a_store_that_is_slow_as_well() {
    for seed in 0..5 {
        let mut cluster = Cluster::with_config(seed, 5, config());
        let leader = cluster.wait_leader();
        let second = leader % 5 + 1;
        cluster.node(second).disk_slower_by = 2 * SLOWER_BY;
        write_for(&mut cluster, 5 * SECOND, |_| {});
        assert!(log_is_slow(&cluster, second));
        cluster.node(leader).disk_slower_by = SLOWER_BY;
        let moved = |cluster: &mut Cluster| cluster.leader().is_some_and(|id| id != leader);
        write_until(&mut cluster, 5, "another leads", moved);
        write_for(&mut cluster, 5 * SECOND, |cluster| {
            assert!(cluster.leader().is_none_or(|id| id != leader && id != second), "seed {seed}");
        });
        cluster.settle();
    }
}

/// What a slow follower has not written is bounded at its leader, and no write waits for it.
#[test]
fn a_slow_follower_delays_nothing_and_is_bounded_at_its_leader() {
    for seed in 0..5 {
        let limits = (4 << 10, 32 << 10);
        let config = Config {
            inflight_bytes_max: limits.0,
            append_bytes_max: 1 << 10,
            log_bytes_max: limits.1,
            memory_evict_percent: 0,
            ..config()
        };
        let mut cluster = Cluster::with_config(seed, 3, config);
        let leader = cluster.wait_leader();
        let follower = leader % 3 + 1;
        cluster.node(follower).disk_stalled_until = cluster.now + 600 * SECOND;
        let mut memory_max = 0;
        for i in 0..400_u32 {
            let ticket = cluster.put(leader, &(i % 50).to_be_bytes(), &[7; 1000]);
            let asked = cluster.now;
            cluster.until(2, "it is answered", |cluster| cluster.answers.contains_key(&ticket));
            assert!(matches!(cluster.answers[&ticket], Answer::Ok { .. }), "seed {seed}");
            assert!(cluster.now - asked <= 150 * MS, "seed {seed}: two disks and a round trip");
            memory_max = memory_max.max(memory(&cluster, leader).log_bytes);
            for id in 1..=3 {
                cluster.node(id).flush();
            }
        }
        assert!(memory_max <= 16 << 10, "seed {seed}: {memory_max} bytes of log in memory, of 400 KiB written");
        assert!(cluster.status(leader).log_bytes <= 2 * limits.1, "the log is not retained for it without bound");
        cluster.settle();
    }
}

/// Its last orders make another one lead at once, and nothing that was acknowledged is lost.
#[test]
fn a_store_whose_log_fails_hands_over_what_it_leads() {
    for seed in 0..50 {
        let mut cluster = Cluster::with_config(seed, 3, config());
        cluster.put_surely(b"k", b"v");
        let failed = cluster.wait_leader();
        cluster.run(SECOND);
        for i in 0..5_u32 {
            cluster.put(failed, &i.to_be_bytes(), b"in flight");
            cluster.step();
        }
        let (began, election) = (cluster.now, cluster.config.promise_duration());
        cluster.fail_disk(failed);
        cluster.until(20, "another leads", |cluster| cluster.leader().is_some());
        assert!(cluster.now - began < election, "seed {seed}: sooner than the others would notice its end");
        cluster.put_surely(b"k", b"after");
        cluster.start(failed);
        cluster.settle();
    }
}

/// Without others that could elect a leader it orders nothing.
#[test]
fn a_store_whose_log_fails_alone_orders_nothing() {
    let mut cluster = Cluster::with_config(1, 3, config());
    cluster.put_surely(b"k", b"v");
    let leader = cluster.wait_leader();
    for id in [leader % 3 + 1, (leader + 1) % 3 + 1] {
        cluster.node(id).disk_stalled_until = cluster.now + 600 * SECOND;
    }
    cluster.put(leader, b"k", b"w");
    cluster.run(3 * SECOND);
    let orders = cluster.node(leader).store.as_mut().expect("it is up").abdicate();
    assert!(orders.is_empty());
    cluster.crash(leader);
    cluster.settle();
    let mut alone = Cluster::with_config(1, 1, config());
    alone.put_surely(b"k", b"v");
    assert!(alone.node(1).store.as_mut().expect("it is up").abdicate().is_empty());
}
