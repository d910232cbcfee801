//! How much a range holds, and where: from the metadata of tables and their indexes. What is in memtables, and whether
//! a version is dead, is not known there, except for what a range delete hides.

use super::ReadState;
use crate::version::Table;
use crate::vlog::ValueRefs;
use crate::{Family, Range, Result};
use bytes::Bytes;
use std::sync::Arc;

/// A part of a range: what lies behind the key of the part before, through this key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RangePart {
    /// The key at which it ends; that of the last part may lie behind the range.
    pub end: Bytes,
    /// Bytes of files, in tables and in the value log.
    pub bytes: u64,
    /// Versions, tombstones included.
    pub entries: u64,
}

/// How large a part is at which the next one begins: when either is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartSize {
    /// Bytes of files.
    pub bytes: u64,
    /// Versions, tombstones included.
    pub entries: u64,
}

impl PartSize {
    /// The whole range is one part.
    pub const WHOLE: PartSize = PartSize { bytes: u64::MAX, entries: u64::MAX };

    fn is_reached(self, bytes: u64, entries: u64) -> bool {
        bytes >= self.bytes || entries >= self.entries
    }
}

impl ReadState {
    /// See [`crate::Snapshot::range_parts`].
    pub(crate) fn range_parts(&self, family: Family, range: &Range, size: PartSize) -> Result<Vec<RangePart>> {
        let range = &range.clone().normal();
        let levels = self.version.family(family).ok_or_else(|| self.version.no_family(family))?;
        let mut parts = Parts::new(size);
        for table in levels.tables().filter(|table| table.meta().reaches_into(range)) {
            self.add_table(table, range, &mut parts)?;
        }
        let mut of_tables = parts.finished;
        of_tables.sort_by(|one, other| one.end.cmp(&other.end));
        let mut parts = Parts::new(size);
        of_tables.into_iter().for_each(|part| parts.add(part));
        parts.end();
        Ok(parts.finished)
    }

    fn add_table(&self, table: &Arc<Table>, range: &Range, parts: &mut Parts) -> Result<()> {
        let meta = table.meta();
        let value_bytes = self.version.values().refs_of(meta.number).map_or(0, ValueRefs::total_bytes);
        let bytes = meta.file_bytes + value_bytes;
        let tombstones = self.version.family(table.family()).map(|levels| &*levels.range_tombstones);
        let tombstones = tombstones.filter(|tombstones| !tombstones.is_empty());
        let is_whole = range.contains(&meta.smallest_key) && range.contains(&meta.largest_key);
        if is_whole && !parts.size.is_reached(bytes, meta.entries) && tombstones.is_none() {
            parts.add(RangePart { end: meta.largest_key.clone(), bytes, entries: meta.entries });
            parts.end();
            return Ok(());
        }
        let covering = |key: &[u8]| tombstones?.covering(key);
        let is_hidden = |key: &[u8]| covering(key).is_some_and(|covering| covering > meta.largest_sequence);
        // Values and entries are taken as evenly distributed over the blocks.
        let reader = self.tables.reader(table)?;
        let data_bytes = reader.data_bytes()?.max(1);
        let share = |of: u64, block: u64| {
            let [of, block, all] = [of, block, data_bytes].map(u128::from);
            ((of * block + all / 2) / all) as u64
        };
        reader.block_sizes(range, &mut |end, block_bytes| {
            if !is_hidden(&end) {
                let (bytes, entries) = (share(bytes, block_bytes), share(meta.entries, block_bytes));
                parts.add(RangePart { end: end.into(), bytes, entries });
            }
        })?;
        parts.end();
        Ok(())
    }
}

/// Makes parts of at least this size, except for the last one of a table.
struct Parts {
    size: PartSize,
    finished: Vec<RangePart>,
    open: RangePart,
}

impl Parts {
    fn new(size: PartSize) -> Parts {
        Parts { size, finished: Vec::new(), open: RangePart::default() }
    }

    fn add(&mut self, next: RangePart) {
        self.open.bytes += next.bytes;
        self.open.entries += next.entries;
        self.open.end = next.end;
        if self.size.is_reached(self.open.bytes, self.open.entries) {
            self.end();
        }
    }

    fn end(&mut self) {
        let part = std::mem::take(&mut self.open);
        if part.bytes > 0 {
            self.finished.push(part);
        }
    }
}
