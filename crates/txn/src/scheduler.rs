//! Runs commands: latches, then a view, then the pure action, then replication, then unlatch.
//!
//! Invariants:
//! 1. Two commands that share a key never overlap between taking their views and the end of their replication.
//! 2. A latch outlives its write: when the caller of a write gives up (its future is dropped), the replication
//!    continues in the background and holds the latches until it ends. An unknown outcome never unlatches early.
//! 3. Reads take no latch. They raise the greatest read timestamp, look at the locks in memory, and then take their
//!    view.
//! 4. Every command is bounded by its request: a resolve of a whole region works in batches of [`RESOLVE_KEYS_MAX`]
//!    keys and latches no more than that at once.

mod commit_ts;
mod waiting;

use crate::action::{self, ActionResult};
use crate::lock_waits::LockWaits;
use crate::memory_locks::{MemoryLockGuard, MemoryLocks};
use crate::planted::{self, Bug};
use crate::read;
use crate::{
    BatchRollback, CheckSecondaryLocks, CheckTxnStatus, Cleanup, Commit, ConcurrencyManager, DeadlockDetector, Failure,
    Isolation, KeyError, LatchGuard, Latches, Lock, LockInfo, Pair, PessimisticRollback, ReadOptions, Replicated,
    ResolveLock, Scan, ScanLock, SecondaryStatus, TXN_LOCK, TXN_WRITE, TimeStamp, TxnHeartBeat, TxnStatus, Version,
    YieldPoint,
};
use bytes::Bytes;
use futures::future::BoxFuture;
use kontiki_engine::{BatchOp, Range, View, WriteBatch};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

pub use waiting::LOCK_WAIT_MAX;

/// Keys that one step of a region-wide resolve latches and writes: a batch of some 100 KiB with short values.
const RESOLVE_KEYS_MAX: usize = 256;

/// Drives a future to its end although no caller waits for it: `tokio::spawn` on a runtime handle, or the simulator's
/// executor.
pub type Detach = Arc<dyn Fn(BoxFuture<'static, ()>) + Send + Sync>;

/// Resolves after a time: `tokio::time::sleep`, or the simulator's clock.
pub type Sleep = Arc<dyn Fn(Duration) -> BoxFuture<'static, ()> + Send + Sync>;

/// What a scheduler needs of its surroundings.
#[derive(Clone)]
pub struct Surroundings {
    /// Gets the replications whose callers gave up.
    pub detach: Detach,
    /// Limits how long requests wait for locks.
    pub sleep: Sleep,
    /// Learns who waits for whom.
    pub detector: Arc<dyn DeadlockDetector>,
    /// The reads of the node.
    pub concurrency: Arc<ConcurrencyManager>,
}

type Outcome<T, R> = Result<T, Failure<<R as Replicated>::Error>>;

/// Runs transactional commands over a [`Replicated`]. There is one per node, shared by all its regions. Cloning shares
/// it.
pub struct Scheduler<R: Replicated> {
    replicated: Arc<R>,
    latches: Latches,
    waits: LockWaits,
    surroundings: Surroundings,
}

impl<R: Replicated> Clone for Scheduler<R> {
    fn clone(&self) -> Scheduler<R> {
        Scheduler {
            replicated: self.replicated.clone(),
            latches: self.latches.clone(),
            waits: self.waits.clone(),
            surroundings: self.surroundings.clone(),
        }
    }
}

impl<R: Replicated> Scheduler<R> {
    /// A scheduler over `replicated`.
    pub fn new(replicated: R, surroundings: Surroundings) -> Scheduler<R> {
        let (latches, waits) = (Latches::new(), LockWaits::default());
        Scheduler { replicated: Arc::new(replicated), latches, waits, surroundings }
    }

    /// The replicated store below.
    pub fn replicated(&self) -> &R {
        &self.replicated
    }

    /// The greatest read timestamp, and the locks in memory.
    pub fn concurrency(&self) -> &ConcurrencyManager {
        &self.surroundings.concurrency
    }

    /// Requests that wait for keys which other transactions have locked.
    pub fn lock_waiters(&self) -> usize {
        self.waits.len()
    }

    /// The key latches, shared with other commands that must not overlap (an atomic raw compare-and-swap).
    pub fn latches(&self) -> &Latches {
        &self.latches
    }

    /// Runs a command that is not one of a transaction and holds `latches`: `action` reads a view and returns an answer
    /// and what to write for it, which is refused in any other leadership than that of the view.
    pub async fn run_exclusive<T>(
        &self,
        context: &R::Context,
        latches: LatchGuard,
        action: impl FnOnce(&dyn View) -> kontiki_engine::Result<(T, WriteBatch)>,
    ) -> Outcome<T, R> {
        self.run_latched(context, TimeStamp::MAX, Held { latches, memory: None }, |view| Ok(action(view)?)).await
    }

    /// Reads a key. A lock that blocks the read is [`crate::KeyError::Locked`].
    pub async fn get(&self, context: &R::Context, key: &[u8], options: &ReadOptions) -> Outcome<Option<Version>, R> {
        let view = self.view_for(context, options, |locks| locks.check_keys([key], options)).await?;
        read::get(&view, key, options).map_err(Failure::lift)
    }

    /// Reads keys: pairs of those found and of those locked, in the requested order.
    pub async fn batch_get(
        &self,
        context: &R::Context,
        keys: &[Bytes],
        options: &ReadOptions,
        yields: &mut impl YieldPoint,
    ) -> Outcome<Vec<Pair>, R> {
        let check = |locks: &MemoryLocks| locks.check_keys(keys.iter().map(AsRef::as_ref), options);
        let view = self.view_for(context, options, check).await?;
        read::batch_get(&view, keys, options, yields).await.map_err(Failure::lift)
    }

    /// Scans. Fewer pairs than the limit mean that the range holds no more.
    pub async fn scan(
        &self,
        context: &R::Context,
        scan: &Scan,
        options: &ReadOptions,
        yields: &mut impl YieldPoint,
    ) -> Outcome<Vec<Pair>, R> {
        let view = self.view_for(context, options, |locks| locks.check_range(&scan.range, options)).await?;
        read::scan(&view, scan, options, yields).await.map_err(Failure::lift)
    }

    /// Lists locks.
    pub async fn scan_lock(
        &self,
        context: &R::Context,
        scan: &ScanLock,
        yields: &mut impl YieldPoint,
    ) -> Outcome<Vec<LockInfo>, R> {
        let fits = |_: &Bytes, lock: &Lock| lock.start_ts <= scan.max_version;
        let check = |locks: &MemoryLocks| locks.check_range_where(&scan.range, fits);
        let view = self.read_view(context, scan.max_version, check).await?;
        read::scan_lock(&view, scan, yields).await.map_err(Failure::lift)
    }

    /// Second phase; returns the commit timestamp.
    pub async fn commit(&self, context: &R::Context, command: Commit) -> Outcome<TimeStamp, R> {
        self.run(context, command.keys.clone(), |view| action::commit(&command, view)).await
    }

    /// Rolls a transaction back on some keys.
    pub async fn batch_rollback(&self, context: &R::Context, command: BatchRollback) -> Outcome<(), R> {
        let start_ts = command.start_ts;
        self.roll_back(context, command.keys.clone(), start_ts, |view| action::batch_rollback(&command, view)).await
    }

    /// Asks a primary for its transaction's outcome, and decides it if its time to live has ended.
    pub async fn check_txn_status(&self, context: &R::Context, command: CheckTxnStatus) -> Outcome<TxnStatus, R> {
        for ts in [command.start_ts, command.caller_start_ts, command.current_ts] {
            self.observe(ts).await?;
        }
        let (keys, start_ts) = (vec![command.primary.clone()], command.start_ts);
        self.roll_back(context, keys, start_ts, |view| action::check_txn_status(&command, view)).await
    }

    /// Carries out decided transactions: on the given keys, or on every lock of theirs in `region` (encoded keys). A
    /// failure in the middle keeps the finished part, which is valid; a repeated call continues.
    pub async fn resolve_lock(
        &self,
        context: &R::Context,
        region: &Range,
        command: ResolveLock,
        yields: &mut impl YieldPoint,
    ) -> Outcome<(), R> {
        let ResolveLock { txns, keys } = command;
        if !keys.is_empty() {
            return self.resolve_keys(context, &txns, &keys).await;
        }
        let mut range = region.clone();
        loop {
            let view = self.replicated.view(context).await.map_err(Failure::Replicated)?;
            let keys = locked_keys(&view, &range, &txns, yields).await.map_err(Failure::lift)?;
            drop(view);
            let Some(last) = keys.last() else { return Ok(()) };
            // The smallest key above the last one: resolved keys are not visited again.
            let mut next = crate::lock_key(last);
            next.push(0);
            debug_assert!(range.contains(&next) || range.end.as_deref() == Some(next.as_slice()), "inside the region");
            assert!(range.start.as_deref().is_none_or(|start| start < next.as_slice()), "the resolve makes progress");
            range.start = Some(Bytes::from(next));
            let whole = keys.len() == RESOLVE_KEYS_MAX;
            self.resolve_keys(context, &txns, &keys).await?;
            if !whole {
                return Ok(());
            }
        }
    }

    async fn resolve_keys(
        &self,
        context: &R::Context,
        txns: &BTreeMap<TimeStamp, TimeStamp>,
        keys: &[Bytes],
    ) -> Outcome<(), R> {
        let resolve = |view: &dyn View, safe_point| action::resolve_keys(txns, keys, safe_point, view);
        self.run_at_safe_point(context, keys.to_vec(), resolve).await
    }

    /// Rolls back one key if its transaction's time to live has ended; returns the commit timestamp if it is committed,
    /// else 0.
    pub async fn cleanup(&self, context: &R::Context, command: Cleanup) -> Outcome<TimeStamp, R> {
        let (keys, start_ts) = (vec![command.key.clone()], command.start_ts);
        self.roll_back(context, keys, start_ts, |view| action::cleanup(&command, view)).await
    }

    /// Prolongs a primary's lock; returns its time to live in milliseconds.
    pub async fn txn_heart_beat(&self, context: &R::Context, command: TxnHeartBeat) -> Outcome<u64, R> {
        self.run(context, vec![command.primary.clone()], |view| action::txn_heart_beat(&command, view)).await
    }

    /// Asks whether all these keys of a transaction are prewritten, deciding it if not.
    pub async fn check_secondary_locks(
        &self,
        context: &R::Context,
        command: CheckSecondaryLocks,
    ) -> Outcome<SecondaryStatus, R> {
        let (keys, start_ts) = (command.keys.clone(), command.start_ts);
        self.roll_back(context, keys, start_ts, |view| action::check_secondary_locks(&command, view)).await
    }

    /// Removes pessimistic locks of a transaction, without a record.
    pub async fn pessimistic_rollback(&self, context: &R::Context, command: PessimisticRollback) -> Outcome<(), R> {
        self.run(context, command.keys.clone(), |view| action::pessimistic_rollback(&command, view)).await
    }

    /// A read below everything that can still be committed says nothing to writers, and its timestamp may be invented:
    /// the view is refused then.
    async fn view_for(
        &self,
        context: &R::Context,
        options: &ReadOptions,
        check: impl FnOnce(&MemoryLocks) -> Result<(), Vec<KeyError>>,
    ) -> Outcome<R::View, R> {
        match options.isolation {
            Isolation::Stale => self.replicated.view(context).await.map_err(Failure::Replicated),
            Isolation::Snapshot | Isolation::ReadCommitted => self.read_view(context, options.ts, check).await,
        }
        .and_then(|view| self.not_below_safe_point(options.ts, view))
    }

    /// Refuses a transaction or a read that may need what the view has lost.
    fn not_below_safe_point(&self, start_ts: TimeStamp, view: R::View) -> Outcome<R::View, R> {
        let safe_point = self.replicated.gc_safe_point(&view);
        if start_ts < safe_point && !planted::is_set(Bug::ReadBelowSafePoint) {
            return Err(KeyError::BelowSafePoint { start_ts, safe_point }.into());
        }
        Ok(view)
    }

    /// A view for a read at `ts` that no lock in memory blocks.
    async fn read_view(
        &self,
        context: &R::Context,
        ts: TimeStamp,
        check: impl FnOnce(&MemoryLocks) -> Result<(), Vec<KeyError>>,
    ) -> Outcome<R::View, R> {
        self.observe(ts).await?;
        if !planted::is_set(Bug::MissMemoryLocks) {
            check(self.concurrency().memory_locks()).map_err(Failure::Keys)?;
        }
        self.replicated.view_at(context, ts).await.map_err(Failure::Replicated)
    }

    async fn run<T>(
        &self,
        context: &R::Context,
        keys: Vec<Bytes>,
        action: impl FnOnce(&dyn View) -> ActionResult<T>,
    ) -> Outcome<T, R> {
        let held = Held { latches: self.latches.acquire(keys).await, memory: None };
        self.run_latched(context, TimeStamp::MAX, held, action).await
    }

    /// Runs an action that may roll the transaction `start_ts` back. Below the safe point it leaves no record of that:
    /// no prewrite is accepted there any more, and a record that is written anew could be one that other replicas have
    /// dropped together with the newer one that hides it.
    async fn roll_back<T>(
        &self,
        context: &R::Context,
        keys: Vec<Bytes>,
        start_ts: TimeStamp,
        action: impl FnOnce(&dyn View) -> ActionResult<T>,
    ) -> Outcome<T, R> {
        let without_records_below = |view: &dyn View, safe_point| {
            let (answer, batch) = action(view)?;
            Ok((answer, if start_ts < safe_point { without_records(&batch) } else { batch }))
        };
        self.run_at_safe_point(context, keys, without_records_below).await
    }

    /// Runs an action that has to know the safe point of its view.
    async fn run_at_safe_point<T>(
        &self,
        context: &R::Context,
        keys: Vec<Bytes>,
        action: impl FnOnce(&dyn View, TimeStamp) -> ActionResult<T>,
    ) -> Outcome<T, R> {
        let held = Held { latches: self.latches.acquire(keys).await, memory: None };
        let view = self.replicated.view(context).await.map_err(Failure::Replicated)?;
        let safe_point = self.replicated.gc_safe_point(&view);
        let (answer, batch) = action(&view, safe_point).map_err(Failure::lift)?;
        drop(view);
        self.write(context, batch, held).await?;
        Ok(answer)
    }

    /// Runs an action of a transaction that begins to write: not below the safe point.
    async fn run_latched<T>(
        &self,
        context: &R::Context,
        start_ts: TimeStamp,
        held: Held,
        action: impl FnOnce(&dyn View) -> ActionResult<T>,
    ) -> Outcome<T, R> {
        let view = self.replicated.view(context).await.map_err(Failure::Replicated)?;
        let view = self.not_below_safe_point(start_ts, view)?;
        let (answer, batch) = action(&view).map_err(Failure::lift)?;
        drop(view);
        self.write(context, batch, held).await?;
        Ok(answer)
    }

    async fn write(&self, context: &R::Context, batch: WriteBatch, held: Held) -> Outcome<(), R> {
        if batch.is_empty() {
            return Ok(());
        }
        batch.validate()?; // After the proposal every replica would have to refuse it.
        self.replicate(context, batch, held).await
    }

    /// Replicates, and releases the latches only afterwards, even if the caller was dropped meanwhile.
    fn replicate(&self, context: &R::Context, batch: WriteBatch, held: Held) -> DetachOnDrop<Outcome<(), R>> {
        let (replicated, waits) = (self.replicated.clone(), self.waits.clone());
        let context = context.clone();
        let future = async move {
            let held = Some(held).filter(|_| !planted::is_set(Bug::UnlatchEarly));
            let awaited = awaited(&waits, &batch);
            let outcome = replicated.replicate(&context, batch).await.map_err(Failure::Replicated);
            // With the latches held: no other request sees the key free before those that waited for it.
            for (key, holder) in awaited {
                match holder {
                    Some(holder) => waits.locked(&key, holder),
                    None => waits.released(&key),
                }
            }
            drop(held);
            outcome
        };
        DetachOnDrop { future: Some(Box::pin(future)), detach: self.surroundings.detach.clone() }
    }
}

/// What a command holds until its write is settled.
struct Held {
    /// Fields are dropped in their order: the locks leave the memory while the latches are held.
    #[allow(dead_code, reason = "released when it is dropped")]
    memory: Option<MemoryLockGuard>,
    #[allow(dead_code, reason = "released when it is dropped")]
    latches: LatchGuard,
}

/// The keys of the batch for which requests wait, and who holds them after it; `None`: no transaction.
fn awaited(waits: &LockWaits, batch: &WriteBatch) -> Vec<(Vec<u8>, Option<TimeStamp>)> {
    let of_locks = |op: &BatchOp<'_>| op.family() == TXN_LOCK;
    let keys = waits.awaited(batch.ops().filter(of_locks).map(|op| op.key().to_vec()));
    if keys.is_empty() {
        return Vec::new();
    }
    let mut changes = Vec::new();
    for op in batch.ops().filter(of_locks).filter(|op| keys.iter().any(|key| key == op.key())) {
        match op {
            BatchOp::Put { key, value, .. } => {
                let lock = Lock::decode(value);
                debug_assert!(lock.is_ok(), "an action wrote it");
                changes.extend(lock.ok().map(|lock| (key.to_vec(), Some(lock.start_ts))));
            }
            _ => changes.push((op.key().to_vec(), None)),
        }
    }
    changes
}

/// A batch of an action that writes no commit records, without those of rollbacks.
fn without_records(batch: &WriteBatch) -> WriteBatch {
    let mut left = WriteBatch::new();
    for op in batch.ops() {
        match op {
            BatchOp::Put { family: TXN_WRITE, .. } => {}
            BatchOp::Put { family, key, value } => left.put(family, key, value),
            BatchOp::Delete { family, key } => left.delete(family, key),
            BatchOp::PutExpiring { .. } | BatchOp::DeleteRange { .. } => {
                unreachable!("no action of a transaction writes these")
            }
        }
    }
    left
}

async fn locked_keys(
    view: &dyn View,
    range: &Range,
    txns: &BTreeMap<TimeStamp, TimeStamp>,
    yields: &mut impl YieldPoint,
) -> Result<Vec<Bytes>, crate::error::ActionFailure> {
    let fits = |lock: &crate::Lock| txns.contains_key(&lock.start_ts);
    let locks = read::locks_where(view, range, RESOLVE_KEYS_MAX, fits, yields).await?;
    assert!(locks.len() <= RESOLVE_KEYS_MAX, "the limit holds");
    Ok(locks.into_iter().map(|lock| lock.key).collect())
}

/// A future that continues in the background when it is dropped before its end.
struct DetachOnDrop<T: Send + 'static> {
    future: Option<BoxFuture<'static, T>>,
    detach: Detach,
}

impl<T: Send + 'static> Future for DetachOnDrop<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let future = self.future.as_mut().expect("not polled after completion");
        let poll = future.as_mut().poll(context);
        if poll.is_ready() {
            self.future = None;
        }
        poll
    }
}

impl<T: Send + 'static> Drop for DetachOnDrop<T> {
    fn drop(&mut self) {
        if let Some(future) = self.future.take().filter(|_| !planted::is_set(Bug::UnlatchWithCaller)) {
            (self.detach)(Box::pin(async move {
                future.await; // No caller is left.
            }));
        }
    }
}

#[cfg(test)]
#[path = "scheduler_test.rs"]
mod tests;
