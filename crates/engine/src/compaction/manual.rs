//! Manual compaction.

use super::CompactionContext;
use super::in_flight::{Claim, InFlight};
use super::plan::{Plan, TableChange, merge_down, overlapping, rewrite};
use super::plan_small::small_run;
use super::run::run;
use super::state::ClaimGuard;
use super::targets::Targets;
use crate::table::FileNumber;
use crate::types::LEVEL_COUNT;
use crate::version::{FamilyLevels, Table};
use crate::{Error, Family, Range, Result, SequenceNumber};
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// At most so many tables of a level are compacted at a time: a bound on the temporary space.
const TABLES_AT_A_TIME: usize = 16;

/// Compacts everything of a family down into one level, and drops all that is dead.
pub fn compact_all(context: &CompactionContext, family: Family) -> Result<()> {
    compact_range(context, family, &Range::all())
}

/// Compacts all tables that may hold keys of the range into the last level of the family, and rewrites those that are
/// there already and hold tombstones, expired values, or anything that a range tombstone hides, or may hold what the
/// layer above drops. Other compactions
/// continue at the same time, and so do flushes: tables that hold only what was flushed after the call began are left
/// alone, so that it ends however fast others write. Errors: `InvalidArgument` for an unknown family; after an error
/// part of the work is done.
pub fn compact_range(context: &CompactionContext, family: Family, range: &Range) -> Result<()> {
    let version = context.versions.current();
    let tables = version.family(family).into_iter().flat_map(FamilyLevels::tables);
    let newest = tables.map(|table| table.meta().largest_sequence).max().unwrap_or(0);
    compact_through(context, family, range, newest)
}

/// The same for tables that hold something at or below a sequence number. What is that old only comes down, so there is
/// less of it above the last level after each part.
fn compact_through(context: &CompactionContext, family: Family, range: &Range, newest: SequenceNumber) -> Result<()> {
    // What is written from now on is written under the present options: one pass is enough.
    let before = context.versions.new_file_number();
    // Small tables are merged from left to right, once: what comes out may be as small again, where a table ends
    // early (by a guard, or because blocks shrink to less than was estimated).
    let mut small_behind = None;
    loop {
        let (version, plan, _claims) = {
            let mut in_flight = context.state.in_flight.lock();
            let version = context.versions.current();
            let Some(levels) = version.family(family) else {
                // Of a family that was dropped there is nothing left to compact.
                return if version.dropped_families().contains_key(family) {
                    Ok(())
                } else {
                    Err(version.no_family(family))
                };
            };
            let now_ms = context.env.clock.wall_ms();
            let due = next(context, (family, levels), range, (before, newest), now_ms);
            let is_small = due.is_none();
            let due = due.or_else(|| next_small(context, (family, levels), range, newest, small_behind.as_ref()));
            let Some(plan) = due else { return Ok(()) };
            if !plan.claims().iter().all(|claim| in_flight.is_free(claim)) {
                wait(context, &mut in_flight, family)?;
                continue;
            }
            let claims = context.state.claim(&mut in_flight, plan.claims());
            if is_small {
                small_behind = plan.inputs.last().map(|table| table.meta().largest_key.clone());
            }
            (version, plan, claims)
        };
        run(context, version, plan)?;
    }
}

/// Keeps compactions away from parts of the levels until the guard is dropped; waits for those that are under way
/// there. The claims must not conflict with each other. Errors: `Closed` if `stop` was set.
pub(crate) fn keep_away(context: &CompactionContext, claims: Vec<Claim>) -> Result<ClaimGuard<'_>> {
    let mut in_flight = context.state.in_flight.lock();
    while let Some(busy) = claims.iter().find(|claim| !in_flight.is_free(claim)) {
        if context.stop.load(Ordering::Relaxed) {
            return Err(Error::Closed);
        }
        wait(context, &mut in_flight, busy.family)?;
    }
    Ok(context.state.claim(&mut in_flight, claims))
}

/// Waits until a plan has ended; meanwhile none is made in the family.
fn wait(
    context: &CompactionContext,
    in_flight: &mut crate::lock::MutexGuard<'_, InFlight>,
    family: Family,
) -> Result<()> {
    if !context.env.tasks.threaded() {
        // In a stepped world a compaction is one step, so none can be in flight.
        return Err(Error::Bug("a compaction is in flight that no thread executes".to_string()));
    }
    in_flight.wait_in(family);
    context.state.ended.wait(in_flight);
    in_flight.end_wait_in(family);
    Ok(())
}

/// The next part: from the top down, then what is dead at the bottom.
fn next(
    context: &CompactionContext,
    (family, levels): (Family, &FamilyLevels),
    range: &Range,
    (before, newest): (FileNumber, SequenceNumber),
    now_ms: u64,
) -> Option<Plan> {
    let touches = |table: &Table| table.meta().reaches_into(range);
    let comes_down = |table: &Arc<Table>| touches(table) && table.meta().smallest_sequence <= newest;
    if let Some(shard) = levels.shards().iter().find(|shard| shard.tables.iter().any(comes_down)) {
        let base = Targets::new(levels, &context.options_of(family)).base;
        let to = (1..base).find(|level| !levels.levels[*level].is_empty()).unwrap_or(base);
        let (inputs, overlaps) = (shard.tables.clone(), overlapping(&levels.levels[to], &shard.tables));
        return Some(Plan { family, from: 0, to, change: TableChange::Merge, inputs, overlaps });
    }
    let last = LEVEL_COUNT - 1;
    for level in 1..last {
        let inputs = neighbours(&levels.levels[level], comes_down);
        if !inputs.is_empty() {
            let plan = merge_down(family, levels, level, &inputs);
            let change = if plan.overlaps.is_empty() { TableChange::Move } else { TableChange::Merge };
            return Some(Plan { change, ..plan });
        }
    }
    let is_filtered = context.is_filtered(family);
    let dead = |table: &Arc<Table>| {
        let (meta, facts) = (table.meta(), table.facts());
        touches(table)
            && meta.number < before
            && (is_filtered || meta.tombstones > 0 || facts.first_expires_at_ms <= now_ms || levels.is_under_any(table))
    };
    let inputs = neighbours(&levels.levels[last], dead);
    (!inputs.is_empty()).then(|| rewrite(family, last, &inputs))
}

/// The next two or more small tables of the last level that fit into one, behind a key: a caller that requests a
/// compaction needs few tables.
fn next_small(
    context: &CompactionContext,
    (family, levels): (Family, &FamilyLevels),
    range: &Range,
    newest: SequenceNumber,
    behind: Option<&Bytes>,
) -> Option<Plan> {
    let last = LEVEL_COUNT - 1;
    let first = behind.map_or(0, |key| levels.levels[last].partition_point(|table| table.meta().smallest_key <= *key));
    let tables = levels.levels[last].get(first..).unwrap_or_default();
    let table_bytes = context.options_of(family).table_bytes;
    let is_old = |table: &Table| table.meta().reaches_into(range) && table.meta().smallest_sequence <= newest;
    let mut runs = (0..tables.len()).map(|first| {
        // As wide as the whole level if all are tiny: together they have no more bytes than one table.
        small_run(tables.get(first..).unwrap_or_default(), table_bytes, is_old)
    });
    runs.find(|run| run.len() > 1).map(|run| rewrite(family, last, run))
}

/// The first of a level's tables that must be compacted, with those that follow it and must be too, as many as are
/// compacted at a time.
fn neighbours(tables: &[Arc<Table>], wanted: impl Fn(&Arc<Table>) -> bool) -> Vec<Arc<Table>> {
    let first = tables.iter().skip_while(|table| !wanted(table));
    first.take_while(|table| wanted(table)).take(TABLES_AT_A_TIME).cloned().collect()
}

#[cfg(test)]
#[path = "manual_test.rs"]
mod tests;
