//! What range tombstones hide from a scan.

use super::ReadState;
use crate::version::{RangeTombstone, RangeTombstones};
use crate::{Family, Range, SequenceNumber};
use bytes::Bytes;
use std::sync::Arc;

/// The range tombstones that a scan must respect.
pub(super) struct Hidden {
    /// Those of the memtables, within the scan's range and visible to it. Usually none, and few in any case: each flush
    /// takes them away.
    recent: RangeTombstones,
    /// Those of the version, all of which are visible: whoever reads a version reads at or above what it has flushed.
    flushed: Arc<RangeTombstones>,
    /// The stretch that was asked for last: keys come in order, so the next one is likely to lie in it too.
    stretch: Option<Stretch>,
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
        range: &Range,
        sequence: SequenceNumber,
    ) -> Hidden {
        let all = state.memtables.iter().flat_map(|memtable| memtable.range_tombstones(family));
        let matters = |tombstone: &RangeTombstone| tombstone.sequence <= sequence && overlaps(tombstone, range);
        Hidden { recent: RangeTombstones::new(all.filter(matters).collect()), flushed: flushed.clone(), stretch: None }
    }

    /// Whether nothing is hidden at all.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.recent.is_empty() && self.flushed.is_empty()
    }

    /// Versions of the key below this number are hidden.
    pub(super) fn above(&mut self, user_key: &[u8]) -> SequenceNumber {
        match &self.stretch {
            Some(stretch) if stretch.contains(user_key) => stretch.sequence,
            _ => self.stretch.insert(Stretch::around(user_key, [&self.recent, &self.flushed])).sequence,
        }
    }
}

impl Stretch {
    /// The part of the key space around the key over which all lists give the same answer.
    fn around(user_key: &[u8], lists: [&RangeTombstones; 2]) -> Stretch {
        let mut stretch = Stretch { start: None, end: None, sequence: 0 };
        for list in lists {
            let span = list.span(user_key);
            // `None` is the least start and the greatest end.
            stretch.start = stretch.start.max(span.start.cloned());
            stretch.end = match (stretch.end, span.end) {
                (Some(a), Some(b)) => Some(a.min(b.clone())),
                (a, b) => a.or_else(|| b.cloned()),
            };
            stretch.sequence = stretch.sequence.max(span.sequence);
        }
        debug_assert!(stretch.contains(user_key));
        stretch
    }

    fn contains(&self, user_key: &[u8]) -> bool {
        self.start.as_ref().is_none_or(|start| start.as_ref() <= user_key)
            && self.end.as_ref().is_none_or(|end| user_key < end.as_ref())
    }
}

/// Whether a tombstone deletes any part of the range.
pub(super) fn overlaps(tombstone: &RangeTombstone, range: &Range) -> bool {
    range.start.as_ref().is_none_or(|start| tombstone.end > *start)
        && range.end.as_ref().is_none_or(|end| tombstone.start < *end)
}
