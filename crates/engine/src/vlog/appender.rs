//! Appending values: the part of the value log that commits use.
//!
//! A commit reserves a range of the active segment under a short lock, and writes its values there without any lock: so
//! any number of them write at once. The segment has its blocks reserved ahead, so a full disk is noticed when the next
//! one is made and not here.
//!
//! Invariants:
//! 1. A segment is in the manifest, and in the version that readers get, before the first value is written to it. So
//!    version of a reader that sees a pointer has the segment.
//! 2. [`Appender::sync`] makes every value durable whose write has returned. The log syncs values before it reports its
//!    own records durable, so a record that was durable never misses its values.
//! 3. A reserved range holds, in the end, either whole records or a skip; a crash may leave neither, and then recovery
//!    puts the skip there.
//! 4. A segment is sealed when no thread writes to it and no batch that refers to it is still outside of a memtable.

use super::format::{
    FILE_HEADER_BYTES, RECORD_HEADER_BYTES, ValueFileKind, ValueRecordHeader, encode_file_header, encode_header,
};
use super::store::ValueStore;
use crate::lock::{Mutex, Rank};
use crate::{Error, Result};
use kontiki_env::fs::{File, OpenMode};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A segment that values are appended to, or were.
pub(crate) struct OpenSegment {
    pub(crate) number: u64,
    file: Arc<dyn File>,
    /// What the file was allocated with: a write below cannot fail for lack of space.
    capacity: u64,
    /// Where the next range starts. Changed under the appender's lock.
    tail: AtomicU64,
    /// Bytes written so far, in any order.
    written: AtomicU64,
    /// So many of them were written when the last successful sync began.
    synced: AtomicU64,
    /// Held during a sync of the file; whether a sync has failed. The system reports a failed write-back once for each
    /// handle, so of two syncs at once one would return success, and its commit would be acknowledged as durable.
    sync_failed: Mutex<bool>,
    /// Batches that refer to it and are not in a memtable yet.
    pins: AtomicU64,
}

impl OpenSegment {
    /// End of what was reserved.
    pub(crate) fn tail(&self) -> u64 {
        self.tail.load(Ordering::Acquire)
    }

    fn is_empty(&self) -> bool {
        self.tail() == FILE_HEADER_BYTES
    }

    /// Makes everything durable whose write has returned. Returns whether there was anything.
    fn sync(&self) -> std::io::Result<bool> {
        let mut failed = self.sync_failed.lock();
        if *failed {
            return Err(std::io::Error::other("an earlier sync of the file failed"));
        }
        let written = self.written.load(Ordering::Acquire);
        let due = self.synced.load(Ordering::Acquire) < written;
        if due {
            self.file.sync().inspect_err(|_| *failed = true)?;
            self.synced.store(written, Ordering::Release);
        }
        Ok(due)
    }
}

/// Prevents the sealing of a segment while a batch that refers to it is in progress. Dropped when the batch is in
/// its memtable, or was given up.
pub(crate) struct ValuePin {
    segment: Arc<OpenSegment>,
    bytes: u64,
}

impl ValuePin {
    /// Bytes of the batch's values in the segment.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for ValuePin {
    fn drop(&mut self) {
        let before = self.segment.pins.fetch_sub(1, Ordering::AcqRel);
        assert!(before > 0, "each pin was counted");
    }
}

impl std::fmt::Debug for ValuePin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ValuePin").field("segment", &self.segment.number).finish()
    }
}

/// A range of a segment, reserved for one batch.
pub(crate) struct Reserved {
    pub(crate) pin: ValuePin,
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
}

impl Reserved {
    /// The segment's number.
    pub(crate) fn segment(&self) -> u64 {
        self.pin.segment.number
    }
}

#[derive(Default)]
struct State {
    active: Option<Arc<OpenSegment>>,
    /// Made ahead, to be the next active one.
    spare: Option<Arc<OpenSegment>>,
    /// Nothing is reserved in them any more. Oldest first.
    full: Vec<Arc<OpenSegment>>,
    stopped: Option<String>,
}

/// See the head of this file.
pub(crate) struct Appender {
    store: Arc<ValueStore>,
    segment_bytes: u64,
    state: Mutex<State>,
}

impl Appender {
    /// An appender that makes segments of about `segment_bytes`; the first one when the first value comes.
    pub(crate) fn new(store: Arc<ValueStore>, segment_bytes: u64) -> Appender {
        assert!(segment_bytes > FILE_HEADER_BYTES, "options are checked at open");
        Appender { store, segment_bytes, state: Mutex::new(Rank::ValueAppender, State::default()) }
    }

    /// Reserves `bytes` in one segment, or `None` if there is no segment with space: then [`Appender::create`] one and
    /// try again.
    pub(crate) fn reserve(&self, bytes: u64) -> Result<Option<Reserved>> {
        let mut state = self.state.lock();
        if let Some(why) = &state.stopped {
            return Err(Error::Stopped(why.clone()));
        }
        let fits = |segment: &OpenSegment| segment.tail() + bytes <= segment.capacity;
        if !state.active.as_deref().is_some_and(fits) {
            if !state.spare.as_deref().is_some_and(fits) {
                return Ok(None);
            }
            let spare = state.spare.take();
            let full = std::mem::replace(&mut state.active, spare);
            state.full.extend(full);
        }
        let segment = state.active.clone().expect("there is one with space");
        let offset = segment.tail.fetch_add(bytes, Ordering::AcqRel);
        assert!(offset + bytes <= segment.capacity, "a range never leaves the allocated part");
        segment.pins.fetch_add(1, Ordering::AcqRel);
        Ok(Some(Reserved { pin: ValuePin { segment, bytes }, offset, bytes }))
    }

    /// Whether [`Appender::reserve`] would find space.
    pub(crate) fn has_capacity(&self, bytes: u64) -> bool {
        let state = self.state.lock();
        state.active.iter().chain(&state.spare).any(|segment| segment.tail() + bytes <= segment.capacity)
    }

    /// Makes file `number` with space for at least `bytes`, durably, under its final name. The caller puts it into the
    /// manifest and then gives it to [`Appender::adopt`].
    pub(crate) fn create(&self, number: u64, bytes: u64) -> Result<Arc<OpenSegment>> {
        let capacity = self.segment_bytes.max(FILE_HEADER_BYTES + bytes);
        let path = self.store.path(number);
        let make = || {
            let file = self.store.fs().open(&path, OpenMode::CreateNew)?;
            file.allocate(capacity)?;
            file.write_at(&encode_file_header(number, ValueFileKind::Segment), 0)?;
            Ok(file)
        };
        let file = make().map_err(|error: std::io::Error| {
            self.discard(number);
            Error::io(&path, &error)
        })?;
        let synced = file.sync().and_then(|()| self.store.fs().sync_dir(self.store.directory()));
        synced.map_err(|error| self.stop_for(number, &error))?;
        Ok(Arc::new(OpenSegment {
            number,
            file,
            capacity,
            tail: AtomicU64::new(FILE_HEADER_BYTES),
            written: AtomicU64::new(0),
            synced: AtomicU64::new(0),
            sync_failed: Mutex::new(Rank::ValueSync, false),
            pins: AtomicU64::new(0),
        }))
    }

    /// Takes a segment that is in the manifest, and in the version that readers get, for the next values.
    pub(crate) fn adopt(&self, segment: Arc<OpenSegment>) {
        let mut state = self.state.lock();
        let before = state.spare.replace(segment);
        state.full.extend(before); // Too small for the batch; it is sealed, or removed, in its turn.
    }

    /// Whether a segment should be made ahead: there is none, and the active one is half full.
    pub(crate) fn needs_spare(&self) -> bool {
        let state = self.state.lock();
        let half_full = |active: &Arc<OpenSegment>| active.tail() > active.capacity / 2;
        state.stopped.is_none() && state.spare.is_none() && state.active.as_ref().is_some_and(half_full)
    }

    /// Whether there is something to seal, or to make ahead.
    pub(crate) fn needs_maintenance(&self) -> bool {
        !self.state.lock().full.is_empty() || self.needs_spare()
    }

    /// Removes a file that did not get into the manifest, as well as the disk allows; the next open removes the rest.
    pub(crate) fn discard(&self, number: u64) {
        let path = self.store.path(number);
        if let Err(error) = self.store.fs().remove(&path) {
            tracing::debug!(file = %path.display(), %error, "an unused value file stays until the next open");
        }
    }

    /// Writes `bytes` at `offset`, which lies in the reserved range. A failure gives up the range: `NoSpace` (from file
    /// systems that break the promise of an allocation) once nothing of it can be taken for a value, anything else
    /// for good.
    pub(crate) fn write(&self, reserved: &Reserved, bytes: &[u8], offset: u64) -> Result<()> {
        assert!(
            offset >= reserved.offset && offset + bytes.len() as u64 <= reserved.offset + reserved.bytes,
            "values stay in their range"
        );
        let segment = &reserved.pin.segment;
        if let Err(error) = segment.file.write_at(bytes, offset) {
            let answer = Error::io(self.store.path(segment.number), &error);
            if answer.is_retryable() && self.skip(reserved).is_ok() {
                return Err(answer);
            }
            return Err(self.stop_for(segment.number, &error));
        }
        segment.written.fetch_add(bytes.len() as u64, Ordering::AcqRel);
        Ok(())
    }

    fn skip(&self, reserved: &Reserved) -> std::io::Result<()> {
        let bytes = u32::try_from(reserved.bytes - RECORD_HEADER_BYTES).map_err(std::io::Error::other)?;
        let mut header = Vec::new();
        encode_header(&mut header, reserved.segment(), reserved.offset, ValueRecordHeader::Skip { bytes });
        let segment = &reserved.pin.segment;
        segment.file.write_at(&header, reserved.offset)?;
        segment.written.fetch_add(header.len() as u64, Ordering::AcqRel);
        Ok(())
    }

    /// Makes every value durable whose write has returned. Returns whether there was any. A failure is final.
    pub(crate) fn sync(&self) -> Result<bool> {
        let segments: Vec<Arc<OpenSegment>> = {
            let state = self.state.lock();
            if let Some(why) = &state.stopped {
                return Err(Error::Stopped(why.clone()));
            }
            state.full.iter().chain(&state.active).cloned().collect()
        };
        let mut synced = false;
        for segment in segments {
            synced |= segment.sync().map_err(|error| self.stop_for(segment.number, &error))?;
        }
        Ok(synced)
    }

    /// With `all`, no values follow: every segment counts as full.
    pub(crate) fn retire(&self, all: bool) -> Vec<Arc<OpenSegment>> {
        let mut state = self.state.lock();
        if all {
            let State { active, spare, full, .. } = &mut *state;
            full.extend(active.take());
            full.extend(spare.take());
        }
        let idle = |segment: &&Arc<OpenSegment>| segment.pins.load(Ordering::Acquire) == 0;
        state.full.iter().filter(idle).cloned().collect()
    }

    /// Makes a segment from [`Appender::retire`] durable; returns where it ends, `None` if it is empty.
    pub(crate) fn finish(&self, segment: &OpenSegment) -> Result<Option<u64>> {
        assert_eq!(segment.pins.load(Ordering::Acquire), 0, "no batch refers to it, and it is full, so none will");
        segment.sync().map_err(|error| self.stop_for(segment.number, &error))?;
        Ok((!segment.is_empty()).then(|| segment.tail()))
    }

    /// Removes a segment that is sealed in the manifest, and frees the space that it does not use.
    pub(crate) fn sealed(&self, segment: &OpenSegment) {
        // Only to save space: no reader looks behind the end that the manifest names.
        let _ = segment.file.set_len(segment.tail());
        self.state.lock().full.retain(|other| other.number != segment.number);
    }

    /// Bytes of the segments that are not sealed.
    pub(crate) fn open_bytes(&self) -> u64 {
        let state = self.state.lock();
        state.full.iter().chain(&state.active).map(|segment| segment.tail()).sum()
    }

    /// Refuses everything from now on.
    fn stop_for(&self, number: u64, error: &std::io::Error) -> Error {
        let file = self.store.path(number);
        let error = Error::Io { file, kind: error.kind(), message: error.to_string() };
        self.state.lock().stopped.get_or_insert_with(|| error.to_string());
        error
    }
}

#[cfg(test)]
#[path = "appender_test.rs"]
mod tests;
