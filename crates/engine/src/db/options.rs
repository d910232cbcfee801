//! Options of a database, with the range that each must be in.

use crate::hot::HotKeyOptions;
use crate::measure::SAMPLE_ONE_IN_DEFAULT;
use crate::types::{CompactionOptions, FilterHandle, LEVEL_COUNT, TableOptions};
use crate::{Error, Family, FamilySpec, KEY_BYTES_MAX, Result, VALUE_BYTES_MAX};
use std::collections::BTreeSet;
use std::ops::Range;

/// How a database is opened. Start from [`Options::default`] and change fields.
///
/// Every bound names what it protects; a value out of range is refused at open with field, value and range.
#[derive(Clone, Debug)]
pub struct Options {
    /// Families to have, beside `default` (number 0), which is always there. Families that are missing are created;
    /// a number that the directory knows under another name is refused. Default: none.
    pub families: Vec<FamilySpec>,
    /// A memtable is frozen and flushed at about this many bytes. Larger: fewer, larger tables and less compaction;
    /// more memory and longer replay. Default 64 MiB; 4 KiB to 4 GiB.
    pub memtable_bytes: u64,
    /// Memtables in memory at most, the active one included: beyond it writes wait for the flush. Default 4; 2 to 64.
    pub memtables_max: usize,
    /// Tables in level 0 of one family at which writes wait for compaction: each is one more place to look for a key.
    /// Default 24; 4 to 1,000, and above the number at which compaction starts.
    pub level0_tables_max: usize,
    /// Bytes that must be compacted for all levels to be within their targets, at which writers wait for compaction.
    /// Bounds the space that is not worth compacting at once, and how far reads get slower. Default 128 GiB; 1 MiB to 1
    /// PiB.
    pub compaction_debt_bytes_max: u64,
    /// Garbage in the value log beyond `value_garbage_percent`, with values beyond three segments that are not in
    /// tables yet, in percent of its bytes (and 8 segments, whatever its size), at which writers wait for its
    /// collection. Default 20; 5 to 1,000.
    pub value_debt_percent_max: u64,
    /// Writers are slowed from this share of each of these bounds on, in percent (memtables count by their bytes),
    /// gently at first and more and more: so that they hardly ever meet the bound itself, where they stop. Default 50;
    /// 10 to 100, which is never.
    pub slowdown_percent: u64,
    /// Size of a log segment. A larger one makes allocation rarer, a smaller one gives space back sooner. Default
    /// 64 MiB; 4 KiB to 1 GiB.
    pub log_segment_bytes: u64,
    /// Log segments that are kept to be used again when they are not needed any more: syncs of a file whose blocks have
    /// been written before are cheaper. Default 4; 0 to 64.
    pub log_segments_recycled_max: usize,
    /// The log's budget: beyond it the memtables and streams that hold the oldest segment are flushed or rewritten.
    /// Bounds what a restart replays: the default of 1 GiB takes some 3 s at 300 MB/s, and holds 16 segments, so that
    /// the memtables (256 MiB by default) are flushed for their own size, not for the log's. At least 4 segments.
    pub log_bytes_max: u64,
    /// The log warns when unflushed memtables, or streams, keep more than so many bytes of it, and again when that has
    /// doubled: something does not move (a flush that fails, a stream that is not truncated). 0: never. Default 2 GiB,
    /// twice the default budget of the log, which what works as it should does not reach; up to 1 TiB.
    pub log_holder_warn_bytes: u64,
    /// Bytes that are kept for subscribers of the change feed ([`crate::Db::changes`]) beyond what the database itself
    /// needs: of log segments, newest first, and of the value segments that their batches refer to. So it should be
    /// several segments of each. A subscriber that is further behind gets `Error::ChangesGone`; a restart reads this
    /// part of the log too. Default 0: the feed goes back as far as recovery would; up to 1 TiB.
    pub feed_retention_bytes: u64,
    /// Size of a segment of the value log. Space comes back a segment at a time, and each new one costs a few syncs.
    /// Default 128 MiB; 4 KiB to 1 GiB.
    pub value_segment_bytes: u64,
    /// A `Sync` commit of at most so many bytes keeps its large values in its log record, and the flush moves them to
    /// the value log: so it waits for one sync and not for two, for the price of writing them twice. Default 32 KiB,
    /// which a disk takes in a tenth of the time of a sync; 0 to 64 MiB.
    pub sync_value_bytes_max: u64,
    /// Garbage in the value log, in percent of its bytes, at which values are relocated. Smaller: less space, more
    /// copying (for keys overwritten at random, by the formula about 1.1 bytes for each byte written at 25 %, and 1.7
    /// at 20 %). Default 25; 5 to 90.
    pub value_garbage_percent: u64,
    /// How fast values are relocated while garbage is near its bound; beyond it, as fast as the disk goes. 0: always.
    /// Default 128 MiB a second.
    pub value_relocation_bytes_per_second: u64,
    /// Bytes of commits that one write and sync of the log may carry: bounds the latency of the last in the group.
    /// Default 4 MiB; 4 KiB to 64 MiB. A larger single commit is a group of its own.
    pub group_bytes_max: u64,
    /// Memory for what was read: uncompressed blocks of tables, and values of the value log. Each takes what the other
    /// does not use; when both would take everything, values have a quarter. Default 128 MiB; up to 1 TiB, 0 for none.
    pub cache_bytes: u64,
    /// Memory for filters and indexes of open tables. Default 64 MiB; 1 MiB to 1 TiB.
    pub table_cache_bytes: u64,
    /// Tables held open at most. Default 1,000; 16 to 1,000,000.
    pub open_tables_max: usize,
    /// A scan that passes over so many dead versions in a row (deleted, overwritten, expired) remembers the range of
    /// keys, and later scans skip it. Smaller: shorter walks, and more to remember, which each write looks at. Default
    /// 32; 0 (never) to 1,000,000.
    pub dead_range_versions_min: u64,
    /// One in so many gets and writes is measured for the latencies of `Db::stats`, and stands for the others in the
    /// statistics of reads. Smaller: finer numbers; 1 costs a cached get some 5 %. Default 32; 0 (none) to 1,000,000.
    pub stats_sample_one_in: u64,
    /// Which keys are read and written most, and how often one may be written.
    pub hot_keys: HotKeyOptions,
    /// How tables are written.
    pub table: TableOptions,
    /// When and how tables are merged.
    pub compaction: CompactionOptions,
    /// What is dropped then because the layer above does not need it any more. Default: nothing.
    pub compaction_filter: Option<FilterHandle>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            families: Vec::new(),
            memtable_bytes: 64 << 20,
            memtables_max: 4,
            level0_tables_max: 24,
            compaction_debt_bytes_max: 128 << 30,
            value_debt_percent_max: 20,
            slowdown_percent: 50,
            log_segment_bytes: 64 << 20,
            log_segments_recycled_max: 4,
            log_bytes_max: 1 << 30,
            log_holder_warn_bytes: 2 << 30,
            feed_retention_bytes: 0,
            value_segment_bytes: 128 << 20,
            sync_value_bytes_max: 32 << 10,
            value_garbage_percent: 25,
            value_relocation_bytes_per_second: 128 << 20,
            group_bytes_max: 4 << 20,
            cache_bytes: 128 << 20,
            table_cache_bytes: 64 << 20,
            open_tables_max: 1000,
            dead_range_versions_min: 32,
            stats_sample_one_in: SAMPLE_ONE_IN_DEFAULT,
            hot_keys: HotKeyOptions::default(),
            table: TableOptions::default(),
            compaction: CompactionOptions::default(),
            compaction_filter: None,
        }
    }
}

/// The part of a memory budget, in percent, for memtables; the rest is for reading: eight tenths of it for blocks and
/// large values, two for filters and indexes. A store that is written and read alike; RocksDB's advice for a cache is
/// "a third or more".
const MEMTABLES_PERCENT: u64 = 30;
/// The part of the machine's memory, in percent, that [`Options::auto`] takes: the system's page cache and the rest of
/// the process need the others.
const AUTO_PERCENT: u64 = 25;
/// The budget that [`Options::auto`] assumes where the size of the memory is unknown.
const AUTO_UNKNOWN_BYTES: u64 = 256 << 20;
/// The least budget that a database can keep.
pub const MEMORY_BUDGET_BYTES_MIN: u64 = 8 << 20;

impl Options {
    /// Default options with this much memory for memtables and caches together, at least
    /// [`MEMORY_BUDGET_BYTES_MIN`]. Snapshots and values on their way out come on top.
    pub fn with_memory_budget(bytes: u64) -> Options {
        let bytes = bytes.max(MEMORY_BUDGET_BYTES_MIN);
        let mut options = Options::default();
        let memtables_bytes = bytes / 100 * MEMTABLES_PERCENT;
        // Beyond 256 MiB a memtable's flush takes seconds, and gains little.
        options.memtable_bytes = (memtables_bytes / options.memtables_max as u64).clamp(256 << 10, 256 << 20);
        let caches_bytes = bytes - options.memtable_bytes * options.memtables_max as u64;
        options.cache_bytes = caches_bytes / 10 * 8;
        options.table_cache_bytes = (caches_bytes - options.cache_bytes).max(1 << 20);
        // Segments as large as memtables, within reason: a small machine need not preallocate 64 MiB.
        options.log_segment_bytes = options.memtable_bytes.clamp(1 << 20, 64 << 20);
        options.log_bytes_max = (options.memtable_bytes * 16).max(4 * options.log_segment_bytes);
        options.log_holder_warn_bytes = 2 * options.log_bytes_max;
        options
    }

    /// Options for this machine: a quarter of the memory that this process may use (a container's limit counts).
    pub fn auto() -> Options {
        let memory_bytes = kontiki_env::machine::machine_size().memory_bytes;
        let budget = memory_bytes.map_or(AUTO_UNKNOWN_BYTES, |bytes| bytes / 100 * AUTO_PERCENT);
        Options::with_memory_budget(budget)
    }
}

/// Name of the family that is always there.
pub(crate) const DEFAULT_FAMILY_NAME: &str = "default";

impl Options {
    /// Checks every field.
    pub fn validate(&self) -> Result<()> {
        in_range("memtable_bytes", self.memtable_bytes, 4 << 10, 4 << 30)?;
        in_range("memtables_max", self.memtables_max as u64, 2, 64)?;
        let level0_tables_min = 4.max(self.compaction.level0_tables as u64 + 1);
        in_range("level0_tables_max", self.level0_tables_max as u64, level0_tables_min, 1000)?;
        in_range("compaction_debt_bytes_max", self.compaction_debt_bytes_max, 1 << 20, 1 << 50)?;
        in_range("value_debt_percent_max", self.value_debt_percent_max, 5, 1000)?;
        in_range("slowdown_percent", self.slowdown_percent, 10, 100)?;
        in_range("log_segment_bytes", self.log_segment_bytes, 4 << 10, 1 << 30)?;
        in_range("log_segments_recycled_max", self.log_segments_recycled_max as u64, 0, 64)?;
        in_range("log_bytes_max", self.log_bytes_max, 4 * self.log_segment_bytes, 1 << 40)?;
        in_range("log_holder_warn_bytes", self.log_holder_warn_bytes, 0, 1 << 40)?;
        in_range("feed_retention_bytes", self.feed_retention_bytes, 0, 1 << 40)?;
        in_range("value_segment_bytes", self.value_segment_bytes, 4 << 10, 1 << 30)?;
        in_range("sync_value_bytes_max", self.sync_value_bytes_max, 0, 64 << 20)?;
        in_range("value_garbage_percent", self.value_garbage_percent, 5, 90)?;
        in_range("group_bytes_max", self.group_bytes_max, 4 << 10, 64 << 20)?;
        in_range("cache_bytes", self.cache_bytes, 0, 1 << 40)?;
        in_range("table_cache_bytes", self.table_cache_bytes, 1 << 20, 1 << 40)?;
        in_range("open_tables_max", self.open_tables_max as u64, 16, 1_000_000)?;
        in_range("dead_range_versions_min", self.dead_range_versions_min, 0, 1_000_000)?;
        in_range("stats_sample_one_in", self.stats_sample_one_in, 0, 1_000_000)?;
        in_range("hot_keys.window_ms", self.hot_keys.window_ms, 100, 3_600_000)?;
        in_range("hot_keys.write_limit_per_second", self.hot_keys.write_limit_per_second, 0, 1_000_000_000)?;
        let table = &self.table;
        in_range("table.block_bytes", table.block_bytes as u64, 1, 16 << 20)?;
        in_range("table.filter_bits_per_key", table.filter_bits_per_key as u64, 0, 32)?;
        validate_compaction(&self.compaction)?;
        let (mut numbers, mut names) = (BTreeSet::new(), BTreeSet::new());
        for spec in &self.families {
            self.validate_family(spec)?;
            let has_number = spec.family != Family::BY_NAME;
            if (has_number && !numbers.insert(spec.family)) || !names.insert(&spec.name) {
                return refuse_family(spec, "number and name must each be there once");
            }
        }
        Ok(())
    }

    /// Checks what a family asks for, by itself and beside what the database asks for.
    pub(crate) fn validate_family(&self, spec: &FamilySpec) -> Result<()> {
        validate_family_alone(spec)?;
        let Some(compaction) = &spec.options.compaction else { return Ok(()) };
        // At the bound writers wait for a compaction, so one must be due before.
        let (trigger, bound) = (compaction.level0_tables, self.level0_tables_max);
        if trigger >= bound {
            let why = format!(
                "compaction.level0_tables is {trigger}; it must be below level0_tables_max, which is {bound}: at that \
                 many tables writers wait for a compaction that would never be due"
            );
            return refuse_family(spec, &why);
        }
        Ok(())
    }

    /// All families to have, the default one first.
    pub(crate) fn all_families(&self) -> impl Iterator<Item = (Family, &str)> {
        let others = self.families.iter().filter(|spec| spec.family != Family::DEFAULT);
        std::iter::once((Family::DEFAULT, DEFAULT_FAMILY_NAME))
            .chain(others.map(|spec| (spec.family, spec.name.as_str())))
    }
}

fn validate_family_alone(spec: &FamilySpec) -> Result<()> {
    if spec.name.is_empty() || spec.name.len() > 64 {
        return refuse_family(spec, "a name has 1 to 64 bytes");
    }
    let has_number = spec.family != Family::BY_NAME;
    if has_number && (spec.family == Family::DEFAULT) != (spec.name == DEFAULT_FAMILY_NAME) {
        return refuse_family(spec, "number 0 and the name \"default\" belong together");
    }
    if spec.family.is_reserved() != spec.name.starts_with(Family::RESERVED_PREFIX) {
        let Range { start, end } = Family::RESERVED;
        let why = format!(
            "numbers {start} to {} and names that begin with {:?} are the store's own; choose others",
            end - 1,
            Family::RESERVED_PREFIX
        );
        return refuse_family(spec, &why);
    }
    let threshold = spec.options.value_threshold_bytes;
    in_range("families: value_threshold_bytes", threshold, 0, VALUE_BYTES_MAX as u64)?;
    let prefix_bytes = spec.options.filter_prefix_bytes.unwrap_or(1) as u64;
    in_range("families: filter_prefix_bytes", prefix_bytes, 1, KEY_BYTES_MAX as u64)?;
    let levels = spec.options.compression.len() as u64;
    in_range("families: entries of compression", levels, 0, LEVEL_COUNT as u64)?;
    spec.options.compaction.as_ref().map_or(Ok(()), validate_compaction)
}

/// What is wrong with a family that is asked for.
pub(crate) fn refuse_family<T>(spec: &FamilySpec, why: &str) -> Result<T> {
    let (number, name) = (spec.family.0, &spec.name);
    Err(Error::InvalidArgument(format!("families: number {number}, name {name:?}: {why}")))
}

fn validate_compaction(options: &CompactionOptions) -> Result<()> {
    options.ranges().into_iter().try_for_each(|(field, value, min, max)| in_range(field, value, min, max))
}

fn in_range(field: &str, value: u64, min: u64, max: u64) -> Result<()> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(Error::InvalidArgument(format!("{field} is {value}; it must be from {min} to {max}")))
}

#[cfg(test)]
#[path = "options_test.rs"]
mod tests;
