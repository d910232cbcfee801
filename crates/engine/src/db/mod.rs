//! The database: one log, memtables, tables, put together.
//!
//! - `core.rs`: the parts that make up an open database, `close_state.rs` the last of them;
//! - `shared`: what all of them use; `write`: the write path; `jobs`: background work; `lifecycle`: open and close;
//! - `get.rs`, `snapshot.rs`: reading; `ingest`: tables that were built outside;
//! - `foreground.rs`: callers that change files themselves;
//! - `transactions.rs`, `begin_transaction.rs`: what transactions have registered;
//! - `family_changes.rs`, `family_numbers.rs`: column families that come and go; `options.rs`.
//!
//! docs/internals/log.md describes the whole.

mod begin_transaction;
mod close_state;
mod core;
mod family_changes;
mod family_numbers;
mod foreground;
mod get;
mod ingest;
mod jobs;
mod lifecycle;
mod options;
mod shared;
mod snapshot;
mod transactions;
mod write;

pub(crate) use begin_transaction::TransactionStart;
pub(crate) use core::Core;
pub use ingest::{IngestOptions, IngestReport};
pub(crate) use jobs::log_maintenance::LogMaintenance;
pub use options::{MEMORY_BUDGET_BYTES_MIN, Options};
pub(crate) use shared::subscribers::Subscriber;
pub use shared::subscribers::{FeedStats, SubscriberStatus};
pub use snapshot::Snapshot;
pub use transactions::TransactionStats;
pub use write::pressure::DelayReason;
pub use write::throttle::WriteDelays;

use crate::read::ReadState;
use crate::stream::{read_entries, read_stream, scan_entries};
use crate::types::SEQUENCE_NUMBER_MAX;
use crate::{
    Commit, Direction, Durability, Error, Family, Precondition, Range, ReadOptions, Result, Scan, SequenceNumber,
    StreamContents, StreamHead, StreamId, StreamVisitor, View, WriteBatch,
};
use bytes::Bytes;
use kontiki_env::Env;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// An open database. Cheap to clone, shared by threads. The last clone to go closes it, as [`Db::close`] does, but
/// without telling of errors.
#[derive(Clone)]
pub struct Db {
    handle: Arc<Handle>,
}

/// Owned by the clones of a [`Db`] alone: jobs hold the core, so its drop cannot end them.
struct Handle {
    core: Arc<Core>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        // Not waited for: the last clone may be dropped by a job, which the close waits for.
        if let Err(error) = self.core.close().unwrap_or(Ok(())) {
            tracing::warn!(%error, "the database was dropped and could not be closed cleanly");
        }
    }
}

impl Db {
    /// Opens the database in the directory `path` of this machine, or creates it.
    ///
    /// Errors: [`Error::InvalidArgument`] for options out of range, [`Error::InUse`] if it is open elsewhere,
    /// [`Error::Corruption`] and [`Error::UnsupportedFormat`] with file and offset, [`Error::Io`], [`Error::NoSpace`].
    pub fn open(path: impl AsRef<Path>, options: Options) -> Result<Db> {
        Db::open_in(&Env::real(), path.as_ref(), options)
    }

    /// As [`Db::open`], on a machine given by `env`.
    pub fn open_in(env: &Env, path: &Path, options: Options) -> Result<Db> {
        let core = lifecycle::open::open(env, path, options)?;
        Ok(Db { handle: Arc::new(Handle { core }) })
    }

    /// The error that stalls writes: of the last flush or compaction, while commits find no space in memory because of
    /// it. `None` if they find space. A blocking commit returns this error; one that was given to [`Db::submit`] waits.
    /// The call makes flush and compaction try again.
    pub fn write_stall_error(&self) -> Option<Error> {
        let write = &self.core().write;
        if write.memtables.has_capacity() {
            return None;
        }
        // Otherwise only a write would make them try again.
        write.shared.jobs.wake_flush();
        write.shared.jobs.wake_compact();
        write.shared.progress.error()
    }

    /// Sets a key of the default family; durable when it returns ([`Durability::Sync`]).
    ///
    /// Errors: as [`Db::commit`].
    pub fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        self.put_in(Family::DEFAULT, key, value)
    }

    /// Sets a key of a family; durable when it returns.
    ///
    /// Errors: as [`Db::commit`].
    pub fn put_in(&self, family: Family, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        let mut batch = WriteBatch::new();
        batch.put(family, key, value);
        self.write(batch, Durability::Sync).map(drop)
    }

    /// Sets a key of a family for `ttl` from now on, by the wall clock; durable when it returns.
    ///
    /// Errors: as [`Db::commit`].
    pub fn put_with_ttl(
        &self,
        family: Family,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        ttl: Duration,
    ) -> Result<()> {
        let mut batch = WriteBatch::new();
        batch.put_expiring(family, key, value, self.expires_at_ms(ttl));
        self.write(batch, Durability::Sync).map(drop)
    }

    /// The time `ttl` from now, as [`WriteBatch::put_expiring`] takes it: milliseconds of the wall clock since 1970. A
    /// part of a millisecond counts as a whole one.
    pub fn expires_at_ms(&self, ttl: Duration) -> u64 {
        self.core().shared().expires_at_ms(ttl)
    }

    /// The value of a key of the default family.
    ///
    /// Errors: as [`Db::get_in`].
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Bytes>> {
        self.get_in(Family::DEFAULT, key)
    }

    /// The value of a key of a family. It shares the memory of the block or memtable it is in where that costs less
    /// than a copy; so a value kept for long may keep a block.
    ///
    /// Errors: [`Error::InvalidArgument`] for an unknown family, [`Error::Closed`], [`Error::Corruption`] and
    /// [`Error::Io`] from tables and the value log.
    pub fn get_in(&self, family: Family, key: impl AsRef<[u8]>) -> Result<Option<Bytes>> {
        self.core().get(family, key.as_ref())
    }

    /// Whether a family has a key. Its value is not read, if that is in the value log.
    ///
    /// Errors: as [`Db::get_in`].
    pub fn contains(&self, family: Family, key: impl AsRef<[u8]>) -> Result<bool> {
        self.core().contains(family, key.as_ref())
    }

    /// The values of many keys of a family at one moment, in the order of `keys`; cheaper than one by one, as
    /// neighbours share the work.
    ///
    /// Errors: as [`Db::get_in`].
    pub fn multi_get(&self, family: Family, keys: &[impl AsRef<[u8]>]) -> Result<Vec<Option<Bytes>>> {
        self.core().multi_get(family, &keys.iter().map(AsRef::as_ref).collect::<Vec<&[u8]>>())
    }

    /// Removes a key of the default family, if it is there; durable when it returns.
    ///
    /// Errors: as [`Db::commit`].
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<()> {
        self.delete_in(Family::DEFAULT, key)
    }

    /// Removes a key of a family, if it is there; durable when it returns.
    ///
    /// Errors: as [`Db::commit`].
    pub fn delete_in(&self, family: Family, key: impl AsRef<[u8]>) -> Result<()> {
        let mut batch = WriteBatch::new();
        batch.delete(family, key);
        self.write(batch, Durability::Sync).map(drop)
    }

    /// Removes every key of a range of a family, in constant time; durable when it returns.
    ///
    /// Errors: as [`Db::commit`].
    pub fn delete_range(&self, family: Family, range: impl Into<Range>) -> Result<()> {
        let mut batch = WriteBatch::new();
        batch.delete_range(family, range);
        self.write(batch, Durability::Sync).map(drop)
    }

    /// Writes a batch and waits until it is visible and as durable as asked. See [`Db::commit`].
    pub fn write(&self, batch: WriteBatch, durability: Durability) -> Result<SequenceNumber> {
        self.commit(Commit::new(batch, durability))
    }

    /// Writes a batch if every condition holds at that moment, else answers [`Error::Conflict`] with the key of one
    /// that does not. Checking and writing are one step: no other write of the keys comes in between.
    pub fn write_if(
        &self,
        batch: WriteBatch,
        conditions: &[Precondition],
        durability: Durability,
    ) -> Result<SequenceNumber> {
        self.core().write_if(&batch, conditions, durability)
    }

    /// Commits and waits until the commit is visible and as durable as asked; returns its sequence number (without a
    /// batch: one that was visible then). Waits also for space in memory.
    ///
    /// [`Error::Conflict`] if one of its conditions ([`crate::Unchanged`]) does not hold: nothing was written.
    ///
    /// Errors: [`Error::InvalidArgument`], [`Error::NoSpace`] (nothing was written, try again later),
    /// [`Error::Stopped`], [`Error::Closed`]. [`Error::Io`]: writes have stopped, and whether this commit survives a
    /// restart is unknown.
    pub fn commit(&self, commit: Commit) -> Result<SequenceNumber> {
        self.core().write.commit(commit)
    }

    /// As [`Db::commit`], without blocking: `done` is called exactly once with the answer, on whichever thread has it,
    /// possibly before this returns. Answers to logged commits come in the order of submission, those to derived
    /// commits among themselves too. `done` must be short and must not make blocking calls of this database;
    /// submitting is fine. The caller bounds how much it has submitted.
    pub fn submit(&self, commit: Commit, done: Box<dyn FnOnce(Result<SequenceNumber>) + Send>) {
        self.core().write.submit(commit, done);
    }

    /// The database as it is now: every commit that was answered before is in it.
    pub fn snapshot(&self) -> Snapshot {
        let (state, sequence) = self.core().write.memtables.read_point();
        Snapshot::new(state, sequence)
    }

    /// The entries of a range of the default family as they are now, by ascending key: an iterator.
    ///
    /// Errors: as [`Db::scan`]; the iterator gives those that it meets, and ends.
    pub fn range(&self, range: impl Into<Range>) -> Result<Scan> {
        self.range_in(Family::DEFAULT, range)
    }

    /// As [`Db::range`], of any family.
    pub fn range_in(&self, family: Family, range: impl Into<Range>) -> Result<Scan> {
        self.scan(family, range, Direction::Forward, ReadOptions::default())
    }

    /// The entries of a range as they are now, in either direction: an iterator that can also lend its entries, see
    /// [`Scan`].
    ///
    /// Errors: [`Error::InvalidArgument`] for an unknown family, [`Error::Closed`],
    /// [`Error::Corruption`] and [`Error::Io`] from tables.
    pub fn scan(
        &self,
        family: Family,
        range: impl Into<Range>,
        direction: Direction,
        options: ReadOptions,
    ) -> Result<Scan> {
        self.core().shared().health.check_open()?;
        self.snapshot().scan_range(family, range.into(), direction, options)
    }

    /// Only what tables hold: what a crash cannot take away even if it was never in the log.
    pub fn flushed_view(&self) -> Box<dyn View> {
        let (state, _) = self.core().write.memtables.read_point();
        let flushed = ReadState { memtables: Vec::new(), dead: None, ..(*state).clone() };
        Box::new(Snapshot::new(Arc::new(flushed), SEQUENCE_NUMBER_MAX))
    }

    /// Every write at or below this number is in tables. [`Db::flushed_view`] is as it was as long as this is the same
    /// and no table was ingested.
    pub fn flushed_sequence(&self) -> SequenceNumber {
        self.core().write.memtables.read_point().0.version.flushed_sequence()
    }

    /// The streams that exist, in order.
    pub fn streams(&self) -> Vec<StreamId> {
        self.core().write.log.streams.lock().ids()
    }

    /// The index of a stream's last entry, without a read: of what it is truncated through if there are no entries; 0
    /// of an unknown one.
    pub fn stream_last_index(&self, id: StreamId) -> u64 {
        self.core().write.log.streams.lock().last_index(id)
    }

    /// Reads a stream from the log; an unknown one is empty.
    pub fn stream(&self, id: StreamId) -> Result<StreamContents> {
        self.core().shared().health.check_open()?;
        let log = &self.core().write.log;
        let contents = read_stream(&log.streams, &log.segments, id);
        // After the close another database may have recycled the segments: what was read is not to be trusted then.
        self.core().shared().health.check_open()?;
        contents
    }

    /// Reads the entries of a stream that exist in a range of indices, from its first one on; nothing if that one does
    /// not exist. Reads no more of the log than that, and blocks on the disk.
    pub fn stream_entries(&self, id: StreamId, range: std::ops::Range<u64>) -> Result<Vec<Bytes>> {
        self.core().shared().health.check_open()?;
        let log = &self.core().write.log;
        let entries = read_entries(&log.streams, &log.segments, id, range);
        // See `stream`.
        self.core().shared().health.check_open()?;
        entries
    }

    /// The streams that exist, in order, each with what is known of it without a read.
    pub fn stream_heads(&self) -> Vec<(StreamId, StreamHead)> {
        self.core().write.log.streams.lock().heads()
    }

    /// Passes every entry of every stream to `visit`, until it breaks. Reads the log once, each record with all entries
    /// that it has, however many streams there are, and has no more of it in memory than one record and 512 KiB; blocks
    /// on the disk.
    ///
    /// The entries come in the order of the log. This is that of the indices of a stream, except for entries that were
    /// written again when their segment was deleted. An entry for which this happens meanwhile comes twice. What is
    /// appended or truncated meanwhile may come or not.
    pub fn scan_streams(&self, visit: &mut StreamVisitor<'_>) -> Result<()> {
        self.core().shared().health.check_open()?;
        let log = &self.core().write.log;
        let scanned = scan_entries(&log.streams, &log.segments, visit);
        // See `stream`.
        self.core().shared().health.check_open()?;
        scanned
    }

    /// Moves everything written so far from memory to tables, syncs the log (for streams, which stay there), and waits
    /// for both: afterwards everything that was acknowledged before survives power loss.
    pub fn flush(&self) -> Result<()> {
        self.core().write.flush_all()
    }

    /// Flushes, merges everything of every family down into one level, and waits for that.
    pub fn compact(&self) -> Result<()> {
        self.flush()?;
        let shared = self.core().shared();
        let ticket = shared.progress.update(|progress| {
            progress.compactions_requested += 1;
            progress.compactions_requested
        });
        shared.jobs.wake_compact();
        shared.wait_for(|progress| {
            if progress.compactions_done >= ticket {
                return Some(progress.full_compaction_error.clone().map_or(Ok(()), Err));
            }
            shared.health.check_writable().err().map(Err)
        })
    }

    /// Checks, with two system calls, that the directory is still there. A database also does so by itself from time to
    /// time; a file that is open can be written to and synced after it was removed.
    ///
    /// Errors: [`Error::DirectoryLost`] if it was removed, moved or replaced, which stops writes; [`Error::Stopped`] if
    /// writes have stopped before; [`Error::ReadOnly`]; [`Error::Closed`].
    pub fn check_directory(&self) -> Result<()> {
        self.core().check_directory()
    }

    /// Ends background work, seals the log, and releases the directory. Memtables are not flushed: the log has them.
    /// Further calls, of other clones too, answer [`Error::Closed`], and so do reads of snapshots and scans that were
    /// made before. A second call, of another clone, waits for the first.
    pub fn close(self) -> Result<()> {
        let core = self.core();
        match core.close() {
            Some(result) => result,
            None => {
                core.close_state.wait_until_closed();
                Ok(())
            }
        }
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.handle.core
    }
}

impl std::fmt::Debug for Db {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Db").field("directory", &self.core().shared().directory).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
