//! `kontiki check`: reads everything a directory holds and reports what is wrong.

use super::check_log::check_log;
use super::check_values::check_values;
use crate::directory::unfinished::refuse_unfinished;
use crate::directory::{absolute, lock_to_read};
use crate::extent::{EXTENT, doubt, refuse_damaged};
use crate::log::WAL_DIR;
use crate::table::{BlockCache, TABLES_DIR, TableMeta, TableReader, verify_table};
use crate::version::manifest::{FORMAT_KEEPS_EXTENT, manifest_path};
use crate::version::{Version, no_database, read_version};
use crate::{Error, Family, Result};
use kontiki_env::Env;
use kontiki_env::fs::list_if_there;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub file: PathBuf,
    /// Where in it.
    pub offset: u64,
    /// What was found.
    pub what: String,
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Manifest edits read.
    pub edits: u64,
    /// Whether the manifest ends in a torn append, which the next open cuts: the trace of a crash, not a problem.
    pub manifest_torn: bool,
    /// Column families.
    pub families: u64,
    /// Tables read.
    pub tables: u64,
    /// Data blocks read.
    pub blocks: u64,
    /// Versions read, tombstones included.
    pub versions: u64,
    /// Bytes of the tables.
    pub table_bytes: u64,
    /// Value files in the manifest.
    pub value_files: u64,
    /// Bytes of those that are sealed.
    pub value_bytes: u64,
    /// Values read: those that the newest version of a key in tables points to.
    pub values: u64,
    /// Values that are damaged and that nothing refers to: usually torn by a crash. Not a problem: no reader reads
    /// them.
    pub torn_values: u64,
    /// Log segments read.
    pub log_segments: u64,
    /// Log records read.
    pub log_records: u64,
    /// Bytes of log records read.
    pub log_bytes: u64,
    /// Whether the last process ended without closing the database: the next open cuts what a crash tore, if anything.
    /// Not a problem.
    pub log_unclean: bool,
    /// What is wrong; empty for a sound directory.
    pub problems: Vec<Problem>,
    /// What a crash, a copy or a full disk leaves, and damage may leave as well: not problems, and with them it is not
    /// known whether something is lost.
    pub notes: Vec<Problem>,
}

impl CheckReport {
    /// Whether nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.problems.is_empty()
    }

    /// Records damage and continues; passes on what is no property of the files (an I/O error).
    pub(crate) fn note(&mut self, error: Error) -> Result<()> {
        match error {
            Error::Corruption { file, offset, what } => self.problems.push(Problem { file, offset, what }),
            Error::UnsupportedFormat { file, what } => self.problems.push(Problem { file, offset: 0, what }),
            other => return Err(other),
        }
        Ok(())
    }

    /// The same, for damage that may have been found before.
    pub(super) fn note_once(&mut self, error: Error) -> Result<()> {
        if let Error::Corruption { file, offset, .. } = &error
            && self.problems.iter().any(|problem| problem.file == *file && problem.offset == *offset)
        {
            return Ok(());
        }
        self.note(error)
    }
}

/// Checks the database in `dir` without changing it: the manifest, the order of levels, every block of every table,
/// every record of the value log and of the log. Holds a lock meanwhile that excludes writers and works where nothing
/// can be written.
///
/// Errors: `InvalidArgument` if there is no database; `InUse` if it is open; `Io` if a file cannot be read. Damage is
/// in the report.
pub fn check(env: &Env, dir: &Path) -> Result<CheckReport> {
    let dir = &*absolute(env, dir)?;
    let mut report = CheckReport::default();
    if !env.fs.exists(dir) {
        return Err(Error::InvalidArgument(format!("{} does not exist", dir.display())));
    }
    let _lock = lock_to_read(env, dir)?;
    refuse_unfinished(env, dir)?;
    let (version, keeps_extent) = match read_version(env, dir) {
        Ok(Some((contents, version))) => {
            report.edits = contents.edits.len() as u64;
            report.manifest_torn = contents.torn;
            tracing::debug!(manifest = %manifest_path(dir, contents.number).display(), "checking");
            (version, contents.format >= FORMAT_KEEPS_EXTENT)
        }
        Ok(None) => {
            report.note(no_database(env, dir))?;
            return Ok(report);
        }
        Err(error) => {
            report.note(error)?;
            return Ok(report);
        }
    };
    if keeps_extent {
        check_extent(env, dir, &mut report)?;
    }
    check_version(env, dir, &version, &mut report)?;
    let mut suspects = Suspects::new();
    check_values(env, dir, &version, &mut report, &mut suspects)?;
    if let Err(error) = check_log(env, dir, &version, &mut report, &mut suspects) {
        report.note(error)?;
    }
    report.torn_values = suspects.len() as u64;
    Ok(report)
}

/// Damaged records of value segments: file and offset, and what is wrong. Removed when a reference to them is found.
/// them.
pub(super) type Suspects = BTreeMap<(u64, u64), &'static str>;

/// Whether it is known how far manifest and log have to reach.
fn check_extent(env: &Env, dir: &Path, report: &mut CheckReport) -> Result<()> {
    if let Err(error) = refuse_damaged(&*env.fs, dir) {
        return report.note(error);
    }
    // Before the first segment of the log nothing can be recorded.
    let has_log = list_if_there(&*env.fs, &dir.join(WAL_DIR)).is_ok_and(|names| !names.is_empty());
    if let Some(what) = doubt(&*env.fs, dir)?.filter(|_| has_log) {
        report.notes.push(Problem { file: dir.join(EXTENT), offset: 0, what: what.to_string() });
    }
    Ok(())
}

fn check_version(env: &Env, dir: &Path, version: &Version, report: &mut CheckReport) -> Result<()> {
    let tables_dir = dir.join(TABLES_DIR);
    report.families = version.families().len() as u64;
    for (family, _, table) in version.tables() {
        report.tables += 1;
        report.table_bytes += table.meta().file_bytes;
        if let Err(error) = check_table(env, &tables_dir, family, table.meta(), report) {
            report.note(error)?;
        }
    }
    Ok(())
}

fn check_table(env: &Env, tables_dir: &Path, family: Family, meta: &TableMeta, report: &mut CheckReport) -> Result<()> {
    let reader = Arc::new(TableReader::open(env, tables_dir, meta, Arc::new(BlockCache::new(0)))?);
    report.blocks += reader.block_count();
    report.versions += verify_table(&reader, family, meta)?;
    Ok(())
}

#[cfg(test)]
#[path = "check_test.rs"]
mod tests;
