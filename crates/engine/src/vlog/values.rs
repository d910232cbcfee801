//! The value log of an open database.

use super::appender::{Appender, OpenSegment, ValuePin};
use super::separate::{Separator, ValueThresholds};
use super::store::ValueStore;
use crate::{Error, Result, SequenceNumber, WriteBatch};
use parking_lot::{Mutex, RwLock};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What is counted of the value log; each only grows.
#[derive(Default)]
pub(crate) struct ValueCounters {
    pub(crate) values: AtomicU64,
    pub(crate) appended_bytes: AtomicU64,
    pub(crate) relocations: AtomicU64,
    pub(crate) relocated_bytes: AtomicU64,
    pub(crate) freed_bytes: AtomicU64,
}

impl ValueCounters {
    pub(crate) fn add(counter: &AtomicU64, by: u64) {
        counter.fetch_add(by, Ordering::Relaxed);
    }
}

/// See the head of this file.
pub(crate) struct ValueLog {
    pub(crate) store: Arc<ValueStore>,
    pub(crate) appender: Arc<Appender>,
    separator: Separator,
    /// Held for reading by whoever writes values; true once none may be written any more.
    closed: RwLock<bool>,
    /// Held by whoever makes a segment, so that those who wait for it find it made.
    making: Mutex<()>,
    /// For segments that were appended to since open, or were there then: no batch above this number refers to them.
    bounds: Mutex<BTreeMap<u64, SequenceNumber>>,
    pub(crate) counters: ValueCounters,
}

impl ValueLog {
    /// The value log in `store`.
    pub(crate) fn new(store: Arc<ValueStore>, segment_bytes: u64, thresholds: ValueThresholds) -> ValueLog {
        ValueLog {
            appender: Arc::new(Appender::new(store.clone(), segment_bytes)),
            store,
            separator: Separator::new(thresholds),
            closed: RwLock::default(),
            making: Mutex::default(),
            bounds: Mutex::default(),
            counters: ValueCounters::default(),
        }
    }

    /// See [`Separator::separate`]. `enter` puts a new file into the manifest and into the version that readers get.
    pub(crate) fn separate(
        &self,
        batch: WriteBatch,
        new_number: impl Fn() -> u64,
        enter: impl Fn(u64) -> Result<()>,
    ) -> Result<(WriteBatch, Option<ValuePin>)> {
        let closed = self.closed.read();
        if *closed {
            return Err(Error::Closed);
        }
        self.separator.separate(&self.appender, batch, |bytes| {
            let _making = self.making.lock();
            if self.appender.has_room(bytes) {
                return Ok(()); // Somebody has made one meanwhile.
            }
            self.make_segment(bytes, &new_number, &enter)
        })
    }

    /// Waits for those who write values, and lets nobody write any more.
    pub(crate) fn close(&self) {
        *self.closed.write() = true;
    }

    /// Makes a segment ahead, if that is due.
    pub(crate) fn make_spare(&self, new_number: impl Fn() -> u64, enter: impl Fn(u64) -> Result<()>) -> Result<bool> {
        let _making = self.making.lock();
        if !self.appender.wants_spare() {
            return Ok(false);
        }
        self.make_segment(0, &new_number, &enter)?;
        Ok(true)
    }

    fn make_segment(
        &self,
        bytes: u64,
        new_number: &impl Fn() -> u64,
        enter: &impl Fn(u64) -> Result<()>,
    ) -> Result<()> {
        let number = new_number();
        let segment = self.appender.create(number, bytes)?;
        if let Err(error) = enter(number) {
            if error.is_retryable() {
                self.appender.discard(number);
            }
            return Err(error);
        }
        self.appender.adopt(segment);
        Ok(())
    }

    /// Says that no batch above `sequence` refers to this segment, nor will.
    pub(crate) fn set_bound(&self, segment: u64, sequence: SequenceNumber) {
        self.bounds.lock().insert(segment, sequence);
    }

    /// Whether all that refers to this sealed segment is in tables, or dead, once everything at or below `flushed` is.
    /// What a flush or a relocation has written has no bound: it came with its tables.
    pub(crate) fn is_flushed(&self, segment: u64, flushed: SequenceNumber) -> bool {
        self.bounds.lock().get(&segment).is_none_or(|bound| *bound <= flushed)
    }

    /// Forgets a segment that is gone.
    pub(crate) fn forget(&self, segment: u64) {
        self.bounds.lock().remove(&segment);
    }

    /// Full segments that nobody refers to from outside of a memtable; with `all`, the others are full now too.
    pub(crate) fn retire(&self, all: bool) -> Vec<Arc<OpenSegment>> {
        self.appender.retire(all)
    }
}
