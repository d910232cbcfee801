//! The typed snapshot.

use crate::cache::CacheStats;
use crate::compaction::LevelWork;
use crate::hot::HotKeyStats;
use crate::measure::{LatencyStats, ReadStats};
use crate::version::TableCacheStats;
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
