//! Executes compactions.

use super::CompactionContext;
use super::merge::Merged;
use super::output::{WrittenTable, remove_tables};
use super::pieces::Pieces;
use super::plan::{Plan, Planner, TableChange};
use crate::types::LEVEL_COUNT;
use crate::version::{Version, VersionEdit};
use crate::{Error, Result};
use std::sync::Arc;

/// Executes the most urgent compaction that is due and does not conflict with one in flight, or a piece of a large one
/// that runs; returns whether it did. One unit of work for a task, of which there may be several.
pub fn step(context: &CompactionContext) -> Result<bool> {
    let shared = context.state.pieces.lock().first().cloned();
    if let Some(pieces) = shared
        && pieces.work(context)
    {
        return Ok(true);
    }
    let (version, plan, _claims) = {
        let mut in_flight = context.state.in_flight.lock();
        // Under the lock: whatever has ended is in the version, whatever has not is in flight.
        let version = context.versions.current();
        let families = context.families.all();
        let planner = Planner {
            version: &version,
            options: &context.options,
            families: &families,
            in_flight: &in_flight,
            now_ms: context.env.clock.wall_ms(),
            oldest_reader: context.oldest_reader(),
        };
        let Some(plan) = planner.plan() else { return Ok(false) };
        let claims = context.state.claim_of_job(&mut in_flight, plan.claims());
        (version, plan, claims)
    };
    run(context, version, plan)?;
    Ok(true)
}

/// Executes one plan made for `version`, whose claims are entered: meanwhile the version gets new tables in level 0,
/// and changes in other places.
pub(super) fn run(context: &CompactionContext, version: Arc<Version>, plan: Plan) -> Result<()> {
    assert!(plan.to >= plan.from && plan.to < LEVEL_COUNT && !plan.inputs.is_empty(), "a plan moves down, or stays");
    let began = context.env.clock.monotonic();
    let (from, to, change) = (plan.from, plan.to, plan.change);
    assert_newest_wins(&version, &plan);
    tracing::debug!(family = plan.family.0, from, to, ?change, tables = plan.tables().count(), "compaction");
    match change {
        TableChange::Move => {
            assert!(plan.overlaps.is_empty() && from < to, "what moves has nothing to be merged with");
            let mut edit = VersionEdit::new();
            plan.inputs.iter().for_each(|table| edit.move_table(from, to, table));
            context.versions.apply(edit)?;
            context.state.stats.note(to, |work| work.moves += plan.inputs.len() as u64);
        }
        TableChange::Drop => {
            let mut edit = VersionEdit::new();
            plan.inputs.iter().for_each(|table| edit.remove_table(from, table));
            context.versions.apply(edit)?;
            context.state.stats.note(from, |work| work.drops += plan.inputs.len() as u64);
        }
        TableChange::Merge => merge(context, version, plan)?,
    }
    context.state.stats.note_busy(to, context.env.clock.monotonic().saturating_sub(began));
    Ok(())
}

/// What stays in level 0 overlaps nothing that moves down; and of a merge within level 0, is older or newer than all of
/// it. Tables that come meanwhile are newer than everything.
fn assert_newest_wins(version: &Version, plan: &Plan) {
    if plan.from > 0 || plan.change == TableChange::Drop {
        return;
    }
    let inputs = || plan.inputs.iter().map(|table| table.meta());
    let (oldest, newest) =
        (inputs().map(|meta| meta.smallest_sequence).min(), inputs().map(|meta| meta.largest_sequence).max());
    let level0 = version.family(plan.family).map_or(&[][..], |levels| &levels.levels[0]);
    let left = level0.iter().filter(|table| inputs().all(|meta| meta.number != table.meta().number));
    for table in left.filter(|table| inputs().any(|meta| meta.overlaps(table.meta()))) {
        let apart = Some(table.meta().largest_sequence) < oldest || Some(table.meta().smallest_sequence) > newest;
        let number = table.meta().number;
        assert!(
            plan.to == 0 && (apart || plan.inputs.len() == 1),
            "table {number} would be passed by newer or older ones"
        );
    }
}

fn merge(context: &CompactionContext, version: Arc<Version>, plan: Plan) -> Result<()> {
    let pieces = Arc::new(Pieces::new(context, version, plan.clone(), context.env.clock.wall_ms()));
    if pieces.len() > 1 {
        context.state.pieces.lock().push(pieces.clone());
        // In a stepped world no other job helps before this one has done all of them. If it then failed for lack of
        // space, the jobs that were woken would try, fail, and wake it again, for as long as the disk is full.
        if context.env.tasks.threaded() {
            context.state.wake();
        }
    }
    while pieces.work(context) {}
    if pieces.len() > 1 {
        context.state.pieces.lock().retain(|other| !Arc::ptr_eq(other, &pieces));
    }
    let mut merged = Merged { tables: Vec::new(), read: 0, kept: 0 };
    let mut failed = None;
    for result in pieces.results() {
        match result {
            Ok(piece) => {
                merged.tables.extend(piece.tables);
                merged.read += piece.read;
                merged.kept += piece.kept;
            }
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    let expected: u64 = plan.tables().map(|(_, table)| table.meta().entries).sum();
    if failed.is_none() && merged.read != expected {
        // Not an assertion: it depends on what the files say, and nothing has been changed yet.
        let read = merged.read;
        let what = format!("a compaction read {read} versions of tables that hold {expected}; run `kontiki check`");
        failed = Some(Error::Bug(what));
    }
    if let Some(error) = failed {
        remove_tables(context, merged.tables);
        return Err(error);
    }
    install(context, &plan, merged)
}

fn install(context: &CompactionContext, plan: &Plan, merged: Merged) -> Result<()> {
    assert_within_inputs(plan, &merged.tables);
    let mut edit = VersionEdit::new();
    for (level, table) in plan.tables() {
        edit.remove_table(level, table);
    }
    for written in &merged.tables {
        edit.add_table(plan.to, &written.table, written.facts.clone());
    }
    if let Err(error) = context.versions.apply(edit) {
        // The files may be deleted only if the edit surely did not reach the manifest.
        if !context.versions.is_stopped() {
            remove_tables(context, merged.tables);
        }
        return Err(error);
    }
    context.state.stats.note(plan.to, |work| {
        work.runs += 1;
        work.read_bytes += plan.bytes();
        work.written_bytes += merged.tables.iter().map(|written| written.table.meta().file_bytes).sum::<u64>();
        work.versions_read += merged.read;
        work.versions_dropped += merged.read - merged.kept;
    });
    Ok(())
}

/// The output adds no key and no sequence number to what was planned, so it overlaps nothing that the plan left out.
fn assert_within_inputs(plan: &Plan, outputs: &[WrittenTable]) {
    let inputs = || plan.tables().map(|(_, table)| table.meta());
    let smallest = inputs().map(|meta| &meta.smallest_key).min();
    let largest = inputs().map(|meta| &meta.largest_key).max();
    let newest = inputs().map(|meta| meta.largest_sequence).max();
    let oldest = inputs().map(|meta| meta.smallest_sequence).min();
    for output in outputs {
        let meta = output.table.meta();
        assert!(Some(&meta.smallest_key) >= smallest && Some(&meta.largest_key) <= largest);
        assert!(Some(meta.largest_sequence) <= newest && Some(meta.smallest_sequence) >= oldest);
    }
    for pair in outputs.windows(2) {
        let [left, right] = pair else { continue };
        assert!(left.table.meta().largest_key < right.table.meta().smallest_key, "outputs end between user keys");
    }
}
