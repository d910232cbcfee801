use super::leader_transfer::{left, stop_leading};
use crate::cluster::families;
use crate::cluster::node::Job;
use crate::cluster::{Cluster, EPOCH, REGION, small_config};
use kontiki_engine::{View, WriteBatch};
use kontiki_raftstore::{Config, Event, RegionId, StoreId};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// Takes a store away, writes without it, flushes and truncates; returns the leader.
pub fn leave_behind(cluster: &mut Cluster, away: u64) -> u64 {
    cluster.put_surely(b"before", b"1");
    cluster.put_surely(b"deleted", b"1");
    let first_missing = cluster.status(cluster.leader().expect("led")).last_index + 1;
    cluster.crash(away);
    for i in 0..30u32 {
        cluster.put_surely(format!("k{}", i % 7).as_bytes(), &i.to_le_bytes());
    }
    let leader = cluster.wait_leader();
    let mut batch = WriteBatch::new();
    batch.delete(families::DEFAULT, b"deleted");
    cluster.propose(leader, EPOCH, batch);
    cluster.run(SECOND);
    for id in 1..=3 {
        if id != away {
            cluster.node(id).flush();
        }
    }
    cluster.until(20, "the log is truncated", |cluster| {
        (1..=3).all(|id| id == away || cluster.status(id).truncated_index > first_missing)
    });
    cluster.wait_leader()
}

fn impatient() -> Config {
    Config { follower_dead_ticks: 20, ..small_config() }
}

#[test]
fn long_isolation_and_gc_vs_lagging() {
    for seed in 0..10 {
        let mut cluster = Cluster::with_config(seed, 3, impatient());
        let away = cluster.wait_leader() % 3 + 1;
        leave_behind(&mut cluster, away);
        cluster.start(away);
        cluster.until(30, "it catches up by a snapshot", |cluster| cluster.node(away).installs > 0);
        cluster.settle();
        assert!(cluster.node(away).visible.get(families::DEFAULT, b"deleted").expect("readable").is_none());
        // The file is removed once tables hold the data, and the log is truncated no further than that.
        assert_eq!(cluster.node(away).disk.files.len(), 1);
        cluster.node(away).flush();
        cluster.until(10, "no file is left on any store", |cluster| {
            cluster.nodes.values().all(|node| node.disk.files.is_empty())
        });
    }
}

#[test]
fn snapshot_crash() {
    // The receiver crashes after every number of steps from the arrival on, flushing half of the time in between.
    for crash_after in 0..40 {
        let mut cluster = Cluster::with_config(81 + crash_after, 3, impatient());
        let away = cluster.wait_leader() % 3 + 1;
        leave_behind(&mut cluster, away);
        cluster.start(away);
        cluster.until(30, "a snapshot arrives", |cluster| !cluster.node(away).disk.files.is_empty());
        for step in 0..crash_after {
            cluster.step();
            if step % 3 == 1 && crash_after % 2 == 0 {
                cluster.node(away).flush();
            }
        }
        cluster.crash(away);
        cluster.start(away);
        cluster.settle();
    }
}

#[test]
fn a_crash_between_install_and_flush_installs_again() {
    let mut cluster = Cluster::with_config(82, 3, impatient());
    let away = cluster.wait_leader() % 3 + 1;
    leave_behind(&mut cluster, away);
    cluster.start(away);
    cluster.until(30, "installed", |cluster| cluster.node(away).installs == 1);
    cluster.run(SECOND);
    cluster.put_surely(b"later", b"1");
    for installs in 2..5 {
        cluster.crash(away);
        cluster.start(away);
        cluster.until(5, "installed again", |cluster| cluster.node(away).installs == installs);
    }
    cluster.settle();
}

#[test]
fn stale_snapshot_and_snapshot_plus_append() {
    for seed in 0..20 {
        let mut cluster = Cluster::with_config(seed, 3, impatient());
        let away = cluster.wait_leader() % 3 + 1;
        leave_behind(&mut cluster, away);
        cluster.start(away);
        cluster.network_faults.delay_ms_max = 200;
        cluster.network_faults.duplication = 30;
        // Writes continue while the snapshot is built, sent and installed.
        cluster.until(30, "it catches up by a snapshot", |cluster| {
            let leader = cluster.wait_leader();
            cluster.put(leader, b"busy", b"1");
            cluster.node(away).installs > 0
        });
        cluster.settle();
    }
}

#[test]
fn a_second_snapshot_may_follow_before_the_first_is_flushed() {
    let mut cluster = Cluster::with_config(87, 3, impatient());
    let away = cluster.wait_leader() % 3 + 1;
    leave_behind(&mut cluster, away);
    cluster.start(away);
    cluster.until(30, "the first", |cluster| cluster.node(away).installs == 1);
    cluster.run(SECOND);
    cluster.partition(&[away]);
    for i in 0..40u32 {
        cluster.put_surely(b"more", &i.to_le_bytes());
    }
    for id in 1..=3 {
        if id != away {
            cluster.node(id).flush();
        }
    }
    let behind = cluster.status(away).last_index;
    let truncated = |c: &mut Cluster| (1..=3).all(|id| id == away || c.status(id).truncated_index > behind);
    cluster.until(30, "truncated beyond it", truncated);
    cluster.heal();
    cluster.until(30, "the second", |cluster| cluster.node(away).installs == 2);
    cluster.run(SECOND);
    assert_eq!(cluster.node(away).disk.files.len(), 1, "the first file is superseded");
    cluster.crash(away);
    cluster.start(away);
    cluster.settle();
}

/// Leaves `away` with one accepted snapshot whose install is delayed, and a second one needed.
fn second_snapshot_during_an_install(seed: u64, config: Config) -> (Cluster, u64) {
    // A short time on offer: the log is retained for that long, too.
    let mut cluster = Cluster::with_config(seed, 3, Config { snapshot_idle_ticks: 10, ..config });
    let away = cluster.wait_leader() % 3 + 1;
    leave_behind(&mut cluster, away);
    cluster.node(away).job_delay_ms_max = 8_000;
    cluster.start(away);
    let before = cluster.status(away).last_index;
    cluster.until(30, "the first snapshot is in the log", |cluster| cluster.status(away).last_index > before);
    cluster.run(SECOND / 5);
    cluster.partition(&[away]);
    for i in 0..20u32 {
        cluster.put_surely(b"more", &i.to_le_bytes());
    }
    for id in (1..=3).filter(|id| *id != away) {
        cluster.node(id).flush();
    }
    cluster.run(3 * SECOND);
    cluster.heal();
    (cluster, away)
}

fn install_twice(seed: u64, config: Config) -> (Cluster, u64) {
    let (mut cluster, away) = second_snapshot_during_an_install(seed, config);
    cluster.run(12 * SECOND);
    (cluster, away)
}

/// The same with a planted bug.
#[cfg(feature = "planted-bugs")]
pub fn late_removal(seed: u64, planted: kontiki_raftstore::planted::Planted) {
    let (mut cluster, away) = install_twice(seed, Config { planted, ..impatient() });
    cluster.crash(away);
    cluster.start(away);
    cluster.settle();
}

#[test]
fn a_removal_that_comes_late_hits_no_later_file() {
    // The second snapshot is refused while the first is being installed, is sent again, and is accepted before the
    // refused file is removed. The removal must not take the accepted one, which a start then needs.
    let mut again = 0;
    for seed in 0..24 {
        let (mut cluster, away) = install_twice(seed, impatient());
        again += usize::from(cluster.node(away).installs > 1);
        cluster.crash(away);
        cluster.start(away);
        cluster.settle();
        cluster.node(away).flush();
        cluster.until(20, "no file is left", |cluster| cluster.nodes.values().all(|node| node.disk.files.is_empty()));
    }
    assert!(again > 5, "a second snapshot was installed in {again} of 24 runs");
}

#[test]
fn a_store_that_has_lost_a_snapshot_file_asks_for_another() {
    for seed in 0..16 {
        let mut cluster = Cluster::with_config(seed, 3, impatient());
        let away = cluster.wait_leader() % 3 + 1;
        leave_behind(&mut cluster, away);
        cluster.start(away);
        cluster.until(30, "a snapshot is installed", |cluster| cluster.node(away).installs > 0);
        cluster.run(SECOND);
        cluster.crash_and_lose_files(away);
        if seed % 2 == 0 {
            // Otherwise the new snapshot ends where the lost one did.
            cluster.put_surely(b"later", b"1");
        }
        cluster.start(away);
        let installs = cluster.node(away).installs;
        // Nothing is written meanwhile: the replica asks by itself.
        cluster.until(30, "another is installed", |cluster| cluster.node(away).installs > installs);
        cluster.settle();
    }
}

#[test]
fn a_store_that_has_lost_a_snapshot_file_votes_confirms_leases_and_never_leads() {
    let mut cluster = Cluster::with_config(93, 3, impatient());
    let away = cluster.wait_leader() % 3 + 1;
    leave_behind(&mut cluster, away);
    cluster.start(away);
    cluster.until(30, "a snapshot is installed", |cluster| cluster.node(away).installs > 0);
    cluster.run(SECOND);
    cluster.crash_and_lose_files(away);
    cluster.start(away);
    // Its sends fail from now on, and the third store is away: this replica's vote is needed, its data is not there.
    let leader = cluster.wait_leader();
    let third = (1..=3).find(|id| ![leader, away].contains(id)).expect("three stores");
    cluster.node(away).job_delay_ms_max = 60_000;
    cluster.crash(third);
    cluster.until(10, "a lease that only this replica confirms", |cluster| cluster.leader() == Some(leader));
    cluster.put_surely(b"k", b"with its acknowledgement");
    cluster.crash(leader);
    cluster.start(third);
    for _ in 0..500 {
        cluster.step();
        assert!(!cluster.status(away).leads, "it could not serve");
    }
    cluster.start(leader);
    cluster.node(away).job_delay_ms_max = 200;
    cluster.crash(away);
    cluster.start(away);
    cluster.settle();
}

#[test]
fn cancel_on_step_down() {
    let mut cluster = Cluster::with_config(83, 3, impatient());
    let away = cluster.wait_leader() % 3 + 1;
    let leader = leave_behind(&mut cluster, away);
    cluster.start(away);
    let prepares = |c: &mut Cluster| c.node(leader).jobs.iter().any(|(_, job)| matches!(job, Job::Prepare { .. }));
    cluster.until(30, "it prepares a snapshot", prepares);
    cluster.partition(&[leader]);
    cluster.until(30, "it steps down", |cluster| !cluster.status(leader).leads);
    cluster.run(2 * SECOND);
    assert!(cluster.node(leader).views.is_empty(), "the view is released");
    cluster.settle();
}

#[test]
fn gc_not_persisted_and_gc_unflushed() {
    let mut cluster = Cluster::new(90, 3);
    for i in 0..100u32 {
        cluster.put_surely(b"k", &i.to_le_bytes());
    }
    cluster.run(5 * SECOND);
    for id in 1..=3 {
        assert_eq!(cluster.status(id).truncated_index, 1, "nothing is flushed, so nothing is truncated");
    }
    cluster.node(1).flush();
    cluster.until(5, "the log is truncated through what is flushed", |c| c.status(1).truncated_index > 90);
    assert_eq!((cluster.status(2).truncated_index, cluster.status(3).truncated_index), (1, 1));
    let _ = REGION;
    cluster.settle();
}

#[test]
fn a_log_past_its_bound_is_truncated_although_a_follower_lags() {
    let config = Config { log_bytes_max: 20 << 10, ..small_config() };
    let mut cluster = Cluster::with_config(91, 3, config);
    let away = cluster.wait_leader() % 3 + 1;
    cluster.put_surely(b"k", b"v");
    cluster.crash(away);
    for _ in 0..40 {
        cluster.put_surely(b"k", &[1; 1000]);
    }
    let leader = cluster.wait_leader();
    cluster.node(leader).flush();
    cluster.until(5, "it is truncated", |cluster| cluster.status(leader).truncated_index > 30);
    cluster.settle();
}

/// A follower that was away comes back under a steady load, with a log bound far below what is written while a snapshot
/// is sent and installed. Returns how many snapshots were installed until it had caught up, if it did.
fn comes_back_under_load(seed: u64, config: Config) -> Option<usize> {
    let config = Config { log_bytes_max: 4 << 10, ..config };
    let mut cluster = Cluster::with_config(seed, 3, config);
    let away = cluster.wait_leader() % 3 + 1;
    leave_behind(&mut cluster, away);
    (1..=3).for_each(|id| cluster.node(id).send_delay_ms_max = 2_000);
    cluster.node(away).job_delay_ms_max = 2_000;
    cluster.start(away);
    let deadline = cluster.now + 60 * SECOND;
    for round in 0u64.. {
        let leader = cluster.wait_leader();
        cluster.put(leader, format!("k{}", round % 50).as_bytes(), &[1; 100]);
        cluster.run(SECOND / 50);
        if round.is_multiple_of(20) {
            (1..=3).for_each(|id| cluster.node(id).flush());
        }
        let installs = cluster.node(away).installs;
        let applied = |id| cluster.status(id).applied_index;
        if installs > 0 && applied(away) + 10 > applied(leader) {
            cluster.settle();
            return Some(installs);
        }
        if cluster.now > deadline {
            return None;
        }
    }
    unreachable!("it ends with the deadline")
}

#[test]
fn a_follower_catches_up_by_one_snapshot_while_writes_go_on() {
    for seed in 0..12 {
        assert_eq!(comes_back_under_load(seed, impatient()), Some(1), "seed {seed}");
    }
}

/// With a planted bug.
#[cfg(feature = "planted-bugs")]
pub fn log_not_held(seed: u64, planted: kontiki_raftstore::planted::Planted) {
    let installs = comes_back_under_load(seed, Config { planted, ..impatient() });
    assert_eq!(installs, Some(1), "snapshots that were not usable");
}

#[test]
fn a_log_that_outgrows_what_is_kept_for_a_snapshot_is_truncated_and_counted() {
    let config = Config { log_bytes_max: 4 << 10, snapshot_log_bytes_max: 8 << 10, ..impatient() };
    let mut cluster = Cluster::with_config(94, 3, config);
    let away = cluster.wait_leader() % 3 + 1;
    let leader = leave_behind(&mut cluster, away);
    (1..=3).for_each(|id| cluster.node(id).send_delay_ms_max = 60_000);
    cluster.start(away);
    cluster.until(30, "a snapshot is in flight", |cluster| {
        cluster.node(leader).jobs.iter().any(|(_, job)| matches!(job, Job::Send { .. }))
    });
    let truncated = cluster.status(leader).truncated_index;
    for _ in 0..100 {
        cluster.put_surely(b"k", &[1; 1000]);
    }
    cluster.node(leader).flush();
    cluster.until(10, "it is truncated", |cluster| cluster.status(leader).truncated_index > truncated + 90);
    let abandoned =
        |cluster: &mut Cluster| cluster.node(leader).store.as_ref().expect("up").memory().abandoned_snapshots;
    assert_eq!(abandoned(&mut cluster), 1);
    // The send is still in progress, but useless: what is written now is retained for no follower (it is below the
    // larger bound).
    let truncated = cluster.status(leader).truncated_index;
    for _ in 0..6 {
        cluster.put_surely(b"k", &[1; 1000]);
    }
    cluster.node(leader).flush();
    cluster.until(10, "nothing is retained for it", |cluster| cluster.status(leader).truncated_index > truncated);
    assert!(cluster.node(leader).jobs.iter().any(|(_, job)| matches!(job, Job::Send { .. })), "still under way");
    assert_eq!(abandoned(&mut cluster), 1, "one snapshot is counted once");
    (1..=3).for_each(|id| cluster.node(id).send_delay_ms_max = 200);
    cluster.until(90, "it catches up anyway", |cluster| cluster.node(away).installs > 0);
    cluster.settle();
}

#[test]
fn a_store_that_refuses_snapshots_is_asked_less_and_less_often() {
    let mut cluster = Cluster::with_config(95, 3, impatient());
    let away = cluster.wait_leader() % 3 + 1;
    leave_behind(&mut cluster, away);
    cluster.network_faults.snapshots_fail = true;
    cluster.start(away);
    cluster.run(60 * SECOND);
    let taken: usize = (1..=3).map(|id| cluster.node(id).views_taken).sum();
    // With a view at each of its answers to heartbeats it would be some 300.
    assert!((2..40).contains(&taken), "{taken} views were taken in a minute");
    cluster.network_faults.snapshots_fail = false;
    cluster.until(60, "it catches up", |cluster| cluster.node(away).installs > 0);
    cluster.settle();
}

#[test]
fn no_view_is_taken_for_a_store_whose_log_cannot_be_written() {
    let mut cluster = Cluster::with_config(96, 3, impatient());
    let away = cluster.wait_leader() % 3 + 1;
    leave_behind(&mut cluster, away);
    cluster.start(away);
    let stalled = cluster.now + 20 * SECOND;
    cluster.node(away).disk_stalled_until = stalled;
    cluster.until(10, "it reports this", |cluster| !cluster.node(away).log_writable);
    cluster.run(SECOND);
    let taken = |cluster: &Cluster| -> usize { cluster.nodes.values().map(|node| node.views_taken).sum() };
    let before = taken(&cluster);
    cluster.run(10 * SECOND);
    assert_eq!(taken(&cluster), before, "no view is taken for a store that cannot write");
    cluster.until(60, "it catches up", |cluster| cluster.node(away).installs > 0);
    cluster.settle();
}

/// Its log is complete, but it has nothing to serve.
#[test]
fn a_store_that_installs_a_snapshot_gets_no_leadership() {
    let mut seen = 0;
    for seed in 0..12 {
        let mut cluster = Cluster::with_config(120 + seed, 3, impatient());
        let away = (cluster.wait_leader() + seed % 2) % 3 + 1;
        leave_behind(&mut cluster, away);
        cluster.node(away).job_delay_ms_max = 60_000;
        cluster.start(away);
        let leader = cluster.wait_leader();
        cluster.until(30, "its log is complete", |cluster| {
            let last = cluster.status(leader).last_index;
            cluster.replica(away).is_some_and(|replica| replica.durable_index == last)
        });
        cluster.run(SECOND);
        cluster.node(leader).inbox.push_back(Event::TransferLeader { region: REGION, to: StoreId(away) });
        for _ in 0..300 {
            cluster.step();
            assert!(cluster.node(away).installs > 0 || cluster.leader() == Some(leader), "an order has no effect");
        }
        if cluster.node(away).installs > 0 {
            continue;
        }
        seen += 1;
        let (began, election) = (cluster.now, cluster.config.promise_duration());
        stop_leading(&mut cluster, leader);
        cluster.until(5, "it is done", |cluster| left(cluster, leader) == 0);
        cluster.until(5, "the third leads", |cluster| cluster.leader() == Some(6 - leader - away));
        assert!(cluster.now - began < election, "seed {seed}: it is not the first choice");
        cluster.put_surely(b"k", b"v");
    }
    assert!(seen > 3, "{seen} runs cover it");
}

/// A snapshot that was on its way for long arrives behind a newer state.
#[test]
fn an_old_snapshot_replaces_nothing_newer() {
    for seed in 0..16 {
        let mut cluster = Cluster::with_config(140 + seed, 3, impatient());
        let away = cluster.wait_leader() % 3 + 1;
        leave_behind(&mut cluster, away);
        cluster.start(away);
        let mut sent = None;
        cluster.until(30, "a snapshot is on its way", |cluster| {
            let jobs = cluster.nodes.values().flat_map(|node| &node.jobs);
            let sends = jobs.filter_map(|(_, job)| match job {
                Job::Send { message, bytes, .. } => Some((message.clone(), bytes.clone())),
                _ => None,
            });
            sent = sends.last();
            sent.is_some()
        });
        let (message, bytes) = sent.expect("just seen");
        cluster.until(30, "it is installed", |cluster| cluster.node(away).installs > 0);
        for i in 0..20u32 {
            cluster.put_surely(b"newer", &i.to_le_bytes());
        }
        cluster.run(SECOND);
        cluster.node(away).flush();
        match seed % 4 {
            0 => {}
            1 => {
                cluster.crash(away);
                cluster.start(away);
                cluster.run(SECOND);
            }
            // Its range is larger than the region's.
            2 => cluster.split_surely(&[(RegionId(9), b"k3")]),
            _ => {
                let leader = cluster.wait_leader();
                cluster.node(leader).inbox.push_back(Event::TransferLeader { region: REGION, to: StoreId(away) });
                cluster.run(SECOND);
            }
        }
        let (installs, applied) = (cluster.node(away).installs, cluster.status(away).applied_index);
        cluster.node(away).receive_snapshot(message.clone(), bytes.clone());
        cluster.run(SECOND / 10);
        cluster.node(away).receive_snapshot(message, bytes);
        cluster.run(2 * SECOND);
        assert_eq!(cluster.node(away).installs, installs, "seed {seed}");
        assert!(cluster.status(away).applied_index >= applied);
        cluster.until(30, "its file is removed", |cluster| cluster.node(away).disk.files.is_empty());
        cluster.crash(away);
        cluster.start(away);
        cluster.settle();
    }
}
