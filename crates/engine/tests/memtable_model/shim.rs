//! `memtable/sync.rs` made of loom's types.

use crate::{PLANTED, Planted};
use loom::sync::atomic::Ordering::{self, AcqRel, Acquire, Relaxed, Release};

pub(super) use parking_lot::MutexGuard;

/// The model does not check the order of locks.
pub(super) enum Rank {
    MemtableArena,
}

/// The arena's locks are not scheduled: what they protect is not part of the protocol.
pub(super) struct Mutex<T>(parking_lot::Mutex<T>);

impl<T> Mutex<T> {
    pub(super) fn new(_rank: Rank, value: T) -> Mutex<T> {
        Mutex(parking_lot::Mutex::new(value))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock()
    }

    pub(super) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        self.0.try_lock()
    }
}

/// So that the third entry splits a node.
pub(super) const NODE_SLOTS: usize = 2;

pub(super) fn relax(_tries: u32) {
    loom::thread::yield_now();
}

pub(super) fn fence(order: Ordering) {
    assert!(order == Acquire || order == Release || order == AcqRel);
    let left_out = match PLANTED.get() {
        Planted::AcquireFence => order == Acquire,
        Planted::ReleaseFence => order == Release,
        _ => false,
    };
    if !left_out {
        loom::sync::atomic::fence(order);
    }
}

pub(super) struct AtomicU64(loom::sync::atomic::AtomicU64);

impl AtomicU64 {
    pub(super) fn new(value: u64) -> AtomicU64 {
        AtomicU64(loom::sync::atomic::AtomicU64::new(value))
    }

    pub(super) fn load(&self, order: Ordering) -> u64 {
        self.0.load(order)
    }

    pub(super) fn store(&self, value: u64, order: Ordering) {
        let weakened = PLANTED.get() == Planted::ReleaseOfLatch && order == Release;
        self.0.store(value, if weakened { Relaxed } else { order });
    }

    pub(super) fn compare_exchange(&self, old: u64, new: u64, ok: Ordering, err: Ordering) -> Result<u64, u64> {
        self.0.compare_exchange(old, new, ok, err)
    }
}

pub(super) struct AtomicPtr<T>(loom::sync::atomic::AtomicPtr<T>);

impl<T> AtomicPtr<T> {
    pub(super) fn new(value: *mut T) -> AtomicPtr<T> {
        AtomicPtr(loom::sync::atomic::AtomicPtr::new(value))
    }

    pub(super) fn load(&self, order: Ordering) -> *mut T {
        self.0.load(order)
    }

    pub(super) fn store(&self, value: *mut T, order: Ordering) {
        let weakened = PLANTED.get() == Planted::ReleaseOfPointers && order == Release;
        self.0.store(value, if weakened { Relaxed } else { order });
    }
}

/// Loom reports a write that does not happen before a read of the memory that this represents.
#[derive(Default)]
pub(super) struct RaceDetector(loom::cell::UnsafeCell<()>);

impl RaceDetector {
    pub(super) fn new() -> RaceDetector {
        RaceDetector::default()
    }

    pub(super) fn note_write(&self) {
        self.0.with_mut(|_| ());
    }

    pub(super) fn note_read(&self) {
        self.0.with(|_| ());
    }
}
