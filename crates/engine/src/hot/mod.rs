//! Hot keys: which keys are read and written most, and how they are treated.
//!
//! - Reads and writes have a [`Tracker`](tracker::Tracker) each. Sampled operations touch it, those that are measured
//!   for latencies anyway, so the others pay nothing.
//! - A sampled read of a hot key *promotes* what it reads: the block skips the short queue of the block cache, the
//!   value of the value log counts as used again.
//! - [`HotKeyOptions::write_limit_per_second`] bounds how often one key may be written. Then each write touches the
//!   tracker. Only commits that their caller can repeat are bounded: [`HotKeys::admit`] is called where a commit is
//!   checked, and never of derived ones (what replicas apply must not depend on the replica's load) or of those with
//!   stream operations.

mod hottest;
mod options;
mod tracker;

pub use hottest::{HotKey, HotKeyStats};
pub use options::HotKeyOptions;
use tracker::{KEY_BYTES_KEPT, Rate, Tracked, Tracker};

use crate::types::BatchEntry;
use crate::{Error, Family, Result, WriteBatch};
use bytes::Bytes;
use kontiki_env::codec::hash64;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Keys shown at most, of reads and of writes.
const SHOWN_MAX: usize = 16;
/// A key that is written in a burst may be ahead of its limit by so much.
const BURST_NS: u64 = 1_000_000_000;

/// See the head of this file. One for a database.
pub(crate) struct HotKeys {
    reads: Option<Box<Tracker>>,
    writes: Option<Box<Tracker>>,
    write_limit_per_second: u64,
    throttled: AtomicU64,
    promoted: AtomicU64,
}

impl HotKeys {
    /// As the options set it.
    pub(crate) fn new(options: &HotKeyOptions) -> HotKeys {
        let window = Duration::from_millis(options.window_ms);
        let limit = options.write_limit_per_second;
        HotKeys {
            reads: options.tracked.then(|| Box::new(Tracker::new(window))),
            writes: (options.tracked || limit > 0).then(|| Box::new(Tracker::new(window))),
            write_limit_per_second: limit,
            throttled: AtomicU64::new(0),
            promoted: AtomicU64::new(0),
        }
    }

    /// One that tracks nothing.
    pub(crate) fn off() -> HotKeys {
        HotKeys::new(&HotKeyOptions { tracked: false, ..HotKeyOptions::default() })
    }

    /// A read that stands for `weight` of them; returns whether the key is hot.
    pub(crate) fn note_read(&self, family: Family, key: &[u8], weight: u64, now: Duration) -> bool {
        let Some(reads) = &self.reads else { return false };
        reads.touch(hash_of(family, key), family.0, key, weight_of(weight), now)
    }

    /// A commit that stands for `weight` of them.
    pub(crate) fn note_writes(&self, batch: &WriteBatch, weight: u64, now: Duration) {
        // With a limit `admit` has counted them all.
        let Some(writes) = self.writes.as_ref().filter(|_| self.write_limit_per_second == 0) else { return };
        for (family, key) in keys_of(batch) {
            writes.touch(hash_of(family, key), family.0, key, weight_of(weight), now);
        }
    }

    /// Whether the limit lets a commit pass. A commit that is refused was not counted, except for those of its keys
    /// that come before the one that was over its limit.
    pub(crate) fn admit(&self, batch: &WriteBatch, now: impl FnOnce() -> Duration) -> Result<()> {
        let (limit, Some(writes)) = (self.write_limit_per_second, &self.writes) else { return Ok(()) };
        let Some(interval_ns) = 1_000_000_000_u64.checked_div(limit) else { return Ok(()) };
        let rate = Rate { interval_ns, burst_ns: BURST_NS.max(interval_ns) };
        let now = now();
        for (family, key) in keys_of(batch) {
            if let Err(wait_ns) = writes.charge(hash_of(family, key), family.0, key, rate, now) {
                self.throttled.fetch_add(1, Relaxed);
                let retry_after_ms = wait_ns.div_ceil(1_000_000);
                let key = Bytes::copy_from_slice(key);
                return Err(Error::Throttled { family, key, limit_per_second: limit, retry_after_ms });
            }
        }
        Ok(())
    }

    /// What a hot key's read has found was promoted in a cache.
    pub(crate) fn note_promoted(&self) {
        self.promoted.fetch_add(1, Relaxed);
    }

    /// For `Db::stats`.
    pub(crate) fn stats(&self, now: Duration) -> HotKeyStats {
        let top = |tracker: &Option<Box<Tracker>>| {
            let top = tracker.as_ref().map(|tracker| tracker.top(SHOWN_MAX, now)).unwrap_or_default();
            top.into_iter().map(shown).collect()
        };
        HotKeyStats {
            reads: top(&self.reads),
            writes: top(&self.writes),
            throttled: self.throttled.load(Relaxed),
            promoted: self.promoted.load(Relaxed),
        }
    }
}

fn shown(key: Tracked) -> HotKey {
    let Tracked { family, start, key_bytes, per_second } = key;
    debug_assert!(start.len() == key_bytes.min(KEY_BYTES_KEPT));
    HotKey { family, truncated: start.len() < key_bytes, key: start, per_second }
}

/// The keys of which versions are written.
fn keys_of(batch: &WriteBatch) -> impl Iterator<Item = (Family, &[u8])> {
    batch.entries().filter_map(|entry| match entry {
        BatchEntry::Version { family, key, .. } => Some((family, key)),
        BatchEntry::DeleteRange { .. } => None,
    })
}

fn hash_of(family: Family, key: &[u8]) -> u64 {
    // The number is spread over all bits: the same key of two families must not fall into one set more often than by
    // chance.
    hash64(key) ^ u64::from(family.0).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn weight_of(weight: u64) -> u32 {
    u32::try_from(weight).unwrap_or(u32::MAX)
}

#[cfg(test)]
#[path = "hot_test.rs"]
mod tests;
