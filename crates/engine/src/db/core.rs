//! What all parts of an open database share.

use super::conditions::TransactionStarts;
use super::counters::Counters;
use super::dead::WaitingRequest;
use super::families::FamilyChanges;
use super::idle::IdleWatch;
use super::options::Options;
use super::queue::Queue;
use super::throttle::Throttle;
use super::writes::Writes;
use crate::compaction::Context;
use crate::feed::Feed;
use crate::lock::{Condvar, Mutex, Rank, RwLock, RwLockReadGuard, check_wait};
use crate::log::{LogWriter, NextSegments, Segments, Tail, Watchdog};
use crate::measure::Recorder;
use crate::stream::StreamIndex;
use crate::transaction::Transactions;
use crate::{Error, Family, Result};
use kontiki_env::Env;
use kontiki_env::fs::FileLock;
use kontiki_env::tasks::TaskHandle;
use std::collections::{BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// The shared state of a database.
///
/// The order in which a thread takes several locks is that of their ranks (`lock`), which debug builds check. No
/// completion runs under any of them. Under `log` a thread waits only for other writers' insertions into memtables,
/// when a commit has conditions; and no file is touched but for the append itself, a rewrite, and a segment that was
/// not made in time.
pub(crate) struct Core {
    pub(crate) env: Env,
    pub(crate) directory: PathBuf,
    pub(crate) options: Options,
    pub(crate) context: Context,
    pub(crate) segments: Arc<Segments>,
    pub(crate) streams: Mutex<StreamIndex>,
    /// The lock that orders commits.
    pub(crate) log: Mutex<LogWriter>,
    pub(crate) next_segments: Arc<NextSegments>,
    pub(crate) tail: Arc<Tail>,
    pub(crate) queue: Queue,
    pub(crate) writes: Writes,
    pub(crate) throttle: Throttle,
    pub(crate) counters: Counters,
    pub(crate) recorder: Arc<Recorder>,
    /// The holders of the log, and what was reported of them.
    pub(crate) watchdog: Mutex<Watchdog>,
    /// The subscribers of the change feed.
    pub(crate) feed: Feed,
    pub(crate) progress: Progress,
    pub(super) idle: IdleWatch,
    pub(crate) transaction_starts: TransactionStarts,
    pub(crate) transactions: Transactions,
    pub(crate) family_changes: FamilyChanges,
    /// Held for reading by callers that change files on their own threads; for writing by the thread that closes.
    foreground: RwLock<()>,
    /// Held by a thread that ingests tables.
    pub(crate) ingesting: Mutex<()>,
    /// The last number given to a logged batch; 0 before the first. Changed by the leader.
    pub(crate) last_logged: AtomicU64,
    /// The newest segment when streams last requested a flush.
    pub(crate) flushed_for_streams_at: AtomicU64,
    /// The directory's lock, until the database is closed.
    pub(crate) directory_lock: Mutex<Option<Box<dyn FileLock>>>,
    /// All writes are refused.
    pub(crate) read_only: bool,
    health: RwLock<Health>,
    /// As `health` has it: reads check this, which writes nothing that they share.
    closed: AtomicBool,
    /// Where a thread waits that closes a database which another thread is closing.
    pub(super) closing: Closing,
    jobs: RwLock<Option<Jobs>>,
}

/// Notifies the waiters when a close has ended.
pub(crate) struct Closing {
    ended: Mutex<bool>,
    changed: Condvar,
}

impl Default for Closing {
    fn default() -> Closing {
        Closing { ended: Mutex::new(Rank::Closing, false), changed: Condvar::new() }
    }
}

impl Closing {
    /// Waits for the end.
    pub(super) fn wait(&self) {
        let mut ended = self.ended.lock();
        while !*ended {
            self.changed.wait(&mut ended);
        }
    }

    /// The waiters are notified when what this returns is dropped, on every path.
    pub(super) fn end_when_dropped(&self) -> impl Drop + '_ {
        struct End<'a>(&'a Closing);
        impl Drop for End<'_> {
            fn drop(&mut self) {
                *self.0.ended.lock() = true;
                self.0.changed.notify_all();
            }
        }
        End(self)
    }
}

/// The background jobs. Each owns this core in turn; closing breaks the circle.
pub(crate) struct Jobs {
    /// Leads groups that no waiting writer leads.
    pub(crate) commit: Box<dyn TaskHandle>,
    /// Makes log segments ahead.
    pub(crate) log: Box<dyn TaskHandle>,
    /// Flushes memtables and maintains the log.
    pub(crate) flush: Box<dyn TaskHandle>,
    /// Compacts, does full compactions, and removes obsolete files.
    pub(crate) compact: Box<dyn TaskHandle>,
    /// Maintains the value log.
    pub(crate) values: Box<dyn TaskHandle>,
    /// Further compactions, in parallel.
    pub(crate) more_compact: Vec<Box<dyn TaskHandle>>,
}

#[derive(Default)]
struct Health {
    closed: bool,
    stopped: Option<String>,
    /// What panicked first.
    panicked: Option<String>,
}

/// What background work has achieved, for those who wait for it.
pub(crate) struct Progress {
    state: Mutex<ProgressState>,
    changed: Condvar,
    /// Notified, besides `changed`, when the database is closed or stops.
    ended: Condvar,
    /// Whether the state holds an error, for threads that check without the lock.
    error: AtomicBool,
}

impl Default for Progress {
    fn default() -> Progress {
        Progress {
            state: Mutex::new(Rank::Progress, ProgressState::default()),
            changed: Condvar::new(),
            ended: Condvar::new(),
            error: AtomicBool::new(false),
        }
    }
}

/// See [`Progress`].
#[derive(Clone, Debug, Default)]
pub(crate) struct ProgressState {
    /// Memtables up to this id are in tables.
    pub(crate) flushed_id: u64,
    /// Flush attempts that failed and may be tried again, and the last such error.
    pub(crate) failed_flushes: u64,
    pub(crate) flush_error: Option<Error>,
    /// Compaction attempts that failed and may be tried again.
    pub(crate) failed_compactions: u64,
    /// Full compactions requested, and done.
    pub(crate) compactions_asked: u64,
    pub(crate) compactions_done: u64,
    /// The error of the last compaction, if it failed.
    pub(crate) compaction_error: Option<Error>,
    /// The same of the maintenance of the value log.
    pub(crate) failed_collections: u64,
    pub(crate) collection_error: Option<Error>,
    /// Families whose tables may hide much garbage of the value log: to be merged down.
    pub(crate) compact_for_values: BTreeSet<Family>,
    /// Ranges with many dead versions: to be compacted.
    pub(crate) compact_dead: VecDeque<WaitingRequest>,
    /// The same of the last full compaction, which its caller still needs when others have followed.
    pub(crate) full_compaction_error: Option<Error>,
}

impl Progress {
    /// Changes the state and notifies the waiters.
    pub(crate) fn update<R>(&self, change: impl FnOnce(&mut ProgressState) -> R) -> R {
        let result = {
            let mut state = self.state.lock();
            let result = change(&mut state);
            self.error.store(state.error().is_some(), Ordering::Relaxed);
            result
        };
        self.changed.notify_all();
        result
    }

    /// Notifies all waiters that the database is closed or stopped, which the caller has recorded already.
    pub(crate) fn notify_end(&self) {
        self.update(|_| ());
        self.ended.notify_all();
    }

    /// Waits for [`Progress::notify_end`], until `ended`, but no longer than `timeout`.
    pub(crate) fn wait_for_end(&self, timeout: Duration, ended: impl Fn() -> bool) {
        // The thread that ends the database takes the lock after recording it, so the end is not missed.
        self.ended.wait_while_for(&mut self.state.lock(), |_| !ended(), timeout);
    }

    /// Whether the last attempt of flush or compaction failed.
    pub(crate) fn has_error(&self) -> bool {
        self.error.load(Ordering::Relaxed)
    }

    /// Reads the state.
    pub(crate) fn get(&self) -> ProgressState {
        self.state.lock().clone()
    }
}

/// The parts of a [`Core`] that open has made.
pub(crate) struct Parts {
    pub(crate) env: Env,
    pub(crate) directory: PathBuf,
    pub(crate) options: Options,
    pub(crate) context: Context,
    pub(crate) segments: Arc<Segments>,
    pub(crate) streams: StreamIndex,
    pub(crate) log: LogWriter,
    pub(crate) next_segments: Arc<NextSegments>,
    pub(crate) tail: Arc<Tail>,
    pub(crate) writes: Writes,
    pub(crate) counters: Counters,
    pub(crate) recorder: Arc<Recorder>,
    /// `None`: for reading only.
    pub(crate) directory_lock: Option<Box<dyn FileLock>>,
}

impl Core {
    pub(crate) fn new(parts: Parts) -> Core {
        let progress = Progress::default();
        // Recovery may have flushed memtables already.
        progress.update(|state| state.flushed_id = parts.writes.flushed_id());
        Core {
            env: parts.env,
            directory: parts.directory,
            transactions: Transactions::new(),
            family_changes: FamilyChanges::default(),
            foreground: RwLock::new(Rank::Foreground, ()),
            ingesting: Mutex::new(Rank::Ingest, ()),
            transaction_starts: TransactionStarts::new(parts.context.versions.horizon().clone()),
            context: parts.context,
            segments: parts.segments,
            streams: Mutex::new(Rank::Streams, parts.streams),
            log: Mutex::new(Rank::Log, parts.log),
            next_segments: parts.next_segments,
            tail: parts.tail,
            queue: Queue::default(),
            writes: parts.writes,
            throttle: Throttle::new(&parts.options),
            counters: parts.counters,
            recorder: parts.recorder,
            watchdog: Mutex::new(Rank::LogWatch, Watchdog::default()),
            feed: Feed::default(),
            options: parts.options,
            progress,
            idle: IdleWatch::default(),
            last_logged: AtomicU64::new(0),
            flushed_for_streams_at: AtomicU64::new(0),
            read_only: parts.directory_lock.is_none(),
            directory_lock: Mutex::new(Rank::DirectoryLock, parts.directory_lock),
            health: RwLock::new(Rank::Health, Health::default()),
            closed: AtomicBool::new(false),
            closing: Closing::default(),
            jobs: RwLock::new(Rank::Jobs, None),
        }
    }

    /// Takes the jobs, once, at the end of open.
    pub(crate) fn set_jobs(&self, jobs: Jobs) {
        let before = self.jobs.write().replace(jobs);
        assert!(before.is_none(), "the jobs are started once");
    }

    /// Ends the jobs: when this returns none runs, and none runs later.
    pub(crate) fn end_jobs(&self) {
        self.context.stop.store(true, Ordering::Relaxed);
        let jobs = self.jobs.write().take();
        check_wait();
        drop(jobs); // Not under the lock: it waits for steps that may need to wake others.
    }

    /// Requests a group commit on the `commit` job.
    pub(crate) fn wake_commit(&self) {
        self.jobs.read().iter().for_each(|jobs| jobs.commit.wake());
    }

    /// Requests the next log segment.
    pub(crate) fn wake_log(&self) {
        self.jobs.read().iter().for_each(|jobs| jobs.log.wake());
    }

    /// Requests a check of memtables and the log.
    pub(crate) fn wake_flush(&self) {
        self.jobs.read().iter().for_each(|jobs| jobs.flush.wake());
    }

    /// Requests a check of the levels.
    pub(crate) fn wake_compact(&self) {
        self.jobs.read().iter().for_each(|jobs| {
            jobs.compact.wake();
            jobs.more_compact.iter().for_each(|job| job.wake());
        });
    }

    /// Requests the removal of obsolete files.
    pub(crate) fn wake_removal(&self) {
        self.jobs.read().iter().for_each(|jobs| jobs.compact.wake());
    }

    /// Requests a check of the value log.
    pub(crate) fn wake_values(&self) {
        self.jobs.read().iter().for_each(|jobs| jobs.values.wake());
    }

    /// Refuses writes from now on, for `error`. The first reason stays.
    pub(crate) fn stop(&self, error: &Error) {
        let mut health = self.health.write();
        if health.stopped.is_none() {
            tracing::error!(directory = %self.directory.display(), %error, "writes stop");
            health.stopped = Some(error.to_string());
        }
        drop(health);
        let left = self.writes.order.stop();
        left.into_iter().for_each(|answer| self.refuse(answer));
        // Writers that wait for memory or for a job must be woken.
        self.progress.notify_end();
        self.feed.notify();
        self.wake_commit();
    }

    /// A thread that did `task` has panicked. The first one stays.
    pub(super) fn note_panic(&self, task: &str) {
        self.health.write().panicked.get_or_insert_with(|| task.to_string());
    }

    /// What panicked, if anything did.
    pub(crate) fn what_panicked(&self) -> Option<String> {
        self.health.read().panicked.clone()
    }

    /// Refuses everything from now on; returns whether it did not before.
    pub(crate) fn set_closed(&self) -> bool {
        let before = std::mem::replace(&mut self.health.write().closed, true);
        self.closed.store(true, Ordering::Release);
        self.progress.notify_end();
        self.feed.notify();
        self.transactions.close();
        !before
    }

    /// Whether reads may continue.
    pub(crate) fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) { Err(Error::Closed) } else { Ok(()) }
    }

    /// Why writes have stopped, if they have.
    pub(crate) fn why_stopped(&self) -> Option<String> {
        self.health.read().stopped.clone()
    }

    /// Whether writes may continue.
    pub(crate) fn check_writable(&self) -> Result<()> {
        let health = self.health.read();
        if health.closed {
            return Err(Error::Closed);
        }
        if self.read_only {
            return Err(Error::ReadOnly);
        }
        health.stopped.as_ref().map_or(Ok(()), |why| Err(Error::Stopped(why.clone())))
    }

    /// Waits until `done` returns a result; it is called whenever background work has achieved something. In
    /// a stepped world, steps jobs instead.
    pub(crate) fn wait_for<T>(&self, mut done: impl FnMut(&ProgressState) -> Option<Result<T>>) -> Result<T> {
        check_wait();
        if !self.env.tasks.threaded() {
            loop {
                if let Some(result) = done(&self.progress.get()) {
                    return result;
                }
                if !self.env.tasks.step() {
                    return Err(Error::Bug("a wait for background work that no job does".into()));
                }
            }
        }
        let mut state = self.progress.state.lock();
        loop {
            if let Some(result) = done(&state) {
                return result;
            }
            self.progress.changed.wait(&mut state);
        }
    }

    /// Kept by a caller that changes files on its own thread: the directory is not released before it is dropped.
    pub(crate) fn foreground(&self) -> Result<RwLockReadGuard<'_, ()>> {
        let here = self.foreground.read();
        self.check_writable()?;
        Ok(here)
    }

    /// Waits for those callers. After the database was closed, so that none starts later, and none waits for long.
    pub(crate) fn wait_foreground(&self) {
        drop(self.foreground.write());
    }

    /// Whether background work should end early.
    pub(crate) fn is_stopping(&self) -> bool {
        self.context.stop.load(Ordering::Relaxed)
    }
}
