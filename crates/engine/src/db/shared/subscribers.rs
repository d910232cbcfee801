//! The subscribers of the change feed: how far each has read, and how those that wait are woken. A subscriber costs a
//! writer one load of a counter, and pins nothing. The feed itself is in `crate::feed`.

use crate::SequenceNumber;
use crate::lock::{Condvar, Mutex, Rank};
use crate::log::Segments;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Statistics of the change feed: counters since open (only growing) and gauges (now).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FeedStats {
    /// Subscriptions that are open now.
    pub subscribers: u64,
    /// How far the slowest of them is behind the newest logged batch, in sequence numbers.
    pub lag_sequences: u64,
    /// The same in bytes of the log that it has yet to read.
    pub lag_bytes: u64,
    /// Batches given to subscribers, counted.
    pub batches: u64,
    /// Bytes of these batches, values included, counted.
    pub batch_bytes: u64,
    /// Times that a subscriber got the error that what it needs was deleted, counted.
    pub cut_off: u64,
    /// Every logged batch from this number on can be read.
    pub oldest_sequence: SequenceNumber,
}

impl Default for Subscribers {
    fn default() -> Subscribers {
        Subscribers {
            subscribers: Mutex::new(Rank::FeedSubscribers, Registry::default()),
            waiting: AtomicU64::new(0),
            sleep: Mutex::new(Rank::FeedSleep, ()),
            changed: Condvar::new(),
            batches: AtomicU64::new(0),
            batch_bytes: AtomicU64::new(0),
            cut_off: AtomicU64::new(0),
        }
    }
}

/// One open subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubscriberStatus {
    /// Counts up since open.
    pub id: u64,
    /// The last number that it was given, or began behind.
    pub position: SequenceNumber,
    /// The log segment that it reads.
    pub segment: u64,
    /// When it was opened: milliseconds of the wall clock since 1970.
    pub since_ms: u64,
}

/// The position of a subscriber.
pub(crate) struct Subscriber {
    pub(crate) id: u64,
    since_ms: u64,
    position: AtomicU64,
    segment: AtomicU64,
    offset: AtomicU64,
}

impl Subscriber {
    pub(crate) fn note(&self, position: SequenceNumber, (segment, offset): (u64, u64)) {
        self.position.store(position, Ordering::Relaxed);
        self.segment.store(segment, Ordering::Relaxed);
        self.offset.store(offset, Ordering::Relaxed);
    }

    pub(crate) fn status(&self) -> SubscriberStatus {
        SubscriberStatus {
            id: self.id,
            position: self.position.load(Ordering::Relaxed),
            segment: self.segment.load(Ordering::Relaxed),
            since_ms: self.since_ms,
        }
    }
}

/// The subscribers.
pub(crate) struct Subscribers {
    subscribers: Mutex<Registry>,
    /// Subscribers that wait, or are about to. Counted before they check whether there is something new.
    waiting: AtomicU64,
    /// Held by a thread that goes to sleep, from its check until it sleeps.
    sleep: Mutex<()>,
    changed: Condvar,
    batches: AtomicU64,
    batch_bytes: AtomicU64,
    pub(crate) cut_off: AtomicU64,
}

#[derive(Default)]
struct Registry {
    next_id: u64,
    by_id: BTreeMap<u64, Arc<Subscriber>>,
}

impl Subscribers {
    pub(crate) fn enter(&self, since_ms: u64) -> Arc<Subscriber> {
        let mut subscribers = self.subscribers.lock();
        subscribers.next_id += 1;
        let id = subscribers.next_id;
        let subscriber = Subscriber {
            id,
            since_ms,
            position: AtomicU64::new(0),
            segment: AtomicU64::new(0),
            offset: AtomicU64::new(0),
        };
        let subscriber = Arc::new(subscriber);
        subscribers.by_id.insert(id, subscriber.clone());
        subscriber
    }

    pub(crate) fn leave(&self, id: u64) {
        let left = self.subscribers.lock().by_id.remove(&id);
        assert!(left.is_some(), "a subscriber leaves once");
    }

    pub(crate) fn note_batch(&self, bytes: u64) {
        self.batches.fetch_add(1, Ordering::Relaxed);
        self.batch_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Something became visible, or nothing will any more: wakes the waiters. Called after that can be observed.
    pub(crate) fn notify(&self) {
        // Either this sees a waiter that was counted before its check, or the waiter's check sees the change.
        if self.waiting.load(Ordering::SeqCst) > 0 {
            drop(self.sleep.lock()); // A waiter that has checked before is asleep by now.
            self.changed.notify_all();
        }
    }

    /// Sleeps until [`Subscribers::notify`], unless there is a `change` already; no longer than `timeout`. Returns
    /// whether the time is over.
    pub(crate) fn sleep(&self, timeout: Option<Duration>, change: impl Fn() -> bool) -> bool {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let timed_out = {
            let mut sleep = self.sleep.lock();
            match (change(), timeout) {
                (true, _) => false,
                (false, Some(timeout)) => self.changed.wait_for(&mut sleep, timeout),
                (false, None) => {
                    self.changed.wait(&mut sleep);
                    false
                }
            }
        };
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        timed_out
    }

    /// The open subscriptions, in the order they were opened.
    pub(crate) fn subscribers(&self) -> Vec<SubscriberStatus> {
        self.subscribers.lock().by_id.values().map(|subscriber| subscriber.status()).collect()
    }

    /// See [`FeedStats`].
    pub(crate) fn stats(&self, segments: &Segments) -> FeedStats {
        let mut stats = FeedStats {
            batches: self.batches.load(Ordering::Relaxed),
            batch_bytes: self.batch_bytes.load(Ordering::Relaxed),
            cut_off: self.cut_off.load(Ordering::Relaxed),
            oldest_sequence: segments.deleted_through() + 1,
            ..FeedStats::default()
        };
        let subscribers: Vec<_> = self.subscribers.lock().by_id.values().cloned().collect();
        if subscribers.is_empty() {
            return stats;
        }
        let facts = segments.facts();
        let newest = facts.iter().map(|facts| facts.last_sequence).max().unwrap_or(0);
        for subscriber in subscribers {
            let status = subscriber.status();
            let ahead = facts.iter().filter(|facts| facts.number >= status.segment).map(|facts| {
                let read = if facts.number == status.segment { subscriber.offset.load(Ordering::Relaxed) } else { 0 };
                facts.bytes.saturating_sub(read)
            });
            stats.subscribers += 1;
            stats.lag_sequences = stats.lag_sequences.max(newest.saturating_sub(status.position));
            stats.lag_bytes = stats.lag_bytes.max(ahead.sum());
        }
        stats
    }
}
