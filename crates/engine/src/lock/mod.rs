//! The engine's locks, and the order in which a thread takes them.
//!
//! Every lock has a [`Rank`]. A thread takes a lock only while all the locks that it holds have a smaller rank: so no
//! two threads can each hold what the other one waits for. A thread that waits for anything but a lock (a condition, a
//! commit to become visible, a job) holds only locks whose rank says that they may be held meanwhile: the thread that
//! ends the wait never needs those. Debug builds check both at each acquisition and at each wait, whether or not
//! another thread contends, so a test that runs once through the code finds the mistake. Release builds check nothing,
//! and a lock is as large as it would be without.
//!
//! A batch that has its number and is not in its memtable yet counts as a lock too ([`Rank::Insertion`]): a commit with
//! conditions waits for such batches while it holds the lock that orders commits, so the writers of these must not need
//! that lock. [`Unfinished`] is that lock.
//!
//! Rejected: a graph of the acquisitions seen so far (as in the Linux kernel's lockdep). It needs no ranks, but finds
//! an inversion only after both orders have been run, and the order cannot be read from it.
//!
//! docs/internals/engine.md has the table of the ranks, with what each lock protects.

mod rank;

pub(crate) use rank::{Held, Rank, Unfinished, check_wait};

use std::ops::{Deref, DerefMut};
use std::time::Duration;

/// A mutex with a rank.
pub(crate) struct Mutex<T> {
    #[cfg(debug_assertions)]
    rank: Rank,
    inner: parking_lot::Mutex<T>,
}

/// A [`Mutex`] that is held.
pub(crate) struct MutexGuard<'a, T> {
    inner: parking_lot::MutexGuard<'a, T>,
    held: Held,
}

impl<T> Mutex<T> {
    #[allow(unused_variables, reason = "only debug builds know the ranks")]
    pub(crate) const fn new(rank: Rank, value: T) -> Mutex<T> {
        Mutex {
            #[cfg(debug_assertions)]
            rank,
            inner: parking_lot::Mutex::new(value),
        }
    }

    #[inline]
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        let held = Held::acquire(self.rank());
        MutexGuard { inner: self.inner.lock(), held }
    }

    #[inline]
    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        self.inner.try_lock().map(|inner| MutexGuard { inner, held: Held::note(self.rank()) })
    }

    #[inline]
    fn rank(&self) -> Rank {
        #[cfg(debug_assertions)]
        return self.rank;
        #[cfg(not(debug_assertions))]
        Rank::Jobs
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.inner
    }
}

impl<T: std::fmt::Debug> std::fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.inner.fmt(f)
    }
}

/// A reader-writer lock with a rank.
pub(crate) struct RwLock<T> {
    #[cfg(debug_assertions)]
    rank: Rank,
    inner: parking_lot::RwLock<T>,
}

/// A [`RwLock`] that is held, for reading or for writing by the type of `G`.
pub(crate) struct RwLockGuard<G> {
    inner: G,
    _held: Held,
}

/// A [`RwLock`] that is held for reading.
pub(crate) type RwLockReadGuard<'a, T> = RwLockGuard<parking_lot::RwLockReadGuard<'a, T>>;
/// A [`RwLock`] that is held for writing.
pub(crate) type RwLockWriteGuard<'a, T> = RwLockGuard<parking_lot::RwLockWriteGuard<'a, T>>;

impl<T> RwLock<T> {
    #[allow(unused_variables, reason = "only debug builds know the ranks")]
    pub(crate) const fn new(rank: Rank, value: T) -> RwLock<T> {
        RwLock {
            #[cfg(debug_assertions)]
            rank,
            inner: parking_lot::RwLock::new(value),
        }
    }

    /// A second read lock on one thread counts as a mistake too: a writer that waits between the two would block both.
    #[inline]
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, T> {
        let held = Held::acquire(self.rank());
        RwLockGuard { inner: self.inner.read(), _held: held }
    }

    #[inline]
    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, T> {
        let held = Held::acquire(self.rank());
        RwLockGuard { inner: self.inner.write(), _held: held }
    }

    #[inline]
    fn rank(&self) -> Rank {
        #[cfg(debug_assertions)]
        return self.rank;
        #[cfg(not(debug_assertions))]
        Rank::Jobs
    }
}

impl<G: Deref> Deref for RwLockGuard<G> {
    type Target = G::Target;

    #[inline]
    fn deref(&self) -> &G::Target {
        &self.inner
    }
}

impl<G: DerefMut> DerefMut for RwLockGuard<G> {
    #[inline]
    fn deref_mut(&mut self) -> &mut G::Target {
        &mut self.inner
    }
}

/// A condition variable of a [`Mutex`].
#[derive(Default)]
pub(crate) struct Condvar(parking_lot::Condvar);

impl Condvar {
    pub(crate) const fn new() -> Condvar {
        Condvar(parking_lot::Condvar::new())
    }

    #[inline]
    pub(crate) fn notify_one(&self) {
        self.0.notify_one();
    }

    #[inline]
    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }

    pub(crate) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        guard.held.check_wait();
        self.0.wait(&mut guard.inner);
    }

    pub(crate) fn wait_while<T>(&self, guard: &mut MutexGuard<'_, T>, condition: impl FnMut(&mut T) -> bool) {
        guard.held.check_wait();
        self.0.wait_while(&mut guard.inner, condition);
    }

    /// Returns whether the time-out was reached.
    pub(crate) fn wait_for<T>(&self, guard: &mut MutexGuard<'_, T>, limit: Duration) -> bool {
        guard.held.check_wait();
        self.0.wait_for(&mut guard.inner, limit).timed_out()
    }

    /// Waits for a time. That waits for no other thread, so any lock may be held.
    pub(crate) fn sleep<T>(&self, guard: &mut MutexGuard<'_, T>, length: Duration) {
        self.0.wait_for(&mut guard.inner, length);
    }

    /// Returns whether the time-out was reached.
    pub(crate) fn wait_while_for<T>(
        &self,
        guard: &mut MutexGuard<'_, T>,
        condition: impl FnMut(&mut T) -> bool,
        limit: Duration,
    ) -> bool {
        guard.held.check_wait();
        self.0.wait_while_for(&mut guard.inner, condition, limit).timed_out()
    }
}

#[cfg(test)]
#[path = "lock_test.rs"]
mod tests;
