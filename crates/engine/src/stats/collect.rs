//! Gathers the snapshot.

use super::{
    CacheStats, CommitStats, CompactionTotals, FamilyStats, HealthStats, IngestStats, LevelStats, LogStats,
    MemtableStats, ReadStats, StallStats, Stats,
};
use crate::Db;
use crate::compaction::Targets;
use crate::db::{Core, LogMaintenance};
use crate::types::LEVEL_COUNT;
use crate::version::{FamilyLevels, Table};
use crate::vlog::{ValueCache, ValueStats};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

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
            commits: core.commit_stats(),
            stalls: StallStats {
                waits: core.shared().counters.stalls.load(Relaxed),
                waiting: core.shared().counters.stalled.load(Relaxed),
                delays: core.write.write_delays(),
            },
            log: core.log_stats(),
            feed: core.shared().subscribers.stats(&core.write.log.segments),
            memtables: core.memtable_stats(),
            ingest: core.ingest_stats(),
            compaction: core.compaction_totals(),
            reads: core.read_stats(),
            block_cache: core.shared().context.tables.blocks().stats(),
            table_cache: core.shared().context.tables.stats(),
            value_cache: values.map_or_else(CacheStats::default, ValueCache::stats),
            values: core.value_stats(),
            transactions: core.transactions.stats(core.shared().env.clock.monotonic()),
            families: core.family_stats(),
            hot_keys: core.shared().recorder.hot_keys.stats(core.shared().recorder.now()),
            health: core.health_stats(),
        }
    }
}

impl Core {
    fn commit_stats(&self) -> CommitStats {
        let counters = &self.shared().counters;
        CommitStats {
            sync: counters.commits_sync.load(Relaxed),
            buffered: counters.commits_buffered.load(Relaxed),
            derived: counters.commits_derived.load(Relaxed),
            waiting: self.write.queue.len() as u64,
        }
    }

    fn ingest_stats(&self) -> IngestStats {
        let counters = &self.shared().counters;
        IngestStats {
            ingests: counters.ingests.load(Relaxed),
            tables: counters.ingested_tables.load(Relaxed),
            bytes: counters.ingested_bytes.load(Relaxed),
        }
    }

    fn log_stats(&self) -> LogStats {
        let counters = &self.shared().counters;
        let segments = self.write.log.segments.facts();
        let held = LogMaintenance::held_bytes(&self.write, &segments);
        LogStats {
            held_by_memtables_bytes: held.by_memtables,
            held_by_streams_bytes: held.by_streams,
            held_for_feed_bytes: held.for_feed,
            oldest_held_ms: self.background.log.oldest_held_ms(&self.write, &segments),
            holder_warnings: counters.log_holder_warnings.load(Relaxed),
            segments: segments.len() as u64,
            segments_free: self.write.log.next_segments.free_count() as u64,
            segments_deleted: counters.segments_deleted.load(Relaxed),
            segments_recycled: self.write.log.next_segments.recycled_count(),
            bytes: segments.iter().map(|facts| facts.bytes).sum(),
            appended_bytes: counters.appended_bytes.load(Relaxed),
            rewritten_bytes: counters.rewritten_bytes.load(Relaxed),
            replayed_bytes: counters.replayed_bytes.load(Relaxed),
            syncs: counters.syncs.load(Relaxed),
            streams: self.write.log.streams.lock().len() as u64,
        }
    }

    fn memtable_stats(&self) -> MemtableStats {
        let (memtables, bytes) = self.write.memtables.memory();
        MemtableStats {
            count: memtables as u64,
            bytes,
            flushes: self.shared().counters.flushes.load(Relaxed),
            flushed_bytes: self.shared().counters.flushed_bytes.load(Relaxed),
        }
    }

    fn compaction_totals(&self) -> CompactionTotals {
        let state = &self.shared().context.state;
        let levels = state.stats.levels();
        // Writes to level 0 are flushes.
        let compacted = levels.iter().skip(1);
        CompactionTotals {
            count: compacted.clone().map(|level| level.runs + level.moves + level.drops).sum(),
            running: state.in_flight().plans() as u64,
            read_bytes: compacted.clone().map(|level| level.read_bytes).sum(),
            written_bytes: compacted.map(|level| level.written_bytes).sum(),
            debt_bytes: self.shared().context.debt_bytes(),
            write_amplification: state.stats.write_amplification(),
            levels: levels.to_vec(),
            limiter_waited_us: u64::try_from(state.limiter.waited().as_micros()).unwrap_or(u64::MAX),
            limiter_bytes: state.limiter.taken_bytes(),
            limiter_bytes_per_second: state.limiter.bytes_per_second(),
            dead_requests: self.shared().counters.dead_requests.load(Relaxed),
            dead_requests_refused: self.shared().counters.dead_requests_refused.load(Relaxed),
        }
    }

    fn read_stats(&self) -> ReadStats {
        let held = self.write.memtables.held();
        let age = held.oldest_past_since.map(|since| self.shared().env.clock.monotonic().saturating_sub(since));
        let dead = self.write.memtables.dead.stats();
        ReadStats {
            dead_ranges: dead.known,
            dead_ranges_recorded: dead.recorded,
            dead_ranges_refused: dead.refused,
            dead_ranges_cut: dead.cut,
            open: held.readers,
            pinned_states: held.past_states,
            oldest_pinned_age_ms: age.map_or(0, |age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
            pinned_memtable_bytes: held.past_memtable_bytes,
            ..self.shared().recorder.reads()
        }
    }

    fn family_stats(&self) -> Vec<FamilyStats> {
        let version = self.shared().context.versions.current();
        let families = version.families().iter();
        families
            .map(|(family, levels)| {
                let options = self.shared().context.options_of(family);
                let targets = Targets::new(levels, &options);
                FamilyStats {
                    family: family.0,
                    name: levels.name.clone(),
                    range_tombstones: levels.range_tombstones.len() as u64,
                    levels: (0..LEVEL_COUNT)
                        .map(|level| level_stats(levels, level, &targets, options.level0_tables))
                        .collect(),
                }
            })
            .collect()
    }

    fn value_stats(&self) -> ValueStats {
        let context = &self.shared().context;
        let version = context.versions.current();
        let mut stats = context.values.stats();
        for state in version.values().files().values() {
            stats.files += 1;
            stats.file_bytes += state.sealed_bytes().unwrap_or(0);
        }
        stats.file_bytes += stats.open_bytes;
        stats.referred_bytes = version.values().referred().total_bytes();
        stats.relocated_segments = version.values().relocated().len() as u64;
        stats
    }

    fn health_stats(&self) -> HealthStats {
        let progress = self.shared().progress.get();
        HealthStats {
            stopped: self.shared().health.why_stopped(),
            panicked: self.shared().health.what_panicked(),
            stalled: self.write.what_writers_wait_for(),
            failed_flushes: progress.failed_flushes,
            failed_compactions: progress.failed_compactions,
            background_error: progress.error().map(|error| error.to_string()),
            descriptors_refused: self.shared().counters.descriptors_refused.load(Relaxed),
            copies_refused: self.shared().counters.copies_refused.load(Relaxed),
        }
    }
}

fn level_stats(levels: &FamilyLevels, level: usize, targets: &Targets, level0_tables: usize) -> LevelStats {
    let tables: &[Arc<Table>] = levels.levels.get(level).map_or(&[], |tables| tables);
    let sum = |of: fn(&crate::table::TableMeta) -> u64| tables.iter().map(|table| of(table.meta())).sum::<u64>();
    let bytes = sum(|meta| meta.file_bytes);
    let bounded = level > 0 && level < LEVEL_COUNT - 1;
    let target_bytes = targets.bytes.get(level).copied().filter(|_| bounded);
    let score = match target_bytes {
        Some(target) => bytes as f64 / target.max(1) as f64,
        None if level == 0 => levels.level0_depth() as f64 / level0_tables.max(1) as f64,
        None => 0.0,
    };
    LevelStats {
        tables: tables.len() as u64,
        bytes,
        entries: sum(|meta| meta.entries),
        tombstones: sum(|meta| meta.tombstones),
        target_bytes,
        score,
    }
}

#[cfg(test)]
#[path = "collect_test.rs"]
mod tests;
