//! The value log of a repair: which files go into the new directory, and what happens to pairs whose value is damaged.
//!
//! A pair whose value cannot be read is dropped: an error at each read of a key, for ever, is of no use, and the
//! report names the key. If an older version of the key is left, it shows again, as after the loss of a block of a
//! table. A file with damage in it is not copied: what can be read of it is written to the tables, so that the new
//! directory is sound.

use super::repair::{Repair, copy, link_or_copy, note};
use crate::measure::Recorder;
use crate::read::{ReadState, live_pointers};
use crate::table::{BlockCache, TABLES_DIR, TableReader, TableWriter, table_path};
use crate::types::{Content, Decoded, EXPIRY_BYTES, KeyRef, Kind, TableOptions, ValuePointer};
use crate::version::{Table, TableCache, ValueSegments, Version};
use crate::vlog::{
    FILE_HEADER_BYTES, VALUES_DIR, ValueFileKind, ValueReader, ValueStore, value_file_kind, value_file_path,
};
use crate::{Error, Family, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Keys of lost values that a report names; of more it gives the number.
const KEYS_NAMED_MAX: usize = 1000;
/// Memory for filters and indexes of open tables.
const TABLE_CACHE_BYTES: u64 = 32 << 20;
/// Tables open at once.
const OPEN_TABLES_MAX: usize = 100;

/// What is damaged of the values that the new directory refers to.
#[derive(Default)]
struct Damage {
    /// Files that are not to be taken over.
    files: BTreeSet<u64>,
    /// By table: the keys whose newest version cannot be read, with where it points to and what is wrong.
    pairs: BTreeMap<u64, BTreeMap<Vec<u8>, (ValuePointer, Error)>>,
}

/// A pair that was dropped.
struct Lost {
    family: Family,
    key: Vec<u8>,
    error: Error,
}

impl Repair<'_> {
    /// Takes over the value files: those that the manifest names, and, unless it is whole, all others.
    pub(super) fn values(&mut self, there: &BTreeSet<u64>) -> Result<()> {
        for (number, _) in self.rebuilt.value_files() {
            if !there.contains(&number) {
                let what = "the manifest names this value file, but it is missing".to_string();
                let file = value_file_path(&self.from.join(VALUES_DIR), number);
                note(&mut self.report, Error::Corruption { file, offset: 0, what })?;
                self.rebuilt.lose_value_file(number);
            }
        }
        if !self.manifest_is_whole {
            self.other_values(there)?;
        }
        for (number, sealed) in self.rebuilt.value_files() {
            let from = value_file_path(&self.from.join(VALUES_DIR), number);
            let to = value_file_path(&self.to.join(VALUES_DIR), number);
            // An open one is repaired when the new directory is opened, which must not touch the old file.
            if sealed {
                link_or_copy(self.env, &from, &to)?
            } else {
                copy(self.env, &from, &to)?
            };
            self.report.value_files += 1;
        }
        Ok(())
    }

    /// Value files that the manifest does not name. Which segments were relocated to a file is in the file's index too.
    /// Of several files with one segment the oldest has the most of it.
    fn other_values(&mut self, there: &BTreeSet<u64>) -> Result<()> {
        let named: BTreeSet<u64> = self.rebuilt.value_files().into_iter().map(|(number, _)| number).collect();
        let mut relocated = Vec::new();
        for &number in there.difference(&named) {
            let path = value_file_path(&self.from.join(VALUES_DIR), number);
            match value_file_kind(&*self.env.fs, &path, number) {
                Ok(ValueFileKind::Segment) if self.rebuilt.is_relocated(number) => {}
                Ok(ValueFileKind::Segment) => self.rebuilt.add_value_file(number),
                Ok(ValueFileKind::Relocated) => relocated.push((number, path)),
                Err(error) => note(&mut self.report, error)?,
            }
        }
        for (number, path) in relocated {
            let reader = match ValueReader::open(&*self.env.fs, path, number) {
                Ok(reader) => reader,
                Err(error) => {
                    note(&mut self.report, error)?;
                    continue;
                }
            };
            let Some(directory) = reader.directory() else { continue };
            let mut segments: Vec<u64> = directory.pages().iter().map(|page| page.segment).collect();
            segments.dedup();
            let record_bytes = directory.data_end - FILE_HEADER_BYTES;
            self.rebuilt.add_relocated_file(number, &segments, reader.file_bytes()?, record_bytes);
        }
        Ok(())
    }

    /// See the head of this file. Ends when every live value of the new directory can be read.
    pub(super) fn drop_damaged_values(&mut self) -> Result<()> {
        let mut lost = Vec::new();
        let mut state = self.read_state()?;
        let mut damage = self.damage(&state, true)?;
        while !damage.files.is_empty() || !damage.pairs.is_empty() {
            self.without(&state.version, &damage)?;
            for (table, pairs) in damage.pairs {
                let family = state.version.tables().find(|(_, _, other)| other.meta().number == table);
                let family = family.expect("the damage is of this version").0;
                lost.extend(pairs.into_iter().map(|(key, (_, error))| Lost { family, key, error }));
            }
            state = self.read_state()?;
            damage = self.damage(&state, false)?;
        }
        self.name_lost(&state, lost)
    }

    /// What the new directory holds so far, to be read.
    fn read_state(&self) -> Result<ReadState> {
        let store = Arc::new(ValueStore::new(self.env.fs.clone(), self.to.join(VALUES_DIR)));
        let version = Arc::new(self.rebuilt.version(self.sequence, store)?);
        let blocks = Arc::new(BlockCache::new(0));
        let tables_dir = self.to.join(TABLES_DIR);
        let tables = Arc::new(TableCache::new(self.env, &tables_dir, blocks, TABLE_CACHE_BYTES, OPEN_TABLES_MAX));
        let clock = self.env.clock.clone();
        let recorder = Recorder::off(clock.clone());
        Ok(ReadState { memtables: Vec::new(), version, tables, clock, recorder, dead: None })
    }

    /// What is damaged: of the live values, and of the files themselves, if `files` is set.
    fn damage(&mut self, state: &ReadState, files: bool) -> Result<Damage> {
        let values = state.version.values();
        let mut damage = Damage::default();
        let store = values.store().expect("it was located");
        for (number, sealed) in values.files().iter().filter(|_| files) {
            let Some(bytes) = sealed.sealed_bytes() else { continue };
            // Damaged records without a reference are the trace of a crash.
            match store.reader(*number).and_then(|reader| reader.verify_all(bytes, &mut |_, _| ())) {
                Err(error @ Error::Corruption { .. }) => {
                    damage.files.insert(*number);
                    self.note_original(error)?;
                }
                verified => verified?,
            }
        }
        for (family, _, table) in state.version.tables() {
            let (mut pairs, mut noted) = (BTreeMap::new(), Vec::new());
            live_pointers(state, family, table, &mut |key, pointer| {
                let (reader, moved) = match values.reader_of(pointer) {
                    Ok(found) => found,
                    Err(error @ Error::Corruption { .. }) => {
                        pairs.insert(key.to_vec(), (pointer, error));
                        return Ok(());
                    }
                    Err(error) => return Err(error),
                };
                match reader.verify(pointer, moved, family, key) {
                    Err(error @ Error::Corruption { .. }) => {
                        damage.files.insert(reader.number());
                        if reader.salvage(pointer, moved, family, key)?.is_none() {
                            pairs.insert(key.to_vec(), (pointer, error));
                        } else {
                            noted.push(error);
                        }
                        Ok(())
                    }
                    verified => verified.map(|_| ()),
                }
            })?;
            noted.into_iter().try_for_each(|error| self.note_original(error))?;
            if !pairs.is_empty() {
                damage.pairs.insert(table.meta().number, pairs);
            }
        }
        Ok(damage)
    }

    /// Writes the tables again that refer to damaged values, and leaves the damaged files out.
    fn without(&mut self, version: &Version, damage: &Damage) -> Result<()> {
        let values = version.values();
        let in_damaged = |segment| values.file_of(segment).is_some_and(|(file, _)| damage.files.contains(&file));
        for (family, level, table) in version.tables() {
            let number = table.meta().number;
            let refers = values.refs_of(number).is_some_and(|refs| refs.iter().any(|(segment, _)| in_damaged(segment)));
            if refers || damage.pairs.contains_key(&number) {
                self.write_again(values, family, level, table, damage)?;
            }
        }
        for number in &damage.files {
            self.rebuilt.lose_value_file(*number);
            let path = value_file_path(&self.to.join(VALUES_DIR), *number);
            self.env.fs.remove(&path).map_err(|error| Error::io(&path, &error))?;
            self.report.value_files -= 1;
        }
        Ok(())
    }

    fn write_again(
        &mut self,
        values: &ValueSegments,
        family: Family,
        level: usize,
        table: &Arc<Table>,
        damage: &Damage,
    ) -> Result<()> {
        let dir = self.to.join(TABLES_DIR);
        let reader = TableReader::open(self.env, &dir, table.meta(), Arc::new(BlockCache::new(0)))?;
        let number = self.new_file();
        let mut writer = TableWriter::create(self.env, &dir, number, family, TableOptions::default())?;
        let pairs = damage.pairs.get(&table.meta().number);
        let (mut kept, mut dropped, mut lost) = (0u64, 0u64, None);
        let mut visit = |key: KeyRef<'_>, kind: Kind, stored: &[u8]| {
            let Ok(Decoded { content: Content::Pointer(pointer), .. }) = Decoded::new(kind, stored) else {
                kept += 1;
                return writer.add(key, kind, stored);
            };
            match values.file_of(pointer.segment) {
                Some((file, moved)) if damage.files.contains(&file) => {
                    let value = match values.reader_of(pointer) {
                        Ok((reader, _)) => reader.salvage(pointer, moved, family, key.user_key)?,
                        Err(Error::Corruption { .. }) => None,
                        Err(error) => return Err(error),
                    };
                    if let Some(value) = value {
                        kept += 1;
                        let (kind, stored) = inlined(kind, stored, &value);
                        return writer.add(key, kind, &stored);
                    }
                }
                _ if pairs.and_then(|pairs| pairs.get(key.user_key)).is_none_or(|(lost, _)| *lost != pointer) => {
                    kept += 1;
                    return writer.add(key, kind, stored);
                }
                _ => {}
            }
            dropped += 1;
            Ok(())
        };
        reader.salvage(&mut visit, &mut |error| lost = Some(error))?;
        lost.map_or(Ok(()), Err)?;
        self.rebuilt.remove(table.meta().number);
        if kept > 0 {
            self.rebuilt.add(level, &writer.finish()?, table.facts().clone());
        } else {
            writer.abandon();
        }
        self.report.versions_mended += kept;
        self.report.versions_dropped += dropped;
        let path = table_path(&dir, table.meta().number);
        self.env.fs.remove(&path).map_err(|error| Error::io(&path, &error))
    }

    /// Puts the keys that were dropped into the report, with what a reader finds now.
    fn name_lost(&mut self, state: &ReadState, lost: Vec<Lost>) -> Result<()> {
        let more = lost.len().saturating_sub(KEYS_NAMED_MAX);
        for Lost { family, key, error } in lost.into_iter().take(KEYS_NAMED_MAX) {
            let Error::Corruption { file, offset, what } = self.of_original(error) else { continue };
            let levels = state.version.family(family);
            let name = levels.map_or_else(String::new, |levels| levels.name.clone());
            let covering = levels.and_then(|levels| levels.range_tombstones.covering(&key));
            let older = state.newest_in_tables(family, &key)?;
            let shows =
                older.is_some_and(|older| !older.kind.is_delete() && covering.is_none_or(|at| older.sequence >= at));
            let now = if shows { "an older version of it shows again" } else { "the key is gone" };
            let what = format!("the value of key {} of family {name} is lost ({what}); {now}", key.escape_ascii());
            note(&mut self.report, Error::Corruption { file, offset, what })?;
        }
        if more > 0 {
            let what = format!("the values of {more} more keys are lost");
            note(&mut self.report, Error::Corruption { file: self.from.join(VALUES_DIR), offset: 0, what })?;
        }
        Ok(())
    }

    /// Records damage that was found in the copy, by the name of the original.
    fn note_original(&mut self, error: Error) -> Result<()> {
        let error = self.of_original(error);
        note(&mut self.report, error)
    }

    fn of_original(&self, error: Error) -> Error {
        match error {
            Error::Corruption { file, offset, what } => {
                let file = file.strip_prefix(self.to).map_or_else(|_| file.clone(), |name| self.from.join(name));
                Error::Corruption { file, offset, what }
            }
            other => other,
        }
    }
}

/// Kind and stored bytes of the same version with its value in the table.
fn inlined(kind: Kind, stored: &[u8], value: &[u8]) -> (Kind, Vec<u8>) {
    match kind {
        Kind::PointerExpiring => {
            let expiry = stored.get(..EXPIRY_BYTES).expect("it was decoded");
            (Kind::PutExpiring, [expiry, value].concat())
        }
        _ => (Kind::Put, value.to_vec()),
    }
}
