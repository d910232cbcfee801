//! What transactions that compute their own commit timestamp (async commit, one-phase commit) must know of reads, and
//! reads of them: the greatest read timestamp, the locks that are on their way to the replicas, and for which
//! leaderships the former is complete.

use crate::memory_locks::MemoryLocks;
use crate::{Leadership, TimeStamp};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

/// Regions whose last synchronised leadership is remembered. Beyond it all are forgotten, which costs each region one
/// timestamp of the oracle at its next such commit.
const SYNCED_REGIONS_MAX: usize = 64 << 10;

/// How far a timestamp may be ahead of the last one that the oracle is known to have handed out before the oracle is
/// asked for a newer one: so a node with reads asks once in that time.
const AHEAD_MS_MAX: u64 = 60_000;

/// The greatest timestamp this node has served a read at, and the locks in memory. One per node.
///
/// Two-phase commits do not need it: their commit timestamp is fetched after their locks are in place, so it exceeds
/// the timestamp of every read that missed the locks. A transaction that computes its own commit timestamp must stay
/// above the timestamp of every read that did not see its locks:
///
/// - a read raises `max_ts`, then looks at the locks in memory, then takes its view;
/// - a prewrite puts its locks into memory and reads `max_ts` in one step ([`MemoryLocks`]), then replicates, and only
///   then removes them.
///
/// So a read either comes before that step, and the commit is above it, or it finds the lock: in memory, or in its
/// view. Reads at other nodes (an earlier leader of the region, the leader of a region that was merged into it) are
/// covered by a timestamp of the oracle, fetched once in each [`Leadership`].
#[derive(Debug, Default)]
pub struct ConcurrencyManager {
    max_ts: AtomicU64,
    memory: MemoryLocks,
    /// The newest timestamp that the oracle is known to have handed out.
    from_oracle: AtomicU64,
    /// The leadership of each region for which `max_ts` covers reads at other nodes: its term and version.
    synced: Mutex<BTreeMap<u64, (u64, u64)>>,
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

    /// Whether a timestamp is so far above what the oracle is known to have handed out that it may be made up. If it
    /// were noted, every commit timestamp computed here would be above it, and later snapshots would miss those
    /// commits.
    pub(crate) fn is_suspicious(&self, ts: TimeStamp) -> bool {
        let known = TimeStamp(self.from_oracle.load(Ordering::SeqCst));
        !ts.is_max() && ts > self.max_ts() && ts.physical_ms() > known.physical_ms().saturating_add(AHEAD_MS_MAX)
    }

    /// The oracle has handed out `ts`.
    pub(crate) fn learn(&self, ts: TimeStamp) {
        self.from_oracle.fetch_max(ts.0, Ordering::SeqCst);
    }

    /// A round of safe timestamps begins with `ts`, which the oracle has handed out: as after a read at `ts`, no
    /// transaction computes a commit timestamp at or below it from now on. Returns the lowest start timestamp of those
    /// that may have done so before, and whose locks are not in every later view yet.
    pub fn begin_round(&self, ts: TimeStamp) -> Option<TimeStamp> {
        self.learn(ts);
        self.observe(ts);
        self.memory.min_start_ts()
    }

    /// The locks that are on their way to the replicas.
    pub fn memory_locks(&self) -> &MemoryLocks {
        &self.memory
    }

    /// Whether `max_ts` covers every read of the region that was served before this leadership.
    pub(crate) fn is_synced(&self, leadership: Leadership) -> bool {
        let Leadership { region, term, version } = leadership;
        self.synced.lock().get(&region) == Some(&(term, version))
    }

    /// The oracle handed out `ts` after the leadership had begun: reads that were served before have lower timestamps.
    pub(crate) fn synced(&self, leadership: Leadership, ts: TimeStamp) {
        self.observe(ts);
        self.learn(ts);
        let Leadership { region, term, version } = leadership;
        let mut synced = self.synced.lock();
        if synced.len() >= SYNCED_REGIONS_MAX {
            synced.clear();
        }
        synced.insert(region, (term, version));
    }
}

#[cfg(test)]
#[path = "concurrency_test.rs"]
mod tests;
