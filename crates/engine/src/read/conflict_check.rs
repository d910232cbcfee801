//! What was written since a sequence number: the check of the conditions of commits.
//!
//! Every write counts that is in memory or in tables, visible or not: the caller knows which batches are in memory.
//! The newest version of a key answers for the key, and a table without a larger number is not opened. Old
//! versions may be dropped, so the number must be one since which tombstones are kept (see `CompactionContext`).

use super::{LevelCursor, ReadState};
use crate::memtable::{Memtable, MemtableCursor};
use crate::types::{Cursor, KeyRef, SEQUENCE_NUMBER_MAX};
use crate::{Direction, Family, Range, Result, SequenceNumber};
use bytes::Bytes;
use std::sync::Arc;

impl ReadState {
    /// The number of the newest write to a key (a put, a delete, or a delete of a range around it), if it is above
    /// `after`.
    ///
    /// Errors: `InvalidArgument` for an unknown family, `Corruption` and `Io` from tables.
    pub fn newest_sequence(
        &self,
        family: Family,
        user_key: &[u8],
        after: SequenceNumber,
    ) -> Result<Option<SequenceNumber>> {
        let levels = self.levels(family)?;
        for memtable in self.memtables_above(after) {
            let found = memtable.get(family, user_key, SEQUENCE_NUMBER_MAX).map(|found| found.sequence);
            let covered = memtable.covering_sequence(family, user_key, SEQUENCE_NUMBER_MAX);
            if let Some(newest) = found.max(covered) {
                // Older sources hold smaller numbers only.
                return Ok(Some(newest).filter(|&newest| newest > after));
            }
        }
        let mut newest = levels.range_tombstones.covering(user_key);
        for table in levels.levels.iter().flatten() {
            let meta = table.meta();
            if meta.largest_sequence > newest.unwrap_or(0).max(after) && meta.spans(user_key) {
                let found = self.tables.hold(table)?.get(user_key, SEQUENCE_NUMBER_MAX)?;
                newest = newest.max(found.map(|found| found.sequence));
            }
        }
        Ok(newest.filter(|&newest| newest > after))
    }

    /// A key of the range (or the part of the range that was deleted, by its first key) that was written after `since`,
    /// if there is one. Which one of several is unspecified.
    ///
    /// Errors: as [`ReadState::newest_sequence`].
    pub fn written_since(&self, family: Family, range: &Range, since: SequenceNumber) -> Result<Option<Bytes>> {
        let levels = self.levels(family)?;
        let range = &range.clone().normal();
        let (start, end) = (range.start.as_deref().unwrap_or_default(), range.end.as_deref());
        if let Some(key) = levels.range_tombstones.covered_since(start, end, since) {
            return Ok(Some(key));
        }
        for memtable in self.memtables_above(since) {
            let ranges = memtable.recent_ranges(family);
            if let Some(key) = ranges.and_then(|ranges| ranges.covered_since(start, end, since)) {
                return Ok(Some(key));
            }
            let mut cursor = MemtableCursor::new(memtable.clone(), family, Direction::Forward);
            if let Some(key) = written_here(&mut cursor, range, since)? {
                return Ok(Some(key));
            }
        }
        for table in levels.levels.iter().flatten() {
            if table.meta().largest_sequence > since && table.meta().reaches_into(range) {
                let mut cursor = LevelCursor::new(vec![table.clone()], self.tables.clone(), Direction::Forward);
                if let Some(key) = written_here(&mut cursor, range, since)? {
                    return Ok(Some(key));
                }
            }
        }
        Ok(None)
    }

    fn memtables_above(&self, after: SequenceNumber) -> impl Iterator<Item = &Arc<Memtable>> {
        self.memtables.iter().filter(move |memtable| memtable.largest_sequence().is_some_and(|largest| largest > after))
    }
}

/// Walks over all versions within the range: tables have no index by sequence number.
fn written_here(cursor: &mut dyn Cursor, range: &Range, since: SequenceNumber) -> Result<Option<Bytes>> {
    match &range.start {
        Some(start) => cursor.seek(KeyRef::before_all(start))?,
        None => cursor.seek_to_first()?,
    }
    while cursor.valid() {
        let key = cursor.key();
        debug_assert!(range.start.as_ref().is_none_or(|start| start.as_ref() <= key.user_key));
        if range.end.as_ref().is_some_and(|end| key.user_key >= end.as_ref()) {
            break;
        }
        if key.sequence > since {
            return Ok(Some(Bytes::copy_from_slice(key.user_key)));
        }
        cursor.advance()?;
    }
    Ok(None)
}

#[cfg(test)]
#[path = "conflict_check_test.rs"]
mod tests;
