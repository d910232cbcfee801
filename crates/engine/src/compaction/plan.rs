//! What to compact next: pure functions over the levels' metadata and what is in flight.
//!
//! In this order:
//! 1. Tables that range tombstones cover wholly are dropped, unread.
//! 2. What has a score of at least 1, the most urgent first: a shard of level 0 (tables over a key, over the trigger)
//!    and the levels below (bytes over target, see [`Targets`]). What is in flight does not count.
//! 3. Tables that hold much that is dead: tombstones, expired values, what the oldest range tombstone hides when there
//!    are too many of them; and tables that are very old (`plan_dead.rs`).
//! 4. Small tables next to each other (`plan_small.rs`).
//!
//! A shard of level 0 is *drained* into the first level that holds or shall hold anything, or, while it is small
//! against what it would be merged with there, *kept*: merged within itself. Level 0 thus stays shallow for readers and
//! a byte is never rewritten more than [`CompactionOptions::level_factor`] times by one drain, whatever the memtable's
//! size.
//!
//! From a deeper level the table is moved down that has the least to be merged with below, for its size and for the
//! dead in it (which counts double): that writes least, and cycles through the key range by itself, since what was just
//! merged is wide of what comes next. What overlaps nothing below moves by the edit alone, many tables at once.

use super::family_options::compaction_of;
use super::in_flight::{Claim, InFlight};
use super::targets::Targets;
use crate::types::{CompactionOptions, FamilyMap, LEVEL_COUNT};
use crate::version::{FamilyLevels, Shard, Table, Version};
use crate::{Family, FamilyOptions, SequenceNumber};
use std::sync::Arc;

/// How tables change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableChange {
    /// They are removed: range tombstones hide all they hold.
    Drop,
    /// They change their level and keep their files.
    Move,
    /// They become new tables.
    Merge,
}

/// One compaction: `inputs` of level `from` and `overlaps` of level `to` become tables of level `to`.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The family.
    pub family: Family,
    /// Level of `inputs`.
    pub from: usize,
    /// Level of `overlaps` and of the output; may be `from`.
    pub to: usize,
    /// What happens.
    pub change: TableChange,
    /// Tables that are removed.
    pub inputs: Vec<Arc<Table>>,
    /// Tables that they are merged with.
    pub overlaps: Vec<Arc<Table>>,
}

impl Plan {
    /// Every input with its level.
    pub fn tables(&self) -> impl Iterator<Item = (usize, &Arc<Table>)> {
        let inputs = self.inputs.iter().map(|table| (self.from, table));
        inputs.chain(self.overlaps.iter().map(|table| (self.to, table)))
    }

    /// Bytes of everything that is read.
    pub fn bytes(&self) -> u64 {
        self.tables().map(|(_, table)| table.meta().file_bytes).sum()
    }

    /// What no other plan may touch meanwhile: of a merge the whole key range of its inputs, for the output may hold
    /// any key in it; else table by table.
    pub fn claims(&self) -> Vec<Claim> {
        let claim = |tables: &[&Arc<Table>]| {
            let smallest_key = tables.iter().map(|table| &table.meta().smallest_key).min()?.clone();
            let largest_key = tables.iter().map(|table| &table.meta().largest_key).max()?.clone();
            Some(Claim { family: self.family, from: self.from, to: self.to, smallest_key, largest_key })
        };
        let tables: Vec<_> = self.tables().map(|(_, table)| table).collect();
        match self.change {
            TableChange::Merge => claim(&tables).into_iter().collect(),
            TableChange::Drop | TableChange::Move => tables.iter().filter_map(|table| claim(&[table])).collect(),
        }
    }
}

/// The planner's input.
pub struct Planner<'a> {
    /// The tables.
    pub version: &'a Version,
    /// For families that have no options.
    pub options: &'a CompactionOptions,
    /// The options of families that have some.
    pub families: &'a FamilyMap<FamilyOptions>,
    /// What is in flight.
    pub in_flight: &'a InFlight,
    /// Wall clock, in milliseconds since the epoch.
    pub now_ms: u64,
    /// Tombstones above it cannot be dropped.
    pub oldest_reader: SequenceNumber,
}

/// A candidate with its urgency.
struct Due<'a> {
    urgency: f64,
    family: Family,
    what: What<'a>,
}

enum What<'a> {
    Shard(&'a Shard),
    Level(usize),
}

/// A table of level 0 has a score that grows with its age, up to twice: its garbage waits as long as it does.
const LEVEL0_AGE_MS: f64 = 60_000.0;

impl<'a> Planner<'a> {
    pub(super) fn options(&self, family: Family) -> &'a CompactionOptions {
        compaction_of(self.families, self.options, family)
    }

    fn is_free(&self, family: Family, from: usize, to: usize, table: &Table) -> bool {
        let (smallest_key, largest_key) = (table.meta().smallest_key.clone(), table.meta().largest_key.clone());
        self.in_flight.is_free(&Claim { family, from, to, smallest_key, largest_key })
    }

    pub(super) fn free(&self, plan: Plan) -> Option<Plan> {
        plan.claims().iter().all(|claim| self.in_flight.is_free(claim)).then_some(plan)
    }

    /// The most urgent compaction that can run next to what is in flight, if any is due.
    pub fn plan(&self) -> Option<Plan> {
        let families = || self.version.families().iter().filter(|(family, _)| self.in_flight.is_open(*family));
        if let Some(plan) = families().find_map(|(family, levels)| self.plan_drop(family, levels)) {
            return Some(plan);
        }
        let mut due: Vec<Due<'_>> = families().flat_map(|(family, levels)| self.due(family, levels)).collect();
        due.sort_by(|a, b| b.urgency.total_cmp(&a.urgency));
        let planned = due.iter().find_map(|due| {
            let levels = self.version.family(due.family)?;
            match due.what {
                What::Shard(shard) => self.plan_shard(due.family, levels, shard),
                What::Level(level) => self.plan_level(due.family, levels, level),
            }
        });
        let planned = planned.or_else(|| families().find_map(|(family, levels)| self.plan_dead(family, levels)));
        planned.or_else(|| families().find_map(|(family, levels)| self.plan_small(family, levels)))
    }

    /// Everything with a score of at least 1.
    fn due(&self, family: Family, levels: &'a FamilyLevels) -> Vec<Due<'a>> {
        let options = self.options(family);
        let targets = Targets::new(levels, options);
        let mut due = Vec::new();
        for shard in levels.shards() {
            let score = self.shard_score(family, levels, shard);
            if score >= 1.0 {
                due.push(Due { urgency: score * self.pull(shard), family, what: What::Shard(shard) });
            }
        }
        for level in 1..LEVEL_COUNT - 1 {
            let free = levels.levels[level].iter().filter(|table| self.is_free(family, level, level, table));
            let bytes: u64 = free.map(|table| table.meta().file_bytes).sum();
            let score = bytes as f64 / targets.bytes[level].max(1) as f64;
            if score >= 1.0 {
                due.push(Due { urgency: score, family, what: What::Level(level) });
            }
        }
        due
    }

    /// How urgent a shard is: 1 and above means now. Tables in disjoint ranges cost no reader anything, but their
    /// number must be bounded too.
    fn shard_score(&self, family: Family, levels: &FamilyLevels, shard: &Shard) -> f64 {
        let options = self.options(family);
        let trigger = options.level0_tables.max(1);
        let depth = shard.depth as f64 / trigger as f64;
        let tables = levels.levels[0].len() as f64 / (trigger * options.level0_shards.max(1)) as f64;
        if shard.depth == 1 && shard.tables.len() == 1 && levels.shards().len() > options.level0_shards {
            depth.max(tables)
        } else {
            depth
        }
    }

    /// The factor of a shard's score: up to twice for its age, and up to twice for the values in segments
    /// that its tables refer to, whose garbage is known only once they have been merged.
    fn pull(&self, shard: &Shard) -> f64 {
        let oldest = shard.tables.iter().map(|table| table.facts().created_at_ms).min().unwrap_or(self.now_ms);
        let age = self.now_ms.saturating_sub(oldest) as f64 / LEVEL0_AGE_MS;
        let values = |table: &Arc<Table>| {
            self.version.values().refs_of(table.meta().number).map_or(0, |refs| refs.total_bytes())
        };
        let values: u64 = shard.tables.iter().map(values).sum();
        let density = values as f64 / shard.bytes().max(1) as f64;
        (1.0 + (age / 4.0).min(1.0)) * (1.0 + density.min(1.0))
    }

    /// The level that level 0 is merged into: the first that holds anything or shall hold anything, so that none is
    /// passed over.
    pub(super) fn level_below_0(&self, family: Family, levels: &FamilyLevels) -> usize {
        let base = Targets::new(levels, self.options(family)).base;
        (1..base).find(|level| !levels.levels[*level].is_empty()).unwrap_or(base)
    }

    fn plan_shard(&self, family: Family, levels: &FamilyLevels, shard: &Shard) -> Option<Plan> {
        let to = self.level_below_0(family, levels);
        let overlaps = overlapping(&levels.levels[to], &shard.tables);
        if overlaps.is_empty() && shard.tables.len() == 1 {
            return self.plan_move_of_level0(family, levels, to);
        }
        let overlap_bytes: u64 = overlaps.iter().map(|table| table.meta().file_bytes).sum();
        let brings = shard.bytes().saturating_mul(self.options(family).level_factor);
        let kept = if overlap_bytes > brings { similar(&shard.tables) } else { Vec::new() };
        let (inputs, overlaps, to) =
            if overlap_each_other(&kept) { (kept, Vec::new(), 0) } else { (shard.tables.clone(), overlaps, to) };
        self.free(Plan { family, from: 0, to, change: TableChange::Merge, inputs, overlaps })
    }

    /// All tables of level 0 that overlap nothing there nor in `to`.
    fn plan_move_of_level0(&self, family: Family, levels: &FamilyLevels, to: usize) -> Option<Plan> {
        let alone = levels.shards().iter().filter_map(|shard| match shard.tables.as_slice() {
            [table] => Some(table),
            _ => None,
        });
        let inputs = alone
            .filter(|table| overlapping(&levels.levels[to], std::slice::from_ref(table)).is_empty())
            .filter(|table| self.is_free(family, 0, to, table));
        let inputs: Vec<_> = inputs.cloned().collect();
        let plan = Plan { family, from: 0, to, change: TableChange::Move, inputs, overlaps: Vec::new() };
        (!plan.inputs.is_empty()).then_some(plan)
    }

    /// Moves the excess of a level down.
    pub fn plan_level(&self, family: Family, levels: &FamilyLevels, level: usize) -> Option<Plan> {
        assert!(level > 0 && level + 1 < LEVEL_COUNT, "level 0 is compacted by shards, and no level is below the last");
        let below = &levels.levels[level + 1];
        let mut best: Option<(f64, &Arc<Table>)> = None;
        let mut movable = Vec::new();
        let mut from = 0;
        for table in &levels.levels[level] {
            while below.get(from).is_some_and(|other| other.meta().largest_key < table.meta().smallest_key) {
                from += 1;
            }
            if !self.is_free(family, level, level + 1, table) {
                continue;
            }
            let over =
                below.iter().skip(from).take_while(|other| other.meta().smallest_key <= table.meta().largest_key);
            let cost: u64 = over.map(|other| other.meta().file_bytes).sum();
            if cost == 0 {
                movable.push(table);
            }
            let meta = table.meta();
            let dead = 1.0 + 2.0 * meta.tombstones as f64 / meta.entries as f64;
            let cost = cost as f64 / (meta.file_bytes.max(1) as f64 * dead);
            let inputs = std::slice::from_ref(table);
            if best.is_none_or(|(least, _)| cost < least)
                && self.free(merge_down(family, levels, level, inputs)).is_some()
            {
                best = Some((cost, table));
            }
        }
        if !movable.is_empty() {
            let target = Targets::new(levels, self.options(family)).bytes[level];
            let mut over = levels.level_bytes(level).saturating_sub(target).max(1);
            let enough = movable.into_iter().take_while(|table| {
                let more = over > 0;
                over = over.saturating_sub(table.meta().file_bytes);
                more
            });
            let inputs = enough.cloned().collect();
            return Some(Plan {
                family,
                from: level,
                to: level + 1,
                change: TableChange::Move,
                inputs,
                overlaps: Vec::new(),
            });
        }
        best.map(|(_, table)| merge_down(family, levels, level, std::slice::from_ref(table)))
    }

    /// The tables of one level that range tombstones cover wholly.
    fn plan_drop(&self, family: Family, levels: &FamilyLevels) -> Option<Plan> {
        let ranges = &levels.range_tombstones;
        if ranges.is_empty() {
            return None;
        }
        (0..LEVEL_COUNT).find_map(|level| {
            let covered = levels.levels[level].iter().filter(|table| {
                let meta = table.meta();
                ranges.cover(&meta.smallest_key, &meta.largest_key, meta.largest_sequence)
                    && self.is_free(family, level, level, table)
            });
            let inputs: Vec<_> = covered.cloned().collect();
            let plan = Plan { family, from: level, to: level, change: TableChange::Drop, inputs, overlaps: Vec::new() };
            (!plan.inputs.is_empty()).then_some(plan)
        })
    }
}

/// The bytes that would have to be compacted for every score to be below 1: the debt that backpressure uses. What
/// is above a target counts once for each level that it must move down, with what it is merged with.
pub fn debt_bytes(version: &Version, options_of: impl Fn(Family) -> CompactionOptions) -> u64 {
    let of_family = |(family, levels): (Family, &Arc<FamilyLevels>)| {
        let options = options_of(family);
        let targets = Targets::new(levels, &options);
        let due = levels.shards().iter().filter(|shard| shard.depth >= options.level0_tables.max(1));
        let mut down: u64 = due.map(Shard::bytes).sum();
        let mut debt = down;
        for level in 1..LEVEL_COUNT - 1 {
            let bytes = levels.level_bytes(level);
            down = (bytes + down).saturating_sub(targets.bytes[level]);
            let ratio = levels.level_bytes(level + 1) as f64 / bytes.max(1) as f64;
            debt += (down as f64 * (1.0 + ratio.min(options.level_factor as f64))) as u64;
        }
        debt
    };
    version.families().iter().map(of_family).sum()
}

/// `inputs`, which are next to each other, with what overlaps them one level below.
pub(super) fn merge_down(family: Family, levels: &FamilyLevels, level: usize, inputs: &[Arc<Table>]) -> Plan {
    let overlaps = overlapping(&levels.levels[level + 1], inputs);
    Plan { family, from: level, to: level + 1, change: TableChange::Merge, inputs: inputs.to_vec(), overlaps }
}

/// `inputs` where they are: all of a range of a level below 0, or one table of level 0.
pub(super) fn rewrite(family: Family, level: usize, inputs: &[Arc<Table>]) -> Plan {
    assert!(
        level > 0 || inputs.len() == 1,
        "tables of level 0 that are rewritten together need each other's neighbours"
    );
    Plan { family, from: level, to: level, change: TableChange::Merge, inputs: inputs.to_vec(), overlaps: Vec::new() }
}

/// Whether no deeper level has a table that overlaps.
pub(super) fn is_bottom(levels: &FamilyLevels, level: usize, table: &Arc<Table>) -> bool {
    (level + 1..LEVEL_COUNT).all(|level| overlapping(&levels.levels[level], std::slice::from_ref(table)).is_empty())
}

/// The newest tables of a shard that are worth merging with each other: none is larger than twice what is newer. With
/// every table whose numbers lie between theirs, so that the result is newer than what is left.
fn similar(newest_first: &[Arc<Table>]) -> Vec<Arc<Table>> {
    let mut bytes = 0;
    let mut count = 0;
    for table in newest_first {
        if count > 0 && table.meta().file_bytes > 2 * bytes {
            break;
        }
        bytes += table.meta().file_bytes;
        count += 1;
    }
    loop {
        let oldest = newest_first.iter().take(count).map(|table| table.meta().smallest_sequence).min();
        let within = newest_first.iter().take_while(|table| Some(table.meta().largest_sequence) >= oldest).count();
        if within <= count {
            return newest_first.iter().take(count).cloned().collect();
        }
        count = within;
    }
}

/// Whether a key may be in two of the tables. A merge of disjoint tables may give as many tables again: the shard would
/// be as deep as before, and the merge due again for ever. A merge of overlapping tables gives disjoint ones, so the
/// next merge includes an older table, and the number of those is finite.
fn overlap_each_other(tables: &[Arc<Table>]) -> bool {
    let mut ranges: Vec<_> =
        tables.iter().map(|table| (&table.meta().smallest_key, &table.meta().largest_key)).collect();
    ranges.sort_unstable();
    ranges.windows(2).any(|pair| pair[1].0 <= pair[0].1)
}

/// The tables of a level below 0 that overlap the key range from the smallest to the largest key of `inputs`: the
/// output may hold any key in between.
pub(super) fn overlapping(tables: &[Arc<Table>], inputs: &[Arc<Table>]) -> Vec<Arc<Table>> {
    let smallest = inputs.iter().map(|table| &table.meta().smallest_key).min();
    let largest = inputs.iter().map(|table| &table.meta().largest_key).max();
    let (Some(smallest), Some(largest)) = (smallest, largest) else { return Vec::new() };
    let from = tables.partition_point(|table| table.meta().largest_key < smallest);
    let over = tables.iter().skip(from).take_while(|table| table.meta().smallest_key <= largest);
    over.cloned().collect()
}

#[cfg(test)]
#[path = "plan_test.rs"]
mod tests;
