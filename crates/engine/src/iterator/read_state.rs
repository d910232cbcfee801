//! Everything a read needs: the sources, newest first.

use super::since::touches;
use super::visible::check_range;
use super::{Cursor, Found, LevelCursor, SEQUENCE_NUMBER_MAX, VisibleEntries, live_value};
use crate::cache::TableCache;
use crate::kind::Kind;
use crate::memtable::{Memtable, MemtableCursor};
use crate::table::TableCursor;
use crate::version::{FamilyLevels, Table, Version};
use crate::{Direction, Entries, Error, Family, Range, Result, SequenceNumber};
use bytes::Bytes;
use kontiki_env::clock::Clock;
use std::sync::Arc;

/// Memtables and version that belong together: every published write is in at least one of them. Cheap to clone.
///
/// `db/` installs a new one, whole, when the active memtable is frozen (the new active one goes in front) and when a
/// flush has been applied (the version with the new tables replaces the memtable they came from, in one step).
///
/// A reader without a registered snapshot loads the `ReadState` *first* and the published sequence number second:
/// the other way round, a flush in between could drop the version it is about to ask for. With a registered snapshot
/// the order does not matter. Registering takes the sequence number and enters it in the list under one lock, the
/// one under which flush and compaction read the list.
#[derive(Clone)]
pub struct ReadState {
    /// Newest first. May be empty (a view of what is flushed).
    pub memtables: Vec<Arc<Memtable>>,
    /// The tables.
    pub version: Arc<Version>,
    /// How the tables are opened.
    pub tables: Arc<TableCache>,
    /// Tells which expiring values have ended.
    pub clock: Arc<dyn Clock>,
}

impl ReadState {
    /// The value of a key at a sequence number.
    ///
    /// Errors: `InvalidArgument` for an unknown family, `Corruption` and `Io` from tables.
    pub fn get(&self, family: Family, user_key: &[u8], sequence: SequenceNumber) -> Result<Option<Bytes>> {
        debug_assert!(sequence <= SEQUENCE_NUMBER_MAX);
        let levels = self.levels(family)?;
        for memtable in &self.memtables {
            let found = memtable.get(family, user_key, sequence);
            let covered = memtable.covering_sequence(family, user_key, sequence);
            match found {
                Some(found) if covered.is_none_or(|covered| found.sequence >= covered) => return self.live(found),
                _ if covered.is_some() => return Ok(None),
                _ => {}
            }
        }
        let Some(found) = self.get_from_tables(levels, user_key, sequence)? else { return Ok(None) };
        let covered = self.version.covering_sequence(family, user_key, sequence);
        if covered.is_some_and(|covered| found.sequence < covered) { Ok(None) } else { self.live(found) }
    }

    fn live(&self, found: Found) -> Result<Option<Bytes>> {
        live_value(found.kind, found.stored, || self.clock.wall_ms(), self.version.values())
    }

    fn get_from_tables(
        &self,
        levels: &FamilyLevels,
        user_key: &[u8],
        sequence: SequenceNumber,
    ) -> Result<Option<Found>> {
        let [level0, deeper @ ..] = &levels.levels;
        let mut newest: Option<Found> = None;
        for table in level0 {
            let meta = table.meta();
            // Newest first, so nothing that follows can hold a newer version.
            if newest.as_ref().is_some_and(|found| found.sequence >= meta.largest_sequence) {
                break;
            }
            if meta.spans(user_key) && meta.smallest_sequence <= sequence {
                let found = self.tables.reader(meta)?.get(user_key, sequence)?;
                if found.as_ref().map(|found| found.sequence) > newest.as_ref().map(|found| found.sequence) {
                    newest = found;
                }
            }
        }
        debug_assert!(newest.as_ref().is_none_or(|found| found.sequence <= sequence));
        if newest.is_some() {
            return Ok(newest);
        }
        for level in 1..=deeper.len() {
            let Some(table) = levels.table_for(level, user_key) else { continue };
            let found = self.tables.reader(table.meta())?.get(user_key, sequence)?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// The entries of a range at a sequence number, in one direction. The iterator pins its tables and memtables.
    ///
    /// Errors: `InvalidArgument` for an unknown family or a range that ends before it starts.
    pub fn entries(
        &self,
        family: Family,
        range: Range,
        direction: Direction,
        sequence: SequenceNumber,
    ) -> Result<Box<dyn Entries>> {
        check_range(&range)?;
        let levels = self.levels(family)?;
        let mut sources: Vec<Box<dyn Cursor>> = Vec::new();
        for memtable in &self.memtables {
            sources.push(Box::new(MemtableCursor::new(memtable.clone(), family, direction)));
        }
        for (level, tables) in levels.levels.iter().enumerate() {
            let within = tables.iter().filter(|table| touches(table.meta(), &range)).cloned();
            if level == 0 {
                for table in within {
                    sources.push(Box::new(PinnedTable::open(table, &self.tables, direction)?));
                }
            } else {
                let within: Vec<_> = within.collect();
                if !within.is_empty() {
                    sources.push(Box::new(LevelCursor::new(within, self.tables.clone(), direction)));
                }
            }
        }
        Ok(Box::new(VisibleEntries::new(
            sources,
            self.version.clone(),
            sequence,
            self.clock.wall_ms(),
            range,
            direction,
        )))
    }

    pub(super) fn levels(&self, family: Family) -> Result<&FamilyLevels> {
        self.version
            .family(family)
            .ok_or_else(|| Error::InvalidArgument(format!("{family:?} does not exist in this database")))
    }
}

/// A cursor over one table that keeps it from becoming obsolete.
pub(crate) struct PinnedTable {
    cursor: TableCursor,
    _table: Arc<Table>,
}

impl PinnedTable {
    pub(crate) fn open(table: Arc<Table>, cache: &TableCache, direction: Direction) -> Result<PinnedTable> {
        Ok(PinnedTable { cursor: TableCursor::new(cache.reader(table.meta())?, direction), _table: table })
    }
}

impl Cursor for PinnedTable {
    fn valid(&self) -> bool {
        self.cursor.valid()
    }

    fn key(&self) -> super::KeyRef<'_> {
        self.cursor.key()
    }

    fn kind(&self) -> Kind {
        self.cursor.kind()
    }

    fn stored(&self) -> Bytes {
        self.cursor.stored()
    }

    fn advance(&mut self) -> Result<()> {
        self.cursor.advance()
    }

    fn seek(&mut self, target: super::KeyRef<'_>) -> Result<()> {
        self.cursor.seek(target)
    }

    fn seek_to_first(&mut self) -> Result<()> {
        self.cursor.seek_to_first()
    }
}
