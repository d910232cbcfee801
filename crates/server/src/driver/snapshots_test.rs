//! Snapshots of whole nodes, from the order for a view to data in tables: large ones, many at once, on full disks, and
//! over power losses at the receiver.

use super::several_nodes_test::{DATA, Nodes};
use super::snapshots::VIEWS_MAX;
use super::*;
use crate::families::{DATA_FAMILIES, FAMILIES};
use kontiki_engine::Options;
use kontiki_env::fs::{CrashMode, Fs, list_if_there};
use kontiki_env::rng::Rng;
use kontiki_raftstore::{Checksum, Config, SnapshotTables};
use std::path::Path;

const VALUE_BYTES: usize = 1_000;
/// Of power losses: one at every second operation of a receiver.
const ROUNDS: u32 = 40;

/// Logs of a few entries, and everything but the smallest snapshots taken in as many tables.
fn small(raft: &mut Config, options: &mut Options) {
    raft.hibernate_ticks = 0;
    raft.log_bytes_max = 4 * VALUE_BYTES;
    raft.truncate_entries_min = 2;
    raft.truncate_ticks = 3;
    raft.follower_dead_ticks = 10;
    raft.snapshot_tables = SnapshotTables { file_bytes_min: 4_000, family_bytes_min: 1_000, table_bytes: 64 << 10 };
    options.memtable_bytes = 64 << 10;
    options.log_segment_bytes = 64 << 10;
    options.log_bytes_max = 1 << 20;
}

/// Bytes that do not compress.
fn value(number: u32) -> Vec<u8> {
    let mut rng = Rng::new(u64::from(number));
    (0..VALUE_BYTES).map(|_| rng.below(256) as u8).collect()
}

fn begin() -> Nodes {
    let mut nodes = Nodes::start(3, small);
    nodes.put(DATA, b"a", b"first").expect("a cluster");
    nodes.delivers_snapshots = true;
    nodes
}

/// A follower of the region is away while so much is written that its leader has truncated its log.
fn outrun(nodes: &mut Nodes, region: RegionId, from: u32, writes: u32) -> u64 {
    let leader = nodes.leader(region);
    let away = nodes.away.unwrap_or(leader % 3 + 1);
    nodes.away = Some(away);
    let (descriptor, _) = nodes.handle(leader).region(region).expect("it leads");
    for i in from..from + writes {
        let key = [&descriptor.start_key[..], &i.to_be_bytes()].concat();
        nodes.put(region, &key, &value(i)).expect("by two of three");
    }
    away
}

/// Tables hold everything of these regions, and their logs almost nothing: who lacks something needs a snapshot.
fn until_truncated(nodes: &mut Nodes, leader: u64, regions: &[RegionId]) {
    nodes.until("the logs are truncated", |nodes| {
        nodes.handle(leader).state().flush().expect("written");
        let mut replicas = nodes.driver(leader).replicas().into_iter();
        replicas.all(|of| !regions.contains(&of.region.id) || of.truncated_index + 8 > of.last_index)
    });
}

/// Each of these replicas holds what its leader holds.
fn are_equal(nodes: &Nodes, regions: &[RegionId]) -> bool {
    let applied = |id: u64, region: RegionId| {
        let of = |replica: &&kontiki_raftstore::RegionStatus| replica.region.id == region;
        nodes.driver(id).replicas().iter().find(of).map(|replica| replica.applied_index)
    };
    let checksum = |id: u64, region: RegionId| {
        let (descriptor, _) = nodes.handle(id).region(region)?;
        let view = nodes.handle(id).state().snapshot();
        Checksum::new(&FAMILIES, descriptor, u64::MAX).advance(&view, u64::MAX).expect("readable")
    };
    regions.iter().all(|region| {
        let is_applied = (2..=3).all(|id| applied(id, *region).is_some_and(|at| Some(at) == applied(1, *region)));
        is_applied && (2..=3).all(|id| checksum(id, *region).is_some_and(|sum| Some(sum) == checksum(1, *region)))
    })
}

fn files_left(nodes: &Nodes, id: u64) -> Vec<String> {
    let fs = &nodes.nodes[&id].machine.fs;
    let list = |path: &str| list_if_there(fs, Path::new(path)).expect("readable");
    let folders = list("/data/snapshots").into_iter();
    let files = folders.flat_map(|folder| list(&format!("/data/snapshots/{folder}")));
    files.chain(list("/data/snapshot-tables")).collect()
}

/// Nothing of a snapshot is left when it is in tables.
fn until_clean(nodes: &mut Nodes, id: u64) {
    nodes.until("nothing is left", |nodes| {
        nodes.handle(id).state().flush().expect("written");
        files_left(nodes, id).is_empty() && nodes.handle(id).snapshots() == SnapshotsStatus::default()
    });
}

/// Scenario 79: a region of several tables in several families arrives in frames, and becomes tables again.
#[test]
fn a_large_region_arrives_as_it_is() {
    let mut nodes = begin();
    let away = outrun(&mut nodes, DATA, 0, 20);
    let leader = nodes.leader(DATA);
    let handle = nodes.handle(leader);
    // More than proposals would write in a test, in all families.
    let (descriptor, _) = handle.region(DATA).expect("it leads");
    let context = RegionContext::new(DATA, descriptor.epoch);
    for round in 0..40u32 {
        let mut batch = kontiki_engine::WriteBatch::new();
        for i in 0..20u32 {
            for family in DATA_FAMILIES {
                batch.put(
                    family,
                    [&b"large"[..], &(40 * i + round).to_be_bytes()].concat(),
                    &value(40 * i + round)[..900],
                );
            }
        }
        let (handle, context) = (handle.clone(), context.clone());
        nodes.run(async move { handle.propose(&context, batch).await }).expect("by two of three");
    }
    until_truncated(&mut nodes, leader, &[DATA]);
    nodes.away = None;
    nodes.until("it has everything", |nodes| are_equal(nodes, &[DATA]));
    let counters = nodes.handle(away);
    let counters = counters.counters();
    assert!(counters.snapshots_installed_as_tables.get() > 0);
    assert!(counters.snapshot_installed_bytes.get() > 2 << 20, "the files have many frames");
    assert!(nodes.handle(away).db().expect("built in").stats().ingest.tables > 8, "and become many tables");
    until_clean(&mut nodes, away);
}

/// Scenario 80: more regions need snapshots than views may be retained.
#[test]
fn concurrent_snapshots_keep_to_the_limit_of_views() {
    let mut nodes = begin();
    let regions = nodes.split_at(b"bcdefghi");
    assert!(regions.len() > VIEWS_MAX);
    let leader = nodes.leader(regions[0]);
    let away = leader % 3 + 1;
    nodes.away = Some(away);
    for region in &regions {
        outrun(&mut nodes, *region, 0, 20);
    }
    until_truncated(&mut nodes, leader, &regions);
    nodes.away = None;
    let (mut views, mut waiting) = (0, 0);
    nodes.until("all have everything", |nodes| {
        for id in 1..=3 {
            let status = nodes.handle(id).snapshots();
            (views, waiting) = (views.max(status.views), waiting.max(status.views_waiting));
        }
        are_equal(nodes, &regions)
    });
    assert!(views <= VIEWS_MAX as u64, "{views} views");
    assert!(views == VIEWS_MAX as u64 && waiting > 0, "the limit was reached: {views} views, {waiting} waited");
    let installed = nodes.handle(away).counters().snapshots_installed.get();
    assert!(installed >= regions.len() as u64, "{installed} were installed");
    (1..=3).for_each(|id| until_clean(&mut nodes, id));
}

/// A disk without space for the file and the tables refuses at once, and is asked less and less often; nothing is left
/// behind, and the snapshot comes when there is space.
#[test]
fn a_disk_without_space_refuses_a_snapshot_before_it_is_full() {
    let mut nodes = begin();
    let away = outrun(&mut nodes, DATA, 0, 100);
    let leader = nodes.leader(DATA);
    until_truncated(&mut nodes, leader, &[DATA]);
    let fs = nodes.nodes[&away].machine.fs.clone();
    // Space for the file, and for memtables, but not for the tables.
    let free = 100 * VALUE_BYTES as u64 * 3 / 2 + 2 * (64 << 10);
    fs.set_quota(Some(fs.used_bytes() + free));
    nodes.away = None;
    let refusals = |nodes: &Nodes| nodes.handle(away).counters().snapshots_refused.get();
    nodes.until("it is refused", |nodes| refusals(nodes) > 0);
    nodes.run_for(Duration::from_secs(20));
    let (refused, free_then) = (refusals(&nodes), fs.free_bytes(Path::new("/data")).expect("known"));
    assert!((2..12).contains(&refused), "{refused} tries in 20 s");
    assert_eq!(nodes.handle(away).counters().snapshots_installed.get(), 0);
    assert!(free_then >= 2 * (64 << 10), "{free_then} bytes are left for memtables");
    assert_eq!((files_left(&nodes, away), nodes.handle(away).snapshots().promised_bytes), (vec![], 0));
    let error = nodes.handle(away).snapshot_arrives(
        kontiki_raftstore::snapshot::SnapshotId { region: DATA, term: 1, index: 1 },
        200 * VALUE_BYTES as u64,
    );
    let text = error.err().expect("there is no space").to_string();
    assert!(text.contains("no space") && text.contains("bytes are free"), "{text}");
    fs.set_quota(None);
    nodes.until("it has everything", |nodes| are_equal(nodes, &[DATA]));
    assert!(nodes.handle(away).counters().snapshots_installed.get() > 0);
    until_clean(&mut nodes, away);
}

/// Scenario 81: the receiver loses its power at some operation of its disk between the first byte of a file and the
/// removal of the file. Whatever it was, the next snapshot (or the same file) brings the region, and nothing is left.
#[test]
fn a_power_loss_at_any_operation_of_a_receiver_leaves_no_files() {
    let mut nodes = begin();
    let (mut losses, mut with_files) = (0, 0);
    for round in 0..ROUNDS {
        let away = outrun(&mut nodes, DATA, 12 * round, 12);
        let leader = nodes.leader(DATA);
        until_truncated(&mut nodes, leader, &[DATA]);
        let fs = nodes.nodes[&away].machine.fs.clone();
        fs.power_off_after(u64::from(2 * round));
        nodes.away = None;
        for _ in 0..4_000 {
            if fs.is_off() {
                break;
            }
            if are_equal(&nodes, &[DATA]) {
                // Its tables are written, and its file is removed.
                let _ = nodes.handle(away).state().flush();
                if !fs.is_off() && files_left(&nodes, away).is_empty() {
                    break;
                }
            }
            nodes.step();
        }
        losses += u32::from(fs.is_off());
        let modes = [CrashMode::LoseUnsynced, CrashMode::KeepUnsynced, CrashMode::Prefix, CrashMode::Pages];
        nodes.crash(away, modes[round as usize % 4]);
        with_files += usize::from(!files_left(&nodes, away).is_empty());
        nodes.start_node(away);
        nodes.until("it has everything", |nodes| are_equal(nodes, &[DATA]));
        until_clean(&mut nodes, away);
    }
    assert!(losses > ROUNDS / 2 && with_files > 5, "{losses} power losses, {with_files} of them left files");
}
