//! The lists of dead ranges: values that are replaced as a whole.

use super::Proof;
use crate::{Family, SequenceNumber};
use bytes::Bytes;

/// Known ranges at most: a put costs a binary search over them. The oldest is dropped first.
pub(super) const KNOWN_MAX: usize = 64;
/// Ranges at most that scans are about to record: a put compares with each.
const PENDING_MAX: usize = 8;

#[derive(Clone, Debug)]
pub(super) struct DeadRange {
    pub(super) id: u64,
    pub(super) family: Family,
    pub(super) start: Bytes,
    /// First user key behind it.
    pub(super) end: Bytes,
    pub(super) sequence: SequenceNumber,
    pub(super) now_ms: u64,
    /// Versions that the scan passed over.
    pub(super) versions: u64,
    /// How many they were when a compaction was requested.
    pub(super) requested: u64,
}

impl DeadRange {
    fn has(&self, family: Family, key: &[u8]) -> bool {
        self.family == family && self.start <= key && key < self.end.as_ref()
    }

    fn meets(&self, family: Family, start: &[u8], end: Option<&[u8]>) -> bool {
        self.family == family && self.end.as_ref() > start && end.is_none_or(|end| self.start.as_ref() < end)
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Lists {
    /// Disjoint, by family and key. Two that touch were recorded separately.
    pub(super) known: Vec<DeadRange>,
    /// To be recorded if nothing is put there.
    pending: Vec<DeadRange>,
}

impl Lists {
    pub(super) fn is_empty(&self) -> bool {
        self.known.is_empty() && self.pending.is_empty()
    }

    /// The known ranges of a family.
    pub(super) fn of_family(&self, family: Family) -> std::ops::Range<usize> {
        let first = self.known.partition_point(|range| range.family < family);
        first..self.known.partition_point(|range| range.family <= family)
    }

    /// Whether a key lies in a range, known or pending.
    pub(super) fn has(&self, family: Family, key: &[u8]) -> bool {
        let at = self.known.partition_point(|range| (range.family, range.end.as_ref()) <= (family, key));
        self.known.get(at).is_some_and(|range| range.has(family, key))
            || self.pending.iter().any(|range| range.has(family, key))
    }

    /// Enters a pending range; false if there are too many.
    pub(super) fn announce(&mut self, id: u64, proof: &Proof) -> bool {
        if self.pending.len() >= PENDING_MAX {
            return false;
        }
        let (start, end) = (Bytes::copy_from_slice(&proof.start), Bytes::copy_from_slice(&proof.end));
        self.pending.push(DeadRange {
            id,
            family: proof.family,
            start,
            end,
            sequence: proof.sequence,
            now_ms: proof.now_ms,
            versions: proof.versions,
            requested: 0,
        });
        true
    }

    /// Makes a pending range a known one, joined with those that it overlaps or touches; or drops it. `None` if it is
    /// not known now.
    pub(super) fn settle(&mut self, id: u64, holds: bool) -> Option<DeadRange> {
        let at = self.pending.iter().position(|range| range.id == id)?;
        let mut new = self.pending.remove(at);
        if !holds {
            return None;
        }
        let touches =
            |range: &DeadRange| range.family == new.family && range.end >= new.start && range.start <= new.end;
        let first = self.known.partition_point(|range| (range.family, &range.end) < (new.family, &new.start));
        let count = self.known.get(first..).unwrap_or_default().iter().take_while(|range| touches(range)).count();
        for old in self.known.drain(first..first + count) {
            // A reader at or above both numbers and times finds nothing in either.
            new.start = new.start.min(old.start);
            new.end = new.end.max(old.end);
            new.sequence = new.sequence.max(old.sequence);
            new.now_ms = new.now_ms.max(old.now_ms);
            new.versions += old.versions;
            new.requested = new.requested.max(old.requested);
        }
        self.known.insert(first, new.clone());
        self.keep_bound();
        Some(new)
    }

    pub(super) fn note_requested(&mut self, id: u64, versions: u64) {
        self.known.iter_mut().filter(|range| range.id == id).for_each(|range| range.requested = versions);
    }

    /// Takes the keys from `start` to before `end` out of all ranges; returns how many ranges that cut. A pending one
    /// is removed as a whole.
    pub(super) fn take_out(&mut self, family: Family, start: &[u8], end: Option<&[u8]>) -> u64 {
        let before = self.pending.len();
        self.pending.retain(|range| !range.meets(family, start, end));
        let mut cut = (before - self.pending.len()) as u64;
        let first = self.known.partition_point(|range| (range.family, range.end.as_ref()) <= (family, start));
        let met = self.known.get(first..).unwrap_or_default().iter();
        let count = met.take_while(|range| range.meets(family, start, end)).count();
        let old: Vec<_> = self.known.drain(first..first + count).collect();
        cut += count as u64;
        let mut left = Vec::new();
        for mut range in old {
            // Each part has its share, so that parts that are joined again count for no more than before.
            range.versions /= 2;
            range.requested /= 2;
            if range.start.as_ref() < start {
                left.push(DeadRange { end: Bytes::copy_from_slice(start), ..range.clone() });
            }
            if let Some(end) = end.filter(|end| *end < range.end.as_ref()) {
                left.push(DeadRange { start: Bytes::copy_from_slice(end), ..range });
            }
        }
        self.known.splice(first..first, left);
        self.keep_bound();
        cut
    }

    fn keep_bound(&mut self) {
        while self.known.len() > KNOWN_MAX {
            let oldest = self.known.iter().enumerate().min_by_key(|(_, range)| range.id);
            let Some((at, _)) = oldest else { return };
            self.known.remove(at);
        }
        debug_assert!(
            self.known.windows(2).all(|pair| (pair[0].family, &pair[0].end) <= (pair[1].family, &pair[1].start))
        );
    }
}
