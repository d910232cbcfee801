//! Range tombstones: the stored form of `delete_range`. The design is in docs/internals/range-deletes.md.
//!
//! A range tombstone hides every version in its range with a smaller sequence number. All structures here answer the
//! same two questions by binary searches: which is the newest one over a key, and how far around the key that answer
//! holds ([`Span`]).
//!
//! - [`Recent`]: those of one family in a memtable; grows while it is read, and answers for any sequence number.
//! - [`Run`]: an immutable part of it.
//! - [`RangeTombstones`]: those of one family in a version; immutable, and shares most of its memory with the one
//!   before. A reader of a version reads above all of them, so only the newest over each key is kept.

mod flushed;
mod heads;
mod numbers;
mod recent;
mod run;
pub(crate) mod work;

pub use flushed::RangeTombstones;
pub(crate) use recent::{Recent, RecentView};
pub(crate) use run::Run;

use crate::SequenceNumber;
use bytes::Bytes;

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
}

/// A part of the key space over which the same tombstone is the newest, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span<'a> {
    /// First user key; `None`: from the first of all keys.
    pub start: Option<&'a Bytes>,
    /// First user key behind it; `None`: to the last of all keys.
    pub end: Option<&'a Bytes>,
    /// Versions below it are hidden; 0 if nothing is.
    pub sequence: SequenceNumber,
}

impl<'a> Span<'a> {
    /// All keys, with nothing hidden.
    pub const NOTHING: Span<'static> = Span { start: None, end: None, sequence: 0 };

    /// Whether the key lies in it.
    pub fn contains(&self, user_key: &[u8]) -> bool {
        self.start.is_none_or(|start| start <= user_key) && self.end.is_none_or(|end| user_key < end)
    }

    /// The intersection of both. They share a key.
    pub(crate) fn and(self, other: Span<'a>) -> Span<'a> {
        // `None` is the least start and the greatest end.
        let end = match (self.end, other.end) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        Span { start: self.start.max(other.start), end, sequence: self.sequence.max(other.sequence) }
    }
}

/// Adds a piece to a list of ascending, disjoint ones, joining those that touch and have the same number.
fn push_joined(list: &mut Vec<RangeTombstone>, piece: RangeTombstone) {
    debug_assert!(piece.start < piece.end, "an empty range deletes nothing");
    match list.last_mut() {
        Some(last) if last.end == piece.start && last.sequence == piece.sequence => last.end = piece.end,
        last => {
            debug_assert!(last.is_none_or(|last| last.end <= piece.start), "pieces come in order");
            list.push(piece);
        }
    }
}

/// The newest over each key, of two lists of ascending, disjoint ranges: ascending, disjoint again.
pub(crate) fn newest_of_both(a: &[RangeTombstone], b: &[RangeTombstone]) -> Vec<RangeTombstone> {
    let mut joined = Vec::with_capacity(a.len() + b.len());
    let (mut a, mut b) = (a.iter().cloned(), b.iter().cloned());
    let (mut next_a, mut next_b) = (a.next(), b.next());
    while let (Some(x), Some(y)) = (&mut next_a, &mut next_b) {
        work::note(1);
        if x.end <= y.start {
            push_joined(&mut joined, std::mem::replace(&mut next_a, a.next()).expect("matched"));
        } else if y.end <= x.start {
            push_joined(&mut joined, std::mem::replace(&mut next_b, b.next()).expect("matched"));
        } else if x.start < y.start {
            push_joined(&mut joined, RangeTombstone { end: y.start.clone(), ..x.clone() });
            x.start = y.start.clone();
        } else if y.start < x.start {
            push_joined(&mut joined, RangeTombstone { end: x.start.clone(), ..y.clone() });
            y.start = x.start.clone();
        } else {
            let (start, end) = (x.start.clone(), (&x.end).min(&y.end).clone());
            let sequence = x.sequence.max(y.sequence);
            (x.start, y.start) = (end.clone(), end.clone());
            push_joined(&mut joined, RangeTombstone { start, end, sequence });
            next_a = next_a.filter(|x| x.start < x.end).or_else(|| a.next());
            next_b = next_b.filter(|y| y.start < y.end).or_else(|| b.next());
        }
    }
    next_a.into_iter().chain(a).chain(next_b).chain(b).for_each(|rest| push_joined(&mut joined, rest));
    joined
}
