//! Verifies value files: every byte that the format defines.

use super::format::{
    FILE_HEADER_BYTES, RECORD_HEADER_BYTES, ValueHeader, ValueRecordHeader, decode_header, key_of, value_is_whole,
};
use super::record_scan::RecordScan;
use super::store::ValueReader;
use crate::types::ValuePointer;
use crate::{Error, Family, Result};
use std::collections::BTreeSet;

impl ValueReader {
    /// Reads a sealed file of `bytes` from end to end. Records whose value, key or padding is damaged go to `damaged`,
    /// with what is wrong: in a segment they may be what a crash has torn, and then nothing refers to them. In a
    /// relocated file that cannot be.
    ///
    /// Errors: `Corruption` for any other damage.
    pub(crate) fn verify_all(&self, bytes: u64, damaged: &mut dyn FnMut(u64, &'static str)) -> Result<()> {
        let end = self.directory().map_or(bytes, |directory| directory.data_end);
        let file_bytes = self.file_bytes()?;
        if file_bytes < bytes || end < FILE_HEADER_BYTES {
            return Err(self.corrupt(file_bytes, &format!("the value file has {file_bytes} bytes of {bytes}")));
        }
        let relocated = self.directory().is_some();
        let mut values = BTreeSet::new();
        let mut scan = RecordScan::new(self, end);
        while let Some((offset, header)) = scan.next()? {
            let ValueRecordHeader::Value(value) = header else { continue };
            if let Some(what) = damage_of(value, scan.record(offset, header)?) {
                if relocated {
                    return Err(self.corrupt(offset, what));
                }
                damaged(offset, what);
            }
            if relocated {
                values.insert(offset);
            }
        }
        if relocated { self.verify_index(&values, bytes) } else { Ok(()) }
    }

    /// Every page of the index of a relocated file, which lead to its values.
    fn verify_index(&self, values: &BTreeSet<u64>, bytes: u64) -> Result<()> {
        let Some(directory) = self.directory() else { return Ok(()) };
        let mut next = directory.data_end;
        for page in directory.pages() {
            if page.offset != next {
                return Err(self.corrupt(next, "the index pages of a relocated value file do not follow one another"));
            }
            let content = self.read_at(page.offset, page.bytes())?;
            let entries = page
                .decode(self.number(), &content)
                .ok_or_else(|| self.corrupt(page.offset, "a damaged index page of a relocated value file"))?;
            if entries.iter().any(|(_, new)| !values.contains(&new)) {
                return Err(self.corrupt(page.offset, "the index of a relocated value file leads to where no value is"));
            }
            next += page.bytes() as u64;
        }
        let file_bytes = self.file_bytes()?;
        if file_bytes == bytes {
            return Ok(());
        }
        Err(self.corrupt(bytes.min(file_bytes), &format!("the value file has {file_bytes} bytes of {bytes}")))
    }

    /// Reads the whole record that a pointer of this key leads to, and checks all of it; returns its offset.
    pub(crate) fn verify(&self, pointer: ValuePointer, moved: bool, family: Family, key: &[u8]) -> Result<u64> {
        let offset = self.locate(pointer, moved)?;
        let header = self.read_at(offset, RECORD_HEADER_BYTES as usize)?;
        let Some(ValueRecordHeader::Value(header)) = decode_header(self.number(), offset, &header) else {
            return Err(self.corrupt(offset, "a damaged or missing value"));
        };
        let record = self.read_at(offset, usize::try_from(header.stride()).unwrap_or(usize::MAX))?;
        if let Some(what) = damage_of(header, &record) {
            return Err(self.corrupt(offset, what));
        }
        let same = header.value_bytes == pointer.length && header.family == family;
        if !same || key_of(header, &record) != Some(key) {
            return Err(self.corrupt(offset, "the value here is of another key than the one that refers to it"));
        }
        Ok(offset)
    }
}

impl ValueReader {
    /// The value that a pointer of this key leads to, if it is whole: the key that was written behind it may be
    /// damaged, as the header, with the place, is proof enough.
    pub(crate) fn salvage(
        &self,
        pointer: ValuePointer,
        moved: bool,
        family: Family,
        key: &[u8],
    ) -> Result<Option<Vec<u8>>> {
        let offset = match self.find(pointer, moved) {
            Ok(Some(offset)) => offset,
            Ok(None) | Err(Error::Corruption { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let header = self.read_at(offset, RECORD_HEADER_BYTES as usize)?;
        let Some(ValueRecordHeader::Value(header)) = decode_header(self.number(), offset, &header) else {
            return Ok(None);
        };
        let record = self.read_at(offset, usize::try_from(header.stride()).unwrap_or(usize::MAX))?;
        let same = header.value_bytes == pointer.length
            && header.family == family
            && key_of(header, &record).is_none_or(|found| found == key);
        let value = record.get(RECORD_HEADER_BYTES as usize..).and_then(|rest| rest.get(..header.value_bytes as usize));
        Ok(value.filter(|_| same && value_is_whole(header, &record)).map(<[u8]>::to_vec))
    }
}

/// What is wrong with a record behind its header.
fn damage_of(header: ValueHeader, record: &[u8]) -> Option<&'static str> {
    let padding = RECORD_HEADER_BYTES as usize + header.value_bytes as usize + header.key_bytes as usize;
    if !value_is_whole(header, record) {
        return Some("a damaged value");
    }
    if key_of(header, record).is_none() {
        return Some("the key of a value is damaged");
    }
    let zeros = record.get(padding..).filter(|_| record.len() as u64 >= header.stride());
    match zeros {
        Some(zeros) if zeros.iter().all(|byte| *byte == 0) => None,
        _ => Some("the bytes behind a value are not zeros"),
    }
}
