//! Which range tombstones can be dropped with an edit.
//!
//! One can be dropped when no table under it holds anything older that has not been merged under it yet, and when no
//! transaction that began before it is open (it may check whether its keys were written since). Everything older than a
//! tombstone here is in tables: memtables are flushed in order. So it can become spent in four ways only: it is added,
//! and there is nothing under it; a newer one takes the part of it that something is under; a table that was under it
//! is removed; a transaction ends. Each edit therefore checks what it has added and what touches that, what lies
//! over the tables that it has removed, and, where a transaction held something back and has ended, all ranges. Chunks
//! of the list without a number that the removed table could have been under are passed over.

use super::{FamilyLevels, RangeTombstone, Table, Version, VersionEdit};
use crate::range::work;
use crate::{Family, SequenceNumber};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;

/// If an edit adds at least one of so many ranges that are there, a walk along all of them costs less than a search for
/// each.
const WALK_SHARE: usize = 8;

/// A part of a family's key range, and the numbers of the tombstones in it that may be spent now.
#[derive(Debug)]
struct Area {
    smallest: Bytes,
    /// Included; `None`: to the last key.
    largest: Option<Bytes>,
    /// Only those above it.
    lower_bound: SequenceNumber,
}

impl FamilyLevels {
    /// Whether any range tombstone hides something in the table that may still exist.
    pub fn is_under_any(&self, table: &Table) -> bool {
        let (smallest, largest) = (&table.meta().smallest_key, &table.meta().largest_key);
        self.range_tombstones.above(smallest, Some(largest), lower_bound_of(table)).next().is_some()
    }
}

/// The number that a tombstone over the table must have more than to hide anything in it: see [`Table::is_under`].
fn lower_bound_of(table: &Table) -> SequenceNumber {
    table.facts().ranges_applied.max(table.meta().smallest_sequence)
}

impl Version {
    /// What can be dropped after `edit`, which has removed these tables: pieces of the key range with the number up to
    /// which every tombstone in them is spent; of a family ascending and disjoint. Records what transactions hold back.
    pub(super) fn spent_ranges(
        &mut self,
        edit: &VersionEdit,
        removed: &[Arc<Table>],
        oldest_transaction: SequenceNumber,
    ) -> Vec<(Family, RangeTombstone)> {
        let mut spent = Vec::new();
        for (family, mut areas) in self.areas(edit, removed, oldest_transaction) {
            let Some(levels) = self.families.get(family) else { continue };
            areas.sort_by(|a, b| a.smallest.cmp(&b.smallest));
            let (pieces, held_from) = spent_of(levels, &joined(areas), oldest_transaction);
            spent.extend(pieces.into_iter().map(|piece| (family, piece)));
            if let Some(held_from) = held_from {
                let held = self.held_ranges.entry(family).or_insert(held_from);
                *held = held_from.min(*held);
            }
        }
        spent
    }

    /// Makes the next edit check all range tombstones.
    pub(super) fn look_at_all_ranges(&mut self) {
        let some = self.families.iter().filter(|(_, levels)| !levels.range_tombstones.is_empty());
        self.held_ranges = some.map(|(family, _)| (family, 0)).collect();
    }

    /// Where to search.
    fn areas(
        &mut self,
        edit: &VersionEdit,
        removed: &[Arc<Table>],
        oldest_transaction: SequenceNumber,
    ) -> BTreeMap<Family, Vec<Area>> {
        let mut areas: BTreeMap<Family, Vec<Area>> = BTreeMap::new();
        for table in removed {
            let (smallest, largest) = (table.meta().smallest_key.clone(), Some(table.meta().largest_key.clone()));
            let area = Area { smallest, largest, lower_bound: lower_bound_of(table) };
            areas.entry(table.family()).or_default().push(area);
        }
        let mut added: BTreeMap<Family, Vec<&RangeTombstone>> = BTreeMap::new();
        edit.added_ranges.iter().for_each(|(family, range)| added.entry(*family).or_default().push(range));
        for (family, added) in added {
            let there = self.families.get(family).map_or(0, |levels| levels.range_tombstones.len());
            let areas = areas.entry(family).or_default();
            let new = |first: &RangeTombstone, last: &RangeTombstone| Area {
                smallest: first.start.clone(),
                largest: Some(last.end.clone()),
                lower_bound: 0,
            };
            match (added.first(), added.last()) {
                // A walk along all of them is shorter than a search for each.
                (Some(first), Some(last)) if added.len() * WALK_SHARE >= there && first.start < last.end => {
                    areas.push(new(first, last));
                }
                _ => areas.extend(added.iter().map(|range| new(range, range))),
            }
        }
        self.held_ranges.retain(|family, held_from| {
            let free = *held_from <= oldest_transaction;
            if free {
                areas.entry(*family).or_default().push(Area { smallest: Bytes::new(), largest: None, lower_bound: 0 });
            }
            !free
        });
        areas
    }
}

/// Without overlaps.
fn joined(areas: Vec<Area>) -> Vec<Area> {
    let mut result: Vec<Area> = Vec::with_capacity(areas.len());
    for area in areas {
        match result.last_mut() {
            Some(last) if last.largest.as_ref().is_none_or(|largest| *largest >= area.smallest) => {
                last.lower_bound = last.lower_bound.min(area.lower_bound);
                last.largest = match (last.largest.take(), area.largest) {
                    (Some(a), Some(b)) => Some(a.max(b)),
                    _ => None,
                };
            }
            _ => result.push(area),
        }
    }
    result
}

/// The spent pieces in some areas, and the smallest number that a transaction holds back.
fn spent_of(
    levels: &FamilyLevels,
    areas: &[Area],
    oldest_transaction: SequenceNumber,
) -> (Vec<RangeTombstone>, Option<SequenceNumber>) {
    let mut under = Under::new(levels);
    let mut spent: Vec<RangeTombstone> = Vec::new();
    let mut held_from: Option<SequenceNumber> = None;
    // How many ranges come before the one behind the last that was checked, and whether that one is spent.
    let (mut next, mut joins) = (0, false);
    for Area { smallest, largest, lower_bound } in areas {
        for (ordinal, range) in levels.range_tombstones.touching(smallest, largest.as_deref(), *lower_bound) {
            if ordinal < next {
                continue; // It reaches from one area into the next.
            }
            joins &= ordinal == next;
            next = ordinal + 1;
            let is_held = range.sequence > oldest_transaction;
            if under.any(range) {
                joins = false;
            } else if is_held {
                joins = false;
                held_from = Some(held_from.map_or(range.sequence, |held| held.min(range.sequence)));
            } else if let Some(last) = spent.last_mut().filter(|_| joins) {
                last.end = range.end.clone();
                last.sequence = last.sequence.max(range.sequence);
            } else {
                spent.push(range.clone());
                joins = true;
            }
        }
    }
    (spent, held_from)
}

/// Reports which ranges have tables under them, of ranges in ascending order: a walk along all levels.
struct Under<'a> {
    levels: &'a FamilyLevels,
    /// The first table of each level below 0 that ends at or behind the last range queried.
    deeper: Vec<&'a [Arc<Table>]>,
    /// The same, of the shards of level 0.
    shards: usize,
}

impl<'a> Under<'a> {
    fn new(levels: &'a FamilyLevels) -> Under<'a> {
        Under { levels, deeper: levels.levels.iter().skip(1).map(Vec::as_slice).collect(), shards: 0 }
    }

    fn any(&mut self, range: &RangeTombstone) -> bool {
        let shards = self.levels.shards();
        while shards.get(self.shards).is_some_and(|shard| shard.largest_key < range.start) {
            self.shards += 1;
        }
        let mut shards = shards.iter().skip(self.shards).take_while(|shard| shard.smallest_key < range.end);
        let is_under = |table: &Arc<Table>| {
            work::note(1);
            table.is_under(range)
        };
        shards.any(|shard| shard.tables.iter().any(is_under))
            || self.deeper.iter_mut().any(|tables| {
                while let Some((_, behind)) =
                    tables.split_first().filter(|(table, _)| table.meta().largest_key < range.start)
                {
                    *tables = behind;
                }
                tables.iter().take_while(|table| table.meta().smallest_key < range.end).any(is_under)
            })
    }
}
