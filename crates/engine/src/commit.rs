//! What goes through the one write path: a batch, and operations on log streams.
//!
//! A *stream* is a sequence of opaque entries with consecutive indices that lives in the one log only (a raft
//! group's log is one). The engine keeps a stream's entries above its truncation mark, and its latest state blob,
//! across crashes; it never looks inside. The log's retention rule is in docs/internals/log.md.

use crate::WriteBatch;
use bytes::Bytes;

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

/// One atomic write: after any crash all of it is there or none.
#[derive(Clone, Debug)]
pub struct Commit {
    /// Key-value operations; may be empty.
    pub batch: WriteBatch,
    /// Stream operations, in order; may be empty.
    pub streams: Vec<StreamOp>,
    /// When to acknowledge.
    pub durability: Durability,
}
