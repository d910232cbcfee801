//! What the tree uses from outside for its protocol between threads. The model test
//! (`tests/memtable_model`) compiles the tree over a module of the same shape that is made of loom's types, with
//! smaller nodes.

pub(super) use crate::lock::{Mutex, MutexGuard, Rank};
pub(super) use std::sync::atomic::{AtomicPtr, AtomicU64, fence};

/// Entries of a node. Measured with 16, 32 and 64: docs/internals/memtable.md.
pub(super) const NODE_SLOTS: usize = 32;

/// Tries before a thread that waits for a latch offers its core: a latch is held for tens of nanoseconds, unless its
/// holder has lost the core.
const SPINS_BEFORE_YIELD: u32 = 64;

/// Waits a moment for another thread; `tries` counts the moments.
pub(super) fn relax(tries: u32) {
    if tries < SPINS_BEFORE_YIELD {
        std::hint::spin_loop();
    } else {
        std::thread::yield_now();
    }
}

/// Marks where plain memory is written and read, so that the model test sees races on it. No operation here.
pub(super) struct RaceDetector;

impl RaceDetector {
    pub(super) fn new() -> RaceDetector {
        RaceDetector
    }

    pub(super) fn note_write(&self) {}
    pub(super) fn note_read(&self) {}
}
