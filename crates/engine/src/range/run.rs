//! An immutable set of range tombstones that answers for any sequence number.
//!
//! The key space is cut at every start and end; between two cuts the same tombstones cover every key. A cut holds the
//! numbers of these ([`Set`]), and separately the newest, which answers nearly every question. So a search is one
//! binary search over the cuts and, for a reader whose number is below the newest, one in the set. Space: two cuts per
//! tombstone, and where ranges overlap a few nodes of 24 bytes for each cut.
//!
//! The binary search is over the cuts' [`Heads`]: keys lie all over memory, and most steps of a search of keys would
//! wait for it.

use super::heads::Heads;
use super::numbers::{Numbers, Set};
use super::{RangeTombstone, Span, push_joined, work};
use crate::SequenceNumber;
use bytes::Bytes;
use std::collections::HashMap;
use std::sync::Arc;

/// Cuts that share an entry of the summary.
const BLOCK: usize = 64;

/// See the head of this file.
#[derive(Debug)]
pub(crate) struct Run {
    /// As they were written, by start.
    tombstones: Vec<RangeTombstone>,
    /// Ascending. Before the first one nothing is covered, nor behind the last.
    cuts: Vec<Cut>,
    /// Of the cuts' keys.
    heads: Heads,
    numbers: Numbers,
    /// The newest number of each block of cuts.
    newest_of_blocks: Vec<SequenceNumber>,
    pub(super) smallest: SequenceNumber,
    pub(super) largest: SequenceNumber,
}

/// From here to the next one the same tombstones cover every key.
#[derive(Debug)]
struct Cut {
    key: Bytes,
    /// The newest of them, 0 if there are none.
    newest: SequenceNumber,
    set: Set,
}

impl Run {
    /// Of tombstones in any order; it takes linear time if they are in few sorted stretches.
    pub(crate) fn new(mut tombstones: Vec<RangeTombstone>) -> Run {
        tombstones.sort_by(|a, b| a.start.cmp(&b.start));
        let mut by_end: Vec<&RangeTombstone> = tombstones.iter().collect();
        by_end.sort_by(|a, b| a.end.cmp(&b.end));
        let mut sweep = Sweep::default();
        let (mut starts, mut ends) = (tombstones.iter().peekable(), by_end.into_iter().peekable());
        while let Some(end) = ends.peek() {
            let key = starts.peek().map_or(&end.end, |start| (&start.start).min(&end.end)).clone();
            while let Some(tombstone) = ends.next_if(|tombstone| tombstone.end == key) {
                sweep.end(tombstone.sequence);
            }
            while let Some(tombstone) = starts.next_if(|tombstone| tombstone.start == key) {
                debug_assert!(tombstone.start < tombstone.end, "an empty range deletes nothing");
                sweep.begin(tombstone.sequence);
            }
            sweep.cut(key);
        }
        assert!(sweep.open.is_empty() && sweep.set.is_empty(), "each range ends");
        let Sweep { cuts, numbers, .. } = sweep;
        let newest_of_blocks = cuts.chunks(BLOCK).map(|block| block.iter().map(|cut| cut.newest).max().unwrap_or(0));
        let newest_of_blocks = newest_of_blocks.collect();
        let smallest = tombstones.iter().map(|tombstone| tombstone.sequence).min().unwrap_or(SequenceNumber::MAX);
        let largest = tombstones.iter().map(|tombstone| tombstone.sequence).max().unwrap_or(0);
        let heads = Heads::new(cuts.iter().map(|cut| &cut.key[..]));
        Run { tombstones, cuts, heads, numbers, newest_of_blocks, smallest, largest }
    }

    /// Of all tombstones of several runs.
    pub(super) fn merged(runs: &[Arc<Run>]) -> Run {
        let mut all = Vec::with_capacity(runs.iter().map(|run| run.len()).sum());
        runs.iter().for_each(|run| all.extend_from_slice(&run.tombstones));
        Run::new(all)
    }

    /// As they were written, by start.
    pub(super) fn tombstones(&self) -> &[RangeTombstone] {
        &self.tombstones
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.tombstones.len()
    }

    /// The number of the newest tombstone at or below `at` over the key, 0 if there is none; and how far that holds.
    pub(super) fn span(&self, user_key: &[u8], at: SequenceNumber) -> Span<'_> {
        self.span_at(self.behind(user_key), at)
    }

    /// The same of the next key in either direction: `near` is the cut behind the last one.
    pub(super) fn span_from(&self, user_key: &[u8], at: SequenceNumber, near: &mut usize) -> Span<'_> {
        let candidates = [near.saturating_add(1), near.saturating_sub(1)];
        let found = candidates.into_iter().find(|behind| self.is_behind(*behind, user_key));
        *near = found.unwrap_or_else(|| self.behind(user_key));
        self.span_at(*near, at)
    }

    /// Whether this is the first cut behind the key.
    fn is_behind(&self, behind: usize, user_key: &[u8]) -> bool {
        work::note(1);
        let before = behind.checked_sub(1).and_then(|before| self.cuts.get(before));
        behind <= self.cuts.len()
            && before.is_none_or(|cut| cut.key <= user_key)
            && self.cuts.get(behind).is_none_or(|cut| user_key < cut.key)
    }

    /// Of the keys before this cut and at or behind the one before it.
    fn span_at(&self, behind: usize, at: SequenceNumber) -> Span<'_> {
        let end = self.cuts.get(behind).map(|cut| &cut.key);
        match behind.checked_sub(1).and_then(|before| self.cuts.get(before)) {
            Some(cut) => Span { start: Some(&cut.key), end, sequence: self.newest(cut, at) },
            None => Span { start: None, end, sequence: 0 },
        }
    }

    /// The same without the bounds.
    pub(super) fn covering(&self, user_key: &[u8], at: SequenceNumber) -> SequenceNumber {
        let before = self.behind(user_key).checked_sub(1);
        before.and_then(|before| self.cuts.get(before)).map_or(0, |cut| self.newest(cut, at))
    }

    /// A key of `start..end` (no bound: all that follow) that a tombstone above `since` covers.
    pub(super) fn covered_since(&self, start: &[u8], end: Option<&[u8]>, since: SequenceNumber) -> Option<Bytes> {
        if self.largest <= since || end.is_some_and(|end| end <= start) {
            return None;
        }
        let mut at = self.behind(start).saturating_sub(1);
        while let Some(cut) = self.cuts.get(at) {
            work::note(1);
            if end.is_some_and(|end| cut.key >= end) {
                return None;
            }
            if cut.newest > since && self.cuts.get(at + 1).is_some_and(|next| next.key > start) {
                return Some(if cut.key < start { Bytes::copy_from_slice(start) } else { cut.key.clone() });
            }
            at += 1;
            // Whole blocks without anything that new are passed over.
            while at.is_multiple_of(BLOCK)
                && self.newest_of_blocks.get(at / BLOCK).is_some_and(|newest| *newest <= since)
            {
                work::note(1);
                at += BLOCK;
            }
        }
        None
    }

    /// The newest over each key: ascending, disjoint ranges.
    pub(crate) fn newest_only(&self) -> Vec<RangeTombstone> {
        let mut newest = Vec::with_capacity(self.cuts.len());
        for pair in self.cuts.windows(2) {
            let [from, to] = pair else { continue };
            if from.newest > 0 {
                let (start, end) = (from.key.clone(), to.key.clone());
                push_joined(&mut newest, RangeTombstone { start, end, sequence: from.newest });
            }
        }
        newest
    }

    fn newest(&self, cut: &Cut, at: SequenceNumber) -> SequenceNumber {
        if cut.newest <= at { cut.newest } else { self.numbers.newest(cut.set, at) }
    }

    /// The first cut behind the key.
    fn behind(&self, user_key: &[u8]) -> usize {
        let same_head = self.heads.equal(user_key);
        if self.heads.decide(user_key) {
            return same_head.end;
        }
        let (first, cuts) = (same_head.start, self.cuts.get(same_head).unwrap_or_default());
        first
            + cuts.partition_point(|cut| {
                work::note(1);
                cut.key <= user_key
            })
    }
}

/// Walks over the starts and ends of tombstones in key order.
#[derive(Default)]
struct Sweep {
    /// How many of the tombstones over the current key have each number.
    open: HashMap<SequenceNumber, usize>,
    set: Set,
    numbers: Numbers,
    cuts: Vec<Cut>,
}

impl Sweep {
    fn begin(&mut self, sequence: SequenceNumber) {
        work::note(1);
        let count = self.open.entry(sequence).or_default();
        *count += 1;
        if *count == 1 {
            self.set = self.numbers.with(self.set, sequence);
        }
    }

    fn end(&mut self, sequence: SequenceNumber) {
        work::note(1);
        let count = self.open.get_mut(&sequence).expect("a range begins before it ends");
        *count -= 1;
        if *count == 0 {
            self.open.remove(&sequence);
            self.set = self.numbers.without(self.set, sequence);
        }
    }

    /// Everything that begins or ends at `key` has been taken.
    fn cut(&mut self, key: Bytes) {
        if self.cuts.last().map_or(Set::default(), |cut| cut.set) != self.set {
            let newest = self.numbers.newest(self.set, SequenceNumber::MAX);
            self.cuts.push(Cut { key, newest, set: self.set });
        }
    }
}

#[cfg(test)]
#[path = "run_test.rs"]
pub(super) mod tests;
