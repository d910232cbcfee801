//! How large each level should be.
//!
//! The last level has no target; those above it follow from its size, so that they hold a fixed share of the data
//! however much there is (RocksDB calls this dynamic level sizes). With *S* bytes of data and *B* bytes coming down
//! from level 0 at a time, *k* levels with a ratio *r* between them cost every byte about *k (1 + r)* rewrites, and
//! cover *S = B r^k*. So there are as few levels as the largest ratio allows, and they share the distance evenly. A
//! ratio below [`RATIO_MAX_SHARE`] of the largest would save little writing and cost space, for what the upper levels
//! hold may all be overwritten: at most a fifth, then.

use crate::types::{CompactionOptions, LEVEL_COUNT, RATIO_MIN};
use crate::version::FamilyLevels;

/// The ratio between levels is not made smaller than this share of the largest: 6 of 10 by default, for which the
/// levels above the last hold at most 1/6 + 1/36 + ... = a fifth of it.
const RATIO_MAX_SHARE: f64 = 0.6;

/// The levels of a family that are in use, and their targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Targets {
    /// The first level below 0 that is to hold anything.
    pub base: usize,
    /// In bytes; 0 above the base, `u64::MAX` for the last level. That of level 0 is not used.
    pub bytes: [u64; LEVEL_COUNT],
}

impl Targets {
    /// For these levels as they are.
    pub fn new(levels: &FamilyLevels, options: &CompactionOptions) -> Targets {
        let largest = (1..LEVEL_COUNT).map(|level| levels.level_bytes(level)).max().unwrap_or(0);
        Targets::of_bytes(largest, options)
    }

    /// For a largest level of so many bytes.
    pub fn of_bytes(largest: u64, options: &CompactionOptions) -> Targets {
        let unit = options.level1_bytes.max(1) as f64;
        let ratio_max = options.level_factor.max(RATIO_MIN) as f64;
        let distance = (largest as f64 / unit).max(1.0);
        let most = LEVEL_COUNT - 1;
        let count = (1..most).find(|&count| distance <= ratio_max.powi(count as i32)).unwrap_or(most);
        let even = distance.powf(1.0 / count as f64);
        let ratio = even.clamp((ratio_max * RATIO_MAX_SHARE).max(1.5), ratio_max.max(even));
        let last = LEVEL_COUNT - 1;
        let base = last + 1 - count;
        let mut bytes = [0; LEVEL_COUNT];
        let mut target = largest as f64;
        for level in (base..last).rev() {
            target /= ratio;
            bytes[level] = (target as u64).max(1);
        }
        bytes[last] = u64::MAX;
        assert!(base >= 1 && base <= last, "there is at least one level");
        debug_assert!(bytes[base..].is_sorted(), "deeper levels are larger");
        Targets { base, bytes }
    }
}

#[cfg(test)]
#[path = "targets_test.rs"]
mod tests;
