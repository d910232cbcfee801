//! Reading the log back at open.
//!
//! Every segment but the newest must be whole up to its seal. The newest either is sealed too (a clean close, or an
//! earlier recovery), or it ends where its last whole record ends: that is where the crash tore it. Two things tell
//! a torn tail from damage: no later whole record of the segment claims that the bad place had been synced, and the
//! file is as long as it was allocated.
//!
//! The end is then made final before anything is replayed: what lies between the last claim of durability and the
//! cut is written again (after a failed sync and a restart of the process alone, the page cache may show bytes that
//! never reached the disk and count as clean), a seal goes behind it, and the file is synced. From then on the
//! replayed records are durable, whatever their writer was promised, and bytes behind the cut are dead.

use super::format::{
    RawRecord, RecordKind, SEAL_BYTES, SEGMENT_HEADER_BYTES, check_segment_header, decode_record, segment_number,
};
use super::segments::{RecordPosition, Segments};
use super::writer::write_seal;
use crate::{Error, Result};
use kontiki_env::fs::{OpenMode, read_all};
use std::path::Path;

/// What recovery found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Recovered {
    /// The number for the next segment.
    pub(crate) next_number: u64,
    /// Bytes of records that were read.
    pub(crate) replayed_bytes: u64,
    /// Whether the newest segment had no seal: the last run ended without a close.
    pub(crate) unclean: bool,
}

/// How the records of a segment end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentEnd {
    /// Where the last whole record (the seal excluded) ends.
    pub(super) offset: u64,
    pub(super) sealed: bool,
    /// The furthest that any of the records claims to be durable.
    pub(super) claimed: u64,
}

/// Whoever keeps something beside the log that records refer to.
pub(crate) trait Beside {
    /// Whether all that this record refers to is there. Asked, in order, for records that were never claimed durable, until
    /// the first for which it is not.
    fn is_whole(&self, record: RawRecord<'_>) -> Result<bool>;
    /// Makes durable what was found whole. Called before the log's end is made final.
    fn make_durable(&self) -> Result<()>;
}

/// Nothing.
impl Beside for () {
    fn is_whole(&self, _: RawRecord<'_>) -> Result<bool> {
        Ok(true)
    }

    fn make_durable(&self) -> Result<()> {
        Ok(())
    }
}

/// Reads all segments, oldest first, adds them to `segments`, and gives every commit and rewrite record to `visit`.
pub(crate) fn recover(
    segments: &Segments,
    beside: &dyn Beside,
    visit: &mut dyn FnMut(RecordPosition, RawRecord<'_>) -> Result<()>,
) -> Result<Recovered> {
    let numbers = list_segments(segments)?;
    let mut recovered = Recovered { next_number: 1, replayed_bytes: 0, unclean: false };
    for (i, number) in numbers.iter().copied().enumerate() {
        let path = segments.path(number);
        let bytes = read_all(segments.fs(), &path).map_err(|error| Error::io(&path, &error))?;
        let capacity = check_segment_header(&path, number, &bytes)?;
        let mut end = find_end(number, &bytes);
        let newest = i + 1 == numbers.len();
        if newest {
            end_where_something_is_missing(number, &bytes, &mut end, beside)?;
        }
        if !end.sealed {
            check_torn(&path, number, &bytes, end, capacity, newest)?;
            recovered.unclean = true;
        }
        if newest {
            beside.make_durable()?;
            make_end_final(segments, number, &bytes, end)?;
        }
        let file = segments.fs().open(&path, OpenMode::Read).map_err(|error| Error::io(&path, &error))?;
        segments.add(number, file, end.offset + SEAL_BYTES);
        replay(number, &bytes, end, visit)?;
        recovered.replayed_bytes += end.offset - SEGMENT_HEADER_BYTES;
        recovered.next_number = number + 1;
    }
    if numbers.is_empty() {
        beside.make_durable()?;
    }
    Ok(recovered)
}

/// Ends the segment at the first record, of those that were never claimed durable, that misses what it refers to: a crash has
/// taken that, as it might have taken the record.
fn end_where_something_is_missing(number: u64, bytes: &[u8], end: &mut SegmentEnd, beside: &dyn Beside) -> Result<()> {
    let mut offset = end.claimed;
    while offset < end.offset {
        let Some(record) = record_at(number, bytes, offset) else { return Ok(()) };
        let length = record.bytes();
        if !beside.is_whole(record)? {
            *end = SegmentEnd { offset, sealed: false, ..*end };
        }
        offset += length;
    }
    Ok(())
}

/// The numbers of the segments, which must be consecutive. Unfinished new segments are removed on the way.
fn list_segments(segments: &Segments) -> Result<Vec<u64>> {
    let (fs, directory) = (segments.fs(), segments.directory());
    let names = fs.list(directory).map_err(|error| Error::io(directory, &error))?;
    let mut numbers = Vec::new();
    for name in names {
        if let Some(number) = segment_number(&name) {
            numbers.push(number);
        } else if name.strip_suffix(".tmp").and_then(segment_number).is_some() {
            // It never got its name, so nothing in it was ever acknowledged.
            let path = directory.join(name);
            fs.remove(&path).map_err(|error| Error::io(&path, &error))?;
        }
    }
    numbers.sort_unstable();
    for pair in numbers.windows(2) {
        if let &[older, newer] = pair
            && newer != older + 1
        {
            let what = format!("this log segment is missing, while {newer} and {older} are there");
            return Err(Error::Corruption { file: segments.path(older + 1), offset: 0, what });
        }
    }
    if !numbers.is_empty() {
        // The last run may have died between a deletion and its sync. The next deletion must not become durable without
        // it: that would look like a missing segment. Names that are new become durable with it.
        let io = |error: std::io::Error| Error::Io {
            file: directory.to_path_buf(),
            kind: error.kind(),
            message: error.to_string(),
        };
        fs.sync_dir(directory).map_err(io)?;
    }
    Ok(numbers)
}

/// Walks the whole records from the start.
pub(super) fn find_end(number: u64, bytes: &[u8]) -> SegmentEnd {
    let mut end = SegmentEnd { offset: SEGMENT_HEADER_BYTES, sealed: false, claimed: SEGMENT_HEADER_BYTES };
    while let Some(record) = record_at(number, bytes, end.offset) {
        end.claimed = end.claimed.max(record.durable_offset);
        if record.kind == RecordKind::Seal {
            end.sealed = true;
            break;
        }
        end.offset += record.bytes();
    }
    end
}

/// Refuses an unsealed segment that did not come to be by a crash while it was the newest.
fn check_torn(file: &Path, number: u64, bytes: &[u8], end: SegmentEnd, capacity: u64, newest: bool) -> Result<()> {
    let corrupt = |what: String| Err(Error::Corruption { file: file.to_path_buf(), offset: end.offset, what });
    if !newest {
        return corrupt("a damaged or missing log record, and later log segments follow".into());
    }
    if (bytes.len() as u64) < capacity {
        return corrupt(format!("the log segment has {} bytes of the {capacity} allocated", bytes.len()));
    }
    match later_claim(number, bytes, end.offset) {
        Some(at) => corrupt(format!("a damaged log record; the record at {at} says that this place had been synced")),
        None => Ok(()),
    }
}

/// The first whole record behind `bad` that was written when `bad` was already durable.
fn later_claim(number: u64, bytes: &[u8], bad: u64) -> Option<u64> {
    let first = usize::try_from(bad).ok()? + 1;
    (first..bytes.len()).map(|at| at as u64).find(|&at| {
        // The cheap tests go first: they rule out nearly everything, so few checksums are computed.
        let kind_and_claim = usize::try_from(at).ok().and_then(|at| bytes.get(at + 8..)?.first_chunk::<9>());
        let Some([kind, claim @ ..]) = kind_and_claim else { return false };
        let claim = if *kind == 0 { 0 } else { u64::from_le_bytes(*claim) };
        claim > bad && claim <= at && record_at(number, bytes, at).is_some()
    })
}

/// See the head of this file. Afterwards the segment is sealed and everything up to its seal is durable. A seal that
/// is there already may be as unsynced as what is before it.
fn make_end_final(segments: &Segments, number: u64, bytes: &[u8], end: SegmentEnd) -> Result<()> {
    assert!(end.claimed <= end.offset, "a whole record claims only whole records before it");
    let path = segments.path(number);
    // Also for a full disk there is no going on: the log cannot be trusted before this is done.
    let io = &|error: std::io::Error| Error::Io { file: path.clone(), kind: error.kind(), message: error.to_string() };
    let file = segments.fs().open(&path, OpenMode::ReadWrite).map_err(io)?;
    // What is there already is written again byte by byte as it is, so that a crash in the middle changes nothing.
    let whole = if end.sealed { end.offset + SEAL_BYTES } else { end.offset };
    let suspect = usize::try_from(end.claimed).ok().zip(usize::try_from(whole).ok());
    let suspect = suspect.and_then(|(start, end)| bytes.get(start..end)).unwrap_or_default();
    if !suspect.is_empty() {
        file.write_at(suspect, end.claimed).and_then(|()| file.sync()).map_err(io)?;
    }
    if end.sealed {
        return Ok(());
    }
    let used = write_seal(&*file, number, end.offset, end.offset).map_err(io)?;
    let _ = file.set_len(used); // only to save space, as when the writer seals
    Ok(())
}

fn replay(
    number: u64,
    bytes: &[u8],
    end: SegmentEnd,
    visit: &mut dyn FnMut(RecordPosition, RawRecord<'_>) -> Result<()>,
) -> Result<()> {
    let mut offset = SEGMENT_HEADER_BYTES;
    while offset < end.offset {
        let record = record_at(number, bytes, offset).expect("find_end saw these records whole");
        visit(RecordPosition { segment: number, offset, bytes: record.bytes() }, record)?;
        offset += record.bytes();
    }
    assert_eq!(offset, end.offset, "records lie back to back");
    Ok(())
}

fn record_at(number: u64, bytes: &[u8], offset: u64) -> Option<RawRecord<'_>> {
    decode_record(number, bytes, usize::try_from(offset).ok()?, offset)
}

#[cfg(test)]
#[path = "recovery_test.rs"]
mod tests;
