//! The cache of open tables.

use super::Table;
use crate::Result;
use crate::lock::{Mutex, Rank};
use crate::ownership::Ownership;
use crate::table::{BlockCache, HeldReader, TableReader};
use arc_swap::Guard;
use kontiki_env::Env;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};

/// Opens tables on demand and keeps them, within a bound of bytes (filters, tops of indexes, slots) and of files: each
/// table weighs at least `capacity_bytes / files_max`.
///
/// An open reader is stored in the [`Table`] itself, so that a read that has the table has the reader: this cache only
/// decides which ones are closed, by CLOCK. A table counts for a quarter of the capacity at most, so that a few tables
/// stay open however small the capacity is: to read filter and index again for every lookup would be far worse than to
/// exceed the bound.
pub struct TableCache {
    env: Env,
    tables_dir: PathBuf,
    blocks: Arc<BlockCache>,
    weight_min: u64,
    weight_max: u64,
    capacity_bytes: u64,
    ownership: Ownership,
    /// Tables that scans have passed by because of their filters.
    skipped_by_scans: AtomicU64,
    open: Mutex<OpenTables>,
}

#[derive(Default)]
struct OpenTables {
    /// In the order in which they were opened, or were last found in use by the clock hand.
    tables: VecDeque<(Weak<Table>, u64)>,
    bytes: u64,
    /// Tables opened, counted.
    opens: u64,
}

/// Open tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TableCacheStats {
    /// The most bytes that filters and indexes of open tables may take.
    pub capacity_bytes: u64,
    /// Their bytes now: pinned while the table is open.
    pub bytes: u64,
    /// Open tables now.
    pub tables: u64,
    /// Times that a table was opened, counted: many more than there are tables means that the cache is too small.
    pub opens: u64,
    /// Times that a scan passed by a table because its filter holds nothing of the scan's prefix, counted; see
    /// [`crate::FamilyOptions::filter_prefix_bytes`].
    pub skipped_by_scans: u64,
}

impl TableCache {
    /// A cache of the tables in `tables_dir` that keeps at most `files_max` open and `capacity_bytes` of their
    /// filters and indexes. Cursors keep the tables they use open beyond that.
    pub fn new(
        env: &Env,
        tables_dir: &Path,
        blocks: Arc<BlockCache>,
        capacity_bytes: u64,
        files_max: usize,
    ) -> TableCache {
        assert!(capacity_bytes > 0, "without a table cache every read would open its table anew");
        TableCache {
            env: env.clone(),
            tables_dir: tables_dir.to_path_buf(),
            blocks,
            weight_min: (capacity_bytes / files_max.max(1) as u64).max(1),
            weight_max: (capacity_bytes / 4).max(1),
            capacity_bytes,
            ownership: Ownership::default(),
            skipped_by_scans: AtomicU64::new(0),
            open: Mutex::new(Rank::OpenTables, OpenTables::default()),
        }
    }

    /// The tables belong to a database whose ownership of its directory may end.
    pub(crate) fn owned_by(self, ownership: Ownership) -> TableCache {
        TableCache { ownership, ..self }
    }

    /// `Closed` once tables can be opened no more.
    #[inline]
    pub(crate) fn check_owned(&self) -> Result<()> {
        self.ownership.check()
    }

    /// The open table, for a lookup.
    pub fn hold(&self, table: &Arc<Table>) -> Result<HeldReader> {
        let slot = table.reader_slot();
        let held = slot.reader.load();
        if held.is_none() {
            return Ok(HeldReader::from(self.open(table)?));
        }
        if !slot.used.load(Relaxed) {
            slot.used.store(true, Relaxed);
        }
        Ok(HeldReader(held))
    }

    /// The open table, for a cursor.
    pub fn reader(&self, table: &Arc<Table>) -> Result<Arc<TableReader>> {
        let held = self.hold(table)?;
        Ok(Guard::into_inner(held.0).expect("made of a reader only"))
    }

    /// The open table, for a scan of keys that begin with `prefix`; `None` if the table's filter says that there are
    /// none.
    pub(crate) fn reader_for_prefix(&self, table: &Arc<Table>, prefix: &[u8]) -> Result<Option<HeldReader>> {
        let held = self.hold(table)?;
        if held.may_contain_prefix(prefix) {
            return Ok(Some(held));
        }
        self.skipped_by_scans.fetch_add(1, Relaxed);
        Ok(None)
    }

    /// Two threads that miss at once may both open it; one of the readers stays.
    fn open(&self, table: &Arc<Table>) -> Result<Arc<TableReader>> {
        debug_assert!(table.meta().is_plausible(), "versions hold plausible tables only");
        let opened = TableReader::open(&self.env, &self.tables_dir, table.meta(), self.blocks.clone());
        self.ownership.check()?;
        let reader = Arc::new(opened?);
        let weight = (reader.memory_bytes() as u64).min(self.weight_max).max(self.weight_min);
        let slot = table.reader_slot();
        // Declared before the lock, so dropped after it: dropping a last reference takes other locks.
        let mut closed = Vec::new();
        let mut open = self.open.lock();
        if let Some(there) = slot.reader.load_full() {
            return Ok(there);
        }
        // At most two rounds of the clock: others may use tables as fast as the hand passes.
        for _ in 0..2 * open.tables.len() {
            if open.bytes + weight <= self.capacity_bytes {
                break;
            }
            closed.extend(open.pass_one());
        }
        slot.reader.store(Some(reader.clone()));
        slot.used.store(false, Relaxed);
        open.tables.push_back((Arc::downgrade(table), weight));
        open.bytes += weight;
        open.opens += 1;
        Ok(reader)
    }

    /// Closes up to `count` tables, those first that were not used lately; returns how many. A cursor that reads one
    /// keeps its file open until it is done.
    pub(crate) fn close_some(&self, count: usize) -> usize {
        // Declared before the lock, so dropped after it: dropping a last reference takes other locks.
        let mut closed = Vec::new();
        let mut readers = 0;
        let mut open = self.open.lock();
        for _ in 0..2 * open.tables.len() {
            if readers == count {
                break;
            }
            let passed = open.pass_one();
            readers += usize::from(matches!(passed, Some((_, Some(_)))));
            closed.extend(passed);
        }
        readers
    }

    /// Removes dropped tables, with their readers.
    pub fn sweep(&self) {
        let mut open = self.open.lock();
        open.tables.retain(|(table, _)| table.strong_count() > 0);
        open.bytes = open.tables.iter().map(|(_, weight)| *weight).sum();
    }

    /// Counters since it was made, and what it holds.
    pub fn stats(&self) -> TableCacheStats {
        let open = self.open.lock();
        TableCacheStats {
            capacity_bytes: self.capacity_bytes,
            bytes: open.bytes,
            tables: open.tables.len() as u64,
            opens: open.opens,
            skipped_by_scans: self.skipped_by_scans.load(Relaxed),
        }
    }

    /// Bytes of open tables, by the weights that bound them.
    #[cfg(test)]
    pub fn used_bytes(&self) -> u64 {
        self.open.lock().bytes
    }

    /// The cache of blocks behind it.
    pub fn blocks(&self) -> &Arc<BlockCache> {
        &self.blocks
    }
}

impl OpenTables {
    /// The clock's hand passes one table. What it returns must be dropped outside of the lock.
    fn pass_one(&mut self) -> Option<(Arc<Table>, Option<Arc<TableReader>>)> {
        let (table, weight) = self.tables.pop_front()?;
        let Some(there) = table.upgrade() else {
            self.bytes -= weight;
            return None;
        };
        if there.reader_slot().used.swap(false, Relaxed) {
            self.tables.push_back((table, weight));
            return Some((there, None));
        }
        self.bytes -= weight;
        let reader = there.reader_slot().reader.swap(None);
        debug_assert!(reader.is_some(), "a table in the list is open");
        Some((there, reader))
    }
}

#[cfg(test)]
#[path = "table_cache_test.rs"]
mod tests;
