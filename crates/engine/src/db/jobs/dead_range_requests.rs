//! Compactions of ranges in which scans have found many dead versions.
//!
//! A scan has passed over so many versions in a range. If they are a good part of what the tables over the range hold,
//! the memtables with data there are flushed, and the range is compacted: so the bytes rewritten are in proportion to
//! the bytes freed.

use crate::db::shared::progress::{DeadRangeRequest, Progress};
use crate::db::write::WritePath;
use crate::dead_ranges::Request;
use crate::memtable::MemtableCursor;
use crate::read::ReadState;
use crate::types::{Cursor, KeyRef};
use crate::{Direction, Family, Range, SequenceNumber};
use std::sync::atomic::Ordering::Relaxed;

/// Requests that wait at most; more are refused. A scan requests again when it has passed over twice as many.
const REQUESTS_MAX: usize = 16;

/// Whether nothing in memory or in tables was written to a range after a number, visible or not; false if that is
/// not known.
pub(crate) fn is_range_unchanged(write: &WritePath, family: Family, range: &Range, since: SequenceNumber) -> bool {
    let (state, _) = write.memtables.read_point();
    // As for a condition: checked after the state is pinned.
    let known = since >= write.shared.context.versions.horizon().dropped_through();
    known && matches!(state.written_since(family, range, since), Ok(None))
}

/// Takes a request, if it is worth the work. Called by scans.
pub(crate) fn request(write: &WritePath, request: &Request) {
    if write.shared.health.check_writable().is_err() || !is_worth_compacting(write, request) {
        return;
    }
    let flushed_id = if memory_meets(write, request) {
        let id = write.memtables.freeze_active();
        write.shared.jobs.wake_flush();
        id
    } else {
        0
    };
    let taken = write.shared.progress.update(|state| {
        let accepted = state.dead_ranges.len() < REQUESTS_MAX;
        if accepted {
            state.dead_ranges.push_back(DeadRangeRequest { request: request.clone(), flushed_id });
        }
        accepted
    });
    let counters = &write.shared.counters;
    let counter = if taken { &counters.dead_requests } else { &counters.dead_requests_refused };
    counter.fetch_add(1, Relaxed);
    write.shared.jobs.wake_compact();
}

/// Whether the versions that scans have passed over are as large a part of the tables over the range as justifies
/// the compaction of a table.
fn is_worth_compacting(write: &WritePath, request: &Request) -> bool {
    let version = write.shared.context.versions.current();
    let Some(levels) = version.family(request.family) else { return false };
    let percent = u64::from(write.shared.context.options_of(request.family).tombstone_percent);
    let met = levels.tables().filter(|table| table.meta().reaches_into(&request.range));
    let entries: u64 = met.map(|table| table.meta().entries).sum();
    percent > 0 && entries > 0 && request.versions.saturating_mul(100) >= entries.saturating_mul(percent)
}

/// Whether a memtable has a version in the range, or deletes a part of it.
fn memory_meets(write: &WritePath, request: &Request) -> bool {
    let (state, _) = write.memtables.read_point();
    let state: &ReadState = &state;
    let Range { start, end } = &request.range;
    let start = start.as_deref().unwrap_or_default();
    state.memtables.iter().any(|memtable| {
        let ranges = memtable.recent_ranges(request.family);
        if ranges.is_some_and(|ranges| ranges.covered_since(start, end.as_deref(), 0).is_some()) {
            return true;
        }
        let mut cursor = MemtableCursor::new(memtable.clone(), request.family, Direction::Forward);
        let sought = cursor.seek(KeyRef::before_all(start));
        sought.is_ok() && cursor.valid() && end.as_ref().is_none_or(|end| cursor.key().user_key < end.as_ref())
    })
}

/// The next request whose memtables are in tables.
pub(crate) fn next(progress: &Progress) -> Option<Request> {
    if progress.get().dead_ranges.is_empty() {
        return None;
    }
    progress.update(|state| {
        let ready = state.dead_ranges.iter().position(|waiting| waiting.flushed_id <= state.flushed_id)?;
        state.dead_ranges.remove(ready).map(|waiting| waiting.request)
    })
}
