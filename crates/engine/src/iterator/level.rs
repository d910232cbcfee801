//! Walks over a level below L0: disjoint tables in key order, opened one after the other.

use super::{Cursor, KeyRef};
use crate::cache::TableCache;
use crate::kind::Kind;
use crate::table::TableCursor;
use crate::version::Table;
use crate::{Direction, Result};
use bytes::Bytes;
use std::sync::Arc;

/// A cursor over the concatenation of tables. Pins them all.
pub struct LevelCursor {
    tables: Vec<Arc<Table>>,
    cache: Arc<TableCache>,
    direction: Direction,
    at: usize,
    cursor: Option<TableCursor>,
}

impl LevelCursor {
    /// A cursor over `tables`, which are disjoint and ascending.
    pub fn new(tables: Vec<Arc<Table>>, cache: Arc<TableCache>, direction: Direction) -> LevelCursor {
        debug_assert!(tables.windows(2).all(|pair| pair[0].meta().largest_key < pair[1].meta().smallest_key));
        LevelCursor { tables, cache, direction, at: 0, cursor: None }
    }

    fn current(&self) -> &TableCursor {
        self.cursor.as_ref().expect("the caller checked valid()")
    }

    fn open(&mut self, at: usize) -> Result<&mut TableCursor> {
        debug_assert!(at < self.tables.len());
        self.cursor = None;
        let table = self.tables.get(at).expect("the caller chose among the tables");
        let reader = self.cache.reader(table.meta())?;
        self.at = at;
        Ok(self.cursor.insert(TableCursor::new(reader, self.direction)))
    }

    /// Moves on to following tables while the current one is exhausted.
    fn settle(&mut self) -> Result<()> {
        while self.cursor.as_ref().is_some_and(|cursor| !cursor.valid()) {
            match self.direction.next_index(self.at, self.tables.len()) {
                Some(next) => self.open(next)?.seek_to_first()?,
                None => self.cursor = None,
            }
        }
        Ok(())
    }
}

impl Cursor for LevelCursor {
    fn valid(&self) -> bool {
        self.cursor.as_ref().is_some_and(Cursor::valid)
    }

    fn key(&self) -> KeyRef<'_> {
        self.current().key()
    }

    fn kind(&self) -> Kind {
        self.current().kind()
    }

    fn stored(&self) -> Bytes {
        self.current().stored()
    }

    fn advance(&mut self) -> Result<()> {
        if let Some(cursor) = &mut self.cursor {
            cursor.advance()?;
        }
        self.settle()
    }

    fn seek(&mut self, target: KeyRef<'_>) -> Result<()> {
        let at = match self.direction {
            Direction::Forward => Some(self.tables.partition_point(|table| table.meta().largest_key < target.user_key))
                .filter(|&at| at < self.tables.len()),
            Direction::Backward => {
                self.tables.partition_point(|table| table.meta().smallest_key <= target.user_key).checked_sub(1)
            }
        };
        self.cursor = None;
        if let Some(at) = at {
            self.open(at)?.seek(target)?;
        }
        self.settle()
    }

    fn seek_to_first(&mut self) -> Result<()> {
        self.cursor = None;
        let Some(last) = self.tables.len().checked_sub(1) else { return Ok(()) };
        self.open(if self.direction == Direction::Forward { 0 } else { last })?.seek_to_first()?;
        self.settle()
    }
}
