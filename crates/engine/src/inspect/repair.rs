//! `kontiki repair`: saves what can be saved of a damaged directory into a new one.
//!
//! Sound tables are linked, damaged ones are written again without the blocks that cannot be read; the log's whole
//! records become a table. Versions keep their sequence numbers, so the newest one that is left of each key still wins.
//! If newer versions are lost, older ones may become visible again: the report lists what is lost, and the operator
//! must decide.
//!
//! If the manifest cannot be read, every table of the directory counts, obsolete ones too: then deleted keys may come
//! back, tables that were ingested count as older than all others, and names of families and range deletes are lost. If
//! it has lost its end, the same is true of what came after; all tables count but those that it lists as removed, and
//! all in level 0, since the order between tables that it names and others is in their sequence numbers alone. The
//! report says so.
//!
//! Pairs whose value is damaged are dropped (`repair_values.rs`).
//!
//! Streams (a served store's raft logs) are in the log alone, and are worth something only as a whole. So if the
//! directory has some and nothing at all is wrong with it, the log is copied as it is, and the new directory can be
//! served in place of the old one. Otherwise they are not copied, nor is what makes the directory a node: a
//! replica that lost some of what it had acknowledged must not vote. What is left is the data, as in a backup.
//!
//! At the end the new directory is checked, so that damage which was taken over is reported too. A report without
//! problems means that nothing is known to be lost ([`RepairReport::is_whole`]).

use super::check::{CheckReport, Problem, check};
use super::repair_log::has_streams;
use crate::directory::{absolute, lock_to_read, unfinished};
use crate::extent::refuse_damaged;
use crate::log::WAL_DIR;
use crate::table::{
    BlockCache, FinishedTable, TABLES_DIR, TableMeta, TableReader, TableWriter, parse_table_name, sync_tables_dir,
    table_path,
};
use crate::types::TableOptions;
use crate::version::manifest::ManifestContents;
use crate::version::{Rebuilt, TableFacts, Version, read_version_as_it_is, write_fresh};
use crate::vlog::{VALUES_DIR, ValueRefs, parse_value_file_name};
use crate::{Error, Family, Result, SequenceNumber};
use kontiki_env::Env;
use kontiki_env::fs::{OpenMode, list_if_there};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The result of a repair.
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
    /// Versions that were dropped because their value is damaged; the live ones among them are named by the problems.
    pub versions_dropped: u64,
    /// Commits of the log that were saved.
    pub commits: u64,
    /// Log segments that were taken over as they are, because nothing is damaged and streams are in them.
    pub log_segments: u64,
    /// Stream operations of the log that were not copied: a served store's replica is rebuilt from the others.
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

pub(super) struct Repair<'a> {
    pub(super) env: &'a Env,
    pub(super) from: &'a Path,
    pub(super) to: &'a Path,
    pub(super) rebuilt: Rebuilt,
    pub(super) report: RepairReport,
    next_file: u64,
    pub(super) sequence: SequenceNumber,
    pub(super) manifest_is_whole: bool,
    /// Whether what makes the directory a node is left out.
    pub(super) without_node: bool,
    /// Whether there was any.
    pub(super) was_node: bool,
}

/// Saves what can be saved of the database in `from` into `to`, a directory that does not exist or is empty. `from` is
/// not changed; writers are excluded from it meanwhile.
///
/// Errors: `InvalidArgument` if `from` holds nothing of a database or `to` is not empty, `InUse`, `Io`, `NoSpace`.
/// Damage is in the report.
pub fn repair(env: &Env, from: &Path, to: &Path) -> Result<RepairReport> {
    let (from, to) = (&*absolute(env, from)?, &*absolute(env, to)?);
    if !env.fs.exists(from) {
        return Err(Error::InvalidArgument(format!("{} does not exist", from.display())));
    }
    let _lock = lock_to_read(env, from)?;
    unfinished::refuse_unfinished(env, from)?;
    let mut report = RepairReport::default();
    let found = read_what_is_left(env, from, &mut report)?;
    let (tables, values) = (list(env, &from.join(TABLES_DIR))?, list(env, &from.join(VALUES_DIR))?);
    let tables: BTreeSet<u64> = tables.iter().filter_map(|name| parse_table_name(name)).collect();
    let values: BTreeSet<u64> = values.iter().filter_map(|name| parse_value_file_name(name)).collect();
    if found.manifest.is_none() && tables.is_empty() && list(env, &from.join(WAL_DIR))?.is_empty() {
        return Err(Error::InvalidArgument(format!("{} holds nothing of a database", from.display())));
    }
    let keep_log = found.is_whole && has_streams(env, from)? && check(env, from)?.is_sound();
    unfinished::begin(env, to)?;
    for directory in [TABLES_DIR, VALUES_DIR] {
        env.fs.create_dir_all(&to.join(directory)).map_err(|error| Error::io(to, &error))?;
    }
    let next_file = tables.iter().chain(&values).max().map_or(1, |largest| largest + 1);
    let rebuilt = Rebuilt::like(found.version());
    let without_node = !keep_log;
    let was_node = rebuilt.has_any_of(&Family::NODE_STATE);
    let manifest_is_whole = found.is_whole;
    let mut repair =
        Repair { env, from, to, rebuilt, report, next_file, sequence: 0, manifest_is_whole, without_node, was_node };
    repair.tables(found.candidates(&tables))?;
    repair.values(&values)?;
    if keep_log {
        repair.keep_log()?
    } else {
        repair.log()?
    }
    repair.drop_damaged_values()?;
    repair.leave_node_behind()?;
    sync_tables_dir(env, &to.join(TABLES_DIR))?;
    sync_tables_dir(env, &to.join(VALUES_DIR))?;
    let next_file = repair.next_file;
    let whole = if keep_log { repair.rebuilt.finish_with_log(next_file) } else { repair.finish()? };
    write_fresh(env, to, &whole)?;
    unfinished::end(env, to)?;
    let mut report = repair.report;
    report.checked = check(env, to)?;
    report.problems.extend(report.checked.problems.iter().cloned());
    Ok(report)
}

/// The content of the manifest.
struct Left {
    manifest: Option<(ManifestContents, Version)>,
    /// Whether it was read, and is not known to have lost its end.
    is_whole: bool,
}

fn read_what_is_left(env: &Env, from: &Path, report: &mut RepairReport) -> Result<Left> {
    let (manifest, lost) = match read_version_as_it_is(env, from) {
        Ok(found) => found,
        Err(error) => (None, Some(error)),
    };
    report.manifest_read = manifest.is_some();
    let is_whole = manifest.is_some() && lost.is_none();
    lost.map_or(Ok(()), |error| note(report, error))?;
    // The manifest is taken for what it seems to be: nothing says that it has lost its end.
    refuse_damaged(&*env.fs, from).or_else(|error| note(report, error))?;
    Ok(Left { manifest, is_whole })
}

impl Left {
    fn version(&self) -> Option<&Version> {
        self.manifest.as_ref().map(|(_, version)| version)
    }

    /// The tables to save, of those that are there.
    fn candidates(&self, there: &BTreeSet<u64>) -> Vec<Candidate> {
        let tables = self.version().into_iter().flat_map(Version::tables);
        let candidate = |level, table: &Arc<crate::version::Table>| Candidate {
            number: table.meta().number,
            level,
            meta: Some(table.meta().clone()),
            facts: table.facts().clone(),
        };
        if self.is_whole {
            return tables.map(|(_, level, table)| candidate(level, table)).collect();
        }
        // The level of the others is not known; level 0 may hold anything.
        let mut known: BTreeMap<u64, Candidate> =
            tables.map(|(_, _, table)| (table.meta().number, candidate(0, table))).collect();
        let removed = self.manifest.as_ref().map(|(contents, _)| contents.removed_tables()).unwrap_or_default();
        let unknown = there.iter().filter(|number| !removed.contains(number));
        for &number in unknown {
            let unnamed = || Candidate { number, level: 0, meta: None, facts: TableFacts::default() };
            known.entry(number).or_insert_with(unnamed);
        }
        known.into_values().collect()
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
            if self.stays_behind(reader.properties().family()) {
                continue;
            }
            let mut refs = ValueRefs::new();
            let mut damage = Vec::new();
            let mut note_refs = |key: crate::types::KeyRef<'_>, kind, stored: &[u8]| {
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
        let mut add = |key: crate::types::KeyRef<'_>, kind, stored: &[u8]| {
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

    /// Whether it is what makes the directory a node, which is not taken over.
    pub(super) fn stays_behind(&mut self, family: Family) -> bool {
        let of_node = Family::NODE_STATE.contains(&family);
        self.was_node |= of_node;
        of_node && self.without_node
    }

    /// Reports that the new directory is no node any more.
    fn leave_node_behind(&mut self) -> Result<()> {
        if !self.without_node {
            return Ok(());
        }
        self.rebuilt.leave_out(&Family::NODE_STATE);
        if !self.was_node {
            return Ok(());
        }
        let what = "this was the directory of a node. Its identity, its regions and their logs are not copied, because \
                    not all of it could be read: the new directory holds what was in tables, as a backup does, and is \
                    no member of a cluster. What was acknowledged and is only in the raft logs is left out: if the \
                    node still starts with the damaged directory, stop it cleanly and repair that. In a cluster start \
                    the node with an empty directory and --replace-lost-directory \
                    (docs/guide/replace-a-disk.md)";
        note(&mut self.report, Error::Corruption { file: self.from.to_path_buf(), offset: 0, what: what.to_string() })
    }

    fn finish(&mut self) -> Result<crate::version::VersionEdit> {
        for (family, name) in self.rebuilt.invented_names() {
            let what = format!("the name of family {} is lost: it is called {name} now", family.0);
            note(&mut self.report, Error::Corruption { file: self.from.to_path_buf(), offset: 0, what })?;
        }
        Ok(self.rebuilt.finish(self.sequence, self.next_file))
    }

    pub(super) fn new_file(&mut self) -> u64 {
        self.next_file += 1;
        self.next_file - 1
    }
}

/// Records damage; passes on what is no property of the files.
pub(super) fn note(report: &mut RepairReport, error: Error) -> Result<()> {
    match error {
        Error::Corruption { file, offset, what } => report.problems.push(Problem { file, offset, what }),
        Error::UnsupportedFormat { file, what } => report.problems.push(Problem { file, offset: 0, what }),
        other => return Err(other),
    }
    Ok(())
}

/// The names in a directory that may be missing.
pub(super) fn list(env: &Env, dir: &Path) -> Result<Vec<String>> {
    list_if_there(&*env.fs, dir).map_err(|error| Error::io(dir, &error))
}

/// Returns the bytes of the file.
pub(super) fn link_or_copy(env: &Env, from: &Path, to: &Path) -> Result<u64> {
    if env.fs.link(from, to).is_err() {
        return copy(env, from, to);
    }
    let length = env.fs.open(to, OpenMode::Read).and_then(|file| file.len());
    length.map_err(|error| Error::io(to, &error))
}

pub(super) fn copy(env: &Env, from: &Path, to: &Path) -> Result<u64> {
    let length = env.fs.open(from, OpenMode::Read).and_then(|file| file.len());
    let bytes = length.map_err(|error| Error::io(from, &error))?;
    crate::directory::copy_file::copy_file(env, from, to, bytes, &mut |_| ())?;
    Ok(bytes)
}

#[cfg(test)]
#[path = "repair_test.rs"]
mod tests;
