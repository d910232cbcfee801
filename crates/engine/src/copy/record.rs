//! The record that a backup store keeps of one backup: `backups/NNNNNN-IDENTITY`.
//!
//! | offset | width | field |
//! |---|---|---|
//! | 0 | 8 | magic `KTKBACKP` |
//! | 8 | 4 | format version, now 2 |
//! | 12 | 4 | CRC-32 of everything behind it |
//! | 16 | | when it was made, milliseconds since 1970 (varint); sequence number (varint); bytes that were copied to make it (varint); the version (varint length, a snapshot edit as in the manifest); number of files (varint); the files |
//!
//! A file: kind (1 byte: 1 table, 2 value segment), number (varint), bytes (varint), checksum (u32: the CRC-32 of the
//! CRC-32s, each 4 bytes LE, of the file's mebibytes), home (u64: the identity in the name that it is stored under).
//! All integers are little-endian.
//!
//! Version 1 has neither the copied bytes nor the homes: every file is stored under the identity in the record's name.

use super::files::{FileKind, LiveFile};
use crate::version::VersionEdit;
use crate::{Error, Result, SequenceNumber};
use kontiki_env::codec::{
    Truncated, checksum32, get_bytes, get_slice, get_u8, get_u32, get_u64, get_varint, put_slice, put_u32, put_u64,
    put_varint,
};
use std::path::Path;

const MAGIC: &[u8; 8] = b"KTKBACKP";
const FORMAT_VERSION: u32 = 2;
const HEADER_BYTES: usize = 16;

/// A file of a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StoredFile {
    pub(super) file: LiveFile,
    pub(super) checksum: u32,
    /// The identity of the backup that copied it: a part of the name that it is stored under.
    pub(super) home: u64,
}

/// One backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) made_at_ms: u64,
    pub(super) sequence: SequenceNumber,
    /// `None` for a record of format 1, which does not have it.
    pub(super) copied_bytes: Option<u64>,
    pub(super) version: VersionEdit,
    /// Ascending.
    pub(super) files: Vec<StoredFile>,
}

impl Record {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        put_varint(&mut body, self.made_at_ms);
        put_varint(&mut body, self.sequence);
        put_varint(&mut body, self.copied_bytes.unwrap_or(0));
        put_slice(&mut body, &self.version.encode());
        put_varint(&mut body, self.files.len() as u64);
        for StoredFile { file, checksum, home } in &self.files {
            body.push(file.kind.to_byte());
            put_varint(&mut body, file.number);
            put_varint(&mut body, file.bytes);
            put_u32(&mut body, *checksum);
            put_u64(&mut body, *home);
        }
        let mut out = MAGIC.to_vec();
        put_u32(&mut out, FORMAT_VERSION);
        put_u32(&mut out, checksum32(&[&body]));
        assert_eq!(out.len(), HEADER_BYTES, "the header's width is part of the format");
        out.extend_from_slice(&body);
        out
    }

    /// Takes what [`Record::encode`] wrote, or what earlier versions wrote; `path` is for errors, `identity` is that of
    /// the record's name.
    pub(super) fn decode(bytes: &[u8], identity: u64, path: &Path) -> Result<Record> {
        let corrupt =
            |offset: u64, what: &str| Error::Corruption { file: path.to_path_buf(), offset, what: what.to_string() };
        let mut input = bytes;
        let header = get_bytes(&mut input, HEADER_BYTES).map_err(|_| corrupt(0, "a backup's record is cut short"))?;
        let Some(mut fields) = header.strip_prefix(MAGIC) else {
            return Err(corrupt(0, "this is not a backup's record (bad magic)"));
        };
        let version = get_u32(&mut fields).unwrap_or(0);
        if version == 0 || version > FORMAT_VERSION {
            let what = format!(
                "backup format {version}; this version reads up to {FORMAT_VERSION}: restore it with a newer kontiki"
            );
            return Err(Error::UnsupportedFormat { file: path.to_path_buf(), what });
        }
        if get_u32(&mut fields) != Ok(checksum32(&[input])) {
            return Err(corrupt(12, "bad checksum of a backup's record"));
        }
        let old = (version == 1).then_some(identity);
        decode_body(input, old).map_err(|_| corrupt(HEADER_BYTES as u64, "a backup's record is malformed"))
    }
}

/// With `old`, the identity of a record of format 1, what that format lacks is filled in.
fn decode_body(mut input: &[u8], old: Option<u64>) -> std::result::Result<Record, Truncated> {
    let input = &mut input;
    let made_at_ms = get_varint(input)?;
    let sequence = get_varint(input)?;
    let copied_bytes = if old.is_some() { None } else { Some(get_varint(input)?) };
    let version = VersionEdit::decode(get_slice(input)?)?;
    let count = get_varint(input)?;
    let mut files: Vec<StoredFile> = Vec::new();
    for _ in 0..count {
        let kind = FileKind::from_byte(get_u8(input)?).ok_or(Truncated)?;
        let file = LiveFile { kind, number: get_varint(input)?, bytes: get_varint(input)? };
        let checksum = get_u32(input)?;
        let home = old.map_or_else(|| get_u64(input), Ok)?;
        if files.last().is_some_and(|last| last.file >= file) {
            return Err(Truncated);
        }
        files.push(StoredFile { file, checksum, home });
    }
    let whole = input.is_empty() && version.is_whole_copy();
    if whole { Ok(Record { made_at_ms, sequence, copied_bytes, version, files }) } else { Err(Truncated) }
}

/// Decodes a backup's record and reports whether it is sound. For fuzzing.
pub fn decode_record(bytes: &[u8]) -> Result<()> {
    let path = Path::new("backup");
    let record = Record::decode(bytes, 1, path)?;
    let again = Record { copied_bytes: Some(record.copied_bytes.unwrap_or(0)), ..record };
    assert_eq!(Record::decode(&again.encode(), 1, path)?, again, "a decoded record encodes to itself");
    Ok(())
}

#[cfg(test)]
#[path = "record_test.rs"]
mod tests;
