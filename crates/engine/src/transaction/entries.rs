//! Iterators of transactions: the snapshot's entries with the transaction's own writes laid over them.

use super::overlay::{FamilyOverlay, Pending};
use super::read_tracking::ReadTracking;
use super::reads::Passed;
use crate::{Direction, Entries, Range, Result, Scan};
use bytes::Bytes;
use std::cmp::Ordering;
use std::ops::Bound;
use std::sync::Arc;

/// The entries of a range as a transaction sees them, from its snapshot and its own writes.
///
/// It shows the transaction as it was when the iterator was made: the transaction may write while the iterator lives,
/// and the iterator shows none of that. (So a loop that writes what it iterates over ends.) It ends with its
/// transaction: after a commit or rollback it answers with an error.
pub struct TransactionEntries {
    base: Scan,
    /// The base's entry that comes next; outer `None` if it was not asked yet.
    base_next: Option<Option<(Bytes, Bytes)>>,
    overlay: Option<Arc<FamilyOverlay>>,
    /// The pending key that comes next; outer `None` as above.
    pending_next: Option<Option<(Bytes, Pending)>>,
    /// The near bound of the pending keys that are left.
    left: Bound<Bytes>,
    at: At,
    finished: bool,
    tracking: Arc<ReadTracking>,
    /// Its number in the read set, and where the part that it passes over began (`None`: unbounded).
    tracked: Option<(u64, Option<Bytes>)>,
}

/// What an iterator is about.
pub(super) struct At {
    pub(super) range: Range,
    pub(super) direction: Direction,
    /// The wall time at which pending values have ended or not: that of the snapshot.
    pub(super) now_ms: u64,
    /// Values read as empty.
    pub(super) key_only: bool,
}

/// Which source comes next.
enum Next {
    Base,
    Pending,
    Both,
}

impl TransactionEntries {
    pub(super) fn new(
        base: Scan,
        overlay: Option<Arc<FamilyOverlay>>,
        at: At,
        tracking: Arc<ReadTracking>,
        iterator: Option<u64>,
    ) -> TransactionEntries {
        let near = match at.direction {
            Direction::Forward => at.range.start.clone(),
            Direction::Backward => at.range.end.clone(),
        };
        TransactionEntries {
            base,
            base_next: None,
            // A part that says nothing costs nothing.
            overlay: overlay.filter(|part| !part.is_empty()),
            pending_next: None,
            left: near_bound(&at.range, at.direction),
            tracked: iterator.map(|iterator| (iterator, near)),
            at,
            finished: false,
            tracking,
        }
    }

    /// Loads what comes next from both sources and says which goes first; `None` at the end.
    fn choose(&mut self) -> Result<Option<Next>> {
        if self.base_next.is_none() {
            self.base_next = Some(self.base.next().transpose()?);
        }
        if self.pending_next.is_none() {
            self.pending_next = Some(self.find_pending());
        }
        let base = self.base_next.as_ref().and_then(Option::as_ref);
        let pending = self.pending_next.as_ref().and_then(Option::as_ref);
        Ok(match (base, pending) {
            (None, None) => None,
            (Some(_), None) => Some(Next::Base),
            (None, Some(_)) => Some(Next::Pending),
            (Some((base, _)), Some((pending, _))) => {
                let order = base.cmp(pending);
                Some(match if self.at.direction == Direction::Forward { order } else { order.reverse() } {
                    Ordering::Less => Next::Base,
                    Ordering::Equal => Next::Both,
                    Ordering::Greater => Next::Pending,
                })
            }
        })
    }

    fn find_pending(&self) -> Option<(Bytes, Pending)> {
        let overlay = self.overlay.as_ref()?;
        let left = as_slice(&self.left);
        let far = far_bound(&self.at.range, self.at.direction);
        let far = as_slice(&far);
        let found = match self.at.direction {
            Direction::Forward => overlay.first(left, far),
            Direction::Backward => overlay.last(far, left),
        };
        found.map(|(key, pending)| (key.clone(), pending.clone()))
    }

    /// The next entry, without noting it in the read set.
    fn step(&mut self) -> Result<Option<(Bytes, Bytes)>> {
        while let Some(next) = self.choose()? {
            let base = if matches!(next, Next::Base | Next::Both) { self.base_next.take().flatten() } else { None };
            if matches!(next, Next::Base) {
                let (key, value) = base.expect("the base was chosen");
                if self.skip_deleted(&key)? {
                    continue;
                }
                return Ok(Some((key, value)));
            }
            let (key, pending) = self.pending_next.take().flatten().expect("the pending key was chosen");
            self.left = Bound::Excluded(key.clone());
            if let Some(value) = pending.value(self.at.now_ms) {
                return Ok(Some((key, if self.at.key_only { Bytes::new() } else { value })));
            }
        }
        Ok(None)
    }

    /// Whether the transaction has deleted a range with the base's `key`; if so, takes the base past the range.
    fn skip_deleted(&mut self, key: &Bytes) -> Result<bool> {
        let Some(overlay) = &self.overlay else { return Ok(false) };
        let Some((start, end)) = overlay.deleted().find(key) else { return Ok(false) };
        match (self.at.direction, end) {
            (Direction::Forward, Some(end)) => self.base.seek(end)?,
            (Direction::Forward, None) => self.base_next = Some(None),
            // The base goes to the last key at or below the range's start; if that is this key, it is behind us.
            (Direction::Backward, _) if key != start => self.base.seek(start)?,
            (Direction::Backward, _) => {}
        }
        Ok(true)
    }

    /// Notes what was passed over: up to `key`, or to the end of the range.
    fn note(&self, key: Option<&Bytes>) -> Result<()> {
        let Some((iterator, near)) = &self.tracked else { return Ok(()) };
        let near = near.clone();
        let passed = match self.at.direction {
            Direction::Forward => {
                let end = key.cloned().or_else(|| self.at.range.end.clone());
                Passed { start: near.unwrap_or_default(), end, with_end: key.is_some() }
            }
            Direction::Backward => {
                let start = key.cloned().or_else(|| self.at.range.start.clone());
                Passed { start: start.unwrap_or_default(), end: near, with_end: false }
            }
        };
        self.tracking.with_reads(|reads| reads.pass(*iterator, passed))
    }

    fn try_seek(&mut self, key: &[u8]) -> Result<()> {
        self.base.seek(key)?;
        self.base_next = None;
        self.pending_next = None;
        self.finished = false;
        let key = Bytes::copy_from_slice(key);
        let (inside, near) = match self.at.direction {
            Direction::Forward => {
                let inside = self.at.range.start.as_ref().is_none_or(|start| key >= *start);
                (inside, if inside { Some(key.clone()) } else { self.at.range.start.clone() })
            }
            Direction::Backward => {
                let inside = self.at.range.end.as_ref().is_none_or(|end| key < *end);
                (inside, if inside { Some(super::range_set::successor(&key)) } else { self.at.range.end.clone() })
            }
        };
        self.left = if inside { Bound::Included(key) } else { near_bound(&self.at.range, self.at.direction) };
        // Beyond the far end of the range there is nothing, and the bounds would be upside down.
        self.finished = inside && self.is_beyond(&self.left);
        if let Some((iterator, from)) = &mut self.tracked {
            *from = near;
            let iterator = *iterator;
            self.tracking.with_reads(|reads| {
                reads.settle(iterator);
                Ok(())
            })?;
        }
        Ok(())
    }

    fn is_beyond(&self, position: &Bound<Bytes>) -> bool {
        let (Bound::Included(key) | Bound::Excluded(key)) = position else { return false };
        match self.at.direction {
            Direction::Forward => self.at.range.end.as_ref().is_some_and(|end| key >= end),
            Direction::Backward => self.at.range.start.as_ref().is_some_and(|start| key < start),
        }
    }
}

impl Iterator for TransactionEntries {
    type Item = Result<(Bytes, Bytes)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.finished {
            return None;
        }
        let result = self.tracking.check_open().and_then(|()| self.step()).and_then(|entry| {
            self.note(entry.as_ref().map(|(key, _)| key))?;
            Ok(entry)
        });
        self.finished = !matches!(result, Ok(Some(_)));
        result.transpose()
    }
}

impl Entries for TransactionEntries {
    fn seek(&mut self, key: &[u8]) -> Result<()> {
        self.tracking.check_open()?;
        let result = self.try_seek(key);
        self.finished |= result.is_err();
        result
    }
}

impl Drop for TransactionEntries {
    fn drop(&mut self) {
        if let Some((iterator, _)) = self.tracked.take() {
            self.tracking.close_iterator(iterator);
        }
    }
}

impl std::fmt::Debug for TransactionEntries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (range, direction) = (&self.at.range, self.at.direction);
        f.debug_struct("TransactionEntries")
            .field("range", range)
            .field("direction", &direction)
            .finish_non_exhaustive()
    }
}

fn near_bound(range: &Range, direction: Direction) -> Bound<Bytes> {
    match direction {
        Direction::Forward => range.start.clone().map_or(Bound::Unbounded, Bound::Included),
        Direction::Backward => range.end.clone().map_or(Bound::Unbounded, Bound::Excluded),
    }
}

fn far_bound(range: &Range, direction: Direction) -> Bound<Bytes> {
    match direction {
        Direction::Forward => range.end.clone().map_or(Bound::Unbounded, Bound::Excluded),
        Direction::Backward => range.start.clone().map_or(Bound::Unbounded, Bound::Included),
    }
}

fn as_slice(bound: &Bound<Bytes>) -> Bound<&[u8]> {
    match bound {
        Bound::Included(key) => Bound::Included(key),
        Bound::Excluded(key) => Bound::Excluded(key),
        Bound::Unbounded => Bound::Unbounded,
    }
}
