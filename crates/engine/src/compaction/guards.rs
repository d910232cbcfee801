//! Where a flush cuts its tables, so that level 0 is divided into shards: at user keys that split a family's data
//! evenly.

use super::CompactionContext;
use crate::Family;
use crate::table::TableMeta;
use crate::version::{FamilyLevels, Version};
use bytes::Bytes;

/// A flush is not cut into tables smaller than this part of a full table: small tables cost more than small compactions
/// save.
const CUT_PARTS: u64 = 8;
/// Shards are split anew when one has this many times its share: moving the bounds joins old shards for a while.
const UNEVEN: u64 = 2;

/// The keys at which a flush of about `bytes` of the family begins new tables; ascending.
pub(super) fn guards(context: &CompactionContext, version: &Version, family: Family, bytes: u64) -> Vec<Bytes> {
    let options = context.options_of(family);
    let Some(levels) = version.family(family) else { return Vec::new() };
    if options.level0_shards < 2 || bytes / (options.level0_shards as u64) < options.table_bytes / CUT_PARTS {
        return Vec::new();
    }
    let tables = largest_level(levels);
    let mut all = context.state.guards.lock();
    let guards = all.entry(family).or_default();
    if guards.is_empty() || is_uneven(&tables, guards) {
        *guards = even_guards(&tables, options.level0_shards);
    }
    guards.clone()
}

fn largest_level(levels: &FamilyLevels) -> Vec<&TableMeta> {
    let largest = levels.levels.iter().skip(1).max_by_key(|tables| {
        let bytes: u64 = tables.iter().map(|table| table.meta().file_bytes).sum();
        bytes
    });
    largest.into_iter().flatten().map(|table| table.meta()).collect()
}

/// Cuts the bytes of ascending, disjoint tables into `parts` about equal ones, at bounds of tables.
pub(super) fn even_guards(tables: &[&TableMeta], parts: usize) -> Vec<Bytes> {
    let total: u64 = tables.iter().map(|table| table.file_bytes).sum();
    let mut guards: Vec<Bytes> = Vec::new();
    let mut before = 0;
    for table in tables {
        let share = (guards.len() as u64 + 1) * total / parts.max(1) as u64;
        if before > 0 && before >= share && guards.len() + 1 < parts {
            guards.push(table.smallest_key.clone());
        }
        before += table.file_bytes;
    }
    debug_assert!(guards.is_sorted() && guards.len() < parts.max(1));
    guards
}

fn is_uneven(tables: &[&TableMeta], guards: &[Bytes]) -> bool {
    let mut parts = vec![0u64; guards.len() + 1];
    for table in tables {
        parts[guards.partition_point(|guard| *guard <= table.smallest_key)] += table.file_bytes;
    }
    let total: u64 = parts.iter().sum();
    parts.iter().any(|part| *part > UNEVEN * total.div_ceil(parts.len() as u64))
}

#[cfg(test)]
#[path = "guards_test.rs"]
mod tests;
