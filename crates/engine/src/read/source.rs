//! The sources of a merge, distinguished by an enum: the calls of every step are direct, and are inlined.

use super::{LevelCursor, PinnedTable};
use crate::memtable::MemtableCursor;
use crate::types::{Cursor, KeyRef, Kind};
use crate::{Result, SequenceNumber};
use bytes::Bytes;

/// A cursor that can be merged.
pub enum Source {
    /// A memtable.
    Memtable(MemtableCursor),
    /// One table.
    Table(PinnedTable),
    /// Disjoint tables.
    Level(LevelCursor),
    /// Anything else.
    Other(Box<dyn Cursor>),
}

macro_rules! each {
    ($self:expr, $cursor:ident => $what:expr) => {
        match $self {
            Source::Memtable($cursor) => $what,
            Source::Table($cursor) => $what,
            Source::Level($cursor) => $what,
            Source::Other($cursor) => $what,
        }
    };
}

impl From<Box<dyn Cursor>> for Source {
    fn from(cursor: Box<dyn Cursor>) -> Source {
        Source::Other(cursor)
    }
}

impl Source {
    /// Seeks to `target`, which is beyond, if everything before it has a number below `below`; whether it did.
    pub(super) fn skip_old(&mut self, target: KeyRef<'_>, below: SequenceNumber) -> Result<bool> {
        match self {
            Source::Memtable(cursor) => cursor.skip_old(target, below),
            Source::Table(cursor) => cursor.skip_old(target, below),
            Source::Level(cursor) => cursor.skip_old(target, below),
            Source::Other(_) => Ok(false),
        }
    }
}

impl Cursor for Source {
    #[inline]
    fn valid(&self) -> bool {
        each!(self, cursor => cursor.valid())
    }

    #[inline]
    fn key(&self) -> KeyRef<'_> {
        each!(self, cursor => cursor.key())
    }

    #[inline]
    fn kind(&self) -> Kind {
        each!(self, cursor => cursor.kind())
    }

    fn stored(&self) -> Bytes {
        each!(self, cursor => cursor.stored())
    }

    #[inline]
    fn stored_slice(&self) -> &[u8] {
        each!(self, cursor => cursor.stored_slice())
    }

    fn run_before(&self, limit: KeyRef<'_>) -> usize {
        each!(self, cursor => cursor.run_before(limit))
    }

    #[inline]
    fn peek(&self, steps: usize) -> Option<(Kind, &[u8])> {
        each!(self, cursor => cursor.peek(steps))
    }

    #[inline]
    fn advance(&mut self) -> Result<()> {
        each!(self, cursor => cursor.advance())
    }

    fn prepare_seek(&mut self, target: KeyRef<'_>, step: usize) -> Result<()> {
        each!(self, cursor => cursor.prepare_seek(target, step))
    }

    fn seek(&mut self, target: KeyRef<'_>) -> Result<()> {
        each!(self, cursor => cursor.seek(target))
    }

    fn seek_to_first(&mut self) -> Result<()> {
        each!(self, cursor => cursor.seek_to_first())
    }
}
