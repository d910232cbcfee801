//! One limit for everything that is written in the background: a token bucket.

use crate::lock::{Condvar, Mutex, Rank};
use kontiki_env::Env;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// How much may be written at once after an idle time: a tenth of a second's worth, so that the disk sees an even
/// stream.
const BURST_PARTS: u64 = 10;
/// Longest uninterrupted wait: closing the database must not take longer.
const WAIT_MAX: Duration = Duration::from_millis(50);

/// Flush, compaction and relocation of values take what they write from it before they write it.
pub struct RateLimiter {
    /// 0: no limit.
    bytes_per_second: AtomicU64,
    bucket: Mutex<Bucket>,
    changed: Condvar,
    /// Time spent waiting, in microseconds.
    waited_us: AtomicU64,
    taken_bytes: AtomicU64,
}

impl Default for RateLimiter {
    fn default() -> RateLimiter {
        RateLimiter {
            bytes_per_second: AtomicU64::new(0),
            bucket: Mutex::new(Rank::RateLimit, Bucket::default()),
            changed: Condvar::new(),
            waited_us: AtomicU64::new(0),
            taken_bytes: AtomicU64::new(0),
        }
    }
}

#[derive(Default)]
struct Bucket {
    /// Below 0 while what was taken is not paid for yet.
    bytes: i64,
    /// Monotonic clock of the last refill.
    refilled: Duration,
}

impl RateLimiter {
    /// A limit of so many bytes per second; 0 for none.
    pub fn new(bytes_per_second: u64) -> RateLimiter {
        let limiter = RateLimiter::default();
        limiter.set(bytes_per_second);
        limiter
    }

    /// Changes the limit.
    pub fn set(&self, bytes_per_second: u64) {
        self.bytes_per_second.store(bytes_per_second, Ordering::Relaxed);
        self.changed.notify_all();
    }

    /// Takes `bytes`, and waits until they are paid for or `stop` is set. In a stepped world time does not advance
    /// during a wait, so there it only counts.
    pub fn take(&self, env: &Env, bytes: u64, stop: &AtomicBool) {
        self.taken_bytes.fetch_add(bytes, Ordering::Relaxed);
        let limit = self.bytes_per_second.load(Ordering::Relaxed);
        if limit == 0 || bytes == 0 || !env.tasks.threaded() {
            return;
        }
        let mut bucket = self.bucket.lock();
        bucket.refill(env.clock.monotonic(), limit);
        bucket.bytes = bucket.bytes.saturating_sub_unsigned(bytes);
        let began = env.clock.monotonic();
        // Later callers pay for the debt of earlier ones; so all together keep to the limit.
        let mut limit = limit;
        while bucket.bytes < 0 && limit > 0 && !stop.load(Ordering::Relaxed) {
            let missing = Duration::from_secs_f64(bucket.bytes.unsigned_abs() as f64 / limit as f64);
            self.changed.wait_for(&mut bucket, missing.min(WAIT_MAX));
            limit = self.bytes_per_second.load(Ordering::Relaxed);
            bucket.refill(env.clock.monotonic(), limit);
        }
        let waited = env.clock.monotonic().saturating_sub(began);
        self.waited_us.fetch_add(u64::try_from(waited.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// The limit in bytes per second, 0 for none.
    pub fn bytes_per_second(&self) -> u64 {
        self.bytes_per_second.load(Ordering::Relaxed)
    }

    /// Bytes taken since open.
    pub fn taken_bytes(&self) -> u64 {
        self.taken_bytes.load(Ordering::Relaxed)
    }

    /// Time spent waiting since open.
    pub fn waited(&self) -> Duration {
        Duration::from_micros(self.waited_us.load(Ordering::Relaxed))
    }
}

impl Bucket {
    fn refill(&mut self, now: Duration, limit: u64) {
        let elapsed = now.saturating_sub(self.refilled);
        self.refilled = now;
        let burst = i64::try_from(limit / BURST_PARTS).unwrap_or(i64::MAX).max(1);
        let more = (elapsed.as_secs_f64() * limit as f64) as i64; // `as` saturates.
        self.bytes = self.bytes.saturating_add(more).min(burst);
    }
}

#[cfg(test)]
#[path = "rate_test.rs"]
mod tests;
