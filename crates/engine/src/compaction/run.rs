//! Executes compactions.

use super::Context;
use super::plan::{Plan, plan, plan_all};
use super::retention::{Retention, Verdict};
use crate::iterator::read_state::PinnedTable;
use crate::iterator::{Cursor, LevelCursor, MergingCursor};
use crate::table::{FinishedTable, TABLE_BYTES_MAX, TableWriter, sync_tables_dir, table_path};
use crate::version::{LEVEL_COUNT, Version, VersionEdit};
use crate::{Direction, Error, Family, Result, SequenceNumber};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Versions merged between two looks at the stop flag: well under a millisecond of work.
const STOP_CHECK_VERSIONS: u64 = 1024;

/// Does the most urgent compaction, if one is due; returns whether it did. One unit of work for a task.
pub fn step(context: &Context, snapshots: &[SequenceNumber]) -> Result<bool> {
    let version = context.versions.current();
    let Some(plan) = plan(&version, &context.options) else { return Ok(false) };
    run(context, &version, &plan, snapshots)?;
    Ok(true)
}

/// Merges everything of a family down into one level. Not to be called while another compaction runs.
pub fn compact_all(context: &Context, family: Family, snapshots: &[SequenceNumber]) -> Result<()> {
    for _ in 0..LEVEL_COUNT {
        let version = context.versions.current();
        let levels = version.family(family);
        let levels = levels.ok_or_else(|| Error::InvalidArgument(format!("{family:?} does not exist")))?;
        let Some(plan) = plan_all(family, levels) else { return Ok(()) };
        run_merging(context, &version, &plan, snapshots)?;
    }
    Ok(())
}

/// Executes one plan made for `version`, by a move if that is enough. The version may have got new tables in L0
/// meanwhile, nothing else.
pub fn run(context: &Context, version: &Version, plan: &Plan, snapshots: &[SequenceNumber]) -> Result<()> {
    assert!(plan.to == plan.from + 1 && plan.to < LEVEL_COUNT, "a plan goes one level down");
    if !plan.is_move() {
        return run_merging(context, version, plan, snapshots);
    }
    let mut edit = VersionEdit::new();
    for table in &plan.inputs {
        edit.move_table(plan.from, plan.to, table);
    }
    context.versions.apply(edit).map(drop)
}

fn run_merging(context: &Context, version: &Version, plan: &Plan, snapshots: &[SequenceNumber]) -> Result<()> {
    let mut outputs = Outputs::new(context, plan.family, context.options.table_bytes);
    let edit = match merge(context, version, plan, snapshots, &mut outputs) {
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
    snapshots: &[SequenceNumber],
    outputs: &mut Outputs<'_>,
) -> Result<VersionEdit> {
    let mut cursor = input_cursor(context, plan)?;
    let mut retention = Retention::new(snapshots);
    // A transaction that is registered later reads at or above everything in the inputs.
    let oldest_start = context.oldest_transaction_start.load(std::sync::atomic::Ordering::SeqCst);
    let levels = version.family(plan.family).ok_or_else(|| Error::Bug("a plan for a missing family".to_string()))?;
    let is_bottom =
        |user_key: &[u8]| (plan.to + 1..LEVEL_COUNT).all(|level| levels.table_for(level, user_key).is_none());
    debug_assert!(
        plan.tables().all(|(level, table)| levels.levels[level].iter().any(|there| Arc::ptr_eq(there, table))),
        "a plan is executed on the version that it was made for"
    );
    let (mut read, mut kept) = (0u64, 0u64);
    cursor.seek_to_first()?;
    while cursor.valid() {
        if read.is_multiple_of(STOP_CHECK_VERSIONS) {
            outputs.check_stop()?;
        }
        read += 1;
        let key = cursor.key();
        let is_tombstone = cursor.kind().is_delete();
        let is_spent = || key.sequence <= oldest_start && is_bottom(key.user_key);
        let verdict = retention.judge(key.user_key, key.sequence, is_tombstone, is_spent);
        if verdict == Verdict::Keep {
            kept += 1;
            outputs.add(&cursor)?;
        }
        cursor.advance()?;
    }
    let tables = outputs.finish()?;
    let mut edit = VersionEdit::new();
    for (level, table) in plan.tables() {
        edit.remove_table(level, table);
    }
    for table in tables {
        edit.add_table(plan.to, table);
    }
    assert_within_inputs(plan, tables);
    let expected: u64 = plan.tables().map(|(_, table)| table.meta().entries).sum();
    if read != expected {
        // Not an assertion: it depends on what the files say, and nothing has been changed yet.
        let what = format!("a compaction read {read} versions of tables that hold {expected}; run `kontiki check`");
        return Err(Error::Bug(what));
    }
    assert_eq!(kept, tables.iter().map(|table| table.meta().entries).sum::<u64>(), "what is kept is written");
    Ok(edit)
}

/// The output adds no key and no sequence number to what was planned, so it overlaps nothing that the plan left out.
fn assert_within_inputs(plan: &Plan, outputs: &[FinishedTable]) {
    let inputs = || plan.tables().map(|(_, table)| table.meta());
    let smallest = inputs().map(|meta| &meta.smallest_key).min();
    let largest = inputs().map(|meta| &meta.largest_key).max();
    let newest = inputs().map(|meta| meta.largest_sequence).max();
    for output in outputs {
        let meta = output.meta();
        assert!(Some(&meta.smallest_key) >= smallest && Some(&meta.largest_key) <= largest);
        assert!(Some(meta.largest_sequence) <= newest);
    }
    for pair in outputs.windows(2) {
        let [left, right] = pair else { continue };
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

/// The tables that a flush or compaction writes.
pub(super) struct Outputs<'a> {
    context: &'a Context,
    family: Family,
    writer: Option<TableWriter>,
    finished: Vec<FinishedTable>,
    /// A table ends after so many bytes, at the next user key.
    table_bytes: u64,
}

impl<'a> Outputs<'a> {
    pub(super) fn new(context: &'a Context, family: Family, table_bytes: u64) -> Outputs<'a> {
        assert!(table_bytes <= TABLE_BYTES_MAX, "options are checked at open");
        Outputs { context, family, writer: None, finished: Vec::new(), table_bytes }
    }

    pub(super) fn check_stop(&self) -> Result<()> {
        if self.context.stop.load(Ordering::Relaxed) { Err(Error::Closed) } else { Ok(()) }
    }

    /// Adds the cursor's version, starting a new table at a new user key once the current one is full.
    pub(super) fn add(&mut self, cursor: &dyn Cursor) -> Result<()> {
        let key = cursor.key();
        if let Some(writer) = self
            .writer
            .take_if(|writer| writer.estimated_bytes() >= self.table_bytes && writer.last_user_key() != key.user_key)
        {
            self.finished.push(writer.finish()?);
        }
        let writer = match &mut self.writer {
            Some(writer) => writer,
            None => {
                let versions = &self.context.versions;
                let options = self.context.table_options.clone();
                let number = versions.new_file_number();
                let dir = versions.tables_dir();
                self.writer.insert(TableWriter::create(&self.context.env, dir, number, self.family, options)?)
            }
        };
        debug_assert!(writer.last_user_key() <= key.user_key, "a merge goes forward");
        writer.add(key, cursor.kind(), &cursor.stored())
    }

    /// Finishes the last table and makes all names durable.
    pub(super) fn finish(&mut self) -> Result<&[FinishedTable]> {
        if let Some(writer) = self.writer.take() {
            self.finished.push(writer.finish()?);
        }
        if !self.finished.is_empty() {
            sync_tables_dir(&self.context.env, self.context.versions.tables_dir())?;
        }
        Ok(&self.finished)
    }

    /// Removes what was written, as well as the disk allows; the rest goes at the next open.
    pub(super) fn abandon(&mut self) {
        if let Some(writer) = self.writer.take() {
            writer.abandon();
        }
        for table in self.finished.drain(..) {
            let path = table_path(self.context.versions.tables_dir(), table.meta().number);
            if let Err(error) = self.context.env.fs.remove(&path) {
                tracing::debug!(file = %path.display(), %error, "an abandoned table stays until the next open");
            }
        }
    }

    /// After a failed edit: the files may go only if the edit surely did not reach the manifest.
    pub(super) fn abandon_unless_unsure(&mut self) {
        if !self.context.versions.is_stopped() {
            self.abandon();
        }
    }
}
