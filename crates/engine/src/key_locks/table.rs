//! Exclusive locks of keys, for pessimistic transactions and for commits.
//!
//! A lock is an entry in one of a fixed number of shards: its owner and a queue of waiters. A release passes the
//! lock to the first waiter, under the shard's mutex, so a waiter owns it before it wakes and no other transaction can
//! overtake it.
//!
//! *Deadlock.* A transaction is used by one thread, so it waits for one key at a time, and "waits for" is a function:
//! transaction -> key -> the key's owner. A cycle is found by following it from the transaction that starts to wait:
//! its edge and the walk are under one mutex, so of the edges of a cycle the last one sees all others. A change of
//! owner cannot close a cycle: the new owner runs, and walks again when it waits next. The walk is as long as the chain
//! of waits, and only waiting transactions pay for it. The one that closes a cycle is refused: it has waited least.
//!
//! Order of locks: `waits`, then one shard at a time. A waiter parks on its shard's mutex alone.

use super::sync::{Condvar, Mutex, MutexGuard, Rank, wait_for};
use crate::Family;
use crate::planted::{self, Bug};
use bytes::Bytes;
use kontiki_env::clock::Clock;
use kontiki_env::codec::hash64;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// More than the threads of any machine that we expect, so that two of them rarely contend for a shard.
const SHARDS: usize = 64;

/// The key of a lock.
pub(crate) type LockKey = (Family, Bytes);

/// Identifies an open transaction.
pub(crate) type TransactionId = u64;

/// How an [`LockTable::acquire`] ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Grant {
    /// The caller owns the lock.
    Granted,
    /// The limit passed.
    TimedOut,
    /// To wait would close this cycle of waits, from the caller's key on.
    Deadlock(Vec<LockKey>),
    /// The database was closed.
    Closed,
}

/// See the head of this file.
pub(crate) struct LockTable {
    shards: Vec<Mutex<Shard>>,
    /// What each waiting transaction waits for. An edge may outlive its wait by the time that its thread takes to wake.
    waits: Mutex<BTreeMap<TransactionId, LockKey>>,
    closed: AtomicBool,
}

type Shard = BTreeMap<LockKey, Lock>;

struct Lock {
    owner: TransactionId,
    /// In order of arrival.
    waiting: VecDeque<Waiting>,
}

struct Waiting {
    transaction: TransactionId,
    /// Notified when it has become the owner, or when the table closes.
    signal: Arc<Condvar>,
}

impl LockTable {
    pub(crate) fn new() -> LockTable {
        LockTable::with_shards(SHARDS)
    }

    pub(crate) fn with_shards(shards: usize) -> LockTable {
        assert!(shards > 0);
        LockTable {
            shards: (0..shards).map(|_| Mutex::new(Rank::KeyLocks, Shard::new())).collect(),
            waits: Mutex::new(Rank::KeyLockWaits, BTreeMap::new()),
            closed: AtomicBool::new(false),
        }
    }

    fn shard(&self, key: &LockKey) -> MutexGuard<'_, Shard> {
        let hash = hash64(&key.1) ^ u64::from(key.0.0).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.shards[(hash >> 32) as usize % self.shards.len()].lock()
    }

    /// Takes the lock if it is free or the caller owns it already.
    pub(crate) fn try_acquire(&self, me: TransactionId, key: &LockKey) -> bool {
        let mut shard = self.shard(key);
        match shard.get(key) {
            None => {
                shard.insert(key.clone(), Lock { owner: me, waiting: VecDeque::new() });
                true
            }
            Some(lock) => lock.owner == me,
        }
    }

    /// Takes the lock which another transaction owns according to [`LockTable::try_acquire`], waiting for at most
    /// `limit`.
    pub(crate) fn acquire(&self, me: TransactionId, key: &LockKey, limit: Duration, clock: &dyn Clock) -> Grant {
        let signal = Arc::new(Condvar::new());
        {
            let mut waits = self.waits.lock();
            let mut shard = self.shard(key);
            let Some(lock) = shard.get_mut(key) else {
                shard.insert(key.clone(), Lock { owner: me, waiting: VecDeque::new() });
                return Grant::Granted;
            };
            assert_ne!(lock.owner, me, "a transaction does not wait for itself");
            lock.waiting.push_back(Waiting { transaction: me, signal: signal.clone() });
            drop(shard);
            let before = waits.insert(me, key.clone());
            assert!(before.is_none(), "a transaction waits for one key at a time");
            if let Some(cycle) = self.find_cycle(&waits, me) {
                waits.remove(&me);
                // The previous owner may just have passed it on.
                let mut shard = self.shard(key);
                return if leave(&mut shard, key, me) { Grant::Deadlock(cycle) } else { Grant::Granted };
            }
        }
        let grant = self.park(me, key, &signal, clock.monotonic() + limit, clock);
        let edge = self.waits.lock().remove(&me);
        debug_assert_eq!(edge.as_ref(), Some(key), "a wait has one edge from its beginning to its end");
        grant
    }

    fn park(&self, me: TransactionId, key: &LockKey, signal: &Condvar, deadline: Duration, clock: &dyn Clock) -> Grant {
        let mut shard = self.shard(key);
        let mut timed_out = false;
        loop {
            if shard.get(key).is_some_and(|lock| lock.owner == me) {
                return Grant::Granted;
            }
            if self.closed.load(Ordering::Acquire) {
                leave(&mut shard, key, me);
                return Grant::Closed;
            }
            let left = deadline.saturating_sub(clock.monotonic());
            if timed_out || left.is_zero() {
                leave(&mut shard, key, me);
                return Grant::TimedOut;
            }
            if planted::is_set(Bug::LoseLockWakeUp) {
                drop(shard);
                shard = self.shard(key);
            }
            // A clock that stands still (a simulated one) must not make the limit endless: the wait itself counts.
            timed_out = wait_for(signal, &mut shard, left);
        }
    }

    /// Releases a lock, to the first waiter.
    pub(crate) fn release(&self, me: TransactionId, key: &LockKey) {
        let mut shard = self.shard(key);
        let lock = shard.get_mut(key).expect("who releases a lock has it");
        assert_eq!(lock.owner, me, "a lock is released by its owner");
        let Some(next) = lock.waiting.pop_front() else {
            shard.remove(key);
            return;
        };
        lock.owner = next.transaction;
        drop(shard);
        next.signal.notify_one();
    }

    /// Ends all waits, for good.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        for shard in &self.shards {
            // A waiter has checked `closed` under this mutex before, or will after: no wake-up is lost.
            for waiting in shard.lock().values().flat_map(|lock| &lock.waiting) {
                waiting.signal.notify_one();
            }
        }
    }

    /// Locks that are held now.
    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    /// Transactions that wait now.
    pub(crate) fn waiting(&self) -> usize {
        self.waits.lock().len()
    }

    /// The keys of the cycle that `me` has closed by waiting.
    fn find_cycle(&self, waits: &BTreeMap<TransactionId, LockKey>, me: TransactionId) -> Option<Vec<LockKey>> {
        let mut keys = Vec::new();
        let mut at = me;
        while let Some(key) = waits.get(&at) {
            let owner = self.shard(key).get(key)?.owner;
            if owner == at {
                return None; // It owns the lock and has not woken yet.
            }
            keys.push(key.clone());
            if owner == me {
                return Some(keys);
            }
            assert!(keys.len() <= waits.len(), "a cycle without its last waiter was let through");
            at = owner;
        }
        None
    }
}

/// Leaves the queue. Returns whether the caller was in it; if not, it owns the lock.
fn leave(shard: &mut Shard, key: &LockKey, me: TransactionId) -> bool {
    let lock = shard.get_mut(key).expect("a lock that is waited for exists");
    let before = lock.waiting.len();
    lock.waiting.retain(|waiting| waiting.transaction != me);
    assert!(lock.waiting.len() < before || lock.owner == me, "a waiter is in the queue until it owns the lock");
    lock.waiting.len() < before
}
