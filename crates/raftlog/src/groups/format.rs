//! Bytes of the file of one region's log. docs/formats/raft-log-file.md describes them for readers of the files.
//!
//! Header, 40 bytes: magic (8), version (4), checksum of the other 36 bytes (4), region (8), number of the file (8),
//! the offset through which the file was durable when it got its name (8).
//!
//! Record, at a multiple of 8: checksum (4), bytes of the body (4), the offset through which the file was durable when
//! the record was written (8), body ([`crate::ops`]), zeros to the next multiple of 8. The checksum covers region,
//! number of the file and offset of the record, too, so that no bytes of another file or place pass. A body without
//! bytes only makes the claim. Numbers are little-endian; checksums are CRC-32.

use kontiki_engine::StreamId;
use kontiki_env::codec::{checksum32, get_u32, get_u64, put_u32, put_u64};
use std::ops::Range;

const MAGIC: [u8; 8] = *b"KTKRFLOG";
pub const VERSION: u32 = 1;
/// Bytes of the header.
pub const HEADER_BYTES: u64 = 40;
/// Bytes of a record before its body.
pub const RECORD_BYTES: usize = 16;
/// Records begin at multiples of this, so that they are found behind a bad one.
const ALIGNMENT: usize = 8;
const SUFFIX: &str = ".log";
/// Of files that are not complete.
pub const TEMPORARY: &str = ".tmp";

/// Which file: its region, and how often the region's log was written anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileId {
    pub region: StreamId,
    pub number: u64,
}

impl FileId {
    pub fn name(self) -> String {
        format!("{:020}-{:010}{SUFFIX}", self.region.0, self.number)
    }

    pub fn parse(name: &str) -> Option<FileId> {
        let (region, number) = name.strip_suffix(SUFFIX)?.split_once('-')?;
        let id = FileId { region: StreamId(region.parse().ok()?), number: number.parse().ok()? };
        (id.name() == name).then_some(id)
    }
}

/// Why a header is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadHeader {
    Damaged,
    Version(u32),
}

pub fn encode_header(id: FileId, durable: u64) -> Vec<u8> {
    encode_header_of(VERSION, id, durable)
}

fn encode_header_of(version: u32, id: FileId, durable: u64) -> Vec<u8> {
    let mut rest = Vec::with_capacity(HEADER_BYTES as usize);
    put_u64(&mut rest, id.region.0);
    put_u64(&mut rest, id.number);
    put_u64(&mut rest, durable);
    let mut header = MAGIC.to_vec();
    put_u32(&mut header, version);
    let checksum = checksum32(&[&header, &rest]);
    put_u32(&mut header, checksum);
    header.extend(rest);
    header
}

/// Through which offset the file was durable when it got its name.
pub fn decode_header(file: &[u8], id: FileId) -> Result<u64, BadHeader> {
    let header = file.get(..HEADER_BYTES as usize).filter(|header| header.starts_with(&MAGIC));
    let mut rest = header.ok_or(BadHeader::Damaged)?.get(8..).unwrap_or_default();
    let mut number = || get_u32(&mut rest).map_err(|_| BadHeader::Damaged);
    let (version, checksum) = (number()?, number()?);
    // First, so that a damaged version is not taken for a newer one: the place of these stays.
    if checksum != checksum32(&[file.get(..12).unwrap_or_default(), rest]) {
        return Err(BadHeader::Damaged);
    }
    if version != VERSION {
        return Err(BadHeader::Version(version));
    }
    let mut number = || get_u64(&mut rest).map_err(|_| BadHeader::Damaged);
    let (region, file_number, durable) = (number()?, number()?, number()?);
    let is_this = (StreamId(region), file_number) == (id.region, id.number);
    if is_this && durable >= HEADER_BYTES { Ok(durable) } else { Err(BadHeader::Damaged) }
}

/// A whole record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Through which offset the file was durable.
    pub durable: u64,
    /// Of the bytes that it was read from.
    pub body: Range<usize>,
}

fn checksum(id: FileId, offset: u64, covered: &[u8]) -> u32 {
    let place = [id.region.0.to_le_bytes(), id.number.to_le_bytes(), offset.to_le_bytes()].concat();
    checksum32(&[&place, covered])
}

/// Bytes that a record with this body takes.
pub fn record_bytes(body_bytes: usize) -> usize {
    (RECORD_BYTES + body_bytes).next_multiple_of(ALIGNMENT)
}

/// The bytes of a record at `offset`.
pub fn encode_record(id: FileId, offset: u64, durable: u64, body: &[u8]) -> Vec<u8> {
    let bytes = u32::try_from(body.len()).expect("a commit of one region is far below 4 GiB");
    let mut record = Vec::with_capacity(record_bytes(body.len()));
    put_u32(&mut record, 0);
    put_u32(&mut record, bytes);
    put_u64(&mut record, durable);
    record.extend_from_slice(body);
    let checksum = checksum(id, offset, record.get(4..).unwrap_or_default());
    record.splice(..4, checksum.to_le_bytes());
    record.resize(record_bytes(body.len()), 0);
    record
}

/// The record that begins at `at` in `bytes`, which is at `offset` in the file; `None` if there is no whole one.
pub fn decode_record(bytes: &[u8], at: usize, id: FileId, offset: u64) -> Option<Record> {
    let mut rest = bytes.get(at..at.checked_add(RECORD_BYTES)?)?;
    let (stated, body_bytes, durable) = (get_u32(&mut rest).ok()?, get_u32(&mut rest).ok()?, get_u64(&mut rest).ok()?);
    let begin = at + RECORD_BYTES;
    let body = begin..begin.checked_add(body_bytes as usize)?;
    let covered = bytes.get(at + 4..body.end)?;
    // Zeros are no record; and none claims more than what was before it.
    let is_possible = durable >= HEADER_BYTES && durable <= offset;
    (is_possible && stated == checksum(id, offset, covered)).then_some(Record { durable, body })
}

/// The largest claim of whole records behind a bad one at `at`.
pub fn claim_behind(file: &[u8], at: usize, id: FileId) -> u64 {
    let mut claim = 0;
    let mut at = at + ALIGNMENT;
    while at + RECORD_BYTES <= file.len() {
        match decode_record(file, at, id, at as u64) {
            Some(record) => {
                claim = claim.max(record.durable);
                at += record_bytes(record.body.len());
            }
            None => at += ALIGNMENT,
        }
    }
    claim
}

#[cfg(test)]
#[path = "format_test.rs"]
mod tests;
