//! Writes frozen memtables to tables.

use super::CompactionContext;
use super::guards::guards;
use super::output::{Outputs, WrittenTable};
use super::version_retention::{Decision, VersionRetention};
use crate::memtable::{Memtable, MemtableCursor};
use crate::read::MergingCursor;
use crate::types::Cursor;
use crate::value_files::FlushedValues;
use crate::version::{RangeTombstones, Version, VersionEdit};
use crate::{Direction, Error, Family, Result, SequenceNumber};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Writes one table for each family (more only beyond `TABLE_BYTES_MAX`) in `memtables` to L0, and installs all of
/// them, with the memtables' range tombstones, `flushed_sequence` and `oldest_segment`, in one edit. Of each key only
/// the newest version is kept, and that only if none of the range tombstones hides it; tombstones are kept, for what
/// they hide may be below. Returns the new version.
///
/// The memtables are frozen, the oldest that are not flushed, oldest first, and hold sequence numbers at or below
/// `flushed_sequence` only. Nothing above `flushed_sequence` may be in an older memtable. Empty memtables make an edit
/// without tables.
pub fn flush(
    context: &CompactionContext,
    memtables: &[Arc<Memtable>],
    flushed_sequence: SequenceNumber,
    oldest_segment: Option<u64>,
) -> Result<Arc<Version>> {
    let largest = memtables.iter().filter_map(|memtable| memtable.largest_sequence()).max().unwrap_or(0);
    assert!(largest <= flushed_sequence, "a flush through {flushed_sequence} of memtables that reach {largest}");
    assert!(flushed_sequence >= context.versions.current().flushed_sequence(), "flushes go forward");
    assert!(memtables.windows(2).all(|pair| pair[0].largest_sequence() <= pair[1].largest_sequence()), "oldest first");
    let began = context.env.clock.monotonic();
    let mut all: Vec<Outputs<'_>> = Vec::new();
    let new_number = || context.versions.new_file_number();
    let mut values = FlushedValues::new(&context.values, &new_number);
    let written = write_families(context, memtables, flushed_sequence, &mut all, &mut values);
    let mut edit = match written.and_then(|mut edit| values.finish(&mut edit).map(|()| edit)) {
        Ok(edit) => edit,
        Err(error) => {
            all.iter_mut().for_each(Outputs::abandon);
            values.abandon();
            return Err(error);
        }
    };
    edit.set_flushed_sequence(flushed_sequence);
    if let Some(segment) = oldest_segment {
        edit.set_oldest_segment(segment);
    }
    let applied = context.versions.apply(edit);
    if applied.is_err() {
        all.iter_mut().for_each(Outputs::abandon_unless_unsure);
        if !context.versions.is_stopped() {
            values.abandon();
        }
        return applied;
    }
    let written = all.iter().flat_map(|outputs| outputs.tables()).map(|written| written.table.meta().file_bytes);
    let (written, busy) = (written.sum(), context.env.clock.monotonic().saturating_sub(began));
    context.state.stats.note_flush(written);
    context.state.stats.note(0, |work| {
        work.runs += 1;
        work.written_bytes += written;
    });
    context.state.stats.note_busy(0, busy);
    applied
}

fn write_families<'a>(
    context: &'a CompactionContext,
    memtables: &[Arc<Memtable>],
    flushed_sequence: SequenceNumber,
    all: &mut Vec<Outputs<'a>>,
    values: &mut FlushedValues<'_>,
) -> Result<VersionEdit> {
    let version = context.versions.current();
    let now_ms = context.env.clock.wall_ms();
    let bytes: u64 = memtables.iter().map(|memtable| memtable.approximate_bytes() as u64).sum();
    let mut edit = VersionEdit::new();
    let families: BTreeSet<Family> = memtables.iter().flat_map(|memtable| memtable.families()).collect();
    // What was written to a family before it was dropped is not flushed.
    let known = |family: &Family| version.family(*family).is_some() || version.dropped_families().contains_key(*family);
    if let Some(family) = families.iter().find(|family| !known(family)) {
        return Err(Error::Bug(format!("a memtable holds writes of {family:?}, which does not exist")));
    }
    for family in families.into_iter().filter(|family| version.family(*family).is_some()) {
        let ranges = RangeTombstones::of_disjoint(Memtable::newest_ranges(memtables, family));
        all.push(Outputs::new(context, family, 0, flushed_sequence, now_ms));
        let outputs = all.last_mut().expect("one was pushed");
        outputs.cut_before(guards(context, &version, family, bytes));
        let mut retention = VersionRetention::new(&ranges, now_ms, context.oldest_reader());
        write_family(&mut *memtable_cursor(memtables, family), family, &mut retention, outputs, values)?;
        for tombstone in ranges.iter() {
            edit.add_range_tombstone(family, tombstone.clone());
        }
    }
    let smallest = memtables.iter().filter_map(|memtable| memtable.smallest_sequence()).min();
    let largest = memtables.iter().filter_map(|memtable| memtable.largest_sequence()).max();
    for outputs in all {
        outputs.finish()?;
        for WrittenTable { table, facts } in outputs.tables() {
            assert!(Some(table.meta().smallest_sequence) >= smallest && Some(table.meta().largest_sequence) <= largest);
            edit.add_table(0, table, facts.clone());
        }
    }
    Ok(edit)
}

fn memtable_cursor(memtables: &[Arc<Memtable>], family: Family) -> Box<dyn Cursor> {
    let cursor = |memtable: &Arc<Memtable>| -> Box<dyn Cursor> {
        Box::new(MemtableCursor::new(memtable.clone(), family, Direction::Forward))
    };
    match memtables {
        [one] => cursor(one),
        several => Box::new(MergingCursor::new(several.iter().rev().map(cursor), Direction::Forward)),
    }
}

fn write_family(
    cursor: &mut dyn Cursor,
    family: Family,
    retention: &mut VersionRetention<'_>,
    outputs: &mut Outputs<'_>,
    values: &mut FlushedValues<'_>,
) -> Result<()> {
    cursor.seek_to_first()?;
    while cursor.valid() {
        outputs.check_stop()?;
        let (key, kind, stored) = (cursor.key(), cursor.kind(), cursor.stored_slice());
        // Something below L0 may always be hidden by a tombstone here.
        let decision = retention.decide(key, kind, stored, || false)?;
        let large = if decision == Decision::Keep { values.take(family, key.user_key, kind, stored)? } else { None };
        match large {
            Some((kind, pointer)) => outputs.take(decision, key, kind, &pointer)?,
            None => outputs.take(decision, key, kind, stored)?,
        }
        cursor.advance()?;
    }
    Ok(())
}
