//! A whole version put together from what a repair has found.

use super::edit::AddedTable;
use super::{TableFacts, Version, VersionEdit};
use crate::table::{FileNumber, FinishedTable};
use crate::{Family, SequenceNumber};

/// See the head of this file.
pub(crate) struct Rebuilt {
    edit: VersionEdit,
}

impl Rebuilt {
    /// What `version` says, but for its tables; nothing if the manifest cannot be read.
    pub(crate) fn like(version: Option<&Version>) -> Rebuilt {
        let mut edit = version.cloned().unwrap_or_default().as_edit();
        edit.added.clear();
        edit.values.forget_refs();
        Rebuilt { edit }
    }

    /// Makes sure that a family is there; one whose name is lost gets `family-N`.
    pub(crate) fn ensure_family(&mut self, family: Family) {
        if self.edit.created.iter().all(|(there, _)| *there != family) {
            let name = if family == Family::DEFAULT { "default".to_string() } else { format!("family-{}", family.0) };
            self.edit.create_family(family, &name);
        }
    }

    /// Whether the manifest says that the family was dropped: what is left of it is not wanted.
    pub(crate) fn is_dropped(&self, family: Family) -> bool {
        self.edit.dropped.contains(&family)
    }

    /// Adds a table that is in the new directory.
    pub(crate) fn add(&mut self, level: usize, table: &FinishedTable, facts: TableFacts) {
        self.ensure_family(table.family);
        self.edit.added.push(AddedTable { family: table.family, level, meta: table.meta.clone(), facts });
        self.edit.values.add_refs(table.meta.number, &table.values);
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

    /// Takes in a value file that no manifest names.
    pub(crate) fn add_value_file(&mut self, number: u64) {
        self.edit.values.add_file(number);
    }

    /// Takes out a value file that is lost.
    pub(crate) fn lose_value_file(&mut self, number: u64) {
        self.edit.values.lose_file(number);
    }

    /// Everything at or below it is in the tables that were added, if the manifest is believed.
    pub(crate) fn flushed_sequence(&self) -> SequenceNumber {
        self.edit.flushed_sequence.unwrap_or(0)
    }

    /// The whole version, of everything up to `sequence`.
    pub(crate) fn finish(mut self, sequence: SequenceNumber, next_file: FileNumber) -> VersionEdit {
        self.ensure_family(Family::DEFAULT);
        self.edit.flushed_sequence = Some(sequence.max(self.flushed_sequence()));
        self.edit.oldest_segment = Some(0);
        self.edit.next_file = Some(next_file);
        self.edit
    }
}
