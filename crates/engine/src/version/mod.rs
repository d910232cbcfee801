//! Versions: which tables make up the database, and the manifest that makes changes to that durable.
//!
//! A [`Version`] is immutable; [`VersionSet`] holds the current one and replaces it by applying a [`VersionEdit`]:
//! append to the manifest, sync, publish. A holder of an `Arc<Version>` pins its tables' files.
//!
//! For `db/`:
//! - [`VersionSet::open`] at start (creates or recovers); then create missing families by an edit, replay the log
//!   above [`Version::flushed_sequence`] from segment [`Version::oldest_segment`] on.
//! - `compaction::flush` applies the edit of a flush; pass it the flushed sequence number and the oldest log segment
//!   still needed. Segments may be deleted only after it returned.
//! - A job calls [`VersionSet::remove_obsolete`] regularly: files are deleted there, not in a `Drop`, so that errors
//!   are seen and tried again.
//! - A failed sync of the manifest is final: every later `apply` returns `Error::Stopped`. `NoSpace` is not.
//!
//! Invariants, checked on every apply and every recovery: no two tables of a level below L0 share a user key; a
//! removed table was there; the flushed sequence number never decreases, and a flush's tables lie wholly above the
//! old one and at or below the new one; an added table's file exists.

mod apply;
pub mod edit;
mod files;
mod fresh;
mod horizon;
mod legacy;
pub mod manifest;
mod rebuilt;
mod remains;
mod set;
mod shards;
mod spent;
mod table;
mod table_cache;
mod value_segments;

pub use crate::range::{RangeTombstone, RangeTombstones, Span};
pub(crate) use edit::TableDescription;
pub use edit::VersionEdit;
pub(crate) use fresh::{copy_edit, lost_a_segment, write_fresh};
pub use horizon::Horizon;
pub(crate) use rebuilt::Rebuilt;
pub(crate) use remains::no_database;
pub use set::{ManifestOptions, VersionSet};
pub(crate) use set::{read_version, read_version_as_it_is};
pub use shards::Shard;
pub use table::{Table, TableFacts};
pub use table_cache::{TableCache, TableCacheStats};
pub use value_segments::{ValueEdit, ValueFileState, ValueSegments};

use crate::types::{FamilyMap, LEVEL_COUNT};
use crate::{Error, Family, SequenceNumber};
use apply::Depths;
use edit::AddedTable;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The tables of one family.
#[derive(Clone, Debug)]
pub struct FamilyLevels {
    /// The family's name, for reports.
    pub name: String,
    /// `levels[0]`: newest first (by largest sequence number), key ranges overlap; deeper levels: by key, disjoint.
    pub levels: [Vec<Arc<Table>>; LEVEL_COUNT],
    /// The range tombstones that hide versions in the tables.
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

    /// Bytes of a level's files.
    pub fn level_bytes(&self, level: usize) -> u64 {
        self.levels.get(level).map_or(0, |tables| tables.iter().map(|table| table.meta().file_bytes).sum())
    }

    /// Level 0 by key range, ascending: no key is in two shards.
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// The tables of level 0 that may hold the key, newest first; some of them may not span it.
    #[inline]
    pub fn level0_for(&self, user_key: &[u8]) -> &[Arc<Table>] {
        let at = self.shards.partition_point(|shard| shard.largest_key < user_key);
        let shard = self.shards.get(at).filter(|shard| shard.smallest_key <= user_key);
        shard.map_or(&[], |shard| &shard.tables)
    }

    /// The tables of level 0 for which `wanted` is true, in as few groups of ascending, disjoint tables as the largest
    /// shard has tables: an iterator needs a source for each.
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

    /// The largest number of tables of level 0 that a read of one key searches.
    pub fn level0_depth(&self) -> usize {
        self.shards.iter().map(|shard| shard.depth).max().unwrap_or(0)
    }

    /// The table of a level below L0 that may hold the key.
    #[inline]
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
    families: FamilyMap<Arc<FamilyLevels>>,
    /// Families with range tombstones that are spent except for a transaction, with the smallest number of those.
    held_ranges: BTreeMap<Family, SequenceNumber>,
    level0_depths: Depths,
    /// Every family that was ever dropped: 4 bytes each, so that a number is never used for another family.
    dropped: FamilyMap<()>,
    flushed_sequence: SequenceNumber,
    oldest_segment: u64,
    values: ValueSegments,
}

impl Version {
    /// The families, by number.
    pub fn families(&self) -> &FamilyMap<Arc<FamilyLevels>> {
        &self.families
    }

    /// One family's levels.
    pub fn family(&self, family: Family) -> Option<&FamilyLevels> {
        self.families.get(family).map(|levels| &**levels)
    }

    /// The families that were dropped; their numbers are not used again.
    pub fn dropped_families(&self) -> &FamilyMap<()> {
        &self.dropped
    }

    /// Why a family does not exist.
    pub(crate) fn no_family(&self, family: Family) -> Error {
        if self.dropped.contains_key(family) {
            return Error::FamilyDropped { family };
        }
        Error::InvalidArgument(format!("{family:?} does not exist in this database"))
    }

    /// Every write at or below it is in tables (or superseded); the log is replayed above it. It is no bound on what
    /// tables hold: see `newest_sequence`.
    pub fn flushed_sequence(&self) -> SequenceNumber {
        self.flushed_sequence
    }

    /// The newest sequence number of all tables, 0 if there are none. It can be above [`Version::flushed_sequence`]: an
    /// ingested table is there as soon as its number is durable, and what memory holds below that number is flushed
    /// later.
    pub(crate) fn newest_sequence(&self) -> SequenceNumber {
        self.tables().map(|(_, _, table)| table.meta().largest_sequence).max().unwrap_or(0)
    }

    /// The number of the newest range tombstone at or below `at` over a key: versions below it are hidden. The reader's
    /// number `at` is not below what is flushed, so it sees all tombstones that are here. Free if there are none.
    #[cfg(test)]
    pub fn covering_sequence(&self, family: Family, user_key: &[u8], at: SequenceNumber) -> Option<SequenceNumber> {
        let covering = self.families.get(family)?.range_tombstones.covering(user_key)?;
        debug_assert!(covering <= at, "a version is read at or above what is flushed");
        Some(covering).filter(|&covering| covering <= at)
    }

    /// The largest number of tables of level 0 that a read of one key searches, of all families.
    pub fn level0_depth(&self) -> usize {
        self.level0_depths.largest()
    }

    /// How many range tombstones there are, over all families.
    #[cfg(test)]
    pub fn range_tombstone_count(&self) -> usize {
        self.families.values().map(|levels| levels.range_tombstones.len()).sum()
    }

    /// The first log segment that recovery reads; 0 if none was recorded.
    #[cfg(test)]
    pub fn oldest_segment(&self) -> u64 {
        self.oldest_segment
    }

    /// The value log.
    pub fn values(&self) -> &ValueSegments {
        &self.values
    }

    /// Every table with its family and level.
    pub fn tables(&self) -> impl Iterator<Item = (Family, usize, &Arc<Table>)> {
        self.families.iter().flat_map(|(family, levels)| {
            levels
                .levels
                .iter()
                .enumerate()
                .flat_map(move |(level, tables)| tables.iter().map(move |table| (family, level, table)))
        })
    }

    /// One edit that creates this version from nothing.
    pub(crate) fn as_edit(&self) -> VersionEdit {
        let mut edit = VersionEdit { is_snapshot: true, ..VersionEdit::default() };
        edit.created = self.families.iter().map(|(family, levels)| (family, levels.name.clone())).collect();
        edit.dropped = self.dropped.keys().collect();
        let added = |(family, level, table): (Family, usize, &Arc<Table>)| AddedTable {
            family,
            level,
            meta: table.meta().clone(),
            facts: table.facts().clone(),
        };
        edit.added = self.tables().map(added).collect();
        for (family, levels) in self.families.iter() {
            edit.added_ranges.extend(levels.range_tombstones.iter().map(|tombstone| (family, tombstone.clone())));
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
    Version::default().after(&edit, &wrap).expect("the test's tables are in order").0
}

#[cfg(test)]
#[path = "ranges_test.rs"]
mod ranges_tests;
#[cfg(test)]
#[path = "version_test.rs"]
mod tests;
