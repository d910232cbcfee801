//! Everything a read needs: the sources, newest first.

use super::hidden::Hidden;
use super::scan::Of;
use super::source::Source;
use super::value::{is_live, promote_value};
use super::{LevelCursor, MergingCursor, Scan, live_value};
use crate::cache::Use;
use crate::dead_ranges::DeadRanges;
use crate::measure::Recorder;
use crate::memtable::{Memtable, MemtableCursor};
use crate::table::{TableCursor, TableReader, filter_hash};
use crate::types::{Cursor, Found, KeyRef, Kind, LEVEL_COUNT, ReadOptions, SEQUENCE_NUMBER_MAX};
use crate::version::{FamilyLevels, Table, TableCache, Version};
use crate::{Direction, Family, Result, SequenceNumber};
use bytes::Bytes;
use kontiki_env::clock::Clock;
use std::ops::Deref;
use std::sync::Arc;

/// Memtables and version that belong together: every published write is in at least one of them. Cheap to clone.
///
/// `db/` installs a new one, whole, when the active memtable is frozen (the new active one becomes the first) and when
/// a flush has been applied (the version with the new tables replaces the memtable they came from, in one step).
///
/// A reader takes a `ReadState` and the visible sequence number together: it loads the number between two loads of the
/// state, and starts again if the state was replaced meanwhile (`Memtables::read_point`). Otherwise a flush in between
/// could drop the version that it is about to read. While it holds the state, it pins the memtables and the files.
#[derive(Clone)]
pub struct ReadState {
    /// Newest first. May be empty (a view of what is flushed).
    pub memtables: Vec<Arc<Memtable>>,
    /// The tables.
    pub version: Arc<Version>,
    /// How the tables are opened.
    pub tables: Arc<TableCache>,
    /// Decides which expiring values have ended.
    pub clock: Arc<dyn Clock>,
    /// Ranges of keys in which nothing is visible; `None` for a reader of only a part of the sources.
    pub(crate) dead: Option<Arc<DeadRanges>>,
    /// Where sampled reads are recorded.
    pub(crate) recorder: Arc<Recorder>,
}

/// The state that a scan reads, with a separate count: the scan and its cursors share it by a count that no other
/// thread touches, where those of the state, the version and the caches move from core to core with each scan.
pub(super) struct PinnedState(Arc<ReadState>);

impl Deref for PinnedState {
    type Target = ReadState;

    fn deref(&self) -> &ReadState {
        &self.0
    }
}

impl ReadState {
    /// The value of a key at a sequence number.
    ///
    /// Errors: `InvalidArgument` for an unknown family, `Corruption` and `Io` from tables.
    pub fn get(&self, family: Family, user_key: &[u8], sequence: SequenceNumber) -> Result<Option<Bytes>> {
        self.get_at(family, user_key, sequence, || self.clock.wall_ms())
    }

    /// As [`ReadState::get`], with expiry decided at a given time. The time is read only if it matters.
    pub(crate) fn get_at(
        &self,
        family: Family,
        user_key: &[u8],
        sequence: SequenceNumber,
        now_ms: impl FnOnce() -> u64,
    ) -> Result<Option<Bytes>> {
        let found = match self.recorder.sample() {
            false => self.find(family, user_key, sequence)?,
            true => return self.get_measured(family, user_key, sequence, now_ms),
        };
        self.value_of(found, now_ms)
    }

    /// Whether the key has a value at `sequence` that has not expired at `now_ms`. The value log is not read.
    pub(crate) fn contains(
        &self,
        family: Family,
        user_key: &[u8],
        sequence: SequenceNumber,
        now_ms: u64,
    ) -> Result<bool> {
        let Some(found) = self.find(family, user_key, sequence)? else { return Ok(false) };
        is_live(found.kind, &found.stored, now_ms)
    }

    fn value_of(&self, found: Option<Found>, now_ms: impl FnOnce() -> u64) -> Result<Option<Bytes>> {
        match found {
            Some(found) => live_value(found.kind, found.stored, now_ms, self.version.values()),
            None => Ok(None),
        }
    }

    /// A get that was sampled.
    #[cold]
    fn get_measured(
        &self,
        family: Family,
        user_key: &[u8],
        sequence: SequenceNumber,
        now_ms: impl FnOnce() -> u64,
    ) -> Result<Option<Bytes>> {
        let started = self.recorder.now();
        let hot = self.recorder.note_read(family, user_key, started);
        let mut watch = Recorded { recorder: &self.recorder, hot, in_memory: false };
        let found = self.find_watched(family, user_key, sequence, &mut watch)?;
        let promote =
            found.as_ref().filter(|_| hot && !watch.in_memory).map(|found| (found.kind, found.stored.clone()));
        let value = self.value_of(found, now_ms)?;
        if let Some((kind, stored)) = promote {
            promote_value(kind, &stored, self.version.values());
            self.recorder.hot_keys.note_promoted();
        }
        self.recorder.reads.note_get(value.is_some(), watch.in_memory);
        self.recorder.end(&self.recorder.get, Some(started));
        Ok(value)
    }

    /// The newest version of a key at or below a sequence number, whatever its kind; `None` also if a range tombstone
    /// hides it.
    #[inline]
    pub(crate) fn find(&self, family: Family, user_key: &[u8], sequence: SequenceNumber) -> Result<Option<Found>> {
        self.find_watched(family, user_key, sequence, &mut Unwatched)
    }

    #[inline]
    fn find_watched(
        &self,
        family: Family,
        user_key: &[u8],
        sequence: SequenceNumber,
        watch: &mut impl Watch,
    ) -> Result<Option<Found>> {
        debug_assert!(sequence <= SEQUENCE_NUMBER_MAX);
        let levels = self.levels(family)?;
        if let Some(answer) = self.find_in_memtables(family, user_key, sequence) {
            watch.memory();
            return Ok(answer);
        }
        let found = self.find_in_tables(levels, user_key, sequence, watch)?;
        if levels.range_tombstones.is_empty() {
            return Ok(found);
        }
        let covered = levels.range_tombstones.covering(user_key);
        debug_assert!(
            covered.is_none_or(|covered| covered <= sequence),
            "a version is read at or above what is flushed"
        );
        Ok(found.filter(|found| covered.is_none_or(|covered| found.sequence >= covered)))
    }

    /// The newest version of the key in the memtables; inner `None` if a range tombstone hides the key, outer if
    /// no memtable has it.
    #[inline]
    pub(super) fn find_in_memtables(
        &self,
        family: Family,
        user_key: &[u8],
        sequence: SequenceNumber,
    ) -> Option<Option<Found>> {
        for memtable in &self.memtables {
            let found = memtable.get(family, user_key, sequence);
            let covered = memtable.covering_sequence(family, user_key, sequence);
            match found {
                Some(found) if covered.is_none_or(|covered| found.sequence >= covered) => return Some(Some(found)),
                _ if covered.is_some() => return Some(None),
                _ => {}
            }
        }
        None
    }

    /// The newest version of a key in the tables, whatever memtables or range tombstones say. For the relocation of
    /// values.
    pub(crate) fn newest_in_tables(&self, family: Family, user_key: &[u8]) -> Result<Option<Found>> {
        let Some(levels) = self.version.family(family) else { return Ok(None) };
        self.find_in_tables(levels, user_key, SEQUENCE_NUMBER_MAX, &mut Unwatched)
    }

    fn find_in_tables(
        &self,
        levels: &FamilyLevels,
        user_key: &[u8],
        sequence: SequenceNumber,
        watch: &mut impl Watch,
    ) -> Result<Option<Found>> {
        // One hash for the filters of all tables.
        let hash = filter_hash(user_key);
        let mut newest: Option<Found> = None;
        for table in levels.level0_for(user_key) {
            let meta = table.meta();
            // Newest first, so nothing that follows can hold a newer version.
            if newest.as_ref().is_some_and(|found| found.sequence >= meta.largest_sequence) {
                break;
            }
            if meta.spans(user_key) && meta.smallest_sequence <= sequence {
                let reader = self.tables.hold(table)?;
                let found = reader.get_hashed_for(user_key, hash, sequence, watch.purpose())?;
                watch.table(0, &reader, hash, found.is_some());
                if found.as_ref().map(|found| found.sequence) > newest.as_ref().map(|found| found.sequence) {
                    newest = found;
                }
            }
        }
        debug_assert!(newest.as_ref().is_none_or(|found| found.sequence <= sequence));
        if newest.is_some() {
            return Ok(newest);
        }
        for level in 1..LEVEL_COUNT {
            let Some(table) = levels.table_for(level, user_key) else { continue };
            let reader = self.tables.hold(table)?;
            let found = reader.get_hashed_for(user_key, hash, sequence, watch.purpose())?;
            watch.table(level, &reader, hash, found.is_some());
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// The entries of a range at a sequence number, in one direction. The iterator pins its tables and memtables.
    ///
    /// Errors: `InvalidArgument` for an unknown family.
    #[cfg(test)]
    pub fn entries(
        &self,
        family: Family,
        range: crate::Range,
        direction: Direction,
        sequence: SequenceNumber,
    ) -> Result<Box<dyn crate::Entries>> {
        let of = Of { family, range, direction, sequence, now_ms: self.clock.wall_ms() };
        Ok(Box::new(Arc::new(self.clone()).scan(of, ReadOptions::default())?))
    }

    /// See [`Scan`]. Sources outside of the range are not opened.
    pub(crate) fn scan(self: &Arc<Self>, of: Of, options: ReadOptions) -> Result<Scan> {
        let of = Of { range: of.range.normal(), ..of };
        let levels = self.levels(of.family)?;
        let state = Arc::new(PinnedState(self.clone()));
        let mut sources: Vec<Source> = Vec::with_capacity(self.memtables.len() + levels.level0_depth() + LEVEL_COUNT);
        for memtable in self.memtables.iter().filter(|memtable| !memtable.is_empty()) {
            sources.push(Source::Memtable(MemtableCursor::new(memtable.clone(), of.family, of.direction)));
        }
        // Bounds are checked above the merge, so sources may leave out what does not begin with it.
        let prefix = of.range.shared_prefix();
        let level_cursor = |cursor: LevelCursor| {
            let cursor = cursor.for_prefix(prefix);
            Source::Level(if options.fill_cache { cursor } else { cursor.for_one_pass() })
        };
        for run in levels.level0_runs(|table| table.meta().reaches_into(&of.range)) {
            match run.as_slice() {
                [table] => {
                    let Some(reader) = self.tables.reader_for_prefix(table, prefix)? else { continue };
                    let new = if options.fill_cache { TableCursor::new } else { TableCursor::for_one_pass };
                    // The scan's state pins the table.
                    let cursor = new(reader, of.direction);
                    let newest = table.meta().largest_sequence;
                    sources.push(Source::Table(PinnedTable { cursor, newest, _table: None }));
                }
                _ => sources.push(level_cursor(LevelCursor::new(run, self.tables.clone(), of.direction))),
            }
        }
        for level in 1..LEVEL_COUNT {
            let cursor = LevelCursor::within(&state, of.family, level, &of.range, of.direction);
            sources.extend(cursor.map(level_cursor));
        }
        let merge = MergingCursor::new(sources, of.direction);
        let hidden = Hidden::new(self, &levels.range_tombstones, of.family, of.sequence);
        Ok(Scan::new(state, merge, hidden, of, options))
    }

    pub(super) fn levels(&self, family: Family) -> Result<&FamilyLevels> {
        self.version.family(family).ok_or_else(|| self.version.no_family(family))
    }
}

/// Observes the steps of a lookup.
trait Watch {
    /// What tables are read for.
    fn purpose(&self) -> Use;
    /// A memtable has the answer.
    fn memory(&mut self);
    /// A table of a level was searched for a key with this hash.
    fn table(&mut self, level: usize, reader: &TableReader, hash: u64, found: bool);
}

/// No observer: costs nothing.
struct Unwatched;

impl Watch for Unwatched {
    #[inline(always)]
    fn purpose(&self) -> Use {
        Use::Point
    }

    #[inline(always)]
    fn memory(&mut self) {}

    #[inline(always)]
    fn table(&mut self, _: usize, _: &TableReader, _: u64, _: bool) {}
}

/// For the statistics.
struct Recorded<'a> {
    recorder: &'a Recorder,
    /// The key is read often.
    hot: bool,
    in_memory: bool,
}

impl Watch for Recorded<'_> {
    fn purpose(&self) -> Use {
        if self.hot { Use::Hot } else { Use::Point }
    }

    fn memory(&mut self) {
        self.in_memory = true;
    }

    fn table(&mut self, level: usize, reader: &TableReader, hash: u64, found: bool) {
        // The filter is queried a second time, which only the sampled reads pay for.
        self.recorder.reads.note_table(level, reader.may_contain_hash(hash), found);
    }
}

/// A cursor over one table that keeps it from becoming obsolete.
pub struct PinnedTable {
    cursor: TableCursor,
    /// The largest sequence number in it.
    newest: SequenceNumber,
    /// For a caller that already holds what keeps it from becoming obsolete.
    _table: Option<Arc<Table>>,
}

impl PinnedTable {
    /// A cursor without a position, for one walk over the whole table: leaves the block cache as it is.
    pub fn open_for_one_pass(table: Arc<Table>, cache: &TableCache, direction: Direction) -> Result<PinnedTable> {
        let cursor = TableCursor::for_one_pass(cache.reader(&table)?, direction);
        Ok(PinnedTable { cursor, newest: table.meta().largest_sequence, _table: Some(table) })
    }

    /// As [`Source::skip_old`].
    pub(super) fn skip_old(&mut self, target: KeyRef<'_>, below: SequenceNumber) -> Result<bool> {
        if self.newest >= below {
            return Ok(false);
        }
        self.cursor.seek(target)?;
        Ok(true)
    }
}

impl Cursor for PinnedTable {
    fn valid(&self) -> bool {
        self.cursor.valid()
    }

    fn key(&self) -> KeyRef<'_> {
        self.cursor.key()
    }

    fn kind(&self) -> Kind {
        self.cursor.kind()
    }

    fn stored(&self) -> Bytes {
        self.cursor.stored()
    }

    #[inline]
    fn stored_slice(&self) -> &[u8] {
        self.cursor.stored_slice()
    }

    fn run_before(&self, limit: KeyRef<'_>) -> usize {
        self.cursor.run_before(limit)
    }

    fn peek(&self, steps: usize) -> Option<(Kind, &[u8])> {
        self.cursor.peek(steps)
    }

    fn advance(&mut self) -> Result<()> {
        self.cursor.advance()
    }

    fn prepare_seek(&mut self, target: KeyRef<'_>, step: usize) -> Result<()> {
        self.cursor.prepare_seek(target, step)
    }

    fn seek(&mut self, target: KeyRef<'_>) -> Result<()> {
        self.cursor.seek(target)
    }

    fn seek_to_first(&mut self) -> Result<()> {
        self.cursor.seek_to_first()
    }
}
