//! Appending to the log.

use super::format::{
    RECORD_HEADER_BYTES, RecordKind, SEAL_BYTES, SEGMENT_HEADER_BYTES, encode_record, encode_segment_header,
};
use super::segments::{RecordPosition, Segments};
use crate::planted::{self, Bug};
use crate::vlog::Appender;
use crate::{Error, Result};
use kontiki_env::fs::{File, OpenMode};
use std::path::Path;
use std::sync::Arc;

/// The buffer that groups are framed in is kept for the next group unless a rare large one has made it larger than
/// this: twice the usual bound of a group.
const FRAME_KEPT_BYTES_MAX: usize = 8 << 20;

/// A record on its way into the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outgoing<'a> {
    pub(crate) kind: RecordKind,
    pub(crate) payload: &'a [u8],
}

struct Active {
    number: u64,
    file: Arc<dyn File>,
    /// What the file was allocated with: a write below cannot meet a full disk.
    capacity: u64,
    /// End of the last record.
    end: u64,
    /// `[0, durable)` has been synced.
    durable: u64,
}

/// Appends groups of records. There is one, and whoever leads the write path has it.
///
/// - A group lands in one segment with one write. [`LogWriter::append`] returns when the operating system has it
///   (`Buffered`); [`LogWriter::sync`] makes it survive power loss. Nothing waits in user space in between.
/// - No space while the next segment is made leaves the log as it was: try again later. A segment is allocated before
///   it is used, so a full disk shows there.
/// - Any other failure leaves the tail unknown. It is final: every later call answers [`Error::Stopped`].
pub(crate) struct LogWriter {
    segments: Arc<Segments>,
    segment_bytes: u64,
    active: Option<Active>,
    next_number: u64,
    frame: Vec<u8>,
    stopped: Option<String>,
    /// What records refer to must be durable before they are called so.
    values: Option<Arc<Appender>>,
}

impl LogWriter {
    /// A writer that starts with segment `next_number` when the first record comes. Making the segment late lets a
    /// directory on a full disk open.
    pub(crate) fn new(segments: Arc<Segments>, segment_bytes: u64, next_number: u64) -> LogWriter {
        assert!(next_number > 0, "segment numbers start at 1");
        assert!(segments.newest().is_none_or(|newest| newest < next_number), "numbers are used once");
        assert!(segment_bytes > SEGMENT_HEADER_BYTES + RECORD_HEADER_BYTES + SEAL_BYTES, "a segment holds a record");
        LogWriter { segments, segment_bytes, active: None, next_number, frame: Vec::new(), stopped: None, values: None }
    }

    /// From now on, syncs these values before records.
    pub(crate) fn sync_first(&mut self, values: Arc<Appender>) {
        self.values = Some(values);
    }

    /// Payload bytes, with [`RECORD_HEADER_BYTES`] for each record, that a group may have and still share a segment of
    /// ordinary size. A single record may be larger.
    pub(crate) fn group_bytes_max(&self) -> u64 {
        self.segment_bytes - SEGMENT_HEADER_BYTES - SEAL_BYTES
    }

    /// Appends the records as one group, in order, and tells where they are.
    pub(crate) fn append(&mut self, records: &[Outgoing<'_>]) -> Result<Vec<RecordPosition>> {
        self.check_running()?;
        let bytes = records.iter().map(|r| RECORD_HEADER_BYTES + r.payload.len() as u64).sum::<u64>();
        self.make_room(bytes)?;
        let active = self.active.as_mut().expect("make_room leaves an active segment");
        self.frame.clear();
        let mut positions = Vec::with_capacity(records.len());
        for record in records {
            let offset = active.end + self.frame.len() as u64;
            encode_record(&mut self.frame, active.number, offset, record.kind, active.durable, record.payload);
            let bytes = active.end + self.frame.len() as u64 - offset;
            positions.push(RecordPosition { segment: active.number, offset, bytes });
        }
        assert_eq!(self.frame.len() as u64, bytes, "the room was made for exactly these bytes");
        assert!(active.end + bytes + SEAL_BYTES <= active.capacity, "a group never leaves the allocated part");
        if let Err(error) = active.file.write_at(&self.frame, active.end) {
            return Err(self.write_failed(&error));
        }
        active.end += bytes;
        self.segments.set_used(active.number, active.end);
        if self.frame.capacity() > FRAME_KEPT_BYTES_MAX {
            self.frame = Vec::new();
        }
        Ok(positions)
    }

    /// Makes everything appended so far survive power loss. A failure is final.
    pub(crate) fn sync(&mut self) -> Result<()> {
        self.check_running()?;
        let Some(active) = self.active.as_mut() else { return Ok(()) };
        if active.durable == active.end {
            return Ok(());
        }
        if let Some(Err(error)) = self.values.as_ref().map(|values| values.sync()) {
            return Err(self.stop(error));
        }
        if let Err(error) = active.file.sync() {
            let path = self.segments.path(active.number);
            return Err(self.stop(Error::Io { file: path, kind: error.kind(), message: error.to_string() }));
        }
        active.durable = active.end;
        Ok(())
    }

    /// Ends the log in good order: after this the newest segment is sealed, so damage to it will be noticed, and nothing
    /// is appended any more.
    pub(crate) fn close(&mut self) -> Result<()> {
        self.check_running()?;
        self.seal()?;
        self.stopped = Some("the database was closed".into());
        Ok(())
    }

    /// Refuses everything from now on, for `error`, which is returned.
    pub(crate) fn stop(&mut self, error: Error) -> Error {
        self.stopped.get_or_insert_with(|| error.to_string());
        error
    }

    fn check_running(&self) -> Result<()> {
        self.stopped.as_ref().map_or(Ok(()), |why| Err(Error::Stopped(why.clone())))
    }

    /// Leaves an active segment with room for `bytes` and a seal.
    fn make_room(&mut self, bytes: u64) -> Result<()> {
        if self.active.as_ref().is_some_and(|active| active.end + bytes + SEAL_BYTES <= active.capacity) {
            return Ok(());
        }
        self.seal()?;
        let capacity = self.segment_bytes.max(SEGMENT_HEADER_BYTES + bytes + SEAL_BYTES);
        self.create(capacity)
    }

    /// Syncs and seals the active segment, if there is one, and gives back what it does not use. The sync comes first,
    /// so that the seal claims all records: damage to one of them is then never taken for a torn tail.
    fn seal(&mut self) -> Result<()> {
        self.sync()?;
        let Some(active) = self.active.as_ref() else { return Ok(()) };
        let path = self.segments.path(active.number);
        let used = match write_seal(&*active.file, active.number, active.end, active.durable) {
            Ok(used) => used,
            Err(error) => {
                return Err(self.stop(Error::Io { file: path, kind: error.kind(), message: error.to_string() }));
            }
        };
        // Only to save space: with the seal in place nobody looks behind it, so neither order nor failure matters.
        let _ = active.file.set_len(used);
        self.segments.set_used(active.number, used);
        self.active = None;
        Ok(())
    }

    /// Makes the next segment: temporary name, allocate, header, sync, rename, sync of the directory. So under its
    /// final name a segment always has a good header, and its space.
    fn create(&mut self, capacity: u64) -> Result<()> {
        let number = self.next_number;
        let path = self.segments.path(number);
        let temporary = path.with_extension("wal.tmp");
        let file = match self.create_temporary(&temporary, number, capacity) {
            Ok(file) => file,
            Err(error) => {
                let _ = self.segments.fs().remove(&temporary); // so that a full disk gets its space back
                let error = Error::io(&temporary, &error);
                return Err(if error.is_retryable() { error } else { self.stop(error) });
            }
        };
        let fs = self.segments.fs();
        let named = fs.rename(&temporary, &path).and_then(|()| match planted::is_set(Bug::NoDirectorySync) {
            true => Ok(()),
            false => fs.sync_dir(self.segments.directory()),
        });
        if let Err(error) = named {
            // Whether the name is there is unknown now; records behind it might not be found again.
            return Err(self.stop(Error::Io { file: path, kind: error.kind(), message: error.to_string() }));
        }
        self.segments.add(number, file.clone(), SEGMENT_HEADER_BYTES);
        self.active = Some(Active { number, file, capacity, end: SEGMENT_HEADER_BYTES, durable: SEGMENT_HEADER_BYTES });
        self.next_number += 1;
        Ok(())
    }

    fn create_temporary(&self, path: &Path, number: u64, capacity: u64) -> std::io::Result<Arc<dyn File>> {
        let fs = self.segments.fs();
        if fs.exists(path) {
            fs.remove(path)?;
        }
        let file = fs.open(path, OpenMode::CreateNew)?;
        file.allocate(capacity)?;
        file.write_at(&encode_segment_header(number, capacity), 0)?;
        file.sync()?;
        Ok(file)
    }

    /// A write inside the allocated part failed. For want of space (copy-on-write file systems, quotas) the log is
    /// put back: whole records of the failed group must not be found by a later recovery, so its bytes are zeroed,
    /// durably. Anything else is final.
    fn write_failed(&mut self, error: &std::io::Error) -> Error {
        let active = self.active.as_ref().expect("a write failed in the active segment");
        let path = self.segments.path(active.number);
        let answer = Error::io(&path, error);
        if answer.is_retryable() {
            let zeros = vec![0; self.frame.len()];
            if active.file.write_at(&zeros, active.end).and_then(|()| active.file.sync()).is_ok() {
                return answer;
            }
        }
        self.stop(Error::Io { file: path, kind: error.kind(), message: error.to_string() })
    }
}

/// Writes a seal at `offset`, syncs, and returns where it ends.
pub(super) fn write_seal(file: &dyn File, number: u64, offset: u64, durable: u64) -> std::io::Result<u64> {
    let mut seal = Vec::with_capacity(SEAL_BYTES as usize);
    encode_record(&mut seal, number, offset, RecordKind::Seal, durable, &[]);
    file.write_at(&seal, offset)?;
    file.sync()?;
    Ok(offset + SEAL_BYTES)
}

#[cfg(test)]
#[path = "writer_test.rs"]
mod tests;
