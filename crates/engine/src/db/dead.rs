//! Compactions of ranges in which scans have found many dead versions.
//!
//! A scan has passed over so many versions in a range. If they are a good part of what the tables over the range hold,
//! the memtables with data there are flushed, and the range is compacted: so the bytes rewritten are in proportion to
//! the bytes freed.

use super::Core;
use crate::dead_ranges::Request;
use crate::memtable::MemtableCursor;
use crate::read::ReadState;
use crate::types::{Cursor, KeyRef};
use crate::{Direction, Family, Range, Result, SequenceNumber, compaction};
use std::sync::atomic::Ordering::Relaxed;

/// Requests that wait at most; more are refused. A scan requests again when it has passed over twice as many.
const REQUESTS_MAX: usize = 16;

/// A request that waits for the `compact` job.
#[derive(Clone, Debug)]
pub(crate) struct WaitingRequest {
    request: Request,
    /// Memtables up to this id must be in tables first.
    flushed_id: u64,
}

impl Core {
    /// Whether nothing in memory or in tables was written to a range after a number, visible or not; false if that is
    /// not known.
    pub(crate) fn is_range_unchanged(&self, family: Family, range: &Range, since: SequenceNumber) -> bool {
        let (state, _) = self.writes.read_point();
        // As for a condition: checked after the state is pinned.
        let known = since >= self.context.versions.horizon().dropped_through();
        known && matches!(state.written_since(family, range, since), Ok(None))
    }

    /// Takes a request, if it is worth the work. Called by scans.
    pub(crate) fn request_compaction(&self, request: &Request) {
        if self.check_writable().is_err() || !self.is_worth_compacting(request) {
            return;
        }
        let flushed_id = if self.memory_meets(request) {
            let id = self.writes.freeze_active();
            self.wake_flush();
            id
        } else {
            0
        };
        let taken = self.progress.update(|state| {
            let accepted = state.compact_dead.len() < REQUESTS_MAX;
            if accepted {
                state.compact_dead.push_back(WaitingRequest { request: request.clone(), flushed_id });
            }
            accepted
        });
        let counter = if taken { &self.counters.dead_requests } else { &self.counters.dead_requests_refused };
        counter.fetch_add(1, Relaxed);
        self.wake_compact();
    }

    /// Whether the versions that scans have passed over are as large a part of the tables over the range as justifies
    /// the compaction of a table.
    fn is_worth_compacting(&self, request: &Request) -> bool {
        let version = self.context.versions.current();
        let Some(levels) = version.family(request.family) else { return false };
        let percent = u64::from(self.context.options_of(request.family).tombstone_percent);
        let met = levels.tables().filter(|table| compaction::touches(table, &request.range));
        let entries: u64 = met.map(|table| table.meta().entries).sum();
        percent > 0 && entries > 0 && request.versions.saturating_mul(100) >= entries.saturating_mul(percent)
    }

    /// Whether a memtable has a version in the range, or deletes a part of it.
    fn memory_meets(&self, request: &Request) -> bool {
        let (state, _) = self.writes.read_point();
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
    pub(super) fn next_dead_request(&self) -> Option<Request> {
        if self.progress.get().compact_dead.is_empty() {
            return None;
        }
        self.progress.update(|state| {
            let ready = state.compact_dead.iter().position(|waiting| waiting.flushed_id <= state.flushed_id)?;
            state.compact_dead.remove(ready).map(|waiting| waiting.request)
        })
    }

    pub(super) fn compact_dead(&self, request: &Request) -> Result<bool> {
        compaction::compact_range(&self.context, request.family, &request.range).map(|()| true)
    }
}
