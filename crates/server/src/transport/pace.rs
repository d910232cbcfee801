//! Bounds the bytes per second of snapshots: of all that a node sends, and of all that it receives.
//!
//! Each chunk waits until those before it are paid for. A receiver that waits does not read, so the windows of HTTP/2
//! slow the sender down. *Rejected:* a limit for each snapshot: several at once would multiply it, and a single one
//! would not use what is permitted.

use kontiki_env::clock::Clock;
use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use std::sync::Arc;
use std::time::Duration;

/// A limit that several snapshots share.
pub(super) struct Pace {
    /// 0: no limit.
    bytes_per_second: u64,
    clock: Arc<dyn Clock>,
    /// When everything that was taken so far is paid for, by the monotonic clock.
    paid_at: Mutex<Duration>,
    /// Milliseconds that snapshots have waited.
    waited_ms: Counter,
}

impl Pace {
    /// A limit of so many bytes per second; 0 for none.
    pub fn new(bytes_per_second: u64, clock: Arc<dyn Clock>, waited_ms: Counter) -> Pace {
        Pace { bytes_per_second, clock, paid_at: Mutex::default(), waited_ms }
    }

    /// Waits until what was taken before is paid for.
    pub async fn take(&self, bytes: u64) {
        let wait = self.begin(bytes);
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
            self.waited_ms.inc_by(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        }
    }

    /// Takes bytes, and returns for how long they have to wait.
    fn begin(&self, bytes: u64) -> Duration {
        if self.bytes_per_second == 0 {
            return Duration::ZERO;
        }
        let (now, mut paid_at) = (self.clock.monotonic(), self.paid_at.lock());
        // Time in which nothing was sent is not made up for.
        let start = now.max(*paid_at);
        *paid_at = start + Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        start - now
    }
}

#[cfg(test)]
#[path = "pace_test.rs"]
mod tests;
