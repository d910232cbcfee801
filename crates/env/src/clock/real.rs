//! The machine's clocks.

use super::Clock;
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The machine's clocks. All instances of a process share one origin, so their readings compare.
#[derive(Clone, Copy, Debug)]
pub struct RealClock {
    origin: Instant,
}

impl RealClock {
    /// The process's clock.
    pub fn new() -> RealClock {
        static ORIGIN: OnceLock<Instant> = OnceLock::new();
        RealClock { origin: *ORIGIN.get_or_init(Instant::now) }
    }
}

impl Default for RealClock {
    fn default() -> RealClock {
        RealClock::new()
    }
}

impl Clock for RealClock {
    fn monotonic(&self) -> Duration {
        self.origin.elapsed()
    }

    fn wall_ms(&self) -> u64 {
        // A wall clock before 1970 reads as 0: nothing of ours can be older.
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
    }
}
