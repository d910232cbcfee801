//! Power losses of a node that takes proposals: at each operation of its disk, so between any two of an append to a
//! raft log, an edit of the manifest, the truncation of a raft log, and the deletion of a log segment, or of a file of
//! a raft log.

use super::several_nodes_test::{DATA, Nodes, Tune};
use super::*;
use kontiki_engine::Options;
use kontiki_env::fs::{CrashMode, Op, TraceEntry};
use kontiki_raftlog::{DIRECTORY, LogChoice};
use kontiki_raftstore::Config;
use std::collections::BTreeMap;
use std::ops::Range;

const WRITES: u32 = 60;
const VALUE_BYTES: usize = 300;
/// Where the engine's log is.
const WAL: &str = "wal";
/// At the end of a script of [`WRITES`] writes the node works on, so that truncations and deletions come.
const STEPS_BETWEEN: usize = 6;

/// So small that the log is truncated, and a segment deleted, every few writes.
fn tiny(raft: &mut Config, options: &mut Options) {
    raft.tick_interval = Duration::from_millis(2);
    raft.truncate_ticks = 1;
    raft.truncate_entries_min = 3;
    options.memtable_bytes = 4 << 10;
    options.log_segment_bytes = 4 << 10;
    options.log_bytes_max = 16 << 10;
}

fn deleting(raft: &mut Config, options: &mut Options) {
    tiny(raft, options);
    options.log_segments_recycled_max = 0;
}

/// What an operation of the disk belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    /// The log, in a step of the node that truncates a raft log.
    Truncation,
    /// The log otherwise.
    Append,
    Manifest,
    /// A segment is deleted, or becomes another one.
    SegmentEnd,
    /// Tables, and the record of the log's first and last segments.
    Other,
}

fn classify(entry: &TraceEntry, truncations: &[Range<u64>]) -> Step {
    let name = entry.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let is_log = entry.path.components().any(|part| [WAL, DIRECTORY].iter().any(|log| part.as_os_str() == *log));
    match entry.op {
        Op::Remove | Op::Rename if is_log => Step::SegmentEnd,
        Op::Write | Op::MappedWrite | Op::Sync if is_log => {
            let truncates = truncations.iter().any(|range| range.contains(&entry.number));
            if truncates { Step::Truncation } else { Step::Append }
        }
        Op::Write | Op::Sync if name.starts_with("MANIFEST") => Step::Manifest,
        _ => Step::Other,
    }
}

fn key(write: u32) -> [u8; 4] {
    write.to_be_bytes()
}

fn is_off(nodes: &Nodes, id: u64) -> bool {
    nodes.nodes[&id].machine.fs.is_off()
}

/// Writes until the power of a node is off; returns how many writes were acknowledged. `seen` is called between steps.
fn write_until_off(nodes: &mut Nodes, id: u64, mut seen: impl FnMut(&Nodes)) -> u32 {
    for write in 0..WRITES {
        if is_off(nodes, id) || nodes.put(DATA, &key(write), &[write as u8; VALUE_BYTES]).is_err() {
            return write;
        }
        for _ in 0..STEPS_BETWEEN {
            seen(nodes);
            nodes.step();
        }
        seen(nodes);
    }
    WRITES
}

/// How nodes are started.
#[derive(Clone, Copy)]
struct Setup {
    count: u64,
    tune: Tune,
    log_choice: Option<LogChoice>,
}

impl Setup {
    fn new(count: u64, tune: Tune) -> Setup {
        Setup { count, tune, log_choice: None }
    }
}

fn begin(setup: Setup) -> Nodes {
    let mut nodes = Nodes::start_with(setup.count, setup.tune, setup.log_choice);
    nodes.put(DATA, b"first", b"value").expect("a cluster");
    nodes
}

/// The operations of the whole script on one node, without a power loss.
fn operations(setup: Setup, id: u64) -> Vec<Step> {
    let mut nodes = begin(setup);
    let fs = nodes.nodes[&id].machine.fs.clone();
    fs.start_trace();
    let (mut truncated, mut before, mut truncations) = (0, fs.ops(), Vec::new());
    let acknowledged = write_until_off(&mut nodes, id, |nodes| {
        let found = nodes.driver(id).replicas().iter().map(|replica| replica.truncated_index).sum::<u64>();
        let ops = fs.ops();
        if std::mem::replace(&mut truncated, found) < found {
            truncations.push(before..ops);
        }
        before = ops;
    });
    assert_eq!(acknowledged, WRITES);
    let trace = fs.trace();
    trace.iter().filter(|entry| entry.op != Op::Read).map(|entry| classify(entry, &truncations)).collect()
}

fn assert_all_there(nodes: &Nodes, id: u64, acknowledged: u32, context: &str) {
    for write in 0..acknowledged {
        assert_eq!(nodes.stored(id, &key(write)), Some(vec![write as u8; VALUE_BYTES]), "write {write} {context}");
    }
}

/// Cuts the power at one operation of the script, restarts, and compares; then the node works on and loses it again.
fn lose_power_at(operation: u64, setup: Setup, id: u64) {
    let context = format!("after a power loss at operation {operation}");
    let mut nodes = begin(setup);
    nodes.nodes[&id].machine.fs.power_off_after(operation);
    let acknowledged = write_until_off(&mut nodes, id, |_| {});
    let modes = [CrashMode::LoseUnsynced, CrashMode::Random, CrashMode::KeepUnsynced];
    // Every second restart moves raft logs that are in files.
    let moved = |choice| if operation.is_multiple_of(2) { LogChoice::Shared } else { choice };
    nodes.log_choice = nodes.log_choice.map(moved);
    nodes.restart(id, modes[operation as usize % modes.len()]);
    nodes.put(DATA, b"after", &operation.to_be_bytes()).expect(&context);
    let has_it = |nodes: &Nodes| nodes.stored(id, b"after").as_deref() == Some(&operation.to_be_bytes()[..]);
    nodes.until("the node has everything", has_it);
    assert_all_there(&nodes, id, acknowledged, &context);
    nodes.restart(id, CrashMode::LoseUnsynced);
    nodes.until("the node has everything again", has_it);
    assert_all_there(&nodes, id, acknowledged, &context);
}

/// At most `each` of every kind of operation, evenly chosen.
fn lose_power_everywhere(setup: Setup, id: u64, each: usize) {
    let mut by_step: BTreeMap<Step, Vec<u64>> = BTreeMap::new();
    for (operation, step) in (0..).zip(operations(setup, id)) {
        by_step.entry(step).or_default().push(operation);
    }
    for step in [Step::Append, Step::Manifest, Step::Truncation, Step::SegmentEnd] {
        let found = by_step.get(&step).map_or(0, Vec::len);
        assert!(found >= 3, "{found} of {step:?}");
    }
    for operations in by_step.into_values() {
        let every = operations.len().div_ceil(each).max(1);
        operations.into_iter().step_by(every).for_each(|operation| lose_power_at(operation, setup, id));
    }
}

#[test]
fn a_power_loss_between_append_manifest_edit_truncation_and_deletion_loses_nothing() {
    lose_power_everywhere(Setup::new(1, deleting), 1, usize::MAX);
}

#[test]
fn nor_does_one_while_segments_are_used_again() {
    lose_power_everywhere(Setup::new(1, tiny), 1, 40);
}

#[test]
fn nor_does_one_of_a_leader_or_a_follower() {
    let setup = Setup::new(3, deleting);
    let leader = begin(setup).leader(DATA);
    for id in [leader, leader % 3 + 1] {
        lose_power_everywhere(setup, id, 8);
    }
}

#[test]
fn nor_does_one_while_raft_logs_are_in_files_or_move() {
    let in_files = |count| Setup { log_choice: Some(LogChoice::PerGroup), ..Setup::new(count, deleting) };
    lose_power_everywhere(in_files(1), 1, 100);
    let leader = begin(in_files(3)).leader(DATA);
    for id in [leader, leader % 3 + 1] {
        lose_power_everywhere(in_files(3), id, 8);
    }
}
