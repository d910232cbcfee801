//! Sets of keys of one family, kept as ranges that neither overlap nor touch.

pub(super) use crate::types::successor;

use bytes::Bytes;
use std::collections::BTreeMap;
use std::ops::Bound;

/// The keys `start <= key < end`; an absent end means unbounded. The empty key is the least of all, so a range that
/// starts there has no lower bound.
pub(super) type KeyRange = (Bytes, Option<Bytes>);

/// Bytes of a range in addition to its two keys: the entry in the map and two shared slices.
const RANGE_OVERHEAD_BYTES: u64 = 96;

/// A set of ranges. Ranges that overlap or touch become one, so its size is bounded by the gaps, not by the inserts.
#[derive(Clone, Debug, Default)]
pub(super) struct RangeSet {
    /// By start. Each end is less than the next start.
    ranges: BTreeMap<Bytes, Option<Bytes>>,
    bytes: u64,
}

impl RangeSet {
    /// Adds a range; returns those that it has absorbed, for [`RangeSet::undo_insert`]. An empty range adds nothing.
    pub(super) fn insert(&mut self, start: Bytes, end: Option<Bytes>) -> Inserted {
        if end.as_ref().is_some_and(|end| *end <= start) {
            return Inserted { union: None, absorbed: Vec::new() };
        }
        let mut union = (start, end);
        let mut absorbed = Vec::new();
        if let Some((before, end)) = self.ranges.range(..=union.0.clone()).next_back()
            && end.as_ref().is_none_or(|end| *end >= union.0)
        {
            absorbed.push((before.clone(), end.clone()));
        }
        let upper = union.1.clone().map_or(Bound::Unbounded, Bound::Included);
        let inside = self.ranges.range((Bound::Excluded(union.0.clone()), upper));
        absorbed.extend(inside.map(|(start, end)| (start.clone(), end.clone())));
        for range in &absorbed {
            self.remove(&range.0);
            union = join(union, range.clone());
        }
        self.add(union.clone());
        Inserted { union: Some(union), absorbed }
    }

    /// Undoes the last insert that is not undone yet.
    pub(super) fn undo_insert(&mut self, inserted: Inserted) {
        let Some((start, _)) = inserted.union else { return };
        self.remove(&start);
        inserted.absorbed.into_iter().for_each(|range| self.add(range));
    }

    /// The range that holds `key`, if one does.
    pub(super) fn find(&self, key: &[u8]) -> Option<(&Bytes, Option<&Bytes>)> {
        let upper: (Bound<&[u8]>, Bound<&[u8]>) = (Bound::Unbounded, Bound::Included(key));
        let (start, end) = self.ranges.range::<[u8], _>(upper).next_back()?;
        end.as_ref().is_none_or(|end| key < end.as_ref()).then_some((start, end.as_ref()))
    }

    /// Whether `key` is in the set.
    pub(super) fn contains(&self, key: &[u8]) -> bool {
        self.find(key).is_some()
    }

    /// The ranges in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Bytes, Option<&Bytes>)> {
        self.ranges.iter().map(|(start, end)| (start, end.as_ref()))
    }

    /// Whether no key is in the set.
    pub(super) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// About the memory it takes.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    fn add(&mut self, range: KeyRange) {
        self.bytes += range_bytes(&range.0, range.1.as_ref());
        let before = self.ranges.insert(range.0, range.1);
        assert!(before.is_none(), "ranges of a set are disjoint");
    }

    fn remove(&mut self, start: &Bytes) {
        let end = self.ranges.remove(start).expect("the caller has seen this range");
        self.bytes -= range_bytes(start, end.as_ref());
    }
}

/// The effect of an insert.
#[derive(Clone, Debug)]
pub(super) struct Inserted {
    union: Option<KeyRange>,
    absorbed: Vec<KeyRange>,
}

impl Inserted {
    /// About the memory that it takes.
    pub(super) fn bytes(&self) -> u64 {
        let all = self.union.iter().chain(&self.absorbed);
        all.map(|(start, end)| range_bytes(start, end.as_ref())).sum()
    }
}

/// About the memory that a range takes.
pub(super) fn range_bytes(start: &Bytes, end: Option<&Bytes>) -> u64 {
    start.len() as u64 + end.map_or(0, |end| end.len() as u64) + RANGE_OVERHEAD_BYTES
}

fn join(a: KeyRange, b: KeyRange) -> KeyRange {
    let end = match (a.1, b.1) {
        (Some(a), Some(b)) => Some(a.max(b)),
        _ => None,
    };
    (a.0.min(b.0), end)
}

#[cfg(test)]
#[path = "range_set_test.rs"]
mod tests;
