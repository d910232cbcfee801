//! The bytes of a value file.
//!
//! A value file is `vlog/NNNNNN.vlog` (the number has at least six decimal digits): one file header, then records,
//! each at a multiple of 8, then the unused rest of the preallocated file, or, in a relocated file, an index
//! (`index.rs`). All integers are little-endian.
//!
//! File header, 32 bytes. Every format version keeps these 32 bytes as they are, so that any version can distinguish a
//! damaged header from a newer one:
//!
//! | offset | width | field |
//! |---|---|---|
//! | 0 | 8 | magic `KTKVALUE` |
//! | 8 | 4 | format version, now 1 |
//! | 12 | 8 | file number, equal to the file name's |
//! | 20 | 4 | kind: 1 segment (values in the order they were written), 2 relocated (values of older segments, and an index) |
//! | 24 | 4 | 0 |
//! | 28 | 4 | CRC-32 of bytes 0 to 27 |
//!
//! Record, 24 bytes of header, value, key, and zeros up to a multiple of 8:
//!
//! | offset | width | field |
//! |---|---|---|
//! | 0 | 4 | CRC-32 of: file number (8 bytes), the record's offset in the file (8 bytes), bytes 4 to 23 |
//! | 4 | 4 | CRC-32 of the value |
//! | 8 | 4 | value length |
//! | 12 | 3 | key length |
//! | 15 | 1 | kind: 1 value, 2 skip |
//! | 16 | 4 | column family |
//! | 20 | 4 | CRC-32 of the key |
//! | 24 | value length | value |
//! | | key length | key |
//!
//! A skip marks that the header and the next *value length* bytes hold nothing: the place of a write that was given up,
//! or that a crash has torn. Its other fields are 0.
//!
//! The header has its own checksum that covers the place, so headers alone lead through a file, whatever the state of
//! a value; and bytes of an earlier use of the disk, or a record copied along inside a value, never pass for a record.
//! The other checksums do not cover the place: a relocation copies value and key as they are. The key comes last, since
//! a reader with a pointer knows the value's length and needs one read.

use crate::types::ValuePointer;
use crate::{Error, Family, KEY_BYTES_MAX, Result, VALUE_BYTES_MAX};
use kontiki_env::codec::{checksum32, get_bytes, get_u32, get_u64, put_u32, put_u64};
use std::path::{Path, PathBuf};

/// Name of the directory of value files within a database's directory.
pub const VALUES_DIR: &str = "vlog";
/// Bytes of the file header: where the first record starts.
pub(crate) const FILE_HEADER_BYTES: u64 = 32;
/// Bytes of a record's header.
pub(crate) const RECORD_HEADER_BYTES: u64 = 24;
/// Records lie at multiples of this, so that a recovery which searches for one has few offsets to check.
pub(crate) const RECORD_ALIGNMENT: u64 = 8;
/// The newest format this code reads, and the one it writes.
pub(crate) const FORMAT_VERSION: u32 = 1;

const MAGIC: &[u8; 8] = b"KTKVALUE";
const RECORD_VALUE: u8 = 1;
const RECORD_SKIP: u8 = 2;

/// The kind of a value file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueFileKind {
    /// Values in the order they were written; pointers name this file and the place in it.
    Segment,
    /// Values that were live when older segments were relocated; an index leads from the pointers to them.
    Relocated,
}

impl ValueFileKind {
    fn from_number(number: u32) -> Option<ValueFileKind> {
        match number {
            1 => Some(ValueFileKind::Segment),
            2 => Some(ValueFileKind::Relocated),
            _ => None,
        }
    }

    fn to_number(self) -> u32 {
        match self {
            ValueFileKind::Segment => 1,
            ValueFileKind::Relocated => 2,
        }
    }
}

/// The path of a value file in the directory of value files.
pub fn value_file_path(directory: &Path, number: u64) -> PathBuf {
    directory.join(value_file_name(number))
}

/// The name of a value file.
pub(crate) fn value_file_name(number: u64) -> String {
    format!("{number:06}.vlog")
}

/// The number in a value file's name; `None` if it is not one that a value file can have.
pub fn parse_value_file_name(name: &str) -> Option<u64> {
    let number: u64 = name.strip_suffix(".vlog")?.parse().ok()?;
    (value_file_name(number) == name).then_some(number)
}

/// Encodes a file header.
pub(crate) fn encode_file_header(number: u64, kind: ValueFileKind) -> Vec<u8> {
    let mut out = Vec::with_capacity(FILE_HEADER_BYTES as usize);
    out.extend_from_slice(MAGIC);
    put_u32(&mut out, FORMAT_VERSION);
    put_u64(&mut out, number);
    put_u32(&mut out, kind.to_number());
    put_u32(&mut out, 0);
    let checksum = checksum32(&[&out]);
    put_u32(&mut out, checksum);
    assert_eq!(out.len() as u64, FILE_HEADER_BYTES, "the header's width is part of the format");
    out
}

/// Checks a file header. It is synced before the manifest names the file, so a bad one is never a torn write.
pub(crate) fn check_file_header(path: &Path, number: u64, bytes: &[u8]) -> Result<ValueFileKind> {
    let corrupt =
        |offset: u64, what: &str| Error::Corruption { file: path.to_path_buf(), offset, what: what.to_string() };
    let mut input = bytes;
    let header = get_bytes(&mut input, FILE_HEADER_BYTES as usize)
        .map_err(|_| corrupt(0, "the file is shorter than a value file's header"))?;
    let (covered, mut checksum) = header.split_at(FILE_HEADER_BYTES as usize - 4);
    if !covered.starts_with(MAGIC) {
        return Err(corrupt(0, "this is not a value file (bad magic)"));
    }
    if get_u32(&mut checksum) != Ok(checksum32(&[covered])) {
        return Err(corrupt(0, "bad checksum of the value file's header"));
    }
    let mut fields = covered.get(MAGIC.len()..).unwrap_or_default();
    let (version, recorded, kind) = (get_u32(&mut fields), get_u64(&mut fields), get_u32(&mut fields));
    if version != Ok(FORMAT_VERSION) {
        let version = version.unwrap_or(0);
        let what = format!(
            "value file format {version}; this version reads up to {FORMAT_VERSION}: open the directory with a newer \
             kontiki"
        );
        return Err(Error::UnsupportedFormat { file: path.to_path_buf(), what });
    }
    if recorded != Ok(number) {
        return Err(corrupt(12, "the header names another value file than the file's name"));
    }
    kind.ok().and_then(ValueFileKind::from_number).ok_or_else(|| corrupt(20, "a value file of unknown kind"))
}

/// A record's header, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ValueRecordHeader {
    /// A value with its key.
    Value(ValueHeader),
    /// Nothing, for so many bytes behind the header.
    Skip { bytes: u32 },
}

/// The header of a value's record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ValueHeader {
    pub(crate) family: Family,
    pub(crate) value_bytes: u32,
    pub(crate) key_bytes: u32,
    pub(crate) value_checksum: u32,
    pub(crate) key_checksum: u32,
}

impl ValueHeader {
    /// The header of a key and value.
    pub(crate) fn new(family: Family, key: &[u8], value: &[u8]) -> ValueHeader {
        assert!(key.len() <= KEY_BYTES_MAX && value.len() <= VALUE_BYTES_MAX, "batches are validated");
        ValueHeader {
            family,
            value_bytes: value.len() as u32,
            key_bytes: key.len() as u32,
            value_checksum: checksum32(&[value]),
            key_checksum: checksum32(&[key]),
        }
    }

    /// The distance from this record to the next.
    pub(crate) fn stride(self) -> u64 {
        record_stride(self.key_bytes as usize, self.value_bytes as usize)
    }
}

impl ValueRecordHeader {
    /// The distance from this record to the next.
    pub(crate) fn stride(self) -> u64 {
        match self {
            ValueRecordHeader::Value(header) => header.stride(),
            ValueRecordHeader::Skip { bytes } => RECORD_HEADER_BYTES + u64::from(bytes),
        }
    }
}

/// Bytes that the record of a key and value takes, with the zeros behind it.
pub(crate) fn record_stride(key_bytes: usize, value_bytes: usize) -> u64 {
    (RECORD_HEADER_BYTES + key_bytes as u64 + value_bytes as u64).next_multiple_of(RECORD_ALIGNMENT)
}

/// Appends a value's record, with the zeros behind it, that will lie at `offset` of value file `number`.
pub(crate) fn encode_record(out: &mut Vec<u8>, number: u64, offset: u64, family: Family, key: &[u8], value: &[u8]) {
    let start = out.len();
    encode_copy(out, number, offset, ValueHeader::new(family, key, value), value, key);
    debug_assert_eq!((out.len() - start) as u64, record_stride(key.len(), value.len()));
}

/// As [`encode_record`], with checksums of value and key that are known.
pub(crate) fn encode_copy(out: &mut Vec<u8>, number: u64, offset: u64, header: ValueHeader, value: &[u8], key: &[u8]) {
    let start = out.len();
    encode_header(out, number, offset, ValueRecordHeader::Value(header));
    out.extend_from_slice(value);
    out.extend_from_slice(key);
    let length = (out.len() - start).next_multiple_of(RECORD_ALIGNMENT as usize);
    out.resize(start + length, 0);
}

/// Appends a record's header that will lie at `offset` of value file `number`.
pub(crate) fn encode_header(out: &mut Vec<u8>, number: u64, offset: u64, header: ValueRecordHeader) {
    assert!(offset >= FILE_HEADER_BYTES && offset.is_multiple_of(RECORD_ALIGNMENT), "a record's place");
    let start = out.len();
    let (kind, header) = match header {
        ValueRecordHeader::Value(header) => (RECORD_VALUE, header),
        ValueRecordHeader::Skip { bytes } => {
            let nothing =
                ValueHeader { family: Family(0), value_bytes: bytes, key_bytes: 0, value_checksum: 0, key_checksum: 0 };
            (RECORD_SKIP, nothing)
        }
    };
    assert!(header.key_bytes < 1 << 24, "a key's length has three bytes");
    put_u32(out, 0);
    put_u32(out, header.value_checksum);
    put_u32(out, header.value_bytes);
    put_u32(out, header.key_bytes | u32::from(kind) << 24);
    put_u32(out, header.family.0);
    put_u32(out, header.key_checksum);
    let header = &mut out[start..];
    let checksum = checksum32(&[&number.to_le_bytes(), &offset.to_le_bytes(), &header[4..]]);
    header[..4].copy_from_slice(&checksum.to_le_bytes());
    assert_eq!(header.len() as u64, RECORD_HEADER_BYTES, "the header's width is part of the format");
}

/// Decodes the record header that `bytes` start with and that lies at `offset` of value file `number`; `None` if it is
/// none of this place.
pub(crate) fn decode_header(number: u64, offset: u64, bytes: &[u8]) -> Option<ValueRecordHeader> {
    let header = bytes.get(..RECORD_HEADER_BYTES as usize)?;
    let kind = *header.get(15)?;
    if !matches!(kind, RECORD_VALUE | RECORD_SKIP) {
        return None; // The cheap check is first: most offsets that a recovery checks hold zeros.
    }
    let mut input = header;
    let checksum = get_u32(&mut input).ok()?;
    if checksum32(&[&number.to_le_bytes(), &offset.to_le_bytes(), input]) != checksum {
        return None;
    }
    let value_checksum = get_u32(&mut input).ok()?;
    let value_bytes = get_u32(&mut input).ok()?;
    let key_bytes = get_u32(&mut input).ok()? & 0xff_ffff;
    let family = Family(get_u32(&mut input).ok()?);
    let key_checksum = get_u32(&mut input).ok()?;
    if kind == RECORD_SKIP {
        return u64::from(value_bytes)
            .is_multiple_of(RECORD_ALIGNMENT)
            .then_some(ValueRecordHeader::Skip { bytes: value_bytes });
    }
    let plausible = key_bytes as usize <= KEY_BYTES_MAX && value_bytes as usize <= VALUE_BYTES_MAX;
    let header = ValueHeader { family, value_bytes, key_bytes, value_checksum, key_checksum };
    plausible.then_some(ValueRecordHeader::Value(header))
}

/// Decodes the record that `bytes` are, without the zeros behind it, which lies at `offset` of value file `number`, and
/// checks all of it. Returns header, value and key.
pub(crate) fn decode_record(number: u64, offset: u64, bytes: &[u8]) -> Option<(ValueHeader, &[u8], &[u8])> {
    let ValueRecordHeader::Value(header) = decode_header(number, offset, bytes)? else { return None };
    let content = bytes.get(RECORD_HEADER_BYTES as usize..)?;
    let (value, rest) = content.split_at_checked(header.value_bytes as usize)?;
    let key = rest.get(..header.key_bytes as usize)?;
    let sound = checksum32(&[value]) == header.value_checksum && checksum32(&[key]) == header.key_checksum;
    sound.then_some((header, value, key))
}

/// Whether the value in its record is sound.
pub(crate) fn value_is_whole(header: ValueHeader, record: &[u8]) -> bool {
    let start = RECORD_HEADER_BYTES as usize;
    let value = record.get(start..start + header.value_bytes as usize);
    value.is_some_and(|value| checksum32(&[value]) == header.value_checksum)
}

/// The key in a value's record, if it is sound, whatever the state of the value.
pub(crate) fn key_of(header: ValueHeader, record: &[u8]) -> Option<&[u8]> {
    let start = RECORD_HEADER_BYTES as usize + header.value_bytes as usize;
    let key = record.get(start..start + header.key_bytes as usize)?;
    (checksum32(&[key]) == header.key_checksum).then_some(key)
}

/// Checks that `bytes` are the header and the value that a pointer of value length `length` at `offset` of value file
/// `number` leads to.
pub(crate) fn check_value(number: u64, offset: u64, length: u32, bytes: &[u8]) -> Option<()> {
    let ValueRecordHeader::Value(header) = decode_header(number, offset, bytes)? else { return None };
    let value = bytes.get(RECORD_HEADER_BYTES as usize..)?;
    let sound =
        header.value_bytes == length && value.len() == length as usize && checksum32(&[value]) == header.value_checksum;
    sound.then_some(())
}

/// Whether a pointer can lead to a record at all, so that following it allocates no absurd amount of memory.
pub(crate) fn is_plausible(pointer: ValuePointer) -> bool {
    pointer.offset >= FILE_HEADER_BYTES
        && pointer.offset.is_multiple_of(RECORD_ALIGNMENT)
        && pointer.length as usize <= VALUE_BYTES_MAX
        && pointer.offset < 1 << 48
}

#[cfg(test)]
#[path = "format_test.rs"]
mod tests;
