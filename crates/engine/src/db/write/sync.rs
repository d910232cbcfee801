//! The primitives that `visibility.rs` is built on. The model of its tests replaces them.

use crate::lock::{Held, Rank};
pub(super) use crate::log::SYNCS_MAX;
use std::ops::{Deref, DerefMut};
pub(super) use std::sync::atomic::{AtomicU64, Ordering};
pub(super) use std::thread::yield_now;

/// The standard library's mutex, with the rank [`Rank::Visibility`].
pub(super) struct Mutex<T>(std::sync::Mutex<T>);

pub(super) struct MutexGuard<'a, T> {
    inner: std::sync::MutexGuard<'a, T>,
    held: Held,
}

impl<T> Mutex<T> {
    pub(super) fn new(value: T) -> Mutex<T> {
        Mutex(std::sync::Mutex::new(value))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, T> {
        let held = Held::acquire(Rank::Visibility);
        MutexGuard { inner: self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()), held }
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.inner
    }
}

/// The standard library's condition variable.
pub(super) struct Condvar(std::sync::Condvar);

impl Condvar {
    pub(super) fn new() -> Condvar {
        Condvar(std::sync::Condvar::new())
    }

    pub(super) fn notify_one(&self) {
        self.0.notify_one();
    }

    pub(super) fn notify_all(&self) {
        self.0.notify_all();
    }

    /// Waits for a sync, or for batches to become visible.
    pub(super) fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        guard.held.check_wait();
        self.wait_unchecked(guard)
    }

    /// Waits for batches to be inserted: also under the locks that order commits.
    pub(super) fn wait_for_insertions<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        guard.held.check_wait_for_insertions();
        self.wait_unchecked(guard)
    }

    fn wait_unchecked<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        let MutexGuard { inner, held } = guard;
        MutexGuard { inner: self.0.wait(inner).unwrap_or_else(|poisoned| poisoned.into_inner()), held }
    }
}
