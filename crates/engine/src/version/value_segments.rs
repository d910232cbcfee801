//! The value log in a version: which value files exist, which segments were relocated, and what tables
//! refer to.
//!
//! A *segment* is what pointers name: values in the order they were written. A *file* is what is on disk. A segment is
//! at first the file of the same number; a relocation maps it to another file, and the old file is deleted when no
//! version needs it.
//!
//! Fields of a version edit:
//!
//! | tag | field | content |
//! |---|---|---|
//! | 20 | add value file | number |
//! | 21 | seal value file | number, bytes: it is durable up to there, and nothing is appended any more; bytes of its records |
//! | 22 | relocate segment | segment, number of the file that has its live values now |
//! | 23 | remove value file | number; segments that are in it and are not relocated by the same edit go too |
//! | 24 | values of a table | table, number of segments, then for each: segment, bytes that the table refers to |
//!
//! They are applied in this order. A table's values are removed with the table, and stay when it moves.

use crate::table::FileNumber;
use crate::types::ValuePointer;
use crate::version::files::ObsoleteFiles;
use crate::vlog::{ReadValue, Step, ValueReader, ValueRefs, ValueStore};
use crate::{Error, Result};
use bytes::Bytes;
use kontiki_env::codec::{Truncated, get_varint, put_varint};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const TAG_ADD: u8 = 20;
const TAG_SEAL: u8 = 21;
const TAG_RELOCATE: u8 = 22;
const TAG_REMOVE: u8 = 23;
const TAG_TABLE_VALUES: u8 = 24;

/// The changes of the value log in a version edit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ValueEdit {
    pub(super) added: Vec<u64>,
    pub(super) sealed: Vec<(u64, Sealed)>,
    pub(super) relocated: Vec<(u64, u64)>,
    pub(super) removed: Vec<u64>,
    pub(super) refs: Vec<(FileNumber, ValueRefs)>,
}

impl ValueEdit {
    /// Adds a file that exists under its synced name, with a synced header.
    pub(crate) fn add_file(&mut self, number: u64) {
        self.added.push(number);
    }

    /// Sets that a file is durable up to `bytes`, of which `record_bytes` are records, and that nothing will be
    /// appended to it.
    pub(crate) fn seal_file(&mut self, number: u64, bytes: u64, record_bytes: u64) {
        assert!(record_bytes < bytes, "a file has a header too");
        self.sealed.push((number, Sealed { bytes, record_bytes }));
    }

    /// Sets that what is live of `segment` is in `file` now.
    pub(crate) fn relocate(&mut self, segment: u64, file: u64) {
        self.relocated.push((segment, file));
    }

    /// Removes a file; it is deleted from disk when no version refers to it.
    pub(crate) fn remove_file(&mut self, number: u64) {
        self.removed.push(number);
    }

    /// Removes an added file again.
    pub(super) fn forget_file(&mut self, number: u64) {
        self.added.retain(|added| *added != number);
    }

    /// Removes what tables refer to.
    pub(super) fn forget_refs(&mut self) {
        self.refs.clear();
    }

    /// The added files, and whether each is sealed.
    pub(super) fn files(&self) -> Vec<(u64, bool)> {
        let sealed = |number: &u64| self.sealed.iter().any(|(sealed, _)| sealed == number);
        self.added.iter().map(|number| (*number, sealed(number))).collect()
    }

    /// Removes an added file with everything about it.
    pub(super) fn lose_file(&mut self, number: u64) {
        self.forget_file(number);
        self.sealed.retain(|(sealed, _)| *sealed != number);
        self.relocated.retain(|(_, file)| *file != number);
    }

    /// Removes what a table refers to.
    pub(super) fn remove_refs(&mut self, table: FileNumber) {
        self.refs.retain(|(of, _)| *of != table);
    }

    /// Whether it relocates a segment to another file.
    pub(super) fn is_relocated(&self, segment: u64) -> bool {
        self.relocated.iter().any(|(relocated, _)| *relocated == segment)
    }

    /// Number of added files.
    pub(super) fn added_count(&self) -> usize {
        self.added.len()
    }

    /// Number and bytes of the sealed files.
    pub(super) fn sealed(&self) -> impl Iterator<Item = (u64, u64)> {
        self.sealed.iter().map(|(number, sealed)| (*number, sealed.bytes))
    }

    /// Sets what a new table refers to.
    pub(super) fn add_refs(&mut self, table: FileNumber, refs: &ValueRefs) {
        if !refs.is_empty() {
            self.refs.push((table, refs.clone()));
        }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        for number in &self.added {
            put_numbers(out, TAG_ADD, &[*number]);
        }
        for (number, sealed) in &self.sealed {
            put_numbers(out, TAG_SEAL, &[*number, sealed.bytes, sealed.record_bytes]);
        }
        for (segment, file) in &self.relocated {
            put_numbers(out, TAG_RELOCATE, &[*segment, *file]);
        }
        for number in &self.removed {
            put_numbers(out, TAG_REMOVE, &[*number]);
        }
        for (table, refs) in &self.refs {
            put_numbers(out, TAG_TABLE_VALUES, &[*table]);
            refs.encode(out);
        }
    }

    /// Takes the content of a field; [`Truncated`] also for a tag that is not of values.
    pub(super) fn decode_field(&mut self, tag: u8, input: &mut &[u8]) -> std::result::Result<(), Truncated> {
        match tag {
            TAG_ADD => self.added.push(get_varint(input)?),
            TAG_SEAL => {
                let number = get_varint(input)?;
                let sealed = Sealed { bytes: get_varint(input)?, record_bytes: get_varint(input)? };
                self.sealed.push((number, sealed));
            }
            TAG_RELOCATE => self.relocated.push((get_varint(input)?, get_varint(input)?)),
            TAG_REMOVE => self.removed.push(get_varint(input)?),
            TAG_TABLE_VALUES => self.refs.push((get_varint(input)?, ValueRefs::decode(input)?)),
            _ => return Err(Truncated),
        }
        Ok(())
    }
}

fn put_numbers(out: &mut Vec<u8>, tag: u8, numbers: &[u64]) {
    out.push(tag);
    numbers.iter().for_each(|number| put_varint(out, *number));
}

/// A live value file. When an edit has removed it and the last version that has it is dropped, it is put on the list of
/// obsolete files.
#[derive(Debug)]
pub struct ValueFile {
    number: u64,
    removed: AtomicBool,
    /// `None` as in [`ValueSegments`].
    home: Option<Arc<Home>>,
}

/// What value files share.
#[derive(Debug)]
struct Home {
    store: Arc<ValueStore>,
    obsolete: Arc<ObsoleteFiles>,
}

impl Home {
    fn unknown(&self, pointer: ValuePointer) -> Error {
        Error::Corruption {
            file: self.store.path(pointer.segment),
            offset: pointer.offset,
            what: "a value pointer leads to this value segment, which the manifest does not know".to_string(),
        }
    }
}

impl ValueFile {
    pub(super) fn mark_removed(&self) {
        let before = self.removed.swap(true, Ordering::AcqRel);
        assert!(!before, "value file {} is removed twice", self.number);
        self.home.iter().for_each(|home| home.store.note_removed());
    }
}

impl Drop for ValueFile {
    fn drop(&mut self) {
        if let (true, Some(home)) = (self.removed.load(Ordering::Acquire), &self.home) {
            home.store.forget(self.number);
            home.obsolete.push_path(home.store.path(self.number));
        }
    }
}

/// Sizes of a file that nothing is appended to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// Length of the file as far as it is valid.
    pub bytes: u64,
    /// Bytes of its records.
    pub record_bytes: u64,
}

/// The state of a value file in a version.
#[derive(Clone, Debug)]
pub struct ValueFileState {
    file: Arc<ValueFile>,
    /// `None` while values are appended to it, or may be according to this version.
    sealed: Option<Sealed>,
}

impl ValueFileState {
    /// Sizes of the file, once it is sealed.
    pub fn sealed(&self) -> Option<Sealed> {
        self.sealed
    }

    /// Bytes of the file, once it is sealed.
    pub fn sealed_bytes(&self) -> Option<u64> {
        self.sealed.map(|sealed| sealed.bytes)
    }
}

/// See the head of this file.
#[derive(Clone, Debug, Default)]
pub struct ValueSegments {
    /// `None` in a version without a store (a test's, an inspection's): it cannot be read from.
    home: Option<Arc<Home>>,
    files: BTreeMap<u64, ValueFileState>,
    /// Relocated segments, and the files that have what is live of them.
    relocated: BTreeMap<u64, u64>,
    tables: BTreeMap<FileNumber, Arc<ValueRefs>>,
    /// The sum over `tables`.
    referred: ValueRefs,
}

impl ValueSegments {
    /// No files; new ones are in `store`.
    pub(super) fn new(store: Arc<ValueStore>, obsolete: Arc<ObsoleteFiles>) -> ValueSegments {
        ValueSegments { home: Some(Arc::new(Home { store, obsolete })), ..ValueSegments::default() }
    }

    /// The same, read from `store`. For inspection: nothing is ever removed.
    pub(crate) fn located_in(mut self, store: Arc<ValueStore>) -> ValueSegments {
        self.home = Some(Arc::new(Home { store, obsolete: Arc::default() }));
        self
    }

    /// Where the files are.
    pub(crate) fn store(&self) -> Option<&Arc<ValueStore>> {
        self.home.as_ref().map(|home| &home.store)
    }

    /// The files, by number.
    pub fn files(&self) -> &BTreeMap<u64, ValueFileState> {
        &self.files
    }

    /// The segments that were relocated, each with the file that has what is live of it.
    pub fn relocated(&self) -> &BTreeMap<u64, u64> {
        &self.relocated
    }

    /// What all tables together refer to.
    pub fn referred(&self) -> &ValueRefs {
        &self.referred
    }

    /// What a table refers to, if it refers to anything.
    pub fn refs_of(&self, table: FileNumber) -> Option<&ValueRefs> {
        self.tables.get(&table).map(|refs| &**refs)
    }

    /// The file that a segment's values are in, and whether they were relocated there.
    pub(crate) fn file_of(&self, segment: u64) -> Option<(u64, bool)> {
        match self.relocated.get(&segment) {
            Some(file) => Some((*file, true)),
            None => self.files.contains_key(&segment).then_some((segment, false)),
        }
    }

    /// The segments whose values are in a file.
    #[cfg(test)]
    pub(crate) fn segments_in(&self, file: u64) -> Vec<u64> {
        let moved: Vec<u64> =
            self.relocated.iter().filter(|(_, at)| **at == file).map(|(segment, _)| *segment).collect();
        if moved.is_empty() && self.file_of(file) == Some((file, false)) { vec![file] } else { moved }
    }

    /// The open file that a pointer leads to, and whether its segment was relocated there. For inspection.
    pub(crate) fn reader_of(&self, pointer: ValuePointer) -> Result<(Arc<ValueReader>, bool)> {
        let Some(home) = &self.home else {
            return Err(Error::Bug("a value is read through a version that has no files".into()));
        };
        let (number, moved) = self.file_of(pointer.segment).ok_or_else(|| home.unknown(pointer))?;
        Ok((home.store.reader(number)?, moved))
    }

    /// The value that a pointer leads to.
    ///
    /// Errors: `Corruption` with file and offset if it is damaged or missing, `Io`.
    pub fn read(&self, pointer: ValuePointer) -> Result<Bytes> {
        self.read_shared(pointer, true).map(ReadValue::into_bytes)
    }

    /// As [`ValueSegments::read`], shared with the cache; it is put there only if `fill_cache`.
    pub(crate) fn read_shared(&self, pointer: ValuePointer, fill_cache: bool) -> Result<ReadValue> {
        let Some(home) = &self.home else {
            return Err(Error::Bug("a value is read through a version that has no files".into()));
        };
        if let Some(value) = home.store.values().and_then(|values| values.get(pointer)) {
            return Ok(value);
        }
        let (number, moved) = self.file_of(pointer.segment).ok_or_else(|| home.unknown(pointer))?;
        let value = home.store.reader(number)?.read_value(pointer, moved)?;
        match home.store.values() {
            Some(values) if fill_cache => Ok(values.insert(pointer, value)),
            _ => Ok(ReadValue::Own(value)),
        }
    }

    /// Prefetches what a read from the cache will need soon.
    #[inline]
    pub(crate) fn fetch_ahead(&self, pointer: ValuePointer, step: Step) {
        if let Some(values) = self.home.as_ref().and_then(|home| home.store.values()) {
            values.fetch_ahead(pointer, step);
        }
    }

    /// As [`ValueSegments::read`], of a pointer that may be older than the newest version of its key: `None` if its
    /// value was collected as garbage. Nothing is cached for it.
    pub(crate) fn read_if_there(&self, pointer: ValuePointer) -> Result<Option<Bytes>> {
        let Some(home) = &self.home else {
            return Err(Error::Bug("a value is read through a version that has no files".into()));
        };
        if let Some(value) = home.store.values().and_then(|values| values.get(pointer)) {
            return Ok(Some(value.into_bytes()));
        }
        let Some((number, moved)) = self.file_of(pointer.segment) else { return Ok(None) };
        let reader = home.store.reader(number)?;
        match reader.find(pointer, moved)? {
            Some(offset) => reader.read_value_at(offset, pointer).map(Some),
            None => Ok(None),
        }
    }

    /// Counts a value that is in the cache as used again: new values without a second use are evicted first.
    pub(crate) fn promote(&self, pointer: ValuePointer) {
        if let Some(values) = self.home.as_ref().and_then(|home| home.store.values()) {
            values.promote(pointer);
        }
    }

    /// These after `edit`; `removed` are the tables that it removes. Or what is wrong with the edit.
    pub(super) fn apply(
        &mut self,
        edit: &ValueEdit,
        removed: &mut dyn Iterator<Item = FileNumber>,
    ) -> std::result::Result<(), String> {
        for &number in &edit.added {
            let file = Arc::new(ValueFile { number, removed: AtomicBool::new(false), home: self.home.clone() });
            if self.files.insert(number, ValueFileState { file, sealed: None }).is_some() {
                return Err(format!("value file {number} is added twice"));
            }
        }
        for &(number, sealed) in &edit.sealed {
            let state = self.files.get_mut(&number);
            let state = state.ok_or_else(|| format!("value file {number} is sealed, but is not there"))?;
            if state.sealed.replace(sealed).is_some() {
                return Err(format!("value file {number} is sealed twice"));
            }
        }
        for &(segment, file) in &edit.relocated {
            if !self.files.contains_key(&file) || file == segment {
                return Err(format!("value segment {segment} is relocated to file {file}, which cannot have it"));
            }
            self.relocated.insert(segment, file);
        }
        for number in &edit.removed {
            if self.files.remove(number).is_none() {
                return Err(format!("value file {number} is removed, but is not there"));
            }
            self.relocated.retain(|_, file| file != number);
        }
        for table in removed {
            if let Some(refs) = self.tables.remove(&table) {
                self.referred.subtract(&refs);
            }
        }
        for (table, refs) in &edit.refs {
            let added = self.referred.add(refs);
            added.ok_or_else(|| format!("table {table} refers to more values than can exist"))?;
            if self.tables.insert(*table, Arc::new(refs.clone())).is_some() {
                return Err(format!("what table {table} refers to is set twice"));
            }
        }
        debug_assert!(self.relocated.values().all(|file| self.files.contains_key(file)), "files of segments are there");
        match edit.relocated.iter().find(|(segment, _)| self.files.contains_key(segment)) {
            Some((segment, _)) => Err(format!("value segment {segment} is relocated, and is still there itself")),
            None => Ok(()),
        }
    }

    /// One edit that creates these from nothing.
    pub(super) fn as_edit(&self) -> ValueEdit {
        ValueEdit {
            added: self.files.keys().copied().collect(),
            sealed: self.files.iter().filter_map(|(number, state)| Some((*number, state.sealed?))).collect(),
            relocated: self.relocated.iter().map(|(segment, file)| (*segment, *file)).collect(),
            removed: Vec::new(),
            refs: self.tables.iter().map(|(table, refs)| (*table, (**refs).clone())).collect(),
        }
    }

    /// Marks the files that a durable edit has removed.
    pub(super) fn mark_removed(&self, edit: &ValueEdit) {
        for number in &edit.removed {
            self.files.get(number).expect("the edit was applied").file.mark_removed();
        }
    }
}

#[cfg(test)]
#[path = "value_segments_test.rs"]
mod tests;
