//! Sets of sequence numbers that share what they have in common.
//!
//! A walk along the keys of a run of range tombstones meets one set after the other, each of which differs from the one
//! before by a few numbers. Nested ranges make these sets as large as the run, so a list each would cost the square of
//! its length. The sets are therefore tries over the bits of the numbers whose nodes never change: adding or removing a
//! number makes new nodes on the path to it only, at most one for each bit in which numbers of the set differ. A set of
//! one number needs no node, which is the usual case.

use crate::SequenceNumber;
use crate::types::SEQUENCE_NUMBER_MAX;

/// A set; its nodes are in the [`Numbers`] that made it.
///
/// 0: empty; at most [`SEQUENCE_NUMBER_MAX`]: that number alone; with the highest bit: the index of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Set(u64);

const NODE: u64 = 1 << 63;

/// Numbers from `middle` on are in `high`, the others in `low`; neither is empty. The lowest bit of `middle` that is
/// set is the highest in which any two numbers of the node differ.
#[derive(Clone, Copy, Debug)]
struct Node {
    middle: SequenceNumber,
    low: Set,
    high: Set,
}

impl Set {
    pub(super) const EMPTY: Set = Set(0);

    fn one(number: SequenceNumber) -> Set {
        debug_assert!(number > 0 && number <= SEQUENCE_NUMBER_MAX);
        Set(number)
    }

    pub(super) fn is_empty(self) -> bool {
        self == Set::EMPTY
    }
}

/// The nodes of sets.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    nodes: Vec<Node>,
}

impl Numbers {
    fn node(&self, set: Set) -> Option<Node> {
        (set.0 & NODE != 0).then(|| self.nodes[(set.0 ^ NODE) as usize])
    }

    fn join(&mut self, low: Set, high: Set, middle: SequenceNumber) -> Set {
        match (low.is_empty(), high.is_empty()) {
            (true, _) => high,
            (_, true) => low,
            _ => {
                self.nodes.push(Node { middle, low, high });
                Set(NODE | (self.nodes.len() as u64 - 1))
            }
        }
    }

    /// `set` and `number`.
    pub(super) fn with(&mut self, set: Set, number: SequenceNumber) -> Set {
        if set.is_empty() {
            return Set::one(number);
        }
        let node = self.node(set);
        let sample = node.map_or(set.0, |node| node.middle);
        let differs = sample ^ number;
        match node {
            Some(node) if differs >> node.middle.trailing_zeros() <= 1 => {
                if number >= node.middle {
                    let high = self.with(node.high, number);
                    self.join(node.low, high, node.middle)
                } else {
                    let low = self.with(node.low, number);
                    self.join(low, node.high, node.middle)
                }
            }
            None if differs == 0 => set,
            // It differs from all of the set in a higher bit than they do from each other.
            _ => {
                let bit = 63 - differs.leading_zeros();
                let middle = (sample.max(number) >> bit) << bit;
                if number >= middle {
                    self.join(set, Set::one(number), middle)
                } else {
                    self.join(Set::one(number), set, middle)
                }
            }
        }
    }

    /// `set` without `number`, which is in it.
    pub(super) fn without(&mut self, set: Set, number: SequenceNumber) -> Set {
        match self.node(set) {
            None => {
                assert!(set == Set::one(number), "a number is taken out of a set that has it");
                Set::EMPTY
            }
            Some(node) if number >= node.middle => {
                let high = self.without(node.high, number);
                self.join(node.low, high, node.middle)
            }
            Some(node) => {
                let low = self.without(node.low, number);
                self.join(low, node.high, node.middle)
            }
        }
    }

    /// The greatest number of the set at or below `at`; 0 if there is none.
    pub(super) fn newest(&self, mut set: Set, at: SequenceNumber) -> SequenceNumber {
        // What is below everything that is still searched, and at or below `at`.
        let mut rest = Set::EMPTY;
        while let Some(node) = self.node(set) {
            super::work::note(1);
            if at >= node.middle {
                rest = node.low;
                set = node.high;
            } else {
                set = node.low;
            }
        }
        if set.0 <= at && !set.is_empty() {
            return set.0;
        }
        while let Some(node) = self.node(rest) {
            super::work::note(1);
            rest = node.high;
        }
        rest.0
    }

    /// Number of nodes.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }
}

#[cfg(test)]
#[path = "numbers_test.rs"]
mod tests;
