//! Ingests tables that were built outside.
//!
//! 1. The files come into the directory of tables under new numbers, by a link or a copy, are synced, and are
//!    then read from end to end. A crash until step 6 leaves files that the next open removes.
//! 2. Compactions are excluded from the key ranges, until the end.
//! 3. Reads search memtables first, so what memtables hold in these ranges is flushed; the most of it before 4.
//! 4. Commits are held off (as if memory were full), and what has come into these ranges since 3 is flushed too.
//! 5. The ingest gets its sequence number, the global number of all its tables, and leaves a record in the log
//!    (`log/ingested.rs`). Commits continue: they get numbers, but do not become visible before the ingest does.
//! 6. Once the record is durable, one edit puts the tables into the version: into the deepest level that they reach
//!    without passing a table that overlaps them, or into level 0.
//! 7. The number becomes visible, in its place. So a snapshot has all of the ingest or nothing of it, conditions of
//!    commits see its keys as written at its number, and a commit that was answered after the ingest is newer.
//!
//! Between 5 and 7 the sync of the log needs the lock that orders commits. So a commit with conditions, which has to
//! see the ingest's keys, waits for step 6 without that lock (`write/pipeline.rs`).

mod incoming;

use self::incoming::Incoming;
use super::Core;
use super::write::WritePath;
use super::write::memtable_slot::Ticket;
use super::write::pipeline::Insertion;
use super::write::visibility::Due;
use crate::compaction::in_flight::Claim;
use crate::compaction::{Targets, keep_away};
use crate::directory::absolute;
use crate::log::{Appended, Need, Outgoing, RecordKind, encode_ingested};
use crate::memtable::{Memtable, MemtableCursor};
use crate::table::TableMeta;
use crate::types::{Cursor, KeyRef, LEVEL_COUNT};
use crate::version::{FamilyLevels, VersionEdit};
use crate::{Db, Direction, Family, Result, SequenceNumber};
use std::path::Path;
use std::sync::Arc;

/// How tables are ingested. Start from the default and change fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IngestOptions {
    /// The files become files of the database: they are linked, where the file system can, and their old names are
    /// removed once they are ingested. They must not be written to any more. Default false: they are copied, and stay.
    pub move_file: bool,
}

/// The result of an ingest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IngestReport {
    /// All keys of all tables count as written at this number.
    pub sequence: SequenceNumber,
    /// Tables ingested.
    pub tables: u64,
    /// Of these, linked and not copied.
    pub linked: u64,
    /// Of these, those that were put into level 0, because existing data overlapped them.
    pub in_level0: u64,
    /// Keys in them, deleted ones included.
    pub entries: u64,
    /// Bytes of the files.
    pub bytes: u64,
}

impl Db {
    /// Ingests tables that were built by an [`IngestWriter`](crate::IngestWriter), as one write: after any crash all
    /// of it is there or nothing, and every reader sees all of it or nothing. It is newer than everything that was
    /// answered before, and survives power loss when this returns. Each key costs one write of the disk instead of
    /// three or more.
    ///
    /// Every byte of the files is checked first. Values stay in the tables, also large ones. Other writes wait for a
    /// moment; if memory holds keys in the range of a file, for a flush. A subscriber of the change feed learns that
    /// there was an ingest and which ranges it touches, and has to read them: the keys are not in the log.
    ///
    /// Errors: [`crate::Error::InvalidArgument`] for files of a family that is not there, that overlap each other, or
    /// that no `IngestWriter` made; [`crate::Error::Corruption`] for damaged ones; [`crate::Error::FamilyDropped`];
    /// [`crate::Error::NoSpace`] and [`crate::Error::Io`] for what can be tried again; [`crate::Error::Stopped`],
    /// [`crate::Error::Closed`]. Nothing was taken in then; but after an error that stopped writes ([`Db::stats`]) that
    /// is unknown until the database is opened again.
    pub fn ingest<P: AsRef<Path>>(&self, files: &[P], options: IngestOptions) -> Result<IngestReport> {
        let core = self.core();
        let _here = core.enter_foreground()?;
        let mut incoming = Incoming::new(&core.shared().context);
        let files: Vec<_> =
            files.iter().map(|file| absolute(&core.shared().env, file.as_ref())).collect::<Result<_>>()?;
        for file in &files {
            incoming.bring_in(file, options.move_file)?;
        }
        if incoming.tables.is_empty() {
            return Ok(IngestReport { sequence: core.write.memtables.visible(), ..IngestReport::default() });
        }
        incoming.verify()?;
        let (sequence, in_level0) = core.ingest(&mut incoming)?;
        if options.move_file {
            incoming.remove_sources();
        }
        let sum = |of: fn(&TableMeta) -> u64| incoming.tables.iter().map(|table| of(&table.meta)).sum();
        let (tables, bytes) = (incoming.tables.len() as u64, sum(|meta| meta.file_bytes));
        core.shared().counters.note_ingest(tables, bytes);
        Ok(IngestReport {
            sequence,
            tables,
            linked: incoming.tables.iter().filter(|table| table.linked).count() as u64,
            in_level0,
            entries: sum(|meta| meta.entries),
            bytes,
        })
    }
}

/// Commits are held back while it exists.
struct Hold<'a>(&'a WritePath);

impl<'a> Hold<'a> {
    fn new(write: &'a WritePath) -> Hold<'a> {
        write.memtables.set_held(true);
        Hold(write)
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.0.memtables.set_held(false);
        self.0.shared.progress.update(|_| ()); // Wakes those that wait for capacity.
        self.0.shared.jobs.wake_commit();
    }
}

impl Core {
    /// Steps 2 to 7; returns the number, and how many tables went to level 0.
    fn ingest(&self, incoming: &mut Incoming<'_>) -> Result<(SequenceNumber, u64)> {
        let _one = self.foreground.ingest.lock();
        let _away = keep_away(
            &self.shared().context,
            incoming.tables.iter().map(|table| claim(table.family, &table.meta)).collect(),
        )?;
        if self.memory_overlaps(incoming)? {
            self.write.flush_all()?;
        }
        let (mut ticket, levels, log_end) = {
            let _hold = Hold::new(&self.write);
            // Threads that insert need nothing that is held here.
            self.write.memtables.visibility.wait_all_inserted();
            if self.memory_overlaps(incoming)? {
                self.write.flush_all()?;
            }
            let levels = self.levels_for(incoming)?;
            if levels.contains(&0) {
                // Overlapping tables of level 0 have numbers wholly below or above each other's.
                self.write.memtables.freeze_active();
                self.shared().jobs.wake_flush();
            }
            let (ticket, appended) = self.begin_ingest(incoming)?;
            (ticket, levels, appended.end)
        };
        let sequence = ticket.sequence;
        // Later commits wait for it, whether it succeeds or fails.
        let insertion = Insertion::new(&self.write, &mut ticket, None);
        let durable = self.write.wait_due(Due { sequence: 0, log_end });
        let installed = durable.and_then(|()| self.install_ingested(incoming, &levels, sequence));
        drop(insertion);
        installed?;
        self.write.wait_due(ticket.due())?;
        self.write.memtables.completions.run();
        self.shared().jobs.wake_compact();
        tracing::info!(sequence, tables = levels.len(), "tables ingested");
        Ok((sequence, levels.iter().filter(|level| **level == 0).count() as u64))
    }

    /// Step 5.
    fn begin_ingest(&self, incoming: &Incoming<'_>) -> Result<(Ticket, Appended)> {
        let payload = encode_ingested(&incoming.log_entries());
        let record = Outgoing::new(RecordKind::Ingest, [&payload, &[]]);
        let mut log = self.write.log.writer.lock();
        let _unwinding = self.write.unwinding("an ingest on its way into the log");
        self.shared().health.check_writable()?;
        let version = self.shared().context.versions.current();
        incoming.tables.iter().try_for_each(|table| self.write.check_family(&version, table.family))?;
        let newest = self.write.log.segments.newest();
        let mut at = None;
        let begun = self.write.memtables.begin_held(|sequence| {
            let appended = self.write.append(&mut log, &record, sequence, Need::SyncedAndRead)?;
            at = Some(appended);
            Ok(appended)
        });
        if let Ok(ticket) = &begun {
            self.write.log.set_last_sequence(ticket.sequence);
        }
        let rotated = self.write.log.segments.newest() != newest;
        drop(log);
        if rotated {
            self.shared().jobs.wake_log();
            self.shared().jobs.wake_flush();
        }
        match begun {
            Ok(ticket) => Ok((ticket, at.expect("a number was given for what was appended"))),
            Err(error) => {
                if !error.is_retryable() {
                    self.write.stop(&error);
                }
                Err(error)
            }
        }
    }

    /// Step 6. From this call on the files no longer belong to the caller, unless the edit surely did not get into the
    /// manifest.
    fn install_ingested(&self, incoming: &mut Incoming<'_>, levels: &[usize], sequence: SequenceNumber) -> Result<()> {
        let mut edit = VersionEdit::new();
        for (table, level) in incoming.tables.iter().zip(levels) {
            let (finished, facts) = table.finished_at(sequence);
            edit.add_table(*level, &finished, facts);
        }
        let applied = self.write.apply_edit(edit);
        // Readers have the tables by now, and the number is not visible yet.
        for table in &incoming.tables {
            let behind = crate::types::successor(&table.meta.largest_key);
            self.write.memtables.dead.take_out(table.family, &table.meta.smallest_key, Some(&behind));
        }
        if applied.is_ok() || self.shared().context.versions.is_stopped() {
            incoming.keep();
        }
        applied
    }

    /// Whether memory holds a version in the range of an incoming table, or deletes a part of the range.
    fn memory_overlaps(&self, incoming: &Incoming<'_>) -> Result<bool> {
        let (state, _) = self.write.memtables.read_point();
        for memtable in &state.memtables {
            for table in &incoming.tables {
                if overlaps(memtable, table.family, &table.meta)? {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// The level for each incoming table. Compactions are kept away, and no memtable that overlaps is left.
    fn levels_for(&self, incoming: &Incoming<'_>) -> Result<Vec<usize>> {
        let version = self.shared().context.versions.current();
        let level = |family: Family, meta: &TableMeta| {
            let levels = version.family(family).ok_or_else(|| version.no_family(family))?;
            let base = Targets::new(levels, &self.shared().context.options_of(family)).base;
            Ok(level_for(levels, meta, base))
        };
        incoming.tables.iter().map(|table| level(table.family, &table.meta)).collect()
    }
}

/// The deepest level above the first that holds something of the table's range; level 0 if that is above the levels in
/// use.
fn level_for(levels: &FamilyLevels, meta: &TableMeta, base: usize) -> usize {
    let touched = |level: &usize| levels.levels[*level].iter().any(|table| table.meta().overlaps(meta));
    let deepest = (0..LEVEL_COUNT).find(touched).map_or(LEVEL_COUNT - 1, |touched| touched.saturating_sub(1));
    if deepest < base { 0 } else { deepest }
}

fn claim(family: Family, meta: &TableMeta) -> Claim {
    let (smallest_key, largest_key) = (meta.smallest_key.clone(), meta.largest_key.clone());
    Claim { family, from: 0, to: LEVEL_COUNT - 1, smallest_key, largest_key }
}

fn overlaps(memtable: &Arc<Memtable>, family: Family, meta: &TableMeta) -> Result<bool> {
    let behind = crate::types::successor(&meta.largest_key);
    let ranges = memtable.recent_ranges(family);
    if ranges.is_some_and(|ranges| ranges.covered_since(&meta.smallest_key, Some(&behind), 0).is_some()) {
        return Ok(true);
    }
    let mut cursor = MemtableCursor::new(memtable.clone(), family, Direction::Forward);
    cursor.seek(KeyRef::before_all(&meta.smallest_key))?;
    Ok(cursor.valid() && cursor.key().user_key <= meta.largest_key.as_ref())
}
