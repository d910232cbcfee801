//! Where the data of the replicated state machine is kept: what is applied of committed entries, the regions'
//! descriptors and applied positions, and what a node records of itself.
//!
//! [`StateEngine`] is all that the layers above ask of it; [`BuiltIn`] is the engine of this project. The design, with
//! what was rejected, is in docs/internals/state-engine.md.
//!
//! # What every implementation guarantees
//! 1. A commit is atomic: a view has all of it or nothing, and so has the directory after any crash.
//! 2. Commits take effect in the order in which they were begun, and a commit that was answered is in every later view.
//! 3. After a crash every answered [`Durability::Sync`] commit is there, and of the [`Durability::Derived`] ones a
//!    prefix: never one without all that were answered before it. Nothing that was flushed is missing.
//! 4. [`StateEngine::flushed_view`] has nothing that a crash could take away.
//! 5. A view never changes, whatever is written, flushed, compacted or taken in.
//!
//! Does not know: regions, consensus, transactions, raft logs.
#![deny(missing_docs)]
#![forbid(unsafe_code)]

mod built_in;
mod choice;
#[cfg(test)]
mod conformance_test;
pub mod planted;
mod view;

pub use built_in::BuiltIn;
pub use choice::StateChoice;
pub use view::{StateSnapshot, StateView};

use kontiki_engine::{Db, Durability, Error, Family, Range, Result, SequenceNumber, Stats, View, WriteBatch};
use std::path::Path;

/// Called once, with the outcome of a commit.
pub type Done = Box<dyn FnOnce(Result<()>) + Send>;

/// The storage of the state machine. See the guarantees of the crate.
pub trait StateEngine: Send + Sync {
    /// Which one it is.
    fn choice(&self) -> StateChoice;

    /// The data as they are now: every commit that was answered before is in it. Never blocks.
    fn snapshot(&self) -> StateView;

    /// Commits a batch, and waits until it is visible and as durable as asked ([`Durability::Buffered`] may be treated
    /// as `Sync`). Waits also for space in memory.
    fn commit(&self, batch: WriteBatch, durability: Durability) -> Result<()>;

    /// The same without waiting: `done` is called exactly once, on any thread, possibly before this returns. A refused
    /// commit with a retryable error has had no effect.
    fn submit(&self, batch: WriteBatch, durability: Durability, done: Done);

    /// Makes everything that was answered so far durable, in tables, and waits for that.
    fn flush(&self) -> Result<()>;

    /// Only what is in tables: what no crash takes away, though it was never logged. It may have less than tables have.
    fn flushed_view(&self) -> Box<dyn View>;

    /// Changes, upwards, whenever [`StateEngine::flushed_view`] does, except by [`TableSet::ingest`].
    fn flushed_sequence(&self) -> SequenceNumber;

    /// Begins tables that are built beside the data, in an empty directory that nothing else uses, each of about
    /// `table_bytes`. `None`: this engine takes in none, and the caller commits everything.
    fn build_tables(&self, directory: &Path, table_bytes: u64) -> Option<Box<dyn TableSet>>;

    /// Whether it has this family.
    fn has_family(&self, family: Family) -> bool;

    /// Merges what a family has in a range, and waits for that. Blocks on the disk for long.
    fn compact_range(&self, family: Family, range: Range) -> Result<()>;

    /// Whether compaction asks the filter of the options it was opened with.
    fn filters(&self) -> bool;

    /// The error because of which commits find no space in memory, if they find none.
    fn write_stall_error(&self) -> Option<Error>;

    /// Checks that the directory is still there, see [`Db::check_directory`].
    fn check_directory(&self) -> Result<()>;

    /// What it says of itself.
    fn stats(&self) -> StateStats;

    /// The built-in engine, if it is that: for raft logs in its log, and for what only it has.
    fn built_in(&self) -> Option<&Db>;

    /// Ends background work and releases the directory, see [`Db::close`]. What is `Derived` and not flushed is gone.
    fn close(&self) -> Result<()>;
}

/// Tables that are built outside, to replace a range that was deleted before. Dropped: what was built is removed.
pub trait TableSet {
    /// Whether a value of so many bytes may be in a table. If not, it is committed, after the tables are taken in.
    fn takes(&self, family: Family, value_bytes: usize) -> bool;

    /// Adds an entry, which may expire at a time in milliseconds of the wall clock since 1970. Families and keys ascend
    /// over all calls. Changes nothing that a reader sees.
    fn add(&mut self, family: Family, key: &[u8], value: &[u8], expires_at_ms: Option<u64>) -> Result<()>;

    /// Flushes what was committed before, and takes in the tables, as one write that is durable at return: so history
    /// keeps its order after a crash. Returns the bytes of the tables; does nothing if nothing was added.
    fn ingest(&mut self) -> Result<u64>;
}

/// What an engine says of itself.
#[derive(Debug, Default)]
pub struct StateStats {
    /// Bytes of its tables and its log.
    pub disk_bytes: u64,
    /// Bytes of its log: what a start reads.
    pub log_bytes: u64,
    /// All figures, of the built-in engine.
    pub built_in: Option<Box<Stats>>,
}
