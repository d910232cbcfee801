use crate::cluster::{Cluster, REGION, small_config};
use kontiki_raftstore::{Answer, Config, Event, StoreId};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const FOR_EVER: Duration = Duration::from_secs(1 << 20);

/// Bounds so small that a few hundred entries reach them.
pub fn narrow() -> Config {
    Config {
        proposal_bytes_max: 8 << 10,
        append_bytes_max: 8 << 10,
        unapplied_bytes_max: 64 << 10,
        memory_bytes_max: 1 << 20,
        applying_bytes_max: 16 << 10,
        apply_bytes_max: 8 << 10,
        log_bytes_max: 64 << 10,
        follower_dead_ticks: 15,
        ..small_config()
    }
}

/// Puts `count` values of 4 KiB at the leader, one per step, and flushes the leader now and then; returns how many were
/// answered as done.
fn load(cluster: &mut Cluster, count: u32) -> usize {
    let mut tickets = Vec::new();
    for i in 0..count {
        let leader = cluster.wait_leader();
        tickets.push(cluster.put(leader, &[b'a' + (i % 8) as u8], &[b'v'; 4096]));
        cluster.step();
        if i % 50 == 0 {
            cluster.node(leader).flush();
        }
    }
    cluster.run(2 * SECOND);
    let done = |ticket: &&_| matches!(cluster.answers.get(*ticket), Some(Answer::Ok { .. }));
    tickets.iter().filter(done).count()
}

#[test]
fn a_follower_that_cannot_apply_is_held_back_and_catches_up() {
    for seed in 0..4 {
        let mut cluster = Cluster::with_config(seed, 3, narrow());
        let leader = cluster.wait_leader();
        let slow = leader % 3 + 1;
        cluster.put_surely(b"k", b"old");
        cluster.node(slow).apply_delay = FOR_EVER;
        // The other two continue: nearly all of 4 MiB is done.
        let done = load(&mut cluster, 1000);
        assert!(done > 900, "{done} of 1000 are done");
        let status = cluster.status(slow);
        assert!(status.log_bytes < 128 << 10, "{} bytes of log", status.log_bytes);
        cluster.node(slow).release_applies();
        cluster.settle();
    }
}

#[test]
fn a_leader_whose_quorum_cannot_apply_refuses_and_recovers() {
    let mut cluster = Cluster::with_config(4, 3, narrow());
    let leader = cluster.wait_leader();
    cluster.put_surely(b"k", b"old");
    for id in (1..=3).filter(|id| *id != leader) {
        cluster.node(id).apply_delay = FOR_EVER;
    }
    let done = load(&mut cluster, 300);
    assert!(done < 100, "{done} of 300 are done although a majority holds no more");
    assert!(cluster.status(leader).leads, "heartbeats continue");
    for id in 1..=3 {
        cluster.node(id).release_applies();
    }
    cluster.settle();
}

#[test]
fn followers_that_are_full_of_what_is_not_committed_take_a_new_leaders_first_entry() {
    for seed in 0..4 {
        let mut cluster = Cluster::with_config(seed, 3, narrow());
        let old = cluster.wait_leader();
        cluster.put_surely(b"k", b"old");
        let others: Vec<u64> = (1..=3).filter(|id| *id != old).collect();
        // No acknowledgement arrives, so nothing is committed: the followers accept entries until they are full.
        cluster.cut.extend(others.iter().map(|id| (StoreId(*id), StoreId(old))));
        for _ in 0..40 {
            cluster.put(old, b"k", &[b'v'; 4096]);
            cluster.step();
        }
        for id in &others {
            let (held, append_max) = (cluster.status(*id).unapplied_bytes, cluster.config.append_bytes_max);
            assert!(held + append_max > cluster.config.unapplied_bytes_max, "store {id} is full: {held} bytes");
        }
        cluster.crash(old);
        cluster.cut.clear();
        // Only an entry of the new leader's own term can commit what fills them.
        cluster.put_surely(b"k", b"new");
        cluster.start(old);
        cluster.settle();
    }
}

#[test]
fn a_leader_counts_what_earlier_leaderships_left_in_its_log() {
    let mut cluster = Cluster::with_config(3, 3, narrow());
    let leader = cluster.wait_leader();
    cluster.put_surely(b"k", b"old");
    // The leader's applies are blocked, and it transfers leadership and gets it back.
    cluster.node(leader).apply_delay = FOR_EVER;
    let other = leader % 3 + 1;
    for _ in 0..3 {
        for _ in 0..30 {
            cluster.put(leader, b"k", &[b'v'; 4096]);
            cluster.step();
        }
        for (from, to) in [(leader, other), (other, leader)] {
            cluster.node(from).inbox.push_back(Event::TransferLeader { region: REGION, to: StoreId(to) });
            cluster.until(5, "leadership moves", |cluster| cluster.status(to).leads && !cluster.status(from).leads);
        }
    }
    let held = cluster.status(leader).unapplied_bytes;
    assert!(held < 2 * cluster.config.unapplied_bytes_max, "{held} bytes that are not applied");
    cluster.node(leader).release_applies();
    cluster.settle();
}

#[test]
fn a_full_disk_budget_asks_for_a_flush_and_drains() {
    // Only what the store requests is flushed: without that the logs could never be truncated.
    let config = Config {
        log_bytes_max: 64 << 20,
        memory_bytes_max: 256 << 10,
        stored_bytes_max: 512 << 10,
        snapshot_log_bytes_max: 256 << 20,
        ..narrow()
    };
    let mut cluster = Cluster::with_config(5, 3, config);
    let away = cluster.wait_leader() % 3 + 1;
    cluster.crash(away);
    for i in 0..300u32 {
        cluster.put_surely(&[b'a' + (i % 8) as u8], &[b'v'; 4096]);
    }
    let leader = cluster.wait_leader();
    assert!(cluster.status(leader).truncated_index > 100, "1.2 MiB went through a budget of 512 KiB");
    cluster.settle();
}

/// A load beside a follower that does not apply, with a planted bug.
#[cfg(feature = "planted-bugs")]
pub fn run_with(planted: kontiki_raftstore::planted::Planted) {
    let mut cluster = Cluster::with_config(7, 3, Config { planted, ..narrow() });
    let slow = cluster.wait_leader() % 3 + 1;
    cluster.put_surely(b"k", b"old");
    cluster.node(slow).apply_delay = FOR_EVER;
    load(&mut cluster, 400);
}
