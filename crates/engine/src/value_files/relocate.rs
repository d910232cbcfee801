//! Relocation: what is live of some value files is copied to a new one, and the manifest records that in one edit.
//!
//! No key is touched and no sequence number taken: a pointer stays unchanged, and the version maps it. So
//! a relocation cannot undo a write, whatever is written meanwhile.
//!
//! A value is live if the newest version of its key in the tables points to it. That is enough, because
//!
//! - only files are relocated to which no memtable refers, nor any batch in progress
//!   ([`ValueLog::is_flushed`](crate::vlog::ValueLog::is_flushed));
//! - readers of this version or a later one see, in its tables, the newest version of each key: their sequence numbers
//!   are not below what is flushed. A reader at an older number holds the version of that time, and that holds the
//!   old file;
//! - what is dead stays dead: flush and compaction drop the newest version of a key only with all older ones, or when a
//!   range tombstone hides it, and then older ones are hidden too until they are dropped.
//!
//! A file whose writing a crash interrupts is not in the manifest and is removed at the next open.

use crate::read::{ReadState, live_pointers};
use crate::types::{Content, Decoded};
use crate::version::{ValueSegments, VersionEdit};
use crate::vlog::format::{ValueFileKind, ValueHeader, ValueRecordHeader, decode_record, key_of};
use crate::vlog::{FileWriter, FinishedFile, Moved, RecordScan, ValueReader, ValueStore};
use crate::{Error, Family, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Bytes read between two checks of the pace and the stop flag.
const STEP_BYTES: u64 = 1 << 20;

/// The result of a relocation; the edit makes it effective.
pub(crate) struct Relocation {
    pub(crate) edit: VersionEdit,
    /// The new file, if anything was live. To be removed if the edit surely did not reach the manifest.
    pub(crate) file: Option<FinishedFile>,
    /// Bytes of records read.
    pub(crate) read_bytes: u64,
    /// Bytes of the removed files.
    pub(crate) removed_bytes: u64,
}

/// One relocation in progress.
pub(crate) struct Relocator<'a> {
    /// The current version, without memtables.
    pub(crate) state: &'a ReadState,
    pub(crate) store: &'a Arc<ValueStore>,
    /// A file number that no file has had.
    pub(crate) new_number: &'a dyn Fn() -> u64,
    /// Called with the bytes read or written, and how many of them were written; waits as long as that should take. Its
    /// error ends the relocation.
    pub(crate) pace: &'a dyn Fn(u64, u64) -> Result<()>,
    writer: Option<FileWriter>,
    moved: Vec<Moved>,
    /// Segment and offset of all that is live, if a damaged key has made that necessary.
    referred: Option<BTreeSet<(u64, u64)>>,
    read_bytes: u64,
    unpaced: u64,
    unpaced_writes: u64,
}

impl<'a> Relocator<'a> {
    pub(crate) fn new(
        state: &'a ReadState,
        store: &'a Arc<ValueStore>,
        new_number: &'a dyn Fn() -> u64,
        pace: &'a dyn Fn(u64, u64) -> Result<()>,
    ) -> Relocator<'a> {
        let (writer, moved, referred) = (None, Vec::new(), None);
        let (read_bytes, unpaced, unpaced_writes) = (0, 0, 0);
        Relocator { state, store, new_number, pace, writer, moved, referred, read_bytes, unpaced, unpaced_writes }
    }

    /// Copies what is live of `sources`. After an error nothing is left behind but, perhaps, a file without a name in
    /// the manifest.
    pub(crate) fn run(mut self, sources: &[u64]) -> Result<Relocation> {
        let result = self.relocate(sources);
        if let (Err(_), Some(writer)) = (&result, &self.writer) {
            writer.abandon();
        }
        result
    }

    fn relocate(&mut self, sources: &[u64]) -> Result<Relocation> {
        let version = self.state.version.clone();
        let values = version.values();
        let mut removed_bytes = 0;
        for source in sources {
            let state = values.files().get(source).ok_or_else(|| Error::Bug(format!("value file {source} is gone")))?;
            let bytes = state.sealed_bytes().ok_or_else(|| Error::Bug(format!("value file {source} is in use")))?;
            self.copy_live(values, *source, bytes)?;
            removed_bytes += bytes;
        }
        let mut edit = VersionEdit::new();
        let file = match &mut self.writer {
            None => None,
            Some(writer) => Some(writer.finish(Some(&mut self.moved))?),
        };
        let change = edit.values_mut();
        if let Some(file) = file {
            change.add_file(file.number);
            change.seal_file(file.number, file.bytes, file.record_bytes);
            let mut last = None;
            for segment in self.moved.iter().map(|moved| moved.segment) {
                if last.replace(segment) != Some(segment) {
                    change.relocate(segment, file.number);
                }
            }
        }
        sources.iter().for_each(|source| change.remove_file(*source));
        Ok(Relocation { edit, file, read_bytes: self.read_bytes, removed_bytes })
    }

    fn copy_live(&mut self, values: &ValueSegments, source: u64, bytes: u64) -> Result<()> {
        let reader = self.store.reader(source)?;
        let origins = origins(&reader)?;
        let end = reader.directory().map_or(bytes, |directory| directory.data_end);
        let mut scan = RecordScan::new(&reader, end);
        while let Some((offset, header)) = scan.next()? {
            self.read_bytes += header.stride();
            self.keep_pace(header.stride())?;
            let ValueRecordHeader::Value(header) = header else { continue };
            // A segment's values are where their pointers say; a relocated file's index knows.
            let origin = match &origins {
                None => Some((source, offset)),
                Some(origins) => origins.get(&offset).copied(),
            };
            let Some((segment, old_offset)) = origin else {
                return Err(reader.corrupt(offset, "the index of the relocated value file misses a value"));
            };
            debug_assert_eq!(values.file_of(segment).map(|(file, _)| file), Some(source), "pointers to it lead here");
            let record = scan.record(offset, ValueRecordHeader::Value(header))?;
            self.copy_if_live(&reader, offset, header, record, (segment, old_offset))?;
        }
        Ok(())
    }

    fn copy_if_live(
        &mut self,
        reader: &ValueReader,
        offset: u64,
        header: ValueHeader,
        record: &[u8],
        origin: (u64, u64),
    ) -> Result<()> {
        let Some(key) = key_of(header, record) else {
            // A crash may have torn it before anything referred to it.
            return match self.is_referred(origin)? {
                true => Err(reader.corrupt(offset, "the key of a value in use is damaged, met by a relocation")),
                false => Ok(()),
            };
        };
        if !self.is_live(header.family, key, origin)? {
            return Ok(());
        }
        let (header, value, key) = decode_record(reader.number(), offset, record)
            .ok_or_else(|| reader.corrupt(offset, "a damaged value, met by a relocation"))?;
        let writer = match &mut self.writer {
            Some(writer) => writer,
            None => self.writer.insert(FileWriter::create(self.store, (self.new_number)(), ValueFileKind::Relocated)?),
        };
        let new_offset = writer.add(header, value, key)?;
        self.moved.push(Moved { segment: origin.0, old_offset: origin.1, new_offset });
        self.unpaced_writes += header.stride();
        self.keep_pace(header.stride())
    }

    /// Whether the newest version of the key in tables points to the value.
    fn is_live(&self, family: Family, key: &[u8], origin: (u64, u64)) -> Result<bool> {
        let Some(found) = self.state.newest_in_tables(family, key)? else { return Ok(false) };
        let malformed = |_| Error::Bug(format!("stored bytes of a {:?} are malformed behind a checksum", found.kind));
        let decoded = Decoded::new(found.kind, &found.stored).map_err(malformed)?;
        Ok(matches!(decoded.content, Content::Pointer(pointer) if (pointer.segment, pointer.offset) == origin))
    }

    /// Whether a pointer in tables leads to the value; for a record whose key is damaged. Reads every table that
    /// refers to values, once.
    fn is_referred(&mut self, origin: (u64, u64)) -> Result<bool> {
        if self.referred.is_none() {
            let mut referred = BTreeSet::new();
            for (family, _, table) in self.state.version.tables() {
                live_pointers(self.state, family, table, &mut |_, pointer| {
                    referred.insert((pointer.segment, pointer.offset));
                    Ok(())
                })?;
            }
            self.referred = Some(referred);
        }
        Ok(self.referred.as_ref().is_some_and(|referred| referred.contains(&origin)))
    }

    fn keep_pace(&mut self, bytes: u64) -> Result<()> {
        self.unpaced += bytes;
        if self.unpaced >= STEP_BYTES {
            (self.pace)(std::mem::take(&mut self.unpaced), std::mem::take(&mut self.unpaced_writes))?;
        }
        Ok(())
    }
}

/// Of a relocated file: for each record the segment and the offset that pointers to it have.
fn origins(reader: &ValueReader) -> Result<Option<BTreeMap<u64, (u64, u64)>>> {
    let Some(directory) = reader.directory() else { return Ok(None) };
    let mut origins = BTreeMap::new();
    for page in directory.pages() {
        let bytes = reader.read_at(page.offset, page.bytes())?;
        let entries = page
            .decode(reader.number(), &bytes)
            .ok_or_else(|| reader.corrupt(page.offset, "a damaged index page of a relocated value file"))?;
        origins.extend(entries.iter().map(|(old, new)| (new, (page.segment, old))));
    }
    Ok(Some(origins))
}
