//! Walking over a tree in one direction.

use super::super::sync::NODE_SLOTS;
use super::node::Count;
use super::record::{Header, Position, Record};
use super::{Target, Tree};
use std::ptr::NonNull;
use std::sync::Arc;

/// Records ahead of the current one that are prefetched: several loads from memory overlap.
const PREFETCH_RECORDS: usize = 8;

/// A walk over the tree that it keeps alive. It sees every version whose insertion had returned when it was placed;
/// of those inserted later, some.
pub(in super::super) struct Walk {
    /// What `leaf` points to lies in the arena of this tree.
    tree: Arc<Tree>,
    backward: bool,
    leaf: Copied,
}

/// The records of a leaf, in the order of the walk.
struct Copied {
    records: [Option<NonNull<Header>>; NODE_SLOTS],
    next: usize,
    end: usize,
    /// The separator behind these records, in the direction of the walk.
    bound: Option<NonNull<Header>>,
}

// SAFETY: the pointers are to records, which never change once they can be seen and live as long as `tree`.
unsafe impl Send for Walk {}
// SAFETY: as above; a shared walk only reads.
unsafe impl Sync for Walk {}

impl Walk {
    /// A walk without a position.
    pub(in super::super) fn new(tree: Arc<Tree>, backward: bool) -> Walk {
        let leaf = Copied { records: [None; NODE_SLOTS], next: 0, end: 0, bound: None };
        Walk { tree, backward, leaf }
    }

    /// The current record.
    pub(in super::super) fn current(&self) -> Option<Record<'_>> {
        if self.leaf.next == self.leaf.end {
            return None;
        }
        // SAFETY: it was taken from a record of the tree that we keep alive.
        self.leaf.records[self.leaf.next].map(|record| unsafe { Record::from_ptr(record) })
    }

    /// The number of records right behind the current one if the last copied one comes before `limit`, else 0.
    pub(in super::super) fn run_before(&self, limit: Position<'_>) -> usize {
        let Some(Some(last)) = self.leaf.end.checked_sub(1).map(|last| self.leaf.records[last]) else { return 0 };
        // SAFETY: it was taken from a record of the tree that we keep alive.
        let last = unsafe { Record::from_ptr(last) }.position();
        let before = if self.backward { last > limit } else { last < limit };
        if before { self.leaf.end.saturating_sub(self.leaf.next + 1) } else { 0 }
    }

    /// Moves to the next record. There must be a current one.
    pub(in super::super) fn advance(&mut self) {
        assert!(self.leaf.next < self.leaf.end, "the caller checked current()");
        self.leaf.next += 1;
        if self.leaf.next == self.leaf.end {
            self.follow_bound();
        } else {
            self.leaf.prefetch(self.leaf.next + PREFETCH_RECORDS);
        }
    }

    /// Moves to the first record at or beyond `at` in its direction.
    pub(in super::super) fn seek(&mut self, at: Position<'_>) {
        self.place(Target::At(at));
    }

    /// Moves to the first record in its direction.
    pub(in super::super) fn seek_to_first(&mut self) {
        self.place(if self.backward { Target::Last } else { Target::First });
    }

    fn place(&mut self, target: Target<'_>) {
        self.tree.optimistic(|| self.leaf.copy(&self.tree, target, self.backward));
        self.follow_bound();
    }

    /// Continues to other leaves while this one is exhausted.
    fn follow_bound(&mut self) {
        while self.leaf.next == self.leaf.end
            && let Some(bound) = self.leaf.bound
        {
            // SAFETY: it was taken from a record of the tree that we keep alive.
            let at = unsafe { Record::from_ptr(bound) }.position();
            let target = if self.backward { Target::Before(at) } else { Target::At(at) };
            self.tree.optimistic(|| self.leaf.copy(&self.tree, target, self.backward));
        }
    }
}

impl Copied {
    /// Copies the records of one leaf, from `target` on. `None` if something changed meanwhile.
    fn copy(&mut self, tree: &Tree, target: Target<'_>, backward: bool) -> Option<()> {
        let leaf = tree.descend(target)?;
        let len = leaf.node.len();
        let at = match (target, backward) {
            (Target::First, _) => 0,
            (Target::Last, _) => len,
            (Target::At(at), true) => leaf.node.rank(at, Count::AtOrBelow).index,
            (Target::At(at), false) | (Target::Before(at), _) => leaf.node.rank(at, Count::Below).index,
        };
        let pointer = |index: usize| leaf.node.record(index).and_then(|record| NonNull::new(record.as_ptr()));
        if backward {
            self.end = at;
            (0..at).for_each(|i| self.records[i] = pointer(at - 1 - i));
        } else {
            self.end = len.saturating_sub(at);
            (at..len).for_each(|i| self.records[i - at] = pointer(i));
        }
        self.next = 0;
        let bound = if backward { leaf.low } else { leaf.high };
        self.bound = bound.and_then(|record| NonNull::new(record.as_ptr()));
        if !leaf.node.unchanged(leaf.version) {
            self.end = 0;
            return None;
        }
        debug_assert!(self.records[..self.end].iter().all(Option::is_some), "every entry has a record");
        (0..PREFETCH_RECORDS).for_each(|index| self.prefetch(index));
        Some(())
    }

    fn prefetch(&self, index: usize) {
        if let Some(Some(record)) = self.records[..self.end].get(index) {
            // SAFETY: it was taken from a record of the tree, which the caller holds.
            unsafe { Record::from_ptr(*record) }.prefetch();
        }
    }
}
