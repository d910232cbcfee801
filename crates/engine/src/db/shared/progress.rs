//! What background work has achieved, for those who wait for it.

use crate::dead_ranges::Request;
use crate::lock::{Condvar, Mutex, Rank};
use crate::{Error, Family, Result};
use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// See the head of this file.
pub(crate) struct Progress {
    state: Mutex<ProgressState>,
    changed: Condvar,
    /// Notified, besides `changed`, when the database is closed or stops.
    ended: Condvar,
    /// Whether the state holds an error, for threads that check without the lock.
    error: AtomicBool,
}

/// See [`Progress`].
#[derive(Clone, Debug, Default)]
pub(crate) struct ProgressState {
    /// Memtables up to this id are in tables.
    pub(crate) flushed_id: u64,
    /// Flush attempts that failed and may be tried again, and the last such error.
    pub(crate) failed_flushes: u64,
    pub(crate) flush_error: Option<Error>,
    /// Compaction attempts that failed and may be tried again.
    pub(crate) failed_compactions: u64,
    /// Full compactions requested, and done.
    pub(crate) compactions_requested: u64,
    pub(crate) compactions_done: u64,
    /// The error of the last compaction, if it failed.
    pub(crate) compaction_error: Option<Error>,
    /// The same of the maintenance of the value log.
    pub(crate) failed_collections: u64,
    pub(crate) collection_error: Option<Error>,
    /// Families whose tables may hide much garbage of the value log: to be merged down.
    pub(crate) compact_for_values: BTreeSet<Family>,
    /// Ranges with many dead versions: to be compacted.
    pub(crate) dead_ranges: VecDeque<DeadRangeRequest>,
    /// The same of the last full compaction, which its caller still needs when others have followed.
    pub(crate) full_compaction_error: Option<Error>,
}

/// A range with many dead versions, which waits for the `compact` job.
#[derive(Clone, Debug)]
pub(crate) struct DeadRangeRequest {
    pub(crate) request: Request,
    /// Memtables up to this id must be in tables first.
    pub(crate) flushed_id: u64,
}

impl Progress {
    /// Memtables up to `flushed_id` are in tables already.
    pub(crate) fn new(flushed_id: u64) -> Progress {
        Progress {
            state: Mutex::new(Rank::Progress, ProgressState { flushed_id, ..ProgressState::default() }),
            changed: Condvar::new(),
            ended: Condvar::new(),
            error: AtomicBool::new(false),
        }
    }

    /// Changes the state and notifies the waiters.
    pub(crate) fn update<R>(&self, change: impl FnOnce(&mut ProgressState) -> R) -> R {
        let result = {
            let mut state = self.state.lock();
            let result = change(&mut state);
            self.error.store(state.error().is_some(), Ordering::Relaxed);
            result
        };
        self.changed.notify_all();
        result
    }

    /// Waits until `done` returns a result; it is called whenever the state has changed.
    pub(crate) fn wait_for<T>(&self, mut done: impl FnMut(&ProgressState) -> Option<Result<T>>) -> Result<T> {
        let mut state = self.state.lock();
        loop {
            if let Some(result) = done(&state) {
                return result;
            }
            self.changed.wait(&mut state);
        }
    }

    /// Notifies all waiters that the database is closed or stopped, which the caller has recorded already.
    pub(crate) fn notify_end(&self) {
        self.update(|_| ());
        self.ended.notify_all();
    }

    /// Waits for [`Progress::notify_end`], until `ended`, but no longer than `timeout`.
    pub(crate) fn wait_for_end(&self, timeout: Duration, ended: impl Fn() -> bool) {
        // The thread that ends the database takes the lock after recording it, so the end is not missed.
        self.ended.wait_while_for(&mut self.state.lock(), |_| !ended(), timeout);
    }

    /// Whether the last attempt of flush or compaction failed.
    pub(crate) fn has_error(&self) -> bool {
        self.error.load(Ordering::Relaxed)
    }

    /// The error of the last attempt of flush or compaction.
    pub(crate) fn error(&self) -> Option<Error> {
        self.get().error()
    }

    /// Reads the state.
    pub(crate) fn get(&self) -> ProgressState {
        self.state.lock().clone()
    }
}

impl ProgressState {
    /// Attempts of background work that failed.
    pub(crate) fn failures(&self) -> u64 {
        self.failed_flushes + self.failed_compactions + self.failed_collections
    }

    /// Why it makes no progress, if an attempt has failed since there were so many failures: an older error proves
    /// nothing, there may be space since.
    pub(crate) fn error_since(&self, failures: u64) -> Option<Error> {
        self.error().filter(|_| self.failures() > failures)
    }

    /// The error of its last attempt, if that failed.
    pub(crate) fn error(&self) -> Option<Error> {
        self.flush_error.clone().or_else(|| self.compaction_error.clone()).or_else(|| self.collection_error.clone())
    }
}
