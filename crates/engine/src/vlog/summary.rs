//! What a value file's bytes hold, for tools and fuzzers.

use super::format::{
    FILE_HEADER_BYTES, ValueFileKind, ValueRecordHeader, check_file_header, decode_header, key_of, value_is_whole,
};
use super::index::{Directory, TRAILER_BYTES, Trailer};
use crate::{Error, Result};
use std::path::Path;

/// What a value file's bytes hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValueFileContents {
    /// The kind of the file.
    pub kind: ValueFileKind,
    /// Values.
    pub values: u64,
    /// Their bytes, without keys.
    pub value_bytes: u64,
    /// Bytes of their keys.
    pub key_bytes: u64,
    /// Values or keys whose checksum does not match.
    pub damaged: u64,
    /// Places of writes that were given up or torn.
    pub skips: u64,
    /// Entries of the index of a relocated file.
    pub index_entries: u64,
    /// Where the last record ends.
    pub end: u64,
}

/// Reads the bytes of value file `number`, whose path is `path`, up to the first place without a record's header.
///
/// Errors: `Corruption` for a bad header of the file and for a bad index, `UnsupportedFormat`. Never panics, whatever
/// the bytes are.
pub fn summarize_value_file(path: &Path, number: u64, bytes: &[u8]) -> Result<ValueFileContents> {
    let kind = check_file_header(path, number, bytes)?;
    let mut summary = ValueFileContents {
        kind,
        values: 0,
        value_bytes: 0,
        key_bytes: 0,
        damaged: 0,
        skips: 0,
        index_entries: 0,
        end: FILE_HEADER_BYTES,
    };
    let mut limit = bytes.len() as u64;
    if kind == ValueFileKind::Relocated {
        (limit, summary.index_entries) = read_index(path, number, bytes)?;
    }
    while let Some(record) = usize::try_from(summary.end).ok().and_then(|at| bytes.get(at..)) {
        let Some(header) = decode_header(number, summary.end, record) else { break };
        let Some(next) = summary.end.checked_add(header.stride()).filter(|next| *next <= limit) else { break };
        match header {
            ValueRecordHeader::Skip { .. } => summary.skips += 1,
            ValueRecordHeader::Value(value) => {
                summary.values += 1;
                summary.value_bytes += u64::from(value.value_bytes);
                summary.key_bytes += u64::from(value.key_bytes);
                let sound = value_is_whole(value, record) && key_of(value, record).is_some();
                summary.damaged += u64::from(!sound);
            }
        }
        summary.end = next;
    }
    Ok(summary)
}

/// The end of the records, and the number of index entries.
fn read_index(path: &Path, number: u64, bytes: &[u8]) -> Result<(u64, u64)> {
    let corrupt = |offset: u64, what: &str| Error::Corruption {
        file: path.to_path_buf(),
        offset,
        what: format!("{what} of a relocated value file"),
    };
    let file_bytes = bytes.len() as u64;
    let at = file_bytes.saturating_sub(TRAILER_BYTES);
    let part = |start: u64, length: u64| {
        let start = usize::try_from(start).ok()?;
        bytes.get(start..start.checked_add(usize::try_from(length).ok()?)?)
    };
    let trailer = part(at, TRAILER_BYTES).and_then(|bytes| Trailer::decode(number, file_bytes, bytes));
    let trailer = trailer.ok_or_else(|| corrupt(at, "bad trailer"))?;
    let directory = part(trailer.directory_offset, trailer.directory_bytes());
    let directory = directory.and_then(|bytes| Directory::decode(&trailer, bytes));
    let directory = directory.ok_or_else(|| corrupt(trailer.directory_offset, "bad directory"))?;
    let mut entries = 0;
    for page in directory.pages() {
        let decoded = part(page.offset, page.bytes() as u64).and_then(|bytes| page.decode(number, bytes));
        let decoded = decoded.ok_or_else(|| corrupt(page.offset, "bad index page"))?;
        entries += decoded.iter().count() as u64;
    }
    Ok((directory.data_end, entries))
}

#[cfg(test)]
#[path = "summary_test.rs"]
mod tests;
