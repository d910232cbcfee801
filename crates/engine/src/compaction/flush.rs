//! Writes a frozen memtable to tables.

use super::Context;
use super::retention::{Retention, Verdict};
use super::run::Outputs;
use crate::iterator::Cursor;
use crate::memtable::{Memtable, MemtableCursor};
use crate::table::TABLE_BYTES_MAX;
use crate::version::{Version, VersionEdit};
use crate::{Direction, Error, Result, SequenceNumber};
use std::sync::Arc;

/// Writes one table for each family (more only beyond [`TABLE_BYTES_MAX`]) in `memtable` to L0, and installs all of them, with
/// `flushed_sequence` and `oldest_segment`, in one edit. Versions that no snapshot can see are left out; tombstones
/// are kept, for what they hide may be below. Returns the new version.
///
/// The memtable is frozen, the oldest that is not flushed, and holds sequence numbers at or below `flushed_sequence`
/// only. Nothing above `flushed_sequence` may be in an older memtable. An empty memtable makes an edit without tables.
pub fn flush(
    context: &Context,
    memtable: &Arc<Memtable>,
    snapshots: &[SequenceNumber],
    flushed_sequence: SequenceNumber,
    oldest_segment: Option<u64>,
) -> Result<Arc<Version>> {
    let largest = memtable.largest_sequence().unwrap_or(0);
    assert!(largest <= flushed_sequence, "a flush through {flushed_sequence} of a memtable that goes to {largest}");
    assert!(flushed_sequence >= context.versions.current().flushed_sequence(), "flushes go forward");
    let mut all: Vec<Outputs<'_>> = Vec::new();
    let mut edit = match write_families(context, memtable, snapshots, &mut all) {
        Ok(edit) => edit,
        Err(error) => {
            all.iter_mut().for_each(Outputs::abandon);
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
    }
    applied
}

fn write_families<'a>(
    context: &'a Context,
    memtable: &Arc<Memtable>,
    snapshots: &[SequenceNumber],
    all: &mut Vec<Outputs<'a>>,
) -> Result<VersionEdit> {
    let version = context.versions.current();
    for family in memtable.families() {
        if version.family(family).is_none() {
            return Err(Error::Bug(format!("a memtable holds writes of {family:?}, which does not exist")));
        }
        all.push(Outputs::new(context, family, TABLE_BYTES_MAX));
        let outputs = all.last_mut().expect("one was pushed");
        let mut cursor = MemtableCursor::new(memtable.clone(), family, Direction::Forward);
        let mut retention = Retention::new(snapshots);
        cursor.seek_to_first()?;
        while cursor.valid() {
            outputs.check_stop()?;
            let key = cursor.key();
            // Something below L0 may always be hidden by a tombstone here.
            let verdict = retention.judge(key.user_key, key.sequence, cursor.kind().is_delete(), || false);
            if verdict == Verdict::Keep {
                outputs.add(&cursor)?;
            }
            cursor.advance()?;
        }
    }
    let mut edit = VersionEdit::new();
    for outputs in all {
        let tables = outputs.finish()?;
        assert!(!tables.is_empty(), "a family that is in the memtable has a newest version to keep");
        for table in tables {
            assert!(Some(table.meta().smallest_sequence) >= memtable.smallest_sequence());
            assert!(Some(table.meta().largest_sequence) <= memtable.largest_sequence());
            edit.add_table(0, table);
        }
    }
    Ok(edit)
}
