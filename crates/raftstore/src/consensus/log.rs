//! A group's log: the raft crate's storage.
//!
//! Entries are here as soon as a Ready is taken; raft is notified of their persistence later. Those that are applied
//! may be *evicted*: only their sizes and terms stay, and their payload is in the stream. The core needs such an entry
//! for one purpose, an append to a follower that lags, and then accepts that it is not there at the moment
//! ([`GetEntriesContext::can_async`]). The index is noted, the entries are read in the background, and the core is
//! asked to send again while they are here ([`EntryLog::set_fetched`]). So no method of the storage can fail in a way
//! that the core takes for a fault. docs/internals/log-memory.md lists the core's calls.
//!
//! Invariants: entries are consecutive from `truncated.index + 1`; those through `evicted_through`, and only those, are
//! not in memory; `truncated.index <= evicted_through <= max(applied, truncated.index)`; `sizes` has one size for each.

use super::positions::{Sizes, Terms};
use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;

/// Accounted size of an entry beyond its payload. An evicted entry still counts for so much: the engine's index of the
/// stream has its position.
pub(super) const ENTRY_OVERHEAD_BYTES: usize = 64;

/// Index and term of one position of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Index.
    pub index: u64,
    /// Term.
    pub term: u64,
}

/// A log as a start finds it, behind its truncation mark.
#[derive(Debug, Default)]
pub struct FoundEntries {
    /// Of the first ones only the term and the accounted size ([`entry_bytes`]): they need not be in memory.
    pub evicted: Vec<(u64, usize)>,
    /// Those that follow.
    pub entries: Vec<Entry>,
}

impl From<Vec<Entry>> for FoundEntries {
    fn from(entries: Vec<Entry>) -> FoundEntries {
        FoundEntries { evicted: Vec::new(), entries }
    }
}

pub(super) struct EntryLog {
    truncated: Position,
    sizes: Sizes,
    /// Terms of the entries through `evicted_through`.
    evicted: Terms,
    evicted_through: u64,
    /// The entries after those.
    entries: VecDeque<Entry>,
    applied: u64,
    /// Evicted entries that were read from the stream, consecutive, while the core is asked to send them.
    fetched: Vec<Entry>,
    /// Evicted entries with which appends to followers would begin.
    wanted: RefCell<BTreeSet<u64>>,
    /// How many bytes the core may still send from behind the log's end.
    allowance: Cell<usize>,
    /// Appends that it did not send because of that.
    delayed: Cell<u64>,
    initial: HardState,
    members: ConfState,
    /// The snapshot that can be sent to a follower that needs one.
    snapshot: Option<Snapshot>,
    /// The follower for which the core asked for a snapshot that does not exist.
    snapshot_wanted: Cell<Option<u64>>,
}

pub fn entry_bytes(entry: &Entry) -> usize {
    entry.data.len() + entry.context.len() + ENTRY_OVERHEAD_BYTES
}

/// The first entries of at most so many bytes in all, and at least one.
fn within(entries: impl Iterator<Item = Entry>, bytes_max: u64) -> Vec<Entry> {
    let (mut bytes, mut is_first) = (0, true);
    let fits = |entry: &Entry| {
        bytes += entry_bytes(entry) as u64;
        std::mem::take(&mut is_first) || bytes <= bytes_max
    };
    entries.take_while(fits).collect()
}

impl EntryLog {
    /// With what was found behind `truncated`.
    pub fn new(
        truncated: Position,
        found: FoundEntries,
        applied: u64,
        initial: HardState,
        members: ConfState,
    ) -> EntryLog {
        let FoundEntries { evicted: found, entries } = found;
        let evicted_through = truncated.index + found.len() as u64;
        let consecutive = entries.iter().zip(evicted_through + 1..).all(|(entry, index)| entry.index == index);
        assert!(consecutive, "the entries of a log are consecutive");
        assert!((truncated.index == 0) == (truncated.term == 0), "a position has an index and a term, or neither");
        assert!(evicted_through <= applied.max(truncated.index), "what is not applied is in memory");
        let (mut sizes, mut evicted) = (Sizes::with_capacity(found.len() + entries.len()), Terms::default());
        for ((term, bytes), index) in found.into_iter().zip(truncated.index + 1..) {
            sizes.push_back(bytes);
            evicted.push_back(Position { index, term });
        }
        entries.iter().for_each(|entry| sizes.push_back(entry_bytes(entry)));
        EntryLog {
            truncated,
            sizes,
            evicted,
            evicted_through,
            entries: entries.into(),
            applied,
            fetched: Vec::new(),
            wanted: RefCell::default(),
            allowance: Cell::new(usize::MAX),
            delayed: Cell::new(0),
            initial,
            members,
            snapshot: None,
            snapshot_wanted: Cell::new(None),
        }
    }

    pub fn truncated(&self) -> Position {
        self.truncated
    }

    /// Bytes of the whole log.
    pub fn bytes(&self) -> usize {
        self.sizes.total()
    }

    fn evicted_count(&self) -> usize {
        (self.evicted_through - self.truncated.index) as usize
    }

    /// Bytes that the log takes in memory.
    pub fn memory_bytes(&self) -> usize {
        let evicted = self.evicted_count();
        self.bytes() - self.sizes.of_first(evicted) + evicted * ENTRY_OVERHEAD_BYTES
    }

    /// Bytes that would be released if all applied entries were evicted.
    pub fn evictable_bytes(&self) -> usize {
        let (evicted, applied) = (self.evicted_count(), self.count_through(self.applied));
        let bytes = self.sizes.of_first(applied.max(evicted)) - self.sizes.of_first(evicted);
        bytes - applied.saturating_sub(evicted) * ENTRY_OVERHEAD_BYTES
    }

    /// Bytes of the entries above the applied index.
    pub fn unapplied_bytes(&self) -> usize {
        self.bytes_after(self.applied)
    }

    /// Bytes of the entries above `index`.
    pub fn bytes_after(&self, index: u64) -> usize {
        self.bytes() - self.sizes.of_first(self.count_through(index))
    }

    /// The number of the log's entries at or below `index`.
    fn count_through(&self, index: u64) -> usize {
        index.clamp(self.truncated.index, self.last()).saturating_sub(self.truncated.index) as usize
    }

    /// Entries through `index` are applied.
    pub fn applied_through(&mut self, index: u64) {
        assert!(index <= self.last(), "only entries of the log are applied");
        self.applied = self.applied.max(index);
    }

    pub fn last(&self) -> u64 {
        self.truncated.index + self.sizes.count() as u64
    }

    /// Where an entry is in memory; `None` if it is not above the evicted ones.
    fn offset(&self, index: u64) -> Option<usize> {
        index.checked_sub(self.evicted_through + 1).map(|offset| offset as usize)
    }

    pub fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        assert!(first.index > self.truncated.index && first.index <= self.last() + 1, "an append leaves no gap");
        debug_assert!(entries.windows(2).all(|pair| pair[0].index + 1 == pair[1].index), "entries are consecutive");
        debug_assert!(entries.windows(2).all(|pair| pair[0].term <= pair[1].term), "terms only grow");
        assert!(first.index > self.applied, "what is applied stays");
        while self.last() >= first.index {
            self.entries.pop_back().expect("entries that are not applied are in memory");
            self.sizes.pop_back();
        }
        entries.iter().for_each(|entry| self.sizes.push_back(entry_bytes(entry)));
        self.entries.extend(entries.iter().cloned());
        self.check_sizes();
    }

    fn check_sizes(&self) {
        debug_assert_eq!(self.evicted_count() + self.entries.len(), self.sizes.count(), "each entry has a size");
        debug_assert_eq!(
            self.bytes() - self.sizes.of_first(self.evicted_count()),
            self.entries.iter().map(entry_bytes).sum::<usize>(),
            "bytes are accounted"
        );
    }

    /// Evicts entries through `index` at most, which are applied, the oldest first, until so many bytes are released.
    pub fn evict(&mut self, index: u64, bytes: usize) {
        let mut released = 0;
        while released < bytes && self.evicted_through < index {
            let Some(entry) = self.entries.pop_front() else { break };
            released += entry_bytes(&entry) - ENTRY_OVERHEAD_BYTES;
            self.evicted.push_back(Position { index: entry.index, term: entry.term });
            self.evicted_through = entry.index;
        }
        self.shrink();
        self.check_sizes();
    }

    /// Drops entries through `index`, which must be one of the log's.
    pub fn truncate(&mut self, index: u64) {
        assert!(index <= self.last() && index <= self.applied, "truncation stays within what is applied");
        if index > self.truncated.index {
            let term = self.term(index).expect("it is an entry of the log");
            while self.truncated.index < index {
                self.sizes.pop_front();
                self.truncated.index += 1;
            }
            self.truncated.term = term;
            self.evicted.drop_through(index);
            while self.evicted_through < index {
                self.entries.pop_front().expect("index is at most last()");
                self.evicted_through += 1;
            }
        }
        self.shrink();
        self.check_sizes();
        let useless = |snapshot: &Snapshot| snapshot.get_metadata().index < self.truncated.index;
        if self.snapshot.as_ref().is_some_and(useless) {
            self.snapshot = None;
        }
    }

    /// Returns memory to the allocator after many entries were removed.
    fn shrink(&mut self) {
        const COUNT_MIN: usize = 64;
        if self.entries.capacity() > COUNT_MIN.max(4 * self.entries.len()) {
            self.entries.shrink_to(2 * self.entries.len());
        }
    }

    /// Returns all memory that is not in use: nothing is appended for some time.
    pub fn shrink_to_fit(&mut self) {
        self.entries.shrink_to_fit();
        self.sizes.shrink_to_fit();
        self.evicted.shrink_to_fit();
        self.fetched.shrink_to_fit();
    }

    /// Replaces the log by a received snapshot. Returns whether entries above it were dropped.
    pub fn restore(&mut self, position: Position, members: ConfState) -> bool {
        assert!(position.index >= self.truncated.index, "a snapshot does not take the log back");
        assert!(position.term >= self.truncated.term, "terms only grow");
        assert!(!members.voters.is_empty(), "a group has members");
        let dropped_above = self.last() > position.index;
        self.entries.clear();
        self.sizes.clear();
        self.evicted.clear();
        self.evicted_through = position.index;
        self.applied = position.index;
        self.truncated = position;
        self.members = members;
        self.snapshot = None;
        dropped_above
    }

    pub fn offer_snapshot(&mut self, snapshot: Option<Snapshot>) {
        let useful = |offered: &Snapshot| offered.get_metadata().index >= self.truncated.index;
        assert!(snapshot.as_ref().is_none_or(useful), "the log continues where an offered snapshot ends");
        self.snapshot = snapshot;
    }

    pub fn take_snapshot_wanted(&self) -> Option<u64> {
        self.snapshot_wanted.take()
    }

    /// The evicted entries with which the core would have begun appends, since the last call.
    pub fn take_wanted(&self) -> BTreeSet<u64> {
        self.wanted.take()
    }

    /// Limits the bytes that the core gets for appends: when they are used up, it gets no entries.
    pub fn set_allowance(&self, bytes: usize) {
        self.allowance.set(bytes);
    }

    /// Appends for which the core got no entries because of that, since the last call.
    pub fn take_delayed(&self) -> u64 {
        self.delayed.take()
    }

    pub fn is_evicted(&self, index: u64) -> bool {
        index > self.truncated.index && index <= self.evicted_through
    }

    /// The evicted entries from `low` on with at most so many bytes, at least one, and their bytes.
    pub fn evicted_from(&self, low: u64, bytes_max: usize) -> Option<(Range<u64>, usize)> {
        let before = self.count_through(low.checked_sub(1).filter(|_| self.is_evicted(low))?);
        let start = self.sizes.of_first(before);
        let count = self.sizes.fitting(start.saturating_add(bytes_max)).clamp(before + 1, self.evicted_count());
        let high = self.truncated.index + count as u64 + 1;
        Some((low..high, self.sizes.of_first(count) - start))
    }

    /// Makes evicted entries available for the core, until they are taken away again.
    pub fn set_fetched(&mut self, entries: Vec<Entry>) {
        self.fetched = entries;
    }

    fn fetched_from(&self, low: u64) -> Option<&[Entry]> {
        let first = self.fetched.first()?.index;
        low.checked_sub(first).and_then(|offset| self.fetched.get(offset as usize..)).filter(|rest| !rest.is_empty())
    }
}

impl Storage for EntryLog {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(self.initial.clone(), self.members.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        debug_assert!(low <= high, "the start of a range is not above its end");
        if low <= self.truncated.index {
            return Err(StorageError::Compacted.into());
        }
        if high > self.last() + 1 {
            return Err(StorageError::Unavailable.into());
        }
        let is_append = context.can_async();
        if is_append && self.allowance.get() == 0 {
            self.delayed.set(self.delayed.get() + 1);
            return Err(StorageError::LogTemporarilyUnavailable.into());
        }
        let bytes_max = max_size.into().unwrap_or(u64::MAX);
        let count = high.saturating_sub(low) as usize;
        let found = match self.offset(low) {
            Some(start) => within(self.entries.iter().skip(start).take(count).cloned(), bytes_max),
            None => {
                // Every other call is about entries that are not applied.
                assert!(is_append, "only appends to followers need evicted entries");
                let Some(rest) = self.fetched_from(low) else {
                    self.wanted.borrow_mut().insert(low);
                    return Err(StorageError::LogTemporarilyUnavailable.into());
                };
                within(rest.iter().take(count).cloned(), bytes_max)
            }
        };
        if is_append {
            let bytes = found.iter().map(entry_bytes).sum();
            self.allowance.set(self.allowance.get().saturating_sub(bytes));
        }
        Ok(found)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.truncated.index {
            return Ok(self.truncated.term);
        }
        if index < self.truncated.index {
            return Err(StorageError::Compacted.into());
        }
        let term = match self.offset(index) {
            Some(offset) => self.entries.get(offset).map(|entry| entry.term),
            None => self.evicted.term(index),
        };
        term.ok_or(StorageError::Unavailable.into())
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.truncated.index + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<Snapshot> {
        match &self.snapshot {
            Some(snapshot) if snapshot.get_metadata().index >= request_index.max(self.truncated.index) => {
                Ok(snapshot.clone())
            }
            _ => {
                self.snapshot_wanted.set(Some(to));
                Err(StorageError::SnapshotTemporarilyUnavailable.into())
            }
        }
    }
}

#[cfg(test)]
#[path = "log_test.rs"]
mod tests;
