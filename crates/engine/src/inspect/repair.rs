//! `kontiki repair`: saves what can be saved of a damaged directory into a new one.
//!
//! Sound tables are linked, damaged ones are written again without the blocks that cannot be read; the log's whole records
//! become a table. Versions keep their sequence numbers, so the newest one that is left of each key still wins. What was
//! newer and is lost may let something older show again: the report says what is lost, and it is for people to judge.
//!
//! If the manifest cannot be read, every table of the directory counts, obsolete ones too: then deleted keys may come
//! back, tables that were ingested count as older than all others, and names of families and range deletes are lost. The
//! report says so.
//!
//! At the end the new directory is checked, so that damage which was taken over (a value that nobody can restore, say) is
//! reported too. A report without problems means that nothing is known to be lost ([`RepairReport::is_whole`]).

use super::check::{CheckReport, Problem, check};
use crate::batch::BatchEntry;
use crate::cache::BlockCache;
use crate::copy::unfinished;
use crate::db::open::{WAL_DIR, absolute, lock_to_read};
use crate::iterator::Cursor;
use crate::log::{RecordKind, decode_commit, segment_name, segment_number, whole_records};
use crate::memtable::{Memtable, MemtableCursor};
use crate::table::{
    FinishedTable, TABLES_DIR, TableMeta, TableOptions, TableReader, TableWriter, parse_table_name, sync_tables_dir,
    table_path,
};
use crate::version::{Rebuilt, TableFacts, Version, read_version, write_fresh};
use crate::vlog::{FileKind, VALUES_DIR, ValueRefs, parse_value_file_name, value_file_kind, value_file_path};
use crate::{Direction, Error, Family, Result, SequenceNumber};
use kontiki_env::Env;
use kontiki_env::fs::{OpenMode, read_all};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a repair has done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RepairReport {
    /// Whether the manifest was read; without it see the head of the module.
    pub manifest_read: bool,
    /// Tables taken over as they were.
    pub tables_sound: u64,
    /// Tables written again without what is damaged.
    pub tables_mended: u64,
    /// Tables of which nothing could be read.
    pub tables_lost: u64,
    /// Versions in the new tables that were written again.
    pub versions_mended: u64,
    /// Commits of the log that were saved.
    pub commits: u64,
    /// Stream operations of the log that were left behind: a served store's replica is rebuilt from the others.
    pub stream_ops_lost: u64,
    /// Value files taken over.
    pub value_files: u64,
    /// Everything that was found damaged or missing: in the old directory, and then in the new one.
    pub problems: Vec<Problem>,
    /// The check of the new directory. Its problems are among those above.
    pub checked: CheckReport,
}

impl RepairReport {
    /// Whether nothing is known to be lost.
    pub fn is_whole(&self) -> bool {
        self.manifest_read && self.problems.is_empty() && self.tables_lost == 0 && self.stream_ops_lost == 0
    }
}

/// A table to save.
struct Candidate {
    number: u64,
    level: usize,
    /// By the manifest.
    meta: Option<TableMeta>,
    facts: TableFacts,
}

struct Repair<'a> {
    env: &'a Env,
    from: &'a Path,
    to: &'a Path,
    rebuilt: Rebuilt,
    report: RepairReport,
    next_file: u64,
    sequence: SequenceNumber,
}

/// Saves what can be saved of the database in `from` into `to`, a directory that does not exist or is empty. `from` is not
/// changed; writers are kept away from it meanwhile.
///
/// Errors: `InvalidArgument` if `from` holds nothing of a database or `to` is not empty, `InUse`, `Io`, `NoSpace`. Damage is in
/// the report.
pub fn repair(env: &Env, from: &Path, to: &Path) -> Result<RepairReport> {
    let (from, to) = (&*absolute(env, from)?, &*absolute(env, to)?);
    if !env.fs.exists(from) {
        return Err(Error::InvalidArgument(format!("{} does not exist", from.display())));
    }
    let _lock = lock_to_read(env, from)?;
    unfinished::refuse_unfinished(env, from)?;
    let mut report = RepairReport::default();
    let version = match read_version(env, from) {
        Ok(found) => found.map(|(_, version)| version),
        Err(error) => {
            note(&mut report, error)?;
            None
        }
    };
    report.manifest_read = version.is_some();
    let (tables, values) = (list(env, &from.join(TABLES_DIR))?, list(env, &from.join(VALUES_DIR))?);
    let tables: BTreeSet<u64> = tables.iter().filter_map(|name| parse_table_name(name)).collect();
    let values: BTreeSet<u64> = values.iter().filter_map(|name| parse_value_file_name(name)).collect();
    if version.is_none() && tables.is_empty() && list(env, &from.join(WAL_DIR))?.is_empty() {
        return Err(Error::InvalidArgument(format!("{} holds nothing of a database", from.display())));
    }
    unfinished::begin(env, to)?;
    for directory in [TABLES_DIR, VALUES_DIR] {
        env.fs.create_dir_all(&to.join(directory)).map_err(|error| Error::io(to, &error))?;
    }
    let next_file = tables.iter().chain(&values).max().map_or(1, |largest| largest + 1);
    let rebuilt = Rebuilt::like(version.as_ref());
    let mut repair = Repair { env, from, to, rebuilt, report, next_file, sequence: 0 };
    repair.tables(candidates(version.as_ref(), &tables))?;
    repair.values(version.is_some(), &values)?;
    repair.log()?;
    sync_tables_dir(env, &to.join(TABLES_DIR))?;
    sync_tables_dir(env, &to.join(VALUES_DIR))?;
    let whole = repair.rebuilt.finish(repair.sequence, repair.next_file);
    write_fresh(env, to, &whole)?;
    unfinished::end(env, to)?;
    let mut report = repair.report;
    report.checked = check(env, to)?;
    report.problems.extend(report.checked.problems.iter().cloned());
    Ok(report)
}

fn candidates(version: Option<&Version>, there: &BTreeSet<u64>) -> Vec<Candidate> {
    match version {
        Some(version) => {
            let candidate = |level, table: &Arc<crate::version::Table>| Candidate {
                number: table.meta().number,
                level,
                meta: Some(table.meta().clone()),
                facts: table.facts().clone(),
            };
            version.tables().map(|(_, level, table)| candidate(level, table)).collect()
        }
        // Which level they were in is not known; level 0 may hold anything.
        None => {
            let candidate = |number| Candidate { number, level: 0, meta: None, facts: TableFacts::default() };
            there.iter().copied().map(candidate).collect()
        }
    }
}

impl Repair<'_> {
    fn tables(&mut self, candidates: Vec<Candidate>) -> Result<()> {
        for candidate in candidates {
            let path = table_path(&self.from.join(TABLES_DIR), candidate.number);
            let reader = match self.open(&candidate, path) {
                Ok(reader) => reader,
                Err(error) => {
                    note(&mut self.report, error)?;
                    self.report.tables_lost += 1;
                    continue;
                }
            };
            let mut refs = ValueRefs::new();
            let mut damage = Vec::new();
            let mut note_refs = |key: crate::iterator::KeyRef<'_>, kind, stored: &[u8]| {
                refs.note(key.user_key.len(), kind, stored);
                Ok(())
            };
            reader.salvage(&mut note_refs, &mut |error| damage.push(error))?;
            let largest = candidate.meta.as_ref().map(|meta| meta.largest_sequence);
            self.sequence = self.sequence.max(largest.unwrap_or(reader.properties().largest_sequence));
            if damage.is_empty() {
                self.take_over(&candidate, &reader, refs)?;
                continue;
            }
            for error in damage {
                note(&mut self.report, error)?;
            }
            self.mend(&candidate, &reader)?;
        }
        Ok(())
    }

    /// A table that is not what the manifest says (cut short, say) may still be readable by itself.
    fn open(&self, candidate: &Candidate, path: PathBuf) -> Result<TableReader> {
        let cache = Arc::new(BlockCache::new(0));
        if let Some(meta) = &candidate.meta {
            return TableReader::open(self.env, &self.from.join(TABLES_DIR), meta, cache);
        }
        let file = self.env.fs.open(&path, OpenMode::Read).map_err(|error| Error::io(&path, &error))?;
        let bytes = file.len().map_err(|error| Error::io(&path, &error))?;
        TableReader::open_file(path, candidate.number, file, bytes, cache)
    }

    fn take_over(&mut self, candidate: &Candidate, reader: &TableReader, values: ValueRefs) -> Result<()> {
        let found = reader.properties();
        let target = table_path(&self.to.join(TABLES_DIR), candidate.number);
        let bytes = link_or_copy(self.env, reader.path(), &target)?;
        let meta = candidate.meta.clone().unwrap_or_else(|| TableMeta::of(found, candidate.number, bytes));
        let table = FinishedTable { family: found.family(), meta, values };
        self.rebuilt.add(candidate.level, &table, candidate.facts.clone());
        self.report.tables_sound += 1;
        Ok(())
    }

    fn mend(&mut self, candidate: &Candidate, reader: &TableReader) -> Result<()> {
        let number = self.new_file();
        let dir = self.to.join(TABLES_DIR);
        let family = reader.properties().family();
        let mut writer = TableWriter::create(self.env, &dir, number, family, TableOptions::default())?;
        let mut versions = 0;
        let mut add = |key: crate::iterator::KeyRef<'_>, kind, stored: &[u8]| {
            versions += 1;
            writer.add(key, kind, stored)
        };
        reader.salvage(&mut add, &mut |_| ())?;
        if versions == 0 {
            writer.abandon();
            self.report.tables_lost += 1;
            return Ok(());
        }
        let table = writer.finish()?;
        self.rebuilt.add(candidate.level, &table, candidate.facts.clone());
        self.report.tables_mended += 1;
        self.report.versions_mended += versions;
        Ok(())
    }

    fn values(&mut self, manifest_read: bool, there: &BTreeSet<u64>) -> Result<()> {
        if !manifest_read {
            for number in there {
                let path = value_file_path(&self.from.join(VALUES_DIR), *number);
                // Which segments were relocated to a file is in the manifest alone.
                match value_file_kind(&*self.env.fs, &path, *number) {
                    Ok(FileKind::Segment) => self.rebuilt.add_value_file(*number),
                    Ok(FileKind::Relocated) => {
                        let what = "without the manifest nothing leads to the values in it".to_string();
                        note(&mut self.report, Error::Corruption { file: path, offset: 0, what })?;
                    }
                    Err(error) => note(&mut self.report, error)?,
                }
            }
        }
        for (number, sealed) in self.rebuilt.value_files() {
            let from = value_file_path(&self.from.join(VALUES_DIR), number);
            let to = value_file_path(&self.to.join(VALUES_DIR), number);
            if !there.contains(&number) {
                let what = "the manifest names this value file, but it is missing".to_string();
                note(&mut self.report, Error::Corruption { file: from, offset: 0, what })?;
                self.rebuilt.lose_value_file(number);
                continue;
            }
            // An open one is mended when the new directory is opened, which must not touch the old file.
            if sealed {
                link_or_copy(self.env, &from, &to)?
            } else {
                copy(self.env, &from, &to)?
            };
            self.report.value_files += 1;
        }
        Ok(())
    }

    /// Every whole record of the log, also behind damaged ones; what was flushed already is in tables.
    fn log(&mut self) -> Result<()> {
        let wal = self.from.join(WAL_DIR);
        let numbers: BTreeSet<u64> = list(self.env, &wal)?.iter().filter_map(|name| segment_number(name)).collect();
        let flushed = self.rebuilt.flushed_sequence();
        let mut commits = BTreeMap::new();
        let mut numbers_met = BTreeSet::new();
        for number in numbers {
            let path = wal.join(segment_name(number));
            let bytes = read_all(&*self.env.fs, &path).map_err(|error| Error::io(&path, &error))?;
            let found = whole_records(&path, number, &bytes);
            found.problems.into_iter().try_for_each(|error| note(&mut self.report, error))?;
            for record in found.records {
                numbers_met.insert(record.sequence);
                if record.kind != RecordKind::Commit {
                    continue;
                }
                let Ok(commit) = decode_commit(record.sequence, record.payload) else {
                    let what = format!("the log record of sequence number {} is whole but malformed", record.sequence);
                    note(&mut self.report, Error::Corruption { file: path.clone(), offset: 0, what })?;
                    continue;
                };
                self.report.stream_ops_lost += commit.streams.len() as u64;
                if commit.sequence > flushed {
                    commits.insert(commit.sequence, commit.batch);
                }
            }
        }
        self.note_gaps(&wal, flushed, &numbers_met)?;
        let memtable = Arc::new(Memtable::new());
        let mut families = BTreeSet::new();
        for (sequence, batch) in &commits {
            memtable.apply(batch, *sequence);
            families.extend(batch.entries().map(|entry: BatchEntry<'_>| entry.family()));
            self.sequence = self.sequence.max(*sequence);
        }
        self.report.commits = commits.len() as u64;
        families.retain(|family| !self.rebuilt.is_dropped(*family));
        families.into_iter().try_for_each(|family| self.memtable_to_table(&memtable, family))
    }

    /// Sequence numbers are given out one after the other, so those that are missing between what was flushed and the end of the log
    /// were commits. In a served store what is applied is in no log record; there nothing is known.
    fn note_gaps(&mut self, wal: &Path, flushed: SequenceNumber, met: &BTreeSet<SequenceNumber>) -> Result<()> {
        if self.report.stream_ops_lost > 0 || !self.report.manifest_read {
            return Ok(());
        }
        let mut last = flushed;
        for number in met.range(flushed + 1..) {
            // A copy may begin with a table that is newer than what its manifest says was flushed.
            if *number > last + 1 && *number - 1 != self.sequence {
                let (first, end) = (last + 1, number - 1);
                let what = format!(
                    "the log misses the commits with the sequence numbers {first} to {end}: they are lost, or were made with \
                     Durability::Derived"
                );
                note(&mut self.report, Error::Corruption { file: wal.to_path_buf(), offset: 0, what })?;
            }
            last = *number;
        }
        Ok(())
    }

    fn memtable_to_table(&mut self, memtable: &Arc<Memtable>, family: Family) -> Result<()> {
        for tombstone in memtable.range_tombstones(family) {
            self.rebuilt.add_range_tombstone(family, tombstone);
        }
        let mut cursor = MemtableCursor::new(memtable.clone(), family, Direction::Forward);
        cursor.seek_to_first()?;
        if !cursor.valid() {
            return Ok(());
        }
        let (number, dir) = (self.new_file(), self.to.join(TABLES_DIR));
        let mut writer = TableWriter::create(self.env, &dir, number, family, TableOptions::default())?;
        while cursor.valid() {
            writer.add(cursor.key(), cursor.kind(), &cursor.stored())?;
            cursor.advance()?;
        }
        self.rebuilt.add(0, &writer.finish()?, TableFacts::default());
        Ok(())
    }

    fn new_file(&mut self) -> u64 {
        self.next_file += 1;
        self.next_file - 1
    }
}

/// Records damage; passes on what is no property of the files.
fn note(report: &mut RepairReport, error: Error) -> Result<()> {
    match error {
        Error::Corruption { file, offset, what } => report.problems.push(Problem { file, offset, what }),
        Error::UnsupportedFormat { file, what } => report.problems.push(Problem { file, offset: 0, what }),
        other => return Err(other),
    }
    Ok(())
}

/// The names in a directory that may be missing.
fn list(env: &Env, dir: &Path) -> Result<Vec<String>> {
    if !env.fs.exists(dir) {
        return Ok(Vec::new());
    }
    env.fs.list(dir).map_err(|error| Error::io(dir, &error))
}

/// Returns the bytes of the file.
fn link_or_copy(env: &Env, from: &Path, to: &Path) -> Result<u64> {
    if env.fs.link(from, to).is_err() {
        return copy(env, from, to);
    }
    let length = env.fs.open(to, OpenMode::Read).and_then(|file| file.len());
    length.map_err(|error| Error::io(to, &error))
}

fn copy(env: &Env, from: &Path, to: &Path) -> Result<u64> {
    let length = env.fs.open(from, OpenMode::Read).and_then(|file| file.len());
    let bytes = length.map_err(|error| Error::io(from, &error))?;
    crate::copy::copy_file(env, from, to, bytes, &mut |_| ())?;
    Ok(bytes)
}

#[cfg(test)]
#[path = "repair_test.rs"]
mod tests;
