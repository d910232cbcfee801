//! A cursor that owns its memtable.

use super::Memtable;
use super::tree::{Position, Record, Walk};
use crate::types::{Cursor, KeyRef, Kind};
use crate::{Direction, Family, Result, SequenceNumber};
use bytes::Bytes;
use std::sync::Arc;

/// A cursor over one family of a memtable. Keys and stored bytes are borrowed from the memtable.
///
/// It sees everything that was inserted before its last seek. Versions inserted meanwhile may be missed: they are above
/// the sequence number of the reader, since publication follows insertion.
pub struct MemtableCursor {
    memtable: Arc<Memtable>,
    family: Family,
    direction: Direction,
    /// None while the family has nothing here.
    walk: Option<Walk>,
}

impl MemtableCursor {
    /// A cursor over `family` in `direction`.
    pub fn new(memtable: Arc<Memtable>, family: Family, direction: Direction) -> MemtableCursor {
        MemtableCursor { memtable, family, direction, walk: None }
    }

    fn current(&self) -> Record<'_> {
        self.walk.as_ref().and_then(Walk::current).expect("the caller checked valid()")
    }

    fn walk(&mut self) -> Option<&mut Walk> {
        if self.walk.is_none() {
            let tree = self.memtable.families.get(self.family)?;
            self.walk = Some(Walk::new(tree.clone(), self.direction == Direction::Backward));
        }
        self.walk.as_mut()
    }
}

impl MemtableCursor {
    /// Seeks to `target` if the whole memtable has numbers below `below` only; whether it did. For a reader at or
    /// above `below`: later insertions are newer than that and not visible to it.
    pub(crate) fn skip_old(&mut self, target: KeyRef<'_>, below: SequenceNumber) -> Result<bool> {
        if self.memtable.largest_sequence().is_some_and(|largest| largest >= below) {
            return Ok(false);
        }
        self.seek(target)?;
        Ok(true)
    }
}

impl Cursor for MemtableCursor {
    fn valid(&self) -> bool {
        self.walk.as_ref().is_some_and(|walk| walk.current().is_some())
    }

    fn key(&self) -> KeyRef<'_> {
        let record = self.current();
        KeyRef::new(record.key(), record.sequence())
    }

    fn kind(&self) -> Kind {
        super::kind_of(self.current())
    }

    fn stored(&self) -> Bytes {
        self.current().stored()
    }

    fn stored_slice(&self) -> &[u8] {
        self.current().stored_slice()
    }

    fn run_before(&self, limit: KeyRef<'_>) -> usize {
        let limit = Position { key: limit.user_key, sequence: limit.sequence };
        self.walk.as_ref().map_or(0, |walk| walk.run_before(limit))
    }

    fn advance(&mut self) -> Result<()> {
        self.walk.as_mut().expect("the caller checked valid()").advance();
        Ok(())
    }

    fn seek(&mut self, target: KeyRef<'_>) -> Result<()> {
        if let Some(walk) = self.walk() {
            walk.seek(Position { key: target.user_key, sequence: target.sequence });
        }
        Ok(())
    }

    fn seek_to_first(&mut self) -> Result<()> {
        if let Some(walk) = self.walk() {
            walk.seek_to_first();
        }
        Ok(())
    }
}
