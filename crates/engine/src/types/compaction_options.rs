//! When and how tables are merged.

use super::TABLE_BYTES_MAX;

/// Number of levels, L0 included. With a factor of 10 between levels, L6 holds petabytes.
pub const LEVEL_COUNT: usize = 7;
/// Smallest ratio that may be set.
pub(crate) const RATIO_MIN: u64 = 2;

/// When levels are compacted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompactionOptions {
    /// A shard of level 0 is compacted when a key may be in this many of its tables. Default 4; 1 to 999.
    pub level0_tables: usize,
    /// Level 0 is cut into so many shards, each of which is compacted alone: smaller units of work, less space
    /// needed at a time, and several at once. Default 4; 1 (one range) to 64.
    pub level0_shards: usize,
    /// About what one compaction of level 0 brings down, in bytes: the unit from which the number of levels and their
    /// targets follow. Default 64 MiB, four tables of a memtable of 64 MiB.
    pub level1_bytes: u64,
    /// Largest ratio between the targets of neighbouring levels. Default 10; 2 to 100.
    pub level_factor: u64,
    /// An output table ends after this many bytes, at the next user key. Default 32 MiB.
    pub table_bytes: u64,
    /// A table is compacted if this share of its versions, in per cent, are tombstones, whatever its level's size.
    /// Default 40; 1 to 100, 0: never.
    pub tombstone_percent: u8,
    /// A table older than this is rewritten, so that no dead version stays for ever. Default 30 days; 0: never.
    pub periodic_compaction_seconds: u64,
    /// How often the levels are checked when nothing is written, in milliseconds: so that expired and old data is
    /// dropped without writes. For the whole database. Default 60,000 (a check costs microseconds); 10 to 86,400,000.
    pub idle_look_ms: u64,
    /// Beyond this many range tombstones the tables under the oldest are rewritten: each tombstone costs every read of
    /// its family a step of a binary search, and every version of the database memory. Default 1,000.
    pub range_tombstones_max: usize,
    /// When scans have passed over so many dead versions in one range of keys, and these are a good part of the tables
    /// there (`tombstone_percent`), the range is compacted. For the whole database. Default 10,000, some milliseconds
    /// of a scan; 0: never.
    pub dead_versions_passed: u64,
    /// Compactions at once, and parts of one large compaction. For the whole database; 1 to 64. Default 2.
    pub background_jobs_max: usize,
    /// What flush, compaction and relocation of values write together at most, in bytes per second. For the whole
    /// database. Default 0: as fast as they can.
    pub bytes_per_second_max: u64,
}

impl Default for CompactionOptions {
    fn default() -> CompactionOptions {
        CompactionOptions {
            level0_tables: 4,
            level0_shards: 4,
            level1_bytes: 64 << 20,
            level_factor: 10,
            table_bytes: 32 << 20,
            tombstone_percent: 40,
            periodic_compaction_seconds: 30 * 24 * 3600,
            idle_look_ms: 60_000,
            range_tombstones_max: 1000,
            dead_versions_passed: 10_000,
            background_jobs_max: 2,
            bytes_per_second_max: 0,
        }
    }
}

impl CompactionOptions {
    /// The smallest and largest value of each field, by name: what `Options::validate` checks.
    pub(crate) fn ranges(&self) -> [(&'static str, u64, u64, u64); 11] {
        [
            ("compaction.level0_tables", self.level0_tables as u64, 1, 999),
            ("compaction.level0_shards", self.level0_shards as u64, 1, 64),
            ("compaction.level1_bytes", self.level1_bytes, 1, 1 << 40),
            ("compaction.level_factor", self.level_factor, RATIO_MIN, 100),
            ("compaction.table_bytes", self.table_bytes, 1, TABLE_BYTES_MAX),
            ("compaction.tombstone_percent", u64::from(self.tombstone_percent), 0, 100),
            ("compaction.idle_look_ms", self.idle_look_ms, 10, 24 * 3600 * 1000),
            ("compaction.range_tombstones_max", self.range_tombstones_max as u64, 0, 100_000),
            ("compaction.dead_versions_passed", self.dead_versions_passed, 0, 1 << 40),
            ("compaction.background_jobs_max", self.background_jobs_max as u64, 1, 64),
            ("compaction.bytes_per_second_max", self.bytes_per_second_max, 0, 1 << 40),
        ]
    }
}
