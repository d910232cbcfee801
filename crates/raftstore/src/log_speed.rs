//! Whether the log of this store is slow: much slower than those of the other stores, and for some time.
//!
//! The time of a write of the log is the time from its request until it is durable, with all waiting, because that is
//! what delays the regions that the store leads. Times are averaged over short windows. A window is *slow* if its
//! average is above a limit, which is a multiple of what the other stores need, and never below a minimum. After some
//! slow windows in a row the log is slow, and after many windows with half of the limit at most, and no slow one among
//! them, it is not any more. Windows without a write do not count; after as many in a row, what was measured before
//! them says nothing any more, and other stores do not compare themselves with it.
//!
//! *Why a comparison:* a limit in milliseconds alone takes a cluster of disks for slow that are all alike, or all busy,
//! and does not see a fast disk that became ten times slower. The others count as what at least half of them need, so
//! that one fast disk, or one slow one among several, decides nothing.

use crate::config::SlowLog;
use std::time::Duration;

#[derive(Debug, Default)]
pub(crate) struct LogSpeed {
    bounds: SlowLog,
    window_began: Option<Duration>,
    /// Of this window.
    writes: u32,
    total: Duration,
    /// The average of the last windows with a write, the newer ones with more weight.
    average: Option<Duration>,
    /// Windows without a write, in a row.
    idle_windows: u32,
    /// In a row.
    slow_windows: u32,
    /// Since the last slow one.
    fast_windows: u32,
    is_slow: bool,
}

impl LogSpeed {
    pub fn new(bounds: SlowLog) -> LogSpeed {
        LogSpeed { bounds, ..LogSpeed::default() }
    }

    pub fn is_slow(&self) -> bool {
        self.is_slow
    }

    /// How long a write takes, as of the last windows; `None` before the first write, and long after the last one.
    pub fn average(&self) -> Option<Duration> {
        self.average
    }

    /// A write is durable.
    pub fn written(&mut self, took: Duration) {
        self.writes += 1;
        self.total += took;
    }

    /// Time passes. `waiting`: for how long the oldest write has waited that is not durable; `others`: what the other
    /// stores need for a write. Returns whether [`LogSpeed::is_slow`] has changed.
    pub fn tick(&mut self, now: Duration, waiting: Option<Duration>, others: Vec<Duration>) -> bool {
        let began = *self.window_began.get_or_insert(now);
        if now.saturating_sub(began) < self.bounds.window {
            return false;
        }
        self.window_began = Some(now);
        let (mut writes, mut total) = (std::mem::take(&mut self.writes), std::mem::take(&mut self.total));
        // One that is late already counts before it ends: it may never do.
        if let Some(waiting) = waiting.filter(|waiting| *waiting >= self.bounds.window) {
            (writes, total) = (writes + 1, total + waiting);
        }
        let Some(time) = total.checked_div(writes) else {
            self.idle_windows = self.idle_windows.saturating_add(1);
            self.average.take_if(|_| self.idle_windows >= self.bounds.fast_windows);
            return false;
        };
        self.idle_windows = 0;
        self.average = Some(self.average.map_or(time, |before| (before + time) / 2));
        let before = self.is_slow;
        match self.limit(others) {
            Some(limit) => self.compare(time, limit),
            None => (self.is_slow, self.slow_windows, self.fast_windows) = (false, 0, 0),
        }
        self.is_slow != before
    }

    /// The time above which a window is slow; `None` if nothing is known of other stores.
    fn limit(&self, mut others: Vec<Duration>) -> Option<Duration> {
        others.sort_unstable();
        let usual = others.get(others.len() / 2)?;
        Some(self.bounds.write_min.max(usual.saturating_mul(self.bounds.factor)))
    }

    fn compare(&mut self, time: Duration, limit: Duration) {
        if time > limit {
            (self.slow_windows, self.fast_windows) = (self.slow_windows.saturating_add(1), 0);
        } else {
            self.slow_windows = 0;
            self.fast_windows = self.fast_windows.saturating_add(u32::from(time <= limit / 2));
        }
        if self.is_slow {
            self.is_slow = self.fast_windows < self.bounds.fast_windows;
        } else {
            self.is_slow = self.slow_windows >= self.bounds.slow_windows;
        }
    }
}

#[cfg(test)]
#[path = "log_speed_test.rs"]
mod tests;
