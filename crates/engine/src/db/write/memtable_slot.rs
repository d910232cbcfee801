//! A memtable in the write path, and the place of a batch in it.

use super::visibility::Due;
use crate::SequenceNumber;
use crate::dead_ranges::DeadRanges;
use crate::lock::Unfinished;
use crate::memtable::Memtable;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A memtable and its state in the write path.
pub(crate) struct MemtableSlot {
    pub(crate) memtable: Arc<Memtable>,
    /// Counts up, in the order of freezing.
    pub(crate) id: u64,
    /// The oldest log segment with a batch of this memtable; `u64::MAX` while there is none.
    log_pin: AtomicU64,
    /// Batches with a number and not yet inserted.
    pub(super) unfinished: AtomicU64,
    /// Set once, under the lock.
    pub(super) frozen: AtomicBool,
    /// The largest number assigned to it. Changed under the lock.
    pub(super) last_sequence: AtomicU64,
}

impl MemtableSlot {
    pub(super) fn new(id: u64, dead: &Arc<DeadRanges>) -> Arc<MemtableSlot> {
        Arc::new(MemtableSlot {
            memtable: Arc::new(Memtable::beside(dead)),
            id,
            log_pin: AtomicU64::new(u64::MAX),
            unfinished: AtomicU64::new(0),
            frozen: AtomicBool::new(false),
            last_sequence: AtomicU64::new(0),
        })
    }

    /// Records that the log's `segment` holds a batch of it. Called while the segment is still the newest.
    pub(crate) fn pin_log(&self, segment: u64) {
        self.log_pin.fetch_min(segment, Ordering::AcqRel);
    }

    pub(super) fn log_pin(&self) -> Option<u64> {
        Some(self.log_pin.load(Ordering::Acquire)).filter(|segment| *segment != u64::MAX)
    }

    /// Everything up to this number is visible once the memtable may be flushed; 0 if no number was assigned.
    pub(crate) fn last_sequence(&self) -> SequenceNumber {
        self.last_sequence.load(Ordering::Acquire)
    }
}

/// A batch's number and memtable.
pub(crate) struct Ticket {
    pub(crate) sequence: SequenceNumber,
    pub(crate) slot: Arc<MemtableSlot>,
    /// The number is not visible before the log is durable up to here; 0 if it need not be.
    pub(crate) log_end: u64,
    /// Of a batch, until it is in its memtable.
    pub(super) unfinished: Option<Unfinished>,
}

impl Ticket {
    /// What its writer waits for.
    pub(crate) fn due(&self) -> Due {
        Due { sequence: self.sequence, log_end: self.log_end }
    }
}
