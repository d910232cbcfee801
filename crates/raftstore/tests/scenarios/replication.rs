use super::snapshots::leave_behind;
use crate::cluster::families;
use crate::cluster::{Cluster, EPOCH, NetworkFaults, small_config};
use kontiki_engine::{View, WriteBatch};
use kontiki_raftstore::{Answer, Config, RegionError};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn log_conflict_and_dropped_proposals() {
    for seed in 0..10 {
        let mut cluster = Cluster::new(seed, 3);
        let old = cluster.wait_leader();
        cluster.put_surely(b"k", b"before");
        cluster.partition(&[old]);
        // These enter the old leader's log and no other.
        let lost: Vec<_> = (0..5).map(|i| cluster.put(old, b"k", format!("lost {i}").as_bytes())).collect();
        cluster.until(20, "another leader", |cluster| cluster.leader().is_some_and(|leader| leader != old));
        cluster.until(20, "every proposal is answered", |c| lost.iter().all(|ticket| c.answers.contains_key(ticket)));
        for ticket in &lost {
            assert_eq!(cluster.answers[ticket], Answer::Dropped, "the outcome is unknown, and reported as unknown");
        }
        cluster.put_surely(b"k", b"after");
        cluster.settle();
        let value = cluster.node(old).visible.get(families::DEFAULT, b"k").expect("readable");
        assert_eq!(value.as_deref(), Some(&b"after"[..]), "the divergent suffix is dropped");
    }
}

#[test]
fn a_proposal_whose_place_was_taken_is_told_so_or_dropped() {
    // The old leader steps down by the same message that overwrites its entry.
    let mut cluster = Cluster::new(19, 3);
    let old = cluster.wait_leader();
    cluster.partition(&[old]);
    let ticket = cluster.put(old, b"k", b"mine");
    cluster.run(SECOND / 10);
    // Paused, it does not notice that its quorum is lost.
    cluster.node(old).paused_until = cluster.now + 15 * SECOND;
    cluster.until(14, "another leader", |cluster| cluster.leader().is_some_and(|leader| leader != old));
    cluster.put_surely(b"k", b"theirs");
    cluster.heal();
    cluster.settle();
    let answer = &cluster.answers[&ticket];
    let superseded = Answer::Refused(RegionError::StaleCommand);
    assert!(*answer == superseded || *answer == Answer::Dropped, "{answer:?}");
}

#[test]
fn a_full_pipeline_refuses_as_busy_and_recovers() {
    let config = Config { proposal_bytes_max: 4 << 10, unapplied_bytes_max: 8 << 10, ..small_config() };
    let mut cluster = Cluster::with_config(20, 3, config);
    let leader = cluster.wait_leader();
    let tickets: Vec<_> = (0..10).map(|_| cluster.put(leader, b"k", &[0; 2000])).collect();
    cluster.run(2 * SECOND);
    let busy = |answer: &Answer| matches!(answer, Answer::Refused(RegionError::ServerIsBusy { .. }));
    let refused = tickets.iter().filter(|ticket| busy(&cluster.answers[*ticket])).count();
    let done = tickets.iter().filter(|ticket| matches!(cluster.answers[*ticket], Answer::Ok { .. })).count();
    assert_eq!((done, refused), (4, 6), "four of 2000 bytes fit into 8 KiB");
    for _ in 0..10 {
        cluster.put_surely(b"k", &[0; 2000]);
    }
    cluster.settle();
}

#[test]
fn out_of_order_and_duplicates() {
    for seed in 0..10 {
        let mut cluster = Cluster::new(seed, 3);
        cluster.network_faults =
            NetworkFaults { loss: 5, duplication: 50, delay_ms_max: 150, ..NetworkFaults::default() };
        for i in 0..20u32 {
            cluster.put_surely(b"k", &i.to_le_bytes());
        }
        cluster.settle();
        // Each step compared them with what is durable at the followers.
        assert!(cluster.checker.matches > 20, "{} match indices were seen to rise", cluster.checker.matches);
    }
}

/// Of five stores two are cut off, in half of the runs with the leader: they serve nothing, the others go on.
#[test]
fn one_partition() {
    for seed in 0..8 {
        let mut cluster = Cluster::new(seed, 5);
        let old = cluster.wait_leader();
        cluster.put_surely(b"k", b"before");
        let others: Vec<u64> = (1..=5).filter(|id| *id != old).collect();
        let minority = if seed % 2 == 0 { [old, others[0]] } else { [others[0], others[1]] };
        cluster.partition(&minority);
        cluster.until(20, "the majority has the only leader", |cluster| {
            cluster.leader().is_some_and(|leader| !minority.contains(&leader))
                && minority.iter().all(|id| !cluster.status(*id).leads)
        });
        for i in 0..10u32 {
            cluster.put_surely(b"k", &i.to_le_bytes());
        }
        for id in minority {
            assert!(cluster.lease_read(id, b"k").is_err());
            let asked = [cluster.put(id, b"k", b"minority"), cluster.barrier(id)];
            cluster.run(SECOND);
            let is_served = |ticket| matches!(cluster.answers.get(ticket), Some(Answer::Ok { .. }));
            assert!(!asked.iter().any(is_served), "store {id} serves");
        }
        cluster.settle();
        for node in cluster.nodes.values() {
            let value = node.visible.get(families::DEFAULT, b"k").expect("readable");
            assert_eq!(value.as_deref(), Some(&9u32.to_le_bytes()[..]));
        }
    }
}

/// A fifth to half of all messages is lost: writes are repeated, and what is acknowledged stays.
#[test]
fn lossy() {
    for seed in 0..12 {
        let mut cluster = Cluster::new(seed, 3);
        cluster.wait_leader();
        let loss = 20 + 10 * (seed % 4);
        cluster.network_faults = NetworkFaults { loss, delay_ms_max: 100, ..NetworkFaults::default() };
        for i in 0..10u32 {
            cluster.put_anywhere(&[b'a' + i as u8], &i.to_le_bytes());
        }
        cluster.settle();
        for (i, node) in (0..10u32).zip(cluster.nodes.values().cycle()) {
            let value = node.visible.get(families::DEFAULT, &[b'a' + i as u8]).expect("readable");
            assert_eq!(value.as_deref(), Some(&i.to_le_bytes()[..]));
        }
    }
}

/// Every message, and every snapshot.
#[test]
fn duplicates() {
    for seed in 0..10 {
        let config = Config { follower_dead_ticks: 20, ..small_config() };
        let mut cluster = Cluster::with_config(seed, 3, config);
        cluster.network_faults =
            NetworkFaults { duplication: 100, delay_ms_max: 50, snapshots_repeat: true, ..NetworkFaults::default() };
        let away = cluster.wait_leader() % 3 + 1;
        leave_behind(&mut cluster, away);
        cluster.start(away);
        cluster.until(30, "its snapshot arrives twice", |cluster| {
            cluster.node(away).installs > 0 && cluster.snapshots_repeated > 0
        });
        for i in 0..10u32 {
            cluster.put_surely(b"k", &i.to_le_bytes());
        }
        let second_installs = cluster.node(away).installs - 1;
        cluster.settle();
        assert_eq!(second_installs, 0, "the second file replaces nothing");
        cluster.node(away).flush();
        cluster.until(10, "and neither of the files stays", |cluster| {
            cluster.nodes.values().all(|node| node.disk.files.is_empty())
        });
    }
}

#[test]
fn batch_proposals() {
    let mut cluster = Cluster::new(23, 3);
    let leader = cluster.wait_leader();
    cluster.settle();
    let before = cluster.status(leader).last_index;
    let tickets: Vec<_> = (0..100u32).map(|i| cluster.put(leader, &i.to_be_bytes(), b"v")).collect();
    cluster.run(SECOND);
    for (ticket, index) in tickets.iter().zip(before + 1..) {
        assert_eq!(cluster.answers[ticket], Answer::Ok { index }, "each gets its own result, in order");
    }
}

#[test]
fn commit_without_the_leaders_disk() {
    let mut cluster = Cluster::new(24, 3);
    let leader = cluster.wait_leader();
    cluster.put_surely(b"k", b"1");
    cluster.node(leader).disk_stalled_until = cluster.now + SECOND * 9 / 10;
    let ticket = cluster.put(leader, b"k", b"2");
    let follower = leader % 3 + 1;
    cluster.until(2, "the followers have it and know it is committed", |cluster| {
        cluster.status(leader).committed_index > cluster.status(leader).durable_index
            && cluster.status(follower).committed_index == cluster.status(leader).committed_index
    });
    assert!(!cluster.answers.contains_key(&ticket), "raft 0.7.0 hands out entries only when they are durable here too");
    cluster.until(8, "an answer", |cluster| cluster.answers.contains_key(&ticket));
    assert!(cluster.status(leader).leads, "a stall below the bound does not cost leadership");
    cluster.settle();
}

#[test]
fn a_stalled_followers_disk_does_not_cost_the_lease() {
    let mut cluster = Cluster::new(26, 3);
    let leader = cluster.wait_leader();
    // One follower is away; the other's disk stalls with an append in flight.
    cluster.partition(&[leader % 3 + 1]);
    let slow = (leader + 1) % 3 + 1;
    cluster.node(slow).disk_stalled_until = cluster.now + 5 * SECOND;
    cluster.put(leader, b"k", b"v");
    for _ in 0..400 {
        cluster.step();
        assert_eq!(cluster.leader(), Some(leader));
    }
    cluster.settle();
}

#[test]
fn kill_all_and_lose_unsynced() {
    for seed in 0..20 {
        let mut cluster = Cluster::new(seed, 3);
        for round in 0..4u32 {
            for i in 0..5u32 {
                cluster.put_surely(format!("k{i}").as_bytes(), &round.to_le_bytes());
            }
            let leader = cluster.wait_leader();
            for i in 0..10u32 {
                cluster.put(leader, format!("k{}", i % 5).as_bytes(), b"in flight");
            }
            let steps = cluster.rng.below(8);
            for _ in 0..steps {
                cluster.step();
            }
            if round % 2 == 1 {
                cluster.node(leader).flush();
                cluster.step();
            }
            for id in 1..=3 {
                cluster.crash(id);
            }
            for id in 1..=3 {
                cluster.start(id);
            }
        }
        cluster.settle();
    }
}

#[test]
fn committed_batches_of_all_families_arrive_on_all_replicas() {
    let mut cluster = Cluster::new(33, 3);
    let leader = cluster.wait_leader();
    let mut batch = WriteBatch::new();
    for family in families::DATA_FAMILIES {
        batch.put(family, b"key", family.0.to_le_bytes());
    }
    batch.delete(families::TXN_LOCK, b"key");
    let ticket = cluster.propose(leader, EPOCH, batch);
    cluster.settle();
    assert!(matches!(cluster.answers[&ticket], Answer::Ok { .. }));
    for node in cluster.nodes.values() {
        let get = |family| node.visible.get(family, b"key").expect("readable").is_some();
        assert_eq!(families::DATA_FAMILIES.map(get), [true, true, false, true]);
    }
}
