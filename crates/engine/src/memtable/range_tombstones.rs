//! The range tombstones of a memtable.

use crate::version::RangeTombstone;
use crate::{Family, SequenceNumber};
use bytes::Bytes;
use parking_lot::RwLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// Tombstones that are looked through one by one before they join the search tree; and as many more as an eighth of
/// the tree, so that rebuilding it costs each of them a few moves only, however many come.
const UNSORTED_MAX: usize = 16;

/// All of them. Most memtables have none, which costs a lookup one load.
#[derive(Default)]
pub(super) struct RangeTombstones {
    some: AtomicBool,
    sets: RwLock<Sets>,
}

#[derive(Default)]
struct Sets {
    sorted: Vec<Node>,
    unsorted: Vec<(Family, RangeTombstone)>,
}

/// A node of a balanced tree over a sorted list: the root of a stretch is its middle.
struct Node {
    family: Family,
    tombstone: RangeTombstone,
    /// The greatest (family, end) of the stretch.
    last_end: (Family, Bytes),
    /// The greatest sequence number of the stretch.
    newest: SequenceNumber,
}

impl RangeTombstones {
    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        !self.some.load(Ordering::Acquire)
    }

    pub(super) fn add(&self, family: Family, tombstone: RangeTombstone) {
        assert!(tombstone.start < tombstone.end, "an empty range deletes nothing");
        let mut sets = self.sets.write();
        sets.unsorted.push((family, tombstone));
        if sets.unsorted.len() > UNSORTED_MAX + sets.sorted.len() / 8 {
            sets.sort();
        }
        self.some.store(true, Ordering::Release);
    }

    /// Those of a family, in no particular order.
    pub(super) fn of(&self, family: Family) -> Vec<RangeTombstone> {
        if self.is_empty() {
            return Vec::new();
        }
        let sets = self.sets.read();
        let sorted = sets.sorted.iter().map(|node| (node.family, &node.tombstone));
        let all = sorted.chain(sets.unsorted.iter().map(|(of, tombstone)| (*of, tombstone)));
        all.filter(|(of, _)| *of == family).map(|(_, tombstone)| tombstone.clone()).collect()
    }

    /// The newest one at or below `at` that covers the key, by its number.
    pub(super) fn covering(&self, family: Family, user_key: &[u8], at: SequenceNumber) -> Option<SequenceNumber> {
        if self.is_empty() {
            return None;
        }
        let sets = self.sets.read();
        let mut best = 0;
        for (of, tombstone) in &sets.unsorted {
            if *of == family && tombstone.sequence <= at && tombstone.covers(user_key) {
                best = best.max(tombstone.sequence);
            }
        }
        newest_covering(&sets.sorted, family, user_key, at, &mut best);
        (best > 0).then_some(best)
    }
}

impl Sets {
    fn sort(&mut self) {
        let added = self.unsorted.drain(..).map(|(family, tombstone)| {
            let last_end = (family, tombstone.end.clone());
            Node { family, newest: tombstone.sequence, tombstone, last_end }
        });
        self.sorted.extend(added);
        self.sorted.sort_by(|a, b| (a.family, &a.tombstone.start).cmp(&(b.family, &b.tombstone.start)));
        summarize(&mut self.sorted);
        debug_assert!(self.unsorted.is_empty());
    }
}

/// Computes what the nodes say of their stretches.
fn summarize(stretch: &mut [Node]) -> Option<((Family, Bytes), SequenceNumber)> {
    let middle = stretch.len() / 2;
    let (left, rest) = stretch.split_at_mut(middle);
    let (node, right) = rest.split_first_mut()?;
    node.last_end = (node.family, node.tombstone.end.clone());
    node.newest = node.tombstone.sequence;
    for (last_end, newest) in [summarize(left), summarize(right)].into_iter().flatten() {
        node.newest = node.newest.max(newest);
        if last_end > node.last_end {
            node.last_end = last_end;
        }
    }
    Some((node.last_end.clone(), node.newest))
}

/// Raises `best` to the newest tombstone of the stretch at or below `at` that covers the key. Visits only stretches
/// that reach beyond the key and hold something newer than `best`.
fn newest_covering(stretch: &[Node], family: Family, key: &[u8], at: SequenceNumber, best: &mut SequenceNumber) {
    let (left, rest) = stretch.split_at(stretch.len() / 2);
    let Some((node, right)) = rest.split_first() else { return };
    let (last_family, last_end) = &node.last_end;
    if node.newest <= *best || (*last_family, last_end.as_ref()) <= (family, key) {
        return;
    }
    newest_covering(left, family, key, at, best);
    if (node.family, node.tombstone.start.as_ref()) <= (family, key) {
        let tombstone = &node.tombstone;
        if node.family == family && tombstone.sequence <= at && tombstone.covers(key) {
            *best = tombstone.sequence.max(*best);
        }
        newest_covering(right, family, key, at, best);
    }
}

#[cfg(test)]
#[path = "range_tombstones_test.rs"]
mod tests;
