//! The next segment: made ahead of its use, in files that were segments before, so that an append never waits
//! for the file system.
//!
//! A file whose blocks have been written once costs less to sync: nothing of the inode or its extents has to go into
//! the file system's journal (measured here: 104 instead of 167 microseconds). So new files are filled with zeros by
//! the `log` job while commits are synced, and old segments are used again. The checksum of a record covers number
//! and offset, so the bytes of an earlier use of the file never pass.
//!
//! Under its final name a segment always has a good header, and its space: both are durable before the name is.

use super::format::{
    SEAL_BYTES, SEGMENT_BYTES_MAX, SEGMENT_HEADER_BYTES, encode_segment_header, free_name, segment_path,
};
use super::tail::SYNCS_MAX;
use crate::extent::Extent;
use crate::lock::{Mutex, Rank};
use crate::planted::{self, Bug};
use crate::{Error, Result};
use kontiki_env::fs::{File, Fs, MappedFile, OpenMode};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Zeros are written in pieces of this size. The page cache keeps a piece as one large page ("folio"), and ext4 walks
/// all blocks of it at each later write into it: with pieces of 1 MiB a small append took 1.75 microseconds, with 64
/// KiB and less 0.9. Smaller ones only cost calls.
const ZEROS_BYTES: u64 = 64 << 10;
/// A segment that is needed at once, because none was made ahead, has this many bytes at most (unless a single record
/// needs more): filling it takes about a millisecond, and by the time it is full the next one has been made.
pub(crate) const HURRIED_BYTES_MAX: u64 = 1 << 20;
/// On a full disk a segment has so many bytes, or what a single record needs: deletions are small, and what they free
/// needs them.
const SCARCE_BYTES: u64 = 4 << 10;
/// The first segment made ahead has this many bytes at most, and each next one so many times as many as the one before,
/// up to the size of ordinary ones: filling files costs the disk about as much as the log itself, so what is filled
/// should be in proportion to what is written.
const AHEAD_BYTES_FIRST: u64 = 4 << 20;
const AHEAD_GROWTH: u64 = 4;
/// The number in the temporary name of what is made ahead, which no segment has: it gets its final one once it is
/// complete.
const NO_NUMBER: u64 = 0;

/// A segment that nothing was appended to yet.
pub(crate) struct NextSegment {
    pub(super) number: u64,
    pub(super) capacity: u64,
    /// One handle for each sync that may be in flight: the system reports a failed write-back once for each handle, so
    /// two syncs on one could miss each other's failures.
    pub(super) handles: [Arc<dyn File>; SYNCS_MAX],
    /// Whether a write inside of it cannot fail for lack of space.
    pub(super) in_place: bool,
    /// Where the file can be written through memory.
    pub(super) map: Option<Box<dyn MappedFile>>,
}

/// Why there is no next segment.
pub(super) enum NoSegment {
    /// The log is as it was; try again later.
    NotNow(Error),
    /// The set of segments is unknown now.
    Final(Error),
}

/// Makes segments, one ahead.
pub(crate) struct NextSegments {
    fs: Arc<dyn Fs>,
    directory: PathBuf,
    segment_bytes: u64,
    recycled_max: usize,
    /// Where the first and the last segment are recorded.
    extent: Option<Arc<Extent>>,
    /// Files used again, counted.
    recycled: AtomicU64,
    /// Held while a segment is made ahead; before `state`.
    making: Mutex<()>,
    state: Mutex<State>,
}

struct State {
    next_number: u64,
    ready: Option<NextSegment>,
    /// Bytes of the next new one that is made ahead.
    ahead_bytes: u64,
    /// Files of `segment_bytes` that were segments.
    free: Vec<PathBuf>,
}

impl NextSegments {
    /// The next one is `next_number`; `free` are the files that wait to be used again.
    pub(crate) fn new(
        fs: Arc<dyn Fs>,
        directory: &Path,
        segment_bytes: u64,
        recycled_max: usize,
        next_number: u64,
    ) -> NextSegments {
        assert!(next_number > 0, "segment numbers start at 1");
        assert!(segment_bytes <= SEGMENT_BYTES_MAX, "offsets fit their field");
        let ahead_bytes = segment_bytes.min(AHEAD_BYTES_FIRST);
        let state = Mutex::new(Rank::NextLogSegment, State { next_number, ready: None, ahead_bytes, free: Vec::new() });
        NextSegments {
            fs,
            directory: directory.to_path_buf(),
            segment_bytes,
            recycled_max,
            extent: None,
            recycled: AtomicU64::new(0),
            making: Mutex::new(Rank::LogSegmentCreation, ()),
            state,
        }
    }

    /// These, recorded there.
    pub(crate) fn recorded_in(self, extent: Arc<Extent>) -> NextSegments {
        NextSegments { extent: Some(extent), ..self }
    }

    /// Called before segments below `first` are deleted. After an error they must stay.
    pub(crate) fn begin_log_at(&self, first: u64) -> Result<()> {
        self.extent.as_ref().map_or(Ok(()), |extent| extent.begin_log_at(first))
    }

    /// Takes over the files that an earlier run has left for reuse; too many and unfit ones are removed.
    pub(crate) fn adopt(&self, names: &[String]) -> Result<()> {
        let mut state = self.state.lock();
        for name in names {
            let path = self.directory.join(name);
            let length = self.fs.open(&path, OpenMode::Read).and_then(|file| file.len());
            let length = length.map_err(|error| Error::io(&path, &error))?;
            if length == self.segment_bytes && state.free.len() < self.recycled_max {
                state.free.push(path);
            } else {
                self.fs.remove(&path).map_err(|error| Error::io(&path, &error))?;
            }
        }
        Ok(())
    }

    /// Bytes of an ordinary segment.
    pub(super) fn segment_bytes(&self) -> u64 {
        self.segment_bytes
    }

    /// Number of files that wait to be used again.
    pub(crate) fn free_count(&self) -> usize {
        self.state.lock().free.len()
    }

    /// Number of files that were used again.
    pub(crate) fn recycled_count(&self) -> u64 {
        self.recycled.load(Relaxed)
    }

    /// The next segment for the writer: the one that is ready, whatever its size, or a new one with space for `bytes`
    /// of records.
    pub(super) fn take(&self, bytes: u64) -> std::result::Result<NextSegment, NoSegment> {
        let mut state = self.state.lock();
        if state.ready.is_none() {
            let needed = SEGMENT_HEADER_BYTES + bytes + SEAL_BYTES;
            let made = match state.free.pop() {
                Some(path) if needed <= self.segment_bytes => {
                    self.recycled.fetch_add(1, Relaxed);
                    self.finish(state.next_number, self.segment_bytes, &path)
                }
                free => {
                    state.free.extend(free);
                    self.create_somehow(state.next_number, needed)
                }
            };
            state.ready = Some(made?);
        }
        let ready = state.ready.take().expect("it was there or was made");
        assert_eq!(ready.number, state.next_number, "numbers are consecutive");
        state.next_number += 1;
        Ok(ready)
    }

    /// Makes the next segment, if there is none ready. New files are filled with zeros if `fill` says so. Any failure
    /// may be tried again, or left to the writer, which does not wait for this: it makes a small one meanwhile.
    pub(crate) fn prepare(&self, fill: impl FnOnce() -> bool) -> Result<bool> {
        let _making = self.making.lock();
        let (free, bytes) = {
            let mut state = self.state.lock();
            if state.ready.is_some() {
                return Ok(false);
            }
            (state.free.pop(), state.ahead_bytes)
        };
        let new = free.is_none();
        let (file, capacity) = match free {
            Some(path) => (path, self.segment_bytes),
            None => {
                let temporary = self.temporary(NO_NUMBER);
                // Synced here, so that there is little left to sync where commits may wait.
                let made = self.create_temporary(&temporary, bytes, fill()).and_then(|file| file.sync());
                if let Err(error) = made {
                    let _ = self.fs.remove(&temporary); // so that a full disk gets its space back
                    return Err(Error::io(&temporary, &error));
                }
                (temporary, bytes)
            }
        };
        let mut state = self.state.lock();
        match self.finish(state.next_number, capacity, &file) {
            Ok(next) => state.ready = Some(next),
            Err(NoSegment::NotNow(error) | NoSegment::Final(error)) => return Err(error),
        }
        if new {
            state.ahead_bytes = bytes.saturating_mul(AHEAD_GROWTH).min(self.segment_bytes);
        } else {
            self.recycled.fetch_add(1, Relaxed);
        }
        Ok(true)
    }

    /// Puts the file of a segment aside for reuse, if one is needed: its name is removed as if the file had been
    /// removed. `None` if the caller must remove it. The caller syncs the directory and then calls
    /// [`NextSegments::put_free`]: a file whose old name may come back must not be written to.
    pub(super) fn retire(&self, number: u64, file: &dyn File) -> io::Result<Option<PathBuf>> {
        if self.state.lock().free.len() >= self.recycled_max || file.len()? != self.segment_bytes {
            return Ok(None);
        }
        let free = self.directory.join(free_name(number));
        self.fs.rename(&segment_path(&self.directory, number), &free)?;
        Ok(Some(free))
    }

    /// Takes in a file that [`NextSegments::retire`] has put aside.
    pub(super) fn put_free(&self, free: PathBuf) {
        self.state.lock().free.push(free);
    }

    /// Frees the files that wait for reuse: the disk is full.
    pub(crate) fn release(&self) {
        for path in std::mem::take(&mut self.state.lock().free) {
            if let Err(error) = self.fs.remove(&path) {
                tracing::warn!(path = %path.display(), %error, "a log file that is not needed stays");
            }
        }
    }

    /// Removes the segment that was made ahead, unless it is small: nothing was written for a while. New writes
    /// then begin with a small one again.
    pub(crate) fn release_ready(&self) {
        let mut state = self.state.lock();
        let first = self.segment_bytes.min(AHEAD_BYTES_FIRST);
        let Some(ready) = state.ready.take_if(|ready| ready.capacity > first) else { return };
        state.ahead_bytes = first;
        self.remove_unused(ready);
    }

    /// Removes a segment that was made ahead. If it stays, it is an empty segment, which the next one with its number
    /// replaces.
    fn remove_unused(&self, ready: NextSegment) {
        let path = segment_path(&self.directory, ready.number);
        let recorded = self.extent.as_ref().map_or(Ok(()), |extent| extent.end_log_at(ready.number - 1));
        drop(ready);
        let removed = recorded.and_then(|()| self.fs.remove(&path).map_err(|error| Error::io(&path, &error)));
        if let Err(error) = removed {
            tracing::warn!(path = %path.display(), %error, "a log file that is not needed stays");
        }
    }

    /// The log is closed: removes the segment that was made ahead. If that fails or is undone by a crash, the next open
    /// finds an empty segment, which does no harm.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.ready.take().into_iter().for_each(|ready| self.remove_unused(ready));
    }

    /// Makes a segment of a file that was one, or that has its space: header, sync, new name, sync of the directory.
    fn finish(&self, number: u64, capacity: u64, file: &Path) -> std::result::Result<NextSegment, NoSegment> {
        let written = self.fs.open(file, OpenMode::ReadWrite).and_then(|file| {
            file.write_at(&encode_segment_header(number, capacity), 0)?;
            file.sync()
        });
        if let Err(error) = written {
            // Any error: this file is not needed.
            let _ = self.fs.remove(file);
            return Err(NoSegment::NotNow(Error::io(file, &error)));
        }
        self.name(number, capacity, file)
    }

    /// Makes a segment of a new file: temporary name, allocate, fill, header, sync, name, sync of the directory.
    fn create(&self, number: u64, capacity: u64) -> std::result::Result<NextSegment, NoSegment> {
        let temporary = self.temporary(number);
        if let Err(error) = self.create_temporary(&temporary, capacity, true) {
            let _ = self.fs.remove(&temporary); // so that a full disk gets its space back
            return Err(NoSegment::NotNow(Error::io(&temporary, &error)));
        }
        self.finish(number, capacity, &temporary)
    }

    /// Makes a segment with space for `needed` bytes: of the size of those that are needed at once, or as small as can
    /// be where there is no space for that.
    fn create_somehow(&self, number: u64, needed: u64) -> std::result::Result<NextSegment, NoSegment> {
        let usual = needed.max(self.segment_bytes.min(HURRIED_BYTES_MAX));
        let least = needed.max(SCARCE_BYTES.min(self.segment_bytes));
        match self.create(number, usual) {
            Err(NoSegment::NotNow(error)) if error.is_retryable() && least < usual => self.create(number, least),
            made => made,
        }
    }

    /// A name that recovery removes.
    fn temporary(&self, number: u64) -> PathBuf {
        segment_path(&self.directory, number).with_extension("wal.tmp")
    }

    fn create_temporary(&self, path: &Path, capacity: u64, fill: bool) -> io::Result<Arc<dyn File>> {
        if self.fs.exists(path) {
            self.fs.remove(path)?;
        }
        let file = self.fs.open(path, OpenMode::CreateNew)?;
        file.allocate(capacity)?;
        let filled = if fill { capacity } else { 0 };
        let mut zeros = vec![0; usize::try_from(filled.min(ZEROS_BYTES)).unwrap_or(0)];
        let mut at = 0;
        while at < filled {
            zeros.truncate(usize::try_from(filled - at).unwrap_or(usize::MAX));
            file.write_at(&zeros, at)?;
            at += zeros.len() as u64;
        }
        Ok(file)
    }

    fn name(&self, number: u64, capacity: u64, from: &Path) -> std::result::Result<NextSegment, NoSegment> {
        let path = segment_path(&self.directory, number);
        let named = self.fs.rename(from, &path).and_then(|()| match planted::is_set(Bug::NoDirectorySync) {
            true => Ok(()),
            false => self.fs.sync_dir(&self.directory),
        });
        let unknown = |error: io::Error| {
            // Whether the name exists is unknown now; records behind it might not be found again.
            NoSegment::Final(Error::Io { file: path.clone(), kind: error.kind(), message: error.to_string() })
        };
        named.map_err(unknown)?;
        let open = || self.fs.open(&path, OpenMode::ReadWrite);
        let handles = || -> io::Result<[Arc<dyn File>; SYNCS_MAX]> { Ok([open()?, open()?, open()?, open()?]) };
        // The name is durable. Without descriptors it stays as that of an empty segment, which the next attempt
        // replaces.
        let handles = handles().map_err(|error| match Error::io(&path, &error) {
            error @ Error::NoDescriptors { .. } => NoSegment::NotNow(error),
            _ => unknown(error),
        })?;
        // Without a mapping appends are system calls: slower, no more.
        let map = handles[0].map(capacity).unwrap_or_else(|error| {
            tracing::debug!(path = %path.display(), %error, "a log segment is not mapped");
            None
        });
        let in_place = handles[0].writes_in_place();
        self.extent.iter().for_each(|extent| extent.note_segment(number));
        Ok(NextSegment { number, capacity, handles, in_place, map })
    }
}

#[cfg(test)]
#[path = "next_test.rs"]
mod tests;
