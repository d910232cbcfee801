//! A database without a log: memtable, versions, flush and compaction on a simulated disk, compared with a model of all
//! versions ever written. For the tests of this layer.

use super::{CompactionContext, compact_all, flush, step};
use crate::memtable::Memtable;
use crate::read::ReadState;
use crate::table::BlockCache;
use crate::types::{CompactionOptions, Compression, TableOptions};
use crate::version::{ManifestOptions, TableCache, VersionEdit, VersionSet};
use crate::vlog::{ValueLog, ValueThresholds};
use crate::{Direction, Entries, Family, Range, Result, SequenceNumber, WriteBatch};
use bytes::Bytes;
use kontiki_env::SimMachine;
use kontiki_env::clock::{Clock, VirtualTime};
use kontiki_env::rng::Rng;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub(crate) const DIR: &str = "/db";
pub(crate) const FAMILIES: u32 = 2;

/// A value, and when it ends.
type Value = (Vec<u8>, Option<u64>);
type Versions = BTreeMap<(Family, Vec<u8>), BTreeMap<SequenceNumber, Option<Value>>>;

/// Sizes so small that a few hundred writes reach the deeper levels.
#[derive(Clone, Debug)]
pub(crate) struct Sizes {
    pub(crate) table: TableOptions,
    pub(crate) compaction: CompactionOptions,
    pub(crate) manifest: ManifestOptions,
    pub(crate) block_cache_bytes: u64,
    pub(crate) files_max: usize,
}

impl Sizes {
    pub(crate) fn tiny() -> Sizes {
        Sizes {
            table: TableOptions {
                block_bytes: 64,
                filter_bits_per_key: 10,
                compression: Compression::Lz4,
                ..TableOptions::default()
            },
            compaction: CompactionOptions {
                level0_tables: 2,
                level1_bytes: 700,
                level_factor: 2,
                table_bytes: 300,
                range_tombstones_max: 3,
                ..CompactionOptions::default()
            },
            manifest: ManifestOptions { rewrite_bytes: 2000 },
            block_cache_bytes: 2000,
            files_max: 3,
        }
    }

    pub(crate) fn medium() -> Sizes {
        Sizes {
            table: TableOptions {
                block_bytes: 1000,
                filter_bits_per_key: 0,
                compression: Compression::None,
                ..TableOptions::default()
            },
            compaction: CompactionOptions {
                level0_tables: 4,
                level1_bytes: 20_000,
                level_factor: 4,
                table_bytes: 5000,
                ..CompactionOptions::default()
            },
            manifest: ManifestOptions::default(),
            block_cache_bytes: 0,
            files_max: 1000,
        }
    }
}

pub(crate) struct Layer {
    pub(crate) machine: SimMachine,
    time: VirtualTime,
    pub(crate) context: CompactionContext,
    pub(crate) memtable: Arc<Memtable>,
    pub(crate) snapshots: Vec<(SequenceNumber, ReadState)>,
    pub(crate) sequence: SequenceNumber,
    pub(crate) model: Versions,
    sizes: Sizes,
}

pub(crate) fn open(machine: &SimMachine, sizes: &Sizes) -> Result<CompactionContext> {
    let env = machine.env();
    let dir = Path::new(DIR);
    env.fs.create_dir_all(dir).map_err(|error| crate::Error::io(dir, &error))?;
    let versions = Arc::new(VersionSet::open(&env, dir, sizes.manifest.clone())?);
    let blocks = Arc::new(BlockCache::new(sizes.block_cache_bytes));
    let tables = Arc::new(TableCache::new(&env, versions.tables_dir(), blocks, 1 << 20, sizes.files_max));
    let store = versions.current().values().store().expect("an open set has one").clone();
    let values = Arc::new(ValueLog::new(store, 4 << 10, ValueThresholds::off()));
    Ok(CompactionContext {
        values,
        env,
        versions,
        tables,
        table_options: sizes.table.clone(),
        families: Arc::default(),
        options: sizes.compaction.clone(),
        filter: None,
        state: Arc::default(),
        stop: Arc::default(),
    })
}

impl Layer {
    pub(crate) fn new(seed: u64, sizes: Sizes) -> Layer {
        let time = VirtualTime::default();
        let machine = SimMachine::new(&Rng::new(seed), time.clone());
        let context = open(&machine, &sizes).expect("a healthy disk");
        let mut edit = VersionEdit::new();
        for family in 0..FAMILIES {
            edit.create_family(Family(family), &format!("f{family}"));
        }
        context.versions.apply(edit).expect("a healthy disk");
        Layer {
            machine,
            time,
            context,
            memtable: Arc::default(),
            snapshots: Vec::new(),
            sequence: 0,
            model: BTreeMap::new(),
            sizes,
        }
    }

    pub(crate) fn write(&mut self, batch: &WriteBatch) {
        self.sequence += 1;
        self.memtable.apply(batch, self.sequence);
        for op in batch.ops() {
            let (family, key, value) = match op {
                crate::BatchOp::Put { family, key, value } => (family, key, Some((value.to_vec(), None))),
                crate::BatchOp::PutExpiring { family, key, value, expires_at_ms } => {
                    (family, key, Some((value.to_vec(), Some(expires_at_ms))))
                }
                crate::BatchOp::Delete { family, key } => (family, key, None),
                crate::BatchOp::DeleteRange { family, start, end } => {
                    let upper =
                        if end.is_empty() { (Family(family.0 + 1), Vec::new()) } else { (family, end.to_vec()) };
                    for (_, versions) in self.model.range_mut((family, start.to_vec())..upper) {
                        versions.insert(self.sequence, None);
                    }
                    continue;
                }
            };
            self.model.entry((family, key.to_vec())).or_default().insert(self.sequence, value);
        }
    }

    /// Lets time pass, so that values expire.
    pub(crate) fn advance(&self, by: Duration) {
        self.time.advance_to(self.time.now() + by);
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.machine.clock.wall_ms()
    }

    pub(crate) fn put(&mut self, key: &[u8], value: &[u8]) {
        let mut batch = WriteBatch::new();
        batch.put(Family(0), key, value);
        self.write(&batch);
    }

    pub(crate) fn flush(&mut self) -> Result<()> {
        flush(&self.context, std::slice::from_ref(&self.memtable), self.sequence, None)?;
        self.memtable = Arc::default();
        Ok(())
    }

    pub(crate) fn compact_step(&self) -> Result<bool> {
        step(&self.context)
    }

    pub(crate) fn compact_all(&self, family: Family) -> Result<()> {
        compact_all(&self.context, family)
    }

    /// Restarts: what was not flushed is lost, in the model too.
    pub(crate) fn reopen(&mut self) -> Result<()> {
        self.snapshots.clear();
        self.memtable = Arc::default();
        self.context = open(&self.machine, &self.sizes)?;
        let flushed = self.context.versions.current().flushed_sequence();
        self.sequence = flushed;
        for versions in self.model.values_mut() {
            versions.retain(|&sequence, _| sequence <= flushed);
        }
        Ok(())
    }

    pub(crate) fn read_state(&self) -> ReadState {
        ReadState {
            dead: None,
            recorder: crate::measure::Recorder::off(self.context.env.clock.clone()),
            memtables: vec![self.memtable.clone()],
            version: self.context.versions.current(),
            tables: self.context.tables.clone(),
            clock: self.context.env.clock.clone(),
        }
    }

    pub(crate) fn take_snapshot(&mut self) {
        self.snapshots.push((self.sequence, self.read_state()));
    }

    /// What a reader at `sequence` sees of a range, by the model.
    pub(crate) fn expected(
        &self,
        family: Family,
        range: &Range,
        direction: Direction,
        sequence: SequenceNumber,
    ) -> Vec<(Vec<u8>, Vec<u8>)> {
        let inside = |key: &[u8]| {
            range.start.as_ref().is_none_or(|start| key >= start) && range.end.as_ref().is_none_or(|end| key < end)
        };
        let mut entries: Vec<_> = self
            .model
            .iter()
            .filter(|((of, key), _)| *of == family && inside(key))
            .filter_map(|((_, key), versions)| Some((key.clone(), self.visible(versions, sequence)?)))
            .collect();
        if direction == Direction::Backward {
            entries.reverse();
        }
        entries
    }

    /// What a reader at `sequence` finds of one key's versions now.
    fn visible(&self, versions: &BTreeMap<SequenceNumber, Option<Value>>, sequence: SequenceNumber) -> Option<Vec<u8>> {
        let (value, expires_at_ms) = versions.range(..=sequence).next_back()?.1.as_ref()?;
        expires_at_ms.is_none_or(|end| self.now_ms() < end).then(|| value.clone())
    }

    /// Compares a whole iteration, with a seek in the middle, and point reads, at one sequence number.
    pub(crate) fn check_reads(&self, state: &ReadState, sequence: SequenceNumber, rng: &mut Rng) -> Result<()> {
        let family = Family(rng.below(u64::from(FAMILIES)) as u32);
        let direction = if rng.chance(1, 2) { Direction::Forward } else { Direction::Backward };
        let range = random_range(rng);
        let expected = self.expected(family, &range, direction, sequence);
        let mut entries = state.entries(family, range.clone(), direction, sequence)?;
        assert_eq!(drain(&mut *entries, usize::MAX)?, expected, "{family:?} {direction:?} {range:?} at {sequence}");
        for _ in 0..3 {
            let target = random_key(rng);
            let beyond = |key: &[u8]| match direction {
                Direction::Forward => key >= target.as_slice(),
                Direction::Backward => key <= target.as_slice(),
            };
            let expected: Vec<_> = expected.iter().filter(|(key, _)| beyond(key)).take(4).cloned().collect();
            entries.seek(&target)?;
            assert_eq!(drain(&mut *entries, 4)?, expected, "seek {target:?} {direction:?} {range:?} at {sequence}");
        }
        self.check_gets(state, family, sequence, rng)
    }

    fn check_gets(&self, state: &ReadState, family: Family, sequence: SequenceNumber, rng: &mut Rng) -> Result<()> {
        for _ in 0..5 {
            let key = random_key(rng);
            let versions = self.model.get(&(family, key.clone()));
            let expected = versions.and_then(|versions| self.visible(versions, sequence));
            let found = state.get(family, &key, sequence)?;
            assert_eq!(found.as_deref(), expected.as_deref(), "{family:?} {key:?} at {sequence}");
        }
        Ok(())
    }

    pub(crate) fn check_now(&self, rng: &mut Rng) -> Result<()> {
        self.check_reads(&self.read_state(), self.sequence, rng)
    }
}

pub(crate) fn drain(entries: &mut dyn Entries, limit: usize) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut out = Vec::new();
    while out.len() < limit {
        let Some((key, value)) = entries.next().transpose()? else { break };
        out.push((key.to_vec(), value.to_vec()));
    }
    Ok(out)
}

/// Few enough keys that overwrites are common, of different lengths, some a prefix of others, one empty.
pub(crate) fn random_key(rng: &mut Rng) -> Vec<u8> {
    let number = rng.below(80);
    let text = format!("{number:02}");
    let mut key = vec![b'k'; (number % 3) as usize];
    key.extend_from_slice(text.as_bytes());
    if number.is_multiple_of(7) {
        key.extend_from_slice(&[0xff, 0]);
    }
    if number == 79 { Vec::new() } else { key }
}

pub(crate) fn random_range(rng: &mut Rng) -> Range {
    let mut bounds = [random_key(rng), random_key(rng)];
    bounds.sort();
    let [start, end] = bounds.map(Bytes::from);
    Range { start: rng.chance(2, 3).then_some(start), end: rng.chance(2, 3).then_some(end) }
}

/// Where simulated wall clocks begin.
const WALL_ORIGIN_MS: u64 = 1_704_067_200_000;

pub(crate) fn random_batch(rng: &mut Rng) -> WriteBatch {
    random_batch_of(rng, false)
}

/// As [`random_batch`], with range deletes and values that expire.
pub(crate) fn random_batch_of_all(rng: &mut Rng) -> WriteBatch {
    random_batch_of(rng, true)
}

fn random_batch_of(rng: &mut Rng, all: bool) -> WriteBatch {
    let mut batch = WriteBatch::new();
    for _ in 0..rng.range(1..6) {
        let family = Family(rng.below(u64::from(FAMILIES)) as u32);
        let key = random_key(rng);
        if rng.chance(1, 4) {
            batch.delete(family, &key);
        } else if all && rng.chance(1, 12) {
            let mut bounds = [key, random_key(rng)];
            bounds.sort();
            batch.delete_range(family, &bounds[0]..&bounds[1]);
        } else if all && rng.chance(1, 8) {
            batch.put_expiring(family, &key, b"for a while", WALL_ORIGIN_MS + rng.below(20_000));
        } else {
            let length = rng.below(40) as usize;
            // Half compressible, half not.
            let value: Vec<u8> =
                if rng.chance(1, 2) { vec![b'v'; length] } else { (0..length).map(|_| rng.next_u64() as u8).collect() };
            batch.put(family, &key, &value);
        }
    }
    batch
}
