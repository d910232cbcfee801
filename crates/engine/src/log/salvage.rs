//! Reading what is left of a damaged segment.

use super::format::{RawRecord, RecordKind, SEGMENT_HEADER_BYTES, check_segment_header, decode_record};
use crate::Error;
use std::path::Path;

/// See [`whole_records`].
pub(crate) struct WholeRecords<'a> {
    /// In order, seals excluded.
    pub(crate) records: Vec<RawRecord<'a>>,
    /// What is damaged.
    pub(crate) problems: Vec<Error>,
}

/// Every whole record of segment `number`, up to its seal, also those behind damage. Only a record whose checksum is
/// right for its very place counts, so nothing is taken for one that is not. Behind the seal nothing counts: recovery
/// has cut it off.
pub(crate) fn whole_records<'a>(path: &Path, number: u64, bytes: &'a [u8]) -> WholeRecords<'a> {
    let mut found = WholeRecords { records: Vec::new(), problems: Vec::new() };
    let mut capacity = 0;
    match check_segment_header(path, number, bytes) {
        Ok(bytes) => capacity = bytes,
        Err(error) => found.problems.push(error),
    }
    let mut at = SEGMENT_HEADER_BYTES as usize;
    // Where the present damage begins.
    let mut damaged_from = None;
    while at < bytes.len() {
        let Some(record) = decode_record(number, bytes, at, at as u64) else {
            damaged_from = damaged_from.or(Some(at));
            at += 1;
            continue;
        };
        if let Some(start) = damaged_from.take() {
            let what = format!("{} bytes of the log are damaged", at - start);
            found.problems.push(Error::Corruption { file: path.to_path_buf(), offset: start as u64, what });
        }
        if record.kind == RecordKind::Seal {
            return found;
        }
        at += record.bytes() as usize;
        found.records.push(record);
    }
    // Without a record behind it, it is the unused rest of the file, or the torn tail of a crash. But a file is cut
    // only behind its seal.
    if (bytes.len() as u64) < capacity {
        let offset = damaged_from.unwrap_or(at) as u64;
        let what = format!(
            "the log segment has {} bytes of the {capacity} allocated, and no seal: commits behind this place are lost",
            bytes.len()
        );
        found.problems.push(Error::Corruption { file: path.to_path_buf(), offset, what });
    }
    found
}

#[cfg(test)]
#[path = "salvage_test.rs"]
mod tests;
