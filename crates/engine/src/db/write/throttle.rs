//! Slows writers as background work falls behind, so that it need not stop them.
//!
//! A write under [`Pressure`] is paid for from a bucket that fills at the rate which the pressure allows. A
//! writer takes its bytes and waits until the bucket is out of debt: so all together keep to the rate, and no writer
//! waits for ever. It checks again every few milliseconds, and continues at once when the pressure ends.
//!
//! Only blocking callers are slowed, and only for batches that are not decided elsewhere: never derived commits, which
//! apply what is replicated already (they wait for memory and for level 0 alone, in their queue), never what was
//! submitted (it would delay what is behind it; the submitter bounds what is in progress), never stream operations
//! (they take no memory). So no writer waits here for something that waits for the writer.
//!
//! Memory and level 0 stop every batch at their hard bounds, where numbers are assigned (`Memtables::begin`). The other
//! debts stop blocking callers, here.

use super::WritePath;
use super::pressure::{Debts, DelayReason, Drain, Pressure, REASONS};
use crate::Result;
use crate::db::options::Options;
use crate::lock::{Mutex, Rank};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// A shorter wait is skipped, and a later writer pays for it: to sleep and to be woken takes some 50 us.
const WAIT_MIN: Duration = Duration::from_millis(1);
/// Longest wait before the next check.
const WAIT_MAX: Duration = Duration::from_millis(10);
/// Longest delay of a write: beyond it only a hard bound delays it.
const DELAY_MAX: Duration = Duration::from_secs(1);
/// Debts are checked at this interval while writers are slowed.
const CHECK_INTERVAL: Duration = Duration::from_millis(1);
/// Segments of the value log that garbage may fill beyond any share of it, so that a small log does not slow writers.
const VALUE_SEGMENTS_FREE: u64 = 8;

/// How writers are slowed: counters since open, and gauges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WriteDelays {
    /// Writes that were delayed, counted; those that reached a hard bound are counted separately.
    pub delayed: u64,
    /// Time that they waited because of memtables, counted in microseconds.
    pub memtables_us: u64,
    /// Because of level 0.
    pub level0_us: u64,
    /// Because of compaction debt.
    pub compaction_debt_us: u64,
    /// Because of garbage in the value log.
    pub value_garbage_us: u64,
    /// Where the worst debt is between its soft bound (0) and its hard one (100), now.
    pub pressure_percent: u64,
    /// Which debt that is.
    pub reason: Option<DelayReason>,
    /// Bytes per second that all writers together may write now; 0 for no limit.
    pub bytes_per_second: u64,
    /// Bytes per second that background work gets through, by the latest estimate.
    pub drain_bytes_per_second: u64,
}

impl WriteDelays {
    /// Time that writes were delayed, in microseconds.
    pub fn delay_us(&self) -> u64 {
        self.memtables_us + self.level0_us + self.compaction_debt_us + self.value_garbage_us
    }
}

/// See the head of this file.
pub(crate) struct Throttle {
    memtable_bytes_max: u64,
    level0_tables_max: u64,
    compaction_bytes_max: u64,
    value_percent_max: u64,
    value_bytes_free: u64,
    soft_percent: u64,
    /// Debts that are known from the last flush, compaction or collection.
    compaction_bytes: AtomicU64,
    value_bytes: AtomicU64,
    value_bytes_max: AtomicU64,
    /// Whether one of these is beyond its soft bound.
    pressed: AtomicBool,
    state: Mutex<State>,
    delayed: AtomicU64,
    delay_us: [AtomicU64; REASONS],
}

#[derive(Default)]
struct State {
    /// Below 0 while what was taken is not paid for.
    bucket_bytes: f64,
    refilled: Duration,
    checked: Option<Duration>,
    pressure: Pressure,
    drain: Drain,
}

/// Why a writer must wait.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Wait {
    /// Check again after so long.
    pub(crate) length: Duration,
    pub(crate) reason: DelayReason,
    /// A hard bound is reached: the wait does not end with time alone.
    pub(crate) stopped: bool,
}

/// What the throttle reads at a check.
pub(crate) trait DebtSource {
    /// Bytes of memtables, and tables in level 0.
    fn memory(&self) -> (u64, u64);
    /// Bytes of writers that were got through by now, counted from an arbitrary start; see [`Drain::sample`].
    fn drained_bytes(&self) -> i64;
}

impl Throttle {
    pub(crate) fn new(options: &Options) -> Throttle {
        let value_bytes_free = VALUE_SEGMENTS_FREE * options.value_segment_bytes;
        Throttle {
            memtable_bytes_max: options.memtable_bytes.saturating_mul(options.memtables_max as u64),
            level0_tables_max: options.level0_tables_max as u64,
            compaction_bytes_max: options.compaction_debt_bytes_max,
            value_percent_max: options.value_debt_percent_max,
            value_bytes_free,
            soft_percent: options.slowdown_percent,
            compaction_bytes: AtomicU64::new(0),
            value_bytes: AtomicU64::new(0),
            value_bytes_max: AtomicU64::new(value_bytes_free),
            pressed: AtomicBool::new(false),
            state: Mutex::new(Rank::Throttle, State::default()),
            delayed: AtomicU64::new(0),
            delay_us: Default::default(),
        }
    }

    /// Whether a debt that is known here is beyond its soft bound.
    pub(crate) fn is_pressed(&self) -> bool {
        self.pressed.load(Relaxed)
    }

    /// Records the present compaction debt.
    pub(crate) fn note_compaction_debt(&self, bytes: u64) {
        self.compaction_bytes.store(bytes, Relaxed);
        self.update_pressed();
    }

    /// Records how far garbage in the value log is beyond its share, of so many bytes of values altogether.
    pub(crate) fn note_value_debt(&self, bytes: u64, total_bytes: u64) {
        let percent = (total_bytes / 100).saturating_mul(self.value_percent_max);
        self.value_bytes_max.store(percent.saturating_add(self.value_bytes_free), Relaxed);
        self.value_bytes.store(bytes, Relaxed);
        self.update_pressed();
    }

    /// A flush has taken so long.
    pub(crate) fn note_flush(&self, bytes: u64, took: Duration) {
        self.state.lock().drain.note_flush(bytes, took);
    }

    fn update_pressed(&self) {
        self.pressed.store(self.pressure_of(0, 0).level > 0.0, Relaxed);
    }

    fn pressure_of(&self, memtable_bytes: u64, level0_tables: u64) -> Pressure {
        let debts = Debts {
            memtable_bytes,
            level0_tables,
            compaction_bytes: self.compaction_bytes.load(Relaxed),
            value_bytes: self.value_bytes.load(Relaxed),
        };
        let hard = Debts {
            memtable_bytes: self.memtable_bytes_max,
            level0_tables: self.level0_tables_max,
            compaction_bytes: self.compaction_bytes_max,
            value_bytes: self.value_bytes_max.load(Relaxed),
        };
        Pressure::of(debts, hard, self.soft_percent)
    }

    /// A new write of so many bytes, or, with 0, another check of the same write. `None`: it may continue.
    pub(crate) fn enter(&self, bytes: u64, now: Duration, debts: &impl DebtSource) -> Option<Wait> {
        let mut state = self.state.lock();
        if bytes == 0 || state.checked.is_none_or(|checked| now.saturating_sub(checked) >= CHECK_INTERVAL) {
            state.checked = Some(now);
            let (memtable_bytes, level0_tables) = debts.memory();
            state.pressure = self.pressure_of(memtable_bytes, level0_tables);
            if state.pressure.level > 0.0 && state.drain.needs_sample(now) {
                let drained_bytes = debts.drained_bytes();
                state.drain.sample(now, drained_bytes);
            }
        }
        let pressure = state.pressure;
        let elapsed = now.saturating_sub(std::mem::replace(&mut state.refilled, now));
        let (Some(rate), Some(reason)) = (pressure.rate(state.drain.bytes_per_second()), pressure.reason) else {
            state.bucket_bytes = 0.0;
            return None;
        };
        // Unused rate is not saved: the pressure exists because too much was written already.
        state.bucket_bytes = (state.bucket_bytes + rate * elapsed.as_secs_f64()).min(0.0) - bytes as f64;
        let stops_here = matches!(reason, DelayReason::CompactionDebt | DelayReason::ValueGarbage);
        if pressure.level >= 1.0 && stops_here {
            return Some(Wait { length: WAIT_MAX, reason, stopped: true });
        }
        let due = Duration::try_from_secs_f64(-state.bucket_bytes / rate).unwrap_or(DELAY_MAX);
        (due >= WAIT_MIN).then(|| Wait { length: due.min(WAIT_MAX), reason, stopped: false })
    }

    fn note_delay(&self, reason: DelayReason, waited: Duration) {
        self.delayed.fetch_add(1, Relaxed);
        let us = u64::try_from(waited.as_micros()).unwrap_or(u64::MAX);
        self.delay_us[reason as usize].fetch_add(us, Relaxed);
    }

    /// For `Db::stats`.
    pub(crate) fn stats(&self, memtable_bytes: u64, level0_tables: u64) -> WriteDelays {
        let pressure = self.pressure_of(memtable_bytes, level0_tables);
        let drain = self.state.lock().drain.bytes_per_second();
        let delay_us = |reason: DelayReason| self.delay_us[reason as usize].load(Relaxed);
        WriteDelays {
            delayed: self.delayed.load(Relaxed),
            memtables_us: delay_us(DelayReason::Memtables),
            level0_us: delay_us(DelayReason::Level0),
            compaction_debt_us: delay_us(DelayReason::CompactionDebt),
            value_garbage_us: delay_us(DelayReason::ValueGarbage),
            pressure_percent: (pressure.level * 100.0) as u64,
            reason: pressure.reason,
            bytes_per_second: pressure.rate(drain).map_or(0, |rate| rate as u64),
            drain_bytes_per_second: drain as u64,
        }
    }
}

impl DebtSource for WritePath {
    fn memory(&self) -> (u64, u64) {
        self.memtables.memory_and_level0()
    }

    fn drained_bytes(&self) -> i64 {
        let values = &self.shared.context.values;
        let done = self.shared.counters.flushed_bytes.load(Relaxed) + values.counters.appended_bytes();
        // A byte written makes so many bytes of work, and only what was done of that was got through.
        let work = self.shared.context.state.stats.write_amplification().max(1.0);
        let compaction = (self.throttle.compaction_bytes.load(Relaxed) as f64 / work) as i64;
        let owed = compaction.saturating_add(i64::try_from(values.debt_bytes()).unwrap_or(i64::MAX));
        i64::try_from(done).unwrap_or(i64::MAX).saturating_sub(owed)
    }
}

impl WritePath {
    /// Delays a blocking write of so many bytes while background work is behind. Under no lock. Errors: that of the
    /// flush, compaction or collection that has failed since, at a hard bound; `Closed`, `Stopped`.
    pub(crate) fn delay_write(&self, bytes: u64) -> Result<()> {
        if !self.memtables.is_pressed() && !self.throttle.is_pressed() {
            return Ok(());
        }
        self.delay_write_under_pressure(bytes)
    }

    #[cold]
    fn delay_write_under_pressure(&self, bytes: u64) -> Result<()> {
        let clock = &self.shared.env.clock;
        let began = clock.monotonic();
        let Some(mut wait) = self.throttle.enter(bytes, began, self) else { return Ok(()) };
        // In a stepped world no time passes during a wait.
        if !self.shared.env.tasks.threaded() {
            self.throttle.note_delay(wait.reason, Duration::ZERO);
            return Ok(());
        }
        let failed_before = self.shared.progress.get().failures();
        let (first_reason, mut stalled, mut waited) = (wait.reason, None, Duration::ZERO);
        // Counted by the requested waits: a clock that stands still must not delay a writer for ever.
        while wait.stopped || waited < DELAY_MAX {
            if wait.stopped && stalled.is_none() {
                stalled = Some(self.shared.counters.stalled());
                self.note_stall();
                self.shared.jobs.wake_values();
            }
            self.shared.progress.wait_for_end(wait.length, || self.shared.health.check_writable().is_err());
            waited += wait.length;
            self.shared.health.check_writable()?;
            if wait.stopped {
                self.shared.progress.get().error_since(failed_before).map_or(Ok(()), Err)?;
            }
            match self.throttle.enter(0, clock.monotonic(), self) {
                Some(next) => wait = next,
                None => break,
            }
        }
        self.throttle.note_delay(first_reason, clock.monotonic().saturating_sub(began));
        Ok(())
    }

    /// For `Db::stats`.
    pub(crate) fn write_delays(&self) -> WriteDelays {
        let (memtable_bytes, level0_tables) = self.memtables.memory_and_level0();
        self.throttle.stats(memtable_bytes, level0_tables)
    }

    /// Updates the compaction debt, after it has changed.
    pub(crate) fn note_compaction_debt(&self) {
        self.throttle.note_compaction_debt(self.shared.context.debt_bytes());
    }
}

#[cfg(test)]
#[path = "throttle_test.rs"]
mod tests;
