//! The oldest transaction that may still commit in a range.

use crate::error::ActionFailure;
use crate::keys::{TXN_LOCK, is_empty};
use crate::{Failure, Lock, LockKind, TimeStamp};
use bytes::Bytes;
use kontiki_engine::{Direction, Range, View};
use std::convert::Infallible;

/// Finds the smallest start timestamp among the locks of a range that may change what reads see, in parts: a range may
/// have many.
#[derive(Debug)]
pub struct OldestLock {
    rest: Range,
    oldest: Option<TimeStamp>,
    locks_read: u64,
}

impl OldestLock {
    /// In a range of encoded keys.
    pub fn new(range: Range) -> OldestLock {
        OldestLock { rest: range, oldest: None, locks_read: 0 }
    }

    /// How many were read so far.
    pub fn locks_read(&self) -> u64 {
        self.locks_read
    }

    /// Reads at most `locks_max` locks, at least one. `None`: there are more. At the end the start timestamp, if there
    /// is a lock.
    pub fn advance(
        &mut self,
        view: &dyn View,
        locks_max: usize,
    ) -> Result<Option<Option<TimeStamp>>, Failure<Infallible>> {
        if is_empty(&self.rest) {
            return Ok(Some(self.oldest));
        }
        let mut entries = view.entries(TXN_LOCK, self.rest.clone(), Direction::Forward)?;
        for _ in 0..locks_max.max(1) {
            let Some((physical, bytes)) = entries.next().transpose()? else { return Ok(Some(self.oldest)) };
            self.locks_read += 1;
            let lock = Lock::decode(&bytes).map_err(|what| ActionFailure::corrupt(&physical, what))?;
            // Others leave no value, or become one of these before they do.
            if matches!(lock.kind, LockKind::Put | LockKind::Delete) {
                self.oldest = Some(self.oldest.map_or(lock.start_ts, |oldest| oldest.min(lock.start_ts)));
            }
            // The smallest key above it.
            self.rest.start = Some(Bytes::from([&physical[..], b"\0"].concat()));
        }
        Ok(None)
    }
}

#[cfg(test)]
#[path = "oldest_lock_test.rs"]
mod tests;
