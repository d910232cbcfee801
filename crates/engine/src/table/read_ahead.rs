//! Reads several blocks at once for a cursor over a table.

use super::format::{BlockHandle, TRAILER_BYTES};
use super::reader::{corruption, read_exactly};
use crate::{Direction, Result};
use kontiki_env::fs::File;
use std::path::Path;

/// The first read-ahead, at the second block in a row that is not in memory.
const FIRST_BYTES: usize = 16 << 10;
/// The largest. Beyond it a disk's bandwidth gains little and a short scan wastes more.
const LARGEST_BYTES: usize = 256 << 10;

/// The read-ahead state of one cursor.
pub(super) struct ReadAhead {
    direction: Direction,
    /// Data blocks lie below this offset.
    end: u64,
    /// Bytes of the next read; 0 before the first block.
    next_bytes: usize,
    start: u64,
    bytes: Vec<u8>,
}

impl ReadAhead {
    /// For a cursor over data blocks that end at `end`. `eager` for one that reads to the end.
    pub(super) fn new(direction: Direction, end: u64, eager: bool) -> ReadAhead {
        let next_bytes = if eager { LARGEST_BYTES } else { 0 };
        ReadAhead { direction, end, next_bytes, start: 0, bytes: Vec::new() }
    }

    /// The cursor has moved elsewhere: the next block is a first one again.
    pub(super) fn restart(&mut self) {
        if self.next_bytes < LARGEST_BYTES {
            self.next_bytes = 0;
        }
    }

    /// A block as it is stored, with its trailer.
    pub(super) fn read(&mut self, file: &dyn File, path: &Path, handle: BlockHandle) -> Result<Vec<u8>> {
        let length =
            usize::try_from(handle.length).map_err(|_| corruption(path, handle.offset, "a block is too long"))?;
        let length = length + TRAILER_BYTES;
        if let Some(block) = self.buffered(handle.offset, length) {
            return Ok(block.to_vec());
        }
        let ahead = self.next_bytes;
        self.next_bytes = (ahead * 2).clamp(FIRST_BYTES, LARGEST_BYTES);
        if ahead <= length {
            return read_exactly(file, path, handle.offset, length);
        }
        let block_end = handle.offset + length as u64;
        let (start, end) = match self.direction {
            Direction::Forward => (handle.offset, self.end.min(handle.offset + ahead as u64).max(block_end)),
            Direction::Backward => (block_end.saturating_sub(ahead as u64), block_end),
        };
        // The buffer is small: at most LARGEST_BYTES, or one block.
        self.bytes = read_exactly(file, path, start, (end - start) as usize)?;
        self.start = start;
        let block = self.buffered(handle.offset, length).map(<[u8]>::to_vec);
        block.ok_or_else(|| corruption(path, handle.offset, "a block lies outside of what was read"))
    }

    fn buffered(&self, offset: u64, length: usize) -> Option<&[u8]> {
        let at = usize::try_from(offset.checked_sub(self.start)?).ok()?;
        self.bytes.get(at..at.checked_add(length)?)
    }
}

#[cfg(test)]
#[path = "read_ahead_test.rs"]
mod tests;
