//! The sizes of the regions that this node leads, and splits of those that are too large.
//!
//! A region is surveyed when its leadership begins, when its range changes, and when so much of what was written to it
//! since the last survey has been flushed that its size may matter; an idle region costs nothing. A survey that finds a
//! region too large proposes a split; until the split is applied, each further survey proposes it again, so nothing is
//! remembered of one that failed.

use super::size_survey::{RegionSize, SizeLimits};
use super::split::Asked;
use super::surveys::Surveyed;
use super::{Driver, PLACEMENT_REGION};
use kontiki_placement::Now;
use kontiki_raftstore::{Apply, RegionId};
use std::collections::BTreeMap;
use std::time::Duration;

/// How often regions are looked through.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// A region is surveyed again when it got this share of a limit.
const WRITTEN_SHARE: u64 = 16;

/// What is known of a region.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    /// `None`: the range has changed since.
    size: Option<RegionSize>,
    /// Since a flush made it due. Bytes that are written while a memtable is flushed are counted for that one.
    written: RegionSize,
    /// Enough of it has been flushed.
    is_due: bool,
    /// The last survey found it too large.
    is_too_large: bool,
}

/// The sizes of the regions that this node leads.
pub(super) struct RegionSizes {
    limits: SizeLimits,
    regions: BTreeMap<RegionId, Known>,
    look_at: Duration,
}

impl RegionSizes {
    pub(super) fn new(limits: SizeLimits, now: Duration) -> RegionSizes {
        RegionSizes { limits, regions: BTreeMap::new(), look_at: now + LOOK_INTERVAL }
    }

    pub(super) fn leads(&mut self, region: RegionId) {
        if region != PLACEMENT_REGION {
            self.regions.insert(region, Known::default());
        }
    }

    pub(super) fn leads_no_more(&mut self, region: RegionId) {
        self.regions.remove(&region);
    }

    pub(super) fn range_changed(&mut self, region: RegionId) {
        if let Some(known) = self.regions.get_mut(&region) {
            *known = Known::default();
        }
    }

    /// Counts what is about to be applied: the batch's bytes, shared out by the number of operations.
    pub(super) fn count(&mut self, apply: &Apply) {
        let (bytes, operations) = (apply.batch.as_bytes().len() as u64, apply.batch.len().max(1) as u64);
        for part in &apply.parts {
            if let Some(known) = self.regions.get_mut(&part.region) {
                known.written.bytes += bytes * part.operations.len() as u64 / operations;
                known.written.keys += part.operations.len() as u64;
            }
        }
    }

    /// Tables have more of these regions than before.
    pub(super) fn flushed(&mut self, regions: impl Iterator<Item = RegionId>) {
        let reaches = |written: u64, limit: u64| limit > 0 && written >= (limit / WRITTEN_SHARE).max(1);
        let SizeLimits { bytes_max, keys_max } = self.limits;
        for region in regions {
            if let Some(known) = self.regions.get_mut(&region)
                && (reaches(known.written.bytes, bytes_max) || reaches(known.written.keys, keys_max))
            {
                (known.is_due, known.written) = (true, RegionSize::default());
            }
        }
    }

    /// The approximate size of a region that this node leads; 0 until it has been surveyed.
    pub(super) fn size(&self, region: RegionId) -> RegionSize {
        self.regions.get(&region).and_then(|known| known.size).unwrap_or_default()
    }

    /// The regions whose sizes are to be surveyed now.
    fn due(&mut self) -> Vec<RegionId> {
        let is_due = |known: &Known| known.size.is_none() || known.is_too_large || known.is_due;
        let due = self.regions.iter_mut().filter(|(_, known)| is_due(known));
        due.map(|(region, known)| {
            known.is_due = false;
            *region
        })
        .collect()
    }
}

impl Driver {
    /// Requests surveys of the regions whose sizes may have changed much.
    pub(super) fn tend_region_sizes(&mut self, now: Now) {
        if now.monotonic < self.region_sizes.look_at {
            return;
        }
        self.region_sizes.look_at = now.monotonic + LOOK_INTERVAL;
        for region in self.region_sizes.due() {
            if let Some((region, _)) = self.shared.readers.region(region) {
                self.surveys.size(region, self.region_sizes.limits);
            }
        }
    }

    /// A region's size is known: splits it if it is too large.
    pub(super) fn region_surveyed(&mut self, surveyed: Surveyed, now: Now) {
        let Surveyed { region, size, boundaries } = surveyed;
        let current = self.shared.readers.region(region.id).map(|(region, _)| region.epoch.version);
        let known = self.region_sizes.regions.get_mut(&region.id);
        let Some(known) = known.filter(|_| current == Some(region.epoch.version)) else {
            return; // Another node leads it, or its range has changed.
        };
        known.size = Some(size);
        known.is_too_large = !boundaries.is_empty();
        if known.is_too_large {
            tracing::info!(region = region.id.0, ?size, parts = boundaries.len() + 1, "a region is too large");
            self.start_split(region.id, region.epoch, boundaries, Asked::BySize, now);
        }
    }
}

#[cfg(test)]
#[path = "region_sizes_test.rs"]
mod tests;
