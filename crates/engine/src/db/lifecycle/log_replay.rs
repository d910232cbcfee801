//! Recovery: the log is replayed into memtables and the index of streams.

use crate::compaction::{self, CompactionContext};
use crate::db::options::Options;
use crate::db::write::capacity::MemoryLimits;
use crate::db::write::memtables::Memtables;
use crate::dead_ranges::DeadRanges;
use crate::log::{
    HURRIED_BYTES_MAX, RawRecord, RecordKind, RecordPosition, Segments, decode_commit, decode_ingested, decode_rewrite,
};
use crate::measure::Recorder;
use crate::read::ReadState;
use crate::stream::StreamIndex;
use crate::types::{BatchEntry, Content, Decoded};
use crate::value_files::ValueRecovery;
use crate::{Error, Family, Result, SequenceNumber, WriteBatch};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Builds memtables and streams from the log.
pub(super) struct Replay<'a> {
    context: &'a CompactionContext,
    memtables: Memtables,
    streams: StreamIndex,
    flushed: u64,
    /// For each value segment that batches of the log refer to, the last of them. Other references to it are in tables.
    pub(super) value_bounds: BTreeMap<u64, SequenceNumber>,
    /// All of it stays in memory.
    read_only: bool,
    /// Free space below which nothing is flushed before the log can free any.
    space_bytes_min: u64,
}

impl<'a> Replay<'a> {
    pub(super) fn new(
        context: &'a CompactionContext,
        options: &Options,
        recorder: &Arc<Recorder>,
        read_only: bool,
    ) -> Replay<'a> {
        let version = context.versions.current();
        let flushed = version.flushed_sequence();
        let limits = MemoryLimits {
            memtable_bytes: options.memtable_bytes,
            memtables_max: options.memtables_max,
            level0_tables_max: options.level0_tables_max,
            soft_percent: options.slowdown_percent,
        };
        let (tables, clock) = (context.tables.clone(), context.env.clock.clone());
        let recorder = recorder.clone();
        let read_state = ReadState { memtables: Vec::new(), version, tables, clock, recorder, dead: None };
        let dead = DeadRanges::new(options.dead_range_versions_min, options.compaction.dead_versions_passed);
        let memtables = Memtables::new(limits, flushed, read_state, Arc::new(dead));
        let (streams, value_bounds) = (StreamIndex::default(), BTreeMap::new());
        // Tables of a memtable, and a log segment for deletions.
        let space_bytes_min =
            options.memtable_bytes.saturating_add(2 * HURRIED_BYTES_MAX.min(options.log_segment_bytes));
        Replay { context, memtables, streams, flushed, value_bounds, read_only, space_bytes_min }
    }

    pub(super) fn visit(
        &mut self,
        segments: &Segments,
        position: RecordPosition,
        record: RawRecord<'_>,
        beside: &ValueRecovery,
    ) -> Result<()> {
        let corrupt =
            |what: String| Error::Corruption { file: segments.path(position.segment), offset: position.offset, what };
        let malformed = |_| corrupt("a log record is whole but malformed: written by a newer kontiki?".to_string());
        let streams = match record.kind {
            RecordKind::Rewrite => decode_rewrite(record.payload).map_err(malformed)?,
            RecordKind::Commit => {
                let commit = decode_commit(record.sequence, record.payload).map_err(malformed)?;
                segments.note_batch(position.segment, commit.sequence);
                self.note_values(&commit.batch, commit.sequence);
                if commit.sequence > self.flushed {
                    beside.check(&commit.batch)?;
                    self.replay_batch(&commit.batch, commit.sequence, position).map_err(corrupt)?;
                }
                commit.streams
            }
            RecordKind::Ingest => {
                decode_ingested(record.sequence, record.payload).map_err(malformed)?;
                segments.note_batch(position.segment, record.sequence);
                if record.sequence > self.flushed {
                    self.check_order(record.sequence).map_err(corrupt)?;
                    self.memtables.replay_number(record.sequence, position.segment);
                }
                Vec::new()
            }
            RecordKind::Seal => return Err(Error::Bug("recovery keeps seals to itself".into())),
        };
        self.streams.apply(position, streams);
        self.flush_full()
    }

    fn note_values(&mut self, batch: &WriteBatch, sequence: SequenceNumber) {
        for entry in batch.entries() {
            let BatchEntry::Version { kind, stored, .. } = entry else { continue };
            if let (true, Ok(Decoded { content: Content::Pointer(pointer), .. })) =
                (kind.is_pointer(), Decoded::new(kind, stored))
            {
                self.value_bounds.insert(pointer.segment, sequence);
            }
        }
    }

    fn replay_batch(
        &mut self,
        batch: &WriteBatch,
        sequence: u64,
        position: RecordPosition,
    ) -> std::result::Result<(), String> {
        self.check_order(sequence)?;
        let version = self.context.versions.current();
        // What was written to a family before it was dropped is ignored; no flush writes it.
        let unknown =
            |family: &Family| version.family(*family).is_none() && !version.dropped_families().contains_key(*family);
        if let Some(family) = batch.entries().map(|entry| entry.family()).find(unknown) {
            return Err(format!("a log record writes to {family:?}, which the manifest does not know"));
        }
        self.memtables.replay(batch, sequence, position.segment);
        Ok(())
    }

    fn check_order(&self, sequence: u64) -> std::result::Result<(), String> {
        let next = self.memtables.next_sequence();
        if sequence < next || sequence >= crate::types::SEQUENCE_NUMBER_MAX {
            return Err(format!("a log record has sequence number {sequence}; at least {next} is expected"));
        }
        Ok(())
    }

    /// A memtable that is full is flushed to tables at once. Safe in the middle of the log: what it holds is the log's
    /// logged batches up to its last number, and all of them are durable.
    ///
    /// Not so on a full disk. The log frees no space before it was read to its end, and what was in memory before fits
    /// there again: so it stays there, in one memtable, at most as large as the log, and is flushed when the database
    /// is open.
    fn flush_full(&mut self) -> Result<()> {
        if self.read_only || !self.memtables.active_is_full() || self.is_short_of_space() {
            return Ok(());
        }
        let slot = self.memtables.active();
        match compaction::flush(self.context, std::slice::from_ref(&slot.memtable), slot.last_sequence(), None) {
            Ok(_) => {}
            Err(error) if error.is_retryable() => {
                tracing::warn!(%error, "the log stays in memory for now");
                self.space_bytes_min = u64::MAX;
                return Ok(());
            }
            Err(error) => return Err(error),
        }
        self.memtables.freeze_active();
        self.memtables.install(&self.context.versions, Some(&slot));
        Ok(())
    }

    fn is_short_of_space(&self) -> bool {
        if self.space_bytes_min == u64::MAX {
            return true;
        }
        let free = self.context.env.fs.free_bytes(self.context.versions.tables_dir());
        // Where that is not known, the flush itself finds out.
        free.is_ok_and(|free| free < self.space_bytes_min)
    }

    pub(super) fn finish(self, segments: &Segments) -> Result<(Memtables, StreamIndex)> {
        self.streams.check_whole().map_err(|what| Error::Corruption {
            file: segments.directory().to_path_buf(),
            offset: 0,
            what,
        })?;
        Ok((self.memtables, self.streams))
    }
}
