//! A cursor over a level below L0: disjoint tables in key order, opened one after the other.

use super::read_state::PinnedState;
use crate::table::{HeldReader, TableCursor};
use crate::types::{Cursor, KeyRef, Kind};
use crate::version::{Table, TableCache};
use crate::{Direction, Family, Range, Result, SequenceNumber};
use bytes::Bytes;
use std::sync::Arc;

/// A cursor over the concatenation of tables. Pins them all.
pub struct LevelCursor {
    tables: Tables,
    direction: Direction,
    once: bool,
    /// Only keys that begin with it are needed: tables without such keys are passed by.
    prefix: Bytes,
    at: usize,
    /// Over table `at`.
    cursor: Option<TableCursor>,
}

/// Ascending, disjoint tables.
enum Tables {
    List {
        tables: Vec<Arc<Table>>,
        cache: Arc<TableCache>,
    },
    /// Consecutive ones of a level: their version pins them, so thousands of reference counts need not be changed.
    Part {
        state: Arc<PinnedState>,
        family: Family,
        level: usize,
        part: std::ops::Range<usize>,
    },
}

impl Tables {
    fn all(&self) -> &[Arc<Table>] {
        match self {
            Tables::List { tables, .. } => tables,
            Tables::Part { state, family, level, part } => {
                let levels = state.version.family(*family).expect("the version had it when the part was chosen");
                levels.levels.get(*level).and_then(|tables| tables.get(part.clone())).expect("versions never change")
            }
        }
    }

    fn cache(&self) -> &TableCache {
        match self {
            Tables::List { cache, .. } => cache,
            Tables::Part { state, .. } => &state.tables,
        }
    }
}

impl LevelCursor {
    /// A cursor over `tables`, which are disjoint and ascending.
    pub fn new(tables: Vec<Arc<Table>>, cache: Arc<TableCache>, direction: Direction) -> LevelCursor {
        LevelCursor::over(Tables::List { tables, cache }, direction)
    }

    /// A cursor over those tables of a level below L0 that may hold keys of the range; `None` if there are none.
    pub(super) fn within(
        state: &Arc<PinnedState>,
        family: Family,
        level: usize,
        range: &Range,
        direction: Direction,
    ) -> Option<LevelCursor> {
        assert!(level > 0, "tables of L0 overlap");
        let tables = state.version.family(family)?.levels.get(level)?;
        let start = range.start.as_ref();
        let first = start.map_or(0, |start| tables.partition_point(|table| table.meta().largest_key < *start));
        let within = tables.get(first..).unwrap_or_default();
        let end = range.end.as_ref();
        let count = end.map_or(within.len(), |end| within.partition_point(|table| table.meta().smallest_key < *end));
        debug_assert!(within.iter().take(count).all(|table| table.meta().reaches_into(range)));
        let part = first..first + count;
        (count > 0).then(|| LevelCursor::over(Tables::Part { state: state.clone(), family, level, part }, direction))
    }

    fn over(tables: Tables, direction: Direction) -> LevelCursor {
        debug_assert!(tables.all().windows(2).all(|pair| pair[0].meta().largest_key < pair[1].meta().smallest_key));
        LevelCursor { tables, direction, once: false, prefix: Bytes::new(), at: 0, cursor: None }
    }

    /// For one walk over all tables: leaves the block cache as it is.
    pub fn for_one_pass(self) -> LevelCursor {
        LevelCursor { once: true, ..self }
    }

    /// For a caller that needs only keys that begin with `prefix`; of others, some are left out.
    pub fn for_prefix(self, prefix: &[u8]) -> LevelCursor {
        LevelCursor { prefix: Bytes::copy_from_slice(prefix), ..self }
    }

    /// The table where a target is or would be, if there is anything at or beyond it.
    fn table_for(&self, target: KeyRef<'_>) -> Option<usize> {
        let tables = self.tables.all();
        match self.direction {
            Direction::Forward => Some(tables.partition_point(|table| table.meta().largest_key < target.user_key))
                .filter(|&at| at < tables.len()),
            Direction::Backward => {
                tables.partition_point(|table| table.meta().smallest_key <= target.user_key).checked_sub(1)
            }
        }
    }

    #[inline]
    fn current(&self) -> &TableCursor {
        self.cursor.as_ref().expect("the caller checked valid()")
    }

    /// A cursor over table `at` without a position; `None` if nothing in it is needed.
    fn open(&mut self, at: usize) -> Result<Option<&mut TableCursor>> {
        self.cursor = None;
        self.at = at;
        let table = self.tables.all().get(at).expect("the caller chose among the tables");
        let Some(reader) = self.tables.cache().reader_for_prefix(table, &self.prefix)? else { return Ok(None) };
        Ok(Some(self.cursor.insert(table_cursor(reader, self.direction, self.once))))
    }

    /// Moves to following tables while the current one is exhausted.
    fn settle(&mut self) -> Result<()> {
        while !self.valid() {
            let Some(next) = self.direction.next_index(self.at, self.tables.all().len()) else {
                self.cursor = None;
                return Ok(());
            };
            if let Some(cursor) = self.open(next)? {
                cursor.seek_to_first()?;
            }
        }
        Ok(())
    }
}

/// A cursor without a position.
fn table_cursor(reader: HeldReader, direction: Direction, once: bool) -> TableCursor {
    if once { TableCursor::for_one_pass(reader, direction) } else { TableCursor::new(reader, direction) }
}

impl LevelCursor {
    /// Moves towards `target`, which is beyond, over tables that have numbers below `below` only, and over those that
    /// lie wholly before `target` without opening them. Whether it moved.
    pub(super) fn skip_old(&mut self, target: KeyRef<'_>, below: SequenceNumber) -> Result<bool> {
        let tables = self.tables.all();
        let is_old = |at: usize| tables.get(at).is_some_and(|table| table.meta().largest_sequence < below);
        let is_before = |at: usize| {
            tables.get(at).is_some_and(|table| match self.direction {
                Direction::Forward => table.meta().largest_key < target.user_key,
                Direction::Backward => table.meta().smallest_key >= target.user_key,
            })
        };
        if !is_old(self.at) {
            return Ok(false);
        }
        let mut at = self.at;
        while is_old(at) && is_before(at) {
            let Some(next) = self.direction.next_index(at, tables.len()) else {
                self.cursor = None;
                return Ok(true);
            };
            at = next;
        }
        let old = is_old(at);
        if at != self.at {
            self.open(at)?;
        }
        match &mut self.cursor {
            Some(cursor) if old => cursor.seek(target)?,
            Some(cursor) => cursor.seek_to_first()?,
            None => {}
        }
        self.settle()?;
        Ok(true)
    }
}

impl Cursor for LevelCursor {
    #[inline]
    fn valid(&self) -> bool {
        self.cursor.as_ref().is_some_and(Cursor::valid)
    }

    #[inline]
    fn key(&self) -> KeyRef<'_> {
        self.current().key()
    }

    #[inline]
    fn kind(&self) -> Kind {
        self.current().kind()
    }

    fn stored(&self) -> Bytes {
        self.current().stored()
    }

    #[inline]
    fn stored_slice(&self) -> &[u8] {
        self.current().stored_slice()
    }

    fn run_before(&self, limit: KeyRef<'_>) -> usize {
        self.current().run_before(limit)
    }

    #[inline]
    fn peek(&self, steps: usize) -> Option<(Kind, &[u8])> {
        self.current().peek(steps)
    }

    fn advance(&mut self) -> Result<()> {
        let cursor = self.cursor.as_mut().expect("the caller checked valid()");
        cursor.advance()?;
        if cursor.valid() { Ok(()) } else { self.settle() }
    }

    fn prepare_seek(&mut self, target: KeyRef<'_>, step: usize) -> Result<()> {
        if step == 0
            && let Some(at) = self.table_for(target)
            && (at != self.at || self.cursor.is_none())
        {
            self.open(at)?;
        }
        match &mut self.cursor {
            Some(cursor) => cursor.prepare_seek(target, step),
            None => Ok(()),
        }
    }

    fn seek(&mut self, target: KeyRef<'_>) -> Result<()> {
        match (self.table_for(target), &mut self.cursor) {
            (Some(at), Some(cursor)) if at == self.at => cursor.seek(target)?,
            (Some(at), _) => {
                if let Some(cursor) = self.open(at)? {
                    cursor.seek(target)?;
                }
            }
            (None, _) => {
                self.cursor = None;
                return Ok(());
            }
        }
        self.settle()
    }

    fn seek_to_first(&mut self) -> Result<()> {
        self.cursor = None;
        let Some(last) = self.tables.all().len().checked_sub(1) else { return Ok(()) };
        if let Some(cursor) = self.open(if self.direction == Direction::Forward { 0 } else { last })? {
            cursor.seek_to_first()?;
        }
        self.settle()
    }
}
