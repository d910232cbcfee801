//! Tests of the whole database, by what they are about.

mod api;
mod basic;
mod changes;
mod compact_range;
mod copies;
mod copies_beside;
mod damage;
mod dead;
mod descriptors;
mod families;
mod faults;
mod filter;
mod full_disk;
mod idle;
mod ingest;
mod log_holders;
mod lost_directory;
mod lost_ends;
mod model;
mod multi_get;
mod outlive;
mod panics;
mod power_loss;
mod range_parts;
mod ranges;
mod read_only;
mod stalls;
mod threads;
mod value_garbage;
mod values;

use super::{Db, Options};
use crate::{Commit, Direction, Durability, Family, FamilySpec, Range, StreamOp, View, WriteBatch};
use bytes::Bytes;
use kontiki_env::SimMachine;
use kontiki_env::rng::Rng;
use std::cell::Cell;
use std::path::Path;

pub(super) const DIR: &str = "/db";
pub(super) const OTHER: Family = Family(7);

/// Everything small, so that a few writes exercise flush, compaction and rotation.
pub(super) fn small_options() -> Options {
    let mut options = Options {
        families: vec![keeping_values(Family::DEFAULT, "default"), keeping_values(OTHER, "other")],
        memtable_bytes: 4 << 10,
        log_segment_bytes: 4 << 10,
        log_bytes_max: 16 << 10,
        group_bytes_max: 4 << 10,
        // Values that are large leave for the value log with every commit, not only with large ones.
        sync_value_bytes_max: 0,
        ..Options::default()
    };
    options.compaction.level1_bytes = 16 << 10;
    options.compaction.table_bytes = 8 << 10;
    options
}

/// A family whose values all stay in the tree.
fn keeping_values(family: Family, name: &str) -> FamilySpec {
    let mut spec = FamilySpec::new(family, name);
    spec.options.value_threshold_bytes = 0;
    spec
}

thread_local! {
    /// What [`try_open`] opens with. Each test has its own thread.
    static OPTIONS: Cell<fn() -> Options> = const { Cell::new(small_options) };
    /// Whether files can be mapped on the machines of [`new_machine`].
    static MAPS: Cell<bool> = const { Cell::new(false) };
}

/// From now on, log segments are mapped in this test, as on the file systems that allow it.
pub(super) fn map_log_segments() {
    MAPS.set(true);
}

/// A machine from a seed.
pub(super) fn new_machine(seed: u64) -> SimMachine {
    let machine = SimMachine::from_seed(seed);
    machine.fs.set_maps(MAPS.get());
    machine
}

/// From now on, this test opens with these.
pub(super) fn open_with(options: fn() -> Options) {
    OPTIONS.set(options);
}

/// Whether this test's values are in the value log.
pub(super) fn large_values_in_use() -> bool {
    OPTIONS.get()().families.iter().any(|spec| spec.options.value_threshold_bytes > 0)
}

pub(super) fn open(machine: &SimMachine) -> Db {
    try_open(machine).expect("opens")
}

pub(super) fn try_open(machine: &SimMachine) -> crate::Result<Db> {
    Db::open_in(&machine.env(), Path::new(DIR), OPTIONS.get()())
}

/// The machine after its process was replaced, with fresh jobs.
pub(super) fn restarted(machine: &SimMachine, seed: u64) -> SimMachine {
    machine.restarted(Rng::new(seed))
}

pub(super) fn put(key: &str, value: &str) -> WriteBatch {
    let mut batch = WriteBatch::new();
    batch.put(Family::DEFAULT, key.as_bytes(), value.as_bytes());
    batch
}

pub(super) fn streams(ops: Vec<StreamOp>, durability: Durability) -> Commit {
    Commit { batch: WriteBatch::new(), streams: ops, durability, unchanged: vec![] }
}

pub(super) fn append(stream: u64, first_index: u64, entries: &[&str]) -> StreamOp {
    let entries = entries.iter().map(|entry| Bytes::copy_from_slice(entry.as_bytes())).collect();
    StreamOp::Append { stream: crate::StreamId(stream), first_index, entries }
}

/// All entries of a family, as text.
pub(super) fn dump(view: &dyn View, family: Family) -> Vec<(String, String)> {
    try_dump(view, family).expect("readable")
}

pub(super) fn try_dump(view: &dyn View, family: Family) -> crate::Result<Vec<(String, String)>> {
    let mut entries = view.entries(family, Range::all(), Direction::Forward)?;
    let mut out = Vec::new();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    while let Some((key, value)) = entries.next().transpose()? {
        out.push((text(&key), text(&value)));
    }
    Ok(out)
}
