//! Executes compactions.

use super::Context;
use super::output::Outputs;
use super::plan::{Plan, plan, plan_all};
use super::retention::Retention;
use crate::iterator::read_state::PinnedTable;
use crate::iterator::{Cursor, LevelCursor, MergingCursor};
use crate::table::FinishedTable;
use crate::version::{FamilyLevels, LEVEL_COUNT, Table, TableFacts, Version, VersionEdit};
use crate::{Direction, Error, Family, Result};
use std::sync::Arc;

/// Versions merged between two looks at the stop flag: well under a millisecond of work.
const STOP_CHECK_VERSIONS: u64 = 1024;

/// Does the most urgent compaction, if one is due; returns whether it did. One unit of work for a task.
pub fn step(context: &Context) -> Result<bool> {
    let version = context.versions.current();
    let Some(plan) = plan(&version, &context.options) else { return Ok(false) };
    run(context, &version, &plan)?;
    Ok(true)
}

/// Merges everything of a family down into one level. Not to be called while another compaction runs.
pub fn compact_all(context: &Context, family: Family) -> Result<()> {
    for _ in 0..LEVEL_COUNT {
        let version = context.versions.current();
        let levels = version.family(family);
        let levels = levels.ok_or_else(|| Error::InvalidArgument(format!("{family:?} does not exist")))?;
        let Some(plan) = plan_all(family, levels) else { return Ok(()) };
        run_merging(context, &version, &plan)?;
    }
    Ok(())
}

/// Executes one plan made for `version`, by a move if that is enough. The version may have got new tables in L0
/// meanwhile, nothing else.
pub fn run(context: &Context, version: &Version, plan: &Plan) -> Result<()> {
    assert!(plan.to == plan.from + 1 && plan.to < LEVEL_COUNT, "a plan goes one level down");
    if !plan.is_move() {
        return run_merging(context, version, plan);
    }
    let mut edit = VersionEdit::new();
    for table in &plan.inputs {
        edit.move_table(plan.from, plan.to, table);
    }
    context.versions.apply(edit).map(drop)
}

fn run_merging(context: &Context, version: &Version, plan: &Plan) -> Result<()> {
    let now_ms = context.env.clock.wall_ms();
    // The version has every range tombstone up to its flushed sequence number that may hide anything.
    let applied = version.flushed_sequence();
    let mut outputs = Outputs::new(context, plan.family, context.options.table_bytes, applied, now_ms);
    let edit = match merge(context, version, plan, now_ms, &mut outputs) {
        Ok(edit) => edit,
        Err(error) => {
            outputs.abandon();
            return Err(error);
        }
    };
    match context.versions.apply(edit) {
        Ok(_) => Ok(()),
        Err(error) => {
            outputs.abandon_unless_unsure();
            Err(error)
        }
    }
}

fn merge(
    context: &Context,
    version: &Version,
    plan: &Plan,
    now_ms: u64,
    outputs: &mut Outputs<'_>,
) -> Result<VersionEdit> {
    let mut cursor = input_cursor(context, plan)?;
    let levels = version.family(plan.family).ok_or_else(|| Error::Bug("a plan for a missing family".to_string()))?;
    debug_assert!(
        plan.tables().all(|(level, table)| levels.levels[level].iter().any(|there| Arc::ptr_eq(there, table))),
        "a plan is executed on the version that it was made for"
    );
    let mut retention = Retention::new(&levels.range_tombstones, now_ms, context.oldest_transaction());
    let mut below = Below::new(levels, plan.to);
    let mut read = 0u64;
    cursor.seek_to_first()?;
    while cursor.valid() {
        if read.is_multiple_of(STOP_CHECK_VERSIONS) {
            outputs.check_stop()?;
        }
        read += 1;
        let (key, kind, stored) = (cursor.key(), cursor.kind(), cursor.stored());
        let verdict = retention.judge(key, kind, &stored, || !below.may_hold(key.user_key))?;
        outputs.take(verdict, key, kind, &stored)?;
        cursor.advance()?;
    }
    let tables = outputs.finish()?;
    let mut edit = VersionEdit::new();
    for (level, table) in plan.tables() {
        edit.remove_table(level, table);
    }
    for (table, facts) in tables {
        edit.add_table(plan.to, table, facts.clone());
    }
    assert_within_inputs(plan, tables);
    let expected: u64 = plan.tables().map(|(_, table)| table.meta().entries).sum();
    if read != expected {
        // Not an assertion: it depends on what the files say, and nothing has been changed yet.
        let what = format!("a compaction read {read} versions of tables that hold {expected}; run `kontiki check`");
        return Err(Error::Bug(what));
    }
    Ok(edit)
}

/// Tells whether a level deeper than the output may hold a key, for keys that come in ascending order.
struct Below<'a> {
    /// For each deeper level that has tables: those whose largest key is not behind the keys asked for yet.
    levels: Vec<&'a [Arc<Table>]>,
}

impl<'a> Below<'a> {
    fn new(levels: &'a FamilyLevels, to: usize) -> Below<'a> {
        let deeper = levels.levels.iter().skip(to + 1).map(Vec::as_slice);
        Below { levels: deeper.filter(|tables| !tables.is_empty()).collect() }
    }

    fn may_hold(&mut self, user_key: &[u8]) -> bool {
        self.levels.iter_mut().any(|tables| {
            while let [first, rest @ ..] = *tables {
                if first.meta().largest_key >= user_key {
                    return first.meta().smallest_key <= user_key;
                }
                *tables = rest;
            }
            false
        })
    }
}

/// The output adds no key and no sequence number to what was planned, so it overlaps nothing that the plan left out.
fn assert_within_inputs(plan: &Plan, outputs: &[(FinishedTable, TableFacts)]) {
    let inputs = || plan.tables().map(|(_, table)| table.meta());
    let smallest = inputs().map(|meta| &meta.smallest_key).min();
    let largest = inputs().map(|meta| &meta.largest_key).max();
    let newest = inputs().map(|meta| meta.largest_sequence).max();
    for (output, _) in outputs {
        let meta = output.meta();
        assert!(Some(&meta.smallest_key) >= smallest && Some(&meta.largest_key) <= largest);
        assert!(Some(meta.largest_sequence) <= newest);
    }
    for pair in outputs.windows(2) {
        let [(left, _), (right, _)] = pair else { continue };
        assert!(left.meta().largest_key < right.meta().smallest_key, "outputs end between user keys");
        assert!(left.meta().number < right.meta().number, "file numbers count up");
    }
}

fn input_cursor(context: &Context, plan: &Plan) -> Result<MergingCursor> {
    let mut sources: Vec<Box<dyn Cursor>> = Vec::new();
    if plan.from == 0 {
        for table in &plan.inputs {
            sources.push(Box::new(PinnedTable::open(table.clone(), &context.tables, Direction::Forward)?));
        }
    } else {
        sources.push(Box::new(LevelCursor::new(plan.inputs.clone(), context.tables.clone(), Direction::Forward)));
    }
    sources.push(Box::new(LevelCursor::new(plan.overlaps.clone(), context.tables.clone(), Direction::Forward)));
    Ok(MergingCursor::new(sources, Direction::Forward))
}
