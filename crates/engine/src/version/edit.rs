//! Version edits: one atomic change of the set of tables, and its encoding as a manifest record's payload.
//!
//! Encoding: fields, each a tag (1 byte) and its content, numbers as varints, byte strings with a varint length:
//!
//! | tag | field | content |
//! |---|---|---|
//! | 1 | create family | family, name (UTF-8) |
//! | 2 | add table | family, level, number, file bytes, smallest key, largest key, smallest sequence, largest sequence, entries, tombstones, global sequence or 0, ranges applied through, created at (ms), first expires at (ms), half expired at (ms) |
//! | 3 | remove table | family, level, number |
//! | 4 | flushed sequence | sequence number |
//! | 5 | oldest segment | segment number |
//! | 6 | next file | number |
//! | 7 | snapshot | nothing: the edit is a whole version, and first in its manifest |
//! | 8 | add range tombstone | family, start key, end key, sequence number |
//! | 9 | remove range tombstone | family, start key, end key, sequence number; written by older builds only, see `legacy.rs` |
//! | 10 | drop family | family; with all its tables and range tombstones |
//! | 11 | forget range tombstones | family, start key, end key, sequence number: within the range, what is at or below the number |
//! | 20 to 24 | values | see `value_segments.rs` |
//!
//! Additions are applied before removals of range tombstones, removals before additions of tables; a table in both
//! moves. Of several range tombstones over a key only the newest is kept.
//! A whole version names every family that was ever dropped, so that no number is used twice.

use super::files::ObsoleteFiles;
use super::{RangeTombstone, Table, TableFacts, ValueEdit};
use crate::table::{FileNumber, FinishedTable, TableMeta};
use crate::types::{FamilyMap, LEVEL_COUNT, SEQUENCE_NUMBER_MAX};
use crate::{Family, SequenceNumber};
use bytes::Bytes;
use kontiki_env::codec::{Truncated, get_slice, get_u8, get_varint, put_slice, put_varint};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const TAG_CREATE_FAMILY: u8 = 1;
const TAG_ADD_TABLE: u8 = 2;
const TAG_REMOVE_TABLE: u8 = 3;
const TAG_FLUSHED_SEQUENCE: u8 = 4;
const TAG_OLDEST_SEGMENT: u8 = 5;
const TAG_NEXT_FILE: u8 = 6;
const TAG_SNAPSHOT: u8 = 7;
const TAG_ADD_RANGE_TOMBSTONE: u8 = 8;
const TAG_REMOVE_RANGE_TOMBSTONE: u8 = 9;
const TAG_DROP_FAMILY: u8 = 10;
const TAG_FORGET_RANGE_TOMBSTONES: u8 = 11;

/// A table that an edit adds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AddedTable {
    pub(super) family: Family,
    pub(super) level: usize,
    pub(super) meta: TableMeta,
    pub(super) facts: TableFacts,
}

impl AddedTable {
    fn description(&self) -> TableDescription<'_> {
        TableDescription { family: self.family, meta: &self.meta, facts: &self.facts }
    }

    pub(super) fn wrap(&self, obsolete: &Arc<ObsoleteFiles>) -> Table {
        Table::new(self.family, self.meta.clone(), self.facts.clone(), obsolete.clone())
    }
}

/// The properties of a table in a version, whatever its level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TableDescription<'a> {
    pub(crate) family: Family,
    pub(crate) meta: &'a TableMeta,
    pub(crate) facts: &'a TableFacts,
}

/// A change of the version. Built by the methods below, so that it can name only finished (synced) tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VersionEdit {
    pub(super) created: Vec<(Family, String)>,
    pub(super) dropped: Vec<Family>,
    pub(super) added: Vec<AddedTable>,
    pub(super) removed: Vec<(Family, usize, FileNumber)>,
    pub(super) added_ranges: Vec<(Family, RangeTombstone)>,
    /// Of older builds.
    pub(super) removed_ranges: Vec<(Family, RangeTombstone)>,
    /// Of a family ascending and disjoint.
    pub(super) spent_ranges: Vec<(Family, RangeTombstone)>,
    pub(super) flushed_sequence: Option<SequenceNumber>,
    pub(super) oldest_segment: Option<u64>,
    pub(super) next_file: Option<FileNumber>,
    pub(super) is_snapshot: bool,
    pub(super) values: ValueEdit,
}

impl VersionEdit {
    /// An edit that changes nothing.
    pub fn new() -> VersionEdit {
        VersionEdit::default()
    }

    /// Creates a family.
    pub fn create_family(&mut self, family: Family, name: &str) {
        debug_assert!(self.created.iter().all(|(other, _)| *other != family), "{family:?} is created once");
        self.created.push((family, name.to_string()));
    }

    /// Drops a family with everything in it. Its number is never used again.
    pub fn drop_family(&mut self, family: Family) {
        assert!(self.dropped.iter().all(|other| *other != family), "{family:?} is dropped once");
        self.dropped.push(family);
    }

    /// Removes what concerns families that were dropped while the edit was prepared; returns the new tables among it,
    /// whose files nothing will refer to. Its changes of the value log stay: files are shared by families.
    pub(super) fn without_families(&mut self, dropped: &FamilyMap<()>) -> Vec<FileNumber> {
        let about = |family: &Family| dropped.contains_key(*family);
        let moved: BTreeSet<FileNumber> = self.removed.iter().map(|(_, _, number)| *number).collect();
        let gone = self.added.iter().filter(|added| about(&added.family)).map(|added| added.meta.number);
        let gone: BTreeSet<FileNumber> = gone.collect();
        self.added.retain(|added| !about(&added.family));
        self.removed.retain(|(family, _, _)| !about(family));
        self.added_ranges.retain(|(family, _)| !about(family));
        debug_assert!(
            self.removed_ranges.is_empty() && self.spent_ranges.is_empty(),
            "they are found when it is applied"
        );
        self.values.refs.retain(|(table, _)| !gone.contains(table));
        gone.difference(&moved).copied().collect()
    }

    /// Removes families from a whole version, as if they had never existed.
    pub(crate) fn leave_out(&mut self, families: &[Family]) {
        assert!(self.is_snapshot, "a version that stays unchanged needs nothing of them");
        self.created.retain(|(family, _)| !families.contains(family));
        self.without_families(&families.iter().map(|family| (*family, ())).collect());
    }

    /// Adds a written table. Its directory must have been synced (`table::sync_tables_dir`).
    pub fn add_table(&mut self, level: usize, table: &FinishedTable, facts: TableFacts) {
        assert!(level < LEVEL_COUNT && table.meta.is_plausible(), "table {} was written", table.meta.number);
        self.added.push(AddedTable { family: table.family, level, meta: table.meta.clone(), facts });
        self.values.add_refs(table.meta.number, &table.values);
    }

    /// Its changes of the value log.
    pub(crate) fn values_mut(&mut self) -> &mut ValueEdit {
        &mut self.values
    }

    /// Adds a range tombstone, in the same edit as the tables of the memtable that it comes from.
    pub fn add_range_tombstone(&mut self, family: Family, tombstone: RangeTombstone) {
        assert!(tombstone.start < tombstone.end && tombstone.sequence > 0, "an empty range deletes nothing");
        self.added_ranges.push((family, tombstone));
    }

    /// Removes a table; its file is deleted when nothing refers to it.
    pub fn remove_table(&mut self, level: usize, table: &Table) {
        let number = table.meta().number;
        debug_assert!(self.removed.iter().all(|(_, _, other)| *other != number), "table {number} is removed once");
        self.removed.push((table.family(), level, number));
    }

    /// Moves a table to another level without touching its file.
    pub fn move_table(&mut self, from: usize, to: usize, table: &Arc<Table>) {
        assert!(from != to && to < LEVEL_COUNT, "a move changes the level");
        self.remove_table(from, table);
        let (meta, facts) = (table.meta().clone(), table.facts().clone());
        self.added.push(AddedTable { family: table.family(), level: to, meta, facts });
    }

    /// Sets that every write at or below `sequence` is in tables.
    pub fn set_flushed_sequence(&mut self, sequence: SequenceNumber) {
        assert!(sequence < SEQUENCE_NUMBER_MAX);
        self.flushed_sequence = Some(sequence);
    }

    /// Sets that recovery need not read log segments before `segment`.
    pub fn set_oldest_segment(&mut self, segment: u64) {
        self.oldest_segment = Some(segment);
    }

    /// Number and bytes of the tables that it adds.
    pub(crate) fn tables(&self) -> impl Iterator<Item = (FileNumber, u64)> {
        self.added.iter().map(|added| (added.meta.number, added.meta.file_bytes))
    }

    /// What it records of the values of the tables that it adds, by number.
    pub(crate) fn described_tables(&self) -> BTreeMap<FileNumber, TableDescription<'_>> {
        self.added.iter().map(|added| (added.meta.number, added.description())).collect()
    }

    /// Number and bytes of the value files that it seals.
    pub(crate) fn value_files(&self) -> impl Iterator<Item = (u64, u64)> {
        self.values.sealed()
    }

    /// Whether it is a whole version.
    pub(crate) fn is_whole(&self) -> bool {
        self.is_snapshot
    }

    /// Whether it is a whole version with the number of the next file, as the manifest of a copy must be.
    pub(crate) fn is_whole_copy(&self) -> bool {
        self.is_snapshot && self.next_file.is_some()
    }

    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        *self == VersionEdit::default()
    }

    /// The record's payload.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        if self.is_snapshot {
            out.push(TAG_SNAPSHOT);
        }
        for (family, name) in &self.created {
            out.push(TAG_CREATE_FAMILY);
            put_varint(&mut out, u64::from(family.0));
            put_slice(&mut out, name.as_bytes());
        }
        for family in &self.dropped {
            out.push(TAG_DROP_FAMILY);
            put_varint(&mut out, u64::from(family.0));
        }
        for &(family, level, number) in &self.removed {
            out.push(TAG_REMOVE_TABLE);
            for value in [u64::from(family.0), level as u64, number] {
                put_varint(&mut out, value);
            }
        }
        for AddedTable { family, level, meta, facts } in &self.added {
            out.push(TAG_ADD_TABLE);
            for value in [u64::from(family.0), *level as u64, meta.number, meta.file_bytes] {
                put_varint(&mut out, value);
            }
            put_slice(&mut out, &meta.smallest_key);
            put_slice(&mut out, &meta.largest_key);
            for value in [
                meta.smallest_sequence,
                meta.largest_sequence,
                meta.entries,
                meta.tombstones,
                meta.global_sequence.unwrap_or(0),
            ] {
                put_varint(&mut out, value);
            }
            for value in
                [facts.ranges_applied, facts.created_at_ms, facts.first_expires_at_ms, facts.half_expired_at_ms]
            {
                put_varint(&mut out, value);
            }
        }
        for (tag, ranges) in [
            (TAG_ADD_RANGE_TOMBSTONE, &self.added_ranges),
            (TAG_REMOVE_RANGE_TOMBSTONE, &self.removed_ranges),
            (TAG_FORGET_RANGE_TOMBSTONES, &self.spent_ranges),
        ] {
            for (family, range) in ranges {
                out.push(tag);
                put_varint(&mut out, u64::from(family.0));
                put_slice(&mut out, &range.start);
                put_slice(&mut out, &range.end);
                put_varint(&mut out, range.sequence);
            }
        }
        let numbers = [
            (TAG_FLUSHED_SEQUENCE, self.flushed_sequence),
            (TAG_OLDEST_SEGMENT, self.oldest_segment),
            (TAG_NEXT_FILE, self.next_file),
        ];
        for (tag, value) in numbers {
            if let Some(value) = value {
                out.push(tag);
                put_varint(&mut out, value);
            }
        }
        self.values.encode(&mut out);
        out
    }

    /// Takes what [`VersionEdit::encode`] wrote; an unknown tag is an error.
    pub fn decode(mut input: &[u8]) -> Result<VersionEdit, Truncated> {
        let input = &mut input;
        let mut edit = VersionEdit::default();
        while !input.is_empty() {
            match get_u8(input)? {
                TAG_SNAPSHOT => edit.is_snapshot = true,
                TAG_CREATE_FAMILY => {
                    let family = get_family(input)?;
                    let name = std::str::from_utf8(get_slice(input)?).map_err(|_| Truncated)?;
                    edit.created.push((family, name.to_string()));
                }
                TAG_DROP_FAMILY => edit.dropped.push(get_family(input)?),
                TAG_ADD_TABLE => {
                    let family = get_family(input)?;
                    let level = get_level(input)?;
                    let (meta, facts) = (get_meta(input)?, get_facts(input)?);
                    edit.added.push(AddedTable { family, level, meta, facts });
                }
                TAG_REMOVE_TABLE => {
                    edit.removed.push((get_family(input)?, get_level(input)?, get_varint(input)?));
                }
                TAG_ADD_RANGE_TOMBSTONE => edit.added_ranges.push((get_family(input)?, get_range(input)?)),
                TAG_REMOVE_RANGE_TOMBSTONE => edit.removed_ranges.push((get_family(input)?, get_range(input)?)),
                TAG_FORGET_RANGE_TOMBSTONES => edit.spent_ranges.push((get_family(input)?, get_range(input)?)),
                TAG_FLUSHED_SEQUENCE => edit.flushed_sequence = Some(get_varint(input)?),
                TAG_OLDEST_SEGMENT => edit.oldest_segment = Some(get_varint(input)?),
                TAG_NEXT_FILE => edit.next_file = Some(get_varint(input)?),
                tag => edit.values.decode_field(tag, input)?,
            }
        }
        Ok(edit)
    }
}

fn get_family(input: &mut &[u8]) -> Result<Family, Truncated> {
    Ok(Family(u32::try_from(get_varint(input)?).map_err(|_| Truncated)?))
}

fn get_level(input: &mut &[u8]) -> Result<usize, Truncated> {
    usize::try_from(get_varint(input)?).map_err(|_| Truncated)
}

fn get_meta(input: &mut &[u8]) -> Result<TableMeta, Truncated> {
    Ok(TableMeta {
        number: get_varint(input)?,
        file_bytes: get_varint(input)?,
        smallest_key: Bytes::copy_from_slice(get_slice(input)?),
        largest_key: Bytes::copy_from_slice(get_slice(input)?),
        smallest_sequence: get_varint(input)?,
        largest_sequence: get_varint(input)?,
        entries: get_varint(input)?,
        tombstones: get_varint(input)?,
        // 0 is before every write, so it stands for none.
        global_sequence: Some(get_varint(input)?).filter(|global| *global > 0),
    })
}

fn get_facts(input: &mut &[u8]) -> Result<TableFacts, Truncated> {
    Ok(TableFacts {
        ranges_applied: get_varint(input)?,
        created_at_ms: get_varint(input)?,
        first_expires_at_ms: get_varint(input)?,
        half_expired_at_ms: get_varint(input)?,
    })
}

fn get_range(input: &mut &[u8]) -> Result<RangeTombstone, Truncated> {
    let start = Bytes::copy_from_slice(get_slice(input)?);
    let end = Bytes::copy_from_slice(get_slice(input)?);
    Ok(RangeTombstone { start, end, sequence: get_varint(input)? })
}
