//! Builds blocks: data blocks, and both levels of the index.
//!
//! A block is laid out in columns of fixed width, so that a reader finds any entry without decoding those before it:
//!
//! | offset | width | field |
//! |---|---|---|
//! | 0 | 4 | `n`: number of entries |
//! | 4 | 4 | `p`: bytes of the prefix that all user keys share |
//! | 8 | 4 | `k`: bytes of all suffixes together |
//! | 12 | 1 | `w`: width of an end: 2 or 4 |
//! | 13 | 1 | `t`: width of a tag: 0 to 8 |
//! | 14 | 2 | zero |
//! | 16 | 8 | smallest tag of the block |
//! | 24 | `p` | the shared prefix |
//! | | `n * w` | for each entry, where its suffix ends, counted from the first suffix |
//! | | `n * w` | for each entry, where its stored bytes end, counted from the first stored bytes |
//! | | `n * t` | for each entry, its tag less the smallest |
//! | | `k` | the suffixes: user keys without the shared prefix |
//! | | rest | the stored bytes |
//!
//! A tag is sequence number * 8 + kind (`kind.rs`). Integers are little-endian. Ends ascend; the last one is the length
//! of its column's bytes. Entries are in key order, each position once.
//!
//! Keys share the block's prefix and nothing else: LZ4 finds what neighbours share beyond it, and in memory a key is
//! rebuilt by replacing the end of the one before.

use crate::SequenceNumber;
use crate::types::{KIND_BITS, KeyRef, Kind};
use kontiki_env::codec::{put_u32, put_u64};

/// Bytes before the shared prefix.
pub(super) const BLOCK_HEADER_BYTES: usize = 24;
/// Bytes of an entry in addition to key and stored bytes, for estimates: two ends of 2 bytes, a tag of 4.
const ENTRY_BYTES_GUESS: usize = 8;

/// Collects the entries of one block.
#[derive(Default)]
pub struct BlockWriter {
    /// Whole user keys, one after the other.
    keys: Vec<u8>,
    key_ends: Vec<u32>,
    stored: Vec<u8>,
    stored_ends: Vec<u32>,
    tags: Vec<u64>,
    /// Bytes that the first and the last key, and so all keys, have in common.
    shared: usize,
    block: Vec<u8>,
}

impl BlockWriter {
    /// An empty block.
    pub fn new() -> BlockWriter {
        BlockWriter::default()
    }

    /// Adds a version. Keys must strictly increase.
    pub fn add(&mut self, key: KeyRef<'_>, kind: Kind, stored: &[u8]) {
        assert!(!kind.is_delete() || stored.is_empty(), "a tombstone has no stored bytes");
        let first = self.key_ends.first().map_or(0, |end| *end as usize);
        if let Some(last) = self.last_key() {
            assert!(last < key, "keys of a block must strictly increase");
            let known = self.keys.get(..first.min(self.shared)).unwrap_or_default();
            self.shared = common_prefix(known, key.user_key);
        } else {
            self.shared = key.user_key.len();
        }
        self.keys.extend_from_slice(key.user_key);
        self.stored.extend_from_slice(stored);
        self.key_ends.push(u32::try_from(self.keys.len()).expect("a block stays far below 4 GiB"));
        self.stored_ends.push(u32::try_from(self.stored.len()).expect("a block stays far below 4 GiB"));
        self.tags.push(key.sequence << KIND_BITS | u64::from(kind.to_byte()));
        debug_assert!(self.shared <= key.user_key.len());
    }

    /// Number of entries.
    pub fn entries(&self) -> usize {
        self.tags.len()
    }

    /// Bytes of the block if it ended now, roughly.
    pub fn bytes(&self) -> usize {
        let keys = self.keys.len() - self.shared * self.entries().saturating_sub(1);
        BLOCK_HEADER_BYTES + keys + self.stored.len() + self.entries() * ENTRY_BYTES_GUESS
    }

    /// The position of the last entry.
    pub fn last_key(&self) -> Option<KeyRef<'_>> {
        let (_, before) = self.key_ends.split_last()?;
        let start = before.last().map_or(0, |end| *end as usize);
        let user_key = self.keys.get(start..).expect("ends are lengths that `keys` had");
        Some(KeyRef::new(user_key, self.tags.last()? >> KIND_BITS))
    }

    /// The whole block. Nothing may be added until [`BlockWriter::reset`].
    pub fn finish(&mut self) -> &[u8] {
        let count = self.entries();
        assert!(count > 0, "an empty block is never written");
        let shared = self.shared;
        let suffix_bytes = self.keys.len() - count * shared;
        let wide = suffix_bytes.max(self.stored.len()) > usize::from(u16::MAX);
        let smallest_tag = self.tags.iter().copied().min().unwrap_or(0);
        let spread = self.tags.iter().copied().max().unwrap_or(0) - smallest_tag;
        let tag_bytes = (u64::BITS - spread.leading_zeros()).div_ceil(8) as usize;
        let block = &mut self.block;
        block.clear();
        put_u32(block, count as u32);
        put_u32(block, shared as u32);
        put_u32(block, suffix_bytes as u32);
        block.extend_from_slice(&[if wide { 4 } else { 2 }, tag_bytes as u8, 0, 0]);
        put_u64(block, smallest_tag);
        debug_assert_eq!(block.len(), BLOCK_HEADER_BYTES);
        block.extend_from_slice(self.keys.get(..shared).expect("the first key has the shared prefix"));
        for (index, end) in self.key_ends.iter().enumerate() {
            put_end(block, end - (index as u32 + 1) * shared as u32, wide);
        }
        for end in &self.stored_ends {
            put_end(block, *end, wide);
        }
        for tag in &self.tags {
            block.extend_from_slice((tag - smallest_tag).to_le_bytes().get(..tag_bytes).expect("a width of at most 8"));
        }
        let mut start = 0;
        for end in &self.key_ends {
            let end = *end as usize;
            block.extend_from_slice(self.keys.get(start + shared..end).expect("every key has the shared prefix"));
            start = end;
        }
        block.extend_from_slice(&self.stored);
        block
    }

    /// Starts the next block.
    pub fn reset(&mut self) {
        self.keys.clear();
        self.key_ends.clear();
        self.stored.clear();
        self.stored_ends.clear();
        self.tags.clear();
        self.shared = 0;
    }
}

fn put_end(block: &mut Vec<u8>, end: u32, wide: bool) {
    if wide {
        put_u32(block, end);
    } else {
        debug_assert!(end <= u32::from(u16::MAX));
        block.extend_from_slice(&(end as u16).to_le_bytes());
    }
}

/// The sequence number of a tag.
pub(super) fn sequence_of(tag: u64) -> SequenceNumber {
    tag >> KIND_BITS
}

/// Length of the longest common prefix.
pub fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(x, y)| x == y).count()
}
