//! The tables that a flush or compaction writes.

use super::CompactionContext;
use super::expiry::ExpirySample;
use super::version_retention::Decision;
use crate::table::{FinishedTable, TableWriter, sync_tables_dir, table_path};
use crate::types::{Decoded, KeyRef, Kind, TABLE_BYTES_MAX};
use crate::version::TableFacts;
use crate::{Error, Family, Result, SequenceNumber};
use bytes::Bytes;
use std::sync::atomic::Ordering;

/// Bytes that are written between two checks of the rate limit.
const PAY_BYTES: u64 = 64 << 10;

/// A table with what its writer recorded about it.
#[derive(Clone, Debug)]
pub(super) struct WrittenTable {
    pub(super) table: FinishedTable,
    pub(super) facts: TableFacts,
}

/// The tables of one family that a flush or compaction writes, one after the other.
pub(super) struct Outputs<'a> {
    context: &'a CompactionContext,
    family: Family,
    level: usize,
    writer: Option<TableWriter>,
    expiries: ExpirySample,
    finished: Vec<WrittenTable>,
    /// A table ends after so many bytes, at the next user key.
    table_bytes: u64,
    /// A table ends before each of these keys, last first.
    cuts: Vec<Bytes>,
    /// Range tombstones at or below it have been applied.
    ranges_applied: SequenceNumber,
    now_ms: u64,
    /// Versions that were written.
    kept: u64,
    /// What the rate limit has counted of the table being written.
    paid_bytes: u64,
}

impl<'a> Outputs<'a> {
    /// For tables of a level.
    pub(super) fn new(
        context: &'a CompactionContext,
        family: Family,
        level: usize,
        ranges_applied: SequenceNumber,
        now_ms: u64,
    ) -> Outputs<'a> {
        // Level 0 is cut at keys, so that newer and older tables cover the same ranges.
        let table_bytes = if level == 0 { TABLE_BYTES_MAX } else { context.options_of(family).table_bytes };
        assert!(table_bytes <= TABLE_BYTES_MAX, "options are checked at open");
        Outputs {
            context,
            family,
            level,
            writer: None,
            expiries: ExpirySample::default(),
            finished: Vec::new(),
            table_bytes,
            cuts: Vec::new(),
            ranges_applied,
            now_ms,
            kept: 0,
            paid_bytes: 0,
        }
    }

    /// Ends tables before these keys, which ascend.
    pub(super) fn cut_before(&mut self, mut keys: Vec<Bytes>) {
        assert!(keys.is_sorted() && self.kept == 0, "cuts are known before anything is written");
        keys.reverse();
        self.cuts = keys;
    }

    /// Wall clock that decides what has expired.
    pub(super) fn now_ms(&self) -> u64 {
        self.now_ms
    }

    pub(super) fn check_stop(&self) -> Result<()> {
        if self.context.stop.load(Ordering::Relaxed) { Err(Error::Closed) } else { Ok(()) }
    }

    /// Keeps or drops a version, as was decided.
    pub(super) fn take(&mut self, decision: Decision, key: KeyRef<'_>, kind: Kind, stored: &[u8]) -> Result<()> {
        match decision {
            Decision::Keep => self.add(key, kind, stored),
            Decision::KeepAsDelete => self.add(key, Kind::Delete, &[]),
            Decision::Hidden
            | Decision::Covered
            | Decision::Expired
            | Decision::Filtered
            | Decision::SpentTombstone => Ok(()),
        }
    }

    /// Adds a version, starting a new table at a new user key once the current one is full.
    fn add(&mut self, key: KeyRef<'_>, kind: Kind, stored: &[u8]) -> Result<()> {
        let mut cut = false;
        while self.cuts.last().is_some_and(|next| *next <= key.user_key) {
            self.cuts.pop();
            cut = true;
        }
        if let Some(writer) = &self.writer {
            let bytes = writer.estimated_bytes();
            if (cut || bytes >= self.table_bytes) && writer.last_user_key() != key.user_key {
                self.end_table()?;
            } else if bytes >= self.paid_bytes + PAY_BYTES {
                self.pay(bytes);
            }
        }
        let writer = match &mut self.writer {
            Some(writer) => writer,
            None => {
                let versions = &self.context.versions;
                let options = self.context.table_options_of(self.family, self.level);
                let number = versions.new_file_number();
                let dir = versions.tables_dir();
                self.writer.insert(TableWriter::create(&self.context.env, dir, number, self.family, options)?)
            }
        };
        debug_assert!(writer.last_user_key() <= key.user_key, "a merge goes forward");
        writer.add(key, kind, stored)?;
        self.kept += 1;
        let mut expires_at_ms = None;
        if kind.expires() {
            let malformed = |_| Error::Bug(format!("stored bytes of a {kind:?} are malformed behind a checksum"));
            expires_at_ms = Decoded::new(kind, stored).map_err(malformed)?.expires_at_ms;
        }
        self.expiries.note(expires_at_ms);
        Ok(())
    }

    /// Waits until the bytes of the table being written are within the rate limit.
    fn pay(&mut self, bytes: u64) {
        let context = self.context;
        context.state.limiter.take(&context.env, bytes.saturating_sub(self.paid_bytes), &context.stop);
        self.paid_bytes = bytes;
    }

    fn end_table(&mut self) -> Result<()> {
        let Some(writer) = self.writer.take() else { return Ok(()) };
        let table = writer.finish()?;
        self.pay(table.meta().file_bytes);
        self.paid_bytes = 0;
        let expiries = std::mem::take(&mut self.expiries);
        let facts = TableFacts {
            ranges_applied: self.ranges_applied,
            created_at_ms: self.now_ms,
            first_expires_at_ms: expiries.first_expires_at_ms(),
            half_expired_at_ms: expiries.half_expired_at_ms(),
        };
        self.finished.push(WrittenTable { table, facts });
        Ok(())
    }

    /// Finishes the last table and makes all names durable. Returns how many versions were written.
    pub(super) fn finish(&mut self) -> Result<u64> {
        self.end_table()?;
        if !self.finished.is_empty() {
            sync_tables_dir(&self.context.env, self.context.versions.tables_dir())?;
        }
        let written: u64 = self.finished.iter().map(|written| written.table.meta().entries).sum();
        assert_eq!(self.kept, written, "what is kept is written");
        Ok(self.kept)
    }

    /// The finished tables, in key order.
    pub(super) fn tables(&self) -> &[WrittenTable] {
        &self.finished
    }

    /// The finished tables, whose files are the caller's from now on.
    pub(super) fn into_tables(self) -> Vec<WrittenTable> {
        debug_assert!(self.writer.is_none(), "they were finished");
        self.finished
    }

    /// Removes what was written, as well as the disk allows; the next open removes the rest.
    pub(super) fn abandon(&mut self) {
        if let Some(writer) = self.writer.take() {
            writer.abandon();
        }
        remove_tables(self.context, std::mem::take(&mut self.finished));
    }

    /// After a failed edit: the files may be deleted only if the edit surely did not reach the manifest.
    pub(super) fn abandon_unless_unsure(&mut self) {
        if !self.context.versions.is_stopped() {
            self.abandon();
        }
    }
}

/// Removes the files of tables that no edit has named, as well as the disk allows; the next open removes the rest.
pub(super) fn remove_tables(context: &CompactionContext, tables: Vec<WrittenTable>) {
    for written in tables {
        let path = table_path(context.versions.tables_dir(), written.table.meta().number);
        if let Err(error) = context.env.fs.remove(&path) {
            tracing::debug!(file = %path.display(), %error, "an abandoned table stays until the next open");
        }
    }
}
