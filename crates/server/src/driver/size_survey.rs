//! The size of a region, and where it should be divided if it is too large: from a view of the engine, in the
//! background.

use crate::families::{DATA_FAMILIES, DEFAULT, RAW_LOCK, RAW_WRITE};
use bytes::Bytes;
use kontiki_engine::{Family, PartSize, Range, Result};
use kontiki_raftstore::Region;
use kontiki_raftstore::command::{SPLIT_CHILDREN_MAX, SPLIT_KEY_BYTES_MAX};
use kontiki_state::StateView;
use kontiki_txn::{boundary_behind, boundary_near};

/// The smallest part that is distinguished, as a share of the largest region: boundaries are right to within this.
const PARTS: u64 = 64;
/// The weight of a region that is as large as it may be.
const WEIGHT_MAX: u128 = 1 << 32;

/// How large a region may be before it is split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SizeLimits {
    /// Bytes in tables and in the value log; 0: no region is split by its size.
    pub bytes_max: u64,
    /// Versions of keys, tombstones included; 0: no region is split by their number.
    pub keys_max: u64,
}

/// The approximate size of a region: what tables have of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct RegionSize {
    pub(super) bytes: u64,
    pub(super) keys: u64,
}

/// What lies between the boundary of the part before and this part's own.
#[derive(Clone, Debug)]
struct Part {
    boundary: Bytes,
    size: RegionSize,
}

/// Measures a region, and chooses the boundaries that divide it into parts of half the limits; none if it is within
/// them, or has no place to divide it.
pub(super) fn survey(view: &StateView, region: &Region, limits: SizeLimits) -> Result<(RegionSize, Vec<Bytes>)> {
    let range = Range::region(&region.start_key, &region.end_key);
    let share = |max: u64| if max == 0 { u64::MAX } else { (max / PARTS).max(1) };
    let size_of_part = PartSize { bytes: share(limits.bytes_max), entries: share(limits.keys_max) };
    let mut parts = Vec::new();
    for family in DATA_FAMILIES {
        for part in view.range_parts(family, range.clone(), size_of_part)? {
            let boundary = boundary_of(family, &part.end).into();
            parts.push(Part { boundary, size: RegionSize { bytes: part.bytes, keys: part.entries } });
        }
    }
    parts.sort_by(|one, other| one.boundary.cmp(&other.boundary));
    let size = parts.iter().fold(RegionSize::default(), |sum, part| RegionSize {
        bytes: sum.bytes + part.size.bytes,
        keys: sum.keys + part.size.keys,
    });
    Ok((size, boundaries(region, &parts, size, limits)))
}

/// A boundary at about a position in a family's keys.
fn boundary_of(family: Family, position: &[u8]) -> Vec<u8> {
    match family {
        DEFAULT | RAW_LOCK | RAW_WRITE => boundary_behind(position),
        // Without the timestamp, which follows a whole encoding of transactional keys.
        _ => boundary_near(position),
    }
}

fn weight(size: RegionSize, limits: SizeLimits) -> u128 {
    let share = |of: u64, max: u64| (u128::from(of) * WEIGHT_MAX).checked_div(max.into()).unwrap_or(0);
    share(size.bytes, limits.bytes_max).max(share(size.keys, limits.keys_max))
}

fn boundaries(region: &Region, parts: &[Part], size: RegionSize, limits: SizeLimits) -> Vec<Bytes> {
    if weight(size, limits) <= WEIGHT_MAX {
        return Vec::new();
    }
    // Half the limit, so that no part is split again soon.
    let total: u128 = parts.iter().map(|part| weight(part.size, limits)).sum();
    let count = total.div_ceil(WEIGHT_MAX / 2).clamp(2, SPLIT_CHILDREN_MAX as u128 + 1);
    let each = total / count;
    let mut chosen: Vec<Bytes> = Vec::new();
    // Since the last boundary: what could not be divided is not made up for.
    let (mut passed, mut behind) = (0, total);
    for part in parts {
        passed += weight(part.size, limits);
        behind -= weight(part.size, limits);
        let last = chosen.last().unwrap_or(&region.start_key);
        if part.boundary <= *last {
            // More of what ends there: it lies before the boundary.
            passed = 0;
            continue;
        }
        let is_inside = region.end_key.is_empty() || part.boundary < region.end_key;
        let is_due = passed >= each && behind > 0;
        if is_inside && is_due && part.boundary.len() <= SPLIT_KEY_BYTES_MAX && chosen.len() as u128 + 1 < count {
            chosen.push(part.boundary.clone());
            passed = 0;
        }
    }
    chosen
}

#[cfg(test)]
#[path = "size_survey_test.rs"]
mod tests;
