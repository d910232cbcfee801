//! The lock table under a scheduler that explores interleavings: the same source, compiled once more over scheduled
//! locks. A wake-up that is lost shows as a deadlock of the scheduler.

#[path = "table.rs"]
#[allow(dead_code)]
#[allow(clippy::duplicate_mod)] // It is meant to be.
mod table;

/// The interface of `sync.rs` over shuttle.
mod sync {
    pub(super) use crate::lock::Rank;
    use std::ops::{Deref, DerefMut};
    use std::time::Duration;

    /// A limit below this may pass at any moment, one above never does.
    pub(super) const NEVER: Duration = Duration::from_secs(3600);

    pub(super) struct Mutex<T>(shuttle::sync::Mutex<T>);

    pub(super) struct MutexGuard<'a, T> {
        mutex: &'a Mutex<T>,
        inner: Option<shuttle::sync::MutexGuard<'a, T>>,
    }

    pub(super) struct Condvar(shuttle::sync::Condvar);

    impl<T> Mutex<T> {
        pub(super) fn new(_rank: Rank, value: T) -> Mutex<T> {
            Mutex(shuttle::sync::Mutex::new(value))
        }

        pub(super) fn lock(&self) -> MutexGuard<'_, T> {
            MutexGuard { mutex: self, inner: Some(self.0.lock().expect("not poisoned")) }
        }
    }

    impl<T> Deref for MutexGuard<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            self.inner.as_ref().expect("locked")
        }
    }

    impl<T> DerefMut for MutexGuard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            self.inner.as_mut().expect("locked")
        }
    }

    impl Condvar {
        pub(super) fn new() -> Condvar {
            Condvar(shuttle::sync::Condvar::new())
        }

        pub(super) fn notify_one(&self) {
            self.0.notify_one();
        }
    }

    pub(super) fn wait_for<T>(condvar: &Condvar, guard: &mut MutexGuard<'_, T>, limit: Duration) -> bool {
        let inner = guard.inner.take().expect("locked");
        if limit >= NEVER {
            guard.inner = Some(condvar.0.wait(inner).expect("not poisoned"));
            return false;
        }
        // The limit passes: others may run meanwhile, and hand the lock over.
        drop(inner);
        shuttle::thread::yield_now();
        guard.inner = Some(guard.mutex.0.lock().expect("not poisoned"));
        true
    }
}

use self::table::{Grant, LockKey, LockTable};
use crate::planted::{self, Bug};
use bytes::Bytes;
use kontiki_env::clock::{SimClock, VirtualTime};
use shuttle::rand::Rng as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const TRANSACTIONS: u64 = 3;
const KEYS: usize = 3;
const SCHEDULES: usize = 10_000;

fn key(index: usize) -> LockKey {
    (crate::Family::DEFAULT, Bytes::from(vec![index as u8]))
}

/// How often each way out was taken, over all schedules: a model that never waits shows nothing.
#[derive(Default)]
struct Seen {
    granted: AtomicU64,
    deadlocks: AtomicU64,
    timeouts: AtomicU64,
}

/// Takes two or three random locks, one after the other, checks that it has them alone, and releases them.
fn run(table: &LockTable, owners: &[AtomicU64], me: u64, limit: Duration, seen: &Seen) {
    let clock = SimClock::new(VirtualTime::default());
    let mut held = Vec::new();
    for _ in 0..shuttle::rand::thread_rng().gen_range(2..=KEYS) {
        let index = shuttle::rand::thread_rng().gen_range(0..KEYS);
        if held.contains(&index) {
            continue;
        }
        if !table.try_acquire(me, &key(index)) {
            match table.acquire(me, &key(index), limit, &clock) {
                Grant::Granted => _ = seen.granted.fetch_add(1, Ordering::Relaxed),
                Grant::Deadlock(keys) => {
                    seen.deadlocks.fetch_add(1, Ordering::Relaxed);
                    assert!(!held.is_empty() && keys.first() == Some(&key(index)), "a cycle contains its finder");
                    assert!(held.iter().any(|held| keys.last() == Some(&key(*held))), "and ends at what it holds");
                    break;
                }
                Grant::TimedOut => {
                    assert!(limit < sync::NEVER);
                    seen.timeouts.fetch_add(1, Ordering::Relaxed);
                    break;
                }
                Grant::Closed => panic!("the table is not closed"),
            }
        }
        assert_eq!(owners[index].swap(me, Ordering::Relaxed), 0, "a lock has one owner");
        held.push(index);
        shuttle::thread::yield_now();
    }
    for index in held {
        assert_eq!(owners[index].swap(0, Ordering::Relaxed), me);
        table.release(me, &key(index));
    }
}

fn scenario(limit: Duration, seen: &Arc<Seen>) {
    let table = Arc::new(LockTable::with_shards(2));
    let owners: Arc<Vec<AtomicU64>> = Arc::new((0..KEYS).map(|_| AtomicU64::new(0)).collect());
    let threads: Vec<_> = (1..=TRANSACTIONS)
        .map(|me| {
            let (table, owners, seen) = (table.clone(), owners.clone(), seen.clone());
            shuttle::thread::spawn(move || run(&table, &owners, me, limit, &seen))
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
    assert_eq!((table.len(), table.waiting()), (0, 0), "nothing is left behind");
}

fn explore(limit: Duration) -> Arc<Seen> {
    let seen = Arc::new(Seen::default());
    let of_model = seen.clone();
    shuttle::check_random(move || scenario(limit, &of_model), SCHEDULES);
    seen
}

/// Waits end: every lock is handed on, every deadlock is found (nothing else would end these waits).
#[test]
fn every_wait_ends_without_limits() {
    let seen = explore(sync::NEVER);
    let often = SCHEDULES as u64 / 20;
    assert!(seen.granted.load(Ordering::Relaxed) > often && seen.deadlocks.load(Ordering::Relaxed) > often);
}

/// A limit that passes at the very moment of the hand-over loses nothing.
#[test]
fn every_wait_ends_when_limits_pass_at_any_moment() {
    let seen = explore(Duration::from_millis(1));
    let often = SCHEDULES as u64 / 20;
    assert!(seen.granted.load(Ordering::Relaxed) > often && seen.timeouts.load(Ordering::Relaxed) > often);
}

/// Closing ends waits without a release.
#[test]
fn every_wait_ends_when_the_table_closes() {
    let ended = Arc::new([const { AtomicU64::new(0) }; 2]);
    let of_model = ended.clone();
    let model = move || {
        let table = Arc::new(LockTable::with_shards(2));
        assert!(table.try_acquire(1, &key(0)));
        let waiters: Vec<_> = (2..=TRANSACTIONS)
            .map(|me| {
                let (table, ended) = (table.clone(), of_model.clone());
                shuttle::thread::spawn(move || {
                    let clock = SimClock::new(VirtualTime::default());
                    let grant = table.acquire(me, &key(0), sync::NEVER, &clock);
                    assert!(matches!(grant, Grant::Granted | Grant::Closed), "{grant:?}");
                    ended[usize::from(grant == Grant::Closed)].fetch_add(1, Ordering::Relaxed);
                    if grant == Grant::Granted {
                        table.release(me, &key(0));
                    }
                })
            })
            .collect();
        table.close();
        table.release(1, &key(0));
        waiters.into_iter().for_each(|waiter| waiter.join().expect("no panic"));
        assert_eq!((table.len(), table.waiting()), (0, 0), "nothing is left behind");
    };
    shuttle::check_random(model, SCHEDULES);
    assert!(ended.iter().all(|count| count.load(Ordering::Relaxed) > 0), "both ways out were taken");
}

#[test]
fn the_model_finds_a_lost_wake_up() {
    planted::set(Some(Bug::LoseLockWakeUp));
    let found = catch_unwind(AssertUnwindSafe(|| explore(sync::NEVER)));
    planted::set(None);
    assert!(found.is_err(), "a waiter that is notified before it waits must hang in some schedule");
}
