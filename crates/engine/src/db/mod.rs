//! The database: one log, memtables, tables, put together.
//!
//! - [`open`](Db::open) (`open.rs`): lock, manifest, log replay, jobs;
//! - the write path: `submit.rs` (entry), `throttle.rs` and `pressure.rs` (writers are slowed), `lead.rs` (groups),
//!   `queue.rs`, `writes.rs` (numbers, memtables, publication), `completion.rs`;
//! - the jobs (`background.rs`): `commit`, `flush` (which also maintains the log), `compact`;
//! - `core.rs`: what they share, and the order of locks;
//! - `families.rs`: column families that come and go; `read_only.rs`: open for reading only;
//! - `ingest.rs`, `ingest_files.rs`: tables that were built outside;
//! - `compact_range.rs`: a compaction on its caller's thread; `dead.rs`: compactions that scans ask for; `idle.rs`:
//!   what is freed when there are no writes;
//! - `snapshot.rs`, `counters.rs`, `options.rs`.
//!
//! docs/internals/log.md describes the whole.

mod background;
mod compact_range;
mod completion;
mod conditions;
mod core;
mod counters;
mod dead;
mod descriptors;
mod families;
mod idle;
mod ingest;
mod ingest_files;
mod keep;
mod lead;
mod log_watch;
pub(crate) mod open;
mod options;
mod order;
mod panics;
mod pressure;
mod queue;
mod read_only;
mod snapshot;
mod stalls;
mod submit;
mod sync;
mod throttle;
mod values;
mod writes;

pub(crate) use conditions::TransactionStart;
pub(crate) use core::Core;
pub use ingest::{IngestOptions, IngestReport};
pub use options::{MEMORY_BUDGET_BYTES_MIN, Options};
pub use pressure::DelayReason;
pub use snapshot::Snapshot;
pub use throttle::WriteDelays;

use crate::read::ReadState;
use crate::stream::read_stream;
use crate::types::SEQUENCE_NUMBER_MAX;
use crate::{
    Commit, Direction, Durability, Error, Family, Precondition, Range, ReadOptions, Result, Scan, SequenceNumber,
    StreamContents, StreamId, View, WriteBatch,
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
        let core = open::open(env, path, options)?;
        Ok(Db { handle: Arc::new(Handle { core }) })
    }

    /// Why commits get no space in memory: the last failure of a flush or a compaction, for as long as there is none. A
    /// blocking commit is answered with it; one that was given to [`Db::submit`] waits on. Makes them try again.
    pub fn room_refused(&self) -> Option<Error> {
        let core = self.core();
        if core.writes.has_room() {
            return None;
        }
        // Otherwise only a write would make them try again.
        core.wake_flush();
        core.wake_compact();
        core.background_error()
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
        self.core().expires_at_ms(ttl)
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
        self.core().commit(commit)
    }

    /// As [`Db::commit`], without blocking: `done` is called exactly once with the answer, on whichever thread has it,
    /// possibly before this returns. Answers to logged commits come in the order of submission, those to derived
    /// commits among themselves too. `done` must be short and must not make blocking calls of this database;
    /// submitting is fine. The caller bounds how much it has submitted.
    pub fn submit(&self, commit: Commit, done: Box<dyn FnOnce(Result<SequenceNumber>) + Send>) {
        self.core().submit(commit, done);
    }

    /// The database as it is now: every commit that was answered before is in it.
    pub fn snapshot(&self) -> Snapshot {
        let (state, sequence) = self.core().writes.read_point();
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
        self.core().check_open()?;
        self.snapshot().scan_range(family, range.into(), direction, options)
    }

    /// Only what tables hold: what a crash cannot take away even if it was never in the log.
    pub fn flushed_view(&self) -> Box<dyn View> {
        let (state, _) = self.core().writes.read_point();
        let flushed = ReadState { memtables: Vec::new(), dead: None, ..(*state).clone() };
        Box::new(Snapshot::new(Arc::new(flushed), SEQUENCE_NUMBER_MAX))
    }

    /// The streams that exist, in order.
    pub fn streams(&self) -> Vec<StreamId> {
        self.core().streams.lock().ids()
    }

    /// The index of a stream's last entry, without a read: of what it is truncated through if there are no entries; 0
    /// of an unknown one.
    pub fn stream_last_index(&self, id: StreamId) -> u64 {
        self.core().streams.lock().last_index(id)
    }

    /// Reads a stream from the log; an unknown one is empty.
    pub fn stream(&self, id: StreamId) -> Result<StreamContents> {
        self.core().check_open()?;
        let contents = read_stream(&self.core().streams, &self.core().segments, id);
        // After the close another database may have recycled the segments: what was read is not to be trusted then.
        self.core().check_open()?;
        contents
    }

    /// Moves everything written so far from memory to tables, syncs the log (for streams, which stay there), and waits
    /// for both: afterwards everything that was acknowledged before survives power loss.
    pub fn flush(&self) -> Result<()> {
        self.core().flush_all()
    }

    /// Flushes, merges everything of every family down into one level, and waits for that.
    pub fn compact(&self) -> Result<()> {
        self.flush()?;
        let core = self.core();
        let ticket = core.progress.update(|progress| {
            progress.compactions_asked += 1;
            progress.compactions_asked
        });
        core.wake_compact();
        core.wait_for(|progress| {
            if progress.compactions_done >= ticket {
                return Some(progress.full_compaction_error.clone().map_or(Ok(()), Err));
            }
            core.check_writable().err().map(Err)
        })
    }

    /// Ends background work, seals the log, and releases the directory. Memtables are not flushed: the log has them.
    /// Further calls, of other clones too, answer [`Error::Closed`], and so do reads of snapshots and scans that were
    /// made before. A second call, of another clone, waits for the first.
    pub fn close(self) -> Result<()> {
        let core = self.core();
        match core.close() {
            Some(result) => result,
            None => {
                core.closing.wait();
                Ok(())
            }
        }
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.handle.core
    }
}

/// Reads. Not generic, unlike the methods of [`Db`]: those are compiled in the crate that calls them, where little of
/// this would be inlined, and each type of key would have its own copy.
impl Core {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>> {
        self.check_open()?;
        self.writes.read(|state, sequence| state.get(family, key, sequence))
    }

    fn contains(&self, family: Family, key: &[u8]) -> Result<bool> {
        self.check_open()?;
        self.writes.read(|state, sequence| state.contains(family, key, sequence, state.clock.wall_ms()))
    }

    fn multi_get(&self, family: Family, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>> {
        self.check_open()?;
        let recorder = &self.recorder;
        let started = recorder.start_sampled();
        let read = |state: &ReadState, sequence| state.multi_get_at(family, keys, sequence, state.clock.wall_ms());
        let values = self.writes.read(read)?;
        recorder.end(&recorder.multi_get, started);
        Ok(values)
    }
}

impl Core {
    /// See [`Db::expires_at_ms`].
    pub(crate) fn expires_at_ms(&self, ttl: Duration) -> u64 {
        let ttl_ms = u64::try_from(ttl.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
        self.env.clock.wall_ms().saturating_add(ttl_ms)
    }

    /// See [`Db::flush`].
    pub(crate) fn flush_all(&self) -> Result<()> {
        self.check_writable()?;
        self.sync_log()?;
        let through = self.writes.freeze_active();
        let failed_before = self.progress.get().failed_flushes;
        self.wake_flush();
        self.wait_for(|progress| {
            if progress.flushed_id >= through {
                return Some(Ok(()));
            }
            if let (Some(error), true) = (&progress.flush_error, progress.failed_flushes > failed_before) {
                return Some(Err(error.clone()));
            }
            self.check_writable().err().map(Err)
        })
    }

    /// See [`Db::close`]. `None` when it was called before; that call may be under way.
    fn close(&self) -> Option<Result<()>> {
        if !self.set_closed() {
            return None;
        }
        let _done = self.closing.end_when_dropped();
        Some(self.end())
    }

    fn end(&self) -> Result<()> {
        self.end_jobs();
        self.wait_foreground();
        // Blocking callers may be writing values, or inserting what has its place in the log already: that is waited
        // for here, and answered as usual. No commit gets a place any more.
        {
            let _no_more = self.log.lock();
            self.writes.order.wait_all_inserted();
        }
        self.context.values.close();
        self.refuse_all(&Error::Closed);
        if self.read_only {
            self.context.values.store.ownership().end();
            return Ok(());
        }
        let sealed = if self.why_stopped().is_none() { self.seal_values(true).map(drop) } else { Ok(()) };
        let result = sealed.and_then(|()| self.close_log());
        self.writes.completions.run();
        // Before the lock is released: a reader that opens a file by its name checks after it has opened it.
        self.context.values.store.ownership().end();
        self.directory_lock.lock().take();
        match result {
            // Writes had stopped before, and their callers have the error.
            Err(Error::Stopped(_)) => Ok(()),
            result => result,
        }
    }
}

impl Core {
    fn close_log(&self) -> Result<()> {
        self.sync_log()?;
        let mut log = self.log.lock();
        // Nothing is appended to a database that is closed, so what was synced is all there is.
        log.close(self.writes.order.durable())
    }
}

impl std::fmt::Debug for Db {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Db").field("directory", &self.core().directory).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "order_model_test.rs"]
mod order_model;
#[cfg(test)]
mod tests;
