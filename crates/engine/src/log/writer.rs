//! Appending to the log.

use super::format::{RECORD_HEADER_BYTES, RecordHeader, RecordKind, SEAL_BYTES, SEGMENT_HEADER_BYTES};
use super::next::{HURRIED_BYTES_MAX, NextSegment, NextSegments, NoSegment};
use super::segments::{RecordPosition, Segments};
use super::tail::Tail;
use crate::{Error, Result};
use kontiki_env::codec::checksum32;
use kontiki_env::fs::{File, MappedFile, OpenMode};
use std::sync::Arc;

/// Staged records are written once they have this many bytes; so the buffer is larger only for a rare large record,
/// after which it is freed.
const STAGED_BYTES_MAX: usize = 1 << 20;

/// The durability that a record needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// No sync follows at once. The operating system has it when the append returns.
    Written,
    /// It is synced before any caller learns of it, and may be staged until then.
    Synced,
    /// The same, but it may be read from the file before.
    SyncedAndRead,
}

/// A record before it is in the log. Its payload's checksum is computed when it is made, outside of all locks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outgoing<'a> {
    kind: RecordKind,
    parts: [&'a [u8]; 2],
    payload_bytes: u64,
    payload_checksum: u32,
}

impl<'a> Outgoing<'a> {
    /// A record whose payload is these two parts.
    pub(crate) fn new(kind: RecordKind, parts: [&'a [u8]; 2]) -> Outgoing<'a> {
        let payload_bytes = parts.iter().map(|part| part.len() as u64).sum();
        Outgoing { kind, parts, payload_bytes, payload_checksum: checksum32(&parts) }
    }
}

/// The place of a record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Appended {
    pub(crate) position: RecordPosition,
    /// The log position behind it: it is durable when everything below is.
    pub(crate) end: u64,
}

struct Active {
    number: u64,
    file: Arc<dyn File>,
    /// Whether a write below `capacity` surely finds space.
    in_place: bool,
    /// Appends that are not synced at once are copied here, where that is possible: a copy instead of a system call.
    map: Option<Box<dyn MappedFile>>,
    /// What the file was allocated with: a write below cannot fail for lack of space.
    capacity: u64,
    /// End of the last record.
    end: u64,
    /// The log position of the segment's first byte, were its header counted.
    base: u64,
}

/// Appends records. There is one, under the lock that orders commits.
///
/// - When [`LogWriter::append`] returns the operating system has the record, unless it will be synced before any caller
///   learns of it ([`Need::Synced`]): then it is *staged* in memory, behind everything before it, until
///   [`LogWriter::write_out`]. So many writers that wait for the same sync pay for one system call. A following record
///   that needs more writes out first: what is in the file has no gaps.
/// - Syncs are made elsewhere ([`Tail`]), so that they do not hold up appends; each writes out first.
/// - No space while the next segment is made leaves the log as it was: try again later. A segment is allocated before
///   it is used, so a full disk is noticed there.
/// - Any other failure leaves the tail unknown. It is final: every later call returns [`Error::Stopped`].
pub(crate) struct LogWriter {
    segments: Arc<Segments>,
    next: Arc<NextSegments>,
    tail: Arc<Tail>,
    active: Option<Active>,
    /// The log position behind the last record.
    end: u64,
    /// Bytes that end where the active segment does, and are not in its file yet.
    staged: Vec<u8>,
    stopped: Option<Error>,
}

/// The log position before the first record of a run: all that is older is durable.
pub(crate) const FIRST_POSITION: u64 = SEGMENT_HEADER_BYTES;

impl LogWriter {
    /// A writer that starts with the next segment at the first record. Making it late lets a directory on a
    /// full disk open.
    pub(crate) fn new(segments: Arc<Segments>, next: Arc<NextSegments>, tail: Arc<Tail>) -> LogWriter {
        let segment_bytes = next.segment_bytes();
        assert!(segment_bytes > SEGMENT_HEADER_BYTES + RECORD_HEADER_BYTES + SEAL_BYTES, "a segment holds a record");
        LogWriter { segments, next, tail, active: None, end: FIRST_POSITION, staged: Vec::new(), stopped: None }
    }

    /// The log position behind the last record.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// Appends a record with the sequence number of its batch (0 if it has none), given that the log is durable up to
    /// the position `durable`.
    /// What will be synced at once does not go through the mapping: that would cost two page faults after each sync, a
    /// system call is cheaper.
    pub(crate) fn append(
        &mut self,
        record: &Outgoing<'_>,
        sequence: u64,
        durable: u64,
        need: Need,
    ) -> Result<Appended> {
        self.check_running()?;
        let bytes = RECORD_HEADER_BYTES + record.payload_bytes;
        self.ensure_capacity(bytes, durable)?;
        if need == Need::Written {
            self.write_out()?;
        }
        let active = self.active.as_mut().expect("ensure_capacity leaves an active segment");
        let header = RecordHeader {
            kind: record.kind,
            durable_offset: active.claim(durable),
            sequence,
            payload_bytes: record.payload_bytes,
            payload_checksum: record.payload_checksum,
        };
        let offset = active.end;
        assert!(offset + bytes + SEAL_BYTES <= active.capacity, "a record never leaves the allocated part");
        let header = header.encode(active.number, offset);
        let parts = [&header[..]].into_iter().chain(record.parts);
        if let (Some(map), Need::Written) = (&mut active.map, need) {
            let mut at = offset;
            for part in parts {
                if let Err(error) = map.write_at(part, at) {
                    return Err(self.write_failed(&error, None));
                }
                at += part.len() as u64;
            }
        } else {
            let alone = self.staged.is_empty();
            parts.for_each(|part| self.staged.extend_from_slice(part));
            let may_stay = need == Need::Synced && active.in_place && self.staged.len() < STAGED_BYTES_MAX;
            if !may_stay && let Err(error) = write_staged(active, &mut self.staged, offset + bytes) {
                // Only a record without an assigned number can be taken back.
                return Err(self.write_failed(&error, alone.then_some(bytes)));
            }
        }
        let active = self.active.as_mut().expect("it is there since ensure_capacity");
        active.end += bytes;
        self.end = active.base + active.end;
        let position = RecordPosition { segment: active.number, offset, bytes };
        // A reader of the file must not read beyond what is written.
        self.segments.set_used(active.number, active.end - self.staged.len() as u64, sequence);
        Ok(Appended { position, end: self.end })
    }

    /// Writes what is staged to the operating system. A failure is final.
    pub(crate) fn write_out(&mut self) -> Result<()> {
        let Some(active) = self.active.as_ref().filter(|_| !self.staged.is_empty()) else { return Ok(()) };
        match write_staged(active, &mut self.staged, active.end) {
            Ok(()) => {
                self.segments.set_used(active.number, active.end, 0);
                Ok(())
            }
            Err(error) => Err(self.write_failed(&error, None)),
        }
    }

    /// Closes the log: after this the newest segment is sealed, so damage to it will be noticed, and
    /// nothing is appended any more. The caller has synced, so that the seal claims every record.
    pub(crate) fn close(&mut self, durable: u64) -> Result<()> {
        self.check_running()?;
        assert!(durable == self.end && self.staged.is_empty(), "a log is synced before it is closed");
        if let Some(mut active) = self.active.take() {
            active.map = None; // the file is cut below
            let path = self.segments.path(active.number);
            let sealed = write_seal(&*active.file, active.number, active.end, active.claim(durable));
            let used = match sealed.and_then(|used| active.file.sync().map(|()| used)) {
                Ok(used) => used,
                Err(error) => {
                    return Err(self.stop(Error::Io { file: path, kind: error.kind(), message: error.to_string() }));
                }
            };
            // Only to save space: with the seal in place no reader looks behind it, so neither order nor failure
            // matters.
            let _ = active.file.set_len(used);
            self.segments.set_used(active.number, used, 0);
        }
        self.next.close();
        self.stopped = Some(Error::Closed);
        Ok(())
    }

    /// Refuses everything from now on, for `error`, which is returned.
    pub(crate) fn stop(&mut self, error: Error) -> Error {
        self.stopped.get_or_insert_with(|| Error::Stopped(error.to_string()));
        error
    }

    fn check_running(&self) -> Result<()> {
        self.stopped.as_ref().map_or(Ok(()), |why| Err(why.clone()))
    }

    /// Leaves an active segment with space for `bytes` and a seal. The next segment exists before the active one is
    /// sealed, so that lack of space changes nothing.
    fn ensure_capacity(&mut self, bytes: u64, durable: u64) -> Result<()> {
        while self.active.as_ref().is_none_or(|active| active.end + bytes + SEAL_BYTES > active.capacity) {
            self.go_on(bytes, durable)?;
        }
        Ok(())
    }

    /// Continues in the next segment, which has space for `bytes`.
    fn go_on(&mut self, bytes: u64, durable: u64) -> Result<()> {
        let next = match self.next.take(bytes) {
            Ok(next) => next,
            Err(NoSegment::NotNow(error)) if error.is_retryable() => return Err(error),
            Err(NoSegment::NotNow(error) | NoSegment::Final(error)) => return Err(self.stop(error)),
        };
        self.seal(durable)?;
        let number = next.number;
        let [file, ..] = &next.handles;
        let file = file.clone();
        let NextSegment { handles, capacity, in_place, map, .. } = next;
        self.tail.add(number, self.segments.path(number), handles);
        let base = self.end - SEGMENT_HEADER_BYTES;
        self.segments.add(number, file.clone(), SEGMENT_HEADER_BYTES, Some(base));
        self.active = Some(Active { number, file, in_place, map, capacity, end: SEGMENT_HEADER_BYTES, base });
        Ok(())
    }

    /// Continues in a small segment if the active one is large, so that it can be deleted once it is not needed;
    /// whether it did. Given that the log is durable up to the position `durable`.
    pub(crate) fn leave_large_segment(&mut self, durable: u64) -> Result<bool> {
        self.check_running()?;
        let large = self.active.as_ref().is_some_and(|active| active.capacity > HURRIED_BYTES_MAX);
        if large {
            self.go_on(0, durable)?;
        }
        Ok(large)
    }

    /// Seals the active segment, if there is one. It is not synced here: until it is, the records of the next one claim
    /// nothing, and a crash that tears this one cuts the log here.
    fn seal(&mut self, durable: u64) -> Result<()> {
        self.write_out()?;
        let Some(active) = self.active.as_ref() else { return Ok(()) };
        let path = self.segments.path(active.number);
        let used = match write_seal(&*active.file, active.number, active.end, active.claim(durable)) {
            Ok(used) => used,
            Err(error) => {
                return Err(self.stop(Error::Io { file: path, kind: error.kind(), message: error.to_string() }));
            }
        };
        self.end = active.base + used;
        self.segments.set_used(active.number, used, 0);
        self.tail.seal(active.number, self.end);
        self.active = None;
        Ok(())
    }

    /// A write inside the allocated part failed. For lack of space (copy-on-write file systems, quotas) the log is
    /// put back if the write was of one record, of so many bytes, that has no number yet: a whole record must not be
    /// found by a later recovery, so its bytes are zeroed, durably. Anything else is final.
    fn write_failed(&mut self, error: &std::io::Error, record_bytes: Option<u64>) -> Error {
        let active = self.active.as_ref().expect("a write failed in the active segment");
        let path = self.segments.path(active.number);
        let answer = Error::io(&path, error);
        if let (true, Some(bytes)) = (answer.is_retryable(), record_bytes) {
            let zeros = vec![0; usize::try_from(bytes).unwrap_or(usize::MAX)];
            // On a separate handle: a sync in flight on one of the others must get its own failure reported.
            let zeroed = self.segments.fs().open(&path, OpenMode::ReadWrite).and_then(|file| {
                file.write_at(&zeros, active.end)?;
                file.sync()
            });
            if zeroed.is_ok() {
                return answer;
            }
        }
        self.stop(Error::Io { file: path, kind: error.kind(), message: error.to_string() })
    }
}

/// Writes what is staged, which ends at `end`; nothing is staged afterwards.
fn write_staged(active: &Active, staged: &mut Vec<u8>, end: u64) -> std::io::Result<()> {
    let start = end.checked_sub(staged.len() as u64).expect("what is staged lies in the segment");
    let written = active.file.write_at(staged, start);
    staged.clear();
    if staged.capacity() > 2 * STAGED_BYTES_MAX {
        *staged = Vec::new();
    }
    written
}

impl Active {
    /// What a record may claim when the log is durable up to a position: 0 while an older segment may not be.
    fn claim(&self, durable: u64) -> u64 {
        match durable.checked_sub(self.base) {
            Some(offset) if offset >= SEGMENT_HEADER_BYTES => offset.min(self.end),
            _ => 0,
        }
    }
}

/// Writes a seal at `offset` and returns where it ends.
pub(super) fn write_seal(file: &dyn File, number: u64, offset: u64, durable: u64) -> std::io::Result<u64> {
    file.write_at(&RecordHeader::seal(durable).encode(number, offset), offset)?;
    Ok(offset + SEAL_BYTES)
}

#[cfg(test)]
#[path = "writer_test.rs"]
mod tests;
