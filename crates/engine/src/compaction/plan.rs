//! What to compact next: pure functions over the levels' metadata.
//!
//! A level's score is its size over its target; L0's is its number of tables over the trigger, since each of them is
//! looked at by every read. The level with the highest score of at least 1 is compacted into the next.
//!
//! From L0 the plan takes every table whose key range is connected with that of the oldest one: so no table left in
//! L0 overlaps the output, and reads may stop at the first hit. From a deeper level it takes the oldest table (the
//! smallest file number): outputs get new numbers, so the pick goes round the key range, and it needs no state. Of
//! the next level it takes every table that overlaps.
//!
//! Rejected for now: a dynamic base level and ingest buffers (they come with the value log); cost-benefit picks.

use crate::Family;
use crate::version::{FamilyLevels, LEVEL_COUNT, Table, Version};
use std::sync::Arc;

/// When levels are compacted.
#[derive(Clone, Debug)]
pub struct CompactionOptions {
    /// L0 is compacted from this many tables on. Default 4.
    pub level0_tables: usize,
    /// Target of L1, in bytes. Default 64 MiB, about a memtable: an L0 compaction then rewrites about as much as it
    /// brings.
    pub level1_bytes: u64,
    /// Target of each deeper level over the one above. Default 10.
    pub level_factor: u64,
    /// An output table ends after this many bytes, at the next user key. Default 32 MiB.
    pub table_bytes: u64,
}

impl Default for CompactionOptions {
    fn default() -> CompactionOptions {
        CompactionOptions { level0_tables: 4, level1_bytes: 64 << 20, level_factor: 10, table_bytes: 32 << 20 }
    }
}

impl CompactionOptions {
    /// Target of a level below L0, in bytes.
    pub fn target_bytes(&self, level: usize) -> u64 {
        assert!(level > 0, "L0 has a number of tables as its target");
        (1..level).fold(self.level1_bytes.max(1), |bytes, _| bytes.saturating_mul(self.level_factor.max(2)))
    }
}

/// One compaction: `inputs` of level `from` and `overlaps` of level `to` become tables of level `to`.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The family.
    pub family: Family,
    /// Level of `inputs`.
    pub from: usize,
    /// Level of `overlaps` and of the output.
    pub to: usize,
    /// Tables that move down.
    pub inputs: Vec<Arc<Table>>,
    /// Tables that they are merged with.
    pub overlaps: Vec<Arc<Table>>,
}

impl Plan {
    /// Whether the tables can move as they are: nothing to merge with, and nothing among themselves.
    pub fn is_move(&self) -> bool {
        self.inputs.len() == 1 && self.overlaps.is_empty() && self.from != self.to
    }

    /// Every input with its level.
    pub fn tables(&self) -> impl Iterator<Item = (usize, &Arc<Table>)> {
        let inputs = self.inputs.iter().map(|table| (self.from, table));
        inputs.chain(self.overlaps.iter().map(|table| (self.to, table)))
    }
}

/// How urgent it is to compact a level: 1 and above means now. 0 for the last level.
pub fn score(levels: &FamilyLevels, level: usize, options: &CompactionOptions) -> f64 {
    if level + 1 >= LEVEL_COUNT {
        return 0.0;
    }
    match level {
        0 => levels.levels[0].len() as f64 / options.level0_tables.max(1) as f64,
        _ => levels.level_bytes(level) as f64 / options.target_bytes(level) as f64,
    }
}

/// The most urgent compaction of all families, if any level is at or over its target.
pub fn plan(version: &Version, options: &CompactionOptions) -> Option<Plan> {
    let mut best: Option<(f64, Family, usize)> = None;
    for (&family, levels) in version.families() {
        for level in 0..LEVEL_COUNT - 1 {
            let score = score(levels, level, options);
            if score >= 1.0 && best.is_none_or(|(highest, _, _)| score > highest) {
                best = Some((score, family, level));
            }
        }
    }
    let (highest, family, level) = best?;
    assert!(highest >= 1.0 && level + 1 < LEVEL_COUNT);
    plan_level(family, version.family(family)?, level)
}

/// The compaction of `level` into the next, if the level holds anything.
pub fn plan_level(family: Family, levels: &FamilyLevels, level: usize) -> Option<Plan> {
    assert!(level + 1 < LEVEL_COUNT, "the last level has nowhere to go");
    let tables = levels.levels.get(level)?;
    let oldest = tables.iter().min_by_key(|table| table.meta().number)?;
    let inputs = if level == 0 { connected(tables) } else { vec![oldest.clone()] };
    let overlaps = overlapping(levels.levels.get(level + 1)?, &inputs);
    assert!(inputs.iter().any(|table| table.meta().number == oldest.meta().number) || level == 0);
    debug_assert!(inputs.iter().chain(&overlaps).all(|table| table.family() == family));
    Some(Plan { family, from: level, to: level + 1, inputs, overlaps })
}

/// Everything of a family into its deepest level that holds tables (at least L1): what `Db::compact` asks for.
/// `None` if there is nothing to merge.
pub fn plan_all(family: Family, levels: &FamilyLevels) -> Option<Plan> {
    let deepest = (1..LEVEL_COUNT).rev().find(|&level| !levels.levels[level].is_empty()).unwrap_or(1);
    let from = (0..deepest).find(|&level| !levels.levels[level].is_empty())?;
    if from == deepest {
        return None;
    }
    // Level by level, so that a plan stays "inputs of one level, overlaps of the next": the shallowest one, whole.
    let inputs = levels.levels[from].clone();
    let overlaps = overlapping(&levels.levels[from + 1], &inputs);
    assert!(!inputs.is_empty() && from < deepest, "the shallowest level that holds anything is above the deepest");
    Some(Plan { family, from, to: from + 1, inputs, overlaps })
}

/// The tables of L0 whose key ranges are connected with the oldest one's, directly or through each other.
fn connected(tables: &[Arc<Table>]) -> Vec<Arc<Table>> {
    let Some(oldest) = tables.iter().min_by_key(|table| (table.meta().largest_sequence, table.meta().number)) else {
        return Vec::new();
    };
    let mut smallest = &oldest.meta().smallest_key;
    let mut largest = &oldest.meta().largest_key;
    loop {
        let within =
            |table: &&Arc<Table>| table.meta().smallest_key <= largest && *smallest <= table.meta().largest_key;
        let chosen: Vec<_> = tables.iter().filter(within).collect();
        let new_smallest = chosen.iter().map(|table| &table.meta().smallest_key).min().unwrap_or(smallest);
        let new_largest = chosen.iter().map(|table| &table.meta().largest_key).max().unwrap_or(largest);
        debug_assert!(new_smallest <= smallest && new_largest >= largest, "the range only grows, so this ends");
        if new_smallest == smallest && new_largest == largest {
            return chosen.into_iter().cloned().collect();
        }
        (smallest, largest) = (new_smallest, new_largest);
    }
}

/// The tables of a level that overlap the key range from the smallest to the largest key of `inputs`: the output may
/// hold any key in between.
fn overlapping(tables: &[Arc<Table>], inputs: &[Arc<Table>]) -> Vec<Arc<Table>> {
    let smallest = inputs.iter().map(|table| &table.meta().smallest_key).min();
    let largest = inputs.iter().map(|table| &table.meta().largest_key).max();
    let (Some(smallest), Some(largest)) = (smallest, largest) else { return Vec::new() };
    let overlaps = |table: &&Arc<Table>| table.meta().smallest_key <= largest && *smallest <= table.meta().largest_key;
    tables.iter().filter(overlaps).cloned().collect()
}

/// Panics unless the plan takes everything that it must: no table left behind in `from` (if that is L0) or in `to`
/// overlaps the key range of the inputs.
#[cfg(test)]
pub(crate) fn assert_whole(plan: &Plan, levels: &FamilyLevels) {
    assert!(!plan.inputs.is_empty() && plan.to == plan.from + 1);
    let touches = |table: &Table| plan.inputs.iter().any(|input| input.meta().overlaps(table.meta()));
    let taken = |table: &Table| plan.tables().any(|(_, input)| input.meta().number == table.meta().number);
    let levels_at_risk = if plan.from == 0 { 0..2 } else { plan.to..plan.to + 1 };
    for level in levels_at_risk {
        for table in &levels.levels[level] {
            assert!(!touches(table) || taken(table), "table {} of level {level} is left behind", table.meta().number);
        }
    }
    for (level, table) in plan.tables() {
        assert!(levels.levels[level].iter().any(|there| there.meta().number == table.meta().number));
    }
}

#[cfg(test)]
#[path = "plan_test.rs"]
mod tests;
