//! Reading the log record by record, up to its live end.
//!
//! The writer reports to [`Segments`] how far a segment is filled only when a record is there as a whole, so everything
//! below is whole records: what does not decode is damage, never a write in progress.

use super::format::{RawRecord, SEGMENT_HEADER_BYTES, decode_record, record_bytes};
use super::segments::{Look, RecordPosition, Segments};
use crate::{Error, Result, SequenceNumber};
use kontiki_env::fs::File;

/// Bytes read at once: enough that calls cost little compared with copying, little enough to keep for each reader.
const READ_BYTES: u64 = 256 << 10;

/// What follows in the log.
pub(crate) enum Peek<'a> {
    /// This record.
    Record(RecordPosition, RawRecord<'a>),
    /// Nothing yet.
    End,
    /// It was deleted.
    Gone,
}

/// A position in the log, and the bytes read there.
pub(crate) struct LogReader {
    segment: u64,
    offset: u64,
    /// Bytes of the segment from `start` on.
    buffer: Vec<u8>,
    start: u64,
}

impl LogReader {
    /// At the first segment that may hold a batch with a number above `after`; `None` if such batches may be deleted.
    pub(crate) fn new(segments: &Segments, after: SequenceNumber) -> Option<LogReader> {
        let (segment, offset) = segments.start_after(after)?;
        Some(LogReader { segment, offset, buffer: Vec::new(), start: offset })
    }

    /// At the beginning of a segment.
    pub(crate) fn of_segment(segment: u64) -> LogReader {
        LogReader { segment, offset: SEGMENT_HEADER_BYTES, buffer: Vec::new(), start: SEGMENT_HEADER_BYTES }
    }

    /// Segment and offset of what comes next.
    pub(crate) fn place(&self) -> (u64, u64) {
        (self.segment, self.offset)
    }

    /// The next record, which stays the next until [`LogReader::advance`]. No file is kept open in between, so a reader
    /// keeps no segment from being used again.
    pub(crate) fn peek(&mut self, segments: &Segments) -> Result<Peek<'_>> {
        if !self.has_record() {
            loop {
                match segments.look(self.segment) {
                    Look::Gone => return Ok(Peek::Gone),
                    Look::NotYet => return Ok(Peek::End),
                    Look::Here { used, finished, .. } if self.offset >= used => {
                        if !finished {
                            return Ok(Peek::End);
                        }
                        self.segment += 1;
                        self.offset = SEGMENT_HEADER_BYTES;
                        self.buffer.clear();
                    }
                    Look::Here { file, used, .. } => {
                        self.fill(segments, &*file, used)?;
                        break;
                    }
                }
            }
        }
        match self.record() {
            Some(record) => {
                let position = RecordPosition { segment: self.segment, offset: self.offset, bytes: record.bytes() };
                Ok(Peek::Record(position, record))
            }
            None => Err(self.damaged(segments)),
        }
    }

    /// Drops what was read, after an error: the next call reads again.
    pub(crate) fn forget(&mut self) {
        self.buffer.clear();
    }

    /// Moves behind the next record, which has so many bytes.
    pub(crate) fn advance(&mut self, bytes: u64) {
        self.offset += bytes;
    }

    fn at(&self) -> Option<usize> {
        usize::try_from(self.offset.checked_sub(self.start)?).ok()
    }

    /// Whether the bytes of the next record are in the buffer.
    fn has_record(&self) -> bool {
        let rest = self.at().and_then(|at| self.buffer.get(at..)).unwrap_or_default();
        record_bytes(rest).is_some_and(|bytes| bytes <= rest.len() as u64)
    }

    fn record(&self) -> Option<RawRecord<'_>> {
        decode_record(self.segment, &self.buffer, self.at()?, self.offset)
    }

    /// Reads from the next record on, all of it and some that follow. The segment is filled up to `used`.
    fn fill(&mut self, segments: &Segments, file: &dyn File, used: u64) -> Result<()> {
        let mut wanted = READ_BYTES;
        loop {
            wanted = wanted.min(used - self.offset);
            if self.buffer.capacity() as u64 > 2 * READ_BYTES.max(wanted) {
                self.buffer = Vec::new(); // A rare large record need not be kept.
            }
            self.start = self.offset;
            read_exactly(file, &mut self.buffer, self.offset, wanted)
                .map_err(|error| Error::io(segments.path(self.segment), &error))?;
            match record_bytes(&self.buffer) {
                Some(bytes) if bytes > wanted && self.offset + bytes <= used => wanted = bytes,
                _ => return Ok(()),
            }
        }
    }

    fn damaged(&self, segments: &Segments) -> Error {
        Error::Corruption {
            file: segments.path(self.segment),
            offset: self.offset,
            what: "a log record that was whole when it was written is damaged".to_string(),
        }
    }
}

/// Fills the buffer with `length` bytes, fewer at the end of the file.
fn read_exactly(file: &dyn File, buffer: &mut Vec<u8>, offset: u64, length: u64) -> std::io::Result<()> {
    buffer.clear();
    buffer.resize(usize::try_from(length).map_err(std::io::Error::other)?, 0);
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64)? {
            0 => break,
            count => filled += count,
        }
    }
    buffer.truncate(filled);
    Ok(())
}
