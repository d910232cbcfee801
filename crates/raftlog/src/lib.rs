//! Where the raft logs of a store's regions are kept, and beside each log its state (term, vote, truncation mark).
//!
//! raftstore asks for one durable [`Commit`] a poll: stream operations of any number of regions and, rarely, a batch of
//! the state machine. [`RaftLog`] is what performs it. There are three:
//!
//! | choice | where | a commit is |
//! |---|---|---|
//! | [`LogChoice::Shared`] | streams of the engine's own log | one record and one sync, for all regions |
//! | [`LogChoice::PerGroup`] | a file for each region, see [`groups`](crate::LogChoice::PerGroup) | a record and a sync for each region |
//! | [`LogChoice::Memory`] | nowhere: for tests | nothing |
//!
//! A directory records its choice; [`open`] converts it to another one, crash-safely. The design, with what was
//! rejected, is in docs/internals/raft-log-storage.md; the bytes are in docs/formats/raft-log-file.md.
//!
//! # What every implementation guarantees
//! 1. When a commit is answered with `Ok`, all of it survives a power loss ([`LogChoice::Memory`] excepted).
//! 2. After a crash each region has its part of the last commit as a whole, or not at all; if the commit has a batch or
//!    removes a log, this holds for all of it together, the batch included.
//! 3. A commit that is refused with a retryable error has had no effect, and may be repeated as it is.
//! 4. After any other error nothing more is written.
//! 5. What was durable once and cannot be read any more is reported as damage, never taken for the end of a log. The
//!    exception is the last commit of a region before an unclean end: it looks like one that a crash has torn.
//!
//! Does not know: what entries and states contain, consensus, regions.
#![deny(missing_docs)]
#![forbid(unsafe_code)]

mod choice;
#[cfg(test)]
mod conformance_test;
mod groups;
mod memory;
mod open;
mod ops;
pub mod planted;
mod record;
mod shared;
mod stopped;

pub use choice::{FileOptions, LogChoice, UnknownChoice};
pub use groups::{DIRECTORY, FilesChecked, LogFileProblem};
pub use memory::MemoryLog;
pub use open::{OpenError, open};
pub use record::Place;
pub use shared::SharedLog;
pub use stopped::{StoppedLogs, check_files};

/// For fuzz targets.
#[doc(hidden)]
pub mod internals {
    pub use crate::groups::{file_of, read_file};
}

use bytes::Bytes;
use kontiki_engine::{Commit, Result, StreamContents, StreamHead, StreamId, StreamVisitor};
use std::ops::Range;

/// Called once, with the outcome of a commit; dropped without a call if the log is stopped before.
pub type Done = Box<dyn FnOnce(Result<()>) + Send>;

/// The storage of raft logs. See the guarantees of the crate.
///
/// Commits have one caller, which keeps the next one back until the last is answered: the driver's persist lane.
pub trait RaftLog: Send + Sync {
    /// Which one it is.
    fn choice(&self) -> LogChoice;

    /// The logs that exist, in order.
    fn ids(&self) -> Vec<StreamId>;

    /// Reads a log and its state; an unknown one is empty. Blocks on the disk.
    fn read(&self, id: StreamId) -> Result<StreamContents>;

    /// Reads the entries that exist in a range of indices, from its first one on; nothing if that one does not exist.
    /// Blocks on the disk.
    fn entries(&self, id: StreamId, range: Range<u64>) -> Result<Vec<Bytes>>;

    /// What is known of each log without its entries, in the order of their ids. Blocks on the disk.
    fn heads(&self) -> Result<Vec<(StreamId, StreamHead)>> {
        let head = |id| {
            let contents = self.read(id)?;
            let last_index = contents.truncated_through + contents.entries.len() as u64;
            let (truncated_through, state) = (contents.truncated_through, contents.state);
            Ok((id, StreamHead { truncated_through, state, last_index }))
        };
        self.ids().into_iter().map(head).collect()
    }

    /// Passes every entry of every log to `visit`, in any order and at least once, until it breaks. Blocks on the disk.
    fn scan(&self, visit: &mut StreamVisitor<'_>) -> Result<()> {
        for id in self.ids() {
            let contents = self.read(id)?;
            for (index, entry) in (contents.truncated_through + 1..).zip(&contents.entries) {
                if visit(id, index, entry).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Writes a `Sync` commit: its stream operations here, its batch to the engine. Never blocks; `done` is called on
    /// another thread, or on this one before it returns.
    fn submit(&self, commit: Commit, done: Done);

    /// The same, and waits. For starts, when no other commit is in flight.
    fn commit(&self, commit: Commit) -> Result<()>;

    /// What it takes of the machine; zeros where the engine's own figures say it.
    fn usage(&self) -> LogUsage;

    /// Stops: nothing is written any more when this returns, and commits that wait are dropped.
    fn stop(&self);

    /// Stops, as a clean end does: what was durable is recorded as such, as far as the disk permits.
    fn close(&self);
}

/// What logs in files of their own take, and did since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogUsage {
    /// Files.
    pub files: u64,
    /// Their bytes, with the space that is allocated ahead.
    pub bytes: u64,
    /// Files that are open for writing.
    pub open_files: u64,
    /// Syncs of files.
    pub syncs: u64,
    /// Files that were written again without what is truncated.
    pub rewrites: u64,
    /// The bytes that this has written.
    pub rewritten_bytes: u64,
}
