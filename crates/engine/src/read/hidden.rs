//! What range tombstones hide from a scan.

use super::ReadState;
use crate::range::{RangeTombstones, RecentView, Span};
use crate::{Direction, Family, SequenceNumber};
use bytes::Bytes;
use std::sync::Arc;

/// The range tombstones that a scan must respect.
pub(super) struct Hidden {
    /// Those of the memtables, each with the place of the last lookup. Most memtables have none.
    recent: Vec<(Arc<RecentView>, usize)>,
    /// Of those of the memtables the scan sees the ones at or below it.
    sequence: SequenceNumber,
    /// Those of the version, all of which are visible: a reader of a version reads at or above its flushed sequence
    /// number.
    flushed: Arc<RangeTombstones>,
    /// The part of the last lookup: keys come in order, so the next one is likely to lie in it too.
    stretch: Option<Stretch>,
    /// Keys looked up in it.
    asked: usize,
}

struct Stretch {
    start: Option<Bytes>,
    end: Option<Bytes>,
    sequence: SequenceNumber,
}

impl Hidden {
    pub(super) fn new(
        state: &ReadState,
        flushed: &Arc<RangeTombstones>,
        family: Family,
        sequence: SequenceNumber,
    ) -> Hidden {
        let recent = state
            .memtables
            .iter()
            .filter_map(|memtable| memtable.recent_ranges(family))
            .map(|view| (view, 0))
            .collect();
        Hidden { recent, sequence, flushed: flushed.clone(), stretch: None, asked: 0 }
    }

    /// Whether nothing is hidden at all.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.recent.is_empty() && self.flushed.is_empty()
    }

    /// Versions of the key below this number are hidden.
    pub(super) fn above(&mut self, user_key: &[u8]) -> SequenceNumber {
        match &self.stretch {
            Some(stretch) if stretch.contains(user_key) => {
                self.asked += 1;
                stretch.sequence
            }
            _ => {
                self.asked = 1;
                let stretch = self.around(user_key);
                self.stretch.insert(stretch).sequence
            }
        }
    }

    /// If at least so many keys were looked up in the part of the last lookup, the key lies in it too, and
    /// something is hidden there: its end in a direction (forward the first key behind it, backward its first key), and
    /// the number below which versions are hidden.
    pub(super) fn rest_of_stretch(
        &self,
        user_key: &[u8],
        asked_min: usize,
        direction: Direction,
    ) -> Option<(Bytes, SequenceNumber)> {
        let stretch = self.stretch.as_ref().filter(|_| self.asked >= asked_min)?;
        if stretch.sequence == 0 || !stretch.contains(user_key) {
            return None;
        }
        let end = if direction == Direction::Forward { &stretch.end } else { &stretch.start };
        Some((end.clone()?, stretch.sequence))
    }

    /// The part of the key space around the key over which all sources give the same answer.
    fn around(&mut self, user_key: &[u8]) -> Stretch {
        let mut span = if self.flushed.is_empty() { Span::NOTHING } else { self.flushed.span(user_key) };
        for (recent, near) in &mut self.recent {
            span = span.and(recent.span_from(user_key, self.sequence, near));
        }
        debug_assert!(span.contains(user_key));
        Stretch { start: span.start.cloned(), end: span.end.cloned(), sequence: span.sequence }
    }
}

impl Stretch {
    fn contains(&self, user_key: &[u8]) -> bool {
        self.start.as_ref().is_none_or(|start| start.as_ref() <= user_key)
            && self.end.as_ref().is_none_or(|end| user_key < end.as_ref())
    }
}
