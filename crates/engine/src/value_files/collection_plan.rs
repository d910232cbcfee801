//! What the maintenance of the value log should do next: a pure function of numbers.
//!
//! A file is *dead* when no table refers to it: it is removed without being read. Of the others, those with the largest
//! share of garbage are relocated while garbage is more than `garbage_percent` of all bytes. To free a byte, relocation
//! copies `live / garbage` bytes of the chosen file, so it pays to wait: with a quarter of garbage overall and keys
//! overwritten at random, the worst segments are about half garbage.
//!
//! Tables that a compaction has yet to merge may refer to values that newer tables have overwritten: hidden garbage. It
//! is at most what the tables above the bottom of the tree refer to, and beyond a bound the tree is compacted for it.

use std::cmp::Reverse;

/// Garbage that tables hide at most, as a share of what they refer to, before the tree is compacted for it.
pub(crate) const HIDDEN_PERCENT_MAX: u64 = 12;
/// Segments' worth of hidden garbage that are not worth a compaction.
pub(crate) const HIDDEN_SEGMENTS: u64 = 2;
/// Segments' worth of values that only memtables refer to, at which these are flushed: until then it is unknown which
/// of them are garbage.
pub(crate) const UNFLUSHED_SEGMENTS: u64 = 3;

/// A file that is sealed and to which no memtable refers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CollectionCandidate {
    pub(crate) number: u64,
    /// Bytes of its records.
    pub(crate) bytes: u64,
    /// How many of them tables refer to. It may be more: tables also refer to what the last relocation found dead.
    pub(crate) referred: u64,
}

impl CollectionCandidate {
    /// Bytes that nothing refers to.
    pub(crate) fn garbage(&self) -> u64 {
        self.bytes.saturating_sub(self.referred)
    }
}

/// The bytes of all files, and of their garbage.
pub(crate) fn total_and_garbage(candidates: &[CollectionCandidate]) -> (u64, u64) {
    (candidates.iter().map(|file| file.bytes).sum(), candidates.iter().map(CollectionCandidate::garbage).sum())
}

/// The next action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CollectionPlan {
    /// Nothing.
    Rest,
    /// Remove these: nothing refers to them.
    Drop(Vec<u64>),
    /// Copy what is live of these to one new file.
    Relocate(Vec<u64>),
}

/// The next thing to do. A relocation gathers files until their live values are about `segment_bytes`.
pub(crate) fn plan(candidates: &[CollectionCandidate], garbage_percent: u64, segment_bytes: u64) -> CollectionPlan {
    let dead: Vec<u64> = candidates.iter().filter(|file| file.referred == 0).map(|file| file.number).collect();
    if !dead.is_empty() {
        return CollectionPlan::Drop(dead);
    }
    let (total, garbage) = total_and_garbage(candidates);
    if u128::from(garbage) * 100 <= u128::from(total) * u128::from(garbage_percent) {
        return CollectionPlan::Rest;
    }
    let mut worst: Vec<&CollectionCandidate> = candidates.iter().filter(|file| file.garbage() > 0).collect();
    // In parts per thousand; of equal ones the oldest, so that the choice is the same every time.
    worst.sort_by_key(|file| (Reverse(u128::from(file.garbage()) * 1000 / u128::from(file.bytes)), file.number));
    let mut chosen = Vec::new();
    let (mut live, mut freed) = (0u64, 0u64);
    for file in worst {
        let of_file = file.bytes - file.garbage();
        let enough = u128::from(garbage - freed) * 100 <= u128::from(total - freed) * u128::from(garbage_percent);
        if !chosen.is_empty() && (live + of_file > segment_bytes || enough) {
            break;
        }
        live += of_file;
        freed += file.garbage();
        chosen.push(file.number);
    }
    assert!(!chosen.is_empty(), "where there is garbage, some file has it");
    CollectionPlan::Relocate(chosen)
}

/// Whether tables may hide so much garbage that the tree should be compacted: `above` is what the tables refer to that
/// are not at the bottom, `all` what all do.
pub(crate) fn hides_too_much(above: u64, all: u64, segment_bytes: u64) -> bool {
    u128::from(above) * 100 > u128::from(all) * u128::from(HIDDEN_PERCENT_MAX)
        && above > HIDDEN_SEGMENTS * segment_bytes
}

#[cfg(test)]
#[path = "collection_plan_test.rs"]
mod tests;
