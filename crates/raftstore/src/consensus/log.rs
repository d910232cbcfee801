//! A group's log in memory: the raft crate's storage.
//!
//! All entries above the truncation mark are here, so no method of the storage can fail, and the core never sees a
//! storage error. Durability is the caller's responsibility: entries are here as soon as a Ready is taken, and raft is
//! notified of their persistence later.
//!
//! Invariants: entries are consecutive from `truncated.index + 1`; `bytes` is the sum of their accounted sizes, and
//! `unapplied_bytes` of those above `applied`.

use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};
use std::cell::Cell;
use std::collections::VecDeque;

/// Accounted size of an entry beyond its payload.
pub(super) const ENTRY_OVERHEAD_BYTES: usize = 64;

/// Index and term of one position of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Index.
    pub index: u64,
    /// Term.
    pub term: u64,
}

pub(super) struct EntryLog {
    truncated: Position,
    entries: VecDeque<Entry>,
    bytes: usize,
    applied: u64,
    unapplied_bytes: usize,
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

impl EntryLog {
    pub fn new(
        truncated: Position,
        entries: Vec<Entry>,
        applied: u64,
        initial: HardState,
        members: ConfState,
    ) -> EntryLog {
        let bytes = entries.iter().map(entry_bytes).sum();
        let unapplied_bytes = entries.iter().filter(|entry| entry.index > applied).map(entry_bytes).sum();
        let consecutive = entries.iter().zip(truncated.index + 1..).all(|(entry, index)| entry.index == index);
        assert!(consecutive, "the entries of a log are consecutive");
        assert!((truncated.index == 0) == (truncated.term == 0), "a position has an index and a term, or neither");
        let entries = entries.into();
        let (snapshot, snapshot_wanted) = (None, Cell::new(None));
        EntryLog { truncated, entries, bytes, applied, unapplied_bytes, initial, members, snapshot, snapshot_wanted }
    }

    pub fn truncated(&self) -> Position {
        self.truncated
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of the entries above the applied index.
    pub fn unapplied_bytes(&self) -> usize {
        self.unapplied_bytes
    }

    /// Entries through `index` are applied.
    pub fn applied_through(&mut self, index: u64) {
        assert!(index <= self.last(), "only entries of the log are applied");
        while self.applied < index {
            self.applied += 1;
            let entry = self.offset(self.applied).and_then(|offset| self.entries.get(offset));
            self.unapplied_bytes -= entry.map_or(0, entry_bytes);
        }
    }

    pub fn last(&self) -> u64 {
        self.truncated.index + self.entries.len() as u64
    }

    fn offset(&self, index: u64) -> Option<usize> {
        index.checked_sub(self.truncated.index + 1).map(|offset| offset as usize)
    }

    pub fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        assert!(first.index > self.truncated.index && first.index <= self.last() + 1, "an append leaves no gap");
        debug_assert!(entries.windows(2).all(|pair| pair[0].index + 1 == pair[1].index), "entries are consecutive");
        debug_assert!(entries.windows(2).all(|pair| pair[0].term <= pair[1].term), "terms only grow");
        while self.last() >= first.index {
            let dropped = self.entries.pop_back().expect("last() counts these entries");
            assert!(dropped.index > self.applied, "what is applied stays");
            self.bytes -= entry_bytes(&dropped);
            self.unapplied_bytes -= entry_bytes(&dropped);
        }
        let added = entries.iter().map(entry_bytes).sum::<usize>();
        self.bytes += added;
        self.unapplied_bytes += added;
        self.entries.extend(entries.iter().cloned());
        debug_assert_eq!(self.bytes, self.entries.iter().map(entry_bytes).sum::<usize>(), "bytes are accounted");
    }

    /// Drops entries through `index`, which must be one of the log's.
    pub fn truncate(&mut self, index: u64) {
        assert!(index <= self.last() && index <= self.applied, "truncation stays within what is applied");
        while self.truncated.index < index {
            let dropped = self.entries.pop_front().expect("index is at most last()");
            self.bytes -= entry_bytes(&dropped);
            self.truncated = Position { index: dropped.index, term: dropped.term };
        }
        debug_assert_eq!(self.bytes, self.entries.iter().map(entry_bytes).sum::<usize>(), "bytes are accounted");
        let useless = |snapshot: &Snapshot| snapshot.get_metadata().index < self.truncated.index;
        if self.snapshot.as_ref().is_some_and(useless) {
            self.snapshot = None;
        }
    }

    /// Replaces the log by a received snapshot. Returns whether entries above it were dropped.
    pub fn restore(&mut self, position: Position, members: ConfState) -> bool {
        assert!(position.index >= self.truncated.index, "a snapshot does not take the log back");
        assert!(position.term >= self.truncated.term, "terms only grow");
        assert!(!members.voters.is_empty(), "a group has members");
        let dropped_above = self.last() > position.index;
        self.entries.clear();
        (self.bytes, self.unapplied_bytes) = (0, 0);
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

    /// Whether the entries above `index` are more than so many bytes.
    pub fn has_more_than(&self, bytes: usize, index: u64) -> bool {
        let above = self.entries.iter().rev().take_while(|entry| entry.index > index);
        let mut sum = 0;
        above.map(entry_bytes).any(|entry| {
            sum += entry;
            sum > bytes
        })
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
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        debug_assert!(low <= high, "the start of a range is not above its end");
        let Some(start) = self.offset(low) else { return Err(StorageError::Compacted.into()) };
        if high > self.last() + 1 {
            return Err(StorageError::Unavailable.into());
        }
        let bytes_max = max_size.into().unwrap_or(u64::MAX);
        let count = high.saturating_sub(low) as usize;
        let mut bytes = 0u64;
        let mut found = Vec::new();
        for entry in self.entries.iter().skip(start).take(count) {
            bytes += entry_bytes(entry) as u64;
            if bytes > bytes_max && !found.is_empty() {
                break;
            }
            found.push(entry.clone());
        }
        Ok(found)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.truncated.index {
            return Ok(self.truncated.term);
        }
        let Some(offset) = self.offset(index) else { return Err(StorageError::Compacted.into()) };
        self.entries.get(offset).map(|entry| entry.term).ok_or(StorageError::Unavailable.into())
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
