//! What a transaction shares with its iterators.

use super::reads::ReadSet;
use crate::lock::{Mutex, Rank};
use crate::{Error, Result};
use std::sync::atomic::{AtomicBool, Ordering};

/// The end of a transaction, and its read set if it has one.
pub(super) struct ReadTracking {
    ended: AtomicBool,
    reads: Option<Mutex<ReadSet>>,
}

impl ReadTracking {
    pub(super) fn new(reads: Option<ReadSet>) -> ReadTracking {
        ReadTracking {
            ended: AtomicBool::new(false),
            reads: reads.map(|reads| Mutex::new(Rank::TransactionReads, reads)),
        }
    }

    /// Refuses once the transaction has ended.
    pub(super) fn check_open(&self) -> Result<()> {
        if self.ended.load(Ordering::Acquire) {
            return Err(Error::InvalidArgument("the transaction of this iterator has ended".into()));
        }
        Ok(())
    }

    /// Records a read, if reads are recorded. What is read after the transaction has ended is refused under the same
    /// lock: no commit has validated it.
    pub(super) fn with_reads<T: Default>(&self, note: impl FnOnce(&mut ReadSet) -> Result<T>) -> Result<T> {
        let Some(reads) = &self.reads else { return Ok(T::default()) };
        let mut reads = reads.lock();
        self.check_open()?;
        note(&mut reads)
    }

    /// An iterator ends.
    pub(super) fn close_iterator(&self, iterator: u64) {
        if let Some(reads) = &self.reads {
            reads.lock().close(iterator);
        }
    }

    /// Ends the transaction; returns everything that was read.
    pub(super) fn end<T: Default>(&self, take: impl FnOnce(&ReadSet) -> T) -> T {
        let Some(reads) = &self.reads else {
            self.ended.store(true, Ordering::Release);
            return T::default();
        };
        let mut reads = reads.lock();
        self.ended.store(true, Ordering::Release);
        reads.settle_all();
        take(&reads)
    }
}
