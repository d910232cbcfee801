//! A whole version built from what a repair has found.

use super::edit::AddedTable;
use super::files::ObsoleteFiles;
use super::{TableFacts, ValueSegments, Version, VersionEdit};
use crate::table::{FileNumber, FinishedTable};
use crate::vlog::ValueStore;
use crate::{Error, Family, Result, SequenceNumber};
use std::sync::Arc;

/// See the head of this file.
pub(crate) struct Rebuilt {
    edit: VersionEdit,
    /// Families whose names are lost.
    invented: Vec<Family>,
}

impl Rebuilt {
    /// The content of `version`, except its tables; nothing if the manifest cannot be read.
    pub(crate) fn like(version: Option<&Version>) -> Rebuilt {
        let mut edit = version.cloned().unwrap_or_default().as_edit();
        edit.added.clear();
        edit.values.forget_refs();
        Rebuilt { edit, invented: Vec::new() }
    }

    /// Makes sure that a family is there; one whose name is lost, and does not follow from its number, gets `family-N`.
    pub(crate) fn ensure_family(&mut self, family: Family) {
        if self.edit.created.iter().any(|(there, _)| *there == family) {
            return;
        }
        match family.fixed_name() {
            Some(name) => self.edit.create_family(family, name),
            None => {
                self.invented.push(family);
                self.edit.create_family(family, &format!("family-{}", family.0));
            }
        }
    }

    /// The families whose names are lost, with those that they have now.
    pub(crate) fn invented_names(&self) -> Vec<(Family, String)> {
        let invented = self.edit.created.iter().filter(|(family, _)| self.invented.contains(family));
        invented.cloned().collect()
    }

    /// Whether one of these families is there.
    pub(crate) fn has_any_of(&self, families: &[Family]) -> bool {
        self.edit.created.iter().any(|(family, _)| families.contains(family))
    }

    /// Removes families with all that was added to them.
    pub(crate) fn leave_out(&mut self, families: &[Family]) {
        let stays = |family: &Family| !families.contains(family);
        self.edit.created.retain(|(family, _)| stays(family));
        self.edit.dropped.retain(stays);
        self.edit.added_ranges.retain(|(family, _)| stays(family));
        assert!(self.edit.added.iter().all(|added| stays(&added.family)), "none of their tables was copied");
    }

    /// What it describes so far, of everything up to `sequence`, with value files in `store`.
    pub(crate) fn version(&self, sequence: SequenceNumber, store: Arc<ValueStore>) -> Result<Version> {
        let edit = VersionEdit { flushed_sequence: self.through(sequence), ..self.edit.clone() };
        let obsolete: Arc<ObsoleteFiles> = Arc::default();
        let wrap = |added: &AddedTable| Arc::new(added.wrap(&obsolete));
        let empty = Version { values: ValueSegments::default().located_in(store), ..Version::default() };
        empty.after(&edit, &wrap).map(|(version, _)| version).map_err(Error::Bug)
    }

    /// Whether the family was dropped according to the manifest: what is left of it is not copied.
    pub(crate) fn is_dropped(&self, family: Family) -> bool {
        self.edit.dropped.contains(&family)
    }

    /// Adds a table that is in the new directory.
    pub(crate) fn add(&mut self, level: usize, table: &FinishedTable, facts: TableFacts) {
        self.ensure_family(table.family);
        self.edit.added.push(AddedTable { family: table.family, level, meta: table.meta.clone(), facts });
        self.edit.values.add_refs(table.meta.number, &table.values);
    }

    /// Removes a table again.
    pub(crate) fn remove(&mut self, table: FileNumber) {
        self.edit.added.retain(|added| added.meta.number != table);
        self.edit.values.remove_refs(table);
    }

    /// Adds a range tombstone of the log.
    pub(crate) fn add_range_tombstone(&mut self, family: Family, tombstone: super::RangeTombstone) {
        self.ensure_family(family);
        self.edit.add_range_tombstone(family, tombstone);
    }

    /// The value files that it names, and whether each is sealed.
    pub(crate) fn value_files(&self) -> Vec<(u64, bool)> {
        self.edit.values.files()
    }

    /// Adds a value file that no manifest names.
    pub(crate) fn add_value_file(&mut self, number: u64) {
        self.edit.values.add_file(number);
    }

    /// Whether a segment's values are in another file.
    pub(crate) fn is_relocated(&self, segment: u64) -> bool {
        self.edit.values.is_relocated(segment)
    }

    /// Adds a file of relocated values that no manifest names, for those of its segments that are nowhere else.
    pub(crate) fn add_relocated_file(&mut self, number: u64, segments: &[u64], bytes: u64, record_bytes: u64) {
        let there: Vec<u64> = self.value_files().into_iter().map(|(number, _)| number).collect();
        let wanted = |segment: &&u64| !there.contains(segment) && !self.is_relocated(**segment);
        let wanted: Vec<u64> = segments.iter().filter(wanted).copied().collect();
        if wanted.is_empty() {
            return;
        }
        self.edit.values.add_file(number);
        self.edit.values.seal_file(number, bytes, record_bytes);
        wanted.into_iter().for_each(|segment| self.edit.values.relocate(segment, number));
    }

    /// Removes a value file that is lost.
    pub(crate) fn lose_value_file(&mut self, number: u64) {
        self.edit.values.lose_file(number);
    }

    /// Everything at or below it is in the tables that were added, according to the manifest.
    pub(crate) fn flushed_sequence(&self) -> SequenceNumber {
        self.edit.flushed_sequence.unwrap_or(0)
    }

    /// The whole version, of everything up to `sequence`.
    pub(crate) fn finish(&mut self, sequence: SequenceNumber, next_file: FileNumber) -> VersionEdit {
        self.ensure_family(Family::DEFAULT);
        let flushed_sequence = self.through(sequence);
        let next_file = Some(next_file);
        VersionEdit { flushed_sequence, oldest_segment: Some(0), next_file, ..self.edit.clone() }
    }

    fn through(&self, sequence: SequenceNumber) -> Option<SequenceNumber> {
        Some(sequence.max(self.flushed_sequence()))
    }

    /// The whole version of what is in tables; the log is copied separately.
    pub(crate) fn finish_with_log(&self, next_file: FileNumber) -> VersionEdit {
        VersionEdit { next_file: Some(next_file), ..self.edit.clone() }
    }
}
