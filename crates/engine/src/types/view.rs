//! Reading: the interface shared by the database's snapshots and by the models in other crates' tests.

use crate::types::successor;
use crate::{Family, Result};
use bytes::Bytes;
use std::ops::Bound;

/// Which way an iterator goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Ascending keys.
    Forward,
    /// Descending keys.
    Backward,
}

impl Direction {
    /// The index that follows `at` among `count` parts in key order (tables of a level, blocks of a table).
    pub(crate) fn next_index(self, at: usize, count: usize) -> Option<usize> {
        match self {
            Direction::Forward => Some(at + 1).filter(|&next| next < count),
            Direction::Backward => at.checked_sub(1),
        }
    }
}

/// The user keys `start <= key < end`.
///
/// Every call that takes a range accepts `impl Into<Range>`: the range expressions of the language over anything that
/// is bytes (`"a".."c"`, `from..`, `..=last`, `..`), a pair of [`Bound`]s, and [`Range::prefix`].
///
/// A range means the same in every call, reads, deletes and conditions alike: one without an end, or with an empty end,
/// goes to the end of the family; one that ends at its start or before it contains no keys, which is not an error.
///
/// ```
/// use kontiki_engine::Range;
///
/// assert!(Range::from("a"..="c").contains(b"c"));
/// assert!(Range::prefix("crew/").contains(b"crew/thor"));
/// assert_eq!(Range::from(..), Range::all());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// Inclusive lower bound; `None`: from the first key on.
    pub start: Option<Bytes>,
    /// Exclusive upper bound; `None` or empty: to the last key.
    pub end: Option<Bytes>,
}

impl Range {
    /// Every key.
    pub fn all() -> Range {
        Range::default()
    }

    /// `start <= key < end`, where an empty `end` means unbounded (the convention of regions).
    pub fn region(start: &[u8], end: &[u8]) -> Range {
        let bound = |key: &[u8]| (!key.is_empty()).then(|| Bytes::copy_from_slice(key));
        Range { start: bound(start), end: bound(end) }
    }

    /// The keys that begin with `prefix`.
    pub fn prefix(prefix: impl AsRef<[u8]>) -> Range {
        let prefix = prefix.as_ref();
        // The first key behind them: without the bytes 0xff at the end, the last byte one greater.
        let kept = prefix.iter().rposition(|byte| *byte != u8::MAX);
        let end = kept.map(|last| {
            let mut end = prefix[..=last].to_vec();
            end[last] += 1;
            Bytes::from(end)
        });
        Range { start: Some(Bytes::copy_from_slice(prefix)), end }
    }

    /// What every key of the range begins with, as far as its bounds determine it; a part of `start`.
    pub(crate) fn shared_prefix(&self) -> &[u8] {
        let Some(start) = self.start.as_deref() else { return &[] };
        let mut shared = 0;
        if let Some(end) = self.end.as_deref() {
            shared = start.iter().zip(end).take_while(|(a, b)| a == b).count();
            // If `end` is the first key behind those that begin with one byte more, they all do.
            let behind = |byte: &u8| byte.checked_add(1).is_some_and(|next| end.get(shared..) == Some(&[next]));
            if !start.get(shared).is_some_and(behind) {
                return start.get(..shared).unwrap_or_default();
            }
            shared += 1;
        }
        // Nothing is above the largest byte, so greater keys have it too.
        let rest = start.get(shared..).unwrap_or_default();
        shared += rest.iter().take_while(|byte| **byte == u8::MAX).count();
        start.get(..shared).unwrap_or_default()
    }

    /// Whether the key lies inside.
    pub fn contains(&self, key: &[u8]) -> bool {
        self.start.as_ref().is_none_or(|start| start.as_ref() <= key)
            && self.end.as_ref().is_none_or(|end| end.is_empty() || key < end.as_ref())
    }

    /// Whether no key can lie inside.
    pub fn is_empty(&self) -> bool {
        matches!((&self.start, &self.end), (Some(start), Some(end)) if !end.is_empty() && start >= end)
    }

    /// The same keys, with an end only if there is one, and that not before the start.
    pub(crate) fn normal(self) -> Range {
        let end = match self.end.filter(|end| !end.is_empty()) {
            Some(end) => Some(self.start.iter().fold(end, |end, start| end.max(start.clone()))),
            None => None,
        };
        Range { start: self.start, end }
    }
}

impl<K: AsRef<[u8]>> From<(Bound<K>, Bound<K>)> for Range {
    fn from((start, end): (Bound<K>, Bound<K>)) -> Range {
        let bytes = |key: &K| Bytes::copy_from_slice(key.as_ref());
        let start = match &start {
            Bound::Included(key) => Some(bytes(key)),
            Bound::Excluded(key) => Some(successor(key.as_ref())),
            Bound::Unbounded => None,
        };
        let end = match &end {
            Bound::Included(key) => Some(successor(key.as_ref())),
            Bound::Excluded(key) => Some(bytes(key)),
            Bound::Unbounded => None,
        };
        Range { start, end }
    }
}

impl From<std::ops::RangeFull> for Range {
    fn from(_: std::ops::RangeFull) -> Range {
        Range::all()
    }
}

macro_rules! from_range_expressions {
    ($($expression:ident),*) => {$(
        impl<K: AsRef<[u8]>> From<std::ops::$expression<K>> for Range {
            fn from(range: std::ops::$expression<K>) -> Range {
                use std::ops::RangeBounds;
                Range::from((range.start_bound().map(K::as_ref), range.end_bound().map(K::as_ref)))
            }
        }
    )*};
}
from_range_expressions!(Range, RangeFrom, RangeTo, RangeInclusive, RangeToInclusive);

/// How a scan reads. Start from the default and change fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReadOptions {
    /// Values are left out: they read as empty, and the value log is not touched. Default false.
    pub key_only: bool,
    /// Blocks that have to be read are kept in the block cache. Default true; false for one walk over much data that
    /// will not be read again soon: it reads far ahead and leaves the cache as it is.
    pub fill_cache: bool,
}

impl Default for ReadOptions {
    fn default() -> ReadOptions {
        ReadOptions { key_only: false, fill_cache: true }
    }
}

impl ReadOptions {
    /// Keys without values.
    pub fn key_only() -> ReadOptions {
        ReadOptions { key_only: true, ..ReadOptions::default() }
    }

    /// One walk over much data that leaves the block cache as it is.
    pub fn one_pass() -> ReadOptions {
        ReadOptions { fill_cache: false, ..ReadOptions::default() }
    }
}

/// Live entries of a range in order, each key once at its newest visible version; deleted keys are skipped. After an
/// error the iterator is finished.
pub trait Entries: Iterator<Item = Result<(Bytes, Bytes)>> + Send {
    /// Moves so that the next entry is the first at or beyond `key` in the iterator's direction (forward: `>= key`;
    /// backward: `<= key`), within the range. May move either way.
    fn seek(&mut self, key: &[u8]) -> Result<()>;

    /// When the entry that was returned last expires, in milliseconds of the wall clock since 1970; `None` if it does
    /// not. Those of a [`View`] say it; the default is right for models without keys that expire.
    fn expires_at_ms(&self) -> Option<u64> {
        None
    }
}

/// A consistent, unchanging state of the database.
pub trait View: Send + Sync {
    /// The value of a key, if it is there.
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>>;
    /// Iterates over a range.
    fn entries(&self, family: Family, range: Range, direction: Direction) -> Result<Box<dyn Entries>>;
}

#[cfg(test)]
#[path = "view_test.rs"]
mod tests;
