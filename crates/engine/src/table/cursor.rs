//! Walks over one table.

use super::block_reader::BlockCursor;
use super::format::Malformed;
use super::reader::{TableReader, corruption};
use crate::iterator::{Cursor, KeyRef};
use crate::kind::Kind;
use crate::{Direction, Result};
use bytes::Bytes;
use std::sync::Arc;

/// A cursor over all versions of a table. Keeps its file open.
pub struct TableCursor {
    reader: Arc<TableReader>,
    direction: Direction,
    /// The data block that `block` walks over.
    at: usize,
    block_offset: u64,
    block: Option<BlockCursor>,
}

impl TableCursor {
    /// A cursor that stands nowhere.
    pub fn new(reader: Arc<TableReader>, direction: Direction) -> TableCursor {
        TableCursor { reader, direction, at: 0, block_offset: 0, block: None }
    }

    fn current(&self) -> &BlockCursor {
        self.block.as_ref().expect("the caller checked valid()")
    }

    fn load(&mut self, at: usize) -> Result<()> {
        // If it fails the cursor must not look valid.
        let old = self.block.take();
        debug_assert!(at < self.reader.block_count(), "the caller chose among the blocks");
        let (handle, block) = self.reader.data_block(at)?;
        self.at = at;
        self.block_offset = handle.offset;
        self.block = Some(match old {
            Some(mut cursor) => {
                cursor.reset(block);
                cursor
            }
            None => BlockCursor::new(block, self.direction),
        });
        Ok(())
    }

    fn with_block(&mut self, act: impl FnOnce(&mut BlockCursor) -> std::result::Result<(), Malformed>) -> Result<()> {
        let Some(block) = self.block.as_mut() else { return Ok(()) };
        let result = act(block);
        result.map_err(|what| {
            self.block = None;
            corruption(self.reader.path(), self.block_offset, what)
        })
    }

    /// Moves on to following blocks while the current one is exhausted.
    fn settle(&mut self) -> Result<()> {
        while self.block.as_ref().is_some_and(|block| !block.valid()) {
            match self.direction.next_index(self.at, self.reader.block_count()) {
                Some(next) => {
                    self.load(next)?;
                    self.with_block(BlockCursor::seek_to_first)?;
                }
                None => self.block = None,
            }
        }
        Ok(())
    }
}

impl Cursor for TableCursor {
    fn valid(&self) -> bool {
        self.block.as_ref().is_some_and(BlockCursor::valid)
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

    fn stored_slice(&self) -> &[u8] {
        self.current().stored_slice()
    }

    fn advance(&mut self) -> Result<()> {
        debug_assert!(self.valid(), "the caller checked valid()");
        self.with_block(BlockCursor::advance)?;
        self.settle()
    }

    fn seek(&mut self, target: KeyRef<'_>) -> Result<()> {
        self.block = None;
        let found = self.reader.first_block_for(target)?;
        let count = self.reader.block_count();
        let at = match self.direction {
            Direction::Forward if found >= count => return Ok(()),
            Direction::Forward => found,
            // Everything is below the target, or the block that the target would be in holds the answer or follows it.
            Direction::Backward if count == 0 => return Ok(()),
            Direction::Backward => found.min(count - 1),
        };
        self.load(at)?;
        self.with_block(|block| block.seek(target))?;
        self.settle()
    }

    fn seek_to_first(&mut self) -> Result<()> {
        self.block = None;
        let Some(last) = self.reader.block_count().checked_sub(1) else { return Ok(()) };
        self.load(if self.direction == Direction::Forward { 0 } else { last })?;
        self.with_block(BlockCursor::seek_to_first)?;
        self.settle()
    }
}
