//! Reading a value file's records in order, and finding them again where a crash has left holes.

use super::format::{
    FILE_HEADER_BYTES, RECORD_ALIGNMENT, RECORD_HEADER_BYTES, ValueRecordHeader, decode_header, key_of, value_is_whole,
};
use super::store::ValueReader;
use crate::{Error, Result};

/// Bytes read at once: enough that the cost of a call is negligible.
const WINDOW_BYTES: usize = 1 << 20;

/// A part of a file in memory that follows a forward reader.
struct Window<'a> {
    reader: &'a ValueReader,
    start: u64,
    bytes: Vec<u8>,
}

impl<'a> Window<'a> {
    fn new(reader: &'a ValueReader) -> Window<'a> {
        Window { reader, start: 0, bytes: Vec::new() }
    }

    /// The `length` bytes at `offset`, fewer at the end of the file.
    fn get(&mut self, offset: u64, length: usize) -> Result<&[u8]> {
        let covers = |window: &Window<'_>| {
            let at = usize::try_from(offset.checked_sub(window.start)?).ok()?;
            (at + length <= window.bytes.len()).then_some(at)
        };
        let at = match covers(self) {
            Some(at) => at,
            None => {
                self.bytes = self.reader.read_at(offset, length.max(WINDOW_BYTES))?;
                self.start = offset;
                0
            }
        };
        let rest = self.bytes.get(at..).unwrap_or_default();
        Ok(rest.get(..length).unwrap_or(rest))
    }
}

/// The records of a file from its header to `end`, in order.
pub(crate) struct RecordScan<'a> {
    window: Window<'a>,
    next: u64,
    end: u64,
}

impl<'a> RecordScan<'a> {
    /// The records of a file whose last one ends at `end`.
    pub(crate) fn new(reader: &'a ValueReader, end: u64) -> RecordScan<'a> {
        RecordScan { window: Window::new(reader), next: FILE_HEADER_BYTES, end }
    }

    /// The next record's place and header. A place without a header is damage: recovery leaves none.
    pub(crate) fn next(&mut self) -> Result<Option<(u64, ValueRecordHeader)>> {
        if self.next >= self.end {
            return Ok(None);
        }
        let (offset, reader) = (self.next, self.window.reader);
        let bytes = self.window.get(offset, RECORD_HEADER_BYTES as usize)?;
        let header = decode_header(reader.number(), offset, bytes)
            .filter(|header| offset + header.stride() <= self.end)
            .ok_or_else(|| reader.corrupt(offset, "a damaged header of a value's record"))?;
        self.next = offset + header.stride();
        Ok(Some((offset, header)))
    }

    /// The bytes of a record, up to where the next one starts.
    pub(crate) fn record(&mut self, offset: u64, header: ValueRecordHeader) -> Result<&[u8]> {
        let length = usize::try_from(header.stride()).map_err(|_| Error::Bug("a record beyond memory".into()))?;
        self.window.get(offset, length)
    }
}

/// The result of [`find_records`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FoundRecords {
    /// Where the last record ends.
    pub(crate) end: u64,
    /// Places of values, ascending.
    pub(crate) values: Vec<u64>,
    /// Start and length of what lies between records without being one, or is one of which neither key nor value is
    /// whole.
    pub(crate) holes: Vec<(u64, u64)>,
}

/// Finds the records of a file that was not sealed: its writers may have ended in any order, so a place without a
/// record is no end.
pub(crate) fn find_records(reader: &ValueReader) -> Result<FoundRecords> {
    let file_bytes = reader.file_bytes()?;
    let mut window = Window::new(reader);
    let mut found = FoundRecords { end: FILE_HEADER_BYTES, ..FoundRecords::default() };
    let mut at = FILE_HEADER_BYTES;
    while at + RECORD_HEADER_BYTES <= file_bytes {
        let bytes = window.get(at, RECORD_HEADER_BYTES as usize)?;
        let header = decode_header(reader.number(), at, bytes).filter(|header| at + header.stride() <= file_bytes);
        let Some(header) = header else {
            at += RECORD_ALIGNMENT;
            continue;
        };
        let is_value = matches!(header, ValueRecordHeader::Value(_));
        let length = usize::try_from(header.stride()).unwrap_or(usize::MAX);
        let torn = is_value && is_torn(header, window.get(at, length)?);
        if !torn {
            if at > found.end {
                found.holes.push((found.end, at - found.end));
            }
            if is_value {
                found.values.push(at);
            }
            found.end = at + header.stride();
        }
        at += header.stride();
    }
    debug_assert!(found.values.is_sorted() && found.holes.is_sorted(), "records are met in order");
    Ok(found)
}

/// Whether nothing of a value's record but its header is whole. If the key is, a relocation can check whether the value
/// is live; if the value is, a reader may need it.
fn is_torn(header: ValueRecordHeader, record: &[u8]) -> bool {
    let ValueRecordHeader::Value(header) = header else { return false };
    key_of(header, record).is_none() && !value_is_whole(header, record)
}

#[cfg(test)]
#[path = "record_scan_test.rs"]
mod tests;
