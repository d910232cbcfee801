//! Copies of what was recorded.

use super::Histogram;

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
    pub dead_ranges_recorded: u64,
    /// See `dead_ranges_recorded`.
    pub dead_ranges_refused: u64,
    /// See `dead_ranges_recorded`.
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
            queries: sum.queries + level.filters.queries,
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
    pub queries: u64,
    /// Times that it excluded the key: a search saved.
    pub useful: u64,
    /// Times that it passed the key, which the table did not have.
    pub false_positives: u64,
}
