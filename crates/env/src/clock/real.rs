//! The machine's clocks.

use super::Clock;
use rustix::time::{ClockId, clock_gettime};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Counts the time for which the machine is suspended, too: a lease must not look valid after a resume because the
/// clock stood still.
#[cfg(target_os = "linux")]
const MONOTONIC: ClockId = ClockId::Boottime;
/// Elsewhere CLOCK_MONOTONIC, which on most systems counts suspended time.
#[cfg(not(target_os = "linux"))]
const MONOTONIC: ClockId = ClockId::Monotonic;

/// The machine's clocks. All readings of a machine are comparable, until it is started again.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealClock;

impl RealClock {
    /// The machine's clock.
    pub fn new() -> RealClock {
        RealClock
    }
}

impl Clock for RealClock {
    fn monotonic(&self) -> Duration {
        let now = clock_gettime(MONOTONIC);
        // The kernel counts from the machine's start on, and below a second in nanoseconds.
        Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
    }

    fn wall_ms(&self) -> u64 {
        // A wall clock before 1970 reads as 0: no data of the database can be older.
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
#[path = "real_test.rs"]
mod tests;
