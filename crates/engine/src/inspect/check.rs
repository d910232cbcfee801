//! `kontiki check`: reads everything a directory holds and reports what is wrong.

use super::check_log::check_log;
use super::check_values::check_values;
use crate::cache::BlockCache;
use crate::db::open::{absolute, lock_directory};
use crate::iterator::{Cursor, KeyRef};
use crate::table::{TABLES_DIR, TableCursor, TableMeta, TableReader};
use crate::version::manifest::manifest_path;
use crate::version::{Version, read_version};
use crate::{Direction, Error, Family, Result};
use kontiki_env::Env;
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
}

impl CheckReport {
    /// Whether nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.problems.is_empty()
    }

    /// Records damage and goes on; passes on what is no property of the files (an I/O error).
    pub(crate) fn note(&mut self, error: Error) -> Result<()> {
        match error {
            Error::Corruption { file, offset, what } => self.problems.push(Problem { file, offset, what }),
            Error::UnsupportedFormat { file, what } => self.problems.push(Problem { file, offset: 0, what }),
            other => return Err(other),
        }
        Ok(())
    }
}

/// Checks the database in `dir` without changing it: the manifest, the order of levels, every block of every table,
/// every live value, and every record of the log. Holds the directory's lock meanwhile.
///
/// Errors: `InvalidArgument` if there is no database; `InUse` if it is open; `Io` if a file cannot be read. Damage is
/// in the report.
pub fn check(env: &Env, dir: &Path) -> Result<CheckReport> {
    let dir = &*absolute(env, dir)?;
    let mut report = CheckReport::default();
    if !env.fs.exists(dir) {
        return Err(Error::InvalidArgument(format!("{} does not exist", dir.display())));
    }
    let _lock = lock_directory(env, dir)?;
    let version = match read_version(env, dir) {
        Ok(Some((contents, version))) => {
            report.edits = contents.edits.len() as u64;
            report.manifest_torn = contents.torn;
            tracing::debug!(manifest = %manifest_path(dir, contents.number).display(), "checking");
            version
        }
        Ok(None) => {
            let message = format!("{} holds no database: there is no CURRENT", dir.display());
            return Err(Error::InvalidArgument(message));
        }
        Err(error) => {
            report.note(error)?;
            return Ok(report);
        }
    };
    check_version(env, dir, &version, &mut report)?;
    check_values(env, dir, &version, &mut report)?;
    if let Err(error) = check_log(env, dir, &version, &mut report) {
        report.note(error)?;
    }
    Ok(report)
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

/// Walks over every version of a table: order, bounds, counts and filter must agree with what the table and the
/// manifest say.
fn check_table(env: &Env, tables_dir: &Path, family: Family, meta: &TableMeta, report: &mut CheckReport) -> Result<()> {
    let reader = Arc::new(TableReader::open(env, tables_dir, meta, Arc::new(BlockCache::new(0)))?);
    let corrupt = |what: String| Error::Corruption { file: reader.path().to_path_buf(), offset: 0, what };
    if reader.properties().family() != family {
        return Err(corrupt(format!("the table is of {:?}, not of {family:?}", reader.properties().family())));
    }
    report.blocks += reader.block_count();
    let mut cursor = TableCursor::new(reader.clone(), Direction::Forward);
    let mut last: Option<(Vec<u8>, u64)> = None;
    let (mut entries, mut tombstones) = (0, 0);
    cursor.seek_to_first()?;
    while cursor.valid() {
        let key = cursor.key();
        if last.as_ref().is_some_and(|(user_key, sequence)| KeyRef::new(user_key, *sequence) >= key) {
            return Err(corrupt(format!("version {entries} of the table is out of order")));
        }
        if !meta.spans(key.user_key) || key.sequence < meta.smallest_sequence || key.sequence > meta.largest_sequence {
            return Err(corrupt(format!("version {entries} of the table is outside of its bounds")));
        }
        if !reader.may_contain(key.user_key) {
            return Err(corrupt(format!("the table's filter does not know its version {entries}")));
        }
        entries += 1;
        tombstones += u64::from(cursor.kind().is_delete());
        last = Some((key.user_key.to_vec(), key.sequence));
        cursor.advance()?;
    }
    report.versions += entries;
    if entries != meta.entries || tombstones != meta.tombstones {
        let (said, hidden) = (meta.entries, meta.tombstones);
        return Err(corrupt(format!(
            "the table holds {entries} versions and {tombstones} tombstones; the manifest says {said} and {hidden}"
        )));
    }
    Ok(())
}

#[cfg(test)]
#[path = "check_test.rs"]
mod tests;
