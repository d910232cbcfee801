//! The typed snapshot of all subsystems, and the list of what is shown of it.

use super::metric::{Metric, Subsystem};
use super::{
    CommitStats, CompactionTotals, FamilyStats, HealthStats, IngestStats, LogStats, MemtableStats, StallStats,
};
use super::{commits, compaction, health, ingest, levels, log, memtables, reads, values};
use crate::Db;
use crate::cache::CacheStats;
use crate::hot::HotKeyStats;
use crate::measure::{LatencyStats, ReadStats};
use crate::version::TableCacheStats;
use crate::vlog::ValueCache;
use crate::{Family, SequenceNumber, TransactionStats};
use std::sync::atomic::Ordering::Relaxed;

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

impl Db {
    /// The statistics of the database: counters since open and present gauges. It takes a few locks for a short time
    /// each: once per second costs nothing, once per request would be too often.
    pub fn stats(&self) -> Stats {
        let core = self.core();
        let version = core.shared().context.versions.current();
        let values = version.values().store().and_then(|store| store.values());
        Stats {
            visible_sequence: core.write.memtables.visible(),
            latency: core.shared().recorder.latencies(),
            commits: commits::collect(core),
            stalls: StallStats {
                waits: core.shared().counters.stalls.load(Relaxed),
                waiting: core.shared().counters.stalled.load(Relaxed),
                delays: core.write.write_delays(),
            },
            log: log::collect(core),
            feed: core.shared().subscribers.stats(&core.write.log.segments),
            memtables: memtables::collect(core),
            ingest: ingest::collect(core),
            compaction: compaction::collect(core),
            reads: reads::collect(core),
            block_cache: core.shared().context.tables.blocks().stats(),
            table_cache: core.shared().context.tables.stats(),
            value_cache: values.map_or_else(CacheStats::default, ValueCache::stats),
            values: values::collect(core),
            transactions: core.transactions.stats(core.shared().env.clock.monotonic()),
            families: levels::collect(core),
            hot_keys: core.shared().recorder.hot_keys.stats(core.shared().recorder.now()),
            health: health::collect(core),
        }
    }
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

    /// Every number, described: what Prometheus and JSON show.
    pub fn metrics(&self) -> Vec<Metric> {
        let mut metrics = Vec::with_capacity(128);
        self.describe_commits(&mut Subsystem::new(&mut metrics, "commit"));
        self.describe_stalls(&mut Subsystem::new(&mut metrics, "stall"));
        self.describe_log(&mut Subsystem::new(&mut metrics, "log"));
        self.describe_feed(&mut Subsystem::new(&mut metrics, "feed"));
        self.describe_memtables(&mut Subsystem::new(&mut metrics, "memtable"));
        self.describe_ingest(&mut Subsystem::new(&mut metrics, "ingest"));
        self.describe_compaction(&mut Subsystem::new(&mut metrics, "compaction"));
        self.describe_levels(&mut Subsystem::new(&mut metrics, "level"));
        self.describe_reads(&mut Subsystem::new(&mut metrics, "read"));
        self.describe_filters(&mut Subsystem::new(&mut metrics, "filter"));
        self.describe_caches(&mut metrics);
        self.describe_values(&mut Subsystem::new(&mut metrics, "value_log"));
        self.describe_transactions(&mut Subsystem::new(&mut metrics, "transaction"));
        self.describe_hot_keys(&mut Subsystem::new(&mut metrics, "hot_key"));
        self.describe_health(&mut Subsystem::new(&mut metrics, "health"));
        metrics
    }

    pub(super) fn family_name(&self, number: u32) -> String {
        self.families
            .iter()
            .find(|family| family.family == number)
            .map_or_else(String::new, |family| family.name.clone())
    }
}

pub(super) fn level_label(level: usize) -> Vec<(&'static str, String)> {
    vec![("level", level.to_string())]
}

pub(super) fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

#[cfg(test)]
#[path = "figures_test.rs"]
mod tests;
