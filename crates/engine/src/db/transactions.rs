//! What a database knows of its transactions: the open ones, the numbers they read at, their locks, and counters. The
//! transactions themselves are in `crate::transaction`.

use crate::SequenceNumber;
use crate::key_locks::{LockTable, TransactionId};
use crate::lock::{Mutex, Rank};
use crate::version::Horizon;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Shared by all transactions of a database.
pub(crate) struct Transactions {
    pub(crate) starts: TransactionStarts,
    open: Mutex<Open>,
    pub(crate) locks: LockTable,
    committed: AtomicU64,
    rolled_back: AtomicU64,
    pub(crate) conflicts: AtomicU64,
    pub(crate) retries: AtomicU64,
    pub(crate) lock_waits: AtomicU64,
    pub(crate) lock_wait_us: AtomicU64,
    pub(crate) lock_timeouts: AtomicU64,
    pub(crate) deadlocks: AtomicU64,
}

#[derive(Default)]
struct Open {
    /// When each began (monotonic clock), by number, which is the order in which they began.
    began: BTreeMap<TransactionId, Duration>,
    started: u64,
}

impl Transactions {
    /// `horizon` is where compaction finds the oldest start.
    pub(crate) fn new(horizon: Arc<Horizon>) -> Transactions {
        Transactions {
            starts: TransactionStarts::new(horizon),
            open: Mutex::new(Rank::Transactions, Open::default()),
            locks: LockTable::new(),
            committed: AtomicU64::new(0),
            rolled_back: AtomicU64::new(0),
            conflicts: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            lock_waits: AtomicU64::new(0),
            lock_wait_us: AtomicU64::new(0),
            lock_timeouts: AtomicU64::new(0),
            deadlocks: AtomicU64::new(0),
        }
    }

    /// A transaction begins; returns its number.
    pub(crate) fn begin(&self, now: Duration) -> TransactionId {
        let mut open = self.open.lock();
        open.started += 1;
        let id = open.started;
        open.began.insert(id, now);
        id
    }

    /// It ends.
    pub(crate) fn end(&self, id: TransactionId, committed: bool) {
        let before = self.open.lock().began.remove(&id);
        assert!(before.is_some(), "a transaction ends once");
        (if committed { &self.committed } else { &self.rolled_back }).fetch_add(1, Relaxed);
    }

    /// The database is closed: no transaction waits for a lock any more.
    pub(crate) fn close(&self) {
        self.locks.close();
    }

    /// Counters and gauges. `now` is the monotonic time.
    pub(crate) fn stats(&self, now: Duration) -> TransactionStats {
        let oldest_start = self.starts.oldest();
        let (started, active, oldest) = {
            let open = self.open.lock();
            (open.started, open.began.len() as u64, open.began.first_key_value().map(|(_, began)| *began))
        };
        TransactionStats {
            started,
            active,
            committed: self.committed.load(Relaxed),
            rolled_back: self.rolled_back.load(Relaxed),
            conflicts: self.conflicts.load(Relaxed),
            retries: self.retries.load(Relaxed),
            locks: self.locks.len() as u64,
            waiting: self.locks.waiting() as u64,
            lock_waits: self.lock_waits.load(Relaxed),
            lock_wait_us: self.lock_wait_us.load(Relaxed),
            lock_timeouts: self.lock_timeouts.load(Relaxed),
            deadlocks: self.deadlocks.load(Relaxed),
            oldest_start: (oldest_start < SequenceNumber::MAX).then_some(oldest_start),
            oldest_age_ms: oldest.map_or(0, |began| now.saturating_sub(began).as_millis() as u64),
        }
    }
}

/// The sequence numbers at which open transactions read: while one is open, compaction keeps the tombstones that are
/// newer, so that their conditions can be answered.
pub(crate) struct TransactionStarts {
    open: Mutex<BTreeMap<SequenceNumber, u64>>,
    /// Called with the smallest of them, for compaction.
    horizon: Arc<Horizon>,
}

impl TransactionStarts {
    /// None yet.
    pub(crate) fn new(horizon: Arc<Horizon>) -> TransactionStarts {
        TransactionStarts { open: Mutex::new(Rank::TransactionStarts, BTreeMap::new()), horizon }
    }

    /// The smallest number that an open transaction reads at, `u64::MAX` while none is open.
    pub(crate) fn oldest(&self) -> SequenceNumber {
        self.horizon.transactions()
    }

    /// Number of those that are registered.
    #[cfg(test)]
    pub(crate) fn len(&self) -> u64 {
        self.open.lock().values().sum()
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut BTreeMap<SequenceNumber, u64>)) {
        let mut open = self.open.lock();
        change(&mut open);
        self.horizon.set_transactions(open.first_key_value().map_or(u64::MAX, |(oldest, _)| *oldest));
    }
}

/// The results of a database's transactions: counters since open, and present gauges.
///
/// `started = active + committed + rolled_back`, up to those that end while it is read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TransactionStats {
    /// Begun, counted.
    pub started: u64,
    /// Open now.
    pub active: u64,
    /// Committed, counted, read-only ones included.
    pub committed: u64,
    /// Ended without effect, counted: rolled back, dropped, or refused at commit.
    pub rolled_back: u64,
    /// Commits and locks refused because of a newer write, counted.
    pub conflicts: u64,
    /// Times that [`Db::transact`](crate::Db::transact) tried again, counted.
    pub retries: u64,
    /// Locks of keys that are held now.
    pub locks: u64,
    /// Transactions that wait for a lock now.
    pub waiting: u64,
    /// Waits for locks, counted.
    pub lock_waits: u64,
    /// Time spent in them, in microseconds.
    pub lock_wait_us: u64,
    /// Waits that reached their limit, counted.
    pub lock_timeouts: u64,
    /// Locks refused because waiting would have closed a cycle, counted.
    pub deadlocks: u64,
    /// The read watermark: start of the oldest open transaction (or `write_if`). Compaction keeps tombstones that are
    /// newer.
    pub oldest_start: Option<SequenceNumber>,
    /// How long ago that one began, in milliseconds: a large age is a forgotten transaction, which pins disk space.
    pub oldest_age_ms: u64,
}
