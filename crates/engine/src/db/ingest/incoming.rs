//! The files of an ingest before they are in a version.

use crate::compaction::{CompactionContext, ExpirySample};
use crate::directory::copy_file::copy_file;
use crate::log::IngestedTable;
use crate::table::{
    BlockCache, FinishedTable, INGESTED_SEQUENCE, TableCursor, TableMeta, TableReader, sync_tables_dir, table_path,
};
use crate::types::{Cursor, Decoded, EXPIRY_BYTES};
use crate::version::TableFacts;
use crate::vlog::ValueRefs;
use crate::{Direction, Error, Family, KEY_BYTES_MAX, Result, SequenceNumber, VALUE_BYTES_MAX};
use kontiki_env::fs::OpenMode;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A file that is in the directory of tables, and in no version yet.
pub(super) struct IncomingTable {
    source: PathBuf,
    pub(super) linked: bool,
    pub(super) family: Family,
    /// As read from the file: its sequence numbers are not valid yet.
    pub(super) meta: TableMeta,
    facts: TableFacts,
}

impl IncomingTable {
    /// What the manifest records of it if it counts as written at this number.
    pub(super) fn finished_at(&self, sequence: SequenceNumber) -> (FinishedTable, TableFacts) {
        let meta = TableMeta {
            smallest_sequence: sequence,
            largest_sequence: sequence,
            global_sequence: Some(sequence),
            ..self.meta.clone()
        };
        // It is newer than every range tombstone, so none hides anything of it.
        let facts = TableFacts { ranges_applied: sequence, ..self.facts.clone() };
        (FinishedTable { family: self.family, meta, values: ValueRefs::new() }, facts)
    }
}

/// The tables of one ingest. Files that were brought in are removed again, unless they are kept.
pub(super) struct Incoming<'a> {
    context: &'a CompactionContext,
    /// Names of files to remove on drop.
    brought: Vec<PathBuf>,
    pub(super) tables: Vec<IncomingTable>,
}

impl<'a> Incoming<'a> {
    pub(super) fn new(context: &'a CompactionContext) -> Incoming<'a> {
        Incoming { context, brought: Vec::new(), tables: Vec::new() }
    }

    /// Brings a file into the directory of tables, its content durable, and reads its properties.
    pub(super) fn bring_in(&mut self, source: &Path, move_file: bool) -> Result<()> {
        let env = &self.context.env;
        let number = self.context.versions.new_file_number();
        let path = table_path(self.context.versions.tables_dir(), number);
        let io = |error: std::io::Error| Error::io(source, &error);
        let bytes = env.fs.open(source, OpenMode::Read).and_then(|file| file.len()).map_err(io)?;
        let linked = match if move_file { env.fs.link(source, &path) } else { Err(ErrorKind::Unsupported.into()) } {
            Ok(()) => true,
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(io(error)),
            // Not requested; or another file system, or one without links.
            Err(_) => false,
        };
        self.brought.push(path.clone());
        if linked {
            // The builder may have left that to the system.
            let file = env.fs.open(&path, OpenMode::Read).map_err(io)?;
            file.sync().map_err(|error| Error::failed_sync(source, &error))?;
        } else {
            copy_file(env, source, &path, bytes, &mut |_| ())?;
        }
        let file = env.fs.open(&path, OpenMode::Read).map_err(|error| Error::io(&path, &error))?;
        let cache = Arc::new(BlockCache::new(0));
        let reader =
            TableReader::open_file(path, number, file, bytes, cache).map_err(|error| of_source(error, source))?;
        let found = reader.properties();
        if (found.smallest_sequence, found.largest_sequence) != (INGESTED_SEQUENCE, INGESTED_SEQUENCE) {
            return refuse(source, "it is a table of a database; only tables of an IngestWriter can be ingested");
        }
        let meta = TableMeta::of(found, number, bytes);
        if !meta.is_plausible() {
            return refuse(source, "it has bounds or counts that no table can have");
        }
        let family = found.family();
        let version = self.context.versions.current();
        if version.family(family).is_none() {
            return Err(version.no_family(family));
        }
        let source = source.to_path_buf();
        self.tables.push(IncomingTable { source, linked, family, meta, facts: TableFacts::default() });
        Ok(())
    }

    /// Makes the names durable, reads every version of every file, and refuses files that overlap.
    pub(super) fn verify(&mut self) -> Result<()> {
        sync_tables_dir(&self.context.env, self.context.versions.tables_dir())?;
        let mut by_key: Vec<_> = self.tables.iter().collect();
        by_key.sort_by(|a, b| (a.family, &a.meta.smallest_key).cmp(&(b.family, &b.meta.smallest_key)));
        let overlap =
            |pair: &&[&IncomingTable]| pair[0].family == pair[1].family && pair[0].meta.overlaps(&pair[1].meta);
        if let Some([one, other]) = by_key.windows(2).find(overlap) {
            let other = other.source.display();
            let why = format!("its keys overlap those of {other}; ingest them one after the other");
            return refuse(&one.source, &why);
        }
        let now_ms = self.context.env.clock.wall_ms();
        for table in &mut self.tables {
            let expiries = walk(self.context, table).map_err(|error| of_source(error, &table.source))?;
            table.facts = TableFacts {
                ranges_applied: 0,
                created_at_ms: now_ms,
                first_expires_at_ms: expiries.first_expires_at_ms(),
                half_expired_at_ms: expiries.half_expired_at_ms(),
            };
        }
        Ok(())
    }

    /// The log's record of them.
    pub(super) fn log_entries(&self) -> Vec<IngestedTable> {
        let entry = |table: &IncomingTable| IngestedTable {
            family: table.family,
            number: table.meta.number,
            smallest_key: table.meta.smallest_key.clone(),
            largest_key: table.meta.largest_key.clone(),
        };
        self.tables.iter().map(entry).collect()
    }

    /// The files belong to the database now, or may.
    pub(super) fn keep(&mut self) {
        self.brought.clear();
    }

    /// Removes the old names of files that were moved, as well as the disk allows.
    pub(super) fn remove_sources(&self) {
        for table in &self.tables {
            if let Err(error) = self.context.env.fs.remove(&table.source) {
                tracing::warn!(file = %table.source.display(), %error, "it was ingested, and its old name stays");
            }
        }
    }
}

impl Drop for Incoming<'_> {
    fn drop(&mut self) {
        for path in &self.brought {
            match self.context.env.fs.remove(path) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    tracing::debug!(file = %path.display(), %error, "a file of a failed ingest stays until the next open");
                }
                _ => {}
            }
        }
    }
}

/// Reads every version: order, bounds, counts, kinds, sizes and the filter must be those of a table that can be taken
/// in.
fn walk(context: &CompactionContext, table: &IncomingTable) -> Result<ExpirySample> {
    let (meta, source) = (&table.meta, &table.source);
    let tables_dir = context.versions.tables_dir();
    let reader = Arc::new(TableReader::open(&context.env, tables_dir, meta, Arc::new(BlockCache::new(0)))?);
    let mut cursor = TableCursor::for_one_pass(reader.clone(), Direction::Forward);
    let mut expiries = ExpirySample::default();
    let (mut entries, mut tombstones) = (0, 0);
    let mut last: Option<Vec<u8>> = None;
    cursor.seek_to_first()?;
    while cursor.valid() {
        let (key, kind, stored) = (cursor.key(), cursor.kind(), cursor.stored_slice());
        let ascends = last.as_deref().is_none_or(|last| last < key.user_key);
        if !ascends || key.sequence != INGESTED_SEQUENCE || !meta.spans(key.user_key) {
            return refuse(source, &format!("its entry {entries} is out of order"));
        }
        if kind.is_pointer() {
            return refuse(source, "it has a pointer into a value log, which means nothing elsewhere");
        }
        let value_bytes = stored.len().saturating_sub(if kind.expires() { EXPIRY_BYTES } else { 0 });
        if key.user_key.len() > KEY_BYTES_MAX || value_bytes > VALUE_BYTES_MAX {
            return refuse(source, &format!("its entry {entries} has a key or a value beyond the limits"));
        }
        let Ok(decoded) = Decoded::new(kind, stored) else {
            return refuse(source, &format!("its entry {entries} is malformed"));
        };
        if !reader.may_contain(key.user_key) {
            return refuse(source, &format!("its filter does not know its entry {entries}"));
        }
        expiries.note(decoded.expires_at_ms);
        entries += 1;
        tombstones += u64::from(kind.is_delete());
        let kept = last.get_or_insert_default();
        kept.clear();
        kept.extend_from_slice(key.user_key);
        cursor.advance()?;
    }
    let ends = last.as_deref() == Some(meta.largest_key.as_ref());
    if !ends || (entries, tombstones) != (meta.entries, meta.tombstones) {
        return refuse(source, "it does not hold what it says of itself");
    }
    Ok(expiries)
}

fn refuse<T>(source: &Path, why: &str) -> Result<T> {
    Err(Error::InvalidArgument(format!("{} cannot be ingested: {why}", source.display())))
}

/// Errors name the file that was given, not its temporary name.
fn of_source(error: Error, source: &Path) -> Error {
    match error {
        Error::Corruption { offset, what, .. } => Error::Corruption { file: source.to_path_buf(), offset, what },
        Error::UnsupportedFormat { what, .. } => Error::UnsupportedFormat { file: source.to_path_buf(), what },
        other => other,
    }
}
