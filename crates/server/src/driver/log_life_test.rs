//! The life of raft logs in whole nodes: what is reported of followers that lag, and what bounds the log on disk.

use super::several_nodes_test::{DATA, Nodes, Tune};
use super::*;
use kontiki_engine::{Options, StreamId};
use kontiki_env::fs::CrashMode;
use kontiki_env::rng::Rng;
use kontiki_raftlog::LogChoice;
use kontiki_raftstore::Config;

const VALUE_BYTES: usize = 1_000;

fn small(raft: &mut Config, options: &mut Options) {
    raft.hibernate_ticks = 0;
    options.memtable_bytes = 64 << 10;
    options.log_segment_bytes = 16 << 10;
    options.log_bytes_max = 256 << 10;
}

#[test]
fn a_follower_that_lags_is_reported_and_warned_of_until_it_has_caught_up() {
    let tune: Tune = |raft, _| {
        raft.lag_warn_bytes = 8 * VALUE_BYTES;
        raft.lag_warn_ticks = 30;
    };
    let mut nodes = Nodes::start(3, tune);
    nodes.put(DATA, b"k", b"first").expect("a cluster");
    let leader = nodes.leader(DATA);
    let away = leader % 3 + 1;
    nodes.run_for(Duration::from_secs(6));
    assert_eq!(nodes.handle(leader).lag().lagging, [], "none lags");
    nodes.away = Some(away);
    for i in 0..20u32 {
        nodes.put(DATA, &i.to_be_bytes(), &[7; VALUE_BYTES]).expect("by two of three");
    }
    let leader = nodes.leader(DATA);
    let handle = nodes.handle(leader);
    nodes.until("the report", |_| !handle.lag().lagging.is_empty());
    let report = handle.lag();
    let follower = report.lagging[0].follower;
    assert_eq!((follower.region, follower.store, follower.needs_snapshot), (DATA, StoreId(away), false));
    assert!(follower.entries >= 20 && follower.bytes >= 20 * VALUE_BYTES as u64, "{follower:?}");
    assert_eq!(report.all.worst[0], follower);
    nodes.until("the warning", |_| handle.counters().lag_warnings.get() == 1);
    assert!(handle.lag().lagging[0].since >= Duration::from_secs(1), "30 ticks are more: {:?}", handle.lag());
    let asked = handle.clone();
    let detail = nodes.run(async move { asked.replica_lag(DATA).await }).expect("a replica is there");
    assert!(detail.leads && detail.followers.contains(&follower), "{detail:?}");
    let asked = handle.clone();
    assert!(nodes.run(async move { asked.replica_lag(RegionId(77)).await }).is_err(), "there is none");
    nodes.away = None;
    nodes.until("it catches up", |_| handle.lag().lagging.is_empty() && handle.lag().all.worst.is_empty());
    assert_eq!(handle.counters().lag_warnings.get(), 1);
}

/// Regions that have too few entries to be truncated for their own sake: only a bound of all of them together helps.
fn fill_many_regions(tune: Tune) -> (u64, u64) {
    let mut nodes = Nodes::start(1, tune);
    nodes.put(DATA, b"a", b"first").expect("alone");
    let regions = nodes.split_at(b"bcdefghi");
    let mut bytes_max = 0;
    for i in 0..4_000u32 {
        let at = i as usize % regions.len();
        let key = [&[b'b' + at as u8][..], &i.to_be_bytes()].concat();
        nodes.put(regions[at], &key, &[7; VALUE_BYTES]).expect("alone");
        bytes_max = bytes_max.max(nodes.log_bytes(1));
    }
    (bytes_max, nodes.driver(1).replay_bytes_max)
}

#[test]
fn what_a_restart_reads_is_bounded_over_all_regions() {
    let (bytes, bound) = fill_many_regions(|raft, options| {
        small(raft, options);
        raft.truncate_entries_min = 1 << 40;
        raft.stored_bytes_max = 256 << 10;
    });
    assert!(bytes <= bound && bound < 2 << 20, "{bytes} of {bound} bytes");
    // The bound is the reason.
    let (bytes, _) = fill_many_regions(|raft, options| {
        small(raft, options);
        raft.truncate_entries_min = 1 << 40;
    });
    assert!(bytes > 4_000 * VALUE_BYTES as u64, "{bytes} bytes");
}

#[test]
fn a_quiet_region_with_few_entries_keeps_no_segment_of_the_log() {
    let mut nodes = Nodes::start(1, small);
    nodes.put(DATA, b"a", b"first").expect("alone");
    let quiet = nodes.split_at(b"q")[0];
    for key in [b"q1", b"q2", b"q3"] {
        nodes.put(quiet, key, b"quiet").expect("alone");
    }
    let stream = StreamId(quiet.0);
    let log_of = |nodes: &Nodes| nodes.handle(1).db().expect("built in").stream(stream).expect("readable");
    let before = log_of(&nodes);
    let newest = nodes.handle(1).db().expect("built in").log_retention().last().expect("one").segment;
    for i in 0..2_000u32 {
        nodes.put(DATA, &i.to_be_bytes(), &[7; VALUE_BYTES]).expect("alone");
    }
    let stats = nodes.handle(1).db().expect("built in").stats().log;
    let oldest = nodes.handle(1).db().expect("built in").log_retention()[0].segment;
    assert!(oldest > newest, "segment {oldest} is the oldest; {newest} had its entries");
    assert!(stats.rewritten_bytes > 0 && stats.bytes <= nodes.driver(1).replay_bytes_max, "{stats:?}");
    assert_eq!(log_of(&nodes), before, "none was truncated, and none is lost");
    for mode in [CrashMode::LoseUnsynced, CrashMode::Kill] {
        nodes.restart(1, mode);
        assert_eq!(log_of(&nodes).entries[..before.entries.len()], before.entries[..]);
        nodes.put(quiet, b"q4", b"after").expect("alone");
        for key in [b"q1", b"q2", b"q3"] {
            assert_eq!(nodes.stored(1, key), Some(b"quiet".to_vec()));
        }
    }
}

#[test]
fn raft_logs_in_memory_serve_until_the_process_ends() {
    let mut nodes = Nodes::start_with(3, small, Some(LogChoice::Memory));
    for i in 0..100u32 {
        nodes.put(DATA, &i.to_be_bytes(), &[7; VALUE_BYTES]).expect("a cluster");
    }
    assert_eq!(nodes.handle(1).status().raft_log, LogChoice::Memory);
    let machine = nodes.nodes[&1].machine.clone();
    drop(nodes);
    machine.fs.crash(CrashMode::Kill);
    let env = machine.restarted(Rng::new(9)).env();
    let members = (1..=3).map(|id| (id, format!("node:{id}"))).collect();
    let config = NodeConfig { members, ..NodeConfig::single("/data", "node:1") };
    let error = Driver::open(&env, config, 1).map(drop).expect_err("its logs are lost");
    assert!(error.to_string().contains("start with an empty directory"), "{error}");
}

#[test]
fn a_file_of_a_raft_log_does_not_keep_what_is_truncated() {
    let mut nodes = Nodes::start_with(1, small, Some(LogChoice::PerGroup));
    let mut bytes_max = 0;
    for i in 0..1_000u32 {
        nodes.put(DATA, &i.to_be_bytes(), &[7; VALUE_BYTES]).expect("alone");
        bytes_max = bytes_max.max(nodes.handle(1).log_usage().bytes);
    }
    let usage = nodes.handle(1).log_usage();
    assert!(usage.rewrites > 0 && usage.files == 3 && usage.open_files <= 2, "{usage:?}");
    // Without rewrites it would have all of them, and space ahead.
    assert!(bytes_max < 1_000 * VALUE_BYTES as u64, "{bytes_max}");
    assert!(nodes.handle(1).db().expect("built in").streams().is_empty(), "nothing is in the engine's log");
}
