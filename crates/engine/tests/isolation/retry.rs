//! `Db::transact` under contention.

use crate::support::{give_way, threaded};
use kontiki_engine::{Db, Durability, Error, Family, Isolation, Transaction, TransactionOptions, WriteBatch};
use std::sync::atomic::{AtomicBool, Ordering};

const THREADS: u64 = 8;
const TURNS: u64 = 60;

fn number(found: Option<&[u8]>) -> u64 {
    found.map_or(0, |value| u64::from_le_bytes(*value.first_chunk().expect("eight bytes")))
}

fn add_one(transaction: &mut Transaction) -> Result<(), Error> {
    let before = number(transaction.get(b"counter")?.as_deref());
    // So that the others read the same.
    give_way();
    transaction.put(b"counter", (before + 1).to_le_bytes())
}

fn add_from_all_threads(db: &Db, options: &TransactionOptions) {
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| (0..TURNS).for_each(|_| db.transact_with(options, add_one).expect("one retry is enough")));
        }
    });
    assert_eq!(number(db.get(b"counter").expect("readable").as_deref()), THREADS * TURNS);
}

/// After a conflict a transaction waits in the queue of the key; so it does not lose twice to transactions over one
/// key.
#[test]
fn a_transaction_that_lost_once_over_a_key_does_not_lose_again() {
    for isolation in [Isolation::Snapshot, Isolation::Serializable] {
        for durability in [Durability::Sync, Durability::Buffered] {
            let db = threaded(1);
            // However slow the machine.
            let options = TransactionOptions {
                isolation,
                durability,
                retries_max: 1,
                lock_wait_ms: 60_000,
                ..Default::default()
            };
            add_from_all_threads(&db, &options);
            let stats = db.stats().transactions;
            assert!(stats.retries > 0, "the workload is too weak");
            assert!(stats.retries <= THREADS * TURNS, "{stats:?}");
            assert_eq!((stats.locks, stats.active), (0, 0), "nothing is left: {stats:?}");
        }
    }
}

/// Two that each read what the other writes lose to each other, and then request each other's locks.
#[test]
fn transactions_that_cross_end_too() {
    let db = threaded(2);
    let options = TransactionOptions { retries_max: 1000, lock_wait_ms: 60_000, ..TransactionOptions::serializable() };
    let keys: [&[u8]; 2] = [b"left", b"right"];
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (db, options) = (&db, &options);
            scope.spawn(move || {
                for turn in 0..TURNS as usize {
                    let (mine, other) = (keys[(thread + turn) % 2], keys[(thread + turn + 1) % 2]);
                    let cross = |transaction: &mut Transaction| {
                        let sum =
                            number(transaction.get(mine)?.as_deref()) + number(transaction.get(other)?.as_deref());
                        give_way();
                        transaction.put(mine, (sum + 1).to_le_bytes().map(|byte| byte & 0x7f))
                    };
                    db.transact_with(options, cross).expect("at last");
                }
            });
        }
    });
    assert_eq!(db.stats().transactions.locks, 0);
}

/// A plain write heeds no lock: a retry must not go on from what it read before.
#[test]
fn plain_writes_beside_it_are_seen() {
    let db = threaded(3);
    let options = TransactionOptions { retries_max: 1000, durability: Durability::Buffered, ..Default::default() };
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for turn in 0u64.. {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let mut batch = WriteBatch::new();
                batch.put(Family::DEFAULT, b"plain", turn.to_le_bytes());
                db.write(batch, Durability::Buffered).expect("healthy");
                give_way();
            }
        });
        for _ in 0..50 {
            let copied = db.transact_with(&options, |transaction| -> kontiki_engine::Result<_> {
                let found = number(transaction.get(b"plain")?.as_deref());
                transaction.put(b"copy", found.to_le_bytes())?;
                transaction.put(b"plain", found.to_le_bytes())?;
                Ok(found)
            });
            assert_eq!(number(db.get(b"copy").expect("readable").as_deref()), copied.expect("at last"));
        }
        stop.store(true, Ordering::Relaxed);
    });
}

/// A savepoint is of one try.
#[test]
fn a_savepoint_does_not_outlive_its_try() {
    let db = threaded(4);
    let mut kept = None;
    let mut tries = 0;
    let outcome = db.transact(|transaction| {
        tries += 1;
        transaction.get(b"k")?;
        if let Some(savepoint) = &kept {
            assert!(matches!(transaction.rollback_to(savepoint), Err(Error::InvalidArgument(_))));
            return Ok(());
        }
        kept = Some(transaction.savepoint());
        db.put(b"k", b"by another")?;
        transaction.put(b"k", b"mine")
    });
    outcome.expect("the second try writes nothing");
    assert_eq!(tries, 2);
}

/// What a caller makes of a conflict does not hide it from the retry; an error of its own ends it.
#[test]
fn the_error_of_a_closure_is_its_own() {
    #[derive(Debug, PartialEq)]
    enum Refused {
        NotFree,
        Store(String),
    }
    impl From<Error> for Refused {
        fn from(error: Error) -> Refused {
            Refused::Store(error.to_string())
        }
    }
    let db = threaded(5);
    let mut tries = 0;
    let counted = db.transact_with(&TransactionOptions::serializable(), |transaction| {
        tries += 1;
        transaction.get(b"read")?;
        if tries == 1 {
            db.put(b"locked", b"by another")?;
        }
        // The lock of a serializable transaction meets the conflict, and the closure passes it on as an error of its
        // own.
        transaction.lock(Family::DEFAULT, b"locked")?;
        Ok::<_, Refused>(tries)
    });
    assert_eq!(counted, Ok(2), "the conflict was not final");

    let mut tries = 0;
    let refused: Result<(), Refused> = db.transact(|_| {
        tries += 1;
        Err(Refused::NotFree)
    });
    assert_eq!((refused, tries), (Err(Refused::NotFree), 1));

    let options = TransactionOptions { retries_max: 3, ..TransactionOptions::default() };
    let mut tries = 0;
    let lost: Result<(), Refused> = db.transact_with(&options, |transaction| {
        tries += 1;
        db.put(b"k", b"by another")?;
        transaction.put(b"k", b"mine")?;
        Ok(())
    });
    assert!(matches!(&lost, Err(Refused::Store(what)) if what.contains("conflicting write")), "{lost:?}");
    assert_eq!(tries, 4);
}
