//! Which families metrics name.
//!
//! A monitoring system keeps a time series for each value of a label for ever, so the number of families in metrics has
//! a bound: the largest ones are named, what the others have is summed. [`Stats::families`](super::Stats::families) has
//! all.

use super::{FamilyStats, LevelStats};
use std::borrow::Cow;
use std::cmp::Reverse;

/// Families that metrics name at most: about 40 series each.
pub const METRIC_FAMILIES_MAX: usize = 20;

/// The label of the sum of all others. It is the name of no family: names that begin like this are reserved, and none
/// is called so.
pub(super) const OTHERS: &str = "kontiki.others";

/// The families to name, in the order of their numbers; at the end, if not all are named, the sum of the others.
pub(super) fn named(families: &[FamilyStats]) -> Cow<'_, [FamilyStats]> {
    if families.len() <= METRIC_FAMILIES_MAX {
        return Cow::Borrowed(families);
    }
    let bytes = |stats: &FamilyStats| stats.levels.iter().map(|level| level.bytes).sum::<u64>();
    let mut by_bytes: Vec<&FamilyStats> = families.iter().collect();
    by_bytes.sort_by_key(|stats| (Reverse(bytes(stats)), stats.family));
    let (largest, others) = by_bytes.split_at(METRIC_FAMILIES_MAX);
    let mut named: Vec<FamilyStats> = largest.iter().map(|stats| (*stats).clone()).collect();
    named.sort_by_key(|stats| stats.family);
    named.push(sum(others));
    Cow::Owned(named)
}

fn sum(families: &[&FamilyStats]) -> FamilyStats {
    let levels = families.iter().map(|stats| stats.levels.len()).max().unwrap_or(0);
    let mut sum = FamilyStats {
        family: u32::MAX,
        name: OTHERS.to_string(),
        range_tombstones: families.iter().map(|stats| stats.range_tombstones).sum(),
        levels: vec![LevelStats::default(); levels],
    };
    for stats in families {
        for (sum, level) in sum.levels.iter_mut().zip(&stats.levels) {
            sum.tables += level.tables;
            sum.bytes += level.bytes;
            sum.entries += level.entries;
            sum.tombstones += level.tombstones;
            let both = sum.target_bytes.into_iter().chain(level.target_bytes);
            sum.target_bytes = both.reduce(|a, b| a.saturating_add(b));
            // How urgent the most urgent of them is.
            sum.score = sum.score.max(level.score);
        }
    }
    sum
}

#[cfg(test)]
#[path = "named_families_test.rs"]
mod tests;
