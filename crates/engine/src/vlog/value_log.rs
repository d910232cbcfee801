//! The value log of an open database.

use super::appender::{Appender, ValuePin};
use super::separate::{ValueSeparator, ValueThresholds};
use super::store::ValueStore;
use crate::lock::{Mutex, Rank, RwLock};
use crate::{Error, Result, SequenceNumber, WriteBatch};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The result of a collection of garbage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CollectionReport {
    /// Value files that were removed.
    pub files: u64,
    /// Bytes of records read from them. Files to which nothing refers are not read.
    pub read_bytes: u64,
    /// Bytes of the new files.
    pub moved_bytes: u64,
    /// Bytes that are free, once no reader has the old files any more.
    pub freed_bytes: u64,
    /// Files whose garbage stays because they are damaged: see `kontiki check`.
    pub damaged_files: u64,
}

/// Statistics of the value log: counters since open (only growing) and gauges (now).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ValueStats {
    /// Value files now, those included to which values are appended.
    pub files: u64,
    /// Their bytes, as far as they are used.
    pub file_bytes: u64,
    /// Bytes in segments that are not sealed.
    pub open_bytes: u64,
    /// Bytes that tables refer to: live values, and those that a compaction has yet to find dead.
    pub referred_bytes: u64,
    /// Bytes in sealed files to which nothing refers: garbage that is known.
    pub garbage_bytes: u64,
    /// Of these, what is beyond `Options::value_garbage_percent`: how far relocation is behind.
    pub debt_bytes: u64,
    /// Segments whose live values are in another file.
    pub relocated_segments: u64,
    /// Files that are removed and wait for their last reader.
    pub pending_deletes: u64,
    /// Bytes of records that commits have written, counted.
    pub appended_bytes: u64,
    /// Collections that removed or relocated files, counted.
    pub collections: u64,
    /// Bytes that relocations have written, counted.
    pub relocated_bytes: u64,
    /// Bytes that collections have freed, counted.
    pub freed_bytes: u64,
    /// Files that cannot be relocated because they are damaged; `kontiki check` names the places.
    pub damaged_files: u64,
}

/// Counters of the value log; each only grows.
#[derive(Default)]
pub(crate) struct ValueCounters {
    appended_bytes: AtomicU64,
    collections: AtomicU64,
    relocated_bytes: AtomicU64,
    freed_bytes: AtomicU64,
}

impl ValueCounters {
    /// Bytes of records that commits have written.
    pub(crate) fn appended_bytes(&self) -> u64 {
        self.appended_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn note_collection(&self, report: &CollectionReport) {
        self.collections.fetch_add(1, Ordering::Relaxed);
        self.relocated_bytes.fetch_add(report.moved_bytes, Ordering::Relaxed);
        self.freed_bytes.fetch_add(report.freed_bytes, Ordering::Relaxed);
    }
}

/// See the head of this file.
pub(crate) struct ValueLog {
    pub(crate) store: Arc<ValueStore>,
    pub(crate) appender: Arc<Appender>,
    separator: ValueSeparator,
    /// Held for reading by writers of values; true once none may be written any more.
    closed: RwLock<bool>,
    /// Held by the thread that makes a segment, so that those who wait for it find it made.
    making: Mutex<()>,
    /// Held while segments are sealed.
    pub(crate) sealing: Mutex<()>,
    /// Held while garbage is collected.
    pub(crate) collecting: Mutex<()>,
    /// Files that a relocation found damaged.
    damaged: Mutex<BTreeSet<u64>>,
    /// As of the last check.
    garbage_bytes: AtomicU64,
    debt_bytes: AtomicU64,
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
            separator: ValueSeparator::new(thresholds),
            closed: RwLock::new(Rank::ValueWriters, false),
            making: Mutex::new(Rank::ValueSegmentCreation, ()),
            sealing: Mutex::new(Rank::ValueSeal, ()),
            collecting: Mutex::new(Rank::ValueCollection, ()),
            damaged: Mutex::new(Rank::DamagedValueFiles, BTreeSet::new()),
            garbage_bytes: AtomicU64::new(0),
            debt_bytes: AtomicU64::new(0),
            bounds: Mutex::new(Rank::ValueBounds, BTreeMap::new()),
            counters: ValueCounters::default(),
        }
    }

    /// See [`ValueSeparator::separate`]. `enter` puts a new file into the manifest and into the version that readers
    /// get.
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
        let result = self.separator.separate(&self.appender, batch, |bytes| {
            let _making = self.making.lock();
            if self.appender.has_capacity(bytes) {
                return Ok(()); // Another thread has made one meanwhile.
            }
            self.make_segment(bytes, &new_number, &enter)
        });
        if let Ok((_, Some(pin))) = &result {
            self.counters.appended_bytes.fetch_add(pin.bytes(), Ordering::Relaxed);
        }
        result
    }

    /// From which size on values move to the value log.
    pub(crate) fn thresholds(&self) -> Arc<ValueThresholds> {
        self.separator.thresholds()
    }

    /// From now on the result of a change counts. One caller at a time.
    pub(crate) fn change_thresholds(&self, change: impl FnOnce(&ValueThresholds) -> ValueThresholds) {
        self.separator.set_thresholds(change(&self.thresholds()));
    }

    /// Waits for those who write values, and prevents further writes.
    pub(crate) fn close(&self) {
        *self.closed.write() = true;
    }

    /// Makes a segment ahead, if that is due.
    pub(crate) fn make_spare(&self, new_number: impl Fn() -> u64, enter: impl Fn(u64) -> Result<()>) -> Result<bool> {
        let _making = self.making.lock();
        if !self.appender.needs_spare() {
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

    /// Sets that no batch above `sequence` refers to this segment, nor will.
    pub(crate) fn set_bound(&self, segment: u64, sequence: SequenceNumber) {
        self.bounds.lock().insert(segment, sequence);
    }

    /// The bounds that are known, by segment.
    pub(crate) fn bounds(&self) -> BTreeMap<u64, SequenceNumber> {
        self.bounds.lock().clone()
    }

    /// Whether all that refers to this sealed segment is in tables, or dead, once everything at or below `flushed` is.
    /// What a flush or a relocation has written has no bound: it was added with its tables.
    pub(crate) fn is_flushed(&self, segment: u64, flushed: SequenceNumber) -> bool {
        self.bounds.lock().get(&segment).is_none_or(|bound| *bound <= flushed)
    }

    /// Whether a sealed file may be relocated or removed when batches at or below `needless` are not needed from the
    /// log.
    pub(crate) fn may_delete(&self, file: u64, needless: SequenceNumber) -> bool {
        self.is_flushed(file, needless) && !self.damaged.lock().contains(&file)
    }

    /// Removes a deleted segment.
    pub(crate) fn forget(&self, segment: u64) {
        self.bounds.lock().remove(&segment);
    }

    /// Records which of the files, as named by the error, is damaged; all of them if it is about none.
    pub(crate) fn set_damaged(&self, files: &[u64], path: &Path) {
        let named = files.iter().filter(|file| self.store.path(**file) == path);
        let mut damaged = self.damaged.lock();
        let before = damaged.len();
        damaged.extend(named);
        if damaged.len() == before {
            damaged.extend(files);
        }
    }

    /// Records how much of the sealed files is garbage, and how much of that is beyond `percent` of their bytes.
    pub(crate) fn note_garbage(&self, total: u64, garbage: u64, percent: u64) {
        let allowed = u128::from(total) * u128::from(percent) / 100;
        let debt = u128::from(garbage).saturating_sub(allowed);
        self.garbage_bytes.store(garbage, Ordering::Relaxed);
        self.debt_bytes.store(u64::try_from(debt).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Garbage beyond its bound, as of the last check: how far relocation is behind. Writers that wait while it is
    /// large keep the disk from filling up.
    pub(crate) fn debt_bytes(&self) -> u64 {
        self.debt_bytes.load(Ordering::Relaxed)
    }

    /// Its own statistics; the rest is in the version.
    pub(crate) fn stats(&self) -> ValueStats {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ValueStats {
            open_bytes: self.appender.open_bytes(),
            garbage_bytes: load(&self.garbage_bytes),
            debt_bytes: self.debt_bytes(),
            pending_deletes: self.store.pending_deletes(),
            appended_bytes: load(&self.counters.appended_bytes),
            collections: load(&self.counters.collections),
            relocated_bytes: load(&self.counters.relocated_bytes),
            freed_bytes: load(&self.counters.freed_bytes),
            damaged_files: self.damaged.lock().len() as u64,
            ..ValueStats::default()
        }
    }
}
