//! Range tombstones in manifests of older builds.
//!
//! They kept every range tombstone as it was written, and removed it by naming it (tag 9 of `edit.rs`). What is removed
//! so is not always a piece of what is left if only the newest over each key is kept: of two of one batch, one inside
//! the other, the inner one is removed and the outer one stays. So up to the last such record of a manifest the list is
//! kept as in those builds.

use super::{Version, VersionEdit};
use crate::Family;
use crate::range::RangeTombstone;
use std::collections::{BTreeMap, BTreeSet};

/// See the head of this file.
pub(super) struct LegacyRanges {
    written: BTreeMap<Family, BTreeSet<RangeTombstone>>,
    /// Edits up to the last one with a record of the old kind.
    left: usize,
}

impl LegacyRanges {
    /// For these edits of a manifest.
    pub(super) fn new(edits: &[(u64, VersionEdit)]) -> LegacyRanges {
        let last = edits.iter().rposition(|(_, edit)| !edit.removed_ranges.is_empty());
        LegacyRanges { written: BTreeMap::new(), left: last.map_or(0, |last| last + 1) }
    }

    /// Applies the range tombstones of the next edit as an older build did, if it is of one; returns whether it is.
    pub(super) fn take(&mut self, edit: &VersionEdit) -> Result<bool, String> {
        if self.left == 0 {
            return Ok(false);
        }
        for family in &edit.dropped {
            self.written.remove(family);
        }
        for (family, tombstone) in &edit.added_ranges {
            self.written.entry(*family).or_default().insert(tombstone.clone());
        }
        for (family, tombstone) in &edit.removed_ranges {
            if !self.written.get_mut(family).is_some_and(|written| written.remove(tombstone)) {
                return Err(format!("range tombstone {tombstone:?} is removed, but is not there"));
            }
        }
        if !edit.spent_ranges.is_empty() {
            return Err("range tombstones are forgotten before older records about them end".to_string());
        }
        Ok(true)
    }

    /// After each edit that it has applied: passes the tombstones to `version` after the last.
    pub(super) fn end_of_edit(&mut self, version: &mut Version) -> Result<(), String> {
        self.left -= 1;
        if self.left == 0 {
            for (family, written) in std::mem::take(&mut self.written) {
                let written: Vec<_> = written.into_iter().map(|tombstone| (family, tombstone)).collect();
                version.add_ranges(&written)?;
            }
        }
        Ok(())
    }
}
