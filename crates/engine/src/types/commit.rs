//! What goes through the one write path: a batch, and operations on log streams.
//!
//! A *stream* is a sequence of opaque entries with consecutive indices that lives in the one log only (a raft
//! group's log is one). The engine keeps a stream's entries above its truncation mark, and its latest state blob,
//! across crashes; it never looks inside. The log's retention rule is in docs/internals/log.md.

use crate::{Family, Range, SequenceNumber, WriteBatch};
use bytes::Bytes;
use std::ops::ControlFlow;

/// Names a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u64);

/// What an acknowledgement of a commit means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Survives power loss (the default).
    Sync,
    /// Survives a killed process: it is in the operating system.
    Buffered,
    /// Not logged: the caller can derive the batch again from a stream or a snapshot file it keeps until the batch
    /// has been flushed (the apply of replicated entries). Such a commit holds no stream operations.
    Derived,
}

/// One operation on a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamOp {
    /// Puts `entries` at `first_index` and the following indices, and drops whatever was at or above `first_index`.
    /// `first_index` is at most one past the last entry and above the truncation mark.
    Append {
        /// The stream.
        stream: StreamId,
        /// Index of the first entry.
        first_index: u64,
        /// Opaque entries.
        entries: Vec<Bytes>,
    },
    /// Replaces the stream's state blob (at most 64 KiB).
    State {
        /// The stream.
        stream: StreamId,
        /// Opaque.
        state: Bytes,
    },
    /// Drops every entry at or below `through_index`; indices may jump forward past the last entry (a snapshot).
    Truncate {
        /// The stream.
        stream: StreamId,
        /// The new truncation mark: the next append may start at `through_index + 1`.
        through_index: u64,
    },
    /// Forgets the stream.
    Remove {
        /// The stream.
        stream: StreamId,
    },
}

impl StreamOp {
    /// The stream it is about.
    pub fn stream(&self) -> StreamId {
        match self {
            StreamOp::Append { stream, .. }
            | StreamOp::State { stream, .. }
            | StreamOp::Truncate { stream, .. }
            | StreamOp::Remove { stream } => *stream,
        }
    }
}

/// What recovery found of a stream, or what a read of it returns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamContents {
    /// Entries at or below this index are gone.
    pub truncated_through: u64,
    /// The latest state blob, empty if none was written.
    pub state: Bytes,
    /// The entries from `truncated_through + 1` on, consecutive.
    pub entries: Vec<Bytes>,
}

/// What is known of a stream without a read of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamHead {
    /// Entries at or below this index are gone.
    pub truncated_through: u64,
    /// The latest state blob, empty if none was written.
    pub state: Bytes,
    /// The index of the last entry; `truncated_through` if there are none.
    pub last_index: u64,
}

/// Is given stream, index and bytes of one entry after the other, until it breaks.
pub type StreamVisitor<'a> = dyn FnMut(StreamId, u64, &[u8]) -> ControlFlow<()> + 'a;

/// A condition of a commit: no write by others since a moment that the caller has read at.
///
/// Keep the [`Snapshot`](crate::Snapshot) or transaction that the number is of until the commit is answered: while it
/// is there, compaction forgets no deletion since. For a number that is no longer held the condition counts as broken
/// if a deletion since then may have been forgotten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unchanged {
    /// This key was not written (put, deleted, range-deleted) by a commit with a larger sequence number than `since`.
    Key {
        /// Its family.
        family: Family,
        /// The key.
        key: Bytes,
        /// A snapshot's number.
        since: SequenceNumber,
    },
    /// The same of every key in a range, those that did not exist then included: no phantoms.
    Range {
        /// Its family.
        family: Family,
        /// The range.
        range: Range,
        /// A snapshot's number.
        since: SequenceNumber,
    },
}

impl Unchanged {
    /// The family it is about.
    pub fn family(&self) -> Family {
        match self {
            Unchanged::Key { family, .. } | Unchanged::Range { family, .. } => *family,
        }
    }

    /// The number that no later write may exceed.
    pub fn since(&self) -> SequenceNumber {
        match self {
            Unchanged::Key { since, .. } | Unchanged::Range { since, .. } => *since,
        }
    }

    /// The key, or the start of the range: what a conflict names when it is not known which key was written.
    pub(crate) fn named_key(&self) -> Bytes {
        match self {
            Unchanged::Key { key, .. } => key.clone(),
            Unchanged::Range { range, .. } => range.start.clone().unwrap_or_default(),
        }
    }
}

/// A condition of `Db::write_if` on what a key of a family holds when the batch is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// The key is not there.
    Absent {
        /// Its family.
        family: Family,
        /// The key.
        key: Bytes,
    },
    /// The key is there, whatever its value.
    Present {
        /// Its family.
        family: Family,
        /// The key.
        key: Bytes,
    },
    /// The key is there with this value.
    Equals {
        /// Its family.
        family: Family,
        /// The key.
        key: Bytes,
        /// The value.
        value: Bytes,
    },
}

impl Precondition {
    /// The family and key it is about.
    pub fn key(&self) -> (Family, &Bytes) {
        match self {
            Precondition::Absent { family, key }
            | Precondition::Present { family, key }
            | Precondition::Equals { family, key, .. } => (*family, key),
        }
    }

    /// Whether it holds for a key with this value.
    pub fn holds(&self, found: Option<&[u8]>) -> bool {
        match self {
            Precondition::Absent { .. } => found.is_none(),
            Precondition::Present { .. } => found.is_some(),
            Precondition::Equals { value, .. } => found == Some(value.as_ref()),
        }
    }
}

/// One atomic write: after any crash all of it is there or none.
#[derive(Clone, Debug)]
pub struct Commit {
    /// Key-value operations; may be empty.
    pub batch: WriteBatch,
    /// Stream operations, in order; may be empty.
    pub streams: Vec<StreamOp>,
    /// When to acknowledge.
    pub durability: Durability,
    /// What must not have been written meanwhile: checked at the moment that gives the commit its place in history. If
    /// it was, the commit is refused with [`crate::Error::Conflict`] and has no effect. Not for derived commits.
    pub unchanged: Vec<Unchanged>,
}

impl Commit {
    /// A batch without stream operations and conditions.
    pub fn new(batch: WriteBatch, durability: Durability) -> Commit {
        Commit { batch, streams: Vec::new(), durability, unchanged: Vec::new() }
    }
}
