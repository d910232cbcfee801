//! Tables that hold much that is dead, or are very old.

use super::plan::{Plan, Planner, TableChange, is_bottom, merge_down, overlapping, rewrite};
use crate::types::LEVEL_COUNT;
use crate::version::{FamilyLevels, RangeTombstone, Shard, Table};
use crate::{CompactionOptions, Family};

impl Planner<'_> {
    /// What to do with a table that holds much that is dead, or is very old.
    pub(super) fn plan_dead(&self, family: Family, levels: &FamilyLevels) -> Option<Plan> {
        let options = self.options(family);
        let under = oldest_of_too_many(levels, options);
        for level in 0..LEVEL_COUNT {
            for table in &levels.levels[level] {
                if under.is_some_and(|tombstone| table.is_under(tombstone)) {
                    // In place: what a range tombstone hides is dropped whatever lies below.
                    if let Some(plan) = self.free(rewrite(family, level, std::slice::from_ref(table))) {
                        return Some(plan);
                    }
                }
                if level > 0 && (self.is_old(table, options) || self.dead_entries(table, options) > 0) {
                    let inputs = std::slice::from_ref(table);
                    let plan = if is_bottom(levels, level, table) {
                        rewrite(family, level, inputs)
                    } else {
                        merge_down(family, levels, level, inputs)
                    };
                    if let Some(plan) = self.free(plan) {
                        return Some(plan);
                    }
                }
            }
        }
        levels.shards().iter().find_map(|shard| self.plan_dead_shard(family, levels, shard))
    }

    /// A shard of level 0 that has received nothing for a while does not become due through writes. It is drained if
    /// that pays: if what it is merged with is not larger than its dead data by more than the largest ratio of levels;
    /// and if it is old.
    fn plan_dead_shard(&self, family: Family, levels: &FamilyLevels, shard: &Shard) -> Option<Plan> {
        let options = self.options(family);
        let newest = shard.tables.iter().map(|table| table.facts().created_at_ms).max()?;
        // A database-wide option: how often an idle database is checked.
        if newest.saturating_add(self.options.idle_look_ms) > self.now_ms {
            return None;
        }
        let old = shard.tables.iter().any(|table| self.is_old(table, options));
        let dead: u64 = shard.tables.iter().map(|table| self.dead_entries(table, options)).sum();
        if !old && dead == 0 {
            return None;
        }
        let to = self.level_below_0(family, levels);
        let overlaps = overlapping(&levels.levels[to], &shard.tables);
        let others: u64 = overlaps.iter().map(|table| table.meta().entries).sum();
        if !old && others > dead.saturating_mul(options.level_factor) {
            return None;
        }
        self.free(Plan { family, from: 0, to, change: TableChange::Merge, inputs: shard.tables.clone(), overlaps })
    }

    fn is_old(&self, table: &Table, options: &CompactionOptions) -> bool {
        let period_ms = options.periodic_compaction_seconds.saturating_mul(1000);
        period_ms > 0 && table.facts().created_at_ms.saturating_add(period_ms) <= self.now_ms
    }

    /// About how many versions of a table are dead, if they are enough for a compaction; else 0.
    fn dead_entries(&self, table: &Table, options: &CompactionOptions) -> u64 {
        let (meta, facts) = (table.meta(), table.facts());
        // What a transaction still holds would remain after the compaction, which would then repeat.
        if meta.largest_sequence > self.oldest_reader {
            return 0;
        }
        let percent = u64::from(options.tombstone_percent);
        let many = percent > 0 && meta.tombstones * 100 >= meta.entries * percent;
        let tombstones = if many { meta.tombstones } else { 0 };
        let expired = if facts.half_expired_at_ms <= self.now_ms { meta.entries.div_ceil(2) } else { 0 };
        tombstones.max(expired)
    }
}

fn oldest_of_too_many<'a>(levels: &'a FamilyLevels, options: &CompactionOptions) -> Option<&'a RangeTombstone> {
    let all = &levels.range_tombstones;
    if all.len() > options.range_tombstones_max { all.oldest() } else { None }
}
