//! What is known of entries whose payload need not be in memory: their sizes and terms, in a few bytes each.

use super::log::Position;
use std::collections::VecDeque;

/// The sizes of consecutive entries, as sums: the size of any range is a difference. 8 bytes for each entry.
#[derive(Debug, Default)]
pub(super) struct Sizes {
    /// The sum before the first entry.
    base: u64,
    /// The sum through each entry.
    ends: VecDeque<u64>,
}

impl Sizes {
    pub fn with_capacity(count: usize) -> Sizes {
        Sizes { base: 0, ends: VecDeque::with_capacity(count) }
    }

    pub fn count(&self) -> usize {
        self.ends.len()
    }

    pub fn push_back(&mut self, bytes: usize) {
        let end = self.ends.back().unwrap_or(&self.base) + bytes as u64;
        self.ends.push_back(end);
    }

    pub fn pop_back(&mut self) {
        self.ends.pop_back().expect("the caller counts the entries");
    }

    pub fn pop_front(&mut self) {
        self.base = self.ends.pop_front().expect("the caller counts the entries");
    }

    pub fn clear(&mut self) {
        *self = Sizes::default();
    }

    pub fn shrink_to_fit(&mut self) {
        self.ends.shrink_to_fit();
    }

    /// Bytes of the first `count` entries.
    pub fn of_first(&self, count: usize) -> usize {
        assert!(count <= self.ends.len(), "only entries that are there have a size");
        count.checked_sub(1).and_then(|last| self.ends.get(last)).map_or(0, |end| (end - self.base) as usize)
    }

    /// Bytes of all.
    pub fn total(&self) -> usize {
        self.of_first(self.ends.len())
    }

    /// How many of the first entries, together, are not beyond these bytes.
    pub fn fitting(&self, bytes: usize) -> usize {
        let limit = self.base.saturating_add(bytes as u64);
        self.ends.partition_point(|end| *end <= limit)
    }
}

/// The terms of consecutive entries: one position for each run of equal terms.
#[derive(Debug, Default)]
pub(super) struct Terms {
    /// The last index of each run, and its term.
    runs: VecDeque<Position>,
}

impl Terms {
    /// The entry after the last one.
    pub fn push_back(&mut self, position: Position) {
        match self.runs.back_mut() {
            Some(last) if last.term == position.term => last.index = position.index,
            last => {
                assert!(last.is_none_or(|last| last.term < position.term), "terms only grow");
                self.runs.push_back(position);
            }
        }
    }

    /// Drops the entries through `index`.
    pub fn drop_through(&mut self, index: u64) {
        while self.runs.front().is_some_and(|run| run.index <= index) {
            self.runs.pop_front();
        }
    }

    pub fn clear(&mut self) {
        self.runs.clear();
    }

    pub fn shrink_to_fit(&mut self) {
        self.runs.shrink_to_fit();
    }

    /// The term of an entry. The caller knows that it is not before the first.
    pub fn term(&self, index: u64) -> Option<u64> {
        let run = self.runs.partition_point(|run| run.index < index);
        self.runs.get(run).map(|run| run.term)
    }
}

#[cfg(test)]
#[path = "positions_test.rs"]
mod tests;
