//! A table as versions share it.

use super::RangeTombstone;
use super::files::ObsoleteFiles;
use crate::table::{ReaderSlot, TableMeta};
use crate::{Family, SequenceNumber};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What the writer of a table knows of it and the file does not hold; kept in the manifest, and used to plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableFacts {
    /// Every range tombstone at or below this number has been applied to what the table holds: it hides nothing there.
    pub ranges_applied: SequenceNumber,
    /// Wall clock when it was written, in milliseconds since the epoch.
    pub created_at_ms: u64,
    /// Wall clock when the first of its versions expires; `u64::MAX` if none ever does.
    pub first_expires_at_ms: u64,
    /// Wall clock when about half of its versions will have expired; `u64::MAX` if that many never will.
    pub half_expired_at_ms: u64,
}

impl Default for TableFacts {
    fn default() -> TableFacts {
        TableFacts { ranges_applied: 0, created_at_ms: 0, first_expires_at_ms: u64::MAX, half_expired_at_ms: u64::MAX }
    }
}

/// A live table. When an edit has removed it and the last version, iterator or snapshot that refers to it is dropped,
/// its file is put on the list of obsolete files; a job removes it from there.
#[derive(Debug)]
pub struct Table {
    family: Family,
    meta: TableMeta,
    facts: TableFacts,
    reader: ReaderSlot,
    removed: AtomicBool,
    obsolete: Arc<ObsoleteFiles>,
}

impl Table {
    pub(super) fn new(family: Family, meta: TableMeta, facts: TableFacts, obsolete: Arc<ObsoleteFiles>) -> Table {
        Table { family, meta, facts, reader: ReaderSlot::default(), removed: AtomicBool::new(false), obsolete }
    }

    /// A table that no version set knows.
    #[cfg(test)]
    pub(crate) fn alone(family: Family, meta: TableMeta) -> Table {
        Table::new(family, meta, TableFacts::default(), Arc::default())
    }

    /// Its family.
    pub fn family(&self) -> Family {
        self.family
    }

    /// What the manifest records of it.
    pub fn meta(&self) -> &TableMeta {
        &self.meta
    }

    /// The further properties in the manifest.
    pub fn facts(&self) -> &TableFacts {
        &self.facts
    }

    /// Whether it may hold versions that `tombstone` hides and that are still there.
    pub fn is_under(&self, tombstone: &RangeTombstone) -> bool {
        self.facts.ranges_applied < tombstone.sequence
            && self.meta.smallest_sequence < tombstone.sequence
            && tombstone.start <= self.meta.largest_key
            && self.meta.smallest_key < tombstone.end
    }

    /// Where the cache of tables keeps its open reader.
    pub(crate) fn reader_slot(&self) -> &ReaderSlot {
        &self.reader
    }

    /// Called once a durable edit has removed it.
    pub(super) fn mark_removed(&self) {
        let before = self.removed.swap(true, Ordering::AcqRel);
        assert!(!before, "table {} is removed twice", self.meta.number);
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        if self.removed.load(Ordering::Acquire) {
            self.obsolete.push_table(self.meta.number);
        }
    }
}
