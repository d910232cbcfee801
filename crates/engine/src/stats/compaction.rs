//! Compactions of all families.

use super::metric::Subsystem;
use super::metric::Unit::{Bytes, None as No, Ratio, Seconds};
use super::{Stats, seconds};
use crate::compaction::LevelWork;
use crate::db::Core;
use std::sync::atomic::Ordering::Relaxed;

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

pub(super) fn collect(core: &Core) -> CompactionTotals {
    let state = &core.shared().context.state;
    let levels = state.stats.levels();
    // Writes to level 0 are flushes.
    let compacted = levels.iter().skip(1);
    CompactionTotals {
        count: compacted.clone().map(|level| level.runs + level.moves + level.drops).sum(),
        running: state.in_flight().plans() as u64,
        read_bytes: compacted.clone().map(|level| level.read_bytes).sum(),
        written_bytes: compacted.map(|level| level.written_bytes).sum(),
        debt_bytes: core.shared().context.debt_bytes(),
        write_amplification: state.stats.write_amplification(),
        levels: levels.to_vec(),
        limiter_waited_us: u64::try_from(state.limiter.waited().as_micros()).unwrap_or(u64::MAX),
        limiter_bytes: state.limiter.taken_bytes(),
        limiter_bytes_per_second: state.limiter.bytes_per_second(),
        dead_requests: core.shared().counters.dead_requests.load(Relaxed),
        dead_requests_refused: core.shared().counters.dead_requests_refused.load(Relaxed),
    }
}

impl Stats {
    pub(super) fn describe_compaction(&self, subsystem: &mut Subsystem<'_>) {
        let totals = &self.compaction;
        subsystem.counter("done", No, "Merges, moves and drops of tables", totals.count);
        subsystem.gauge("running", No, "Compactions that run", totals.running);
        subsystem.counter("read", Bytes, "Bytes of tables read", totals.read_bytes);
        subsystem.counter("written", Bytes, "Bytes of tables written", totals.written_bytes);
        subsystem.gauge("debt", Bytes, "Bytes to compact until all levels are within targets", totals.debt_bytes);
        let help = "Bytes written to tables for each byte flushed, since open";
        subsystem.gauge("write_amplification", Ratio, help, totals.write_amplification);
        let help = "Time that background work waited for the rate limiter";
        subsystem.counter("limiter_waited", Seconds, help, seconds(totals.limiter_waited_us));
        subsystem.counter("limiter_passed", Bytes, "Bytes that the rate limiter let pass", totals.limiter_bytes);
        let help = "The rate limiter's bound a second, 0 for none";
        subsystem.gauge("limiter_rate", Bytes, help, totals.limiter_bytes_per_second);
        let help = "Compactions of ranges in which scans passed over much that is dead";
        subsystem.counter("dead_requests", No, help, totals.dead_requests);
        let help = "Such compactions that were refused because too many waited";
        subsystem.counter("dead_requests_refused", No, help, totals.dead_requests_refused);
        subsystem.histogram("duration", "Units of compaction, as jobs take them", &self.latency.compaction);
    }
}
