//! The tables that a flush or compaction writes.

use super::Context;
use super::expiry::ExpirySample;
use super::retention::Verdict;
use crate::iterator::KeyRef;
use crate::kind::{Decoded, Kind};
use crate::table::{FinishedTable, TABLE_BYTES_MAX, TableWriter, sync_tables_dir, table_path};
use crate::version::TableFacts;
use crate::{Error, Family, Result, SequenceNumber};
use std::sync::atomic::Ordering;

/// The tables of one family that a flush or compaction writes, one after the other.
pub(super) struct Outputs<'a> {
    context: &'a Context,
    family: Family,
    writer: Option<TableWriter>,
    /// Of the table being written.
    expiries: ExpirySample,
    finished: Vec<(FinishedTable, TableFacts)>,
    /// A table ends after so many bytes, at the next user key.
    table_bytes: u64,
    /// Range tombstones at or below it have been applied.
    ranges_applied: SequenceNumber,
    now_ms: u64,
    /// Versions that were written.
    kept: u64,
}

impl<'a> Outputs<'a> {
    pub(super) fn new(
        context: &'a Context,
        family: Family,
        table_bytes: u64,
        ranges_applied: SequenceNumber,
        now_ms: u64,
    ) -> Outputs<'a> {
        assert!(table_bytes <= TABLE_BYTES_MAX, "options are checked at open");
        Outputs {
            context,
            family,
            writer: None,
            expiries: ExpirySample::default(),
            finished: Vec::new(),
            table_bytes,
            ranges_applied,
            now_ms,
            kept: 0,
        }
    }

    pub(super) fn check_stop(&self) -> Result<()> {
        if self.context.stop.load(Ordering::Relaxed) { Err(Error::Closed) } else { Ok(()) }
    }

    /// Does with a version what was judged.
    pub(super) fn take(&mut self, verdict: Verdict, key: KeyRef<'_>, kind: Kind, stored: &[u8]) -> Result<()> {
        match verdict {
            Verdict::Keep => self.add(key, kind, stored),
            Verdict::KeepAsDelete => self.add(key, Kind::Delete, &[]),
            Verdict::Hidden | Verdict::Covered | Verdict::Expired | Verdict::SpentTombstone => Ok(()),
        }
    }

    /// Adds a version, starting a new table at a new user key once the current one is full.
    fn add(&mut self, key: KeyRef<'_>, kind: Kind, stored: &[u8]) -> Result<()> {
        let full = |writer: &mut TableWriter| {
            writer.estimated_bytes() >= self.table_bytes && writer.last_user_key() != key.user_key
        };
        if let Some(writer) = self.writer.take_if(full) {
            self.end_table(writer)?;
        }
        let writer = match &mut self.writer {
            Some(writer) => writer,
            None => {
                let versions = &self.context.versions;
                let options = self.context.table_options.clone();
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

    fn end_table(&mut self, writer: TableWriter) -> Result<()> {
        let table = writer.finish()?;
        let facts = TableFacts {
            ranges_applied: self.ranges_applied,
            created_at_ms: self.now_ms,
            half_expired_at_ms: std::mem::take(&mut self.expiries).half_expired_at_ms(),
        };
        self.finished.push((table, facts));
        Ok(())
    }

    /// Finishes the last table and makes all names durable.
    pub(super) fn finish(&mut self) -> Result<&[(FinishedTable, TableFacts)]> {
        if let Some(writer) = self.writer.take() {
            self.end_table(writer)?;
        }
        if !self.finished.is_empty() {
            sync_tables_dir(&self.context.env, self.context.versions.tables_dir())?;
        }
        let written: u64 = self.finished.iter().map(|(table, _)| table.meta().entries).sum();
        assert_eq!(self.kept, written, "what is kept is written");
        Ok(&self.finished)
    }

    /// Removes what was written, as well as the disk allows; the rest goes at the next open.
    pub(super) fn abandon(&mut self) {
        if let Some(writer) = self.writer.take() {
            writer.abandon();
        }
        for (table, _) in self.finished.drain(..) {
            let path = table_path(self.context.versions.tables_dir(), table.meta().number);
            if let Err(error) = self.context.env.fs.remove(&path) {
                tracing::debug!(file = %path.display(), %error, "an abandoned table stays until the next open");
            }
        }
    }

    /// After a failed edit: the files may go only if the edit surely did not reach the manifest.
    pub(super) fn abandon_unless_unsure(&mut self) {
        if !self.context.versions.is_stopped() {
            self.abandon();
        }
    }
}
