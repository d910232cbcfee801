//! The greatest read timestamp, which readers record for writers.

use crate::TimeStamp;
use std::sync::atomic::{AtomicU64, Ordering};

/// The greatest timestamp this node has served a read at.
///
/// Two-phase commits do not need it: their commit timestamp is fetched after their locks are in place, so it exceeds
/// the timestamp of every read that missed the locks. A transaction that computes its own commit timestamp (async
/// commit, one-phase commit) must stay above it. It is raised before a read's view is taken, so a writer either sees
/// the read here or its lock is in the reader's view.
#[derive(Debug, Default)]
pub struct ConcurrencyManager {
    max_ts: AtomicU64,
}

impl ConcurrencyManager {
    /// Nothing read yet.
    pub fn new() -> ConcurrencyManager {
        ConcurrencyManager::default()
    }

    /// Notes a read at `ts`. [`TimeStamp::MAX`] ("the newest") is not a timestamp of the oracle and is ignored: no
    /// later commit could be above it.
    pub fn observe(&self, ts: TimeStamp) {
        if !ts.is_max() {
            self.max_ts.fetch_max(ts.0, Ordering::SeqCst);
            debug_assert!(self.max_ts() >= ts, "it only rises");
        }
    }

    /// The greatest timestamp noted.
    pub fn max_ts(&self) -> TimeStamp {
        let max_ts = TimeStamp(self.max_ts.load(Ordering::SeqCst));
        assert!(!max_ts.is_max(), "TimeStamp::MAX is never recorded");
        max_ts
    }
}

#[cfg(test)]
#[path = "concurrency_test.rs"]
mod tests;
