//! Value segments after a crash.
//!
//! A segment that is not sealed in the manifest was open when the last process ended. Its writers wrote concurrently,
//! so it may have holes. Recovery
//!
//! 1. finds its records ([`find_records`]) by their headers;
//! 2. reports to the log's recovery, for each record of the log that was never claimed durable, whether all values that
//!    it refers to are whole. The first that misses one ends the log, as a torn record does. Values that are whole are
//!    written again as they are, since they may have been read from the page cache alone (see log.md);
//! 3. syncs the segment, before the log reports the records durable that refer to it;
//! 4. once the log is replayed, puts skips into the holes, and seals the segment in the manifest: values to come go to
//!    a new one.
//!
//! A record of the log that was claimed durable had its values synced before the claim. If one is missing, that is
//! damage, named with file and offset.
//!
//! Segments that nothing refers to need no recovery: they hold garbage only, and are removed as such.

use crate::log::{Beside, RawRecord, RecordKind, decode_commit};
use crate::types::{BatchEntry, Content, Decoded, ValuePointer};
use crate::version::{ValueSegments, VersionEdit};
use crate::vlog::format::{
    FILE_HEADER_BYTES, RECORD_HEADER_BYTES, ValueRecordHeader, decode_header, decode_record, encode_header,
};
use crate::vlog::{FoundRecords, ValueStore, find_records};
use crate::{Error, Result, SequenceNumber, WriteBatch};
use kontiki_env::fs::{File, OpenMode};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// A segment that was open.
struct Unsealed {
    file: Arc<dyn File>,
    found: FoundRecords,
}

/// See the head of this file.
pub(crate) struct ValueRecovery {
    store: Arc<ValueStore>,
    segments: ValueSegments,
    flushed: SequenceNumber,
    unsealed: BTreeMap<u64, Unsealed>,
}

impl ValueRecovery {
    /// Reads the segments that were open. Log records at or below `flushed` are not replayed, and their values may
    /// be deleted.
    pub(crate) fn new(
        store: Arc<ValueStore>,
        segments: ValueSegments,
        flushed: SequenceNumber,
    ) -> Result<ValueRecovery> {
        let mut unsealed = BTreeMap::new();
        for (number, state) in segments.files() {
            if state.sealed_bytes().is_some() {
                continue;
            }
            let found = find_records(&*store.reader(*number)?)?;
            let path = store.path(*number);
            let file = store.fs().open(&path, OpenMode::ReadWrite).map_err(|error| Error::io(&path, &error))?;
            if !found.holes.is_empty() {
                let bytes: u64 = found.holes.iter().map(|(_, bytes)| bytes).sum();
                tracing::info!(file = %path.display(), holes = found.holes.len(), bytes, "torn writes of values");
            }
            unsealed.insert(*number, Unsealed { file, found });
        }
        Ok(ValueRecovery { store, segments, flushed, unsealed })
    }

    /// Checks that the values of a batch that is replayed are there.
    pub(crate) fn check(&self, batch: &WriteBatch) -> Result<()> {
        pointers(batch).try_for_each(|pointer| {
            let corrupt = |what: &str| Error::Corruption {
                file: self.store.path(pointer.segment),
                offset: pointer.offset,
                what: format!("the log refers to a value here, {what}"),
            };
            let Some((number, moved)) = self.segments.file_of(pointer.segment) else {
                return Err(corrupt("but the manifest does not know this value segment"));
            };
            if moved {
                return Err(corrupt("but the segment was relocated, which happens only when all of it is flushed"));
            }
            let there = match (self.unsealed.get(&number), self.segments.files().get(&number)) {
                (Some(unsealed), _) => unsealed.found.values.binary_search(&pointer.offset).is_ok(),
                (None, Some(state)) => state.sealed_bytes().is_some_and(|end| pointer.offset < end),
                (None, None) => false,
            };
            if there { Ok(()) } else { Err(corrupt("but there is none")) }
        })
    }

    /// Puts skips into the holes, and makes the edit that seals what was open. After the log has been replayed: what
    /// looks like a hole may be damage, and then it is left as it is for a repair.
    pub(crate) fn seal(&self) -> Result<VersionEdit> {
        let mut edit = VersionEdit::new();
        for (number, unsealed) in &self.unsealed {
            let path = self.store.path(*number);
            for &(start, bytes) in &unsealed.found.holes {
                fill_hole(&*unsealed.file, *number, start, bytes, &path)?;
            }
            if !unsealed.found.holes.is_empty() {
                unsealed.file.sync().map_err(|error| Error::failed_sync(&path, &error))?;
            }
            match unsealed.found.end {
                FILE_HEADER_BYTES => edit.values_mut().remove_file(*number),
                end => edit.values_mut().seal_file(*number, end, end - FILE_HEADER_BYTES),
            }
        }
        Ok(edit)
    }

    /// Whether the value is whole. If it is in a segment that was open, it is written again as it is.
    fn vouch(&self, pointer: ValuePointer) -> Result<bool> {
        let Some((number, false)) = self.segments.file_of(pointer.segment) else { return Ok(false) };
        let Some(unsealed) = self.unsealed.get(&number) else {
            let state = self.segments.files().get(&number);
            return Ok(state.and_then(|state| state.sealed_bytes()).is_some_and(|end| pointer.offset < end));
        };
        if unsealed.found.values.binary_search(&pointer.offset).is_err() {
            return Ok(false);
        }
        let reader = self.store.reader(number)?;
        let header = reader.read_at(pointer.offset, RECORD_HEADER_BYTES as usize)?;
        let Some(ValueRecordHeader::Value(header)) = decode_header(number, pointer.offset, &header) else {
            return Ok(false);
        };
        let length = RECORD_HEADER_BYTES as usize + header.value_bytes as usize + header.key_bytes as usize;
        let record = reader.read_at(pointer.offset, length)?;
        if header.value_bytes != pointer.length || decode_record(number, pointer.offset, &record).is_none() {
            return Ok(false);
        }
        let written = unsealed.file.write_at(&record, pointer.offset);
        written.map_err(|error| Error::io(reader.path(), &error))?;
        Ok(true)
    }
}

impl Beside for ValueRecovery {
    fn is_whole(&self, record: RawRecord<'_>) -> Result<bool> {
        if record.kind != RecordKind::Commit {
            return Ok(true);
        }
        // A payload that does not decode is refused when it is replayed.
        let Ok(commit) = decode_commit(record.sequence, record.payload) else { return Ok(true) };
        if commit.sequence <= self.flushed {
            return Ok(true);
        }
        for pointer in pointers(&commit.batch) {
            if !self.vouch(pointer)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn make_durable(&self) -> Result<()> {
        for (number, unsealed) in &self.unsealed {
            let path = self.store.path(*number);
            unsealed.file.sync().map_err(|error| Error::failed_sync(&path, &error))?;
        }
        Ok(())
    }
}

fn fill_hole(file: &dyn File, number: u64, start: u64, bytes: u64, path: &Path) -> Result<()> {
    let rest = bytes.checked_sub(RECORD_HEADER_BYTES).and_then(|rest| u32::try_from(rest).ok());
    let rest = rest.ok_or_else(|| Error::Corruption {
        file: path.to_path_buf(),
        offset: start,
        what: format!("{bytes} bytes between two values: no write leaves such a hole"),
    })?;
    let mut header = Vec::new();
    encode_header(&mut header, number, start, ValueRecordHeader::Skip { bytes: rest });
    file.write_at(&header, start).map_err(|error| Error::io(path, &error))
}

/// The value pointers of a batch.
pub(crate) fn pointers(batch: &WriteBatch) -> impl Iterator<Item = ValuePointer> {
    batch.entries().filter_map(|entry| match entry {
        BatchEntry::Version { kind, stored, .. } if kind.is_pointer() => match Decoded::new(kind, stored) {
            Ok(Decoded { content: Content::Pointer(pointer), .. }) => Some(pointer),
            _ => None,
        },
        _ => None,
    })
}

#[cfg(test)]
#[path = "recovery_test.rs"]
mod tests;
