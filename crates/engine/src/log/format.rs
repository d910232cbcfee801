//! The bytes of a log segment.
//!
//! A segment is a file `wal/NNNNNN.wal` (the number has at least six decimal digits): one segment header, then
//! records back to back, then the unused rest of the preallocated file. All integers are little-endian.
//!
//! Segment header, 32 bytes. Every format version keeps these 32 bytes as they are, so that any version can distinguish
//! a damaged header from a newer one:
//!
//! | offset | width | field |
//! |---|---|---|
//! | 0 | 8 | magic `KTKWALOG` |
//! | 8 | 4 | format version, now 1 |
//! | 12 | 8 | segment number, equal to the file name's |
//! | 20 | 8 | capacity: the length the file was allocated with |
//! | 28 | 4 | CRC-32 of bytes 0 to 27 |
//!
//! Record, 25 bytes of header and the payload:
//!
//! | offset | width | field |
//! |---|---|---|
//! | 0 | 4 | CRC-32 of: segment number (8 bytes), the record's offset in the segment (8 bytes), bytes 4 to 24 |
//! | 4 | 4 | CRC-32 of the payload |
//! | 8 | 4 | payload length |
//! | 12 | 1 | kind: 1 commit, 2 rewrite, 3 seal, 4 ingest |
//! | 13 | 4 | durable offset: 0, or: the bytes `[0, durable offset)` of this segment, and all older segments, were synced when this record was written |
//! | 17 | 8 | sequence number of a commit's batch, or of an ingest; 0 if there is none |
//! | 25 | length | payload, see `record.rs` and `ingested.rs` |
//!
//! The header's checksum covers the segment number and the offset, so a record is valid in one place only: bytes of an
//! earlier use of the file, or of a record that was copied along inside a value, never pass. The payload has its own
//! checksum, so that it is computed before the record's place and number are known, outside of the lock that
//! assigns them.

use crate::{Error, Result};
use kontiki_env::codec::{checksum32, get_bytes, get_u8, get_u32, get_u64, put_u32, put_u64};
use std::path::{Path, PathBuf};

/// The directory of log segments within a database's directory.
pub(crate) const WAL_DIR: &str = "wal";
/// Bytes of the segment header: where the first record starts.
pub(crate) const SEGMENT_HEADER_BYTES: u64 = 32;
/// Bytes of a record header.
pub(crate) const RECORD_HEADER_BYTES: u64 = 25;
/// Largest segment: offsets in it are recorded in 32 bits.
pub(crate) const SEGMENT_BYTES_MAX: u64 = u32::MAX as u64;
/// A seal is a bare record header. Each append leaves space for one, so that sealing never needs a new segment.
pub(crate) const SEAL_BYTES: u64 = RECORD_HEADER_BYTES;
/// The newest format this code reads, and the one it writes.
pub(crate) const FORMAT_VERSION: u32 = 1;

const MAGIC: &[u8; 8] = b"KTKWALOG";

/// The kind of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RecordKind {
    /// One commit: a batch with its sequence number, and stream operations.
    Commit,
    /// What streams still need of an old segment, written again at the tail.
    Rewrite,
    /// The end of a segment that was completed. Nothing behind it counts.
    Seal,
    /// Tables that were built outside were added by the manifest; their place in the order of commits.
    Ingest,
}

impl RecordKind {
    fn from_byte(byte: u8) -> Option<RecordKind> {
        match byte {
            1 => Some(RecordKind::Commit),
            2 => Some(RecordKind::Rewrite),
            3 => Some(RecordKind::Seal),
            4 => Some(RecordKind::Ingest),
            _ => None,
        }
    }

    fn to_byte(self) -> u8 {
        match self {
            RecordKind::Commit => 1,
            RecordKind::Rewrite => 2,
            RecordKind::Seal => 3,
            RecordKind::Ingest => 4,
        }
    }
}

/// A whole record, checked, borrowed from the segment's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RawRecord<'a> {
    pub(crate) kind: RecordKind,
    pub(crate) durable_offset: u64,
    /// The number of a commit's batch or of an ingest, 0 if it has none.
    pub(crate) sequence: u64,
    pub(crate) payload: &'a [u8],
}

impl RawRecord<'_> {
    /// Bytes that the record takes in the segment, header included.
    pub(crate) fn bytes(&self) -> u64 {
        RECORD_HEADER_BYTES + self.payload.len() as u64
    }
}

/// The name of a segment's file.
pub(crate) fn segment_name(number: u64) -> String {
    format!("{number:06}.wal")
}

/// The number in a segment's file name; `None` if it is not one that [`segment_name`] makes.
pub(crate) fn segment_number(name: &str) -> Option<u64> {
    let number: u64 = name.strip_suffix(".wal")?.parse().ok()?;
    (segment_name(number) == name).then_some(number)
}

/// Encodes a segment header.
pub(crate) fn encode_segment_header(number: u64, capacity: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(SEGMENT_HEADER_BYTES as usize);
    out.extend_from_slice(MAGIC);
    put_u32(&mut out, FORMAT_VERSION);
    put_u64(&mut out, number);
    put_u64(&mut out, capacity);
    let checksum = checksum32(&[&out]);
    put_u32(&mut out, checksum);
    assert_eq!(out.len() as u64, SEGMENT_HEADER_BYTES, "the header's width is part of the format");
    out
}

/// Checks a segment header and returns the capacity. Headers are synced before the file gets its name, so a bad one is
/// never a torn write.
pub(crate) fn check_segment_header(file: &Path, number: u64, bytes: &[u8]) -> Result<u64> {
    let corrupt =
        |offset: u64, what: &str| Error::Corruption { file: file.to_path_buf(), offset, what: what.to_string() };
    let mut input = bytes;
    let header = get_bytes(&mut input, SEGMENT_HEADER_BYTES as usize)
        .map_err(|_| corrupt(0, "the file is shorter than a log segment's header"))?;
    let (covered, mut checksum) = header.split_at(SEGMENT_HEADER_BYTES as usize - 4);
    if !covered.starts_with(MAGIC) {
        return Err(corrupt(0, "this is not a log segment (bad magic)"));
    }
    if get_u32(&mut checksum) != Ok(checksum32(&[covered])) {
        return Err(corrupt(0, "bad checksum of the log segment's header"));
    }
    let mut fields = covered.get(MAGIC.len()..).unwrap_or_default();
    let (version, recorded) = (get_u32(&mut fields), get_u64(&mut fields));
    if version != Ok(FORMAT_VERSION) {
        let version = version.unwrap_or(0);
        let what = format!(
            "log segment format {version}; this version reads up to {FORMAT_VERSION}: open the directory with a \
             newer kontiki"
        );
        return Err(Error::UnsupportedFormat { file: file.to_path_buf(), what });
    }
    if recorded != Ok(number) {
        return Err(corrupt(12, "the header names another segment number than the file's name"));
    }
    get_u64(&mut fields).map_err(|_| corrupt(20, "the header ends early"))
}

/// The content of a record's header, except its place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RecordHeader {
    pub(crate) kind: RecordKind,
    pub(crate) durable_offset: u64,
    pub(crate) sequence: u64,
    pub(crate) payload_bytes: u64,
    pub(crate) payload_checksum: u32,
}

impl RecordHeader {
    /// The header of a seal.
    pub(super) fn seal(durable_offset: u64) -> RecordHeader {
        let payload_checksum = checksum32(&[]);
        RecordHeader { kind: RecordKind::Seal, durable_offset, sequence: 0, payload_bytes: 0, payload_checksum }
    }

    /// The bytes of the header of a record that will lie at `offset` of segment `number`.
    pub(super) fn encode(&self, number: u64, offset: u64) -> [u8; RECORD_HEADER_BYTES as usize] {
        assert!(self.durable_offset <= offset, "nothing behind a record is durable when it is written");
        assert!(offset >= SEGMENT_HEADER_BYTES, "records start behind the segment header");
        let length = u32::try_from(self.payload_bytes).expect("commits are bounded far below 4 GiB (COMMIT_BYTES_MAX)");
        let durable_offset = u32::try_from(self.durable_offset).expect("segments are bounded (SEGMENT_BYTES_MAX)");
        let mut out = [0; RECORD_HEADER_BYTES as usize];
        out[4..8].copy_from_slice(&self.payload_checksum.to_le_bytes());
        out[8..12].copy_from_slice(&length.to_le_bytes());
        out[12] = self.kind.to_byte();
        out[13..17].copy_from_slice(&durable_offset.to_le_bytes());
        out[17..].copy_from_slice(&self.sequence.to_le_bytes());
        let checksum = header_checksum(number, offset, &out[4..]);
        out[..4].copy_from_slice(&checksum.to_le_bytes());
        out
    }
}

/// Decodes the record of segment `number` that lies at its `offset`; `bytes[at..]` starts with it. `None` if what
/// lies there is not a whole record of this place.
pub(crate) fn decode_record(number: u64, bytes: &[u8], at: usize, offset: u64) -> Option<RawRecord<'_>> {
    let record = bytes.get(at..)?;
    let (header, payload) = record.split_at_checked(RECORD_HEADER_BYTES as usize)?;
    let mut input = header;
    let checksum = get_u32(&mut input).ok()?;
    let payload_checksum = get_u32(&mut input).ok()?;
    let length = get_u32(&mut input).ok()?;
    let kind = RecordKind::from_byte(get_u8(&mut input).ok()?)?;
    let durable_offset = u64::from(get_u32(&mut input).ok()?);
    let sequence = get_u64(&mut input).ok()?;
    if durable_offset > offset || (kind == RecordKind::Seal && length != 0) {
        return None;
    }
    if header_checksum(number, offset, header.get(4..)?) != checksum {
        return None;
    }
    let payload = payload.get(..usize::try_from(length).ok()?)?;
    let record = RawRecord { kind, durable_offset, sequence, payload };
    (checksum32(&[payload]) == payload_checksum).then_some(record)
}

/// Bytes of the record whose header `bytes` begins with, according to the header, which may be damaged. `None` if there
/// is no whole header.
pub(crate) fn record_bytes(bytes: &[u8]) -> Option<u64> {
    let length = *bytes.get(..RECORD_HEADER_BYTES as usize)?.get(8..)?.first_chunk::<4>()?;
    Some(RECORD_HEADER_BYTES + u64::from(u32::from_le_bytes(length)))
}

/// What the record at `offset` claims to be durable, if there is the whole header of one; its payload may be damaged.
pub(super) fn claim_at(number: u64, bytes: &[u8], offset: u64) -> Option<u64> {
    let header = bytes.get(usize::try_from(offset).ok()?..)?.get(..RECORD_HEADER_BYTES as usize)?;
    // The cheap checks are first: they exclude nearly everything, so few checksums are computed.
    RecordKind::from_byte(*header.get(12)?)?;
    let claim = u64::from(u32::from_le_bytes(*header.get(13..)?.first_chunk::<4>()?));
    if claim > offset {
        return None;
    }
    let checksum = u32::from_le_bytes(*header.first_chunk::<4>()?);
    (header_checksum(number, offset, header.get(4..)?) == checksum).then_some(claim)
}

fn header_checksum(number: u64, offset: u64, covered: &[u8]) -> u32 {
    debug_assert_eq!(covered.len() as u64, RECORD_HEADER_BYTES - 4);
    checksum32(&[&number.to_le_bytes(), &offset.to_le_bytes(), covered])
}

/// Appends a whole record.
#[cfg(test)]
pub(crate) fn encode_record(
    out: &mut Vec<u8>,
    number: u64,
    offset: u64,
    kind: RecordKind,
    durable_offset: u64,
    sequence: u64,
    payload: &[u8],
) {
    let payload_bytes = payload.len() as u64;
    let header =
        RecordHeader { kind, durable_offset, sequence, payload_bytes, payload_checksum: checksum32(&[payload]) };
    out.extend_from_slice(&header.encode(number, offset));
    out.extend_from_slice(payload);
}

/// The name of a file that was a segment and waits to become one again.
pub(crate) fn free_name(number: u64) -> String {
    format!("{}.free", segment_name(number))
}

/// Whether a name is one that [`free_name`] makes.
pub(crate) fn is_free_name(name: &str) -> bool {
    name.strip_suffix(".free").and_then(segment_number).is_some()
}

/// A file of the log.
pub(crate) fn segment_path(directory: &Path, number: u64) -> PathBuf {
    directory.join(segment_name(number))
}

#[cfg(test)]
#[path = "format_test.rs"]
mod tests;
