//! Virtual time: one true time that the world advances, and clocks of nodes that deviate from it.

use super::Clock;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Where wall clocks start: 2024-01-01T00:00:00Z, in milliseconds since the Unix epoch.
const WALL_ORIGIN_MS: i64 = 1_704_067_200_000;
const PPM: i128 = 1_000_000;

/// The true time of a simulated world. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct VirtualTime {
    now_ns: Arc<AtomicU64>,
}

impl VirtualTime {
    /// Time since the world began.
    pub fn now(&self) -> Duration {
        Duration::from_nanos(self.now_ns.load(Ordering::Relaxed))
    }

    /// Advances to `now`; time never decreases.
    pub fn advance_to(&self, now: Duration) {
        let now_ns = u64::try_from(now.as_nanos()).expect("a simulation lasts less than 584 years");
        let before_ns = self.now_ns.swap(now_ns, Ordering::Relaxed);
        assert!(before_ns <= now_ns, "time never decreases");
    }
}

/// A node's clock. It drifts from the true time at a settable rate, and its wall clock is off by a settable amount.
/// Clones are the same clock.
#[derive(Clone, Debug)]
pub struct SimClock {
    time: VirtualTime,
    skew: Arc<Mutex<Skew>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Skew {
    /// The true time at which the rate last changed, and what this clock read then.
    since_ns: u64,
    read_ns: u64,
    drift_ppm: i64,
    wall_offset_ms: i64,
    /// What the monotonic clock read when the world began.
    origin_ns: u64,
}

impl Skew {
    fn read_ns(&self, true_ns: u64) -> u64 {
        let elapsed = i128::from(true_ns - self.since_ns) * (PPM + i128::from(self.drift_ppm)) / PPM;
        self.read_ns + elapsed as u64
    }
}

impl SimClock {
    /// A clock that shows the true time.
    pub fn new(time: VirtualTime) -> SimClock {
        SimClock { time, skew: Arc::default() }
    }

    /// A clock whose monotonic time is `origin` when the world begins: monotonic clocks of two machines have
    /// nothing in common, and a time of one that is taken for a time of the other should be noticed.
    pub fn with_origin(time: VirtualTime, origin: Duration) -> SimClock {
        let origin_ns = u64::try_from(origin.as_nanos()).expect("an origin of less than 584 years");
        let skew = Skew { read_ns: origin_ns, origin_ns, ..Skew::default() };
        SimClock { time, skew: Arc::new(Mutex::new(skew)) }
    }

    /// The underlying true time.
    pub fn time(&self) -> &VirtualTime {
        &self.time
    }

    /// From now on gains `drift_ppm` microseconds each true second (loses, if negative). Must be above -1,000,000.
    pub fn set_drift_ppm(&self, drift_ppm: i64) {
        assert!(drift_ppm > -1_000_000, "a monotonic clock goes forward");
        let mut skew = self.skew.lock();
        let true_ns = self.true_ns();
        skew.read_ns = skew.read_ns(true_ns);
        skew.since_ns = true_ns;
        skew.drift_ppm = drift_ppm;
    }

    /// The rate set last, parts per million.
    pub fn drift_ppm(&self) -> i64 {
        self.skew.lock().drift_ppm
    }

    /// Makes the wall clock jump: from now on it is `wall_offset_ms` ahead (behind, if negative).
    pub fn set_wall_offset_ms(&self, wall_offset_ms: i64) {
        self.skew.lock().wall_offset_ms = wall_offset_ms;
    }

    /// The true time that passes while this clock shows `local` passing, at the present rate. For scheduling a
    /// node's timers.
    pub fn true_duration(&self, local: Duration) -> Duration {
        let rate = (PPM + i128::from(self.drift_ppm())) as u128;
        Duration::from_nanos((local.as_nanos() * PPM as u128).div_ceil(rate) as u64)
    }

    fn true_ns(&self) -> u64 {
        self.time.now_ns.load(Ordering::Relaxed)
    }
}

impl Clock for SimClock {
    fn monotonic(&self) -> Duration {
        let skew = self.skew.lock();
        Duration::from_nanos(skew.read_ns(self.true_ns()))
    }

    fn wall_ms(&self) -> u64 {
        let skew = self.skew.lock();
        let local_ms = ((skew.read_ns(self.true_ns()) - skew.origin_ns) / 1_000_000) as i64;
        (WALL_ORIGIN_MS + local_ms).saturating_add(skew.wall_offset_ms).max(0) as u64
    }
}

#[cfg(test)]
#[path = "sim_test.rs"]
mod tests;
