//! The merge itself: versions of the inputs in order, kept or dropped, written.

use super::CompactionContext;
use super::output::{Outputs, WrittenTable};
use super::plan::Plan;
use super::version_retention::VersionRetention;
use crate::read::{LevelCursor, MergingCursor, PinnedTable, Source};
use crate::types::{Cursor, KeyRef};
use crate::version::{FamilyLevels, Table, Version};
use crate::{Direction, Error, Result};
use bytes::Bytes;
use std::sync::Arc;

/// Versions merged between two checks of the stop flag: well under a millisecond of work.
const STOP_CHECK_VERSIONS: u64 = 1024;

/// The result of a merge.
pub(super) struct Merged {
    pub(super) tables: Vec<WrittenTable>,
    /// Versions read and written.
    pub(super) read: u64,
    pub(super) kept: u64,
}

/// Merges the inputs of a plan from `start` to before `end`. On an error nothing is left behind.
pub(super) fn merge_range(
    context: &CompactionContext,
    version: &Version,
    plan: &Plan,
    now_ms: u64,
    start: Option<&Bytes>,
    end: Option<&Bytes>,
) -> Result<Merged> {
    // The version has every range tombstone up to its flushed sequence number that may hide anything.
    let applied = version.flushed_sequence();
    let mut outputs = Outputs::new(context, plan.family, plan.to, applied, now_ms);
    let merged = merge_into(context, version, plan, start, end, &mut outputs);
    match merged.and_then(|read| Ok((read, outputs.finish()?))) {
        Ok((read, kept)) => Ok(Merged { tables: outputs.into_tables(), read, kept }),
        Err(error) => {
            outputs.abandon();
            Err(error)
        }
    }
}

/// Returns how many versions were read.
fn merge_into(
    context: &CompactionContext,
    version: &Version,
    plan: &Plan,
    start: Option<&Bytes>,
    end: Option<&Bytes>,
    outputs: &mut Outputs<'_>,
) -> Result<u64> {
    let levels = version.family(plan.family).ok_or_else(|| Error::Bug("a plan for a missing family".to_string()))?;
    debug_assert!(
        plan.tables().all(|(level, table)| levels.levels[level].iter().any(|there| Arc::ptr_eq(there, table))),
        "a plan is executed on the version that it was made for"
    );
    let mut cursor = input_cursor(context, plan, start, end)?;
    let retention = VersionRetention::new(&levels.range_tombstones, outputs.now_ms(), context.oldest_reader());
    // After the inputs are fixed: what the filter knows to be dead is dead in them.
    let mut retention = retention.with_filter(context.filter_pass(plan.family));
    let mut below = Below::new(levels, plan);
    let mut read = 0u64;
    match start {
        Some(start) => cursor.seek(KeyRef::before_all(start))?,
        None => cursor.seek_to_first()?,
    }
    while cursor.valid() {
        let key = cursor.key();
        if end.is_some_and(|end| key.user_key >= end) {
            break;
        }
        if read.is_multiple_of(STOP_CHECK_VERSIONS) {
            outputs.check_stop()?;
        }
        read += 1;
        let (kind, stored) = (cursor.kind(), cursor.stored_slice());
        let decision = retention.decide(key, kind, stored, || !below.may_hold(key.user_key))?;
        outputs.take(decision, key, kind, stored)?;
        cursor.advance()?;
    }
    context.state.stats.note(plan.to, |work| work.versions_filtered += retention.filtered());
    // Before the edit that takes them out.
    context.versions.horizon().note_dropped(retention.dropped_through());
    Ok(read)
}

/// Reports whether what lies below the output may hold a key, for keys that come in ascending order.
struct Below<'a> {
    /// For each deeper level that has tables: those whose largest key is not behind the keys queried so far.
    levels: Vec<&'a [Arc<Table>]>,
    /// If the output stays in level 0: the tables there that are not merged, which overlap and may be older.
    beside: Vec<&'a Table>,
}

impl<'a> Below<'a> {
    fn new(levels: &'a FamilyLevels, plan: &Plan) -> Below<'a> {
        let deeper = levels.levels.iter().skip(plan.to + 1).map(Vec::as_slice);
        let level0 = levels.levels[0].iter().filter(|_| plan.to == 0);
        let beside = level0.filter(|table| !plan.inputs.iter().any(|input| Arc::ptr_eq(input, table)));
        Below {
            levels: deeper.filter(|tables| !tables.is_empty()).collect(),
            beside: beside.map(|table| &**table).collect(),
        }
    }

    fn may_hold(&mut self, user_key: &[u8]) -> bool {
        let spans =
            |table: &&Table| (&table.meta().smallest_key[..]..=&table.meta().largest_key[..]).contains(&user_key);
        self.beside.iter().any(spans)
            || self.levels.iter_mut().any(|tables| {
                // Few keys are queried, and far apart: a search each, over what is left.
                *tables = &tables[tables.partition_point(|table| table.meta().largest_key < user_key)..];
                tables.first().is_some_and(|table| table.meta().smallest_key <= user_key)
            })
    }
}

/// A cursor over those inputs that may hold keys from `start` to before `end`.
fn input_cursor(
    context: &CompactionContext,
    plan: &Plan,
    start: Option<&Bytes>,
    end: Option<&Bytes>,
) -> Result<MergingCursor> {
    let within = |tables: &[Arc<Table>]| -> Vec<Arc<Table>> {
        let within = tables.iter().filter(|table| {
            start.is_none_or(|start| table.meta().largest_key >= *start)
                && end.is_none_or(|end| table.meta().smallest_key < *end)
        });
        within.cloned().collect()
    };
    let mut sources: Vec<Source> = Vec::new();
    let inputs = within(&plan.inputs);
    if plan.from == 0 {
        for table in inputs {
            sources.push(Source::Table(PinnedTable::open_for_one_pass(table, &context.tables, Direction::Forward)?));
        }
    } else {
        sources
            .push(Source::Level(LevelCursor::new(inputs, context.tables.clone(), Direction::Forward).for_one_pass()));
    }
    let overlaps = within(&plan.overlaps);
    if !overlaps.is_empty() {
        sources
            .push(Source::Level(LevelCursor::new(overlaps, context.tables.clone(), Direction::Forward).for_one_pass()));
    }
    Ok(MergingCursor::new(sources, Direction::Forward))
}
