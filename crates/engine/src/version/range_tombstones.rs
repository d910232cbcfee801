//! The range tombstones of a family: what `delete_range` has become once it is out of the memtable.
//!
//! A range tombstone hides every version in its range with a smaller sequence number. The list is kept in pieces that
//! do not overlap ([`RangeTombstones::span`] is one binary search), each with the newest number that covers it: whoever
//! reads a version reads at or above its flushed sequence number, and every tombstone is at or below that, so older
//! ones under a newer one make no difference. The structure is built when a tombstone comes or goes, and shared by all
//! versions between.

use crate::SequenceNumber;
use bytes::Bytes;
use std::collections::BTreeMap;

/// Hides every version of a user key from `start` to before `end` with a smaller sequence number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RangeTombstone {
    /// First user key.
    pub start: Bytes,
    /// First user key that is not hidden. Greater than `start`.
    pub end: Bytes,
    /// The batch that deleted the range.
    pub sequence: SequenceNumber,
}

impl RangeTombstone {
    /// Whether the key lies in the range.
    pub fn covers(&self, user_key: &[u8]) -> bool {
        self.start <= user_key && user_key < self.end
    }

    /// Whether it hides the whole of `other`'s range from at least the same writes.
    fn replaces(&self, other: &RangeTombstone) -> bool {
        self.sequence >= other.sequence && self.start <= other.start && self.end >= other.end && self != other
    }
}

/// A stretch of the key space over which the same tombstone is the newest, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span<'a> {
    /// First user key; `None`: from the first of all keys.
    pub start: Option<&'a Bytes>,
    /// First user key behind it; `None`: to the last of all keys.
    pub end: Option<&'a Bytes>,
    /// Versions below it are hidden; 0 if nothing is.
    pub sequence: SequenceNumber,
}

impl Span<'_> {
    /// Whether the key lies in it.
    pub fn contains(&self, user_key: &[u8]) -> bool {
        self.start.is_none_or(|start| start <= user_key) && self.end.is_none_or(|end| user_key < end)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Fragment {
    start: Bytes,
    end: Bytes,
    sequence: SequenceNumber,
}

/// See the head of this file. Immutable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeTombstones {
    /// Sorted by start, end, sequence number; each once.
    all: Vec<RangeTombstone>,
    /// Ascending, disjoint; of neighbours that touch, the numbers differ.
    fragments: Vec<Fragment>,
}

impl RangeTombstones {
    /// Of these tombstones, each of which has a start before its end.
    pub fn new(mut all: Vec<RangeTombstone>) -> RangeTombstones {
        all.sort();
        all.dedup();
        let fragments = fragments(&all);
        debug_assert!(fragments.windows(2).all(|pair| pair[0].end <= pair[1].start));
        RangeTombstones { all, fragments }
    }

    /// The tombstones as they were written, by start.
    pub fn all(&self) -> &[RangeTombstone] {
        &self.all
    }

    /// Whether there are none: then nothing is hidden, and nobody needs to ask.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// How many tombstones there are.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// The number of the newest tombstone over the key.
    pub fn covering(&self, user_key: &[u8]) -> Option<SequenceNumber> {
        if self.fragments.is_empty() {
            return None;
        }
        let fragment = self.fragments.get(self.first_ending_after(user_key))?;
        (fragment.start <= user_key).then_some(fragment.sequence)
    }

    /// The stretch around the key over which [`RangeTombstones::covering`] gives the same answer: an iterator asks once
    /// for each stretch, not for each key.
    pub fn span(&self, user_key: &[u8]) -> Span<'_> {
        let at = self.first_ending_after(user_key);
        let before = at.checked_sub(1).and_then(|before| self.fragments.get(before));
        let span = match self.fragments.get(at) {
            Some(Fragment { start, end, sequence }) if start <= user_key => {
                Span { start: Some(start), end: Some(end), sequence: *sequence }
            }
            following => Span {
                start: before.map(|fragment| &fragment.end),
                end: following.map(|fragment| &fragment.start),
                sequence: 0,
            },
        };
        debug_assert!(span.contains(user_key));
        span
    }

    /// The newest number that covers anything from `smallest` to `largest`, both included.
    pub fn newest_within(&self, smallest: &[u8], largest: &[u8]) -> Option<SequenceNumber> {
        self.within(smallest, largest).map(|fragment| fragment.sequence).max()
    }

    /// Whether everything from `smallest` to `largest`, both included, is covered by tombstones above `sequence`.
    pub fn cover(&self, smallest: &[u8], largest: &[u8], sequence: SequenceNumber) -> bool {
        let mut covered_to = None;
        for fragment in self.within(smallest, largest) {
            let joins = match covered_to {
                None => fragment.start <= smallest,
                Some(end) => fragment.start == end,
            };
            if !joins || fragment.sequence <= sequence {
                return false;
            }
            covered_to = Some(&fragment.end);
        }
        covered_to.is_some_and(|end| end > largest)
    }

    /// Those that a newer one makes superfluous, because it covers the same range: nobody reads between the two.
    pub fn replaced(&self) -> impl Iterator<Item = &RangeTombstone> {
        // Quadratic in a number that is bounded, and only when a tombstone has come.
        self.all.iter().filter(|old| self.all.iter().any(|new| new.replaces(old)))
    }

    fn within(&self, smallest: &[u8], largest: &[u8]) -> impl Iterator<Item = &Fragment> {
        let from = self.first_ending_after(smallest);
        self.fragments.get(from..).unwrap_or_default().iter().take_while(move |fragment| fragment.start <= *largest)
    }

    fn first_ending_after(&self, user_key: &[u8]) -> usize {
        self.fragments.partition_point(|fragment| fragment.end <= user_key)
    }
}

/// Cuts the tombstones at each other's bounds; of what lies upon each other the newest stays.
fn fragments(all: &[RangeTombstone]) -> Vec<Fragment> {
    // At each bound: the numbers that begin and end there.
    let mut bounds: BTreeMap<&Bytes, (Vec<SequenceNumber>, Vec<SequenceNumber>)> = BTreeMap::new();
    for tombstone in all {
        debug_assert!(tombstone.start < tombstone.end, "an empty range deletes nothing");
        bounds.entry(&tombstone.start).or_default().0.push(tombstone.sequence);
        bounds.entry(&tombstone.end).or_default().1.push(tombstone.sequence);
    }
    let mut fragments: Vec<Fragment> = Vec::new();
    let mut open: BTreeMap<SequenceNumber, usize> = BTreeMap::new();
    let mut from: Option<&Bytes> = None;
    for (bound, (begin, end)) in bounds {
        if let (Some(start), Some((&sequence, _))) = (from, open.last_key_value()) {
            match fragments.last_mut().filter(|last| last.end == *start && last.sequence == sequence) {
                Some(last) => last.end = bound.clone(),
                None => fragments.push(Fragment { start: start.clone(), end: bound.clone(), sequence }),
            }
        }
        for sequence in begin {
            *open.entry(sequence).or_default() += 1;
        }
        for sequence in end {
            let count = open.get_mut(&sequence).expect("a range begins before it ends");
            *count -= 1;
            if *count == 0 {
                open.remove(&sequence);
            }
        }
        from = Some(bound);
    }
    assert!(open.is_empty(), "each range ends");
    fragments
}

#[cfg(test)]
#[path = "range_tombstones_test.rs"]
mod tests;
