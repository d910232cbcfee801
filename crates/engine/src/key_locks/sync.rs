//! The locks of the lock table, behind an interface that its model test replaces by scheduled ones.

pub(super) use crate::lock::{Condvar, Mutex, MutexGuard, Rank};
use std::time::Duration;

/// Waits on `condvar` with the lock of `guard` released; returns whether `limit` passed first.
pub(super) fn wait_for<T>(condvar: &Condvar, guard: &mut MutexGuard<'_, T>, limit: Duration) -> bool {
    condvar.wait_for(guard, limit)
}
