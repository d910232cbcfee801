//! Statistics of a database.

use crate::{Family, SequenceNumber};

/// Upper bounds of the buckets of sync latency, in microseconds: doubling from a fast NVMe drive's flush to a disk that
/// is in trouble. One more bucket takes what is beyond.
pub const SYNC_LATENCY_BOUNDS_US: [u64; 16] =
    [32, 64, 128, 256, 512, 1_024, 2_048, 4_096, 8_192, 16_384, 32_768, 65_536, 131_072, 262_144, 524_288, 1_048_576];

/// A histogram of durations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// Observations by bucket: at or below the bound with the same index and above the one before; the last: beyond
    /// all.
    pub counts: Vec<u64>,
    /// Sum of all observations, in microseconds.
    pub sum_us: u64,
}

impl Histogram {
    /// Number of observations.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// A snapshot of a database's counters (since open, only growing) and gauges (now).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// The newest sequence number that readers see.
    pub visible_sequence: SequenceNumber,
    /// Commits with `Sync`, counted.
    pub commits_sync: u64,
    /// Commits with `Buffered`, counted.
    pub commits_buffered: u64,
    /// Commits with `Derived`, counted.
    pub commits_derived: u64,
    /// Syncs of the log, counted: sync commits per group is what grouping gains.
    pub groups: u64,
    /// Transactions open now: they keep compaction from dropping tombstones that are newer than the oldest of them.
    pub transactions_open: u64,
    /// The sequence number at which the oldest of them reads; `u64::MAX` while none is open.
    pub transactions_oldest_start: SequenceNumber,
    /// Commits that wait now.
    pub commits_waiting: u64,
    /// Times that a writer found memory full and had to wait, counted.
    pub write_stalls: u64,
    /// Log segments now.
    pub log_segments: u64,
    /// Files that were segments and wait to be used again, now; see `Options::log_segments_recycled_max`.
    pub log_segments_free: u64,
    /// Bytes of the log in use now: about what a restart would read.
    pub log_bytes: u64,
    /// Bytes appended to the log, counted.
    pub log_appended_bytes: u64,
    /// Bytes of streams' entries rewritten at the tail to free old segments, counted.
    pub log_rewritten_bytes: u64,
    /// Segments deleted, counted.
    pub log_segments_deleted: u64,
    /// Bytes of records that open replayed.
    pub log_replayed_bytes: u64,
    /// Latency of syncs of the log for commits; see [`SYNC_LATENCY_BOUNDS_US`].
    pub log_sync_latency: Histogram,
    /// The change feed.
    pub feed: crate::FeedStats,
    /// Streams now.
    pub streams: u64,
    /// Memtables now, the active one included.
    pub memtables: u64,
    /// Their bytes now.
    pub memtable_bytes: u64,
    /// Flushes, counted.
    pub flushes: u64,
    /// Bytes of memtables flushed, counted.
    pub flushed_bytes: u64,
    /// Compactions, counted.
    pub compactions: u64,
    /// Bytes of tables that compactions wrote, counted.
    pub compacted_bytes: u64,
    /// Bytes in the block cache now.
    pub block_cache_bytes: u64,
    /// Blocks found in the cache, counted.
    pub block_cache_hits: u64,
    /// Blocks read from files, counted.
    pub block_cache_misses: u64,
    /// What became of transactions.
    pub transactions: crate::TransactionStats,
    /// Bytes in the cache of values now.
    pub value_cache_bytes: u64,
    /// Values found in that cache, counted.
    pub value_cache_hits: u64,
    /// Values read from the value log, counted.
    pub value_cache_misses: u64,
    /// The value log.
    pub values: crate::vlog::ValueStats,
    /// Every family's levels now.
    pub families: Vec<FamilyStats>,
    /// Why writes have stopped, if they have.
    pub stopped: Option<String>,
}

/// One family's tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FamilyStats {
    /// Its number.
    pub family: u32,
    /// Its name.
    pub name: String,
    /// Level by level, level 0 first.
    pub levels: Vec<LevelStats>,
}

/// One level of one family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LevelStats {
    /// Number of tables.
    pub tables: u64,
    /// Bytes of their files.
    pub bytes: u64,
    /// Versions in them, tombstones included.
    pub entries: u64,
}

impl Stats {
    /// Number of tables.
    pub fn tables(&self) -> u64 {
        self.families.iter().flat_map(|family| &family.levels).map(|level| level.tables).sum()
    }

    /// Bytes of tables.
    pub fn table_bytes(&self) -> u64 {
        self.families.iter().flat_map(|family| &family.levels).map(|level| level.bytes).sum()
    }

    /// One family's numbers.
    pub fn family(&self, family: Family) -> Option<&FamilyStats> {
        self.families.iter().find(|stats| stats.family == family.0)
    }
}
