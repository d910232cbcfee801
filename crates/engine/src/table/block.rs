//! A block in memory, and the search in it. The layout is in [`super::block_writer`].
//!
//! All checks are made once, when a block is loaded: lengths, kinds, and the order of its keys. The holder of a
//! [`Block`] may rely on them, so that a search or a step needs neither checks nor error paths. A block with a matching
//! checksum and wrong content is refused here: it gives an error, never a panic or a wrong answer.
//!
//! Next to the block's bytes is an array of the keys' first 8 bytes after the shared prefix, as big-endian integers:
//! they compare like the keys do, unless they are equal. A search counts the smaller ones, with loads that do not wait
//! for one another, and compares whole keys only on a tie.

use super::block_writer::{BLOCK_HEADER_BYTES, sequence_of};
use super::format::Malformed;
use crate::SequenceNumber;
use crate::prefetch::prefetch;
use crate::types::{Decoded, KIND_BITS, KeyRef, Kind, SEQUENCE_NUMBER_MAX};
use bytes::Bytes;
use kontiki_env::codec::{Truncated, get_bytes, get_u8, get_u32, get_u64};
use std::cmp::Ordering;
use std::ops::Range;

type Checked<T> = std::result::Result<T, Malformed>;

const SHORT: Malformed = "the block is shorter than its columns";
/// Below so many keys a search reads all of them: 4 cache lines, fetched together.
const COUNTED_KEYS: usize = 32;
/// So many bytes of the heads, and of the columns of keys, are prefetched: those of an ordinary block.
const FETCHED_BYTES: usize = 512;

/// An uncompressed, checked block.
#[derive(Debug)]
pub struct Block {
    data: Bytes,
    /// The first 8 bytes of each suffix, padded with zeros.
    heads: Box<[u64]>,
    wide: bool,
    tag_bytes: u8,
    smallest_tag: u64,
    tag_mask: u64,
    /// Where the columns begin.
    key_ends: u32,
    stored_ends: u32,
    tags: u32,
    suffixes: u32,
    stored: u32,
}

struct Header {
    entries: u32,
    shared_bytes: u32,
    suffix_bytes: u32,
    end_bytes: u8,
    tag_bytes: u8,
    smallest_tag: u64,
}

fn header(mut input: &[u8]) -> std::result::Result<(Header, u16), Truncated> {
    let input = &mut input;
    let (entries, shared_bytes, suffix_bytes) = (get_u32(input)?, get_u32(input)?, get_u32(input)?);
    let (end_bytes, tag_bytes) = (get_u8(input)?, get_u8(input)?);
    let zero = u16::from_le_bytes(*get_bytes(input, 2)?.first_chunk().ok_or(Truncated)?);
    Ok((Header { entries, shared_bytes, suffix_bytes, end_bytes, tag_bytes, smallest_tag: get_u64(input)? }, zero))
}

impl Block {
    /// Checks everything about a block except its place in the table.
    pub fn new(data: Bytes) -> Checked<Block> {
        let (header, zero) = header(&data).map_err(|_| SHORT)?;
        if !matches!(header.end_bytes, 2 | 4) || header.tag_bytes > 8 || zero != 0 || header.entries == 0 {
            return Err("the block's header is malformed");
        }
        // Sums of products of 32-bit numbers and small widths fit 64 bits.
        let entries = u64::from(header.entries);
        let ends_bytes = entries * u64::from(header.end_bytes);
        let key_ends = BLOCK_HEADER_BYTES as u64 + u64::from(header.shared_bytes);
        let stored_ends = key_ends + ends_bytes;
        let tags = stored_ends + ends_bytes;
        let suffixes = tags + entries * u64::from(header.tag_bytes);
        let stored = suffixes + u64::from(header.suffix_bytes);
        if stored > data.len() as u64 || data.len() > u32::MAX as usize {
            return Err(SHORT);
        }
        let mut block = Block {
            heads: Box::default(),
            wide: header.end_bytes == 4,
            tag_bytes: header.tag_bytes,
            smallest_tag: header.smallest_tag,
            tag_mask: u64::MAX.checked_shr(64 - 8 * u32::from(header.tag_bytes)).unwrap_or(0),
            // All of them are at most `stored`, which is at most the length.
            key_ends: key_ends as u32,
            stored_ends: stored_ends as u32,
            tags: tags as u32,
            suffixes: suffixes as u32,
            stored: stored as u32,
            data,
        };
        block.check(header.entries as usize)?;
        Ok(block)
    }

    /// Checks ends, kinds, stored bytes and order, and fills `heads`.
    fn check(&mut self, entries: usize) -> Checked<()> {
        let bad_ends = "the ends of the block's entries are malformed";
        let suffixes = self.slice(self.suffixes as usize..self.stored as usize);
        let all_stored = self.slice(self.stored as usize..self.data.len());
        let mut heads = Vec::with_capacity(entries);
        let (mut key_at, mut stored_at) = (0, 0);
        let (mut last_head, mut last_suffix, mut last_tag): (u64, &[u8], u64) = (0, &[], 0);
        for index in 0..entries {
            let (key_end, stored_end) = (self.end(self.key_ends, index), self.end(self.stored_ends, index));
            let suffix = suffixes.get(key_at..key_end).ok_or(bad_ends)?;
            let stored = all_stored.get(stored_at..stored_end).ok_or(bad_ends)?;
            let tag = self.tag_checked(index)?;
            let kind = kind_of(tag).ok_or("an entry of the block is of no known kind")?;
            if sequence_of(tag) > SEQUENCE_NUMBER_MAX {
                return Err("a sequence number of the block is out of range");
            }
            if Decoded::new(kind, stored).is_err() {
                return Err("the stored bytes of an entry do not fit its kind");
            }
            let head = head_of(suffix);
            let ordered = index == 0
                || last_head < head
                || (last_head == head
                    && KeyRef::new(last_suffix, sequence_of(last_tag)) < KeyRef::new(suffix, sequence_of(tag)));
            if !ordered {
                return Err("the block's keys are not in order");
            }
            heads.push(head);
            (last_head, last_suffix, last_tag) = (head, suffix, tag);
            (key_at, stored_at) = (key_end, stored_end);
        }
        if key_at != suffixes.len() || stored_at != all_stored.len() {
            return Err(bad_ends);
        }
        self.heads = heads.into_boxed_slice();
        Ok(())
    }

    /// Bytes of memory, for the cache.
    pub fn memory_bytes(&self) -> usize {
        size_of::<Block>() + self.data.len() + size_of_val(&*self.heads)
    }

    /// Number of entries, at least 1.
    #[allow(clippy::len_without_is_empty)] // a block is never empty
    pub fn len(&self) -> usize {
        self.heads.len()
    }

    fn slice(&self, range: Range<usize>) -> &[u8] {
        debug_assert!(range.start <= range.end && range.end <= self.data.len());
        self.data.get(range).unwrap_or_default()
    }

    fn end(&self, column: u32, index: usize) -> usize {
        let column = column as usize;
        if self.wide {
            let bytes = self.data.get(column + index * 4..).and_then(<[u8]>::first_chunk);
            bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes) as usize)
        } else {
            let bytes = self.data.get(column + index * 2..).and_then(<[u8]>::first_chunk);
            bytes.map_or(0, |bytes| u16::from_le_bytes(*bytes).into())
        }
    }

    fn range(&self, column: u32, bytes_at: u32, index: usize) -> Range<usize> {
        debug_assert!(index < self.len(), "the caller stays among the entries");
        let start = if index == 0 { 0 } else { self.end(column, index - 1) };
        bytes_at as usize + start..bytes_at as usize + self.end(column, index)
    }

    fn tag_delta(&self, index: usize) -> u64 {
        let bytes = self.data.get(self.tags as usize + index * self.tag_bytes as usize..).unwrap_or_default();
        let value = match bytes.first_chunk() {
            Some(bytes) => u64::from_le_bytes(*bytes),
            // The last bytes of a block without stored bytes.
            None => bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)),
        };
        value & self.tag_mask
    }

    fn tag_checked(&self, index: usize) -> Checked<u64> {
        self.smallest_tag.checked_add(self.tag_delta(index)).ok_or("a tag of the block is malformed")
    }

    fn tag(&self, index: usize) -> u64 {
        self.smallest_tag.wrapping_add(self.tag_delta(index))
    }

    /// The sequence number of an entry.
    pub fn sequence(&self, index: usize) -> SequenceNumber {
        sequence_of(self.tag(index))
    }

    /// Sequence number and kind of an entry.
    pub fn version(&self, index: usize) -> (SequenceNumber, Kind) {
        let tag = self.tag(index);
        (sequence_of(tag), kind_of(tag).unwrap_or(Kind::Delete))
    }

    /// Prefetches what a search reads first.
    pub(crate) fn fetch_ahead(&self) {
        prefetch(self.heads.as_ptr().cast(), size_of_val(&*self.heads).min(FETCHED_BYTES));
        // Every column but that of the values.
        prefetch(self.data.as_ptr(), (self.stored as usize).min(FETCHED_BYTES));
    }

    /// What all user keys of the block begin with.
    pub fn shared_prefix(&self) -> &[u8] {
        self.slice(BLOCK_HEADER_BYTES..self.key_ends as usize)
    }

    /// The rest of an entry's user key.
    pub fn suffix(&self, index: usize) -> &[u8] {
        self.slice(self.range(self.key_ends, self.suffixes, index))
    }

    /// The bytes that go with an entry's kind.
    pub fn stored(&self, index: usize) -> &[u8] {
        self.slice(self.range(self.stored_ends, self.stored, index))
    }

    /// The same, sharing the block's memory.
    pub fn stored_bytes(&self, index: usize) -> Bytes {
        self.data.slice(self.range(self.stored_ends, self.stored, index))
    }

    /// Number of entries before `target`: where it is or would be.
    pub fn position(&self, target: KeyRef<'_>) -> usize {
        let Some(suffix) = target.user_key.strip_prefix(self.shared_prefix()) else {
            return if target.user_key < self.shared_prefix() { 0 } else { self.len() };
        };
        let head = head_of(suffix);
        let at = count_below(&self.heads, head);
        let target = KeyRef::new(suffix, target.sequence);
        if self.heads.get(at) != Some(&head) || self.compare(at, target) != Ordering::Less {
            return at;
        }
        let (mut low, mut high) =
            (at + 1, at + self.heads.get(at..).unwrap_or_default().partition_point(|h| *h == head));
        while low < high {
            let middle = low.midpoint(high);
            if self.compare(middle, target) == Ordering::Less { low = middle + 1 } else { high = middle }
        }
        low
    }

    /// How an entry compares with `target`, whose user key lacks the shared prefix.
    fn compare(&self, index: usize, target: KeyRef<'_>) -> Ordering {
        KeyRef::new(self.suffix(index), self.sequence(index)).cmp(&target)
    }

    /// Whether the entry's user key is `user_key`.
    pub fn has_user_key(&self, index: usize, user_key: &[u8]) -> bool {
        user_key.strip_prefix(self.shared_prefix()) == Some(self.suffix(index))
    }

    /// How the entry compares with `position`.
    pub fn cmp_entry(&self, index: usize, position: KeyRef<'_>) -> Ordering {
        let shared = self.shared_prefix();
        match position.user_key.strip_prefix(shared) {
            Some(suffix) => self.compare(index, KeyRef::new(suffix, position.sequence)),
            None => shared.cmp(position.user_key),
        }
    }
}

fn kind_of(tag: u64) -> Option<Kind> {
    Kind::from_byte((tag & ((1 << KIND_BITS) - 1)) as u8)
}

/// The first 8 bytes as a big-endian integer, padded with zeros.
fn head_of(suffix: &[u8]) -> u64 {
    match suffix.first_chunk() {
        Some(bytes) => u64::from_be_bytes(*bytes),
        None => {
            suffix.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)) << (64 - 8 * suffix.len() as u32).min(63)
        }
    }
}

/// Number of `heads`, which ascend, below `head`.
fn count_below(heads: &[u64], head: u64) -> usize {
    let (mut start, mut rest) = (0, heads);
    while rest.len() > COUNTED_KEYS {
        let (left, right) = rest.split_at(rest.len() / 2);
        match right.first() {
            Some(first) if *first < head => (start, rest) = (start + left.len(), right),
            _ => rest = left,
        }
    }
    start + rest.iter().filter(|candidate| **candidate < head).count()
}

#[cfg(test)]
#[path = "block_test.rs"]
mod tests;
