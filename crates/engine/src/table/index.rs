//! The index of a table, in two levels: the top, which an open table keeps, and its partitions, which come through the
//! block cache like data blocks. Both are blocks ([`super::block_writer`]); an entry is a *separator* and a handle.
//!
//! The separator of data block *i* is a position at or after the last version of block *i* and before the first of
//! block *i + 1*. A partition has the entries of [`PARTITION_BLOCKS`] data blocks in a row, the last one of the rest.
//! The top has an entry for each partition: the last separator in it, and the partition's handle.

use super::block::Block;
use super::block_writer::{BlockWriter, common_prefix};
use super::format::{BlockHandle, Malformed, TRAILER_BYTES};
use crate::types::{KeyRef, Kind};
use std::cmp::Ordering;

/// Data blocks of one partition: a megabyte of data for some 4 KiB of index.
pub const PARTITION_BLOCKS: u32 = 256;

type Checked<T> = std::result::Result<T, Malformed>;

/// Collects separators; a partition is finished when it is full.
#[derive(Default)]
pub(super) struct IndexWriter {
    partition: BlockWriter,
    /// Finished partitions: last separator, and the block.
    finished: Vec<(Vec<u8>, u64, Vec<u8>)>,
    finished_bytes: usize,
}

impl IndexWriter {
    /// Adds the entry of the next data block, given its last position and the first of what follows.
    pub(super) fn add(&mut self, last: KeyRef<'_>, next: Option<KeyRef<'_>>, handle: BlockHandle) {
        let separator = match next {
            Some(next) if next.user_key != last.user_key => {
                // One byte past the common prefix distinguishes the two; `next` is greater, so it has that byte.
                let length = common_prefix(last.user_key, next.user_key) + 1;
                KeyRef::before_all(next.user_key.get(..length).unwrap_or(next.user_key))
            }
            _ => last,
        };
        assert!(last <= separator && next.is_none_or(|next| separator < next), "an index entry separates its blocks");
        self.partition.add(separator, Kind::Put, &handle.encoded());
        if self.partition.entries() == PARTITION_BLOCKS as usize {
            self.end_partition();
        }
    }

    fn end_partition(&mut self) {
        let Some(last) = self.partition.last_key() else { return };
        let (user_key, sequence) = (last.user_key.to_vec(), last.sequence);
        let block = self.partition.finish().to_vec();
        self.finished_bytes += block.len() + user_key.len();
        self.finished.push((user_key, sequence, block));
        self.partition.reset();
    }

    /// Bytes of the index if it ended now, roughly.
    pub(super) fn bytes(&self) -> usize {
        self.finished_bytes + self.partition.bytes()
    }

    /// Writes the partitions by `write` and returns the top, which the caller writes.
    pub(super) fn finish<E>(
        &mut self,
        mut write: impl FnMut(&[u8]) -> std::result::Result<BlockHandle, E>,
    ) -> std::result::Result<Vec<u8>, E> {
        self.end_partition();
        let mut top = BlockWriter::new();
        for (user_key, sequence, block) in self.finished.drain(..) {
            let handle = write(&block)?;
            top.add(KeyRef::new(&user_key, sequence), Kind::Put, &handle.encoded());
        }
        Ok(top.finish().to_vec())
    }
}

/// The handle of entry `at` of an index block.
pub(super) fn handle_of(block: &Block, at: usize) -> Checked<BlockHandle> {
    let bad = "a block handle of the index is malformed";
    let mut stored = block.stored(at);
    let handle = BlockHandle::decode(&mut stored).map_err(|_| bad)?;
    if stored.is_empty() { Ok(handle) } else { Err(bad) }
}

/// A position with an owned key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Separator {
    pub(super) user_key: Vec<u8>,
    pub(super) sequence: u64,
}

impl Separator {
    /// That of entry `at` of an index block.
    pub(super) fn of(block: &Block, at: usize) -> Separator {
        Separator { user_key: [block.shared_prefix(), block.suffix(at)].concat(), sequence: block.sequence(at) }
    }

    pub(super) fn as_ref(&self) -> KeyRef<'_> {
        KeyRef::new(&self.user_key, self.sequence)
    }
}

/// Checks a block's keys against the separators around it.
pub(super) fn check_bounds(block: &Block, after: Option<&Separator>, until: &Separator) -> Checked<()> {
    let outside = "the block's keys lie outside of what the index says";
    if after.is_some_and(|after| block.cmp_entry(0, after.as_ref()) != Ordering::Greater) {
        return Err(outside);
    }
    if block.cmp_entry(block.len() - 1, until.as_ref()) == Ordering::Greater { Err(outside) } else { Ok(()) }
}

/// Checks the handles of an index block: blocks one after the other, without gaps, from `start` (unless it is not
/// known) to `end` at most.
pub(super) fn check_handles(block: &Block, start: Option<u64>, end: u64) -> Checked<()> {
    let bad = "the blocks that the index names do not follow one another";
    let mut expected = start;
    for at in 0..block.len() {
        let handle = handle_of(block, at)?;
        if expected.is_some_and(|expected| handle.offset != expected) {
            return Err(bad);
        }
        let after = handle.offset.checked_add(handle.length).and_then(|end| end.checked_add(TRAILER_BYTES as u64));
        match after {
            Some(after) if after <= end && handle.length <= super::format::BLOCK_BYTES_MAX => expected = Some(after),
            _ => return Err(bad),
        }
    }
    Ok(())
}
