//! Reading the log back at open.
//!
//! Segments are read in order up to the first place where no whole record follows: the end of the log. If that is the
//! seal of the newest segment, the last run (or an earlier recovery) ended cleanly. If not, a crash has torn the
//! log there, which is distinguished from damage by two things: no whole record behind that place, in that segment or a
//! later one, claims that it had been synced; and the file is as long as it was allocated. Segments behind the torn one
//! are possible: a segment is used before its predecessor is synced. Nothing in them was ever acknowledged as durable.
//!
//! The end is then made final before anything is replayed: what lies between the last claim of durability and the
//! end is written again (after a failed sync and a restart of the process alone, the page cache may show bytes that
//! never reached the disk and count as clean), later segments are sealed at their beginnings, newest first, a seal is
//! written behind the end, and all of it is synced. From then on the replayed records are durable, whatever their
//! writer was promised, and bytes behind the end are dead.

use super::format::{
    RawRecord, RecordKind, SEAL_BYTES, SEGMENT_HEADER_BYTES, WAL_DIR, check_segment_header, claim_at, decode_record,
    is_free_name, segment_number, segment_path,
};
use super::segments::{RecordPosition, Segments};
use super::writer::write_seal;
use crate::extent::read_extent;
use crate::{Error, Result};
use kontiki_env::fs::{Fs, OpenMode, list_if_there, read_all};
use std::path::{Path, PathBuf};

/// What recovery found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Recovered {
    /// The number of the next segment.
    pub(crate) next_number: u64,
    /// Bytes of records that were read.
    pub(crate) replayed_bytes: u64,
    /// Whether the newest segment had no seal: the last run ended without a close.
    pub(crate) unclean: bool,
    /// Where it ended then.
    pub(crate) end: Option<LogEnd>,
    /// Names of files that wait to become segments again.
    pub(crate) free: Vec<String>,
}

/// The end of a log that was not closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogEnd {
    pub(crate) file: PathBuf,
    pub(crate) offset: u64,
    /// Whether records that are not whole, or that follow one, are cut there. A power loss leaves that, as does damage
    /// to records that no later one claims durable.
    pub(crate) torn: bool,
}

/// How the records of a segment end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentEnd {
    /// Where the last whole record (the seal excluded) ends.
    pub(super) offset: u64,
    pub(super) sealed: bool,
    /// The furthest that any of the records, the seal included, claims to be durable; 0 if none claims anything.
    pub(super) claimed: u64,
}

/// The owner of data outside of the log that records refer to.
pub(crate) trait Beside {
    /// Whether all that this record refers to is there. Called, in order, for records that were never claimed durable,
    /// until the first for which it is not.
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

/// A segment's bytes and what they hold.
struct Scanned {
    number: u64,
    bytes: Vec<u8>,
    capacity: u64,
    end: SegmentEnd,
}

/// Reads all segments, oldest first, adds them to `segments`, and gives every commit and rewrite record to `visit`.
pub(crate) fn recover(
    segments: &Segments,
    beside: &dyn Beside,
    visit: &mut dyn FnMut(RecordPosition, RawRecord<'_>) -> Result<()>,
) -> Result<Recovered> {
    let (numbers, free) = list_segments(segments)?;
    let mut recovered = Recovered { next_number: 1, replayed_bytes: 0, unclean: false, end: None, free };
    let open = first_unproven(segments, &numbers)?;
    let (proven, rest) = numbers.split_at(open);
    for &number in proven {
        let scanned = scan(segments, number)?;
        if !scanned.end.sealed {
            let what = "a damaged or missing log record, and later log segments say that this place had been synced";
            let file = segments.path(number);
            return Err(Error::Corruption { file, offset: scanned.end.offset, what: what.into() });
        }
        take_in(segments, &scanned, &mut recovered, visit)?;
    }
    let mut rest = rest.iter().map(|&number| scan(segments, number)).collect::<Result<Vec<_>>>()?;
    for scanned in &mut rest {
        if !end_where_something_is_missing(scanned, beside)? {
            break;
        }
    }
    let torn = rest.iter().position(|scanned| !scanned.end.sealed);
    if let Some(torn) = torn {
        recovered.unclean = true;
        recovered.end = Some(check_torn(segments, &rest[torn..])?);
        for later in rest.iter_mut().skip(torn + 1).rev() {
            kill(segments, later)?;
        }
    }
    beside.make_durable()?;
    for scanned in &rest {
        make_end_final(segments, scanned)?;
        take_in(segments, scanned, &mut recovered, visit)?;
    }
    if numbers.is_empty() {
        beside.make_durable()?;
    }
    Ok(recovered)
}

/// Ends the segment at the first record, of those that were never claimed durable, whose referenced data is missing: a
/// crash has lost that, as it might have lost the record. Returns whether the log may continue behind the segment.
fn end_where_something_is_missing(scanned: &mut Scanned, beside: &dyn Beside) -> Result<bool> {
    let Scanned { number, bytes, end, .. } = scanned;
    let mut offset = end.claimed.max(SEGMENT_HEADER_BYTES);
    while offset < end.offset {
        let Some(record) = record_at(*number, bytes, offset) else { break };
        let length = record.bytes();
        if !beside.is_whole(record)? {
            *end = SegmentEnd { offset, sealed: false, ..*end };
        }
        offset += length;
    }
    Ok(end.sealed)
}

/// How many segments a later one claims to be durable as a whole: they are read one by one. The few others (one or two,
/// as a rule) are read together.
fn first_unproven(segments: &Segments, numbers: &[u64]) -> Result<usize> {
    for (i, &number) in numbers.iter().enumerate().rev() {
        if i == 0 || scan(segments, number)?.end.claimed > 0 {
            return Ok(i);
        }
    }
    Ok(0)
}

fn scan(segments: &Segments, number: u64) -> Result<Scanned> {
    let path = segments.path(number);
    let bytes = read_all(segments.fs(), &path).map_err(|error| Error::io(&path, &error))?;
    let capacity = check_segment_header(&path, number, &bytes)?;
    let end = find_end(number, &bytes);
    Ok(Scanned { number, bytes, capacity, end })
}

/// Refuses the log of the database in `dir` if a segment is missing that existed, according to `EXTENT`.
pub(crate) fn refuse_missing_segments(fs: &dyn Fs, dir: &Path) -> Result<()> {
    let Some(reach) = read_extent(fs, dir)? else { return Ok(()) };
    let directory = &dir.join(WAL_DIR);
    let names = list_if_there(fs, directory).map_err(|error| Error::io(directory, &error))?;
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| segment_number(name)).collect();
    numbers.sort_unstable();
    reach.check_segments(&numbers, |number| segment_path(directory, number))
}

/// Adds a segment whose end is final, and replays it.
fn take_in(
    segments: &Segments,
    scanned: &Scanned,
    recovered: &mut Recovered,
    visit: &mut dyn FnMut(RecordPosition, RawRecord<'_>) -> Result<()>,
) -> Result<()> {
    let Scanned { number, bytes, end, .. } = scanned;
    let path = segments.path(*number);
    let file = segments.fs().open(&path, OpenMode::Read).map_err(|error| Error::io(&path, &error))?;
    segments.add(*number, file, end.offset + SEAL_BYTES, None);
    replay(*number, bytes, *end, visit)?;
    recovered.replayed_bytes += end.offset - SEGMENT_HEADER_BYTES;
    recovered.next_number = number + 1;
    Ok(())
}

/// The numbers of the segments, which must be consecutive, and the files that wait to become segments again. Unfinished
/// new segments are removed on the way.
fn list_segments(segments: &Segments) -> Result<(Vec<u64>, Vec<String>)> {
    let (fs, directory) = (segments.fs(), segments.directory());
    let names = fs.list(directory).map_err(|error| Error::io(directory, &error))?;
    let (mut numbers, mut free) = (Vec::new(), Vec::new());
    for name in names {
        if is_free_name(&name) {
            free.push(name);
        } else if let Some(number) = segment_number(&name) {
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
        // The last run may have ended between a deletion and its sync. The next deletion must not become durable
        // without it: that would look like a missing segment. Names that are new become durable with it.
        let io = |error: std::io::Error| Error::Io {
            file: directory.to_path_buf(),
            kind: error.kind(),
            message: error.to_string(),
        };
        fs.sync_dir(directory).map_err(io)?;
    }
    Ok((numbers, free))
}

/// Walks the whole records from the start.
pub(super) fn find_end(number: u64, bytes: &[u8]) -> SegmentEnd {
    let mut end = SegmentEnd { offset: SEGMENT_HEADER_BYTES, sealed: false, claimed: 0 };
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

/// Refuses a log whose end was not caused by a crash. The first segment is the one without a seal.
fn check_torn(segments: &Segments, torn_and_later: &[Scanned]) -> Result<LogEnd> {
    let (torn, later) = torn_and_later.split_first().expect("the caller has found a segment without a seal");
    let (path, offset) = (segments.path(torn.number), torn.end.offset);
    let corrupt = |what: String| Err(Error::Corruption { file: path.clone(), offset, what });
    let trace = header_from(torn, offset, |_| true);
    if let Some(first) = trace
        && let Some(at) = header_from(torn, first.max(offset + 1), |claim| claim > offset)
    {
        return corrupt(format!("a damaged log record; the record at {at} says that this place had been synced"));
    }
    let bytes = torn.bytes.len() as u64;
    if bytes < torn.capacity {
        // A segment is cut behind its seal, and nowhere else.
        return corrupt(match bytes == offset + SEAL_BYTES {
            true => "a damaged log record: the seal that the segment was cut behind".to_string(),
            false => format!("the log segment has {bytes} bytes of the {} allocated", torn.capacity),
        });
    }
    for scanned in later {
        let claims = scanned.end.claimed > 0
            || (!scanned.end.sealed && header_from(scanned, scanned.end.offset + 1, |claim| claim > 0).is_some());
        if claims {
            let number = scanned.number;
            return corrupt(format!("a damaged log record; log segment {number} says that this place had been synced"));
        }
    }
    let torn = trace.is_some() || later.iter().any(|scanned| scanned.end.offset > SEGMENT_HEADER_BYTES);
    Ok(LogEnd { file: path, offset, torn })
}

/// The first whole record header at `first` or behind it in a segment, with a claim of the kind. The payload may be
/// damaged: a header is enough.
fn header_from(scanned: &Scanned, first: u64, is_relevant: impl Fn(u64) -> bool) -> Option<u64> {
    (first..scanned.bytes.len() as u64)
        .find(|&at| claim_at(scanned.number, &scanned.bytes, at).is_some_and(&is_relevant))
}

/// Seals a segment behind the torn one at its beginning, durably. The seal claims nothing, so a crash before the torn
/// one is sealed leaves a log that is torn in the same place.
fn kill(segments: &Segments, scanned: &mut Scanned) -> Result<()> {
    let path = segments.path(scanned.number);
    let io = |error: std::io::Error| Error::Io { file: path.clone(), kind: error.kind(), message: error.to_string() };
    let file = segments.fs().open(&path, OpenMode::ReadWrite).map_err(io)?;
    write_seal(&*file, scanned.number, SEGMENT_HEADER_BYTES, 0).and_then(|_| file.sync()).map_err(io)?;
    let _ = file.set_len(SEGMENT_HEADER_BYTES + SEAL_BYTES); // only to save space
    scanned.end = SegmentEnd { offset: SEGMENT_HEADER_BYTES, sealed: true, claimed: 0 };
    scanned.bytes.truncate(SEGMENT_HEADER_BYTES as usize);
    Ok(())
}

/// See the head of this file. Afterwards the segment is sealed and everything up to its seal is durable. A seal that
/// exists already may be as unsynced as what is before it.
fn make_end_final(segments: &Segments, scanned: &Scanned) -> Result<()> {
    let Scanned { number, bytes, end, .. } = scanned;
    assert!(end.claimed <= end.offset, "a whole record claims only whole records before it");
    let path = segments.path(*number);
    // On a full disk the open fails, too: the log cannot be trusted before this is done.
    let io = &|error: std::io::Error| Error::Io { file: path.clone(), kind: error.kind(), message: error.to_string() };
    let file = segments.fs().open(&path, OpenMode::ReadWrite).map_err(io)?;
    // What is there already is written again byte by byte as it is, so that a crash in the middle changes nothing.
    let whole = if end.sealed { end.offset + SEAL_BYTES } else { end.offset };
    let start = end.claimed.max(SEGMENT_HEADER_BYTES);
    let suspect = usize::try_from(start).ok().zip(usize::try_from(whole).ok());
    let suspect = suspect.and_then(|(start, end)| bytes.get(start..end)).unwrap_or_default();
    if !suspect.is_empty() {
        file.write_at(suspect, start).and_then(|()| file.sync()).map_err(io)?;
    }
    if end.sealed {
        return Ok(());
    }
    let used = write_seal(&*file, *number, end.offset, end.offset).map_err(io)?;
    file.sync().map_err(io)?;
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
