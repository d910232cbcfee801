//! Versions: which tables make up the database, and the manifest that makes changes to that durable.
//!
//! A [`Version`] is immutable; [`VersionSet`] holds the current one and replaces it by applying a [`VersionEdit`]:
//! append to the manifest, sync, publish. Whoever holds an `Arc<Version>` pins its tables' files.
//!
//! For `db/`:
//! - [`VersionSet::open`] at start (creates or recovers); then create missing families by an edit, replay the log
//!   above [`Version::flushed_sequence`] from segment [`Version::oldest_segment`] on.
//! - `compaction::flush` applies the edit of a flush; pass it the flushed sequence number and the oldest log segment
//!   still needed. Segments may go only after it returned.
//! - A job calls [`VersionSet::remove_obsolete`] now and then: files die there, not in a `Drop`, so that errors are
//!   seen and tried again.
//! - A failed sync of the manifest is final: every later `apply` answers `Error::Stopped`. `NoSpace` is not.
//!
//! Invariants, checked on every apply and every recovery: no two tables of a level below L0 share a user key; a
//! removed table was there; the flushed sequence number never goes back, and a flush's tables lie wholly above the
//! old one and at or below the new one; an added table's file exists.

pub mod edit;
mod files;
mod fresh;
pub mod manifest;
mod range_tombstones;
mod rebuilt;
mod set;
mod shards;
mod table;
mod value_segments;

pub use edit::VersionEdit;
pub(crate) use fresh::{copy_edit, lost_a_segment, write_fresh};
pub(crate) use manifest::sync_error;
pub use range_tombstones::{RangeTombstone, RangeTombstones, Span};
pub(crate) use rebuilt::Rebuilt;
pub(crate) use set::read_version;
pub use set::{ManifestOptions, VersionSet};
pub use shards::Shard;
pub use table::{Table, TableFacts};
pub use value_segments::{Sealed, ValueEdit, ValueFile, ValueFileState, ValueSegments};

use crate::table::FileNumber;
use crate::{Error, Family, SequenceNumber};
use edit::AddedTable;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Number of levels, L0 included. With a factor of 10 between levels, L6 holds petabytes.
pub const LEVEL_COUNT: usize = 7;

/// The tables of one family.
#[derive(Clone, Debug)]
pub struct FamilyLevels {
    /// The family's name, for people.
    pub name: String,
    /// `levels[0]`: newest first (by largest sequence number), key ranges overlap; deeper levels: by key, disjoint.
    pub levels: [Vec<Arc<Table>>; LEVEL_COUNT],
    /// What hides versions in the tables beside their own tombstones.
    pub range_tombstones: Arc<RangeTombstones>,
    /// `levels[0]` by key range.
    shards: Vec<Shard>,
}

impl FamilyLevels {
    fn new(name: String) -> FamilyLevels {
        FamilyLevels { name, levels: Default::default(), range_tombstones: Arc::default(), shards: Vec::new() }
    }

    /// Every table, whatever its level.
    pub fn tables(&self) -> impl Iterator<Item = &Arc<Table>> {
        self.levels.iter().flatten()
    }

    /// The tombstones that can go, because they hide nothing any more or a newer one hides the same, and because no
    /// transaction that began before them is open (it may ask whether its keys were written since). Everything older
    /// than a tombstone here is in tables: memtables are flushed in order.
    fn spent_ranges(&self, oldest_transaction: SequenceNumber) -> Vec<RangeTombstone> {
        if self.range_tombstones.is_empty() {
            return Vec::new();
        }
        let mut spent: Vec<_> = self.range_tombstones.replaced().cloned().collect();
        for tombstone in self.range_tombstones.all() {
            if tombstone.sequence <= oldest_transaction && !self.tables().any(|table| table.is_under(tombstone)) {
                spent.push(tombstone.clone());
            }
        }
        spent.sort();
        spent.dedup();
        spent
    }

    /// Bytes of a level's files.
    pub fn level_bytes(&self, level: usize) -> u64 {
        self.levels.get(level).map_or(0, |tables| tables.iter().map(|table| table.meta().file_bytes).sum())
    }

    /// Level 0 by key range, ascending: no key is in two shards.
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// The tables of level 0 that may hold the key, newest first; some of them may not span it.
    pub fn level0_for(&self, user_key: &[u8]) -> &[Arc<Table>] {
        let at = self.shards.partition_point(|shard| shard.largest_key < user_key);
        let shard = self.shards.get(at).filter(|shard| shard.smallest_key <= user_key);
        shard.map_or(&[], |shard| &shard.tables)
    }

    /// The tables of level 0 that `wanted` is true of, in as few groups of ascending, disjoint tables as the largest shard has
    /// tables: an iterator needs a source for each.
    pub fn level0_runs(&self, wanted: impl Fn(&Table) -> bool) -> Vec<Vec<Arc<Table>>> {
        let mut runs: Vec<Vec<Arc<Table>>> = Vec::new();
        for shard in &self.shards {
            for (at, table) in shard.tables.iter().filter(|table| wanted(table)).enumerate() {
                match runs.get_mut(at) {
                    Some(run) => run.push(table.clone()),
                    None => runs.push(vec![table.clone()]),
                }
            }
        }
        runs
    }

    /// The largest number of tables of level 0 that a read of one key looks into.
    pub fn level0_depth(&self) -> usize {
        self.shards.iter().map(|shard| shard.depth).max().unwrap_or(0)
    }

    /// The table of a level below L0 that may hold the key.
    pub fn table_for(&self, level: usize, user_key: &[u8]) -> Option<&Arc<Table>> {
        debug_assert!(level > 0, "tables of L0 overlap");
        let tables = self.levels.get(level)?;
        let at = tables.partition_point(|table| table.meta().largest_key < user_key);
        debug_assert!(tables.get(at).is_none_or(|table| table.meta().largest_key >= user_key));
        tables.get(at).filter(|table| table.meta().spans(user_key))
    }
}

/// An immutable state of all families' levels.
#[derive(Clone, Debug, Default)]
pub struct Version {
    families: BTreeMap<Family, FamilyLevels>,
    /// Every family that ever was dropped: 4 bytes each, so that a number never gets a second meaning.
    dropped: Arc<BTreeSet<Family>>,
    flushed_sequence: SequenceNumber,
    oldest_segment: u64,
    values: ValueSegments,
}

impl Version {
    /// The families, by number.
    pub fn families(&self) -> &BTreeMap<Family, FamilyLevels> {
        &self.families
    }

    /// One family's levels.
    pub fn family(&self, family: Family) -> Option<&FamilyLevels> {
        self.families.get(&family)
    }

    /// The families that were dropped; their numbers are not used again.
    pub fn dropped_families(&self) -> &BTreeSet<Family> {
        &self.dropped
    }

    /// Why a family is not there.
    pub(crate) fn no_family(&self, family: Family) -> Error {
        if self.dropped.contains(&family) {
            return Error::FamilyDropped { family };
        }
        Error::InvalidArgument(format!("{family:?} does not exist in this database"))
    }

    /// Every write at or below it is in tables (or superseded); the log is replayed above it.
    pub fn flushed_sequence(&self) -> SequenceNumber {
        self.flushed_sequence
    }

    /// The number of the newest range tombstone at or below `at` over a key: versions below it are hidden. The reader's
    /// number `at` is not below what is flushed, so it sees all tombstones that are here. Free if there are none.
    pub fn covering_sequence(&self, family: Family, user_key: &[u8], at: SequenceNumber) -> Option<SequenceNumber> {
        let covering = self.families.get(&family)?.range_tombstones.covering(user_key)?;
        debug_assert!(covering <= at, "a version is read at or above what is flushed");
        Some(covering).filter(|&covering| covering <= at)
    }

    /// How many range tombstones there are, over all families.
    pub fn range_tombstone_count(&self) -> usize {
        self.families.values().map(|levels| levels.range_tombstones.len()).sum()
    }

    /// The range tombstones of each family that can go. See [`FamilyLevels::spent_ranges`].
    fn spent_ranges(&self, oldest_transaction: SequenceNumber) -> Vec<(Family, RangeTombstone)> {
        let spent = |(&family, levels): (&Family, &FamilyLevels)| {
            levels
                .spent_ranges(oldest_transaction)
                .into_iter()
                .map(move |tombstone| (family, tombstone))
                .collect::<Vec<_>>()
        };
        self.families.iter().flat_map(spent).collect()
    }

    /// The first log segment that recovery reads; 0 if none was recorded.
    pub fn oldest_segment(&self) -> u64 {
        self.oldest_segment
    }

    /// The value log.
    pub fn values(&self) -> &ValueSegments {
        &self.values
    }

    /// Every table with its family and level.
    pub fn tables(&self) -> impl Iterator<Item = (Family, usize, &Arc<Table>)> {
        self.families.iter().flat_map(|(&family, levels)| {
            levels
                .levels
                .iter()
                .enumerate()
                .flat_map(move |(level, tables)| tables.iter().map(move |table| (family, level, table)))
        })
    }

    /// The version after `edit`, or what is wrong with the edit.
    fn after(&self, edit: &VersionEdit, wrap: &dyn Fn(&AddedTable) -> Arc<Table>) -> Result<Version, String> {
        let mut next = self.clone();
        let mut removed: BTreeMap<FileNumber, Arc<Table>> = BTreeMap::new();
        next.change_families(edit, &mut removed)?;
        let dropped_tables = removed.len();
        for &(family, level, number) in &edit.removed {
            let tables = next.level_mut(family, level)?;
            let at = tables.iter().position(|table| table.meta().number == number);
            let at = at.ok_or_else(|| format!("table {number} is removed from level {level}, but is not there"))?;
            removed.insert(number, tables.remove(at));
        }
        for added in &edit.added {
            let table = removed.remove(&added.meta.number).unwrap_or_else(|| wrap(added));
            if table.family() != added.family || *table.meta() != added.meta || *table.facts() != added.facts {
                return Err(format!("table {} changes while it moves", added.meta.number));
            }
            next.level_mut(added.family, added.level)?.push(table);
        }
        next.note_flush(self, edit)?;
        next.change_ranges(edit)?;
        next.oldest_segment = edit.oldest_segment.unwrap_or(next.oldest_segment);
        if next.oldest_segment < self.oldest_segment {
            return Err(format!("the oldest segment goes back from {}", self.oldest_segment));
        }
        next.put_in_order()?;
        next.values.apply(&edit.values, &mut removed.keys().copied())?;
        debug_assert!(next.flushed_sequence >= self.flushed_sequence && next.oldest_segment >= self.oldest_segment);
        debug_assert_eq!(
            next.tables().count() + edit.removed.len() + dropped_tables,
            self.tables().count() + edit.added.len(),
            "no table is lost or made up"
        );
        Ok(next)
    }

    /// Creates and drops families; the tables of those that go are put with the removed ones.
    fn change_families(
        &mut self,
        edit: &VersionEdit,
        removed: &mut BTreeMap<FileNumber, Arc<Table>>,
    ) -> Result<(), String> {
        for (family, name) in &edit.created {
            if self.dropped.contains(family) {
                return Err(format!("{family:?} is created, and had been dropped"));
            }
            let old = self.families.insert(*family, FamilyLevels::new(name.clone()));
            if old.is_some() {
                return Err(format!("{family:?} is created twice"));
            }
        }
        for family in &edit.dropped {
            match self.families.remove(family) {
                Some(levels) => removed.extend(levels.tables().map(|table| (table.meta().number, table.clone()))),
                // A whole version only remembers that they were.
                None if edit.is_snapshot => {}
                None => return Err(format!("{family:?} is dropped, but is not there")),
            }
        }
        if !edit.dropped.is_empty() {
            let all = self.dropped.iter().chain(&edit.dropped).copied().collect();
            self.dropped = Arc::new(all);
        }
        Ok(())
    }

    fn level_mut(&mut self, family: Family, level: usize) -> Result<&mut Vec<Arc<Table>>, String> {
        let levels = self.families.get_mut(&family).ok_or_else(|| format!("{family:?} does not exist"))?;
        levels.levels.get_mut(level).ok_or_else(|| format!("level {level} does not exist"))
    }

    fn note_flush(&mut self, before: &Version, edit: &VersionEdit) -> Result<(), String> {
        let Some(flushed) = edit.flushed_sequence else { return Ok(()) };
        let old = before.flushed_sequence;
        if flushed < old {
            return Err(format!("the flushed sequence number goes back from {old} to {flushed}"));
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

    fn change_ranges(&mut self, edit: &VersionEdit) -> Result<(), String> {
        let mut changed: BTreeMap<Family, Vec<RangeTombstone>> = BTreeMap::new();
        for (family, _) in edit.added_ranges.iter().chain(&edit.removed_ranges) {
            let levels = self.families.get(family).ok_or_else(|| format!("{family:?} does not exist"))?;
            changed.entry(*family).or_insert_with(|| levels.range_tombstones.all().to_vec());
        }
        for (family, tombstone) in &edit.added_ranges {
            let RangeTombstone { start, end, sequence } = tombstone;
            if start >= end || *sequence == 0 || *sequence > self.flushed_sequence {
                return Err(format!("a range tombstone from {start:?} to {end:?} at {sequence} cannot be"));
            }
            changed.get_mut(family).expect("entered above").push(tombstone.clone());
        }
        for (family, tombstone) in &edit.removed_ranges {
            let list = changed.get_mut(family).expect("entered above");
            let at = list.iter().position(|there| there == tombstone);
            list.remove(at.ok_or_else(|| format!("range tombstone {tombstone:?} is removed, but is not there"))?);
        }
        for (family, list) in changed {
            let levels = self.families.get_mut(&family).expect("found above");
            levels.range_tombstones = Arc::new(RangeTombstones::new(list));
        }
        Ok(())
    }

    /// Sorts each level and checks what must hold of it.
    fn put_in_order(&mut self) -> Result<(), String> {
        let mut seen = std::collections::BTreeSet::new();
        for (family, levels) in &mut self.families {
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
            levels.shards = shards::shards(&levels.levels[0]);
        }
        Ok(())
    }

    /// One edit that makes this version out of nothing.
    pub(crate) fn as_edit(&self) -> VersionEdit {
        let mut edit = VersionEdit { is_snapshot: true, ..VersionEdit::default() };
        edit.created = self.families.iter().map(|(&family, levels)| (family, levels.name.clone())).collect();
        edit.dropped = self.dropped.iter().copied().collect();
        let added = |(family, level, table): (Family, usize, &Arc<Table>)| AddedTable {
            family,
            level,
            meta: table.meta().clone(),
            facts: table.facts().clone(),
        };
        edit.added = self.tables().map(added).collect();
        for (&family, levels) in &self.families {
            edit.added_ranges.extend(levels.range_tombstones.all().iter().map(|tombstone| (family, tombstone.clone())));
        }
        edit.flushed_sequence = Some(self.flushed_sequence);
        edit.oldest_segment = Some(self.oldest_segment);
        edit.values = self.values.as_edit();
        edit
    }
}

/// A version with these tables, whose files need not exist.
#[cfg(test)]
pub(crate) fn version_of(tables: Vec<(Family, usize, crate::table::TableMeta)>) -> Version {
    let families: std::collections::BTreeSet<Family> = tables.iter().map(|(family, _, _)| *family).collect();
    let mut edit = VersionEdit::default();
    for (family, level, meta) in tables {
        edit.added.push(AddedTable { family, level, meta, facts: TableFacts::default() });
    }
    edit.created = families.into_iter().map(|family| (family, format!("{family:?}"))).collect();
    let obsolete = Arc::new(files::ObsoleteFiles::default());
    let wrap = |added: &AddedTable| Arc::new(added.wrap(&obsolete));
    Version::default().after(&edit, &wrap).expect("the test's tables are in order")
}

#[cfg(test)]
#[path = "version_test.rs"]
mod tests;
