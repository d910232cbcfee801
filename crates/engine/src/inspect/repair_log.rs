//! The log of a repair.

use super::repair::{Repair, copy, list, note};
use crate::log::{
    RecordKind, WAL_DIR, decode_commit, refuse_missing_segments, segment_name, segment_number, whole_records,
};
use crate::memtable::{Memtable, MemtableCursor};
use crate::table::{TABLES_DIR, TableWriter, sync_tables_dir};
use crate::types::{BatchEntry, Cursor, TableOptions};
use crate::version::TableFacts;
use crate::{Direction, Error, Family, Result, SequenceNumber};
use kontiki_env::Env;
use kontiki_env::fs::read_all;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

fn segments(env: &Env, wal: &Path) -> Result<BTreeSet<u64>> {
    Ok(list(env, wal)?.iter().filter_map(|name| segment_number(name)).collect())
}

/// Whether the log of the database in `dir` holds anything of streams.
pub(super) fn has_streams(env: &Env, dir: &Path) -> Result<bool> {
    let wal = dir.join(WAL_DIR);
    for number in segments(env, &wal)? {
        let path = wal.join(segment_name(number));
        let bytes = read_all(&*env.fs, &path).map_err(|error| Error::io(&path, &error))?;
        for record in whole_records(&path, number, &bytes).records {
            let commit =
                || decode_commit(record.sequence, record.payload).is_ok_and(|commit| !commit.streams.is_empty());
            if record.kind == RecordKind::Rewrite || record.kind == RecordKind::Commit && commit() {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

impl Repair<'_> {
    /// Copies the log as it is. Its segments are copied: the next open writes to them.
    pub(super) fn keep_log(&mut self) -> Result<()> {
        let (from, to) = (self.from.join(WAL_DIR), self.to.join(WAL_DIR));
        self.env.fs.create_dir_all(&to).map_err(|error| Error::io(&to, &error))?;
        for number in segments(self.env, &from)? {
            let name = segment_name(number);
            copy(self.env, &from.join(&name), &to.join(&name))?;
            self.report.log_segments += 1;
        }
        sync_tables_dir(self.env, &to)
    }

    /// Every whole record of the log, also behind damaged ones; what was flushed already is in tables.
    pub(super) fn log(&mut self) -> Result<()> {
        let wal = self.from.join(WAL_DIR);
        refuse_missing_segments(&*self.env.fs, self.from).or_else(|error| note(&mut self.report, error))?;
        let flushed = self.rebuilt.flushed_sequence();
        let mut commits = BTreeMap::new();
        let mut numbers_met = BTreeSet::new();
        for number in segments(self.env, &wal)? {
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
        families.retain(|family| !self.stays_behind(*family) && !self.rebuilt.is_dropped(*family));
        families.into_iter().try_for_each(|family| self.memtable_to_table(&memtable, family))
    }

    /// Sequence numbers are assigned one after the other, so those that are missing between what was flushed and the
    /// end of the log were commits. In a served store applied entries are in no log record; there nothing is known.
    fn note_gaps(&mut self, wal: &Path, flushed: SequenceNumber, met: &BTreeSet<SequenceNumber>) -> Result<()> {
        if self.report.stream_ops_lost > 0 || !self.manifest_is_whole {
            return Ok(());
        }
        let mut last = flushed;
        for number in met.range(flushed + 1..) {
            // A copy may begin with a table that is newer than the flushed sequence number in its manifest.
            if *number > last + 1 && *number - 1 != self.sequence {
                let (first, end) = (last + 1, number - 1);
                let what = format!(
                    "the log misses the commits with the sequence numbers {first} to {end}: they are lost, or were \
                     made with Durability::Derived"
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
}
