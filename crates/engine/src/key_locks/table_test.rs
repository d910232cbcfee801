use super::table::{Grant, LockKey, LockTable};
use crate::Family;
use bytes::Bytes;
use kontiki_env::clock::{Clock, RealClock};
use std::sync::Barrier;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(30);

fn key(name: &str) -> LockKey {
    (Family::DEFAULT, Bytes::copy_from_slice(name.as_bytes()))
}

/// Waits until `count` transactions wait.
fn until_waiting(table: &LockTable, count: usize) {
    let clock = RealClock::new();
    // The clock's origin is the start of the process, which may run other tests before.
    let end = clock.monotonic() + LONG;
    while table.waiting() < count {
        assert!(clock.monotonic() < end, "no transaction waits");
        std::thread::yield_now();
    }
}

#[test]
fn a_lock_is_exclusive_reentrant_and_of_one_family() {
    let table = LockTable::new();
    let other = (Family(1), key("a").1);
    assert!(table.try_acquire(1, &key("a")) && table.try_acquire(1, &key("a")));
    assert!(!table.try_acquire(2, &key("a")) && table.try_acquire(2, &other));
    assert_eq!(table.len(), 2);
    table.release(1, &key("a"));
    table.release(2, &other);
    assert_eq!(table.len(), 0);
}

#[test]
fn a_release_hands_over_in_the_order_of_arrival() {
    let (table, clock) = (LockTable::new(), RealClock::new());
    let order = parking_lot::Mutex::new(Vec::new());
    assert!(table.try_acquire(1, &key("a")));
    std::thread::scope(|scope| {
        for me in 2..6 {
            let (table, order, clock) = (&table, &order, &clock);
            scope.spawn(move || {
                assert_eq!(table.acquire(me, &key("a"), LONG, clock), Grant::Granted);
                order.lock().push(me);
                table.release(me, &key("a"));
            });
            until_waiting(table, me as usize - 1);
        }
        table.release(1, &key("a"));
    });
    assert_eq!(*order.lock(), [2, 3, 4, 5]);
    assert_eq!((table.len(), table.waiting()), (0, 0));
}

#[test]
fn a_wait_ends_at_its_limit_and_leaves_nothing_behind() {
    let (table, clock) = (LockTable::new(), RealClock::new());
    assert!(table.try_acquire(1, &key("a")));
    assert_eq!(table.acquire(2, &key("a"), Duration::from_millis(1), &clock), Grant::TimedOut);
    assert_eq!(table.acquire(2, &key("a"), Duration::ZERO, &clock), Grant::TimedOut);
    assert_eq!(table.waiting(), 0);
    table.release(1, &key("a"));
    assert_eq!(table.len(), 0, "a lock is not passed to a transaction that has ended");
}

#[test]
fn closing_a_cycle_returns_its_keys() {
    let (table, clock, barrier) = (LockTable::new(), RealClock::new(), Barrier::new(3));
    let names = ["a", "b", "c"];
    let grants: Vec<Grant> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..3usize)
            .map(|i| {
                let (table, clock, barrier) = (&table, &clock, &barrier);
                scope.spawn(move || {
                    let me = i as u64 + 1;
                    assert!(table.try_acquire(me, &key(names[i])));
                    barrier.wait();
                    let next = key(names[(i + 1) % 3]);
                    let grant = table.acquire(me, &next, LONG, clock);
                    if grant == Grant::Granted {
                        table.release(me, &next);
                    }
                    table.release(me, &key(names[i]));
                    grant
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    let cycles: Vec<&Vec<LockKey>> =
        grants.iter().filter_map(|grant| if let Grant::Deadlock(keys) = grant { Some(keys) } else { None }).collect();
    assert_eq!(cycles.len(), 1, "one is refused and the others make progress: {grants:?}");
    let mut found = cycles[0].clone();
    found.sort();
    assert_eq!(found, [key("a"), key("b"), key("c")]);
    assert_eq!((table.len(), table.waiting()), (0, 0));
}

#[test]
fn waiting_in_a_line_is_no_deadlock() {
    let (table, clock) = (LockTable::new(), RealClock::new());
    assert!(table.try_acquire(1, &key("a")) && table.try_acquire(2, &key("b")));
    std::thread::scope(|scope| {
        // 3 waits for 2, which waits for 1.
        scope.spawn(|| {
            assert_eq!(table.acquire(2, &key("a"), LONG, &clock), Grant::Granted);
            table.release(2, &key("a"));
            table.release(2, &key("b"));
        });
        until_waiting(&table, 1);
        scope.spawn(|| {
            assert_eq!(table.acquire(3, &key("b"), LONG, &clock), Grant::Granted);
            table.release(3, &key("b"));
        });
        until_waiting(&table, 2);
        table.release(1, &key("a"));
    });
    assert_eq!(table.len(), 0);
}

#[test]
fn closing_ends_every_wait() {
    let (table, clock) = (LockTable::new(), RealClock::new());
    assert!(table.try_acquire(1, &key("a")));
    std::thread::scope(|scope| {
        for me in 2..5 {
            let (table, clock) = (&table, &clock);
            scope.spawn(move || assert_eq!(table.acquire(me, &key("a"), LONG, clock), Grant::Closed));
        }
        until_waiting(&table, 3);
        table.close();
    });
    assert_eq!(table.acquire(5, &key("a"), LONG, &clock), Grant::Closed);
    table.release(1, &key("a"));
    assert_eq!((table.len(), table.waiting()), (0, 0));
}
