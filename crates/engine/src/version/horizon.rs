//! Which tombstones of deletions may be dropped, and which were.
//!
//! A condition of a commit (`Unchanged`) checks whether a key was written after a number. A deletion is a write, so its
//! tombstone must exist for as long as a condition may name a number before it: from the start of an open
//! transaction, or from the number of a snapshot that is still held. [`Horizon::oldest`] is the smallest such number;
//! flush and compaction keep the tombstones above it, whatever they hide.
//!
//! A condition may name a number that is no longer held as well. Then the answer is known only if no tombstone above it
//! was dropped, and [`Horizon::dropped_through`] is the largest of those that were. A condition from before it counts
//! as broken.

use crate::SequenceNumber;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// See the head of this file. One for a database.
pub struct Horizon {
    /// The start of the oldest open transaction, the largest number while there is none.
    transactions: AtomicU64,
    /// Returns the smallest number that a held snapshot may have.
    snapshots: OnceLock<Box<dyn Fn() -> SequenceNumber + Send + Sync>>,
    dropped_through: AtomicU64,
}

impl Default for Horizon {
    fn default() -> Horizon {
        Horizon {
            transactions: AtomicU64::new(u64::MAX),
            snapshots: OnceLock::new(),
            dropped_through: AtomicU64::new(0),
        }
    }
}

impl Horizon {
    /// Where the oldest open transaction reads, `u64::MAX` while none is open. Set before a transaction takes the
    /// number to read at; so one that begins after a call of [`Horizon::oldest`] reads above everything in tables.
    pub fn set_transactions(&self, oldest: SequenceNumber) {
        self.transactions.store(oldest, Ordering::SeqCst);
    }

    /// As it was set.
    pub fn transactions(&self) -> SequenceNumber {
        self.transactions.load(Ordering::SeqCst)
    }

    /// Sets how to find the smallest number that a held snapshot may have. Once, at open.
    pub fn set_snapshots(&self, smallest: Box<dyn Fn() -> SequenceNumber + Send + Sync>) {
        assert!(self.snapshots.set(smallest).is_ok(), "set once, at open");
    }

    /// Tombstones above it stay. Called after the inputs are fixed.
    pub fn oldest(&self) -> SequenceNumber {
        let snapshots = self.snapshots.get().map_or(u64::MAX, |smallest| smallest());
        self.transactions().min(snapshots)
    }

    /// Tombstones up to this number are about to be dropped. Called before the edit that removes them.
    pub fn note_dropped(&self, through: SequenceNumber) {
        self.dropped_through.fetch_max(through, Ordering::SeqCst);
    }

    /// No tombstone above it was dropped. Called after the state that the answer comes from is pinned.
    pub fn dropped_through(&self) -> SequenceNumber {
        self.dropped_through.load(Ordering::SeqCst)
    }
}
