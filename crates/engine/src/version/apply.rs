//! The version after an edit.
//!
//! An edit changes a version in place: what it touches is copied first if another version shares it, and nothing else
//! is. So an edit costs what it touches, and a replay of a manifest, where nothing is shared, copies nothing. Levels
//! are put in order, and checked, after an edit that is to become current, and once at the end of a replay.

use super::edit::AddedTable;
use super::{FamilyLevels, RangeTombstone, Table, Version, VersionEdit, shards};
use crate::Family;
use crate::range::{RangeTombstones, Run};
use crate::table::FileNumber;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What an edit has touched.
#[derive(Debug, Default)]
pub(super) struct Touched {
    /// Families whose levels have changed.
    pub(super) families: BTreeSet<Family>,
    /// Tables that were removed from their level; some may have moved.
    pub(super) removed: Vec<Arc<Table>>,
}

/// How many families have a level 0 of each depth, but 0: the largest is needed after every edit.
#[derive(Clone, Debug, Default)]
pub(super) struct Depths(BTreeMap<usize, usize>);

impl Depths {
    /// The depth of one family has changed.
    fn replace(&mut self, old: usize, new: usize) {
        if let Some(count) = self.0.get_mut(&old) {
            *count -= 1;
            if *count == 0 {
                self.0.remove(&old);
            }
        }
        if new > 0 {
            *self.0.entry(new).or_default() += 1;
        }
    }

    pub(super) fn largest(&self) -> usize {
        self.0.last_key_value().map_or(0, |(depth, _)| *depth)
    }
}

type Wrap<'a> = &'a dyn Fn(&AddedTable) -> Arc<Table>;

impl Version {
    /// The version after `edit`, and what has changed; or what is wrong with the edit.
    pub(super) fn after(&self, edit: &VersionEdit, wrap: Wrap<'_>) -> Result<(Version, Touched), String> {
        let mut next = self.clone();
        let touched = next.change(edit, true, wrap)?;
        next.put_in_order(&touched.families)?;
        debug_assert!(next.flushed_sequence >= self.flushed_sequence && next.oldest_segment >= self.oldest_segment);
        debug_assert_eq!(
            next.tables().count() + touched.removed.len(),
            self.tables().count() + edit.added.len(),
            "no table is lost or made up"
        );
        Ok((next, touched))
    }

    /// Applies `edit`, except for the order of the levels that are touched. After an error it is of no
    /// use.
    pub(super) fn change(&mut self, edit: &VersionEdit, with_ranges: bool, wrap: Wrap<'_>) -> Result<Touched, String> {
        let mut touched = Touched::default();
        self.change_families(edit, &mut touched)?;
        self.remove_tables(edit, &mut touched)?;
        let mut gone: BTreeMap<FileNumber, Arc<Table>> =
            touched.removed.iter().map(|table| (table.meta().number, table.clone())).collect();
        for added in &edit.added {
            let table = gone.remove(&added.meta.number).unwrap_or_else(|| wrap(added));
            if table.family() != added.family || *table.meta() != added.meta || *table.facts() != added.facts {
                return Err(format!("table {} changes while it moves", added.meta.number));
            }
            self.level_mut(added.family, added.level)?.push(table);
            touched.families.insert(added.family);
        }
        self.note_flush(edit)?;
        if with_ranges {
            self.add_ranges(&edit.added_ranges)?;
            self.forget_ranges(&edit.spent_ranges)?;
        }
        let oldest_segment = edit.oldest_segment.unwrap_or(self.oldest_segment);
        if oldest_segment < self.oldest_segment {
            return Err(format!("the oldest segment decreases from {}", self.oldest_segment));
        }
        self.oldest_segment = oldest_segment;
        self.values.apply(&edit.values, &mut gone.into_keys())?;
        Ok(touched)
    }

    /// Creates and drops families; the tables of the dropped ones are removed.
    fn change_families(&mut self, edit: &VersionEdit, touched: &mut Touched) -> Result<(), String> {
        for (family, name) in &edit.created {
            if self.dropped.contains_key(*family) {
                return Err(format!("{family:?} is created, and had been dropped"));
            }
            if self.families.insert(*family, Arc::new(FamilyLevels::new(name.clone()))).is_some() {
                return Err(format!("{family:?} is created twice"));
            }
        }
        for family in &edit.dropped {
            self.dropped.insert(*family, ());
            self.held_ranges.remove(family);
            match self.families.remove(*family) {
                Some(levels) => {
                    self.level0_depths.replace(levels.level0_depth(), 0);
                    touched.removed.extend(levels.tables().cloned());
                }
                // A whole version only records that they were.
                None if edit.is_snapshot => {}
                None => return Err(format!("{family:?} is dropped, but is not there")),
            }
        }
        Ok(())
    }

    fn remove_tables(&mut self, edit: &VersionEdit, touched: &mut Touched) -> Result<(), String> {
        let mut by_level: BTreeMap<(Family, usize), BTreeSet<FileNumber>> = BTreeMap::new();
        for &(family, level, number) in &edit.removed {
            if !by_level.entry((family, level)).or_default().insert(number) {
                return Err(format!("table {number} is removed twice"));
            }
        }
        for ((family, level), mut numbers) in by_level {
            let tables = self.level_mut(family, level)?;
            let gone = tables.extract_if(.., |table| numbers.remove(&table.meta().number));
            touched.removed.extend(gone);
            touched.families.insert(family);
            if let Some(number) = numbers.first() {
                return Err(format!("table {number} is removed from level {level}, but is not there"));
            }
        }
        Ok(())
    }

    pub(super) fn family_mut(&mut self, family: Family) -> Result<&mut FamilyLevels, String> {
        let levels = self.families.get_mut(family).ok_or_else(|| format!("{family:?} does not exist"))?;
        Ok(Arc::make_mut(levels))
    }

    fn level_mut(&mut self, family: Family, level: usize) -> Result<&mut Vec<Arc<Table>>, String> {
        let levels = self.family_mut(family)?;
        levels.levels.get_mut(level).ok_or_else(|| format!("level {level} does not exist"))
    }

    fn note_flush(&mut self, edit: &VersionEdit) -> Result<(), String> {
        let Some(flushed) = edit.flushed_sequence else { return Ok(()) };
        let old = self.flushed_sequence;
        if flushed < old {
            return Err(format!("the flushed sequence number decreases from {old} to {flushed}"));
        }
        if !edit.is_snapshot {
            for AddedTable { level, meta, .. } in &edit.added {
                if *level == 0 && (meta.smallest_sequence <= old || meta.largest_sequence > flushed) {
                    let (smallest, largest) = (meta.smallest_sequence, meta.largest_sequence);
                    return Err(format!(
                        "a flush from {old} to {flushed} adds table {} with sequence numbers {smallest} to {largest}",
                        meta.number
                    ));
                }
            }
        }
        self.flushed_sequence = flushed;
        Ok(())
    }

    /// Adds range tombstones: of several over a key the newest stays.
    pub(super) fn add_ranges(&mut self, added: &[(Family, RangeTombstone)]) -> Result<(), String> {
        let flushed = self.flushed_sequence;
        for (family, list) in by_family(added) {
            if let Some(RangeTombstone { start, end, sequence }) =
                list.iter().find(|one| one.start >= one.end || one.sequence == 0 || one.sequence > flushed)
            {
                return Err(format!("a range tombstone from {start:?} to {end:?} at {sequence} is invalid"));
            }
            let list = if are_disjoint(&list) { list } else { Run::new(list).newest_only() };
            self.change_ranges(family, |ranges| ranges.with(&list))?;
        }
        Ok(())
    }

    /// Removes what is at or below the number of a piece within it.
    pub(super) fn forget_ranges(&mut self, spent: &[(Family, RangeTombstone)]) -> Result<(), String> {
        for (family, pieces) in by_family(spent) {
            if !are_disjoint(&pieces) || pieces.iter().any(|piece| piece.start >= piece.end) {
                return Err(format!("range tombstones of {family:?} are dropped out of order"));
            }
            self.change_ranges(family, |ranges| ranges.without(&pieces))?;
        }
        Ok(())
    }

    fn change_ranges(
        &mut self,
        family: Family,
        change: impl FnOnce(&RangeTombstones) -> RangeTombstones,
    ) -> Result<(), String> {
        let levels = self.family_mut(family)?;
        levels.range_tombstones = Arc::new(change(&levels.range_tombstones));
        Ok(())
    }

    /// Sorts the levels of some families and checks what must hold of them.
    pub(super) fn put_in_order(&mut self, families: &BTreeSet<Family>) -> Result<(), String> {
        let mut seen = BTreeSet::new();
        for &family in families {
            // It may have been dropped by the same edit.
            let Some(levels) = self.families.get_mut(family).map(Arc::make_mut) else { continue };
            for (level, tables) in levels.levels.iter_mut().enumerate() {
                if level == 0 {
                    shards::newest_first(tables);
                } else {
                    tables.sort_by(|a, b| a.meta().smallest_key.cmp(&b.meta().smallest_key));
                }
                for pair in tables.windows(2) {
                    if level > 0 && pair[0].meta().largest_key >= pair[1].meta().smallest_key {
                        let (a, b) = (pair[0].meta().number, pair[1].meta().number);
                        return Err(format!("tables {a} and {b} of {family:?} overlap in level {level}"));
                    }
                }
                for table in tables {
                    let meta = table.meta();
                    if !seen.insert(meta.number) {
                        return Err(format!("table {} is there twice", meta.number));
                    }
                    if !meta.is_plausible() {
                        return Err(format!("table {} has bounds or counts that no table can have", meta.number));
                    }
                }
            }
            let depth = levels.level0_depth();
            levels.shards = shards::shards(&levels.levels[0]);
            self.level0_depths.replace(depth, levels.level0_depth());
        }
        Ok(())
    }
}

fn by_family(all: &[(Family, RangeTombstone)]) -> BTreeMap<Family, Vec<RangeTombstone>> {
    let mut lists: BTreeMap<Family, Vec<RangeTombstone>> = BTreeMap::new();
    for (family, tombstone) in all {
        lists.entry(*family).or_default().push(tombstone.clone());
    }
    lists
}

fn are_disjoint(list: &[RangeTombstone]) -> bool {
    list.windows(2).all(|pair| pair[0].end <= pair[1].start)
}
