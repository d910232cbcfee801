//! What a serializable transaction has read: keys, and the ranges that its iterators have passed over.
//!
//! A range counts as far as its iterator has read: up to the last key that it returned, or to the range's end once it
//! has reported that no key follows. Keys that were not returned cannot have influenced the transaction. Keys inside
//! such a range add nothing to it, and ranges that touch become one, so a scan costs one range however it was cut into
//! pieces.

use super::range_set::{RangeSet, range_bytes, successor};
use crate::{Error, Family, Range, Result};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// Bytes of a key that was read, in addition to its own.
const KEY_OVERHEAD_BYTES: u64 = 64;

/// A part of a range that an iterator has passed over.
#[derive(Clone, Debug)]
pub(super) struct Passed {
    /// The first key.
    pub(super) start: Bytes,
    /// Where it ends; `None` for unbounded.
    pub(super) end: Option<Bytes>,
    /// Whether the key `end` is part of it.
    pub(super) with_end: bool,
}

#[derive(Default)]
struct FamilyReads {
    keys: BTreeSet<Bytes>,
    ranges: RangeSet,
}

/// See the head of this file.
pub(super) struct ReadSet {
    families: BTreeMap<Family, FamilyReads>,
    /// Open iterators, with the part that each is in.
    iterators: BTreeMap<u64, (Family, Option<Passed>)>,
    next_iterator: u64,
    key_bytes: u64,
    /// Of settled ranges and of those that iterators are in.
    range_bytes: u64,
    bytes_max: u64,
}

impl ReadSet {
    pub(super) fn new(bytes_max: u64) -> ReadSet {
        ReadSet {
            families: BTreeMap::new(),
            iterators: BTreeMap::new(),
            next_iterator: 0,
            key_bytes: 0,
            range_bytes: 0,
            bytes_max,
        }
    }

    /// Records that a key was read, whether it existed or not.
    pub(super) fn note_key(&mut self, family: Family, key: &[u8]) -> Result<()> {
        let reads = self.families.entry(family).or_default();
        if reads.ranges.contains(key) || reads.keys.contains(key) {
            return Ok(());
        }
        let bytes = key.len() as u64 + KEY_OVERHEAD_BYTES;
        check_size(self.key_bytes + self.range_bytes + bytes, self.bytes_max)?;
        self.key_bytes += bytes;
        reads.keys.insert(Bytes::copy_from_slice(key));
        Ok(())
    }

    /// An iterator begins.
    pub(super) fn open(&mut self, family: Family) -> u64 {
        self.next_iterator += 1;
        self.iterators.insert(self.next_iterator, (family, None));
        self.next_iterator
    }

    /// The part that an iterator is in has grown to `passed`. On an error what it read last must not be returned.
    pub(super) fn pass(&mut self, iterator: u64, passed: Passed) -> Result<()> {
        let (_, open) = self.iterators.get_mut(&iterator).expect("the iterator is open");
        let before = open.as_ref().map_or(0, passed_bytes);
        let range_bytes = self.range_bytes - before + passed_bytes(&passed);
        check_size(self.key_bytes + range_bytes, self.bytes_max)?;
        self.range_bytes = range_bytes;
        *open = Some(passed);
        Ok(())
    }

    /// An iterator seeks: what it has passed over so far becomes a separate part.
    pub(super) fn settle(&mut self, iterator: u64) {
        let (family, open) = self.iterators.get_mut(&iterator).expect("the iterator is open");
        let (family, open) = (*family, open.take());
        if let Some(passed) = open {
            self.add(family, passed);
        }
    }

    /// An iterator ends.
    pub(super) fn close(&mut self, iterator: u64) {
        self.settle(iterator);
        self.iterators.remove(&iterator);
    }

    fn add(&mut self, family: Family, passed: Passed) {
        self.range_bytes -= passed_bytes(&passed);
        let reads = self.families.entry(family).or_default();
        let before = reads.ranges.bytes();
        let end = if passed.with_end { passed.end.as_deref().map(successor) } else { passed.end };
        reads.ranges.insert(passed.start, end);
        self.range_bytes = self.range_bytes - before + reads.ranges.bytes();
    }

    /// Settles every iterator, so that [`ReadSet::keys`] and [`ReadSet::ranges`] are all that was read.
    pub(super) fn settle_all(&mut self) {
        let iterators: Vec<u64> = self.iterators.keys().copied().collect();
        iterators.into_iter().for_each(|iterator| self.settle(iterator));
    }

    /// The keys that were read outside of the ranges.
    pub(super) fn keys(&self) -> impl Iterator<Item = (Family, &Bytes)> {
        self.families.iter().flat_map(|(family, reads)| {
            reads.keys.iter().filter(|key| !reads.ranges.contains(key)).map(|key| (*family, key))
        })
    }

    /// The ranges.
    pub(super) fn ranges(&self) -> impl Iterator<Item = (Family, Range)> {
        self.families.iter().flat_map(|(family, reads)| {
            reads.ranges.iter().map(|(start, end)| (*family, Range { start: Some(start.clone()), end: end.cloned() }))
        })
    }

    /// About the memory it takes.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> u64 {
        self.key_bytes + self.range_bytes
    }
}

fn passed_bytes(passed: &Passed) -> u64 {
    range_bytes(&passed.start, passed.end.as_ref()) + u64::from(passed.with_end)
}

fn check_size(bytes: u64, bytes_max: u64) -> Result<()> {
    if bytes <= bytes_max {
        return Ok(());
    }
    Err(Error::TransactionTooLarge { option: "read_set_bytes_max", limit: bytes_max })
}

#[cfg(test)]
#[path = "reads_test.rs"]
mod tests;
