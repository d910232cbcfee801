//! The typed snapshot.

use super::histogram::Histogram;
use crate::compaction::LevelWork;
use crate::{Family, SequenceNumber, TransactionStats};

/// A database's counters (since open, only growing) and gauges (now). Read while others write: numbers of one subsystem
/// belong together, those of different subsystems are moments apart.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Stats {
    /// The newest sequence number that readers see.
    pub visible_sequence: SequenceNumber,
    /// Latencies.
    pub latency: LatencyStats,
    /// Commits.
    pub commits: CommitStats,
    /// Writers that were stopped or slowed.
    pub stalls: StallStats,
    /// The log.
    pub log: LogStats,
    /// The change feed.
    pub feed: crate::FeedStats,
    /// Memtables and their flushes.
    pub memtables: MemtableStats,
    /// Tables that were built outside.
    pub ingest: IngestStats,
    /// Compactions.
    pub compaction: CompactionTotals,
    /// Reads, and what they pin.
    pub reads: ReadStats,
    /// Blocks of tables in memory.
    pub block_cache: CacheStats,
    /// Open tables: their filters and the tops of their indexes.
    pub table_cache: TableCacheStats,
    /// Values of the value log in memory.
    pub value_cache: CacheStats,
    /// The value log.
    pub values: crate::vlog::ValueStats,
    /// Transactions.
    pub transactions: TransactionStats,
    /// Every family's levels now.
    pub families: Vec<FamilyStats>,
    /// Keys that are read and written most.
    pub hot_keys: HotKeyStats,
    /// Failures.
    pub health: HealthStats,
}

/// Tables that were built outside and ingested, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct IngestStats {
    /// Calls of `Db::ingest` that ingested something.
    pub ingests: u64,
    /// Their tables.
    pub tables: u64,
    /// Bytes of these.
    pub bytes: u64,
}

/// Latencies. Gets and writes are sampled, one in [`Options::stats_sample_one_in`](crate::Options): the histogram
/// counts those that were measured. Of the others all are there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LatencyStats {
    /// Gets by database, snapshot or transaction. Sampled.
    pub get: Histogram,
    /// Multi-gets, each as a whole. Sampled.
    pub multi_get: Histogram,
    /// The first seeks of scans, through all their sources. Sampled.
    pub seek: Histogram,
    /// Commits, from the call to the answer, backpressure included. Sampled.
    pub write: Histogram,
    /// The part of a commit from its place in the log on: insertion into memory, the sync that it required, and the
    /// commits before it. Sampled with `write`.
    pub commit_wait: Histogram,
    /// Syncs of the log for commits, each with the sync of values before it.
    pub log_sync: Histogram,
    /// Syncs of the value log for commits.
    pub value_sync: Histogram,
    /// Flushes.
    pub flush: Histogram,
    /// Units of compaction, as jobs take them: a whole small one, or a piece of a large one.
    pub compaction: Histogram,
}

/// Commits, counted by their durability.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CommitStats {
    /// With `Sync`.
    pub sync: u64,
    /// With `Buffered`.
    pub buffered: u64,
    /// With `Derived`.
    pub derived: u64,
    /// Submitted commits that wait now.
    pub waiting: u64,
}

/// Writers that were stopped or slowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StallStats {
    /// Times that a writer found full memory, a full level 0 or another hard bound and had to wait, counted.
    pub waits: u64,
    /// Callers that wait there now. [`HealthStats::stalled`] gives the reason.
    pub waiting: u64,
    /// How writers are slowed before that.
    pub delays: crate::WriteDelays,
}

/// The log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogStats {
    /// Segments now.
    pub segments: u64,
    /// Files that were segments and wait to be used again, now; see `Options::log_segments_recycled_max`.
    pub segments_free: u64,
    /// Bytes that unflushed memtables retain: from the oldest segment that one needs. See
    /// [`Db::log_retention`](crate::Db::log_retention).
    pub held_by_memtables_bytes: u64,
    /// Bytes that streams retain, likewise.
    pub held_by_streams_bytes: u64,
    /// Bytes that are retained for subscribers of changes alone.
    pub held_for_feed_bytes: u64,
    /// How long the oldest segment has been full, in milliseconds.
    pub oldest_held_ms: u64,
    /// Warnings that one kind of holder retains more than `Options::log_holder_warn_bytes`, counted.
    pub holder_warnings: u64,
    /// Segments deleted or put aside for use again, counted.
    pub segments_deleted: u64,
    /// Segments made of files that were segments before, counted.
    pub segments_recycled: u64,
    /// Bytes in use now: about what a restart would read.
    pub bytes: u64,
    /// Bytes appended, counted.
    pub appended_bytes: u64,
    /// Bytes of streams' entries rewritten at the tail to free old segments, counted.
    pub rewritten_bytes: u64,
    /// Bytes of records that open replayed.
    pub replayed_bytes: u64,
    /// Syncs for commits, counted: sync commits per sync is what grouping gains.
    pub syncs: u64,
    /// Streams now.
    pub streams: u64,
}

/// Memtables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemtableStats {
    /// Memtables now, the active one included.
    pub count: u64,
    /// Their bytes now.
    pub bytes: u64,
    /// Flushes, counted.
    pub flushes: u64,
    /// Bytes of memtables flushed, counted.
    pub flushed_bytes: u64,
}

/// Compactions of all families.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct CompactionTotals {
    /// Merges, moves of a table, and drops of a table, counted.
    pub count: u64,
    /// Compactions that run now.
    pub running: u64,
    /// Bytes of tables that merges have read, counted.
    pub read_bytes: u64,
    /// Bytes of tables that merges have written, counted.
    pub written_bytes: u64,
    /// Bytes to be compacted until every level is within its target, now.
    pub debt_bytes: u64,
    /// Bytes written to tables for each byte that a flush has written, since open; 0 before the first flush.
    pub write_amplification: f64,
    /// What flushes and compactions have done, by the level that they wrote to: bytes in and out, and the time.
    pub levels: Vec<LevelWork>,
    /// Time that flush, compaction and relocation have waited for the rate limiter, in microseconds, counted.
    pub limiter_waited_us: u64,
    /// Bytes that the rate limiter has let pass, counted.
    pub limiter_bytes: u64,
    /// The rate limiter's bound in bytes per second now, 0 for none.
    pub limiter_bytes_per_second: u64,
    /// Compactions of ranges in which scans passed over many dead versions, counted; and those that were refused
    /// because too many waited.
    pub dead_requests: u64,
    /// See `dead_requests`.
    pub dead_requests_refused: u64,
}

/// Reads. Numbers of gets are estimates from those that were sampled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReadStats {
    /// Gets, counted.
    pub gets: u64,
    /// Gets that found a value, counted.
    pub gets_found: u64,
    /// Gets that a memtable answered, counted.
    pub gets_in_memtables: u64,
    /// Scans that have begun, counted.
    pub scans: u64,
    /// Dead versions that scans passed over, counted.
    pub dead_versions_passed: u64,
    /// Times that a scan skipped a range that is known to be dead, counted.
    pub dead_ranges_skipped: u64,
    /// Such ranges now.
    pub dead_ranges: u64,
    /// Times that a scan recorded one, counted; that it could not, because of a concurrent write; that a write into one
    /// cut it.
    pub dead_ranges_learnt: u64,
    /// See `dead_ranges_learnt`.
    pub dead_ranges_refused: u64,
    /// See `dead_ranges_learnt`.
    pub dead_ranges_cut: u64,
    /// What gets have found in each level.
    pub levels: Vec<LevelReads>,
    /// Snapshots and iterators now.
    pub open: u64,
    /// Sets of memtables and tables that are not current any more and that snapshots or iterators still hold, now.
    pub pinned_states: u64,
    /// How long ago the oldest of these stopped being current, in milliseconds: a large age is a forgotten snapshot or
    /// iterator, which pins memory and disk space.
    pub oldest_pinned_age_ms: u64,
    /// Bytes of memtables that only these hold.
    pub pinned_memtable_bytes: u64,
}

impl ReadStats {
    /// The filters of all levels together.
    pub fn filters(&self) -> FilterStats {
        self.levels.iter().fold(FilterStats::default(), |sum, level| FilterStats {
            asked: sum.asked + level.filters.asked,
            useful: sum.useful + level.filters.useful,
            false_positives: sum.false_positives + level.filters.false_positives,
        })
    }
}

/// What gets have found in one level, of all families.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LevelReads {
    /// Tables that were searched.
    pub tables_read: u64,
    /// Those of them that had the key.
    pub found: u64,
    /// Their filters.
    pub filters: FilterStats,
}

/// What filters have answered to gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FilterStats {
    /// Times that one was queried.
    pub asked: u64,
    /// Times that it excluded the key: a search saved.
    pub useful: u64,
    /// Times that it passed the key, which the table did not have.
    pub false_positives: u64,
}

/// A cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheStats {
    /// The most bytes that it may hold.
    pub capacity_bytes: u64,
    /// Bytes in it now.
    pub bytes: u64,
    /// Lookups that found their entry, counted.
    pub hits: u64,
    /// Lookups that did not, counted.
    pub misses: u64,
    /// Entries evicted for others, counted.
    pub evictions: u64,
}

impl CacheStats {
    /// Hits per lookup; 0 before the first.
    pub fn hit_ratio(&self) -> f64 {
        let lookups = self.hits + self.misses;
        if lookups == 0 { 0.0 } else { self.hits as f64 / lookups as f64 }
    }
}

/// Open tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TableCacheStats {
    /// The most bytes that filters and indexes of open tables may take.
    pub capacity_bytes: u64,
    /// Their bytes now: pinned while the table is open.
    pub bytes: u64,
    /// Open tables now.
    pub tables: u64,
    /// Times that a table was opened, counted: many more than there are tables means that the cache is too small.
    pub opens: u64,
    /// Times that a scan passed by a table because its filter holds nothing of the scan's prefix, counted; see
    /// [`crate::FamilyOptions::filter_prefix_bytes`].
    pub skipped_by_scans: u64,
}

/// One family's tables.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FamilyStats {
    /// Its number.
    pub family: u32,
    /// Its name.
    pub name: String,
    /// Range tombstones in its tables' version.
    pub range_tombstones: u64,
    /// Level by level, level 0 first.
    pub levels: Vec<LevelStats>,
}

/// One level of one family.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LevelStats {
    /// Number of tables.
    pub tables: u64,
    /// Bytes of their files.
    pub bytes: u64,
    /// Versions in them, tombstones included.
    pub entries: u64,
    /// Tombstones in them.
    pub tombstones: u64,
    /// Target in bytes; `None` for level 0, and for the last one, which has no target.
    pub target_bytes: Option<u64>,
    /// Urgency of a compaction: 1 is due. Level 0: tables over a key against the number at which compaction
    /// starts; others: bytes against the target.
    pub score: f64,
}

/// Keys that are read and written most, the hottest first: those with at least one in 512 of all reads or writes of the
/// last windows (`HotKeyOptions::window_ms`), at most 16 each. Estimates, which exceed the true value only by sampling.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct HotKeyStats {
    /// By reads.
    pub reads: Vec<HotKey>,
    /// By writes.
    pub writes: Vec<HotKey>,
    /// Commits refused by `HotKeyOptions::write_limit_per_second`, counted.
    pub throttled: u64,
    /// Times that what a hot key's read has found was promoted in a cache, counted.
    pub promoted: u64,
}

/// A hot key.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct HotKey {
    /// Its family's number.
    pub family: u32,
    /// Its first 64 bytes.
    pub key: Vec<u8>,
    /// Whether it is longer.
    pub truncated: bool,
    /// Reads or writes of it per second, estimated.
    pub per_second: f64,
}

/// Failures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct HealthStats {
    /// Why writes have stopped, if they have.
    pub stopped: Option<String>,
    /// The task of a thread that panicked, if one has: the name of a background job, or a step of a commit. That stops
    /// writes.
    pub panicked: Option<String>,
    /// What writers wait for, if a hard bound is reached now: the work, its subject, and the option with the
    /// bound.
    pub stalled: Option<String>,
    /// Flushes that failed and are tried again, counted.
    pub failed_flushes: u64,
    /// Compactions that failed and are tried again, counted.
    pub failed_compactions: u64,
    /// The present error of flush or compaction that is being retried, if any.
    pub background_error: Option<String>,
    /// Times that there was no descriptor to open a file with, counted; most of them ended by closing open tables.
    pub descriptors_refused: u64,
    /// Checkpoints and backups that gave up with [`Error::Busy`](crate::Error::Busy), counted.
    pub copies_refused: u64,
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
