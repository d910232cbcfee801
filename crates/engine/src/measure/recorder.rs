//! Where latencies are recorded.

use super::histogram::{Histogram, Recording};
use super::recorded::{FilterStats, LatencyStats, LevelReads, ReadStats};
use super::stripe::Sampler;
use crate::hot::HotKeys;
use crate::types::LEVEL_COUNT;
use crate::{Family, Result, WriteBatch};
use kontiki_env::clock::Clock;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Stripes for user threads: as many as a machine of ordinary size has processors.
const STRIPES: usize = 16;

/// One for a database. Gets, multi-gets and writes are sampled ([`Recorder::start_sampled`]); syncs, flushes and
/// compactions are few and slow, and all recorded.
pub(crate) struct Recorder {
    clock: Arc<dyn Clock>,
    sampler: Sampler,
    /// A get by a database, snapshot or transaction.
    pub(crate) get: Recording,
    /// A multi-get, as a whole.
    pub(crate) multi_get: Recording,
    /// The seek of a scan to its first entry.
    pub(crate) seek: Recording,
    /// A commit, from the call to the answer.
    pub(crate) write: Recording,
    /// The part of it from its place in the log on: insertion, sync, and the commits before it.
    pub(crate) commit_wait: Recording,
    /// A sync of the log, with that of the values before it.
    pub(crate) log_sync: Recording,
    /// A sync of the value log's open segments, if there was something to sync.
    pub(crate) value_sync: Recording,
    /// A flush of memtables into tables.
    pub(crate) flush: Recording,
    /// A unit of compaction, as a job takes it.
    pub(crate) compaction: Recording,
    pub(crate) reads: ReadCounters,
    pub(crate) hot_keys: HotKeys,
}

impl Recorder {
    /// Measures the gets and writes that the sampler chooses.
    pub(crate) fn new(clock: Arc<dyn Clock>, sampler: Sampler, hot_keys: HotKeys) -> Recorder {
        let (of_users, of_jobs) = if sampler.one_in() == 0 { (1, 1) } else { (STRIPES, 1) };
        Recorder {
            clock,
            sampler,
            get: Recording::new(of_users),
            multi_get: Recording::new(of_users),
            seek: Recording::new(of_users),
            write: Recording::new(of_users),
            commit_wait: Recording::new(of_users),
            log_sync: Recording::new(of_jobs),
            value_sync: Recording::new(of_jobs),
            flush: Recording::new(of_jobs),
            compaction: Recording::new(of_jobs),
            reads: ReadCounters::default(),
            hot_keys,
        }
    }

    /// Measures no gets and writes: for reads that are not of an open database.
    pub(crate) fn off(clock: Arc<dyn Clock>) -> Arc<Recorder> {
        Arc::new(Recorder::new(clock, Sampler::new(0), HotKeys::off()))
    }

    /// Whether this operation is to be measured: one in so many is.
    #[inline]
    pub(crate) fn sample(&self) -> bool {
        self.sampler.hit()
    }

    /// The time, if this operation is to be measured. For [`Recorder::end`].
    #[inline]
    pub(crate) fn start_sampled(&self) -> Option<Duration> {
        self.sample().then(|| self.now())
    }

    /// Counts the keys of a commit that is measured since `started`.
    pub(crate) fn note_writes(&self, batch: &WriteBatch, started: Option<Duration>) {
        if let Some(started) = started {
            self.hot_keys.note_writes(batch, self.sampler.one_in(), started);
        }
    }

    /// Counts the key of a get that is measured since `started`; returns whether it is hot.
    pub(crate) fn note_read(&self, family: Family, key: &[u8], started: Duration) -> bool {
        self.hot_keys.note_read(family, key, self.sampler.one_in(), started)
    }

    /// The time on the monotonic clock.
    pub(crate) fn now(&self) -> Duration {
        self.clock.monotonic()
    }

    /// Records how long ago an operation started, if it is measured.
    #[inline]
    pub(crate) fn end(&self, recording: &Recording, started: Option<Duration>) {
        if let Some(started) = started {
            recording.record(self.now().saturating_sub(started));
        }
    }

    /// Records how long something takes, if it succeeds.
    pub(crate) fn time<T>(&self, recording: &Recording, what: impl FnOnce() -> Result<T>) -> Result<T> {
        let started = self.now();
        let result = what()?;
        self.end(recording, Some(started));
        Ok(result)
    }

    /// What was recorded, by operation.
    pub(crate) fn latencies(&self) -> LatencyStats {
        let get = |recording: &Recording| -> Histogram { recording.get() };
        LatencyStats {
            get: get(&self.get),
            multi_get: get(&self.multi_get),
            seek: get(&self.seek),
            write: get(&self.write),
            commit_wait: get(&self.commit_wait),
            log_sync: get(&self.log_sync),
            value_sync: get(&self.value_sync),
            flush: get(&self.flush),
            compaction: get(&self.compaction),
        }
    }

    /// What sampled gets have found, each standing for as many as it was chosen from.
    pub(crate) fn reads(&self) -> ReadStats {
        let one_in = self.sampler.one_in();
        ReadStats { scans: self.seek.get().count().saturating_mul(one_in), ..self.reads.scaled(one_in) }
    }
}

/// What sampled gets have found.
#[derive(Default)]
pub(crate) struct ReadCounters {
    gets: AtomicU64,
    found: AtomicU64,
    in_memtables: AtomicU64,
    /// Dead versions that scans passed over, and times that they skipped a dead range. Every scan counts.
    dead_passed: AtomicU64,
    dead_skips: AtomicU64,
    levels: [LevelCounters; LEVEL_COUNT],
}

/// See [`ReadCounters`].
#[derive(Default)]
struct LevelCounters {
    /// Tables whose filter was queried.
    queries: AtomicU64,
    /// Of these, those whose filter excluded the key.
    skipped: AtomicU64,
    /// Those that had the key.
    found: AtomicU64,
}

impl ReadCounters {
    /// A get has ended; `found`: there is a value, `in_memory`: a memtable had it.
    pub(crate) fn note_get(&self, found: bool, in_memory: bool) {
        self.gets.fetch_add(1, Relaxed);
        self.found.fetch_add(found.into(), Relaxed);
        self.in_memtables.fetch_add(in_memory.into(), Relaxed);
    }

    /// A scan has passed over dead versions.
    pub(crate) fn note_dead_passed(&self, versions: u64) {
        self.dead_passed.fetch_add(versions, Relaxed);
    }

    /// A scan has skipped a range that is known to be dead.
    pub(crate) fn note_dead_skip(&self) {
        self.dead_skips.fetch_add(1, Relaxed);
    }

    /// A table of a level was searched for a key.
    pub(crate) fn note_table(&self, level: usize, filter_passed: bool, found: bool) {
        debug_assert!(filter_passed || !found, "a filter never hides a key");
        if let Some(counters) = self.levels.get(level) {
            counters.queries.fetch_add(1, Relaxed);
            counters.skipped.fetch_add((!filter_passed).into(), Relaxed);
            counters.found.fetch_add(found.into(), Relaxed);
        }
    }

    fn scaled(&self, by: u64) -> ReadStats {
        let get = |counter: &AtomicU64| counter.load(Relaxed).saturating_mul(by);
        let level = |counters: &LevelCounters| {
            let (queries, skipped, found) = (get(&counters.queries), get(&counters.skipped), get(&counters.found));
            let read = queries.saturating_sub(skipped);
            LevelReads {
                tables_read: read,
                found,
                filters: FilterStats { queries, useful: skipped, false_positives: read.saturating_sub(found) },
            }
        };
        ReadStats {
            gets: get(&self.gets),
            gets_found: get(&self.found),
            gets_in_memtables: get(&self.in_memtables),
            levels: self.levels.iter().map(level).collect(),
            dead_versions_passed: self.dead_passed.load(Relaxed),
            dead_ranges_skipped: self.dead_skips.load(Relaxed),
            ..ReadStats::default()
        }
    }
}

#[cfg(test)]
#[path = "recorder_test.rs"]
mod tests;
