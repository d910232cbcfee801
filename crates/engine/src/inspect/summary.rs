//! What a directory holds, without reading its data: the manifest, and the properties of its files.

use crate::log::{SegmentSummary, WAL_DIR, is_free_name, segment_number, summarize_segment};
use crate::table::{TABLES_DIR, TableMeta, TableReader, properties::Properties};
use crate::version::manifest::manifest_path;
use crate::version::{Version, no_database, read_version};
use crate::{Error, Family, Result, SequenceNumber};
use kontiki_env::Env;
use kontiki_env::fs::{OpenMode, list_if_there, read_all};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The manifest's content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// The manifest in use.
    pub manifest: PathBuf,
    /// Its edits.
    pub edits: u64,
    /// Whether it ends in a torn append, which the next open cuts.
    pub torn: bool,
    /// Every write at or below it is in tables.
    pub flushed_sequence: SequenceNumber,
    /// The families, by number.
    pub families: Vec<FamilySummary>,
    /// Value files, by number.
    pub value_files: Vec<ValueFileSummary>,
    /// The log's files.
    pub log: LogFiles,
}

/// The log's files, by their sizes: the size of a segment is its capacity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogFiles {
    /// Segments.
    pub segments: u64,
    /// Their bytes.
    pub segment_bytes: u64,
    /// Files that wait to be segments again.
    pub free: u64,
    /// Their bytes.
    pub free_bytes: u64,
}

/// One family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FamilySummary {
    /// Its number.
    pub family: u32,
    /// Its name.
    pub name: String,
    /// Range tombstones, in addition to its tables.
    pub range_tombstones: u64,
    /// Its tables, level by level, level 0 first.
    pub levels: Vec<Vec<TableMeta>>,
}

/// One value file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ValueFileSummary {
    /// Its number.
    pub number: u64,
    /// Its bytes when it was sealed; `None` if it was not.
    pub sealed_bytes: Option<u64>,
    /// Segments whose values were relocated into it.
    pub relocated_segments: u64,
    /// Bytes of values that tables refer to.
    pub live_bytes: u64,
}

/// One log segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogSegment {
    /// Its number.
    pub number: u64,
    /// Bytes of its file.
    pub file_bytes: u64,
    /// What is in it.
    pub summary: SegmentSummary,
}

/// Reads the manifest of `dir`. Changes nothing, and needs no lock: a writer may be active.
///
/// Errors: `InvalidArgument` if there is no database; `Corruption`, `UnsupportedFormat` and `Io` of the manifest.
pub fn summarize(env: &Env, dir: &Path) -> Result<Summary> {
    let Some((contents, version)) = read_version(env, dir)? else {
        return Err(no_database(env, dir));
    };
    Ok(Summary {
        manifest: manifest_path(dir, contents.number),
        edits: contents.edits.len() as u64,
        torn: contents.torn,
        flushed_sequence: version.flushed_sequence(),
        families: version.families().iter().map(|(family, levels)| summarize_family(family, levels)).collect(),
        value_files: value_files(&version),
        log: log_files(env, dir)?,
    })
}

fn summarize_family(family: Family, levels: &crate::version::FamilyLevels) -> FamilySummary {
    let metas = |tables: &Vec<Arc<crate::version::Table>>| tables.iter().map(|table| table.meta().clone()).collect();
    FamilySummary {
        family: family.0,
        name: levels.name.clone(),
        range_tombstones: levels.range_tombstones.len() as u64,
        levels: levels.levels.iter().map(metas).collect(),
    }
}

fn value_files(version: &Version) -> Vec<ValueFileSummary> {
    let values = version.values();
    let file = |(&number, state): (&u64, &crate::version::ValueFileState)| {
        let moved = values.relocated().iter().filter(|(_, file)| **file == number).map(|(segment, _)| *segment);
        let moved: Vec<u64> = moved.collect();
        let own = (!values.relocated().contains_key(&number)).then_some(number);
        let live = moved.iter().copied().chain(own).map(|segment| values.referred().bytes_of(segment)).sum();
        ValueFileSummary {
            number,
            sealed_bytes: state.sealed_bytes(),
            relocated_segments: moved.len() as u64,
            live_bytes: live,
        }
    };
    values.files().iter().map(file).collect()
}

fn log_files(env: &Env, dir: &Path) -> Result<LogFiles> {
    let (wal, mut found) = (dir.join(WAL_DIR), LogFiles::default());
    for name in list_if_there(&*env.fs, &wal).map_err(|error| Error::io(&wal, &error))? {
        let (count, bytes) = match segment_number(&name) {
            Some(_) => (&mut found.segments, &mut found.segment_bytes),
            None if is_free_name(&name) => (&mut found.free, &mut found.free_bytes),
            None => continue,
        };
        let path = wal.join(&name);
        match env.fs.open(&path, OpenMode::Read).and_then(|file| file.len()) {
            Ok(length) => (*count, *bytes) = (*count + 1, *bytes + length),
            // An active writer renames and removes them.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io(&path, &error)),
        }
    }
    Ok(found)
}

/// Reads every log segment of `dir`, oldest first. Changes nothing.
///
/// Errors: `Corruption` and `UnsupportedFormat` with the file; `Io`.
pub fn log_segments(env: &Env, dir: &Path) -> Result<Vec<LogSegment>> {
    let wal = dir.join(WAL_DIR);
    let names = list_if_there(&*env.fs, &wal).map_err(|error| Error::io(&wal, &error))?;
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| segment_number(name)).collect();
    numbers.sort_unstable();
    let segment = |number: u64| {
        let path = wal.join(crate::log::segment_name(number));
        let bytes = read_all(&*env.fs, &path).map_err(|error| Error::io(&path, &error))?;
        let summary = summarize_segment(&path, number, &bytes)?;
        Ok(LogSegment { number, file_bytes: bytes.len() as u64, summary })
    };
    numbers.into_iter().map(segment).collect()
}

/// The properties of a table.
///
/// Errors: `InvalidArgument` if the manifest names no such table; `Corruption`, `Io`.
pub fn table_properties(env: &Env, dir: &Path, number: u64) -> Result<Properties> {
    let Some((_, version)) = read_version(env, dir)? else {
        return Err(no_database(env, dir));
    };
    let table = version.tables().find(|(_, _, table)| table.meta().number == number);
    let (_, _, table) = table.ok_or_else(|| Error::InvalidArgument(format!("the manifest names no table {number}")))?;
    let cache = Arc::new(crate::table::BlockCache::new(0));
    let reader = TableReader::open(env, &dir.join(TABLES_DIR), table.meta(), cache)?;
    Ok(reader.properties().clone())
}

#[cfg(test)]
#[path = "summary_test.rs"]
mod tests;
