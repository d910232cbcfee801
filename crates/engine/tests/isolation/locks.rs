//! Pessimistic transactions: locks of keys, their limits, deadlocks, and the guarantees of a holder.

use super::support::*;
use bytes::Bytes;
use kontiki_engine::{Error, Family, Isolation, TransactionOptions};
use kontiki_env::SimMachine;
use std::sync::Barrier;

const FAMILY: Family = Family::DEFAULT;

fn number(value: Option<Bytes>) -> u64 {
    value.map_or(0, |value| std::str::from_utf8(&value).expect("text").parse().expect("a number"))
}

fn waiting_options() -> TransactionOptions {
    TransactionOptions { lock_wait_ms: 60_000, ..Default::default() }
}

#[test]
fn a_locked_key_shows_its_newest_value_everywhere_and_its_commit_does_not_fail() {
    let db = stepped(&SimMachine::from_seed(1));
    db.put(b"a", b"1").expect("put");
    db.put(b"b", b"1").expect("put");
    let mut transaction = db.transaction();
    db.put(b"a", b"2").expect("put");
    db.put(b"b", b"2").expect("put");
    assert_eq!(number(transaction.get(b"a").expect("get")), 1, "the snapshot");
    assert_eq!(number(transaction.get_for_update(FAMILY, b"a").expect("free")), 2, "the newest");
    assert_eq!(number(transaction.get(b"a").expect("get")), 2);
    let expected = [("a".to_string(), "2".to_string()), ("b".to_string(), "1".to_string())];
    assert_eq!(dump(&transaction), expected);
    transaction.put(b"a", b"3").expect("small");
    transaction.commit().expect("it was not written since it was locked");
    assert_eq!(number(db.get(b"a").expect("get")), 3);
}

#[test]
fn where_the_newest_value_would_be_a_lie_the_lock_is_a_conflict() {
    let db = stepped(&SimMachine::from_seed(2));
    db.put(b"a", b"1").expect("put");
    // A serializable transaction does not leave its snapshot.
    let mut serializable = db.transaction_with(TransactionOptions::serializable()).expect("good options");
    // One that has written the key has decided by the snapshot.
    let mut written = db.transaction();
    written.put(b"a", b"mine").expect("small");
    db.put(b"a", b"2").expect("put");
    assert!(matches!(serializable.get_for_update(FAMILY, b"a"), Err(Error::Conflict { .. })));
    drop(serializable);
    assert!(matches!(written.lock(FAMILY, b"a"), Err(Error::Conflict { .. })));
    drop(written);
    let mut later = db.transaction_with(TransactionOptions::serializable()).expect("good options");
    assert_eq!(number(later.get_for_update(FAMILY, b"a").expect("unchanged since its start")), 2);
    assert_eq!(db.stats().transactions.locks, 1);
    later.put(b"a", b"3").expect("small");
    later.commit().expect("commit");
    assert_eq!(db.stats().transactions.locks, 0);
}

#[test]
fn a_transaction_that_cannot_wait_fails_at_once() {
    // One thread drives everything: a wait could not end.
    let db = stepped(&SimMachine::from_seed(3));
    let mut holder = db.transaction_with(waiting_options()).expect("good options");
    holder.lock(FAMILY, b"a").expect("free");
    holder.lock(FAMILY, b"a").expect("its own");
    let mut other = db.transaction_with(waiting_options()).expect("good options");
    let refused = other.get_for_update(FAMILY, b"a").expect_err("locked");
    assert!(matches!(&refused, Error::LockTimeout { key, waited_ms: 0, .. } if key.as_ref() == b"a"));
    other.lock(FAMILY, b"b").expect("the transaction continues");
    // An optimistic commit does not write past a lock either.
    let mut optimistic = db.transaction();
    optimistic.put(b"a", b"v").expect("small");
    assert!(matches!(optimistic.commit(), Err(Error::LockTimeout { .. })));
    holder.put(b"a", b"w").expect("small");
    holder.commit().expect("commit");
    let stats = db.stats().transactions;
    assert_eq!((stats.lock_waits, stats.lock_timeouts, stats.locks), (2, 2, 1));
}

#[test]
fn a_write_without_a_transaction_heeds_no_lock_and_is_noticed() {
    let db = stepped(&SimMachine::from_seed(4));
    let mut transaction = db.transaction();
    transaction.get_for_update(FAMILY, b"a").expect("free");
    db.put(b"a", b"plain").expect("put");
    transaction.put(b"b", b"depends on a").expect("small");
    assert!(matches!(transaction.commit(), Err(Error::Conflict { .. })));
}

#[test]
fn a_wait_ends_at_its_limit() {
    let db = threaded(5);
    let mut holder = db.transaction();
    holder.lock(FAMILY, b"a").expect("free");
    let mut other =
        db.transaction_with(TransactionOptions { lock_wait_ms: 5, ..Default::default() }).expect("good options");
    assert!(matches!(other.lock(FAMILY, b"a"), Err(Error::LockTimeout { waited_ms: 5, .. })));
    drop(holder);
    other.lock(FAMILY, b"a").expect("free now");
    let stats = db.stats().transactions;
    assert_eq!((stats.lock_waits, stats.lock_timeouts), (1, 1));
    assert!(stats.lock_wait_us >= 5000);
}

#[test]
fn closing_the_database_ends_waits() {
    let db = threaded(6);
    let mut holder = db.transaction();
    holder.lock(FAMILY, b"a").expect("free");
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            let mut waiter = db.transaction_with(waiting_options()).expect("good options");
            waiter.lock(FAMILY, b"a")
        });
        until(|| db.stats().transactions.waiting == 1);
        db.clone().close().expect("close");
        assert!(matches!(waiter.join().expect("no panic"), Err(Error::Closed)));
    });
}

#[test]
fn a_deadlock_names_its_keys_and_the_other_gets_on() {
    let db = threaded(7);
    let barrier = Barrier::new(2);
    let run = |first: &'static [u8], second: &'static [u8]| {
        let mut transaction = db.transaction_with(waiting_options()).expect("good options");
        transaction.lock(FAMILY, first).expect("free");
        barrier.wait();
        transaction.lock(FAMILY, second)?;
        transaction.put(first, b"v")?;
        transaction.commit()
    };
    let results = std::thread::scope(|scope| {
        let threads = [scope.spawn(|| run(b"a", b"b")), scope.spawn(|| run(b"b", b"a"))];
        threads.map(|thread| thread.join().expect("no panic"))
    });
    let refused: Vec<&Error> = results.iter().filter_map(|result| result.as_ref().err()).collect();
    let [Error::Deadlock { keys }] = refused[..] else { panic!("one of the two: {results:?}") };
    let mut keys: Vec<&[u8]> = keys.iter().map(|(_, key)| key.as_ref()).collect();
    keys.sort_unstable();
    assert_eq!(keys, [b"a", b"b"]);
    assert_eq!(db.stats().transactions.deadlocks, 1);
}

/// Increments under locks, next to optimistic ones of the same keys: no commit of a lock's holder fails, none is lost.
#[test]
fn counters_under_locks_lose_nothing_and_never_conflict() {
    const THREADS: u64 = 4;
    const ROUNDS: u64 = 150;
    let db = threaded(8);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let db = &db;
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    let key = [b'k', ((thread + round) % 2) as u8];
                    if thread % 2 == 0 {
                        let mut transaction = db.transaction_with(waiting_options()).expect("good options");
                        let value = number(transaction.get_for_update(FAMILY, key).expect("in time")) + 1;
                        give_way();
                        transaction.put(key, value.to_string().as_bytes()).expect("small");
                        transaction.commit().expect("never for a key that it has locked");
                    } else {
                        let options = TransactionOptions { retries_max: 1000, ..waiting_options() };
                        let increment = |transaction: &mut kontiki_engine::Transaction| {
                            let value = number(transaction.get(key)?) + 1;
                            give_way();
                            transaction.put(key, value.to_string().as_bytes())
                        };
                        db.transact_with(&options, increment).expect("at last");
                    }
                }
            });
        }
    });
    let total = number(db.get([b'k', 0]).expect("get")) + number(db.get([b'k', 1]).expect("get"));
    assert_eq!(total, THREADS * ROUNDS);
    let stats = db.stats().transactions;
    assert!(stats.lock_waits > 0 && stats.lock_timeouts == 0, "{stats:?}");
    assert_eq!((stats.active, stats.locks, stats.waiting), (0, 0, 0));
}

#[test]
fn locks_keep_write_skew_away_under_snapshot_isolation() {
    let db = stepped(&SimMachine::from_seed(9));
    let mut first = db.transaction();
    let mut second = db.transaction();
    for key in [b"x", b"y"] {
        first.get_for_update(FAMILY, key).expect("free");
    }
    second.get(b"x").expect("get");
    assert!(second.get_for_update(FAMILY, b"y").is_err(), "it would have to wait");
    first.put(b"x", b"1").expect("small");
    first.commit().expect("commit");
    assert_eq!(number(second.get_for_update(FAMILY, b"x").expect("free now")), 1);
    assert_eq!(TransactionOptions::default().isolation, Isolation::Snapshot);
}

fn until(condition: impl Fn() -> bool) {
    let clock = kontiki_env::clock::RealClock::new();
    let now = || kontiki_env::clock::Clock::monotonic(&clock);
    let began = now();
    while !condition() {
        assert!(now() - began < std::time::Duration::from_secs(30), "it does not come to that");
        give_way();
    }
}
