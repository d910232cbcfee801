//! What a table refers to in the value log.
//!
//! Every table carries, for each value segment, the bytes of the records that its pointers lead to. The sum over a
//! version's tables is what of a segment is still referred to; the rest of the segment is garbage. So there are no
//! reports of what a flush or a compaction drops, a value whose write was given up, what a crash has left, or a table
//! that is removed without being read: what no table refers to is not counted. Deletion is safe for the same
//! reason: a segment is deleted when no table of the version refers to it, and no lost or doubled report can change
//! that.
//!
//! Rejected: counters of discarded bytes, reported by the code that drops a version (BlobDB's meters, Badger's discard
//! statistics): each way to forget a report leaks space for ever, and each way to report twice loses data.

use super::format::record_stride;
use crate::types::{Content, Decoded, Kind};
use kontiki_env::codec::{Truncated, get_varint, put_varint};
use std::collections::BTreeMap;

/// Bytes referred to, by value segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ValueRefs {
    by_segment: BTreeMap<u64, u64>,
}

impl ValueRefs {
    /// Nothing.
    pub fn new() -> ValueRefs {
        ValueRefs::default()
    }

    /// Adds a version that a table gets, of a key of so many bytes. Values that are in the table itself do not
    /// count.
    pub fn note(&mut self, key_bytes: usize, kind: Kind, stored: &[u8]) {
        if !kind.is_pointer() {
            return;
        }
        // Stored bytes that do not decode are refused where they come from; a table that has them nevertheless is found
        // by `kontiki check`.
        if let Ok(Decoded { content: Content::Pointer(pointer), .. }) = Decoded::new(kind, stored) {
            *self.by_segment.entry(pointer.segment).or_default() += record_stride(key_bytes, pointer.length as usize);
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_segment.is_empty()
    }

    /// Segments, ascending, with the bytes of their records that are referred to.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        self.by_segment.iter().map(|(segment, bytes)| (*segment, *bytes))
    }

    /// Bytes of a segment that are referred to.
    pub fn bytes_of(&self, segment: u64) -> u64 {
        self.by_segment.get(&segment).copied().unwrap_or(0)
    }

    /// Bytes of all segments that are referred to.
    pub fn total_bytes(&self) -> u64 {
        self.by_segment.values().sum()
    }

    /// Adds those of another table; `None` if a sum is beyond what there can be, and then some have been added.
    pub(crate) fn add(&mut self, other: &ValueRefs) -> Option<()> {
        for (segment, bytes) in other.iter() {
            let sum = self.by_segment.entry(segment).or_default();
            *sum = sum.checked_add(bytes)?;
        }
        Some(())
    }

    /// Subtracts those of a table that was added before.
    pub(crate) fn subtract(&mut self, other: &ValueRefs) {
        for (segment, bytes) in other.iter() {
            let sum = self.by_segment.get_mut(&segment).expect("what is taken away was added");
            *sum = sum.checked_sub(bytes).expect("what is subtracted was added");
            if *sum == 0 {
                self.by_segment.remove(&segment);
            }
        }
    }

    /// Appends the encoding: the number of segments, then for each its number and bytes; all varints.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.by_segment.len() as u64);
        for (segment, bytes) in self.iter() {
            put_varint(out, segment);
            put_varint(out, bytes);
        }
    }

    /// Takes an encoding. Segments ascend and have at least a byte each.
    pub fn decode(input: &mut &[u8]) -> Result<ValueRefs, Truncated> {
        let mut refs = ValueRefs::new();
        for _ in 0..get_varint(input)? {
            let (segment, bytes) = (get_varint(input)?, get_varint(input)?);
            let last = refs.by_segment.last_key_value().map(|(last, _)| *last);
            if bytes == 0 || last.is_some_and(|last| last >= segment) {
                return Err(Truncated);
            }
            refs.by_segment.insert(segment, bytes);
        }
        Ok(refs)
    }
}

#[cfg(test)]
#[path = "refs_test.rs"]
mod tests;
