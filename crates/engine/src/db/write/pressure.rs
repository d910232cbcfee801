//! How much writers are slowed: pure functions of the debt of background work.
//!
//! Each kind of debt has a soft and a hard bound. The *pressure* is how far the worst of them is on the way from the
//! one to the other, from 0 to 1. Writers get the rate `drain x (1 - p) / p`, where the drain is what background work
//! gets through: no limit at the soft bound, the drain itself half way, nothing at the hard bound. Whatever the true
//! drain is, there is a pressure at which as much comes in as goes out, and it lies well inside of the bounds even if
//! the estimate is wrong by a factor of three (then between 0.25 and 0.75).
//!
//! The idea of a writers' rate that follows from compaction debt is that of RocksDB's write controller
//! (`db/column_family.cc`, `RecalculateWriteStallConditions`, and `db/write_controller.cc`), which changes the rate by
//! steps of 0.8 and 1.25 whenever the debt has grown or shrunk. A curve without steps needs no such state, and begins
//! gently.

use std::time::Duration;

/// A kind of debt that slows writers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum DelayReason {
    /// Memtables that wait for their flush.
    Memtables,
    /// Tables in level 0.
    Level0,
    /// Bytes that must be compacted for all levels to be within their targets.
    CompactionDebt,
    /// Garbage in the value log beyond its share.
    ValueGarbage,
}

/// How many kinds of debt there are.
pub(crate) const REASONS: usize = 4;

/// The debt of background work, or its bounds: an amount for each [`DelayReason`], in its order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Debts {
    pub(crate) memtable_bytes: u64,
    pub(crate) level0_tables: u64,
    pub(crate) compaction_bytes: u64,
    pub(crate) value_bytes: u64,
}

impl Debts {
    fn each(self) -> [(DelayReason, u64); REASONS] {
        [
            (DelayReason::Memtables, self.memtable_bytes),
            (DelayReason::Level0, self.level0_tables),
            (DelayReason::CompactionDebt, self.compaction_bytes),
            (DelayReason::ValueGarbage, self.value_bytes),
        ]
    }
}

/// See the head of this file.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Pressure {
    /// 0: writers are not limited. 1: a hard bound is reached.
    pub(crate) level: f64,
    /// The debt that is closest to its bound; `None` while the level is 0.
    pub(crate) reason: Option<DelayReason>,
}

impl Pressure {
    /// For these debts. A soft bound is `soft_percent` of the hard one.
    pub(crate) fn of(debts: Debts, hard: Debts, soft_percent: u64) -> Pressure {
        assert!(soft_percent <= 100, "a soft bound is not above the hard one");
        let mut worst = Pressure::default();
        for ((reason, debt), (_, hard)) in debts.each().into_iter().zip(hard.each()) {
            let (debt, hard) = (debt as f64, hard as f64);
            let soft = hard * soft_percent as f64 / 100.0;
            // With both bounds in one place there is nothing gradual, only the stop.
            let level = if debt >= hard { 1.0 } else { ((debt - soft) / (hard - soft)).max(0.0) };
            if level > worst.level {
                worst = Pressure { level, reason: Some(reason) };
            }
        }
        worst
    }

    /// Bytes per second that writers may write, if background work gets through `drain` of them; `None` for no limit.
    pub(crate) fn rate(self, drain: f64) -> Option<f64> {
        (self.level > 0.0).then(|| (drain * (1.0 - self.level) / self.level).max(RATE_MIN))
    }
}

/// What writers get at least, in bytes per second, however great the pressure: at a hard bound they are stopped, not
/// starved.
const RATE_MIN: f64 = 65_536.0;

/// What background work is assumed to get through before that was measured, in bytes per second (RocksDB's
/// `delayed_write_rate` default); an error by a factor of three does no harm.
const DRAIN_UNKNOWN: f64 = 16_777_216.0;
/// Least estimate of it: with 0 no write would proceed, and nothing would be measured.
const DRAIN_MIN: f64 = 1_048_576.0;
/// The window of the estimate: flushes and merges end every second or so, and between them nothing seems to be
/// done.
const DRAIN_MEMORY: Duration = Duration::from_secs(2);
/// Samples over less time are too noisy.
const SAMPLE_MIN: Duration = Duration::from_millis(100);
/// After so long without a sample no writer was slowed, and the work done in that time does not show what can be done.
const SAMPLE_MAX: Duration = Duration::from_secs(1);

/// An estimate of what background work gets through, in bytes of writers per second.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Drain {
    bytes_per_second: Option<f64>,
    /// Time and total of the last sample.
    sampled: Option<(Duration, i64)>,
}

impl Drain {
    /// The estimate.
    pub(crate) fn bytes_per_second(&self) -> f64 {
        self.bytes_per_second.unwrap_or(DRAIN_UNKNOWN).max(DRAIN_MIN)
    }

    /// A flush has taken so long, while no better sample exists.
    pub(crate) fn note_flush(&mut self, bytes: u64, took: Duration) {
        if self.bytes_per_second.is_none() && !took.is_zero() {
            self.bytes_per_second = Some(bytes as f64 / took.as_secs_f64());
        }
    }

    /// Whether a sample would be useful now.
    pub(crate) fn needs_sample(&self, now: Duration) -> bool {
        self.sampled.is_none_or(|(then, _)| now.saturating_sub(then) >= SAMPLE_MIN)
    }

    /// By now `total` bytes have been got through, counted from anywhere: what was flushed, less the debt that grew
    /// from it. To be called while writers are slowed, so that there is always something to do.
    pub(crate) fn sample(&mut self, now: Duration, total: i64) {
        let before = self.sampled.replace((now, total));
        let Some((then, before)) = before else { return };
        let elapsed = now.saturating_sub(then);
        if elapsed > SAMPLE_MAX || elapsed.is_zero() {
            return;
        }
        // Debt may grow by more than was flushed, when a level comes over its target.
        let rate = (total.saturating_sub(before) as f64 / elapsed.as_secs_f64()).max(0.0);
        let weight = 1.0 - (-elapsed.as_secs_f64() / DRAIN_MEMORY.as_secs_f64()).exp();
        let known = self.bytes_per_second();
        self.bytes_per_second = Some(known + weight * (rate - known));
    }
}

#[cfg(test)]
#[path = "pressure_test.rs"]
mod tests;
