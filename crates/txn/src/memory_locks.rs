//! Locks that are on their way to the replicas, of transactions that compute their own commit timestamp.
//!
//! Invariant: a lock (or the record of a one-phase commit) of such a transaction with a minimum commit timestamp of `m`
//! is in this table from before `m` was computed until it is in every later view, or will never be. A read that has
//! raised the greatest read timestamp and then does not find the lock here, or finds it harmless, may take its view: if
//! the view lacks the lock, then `m` exceeds the read's timestamp.
//!
//! *Rejected:* to let reads wait for the key latch (every read would queue behind every write of its key); to add the
//! locks to the view, key by key (they live for one round of replication: a client that repeats its read, after it
//! has asked for the transaction's outcome, finds them replicated).

use crate::keys::lock_key;
use crate::read::{ReadOptions, blocks_read};
use crate::{KeyError, Lock, TimeStamp};
use bytes::Bytes;
use kontiki_engine::Range;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The table. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct MemoryLocks {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// At least the size of the map, so that reads need no mutex while there are none, which is nearly always.
    count: AtomicUsize,
    /// By physical key. A key has one lock, because its latch is held meanwhile.
    locks: Mutex<BTreeMap<Vec<u8>, (Bytes, Lock)>>,
}

impl MemoryLocks {
    /// Computes a minimum commit timestamp and enters the locks that it is for, in one step as reads see it. `None` of
    /// `make` enters nothing.
    pub(crate) fn enter(
        &self,
        keys: &[Bytes],
        make: impl FnOnce() -> Option<Lock>,
    ) -> Option<(TimeStamp, MemoryLockGuard)> {
        // Before `make` reads the greatest read timestamp: a read that does not see the count is below it.
        self.inner.count.fetch_add(keys.len(), Ordering::SeqCst);
        let mut guard = MemoryLockGuard { inner: self.inner.clone(), count: keys.len(), keys: Vec::new() };
        let mut locks = self.inner.locks.lock();
        let Some(lock) = make() else {
            drop(locks); // The guard takes it.
            return None;
        };
        for key in keys {
            let physical = lock_key(key);
            let before = locks.insert(physical.clone(), (key.clone(), lock.clone()));
            assert!(before.is_none(), "its latch is held");
            guard.keys.push(physical);
        }
        drop(locks);
        Some((lock.min_commit_ts, guard))
    }

    /// Fails with the locks that block a read of these keys.
    pub(crate) fn check_keys<'a>(
        &self,
        keys: impl IntoIterator<Item = &'a [u8]>,
        options: &ReadOptions,
    ) -> Result<(), Vec<KeyError>> {
        if self.is_empty() {
            return Ok(());
        }
        let locks = self.inner.locks.lock();
        let found = keys.into_iter().filter_map(|key| locks.get(&lock_key(key)));
        failure(found.filter(|(key, lock)| blocks_read(lock, key, options)))
    }

    /// Fails with the locks that block a read of this range of physical keys.
    pub(crate) fn check_range(&self, range: &Range, options: &ReadOptions) -> Result<(), Vec<KeyError>> {
        self.check_range_where(range, |key, lock| blocks_read(lock, key, options))
    }

    /// Fails with the locks of this range of physical keys that fit.
    pub(crate) fn check_range_where(
        &self,
        range: &Range,
        fits: impl Fn(&Bytes, &Lock) -> bool,
    ) -> Result<(), Vec<KeyError>> {
        if self.is_empty() || crate::keys::is_empty(range) {
            return Ok(());
        }
        let start = range.start.as_ref().map_or(Bound::Unbounded, |key| Bound::Included(key.to_vec()));
        let end = range.end.as_ref().map_or(Bound::Unbounded, |key| Bound::Excluded(key.to_vec()));
        let locks = self.inner.locks.lock();
        failure(locks.range((start, end)).map(|(_, found)| found).filter(|(key, lock)| fits(key, lock)))
    }

    /// Whether none of the locks in this range of physical keys could commit at or below `ts`. For reads at other
    /// replicas, after `ts` was noted.
    pub fn permit_read(&self, range: &Range, ts: TimeStamp) -> bool {
        self.check_range(range, &ReadOptions::at(ts)).is_ok()
    }

    /// The lowest start timestamp of these locks; `None` if there are none.
    pub fn min_start_ts(&self) -> Option<TimeStamp> {
        if self.is_empty() {
            return None;
        }
        self.inner.locks.lock().values().map(|(_, lock)| lock.start_ts).min()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.inner.count.load(Ordering::SeqCst) == 0
    }
}

fn failure<'a>(found: impl Iterator<Item = &'a (Bytes, Lock)>) -> Result<(), Vec<KeyError>> {
    let errors: Vec<KeyError> = found.map(|(key, lock)| KeyError::Locked(lock.info(key))).collect();
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

/// Keeps locks in the table until it is dropped.
#[derive(Debug)]
pub(crate) struct MemoryLockGuard {
    inner: Arc<Inner>,
    count: usize,
    keys: Vec<Vec<u8>>,
}

impl Drop for MemoryLockGuard {
    fn drop(&mut self) {
        let mut locks = self.inner.locks.lock();
        for key in &self.keys {
            let before = locks.remove(key);
            debug_assert!(before.is_some(), "it was entered");
        }
        drop(locks);
        let before = self.inner.count.fetch_sub(self.count, Ordering::SeqCst);
        assert!(before >= self.count, "each is counted once");
    }
}

#[cfg(test)]
#[path = "memory_locks_test.rs"]
mod tests;
