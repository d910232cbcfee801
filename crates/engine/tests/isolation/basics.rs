//! One transaction after the other, in a stepped world.

use super::support::*;
use bytes::Bytes;
use kontiki_engine::{Db, Direction, Durability, Error, Family, Isolation, Options, Range, TransactionOptions};
use kontiki_env::SimMachine;
use kontiki_env::fs::CrashMode;
use kontiki_env::rng::Rng;
use std::path::Path;

fn found(value: &str) -> Option<Bytes> {
    Some(Bytes::copy_from_slice(value.as_bytes()))
}

#[test]
fn reads_see_the_start_and_the_transactions_own_writes() {
    let db = stepped(&SimMachine::from_seed(1));
    db.put(b"a", b"old").expect("put");
    db.put(b"b", b"old").expect("put");
    let mut transaction = db.transaction();
    db.put(b"b", b"later").expect("put");
    transaction.put(b"a", b"own").expect("small");
    transaction.delete(b"c").expect("small");
    assert_eq!(transaction.get(b"a").expect("get"), found("own"));
    assert_eq!(transaction.get(b"b").expect("get"), found("old"));
    assert_eq!(
        transaction.multi_get(Family::DEFAULT, &[b"b", b"c", b"a"]).expect("get"),
        [found("old"), None, found("own")]
    );
    assert_eq!(db.get(b"a").expect("get"), found("old"), "it is not visible before the commit");
    let sequence = transaction.commit().expect("a and c were not written");
    assert_eq!(db.snapshot().sequence(), sequence);
    assert_eq!(db.get(b"a").expect("get"), found("own"));
}

#[test]
fn dropped_or_rolled_back_it_has_no_effect() {
    let db = stepped(&SimMachine::from_seed(2));
    let before = db.snapshot().sequence();
    let mut dropped = db.transaction();
    dropped.put(b"a", b"1").expect("small");
    drop(dropped);
    let mut rolled_back = db.transaction();
    rolled_back.put(b"a", b"2").expect("small");
    rolled_back.rollback();
    assert_eq!((db.get(b"a").expect("get"), db.snapshot().sequence()), (None, before));
    let stats = db.stats().transactions;
    assert_eq!((stats.started, stats.active, stats.rolled_back, stats.committed), (2, 0, 2, 0));
}

#[test]
fn of_two_that_overlap_and_write_one_key_the_first_to_commit_wins() {
    let db = stepped(&SimMachine::from_seed(3));
    for blind in [true, false] {
        let (mut first, mut second) = (db.transaction(), db.transaction());
        for transaction in [&mut first, &mut second] {
            if !blind {
                transaction.get(b"k").expect("get");
            }
            transaction.put(b"k", b"v").expect("small");
        }
        second.commit().expect("the first to commit");
        let refused = first.commit().expect_err("written since its start");
        assert!(matches!(&refused, Error::Conflict { family: Family::DEFAULT, key } if key.as_ref() == b"k"));
    }
    assert_eq!(db.stats().transactions.conflicts, 2);
    let mut later = db.transaction();
    later.put(b"k", b"w").expect("small");
    later.commit().expect("it began after them");
}

#[test]
fn a_delete_is_a_conflict_also_when_nothing_is_left_of_it() {
    let db = stepped(&SimMachine::from_seed(4));
    db.put(b"k", b"v").expect("put");
    db.compact().expect("compact");
    let mut transaction = db.transaction();
    db.delete(b"k").expect("delete");
    db.delete(b"never there").expect("delete");
    db.compact().expect("compact");
    transaction.put(b"k", b"w").expect("small");
    assert!(matches!(transaction.commit(), Err(Error::Conflict { .. })));
    // No transaction is open: the tombstones are not needed any more.
    db.put(b"other", b"v").expect("put");
    db.compact().expect("compact");
    let mut transaction = db.transaction();
    transaction.put(b"k", b"x").expect("small");
    transaction.commit().expect("no conflict");
}

#[test]
fn one_that_only_reads_commits_without_a_write() {
    for isolation in [Isolation::Snapshot, Isolation::Serializable] {
        let db = stepped(&SimMachine::from_seed(5));
        db.put(b"k", b"v").expect("put");
        let transaction =
            db.transaction_with(TransactionOptions { isolation, ..Default::default() }).expect("good options");
        assert_eq!(transaction.get(b"k").expect("get"), found("v"));
        db.put(b"k", b"w").expect("put");
        let before = (db.stats().log.appended_bytes, db.snapshot().sequence());
        let start = transaction.start();
        assert_eq!(transaction.commit().expect("it has seen one moment"), start);
        assert_eq!((db.stats().log.appended_bytes, db.snapshot().sequence()), before);
    }
}

#[test]
fn all_writes_become_visible_together_and_survive_power_loss() {
    let machine = SimMachine::from_seed(6);
    let db = stepped(&machine);
    let mut transaction = db.transaction();
    for i in 0..50 {
        transaction.put(format!("{i:02}").as_bytes(), [b'x'; 100]).expect("small");
        transaction.put_in(OTHER, format!("{i:02}").as_bytes(), b"y").expect("small");
    }
    transaction.commit().expect("commit");
    let mut open = db.transaction();
    open.put(b"never", b"committed").expect("small");
    machine.fs.crash(CrashMode::LoseUnsynced);
    drop((open, db));
    let db = stepped(&machine.restarted(Rng::new(7)));
    let transaction = db.transaction();
    assert_eq!(dump(&transaction).len(), 50);
    let mut other = transaction.entries(OTHER, Range::all(), Direction::Backward).expect("readable");
    assert_eq!(rest(&mut other).len(), 50);
}

/// Predecessor defect 9: with default options every transaction failed as too big.
#[test]
fn defect_9_a_large_transaction_commits_with_default_options() {
    let machine = SimMachine::from_seed(8);
    let db = Db::open_in(&machine.env(), Path::new("/db"), Options::default()).expect("opens");
    let mut transaction = db.transaction();
    for i in 0..20_000u32 {
        transaction.put(i.to_be_bytes(), [0; 100]).expect("far below the default bounds");
    }
    transaction.commit().expect("commit");
    assert_eq!(dump_count(&db), 20_000);
}

fn dump_count(db: &Db) -> usize {
    let transaction = db.transaction();
    rest(&mut transaction.entries(Family::DEFAULT, Range::all(), Direction::Forward).expect("readable")).len()
}

/// Predecessor defect 11: iterators of transactions showed deleted keys again.
#[test]
fn defect_11_iterators_never_show_deleted_keys_again() {
    let db = stepped(&SimMachine::from_seed(9));
    for key in ["a", "b", "c", "d"] {
        db.put(key.as_bytes(), b"v").expect("put");
    }
    db.compact().expect("compact");
    db.delete(b"a").expect("delete");
    let mut transaction = db.transaction();
    transaction.delete(b"b").expect("small");
    transaction.put(b"c", b"w").expect("small");
    transaction.delete(b"c").expect("small");
    let expected = [("d".to_string(), "v".to_string())];
    assert_eq!(dump(&transaction), expected);
    db.compact().expect("compact");
    assert_eq!(dump(&transaction), expected, "its snapshot stays");
    transaction.commit().expect("commit");
    for _ in 0..2 {
        assert_eq!(dump(&db.transaction()), expected);
        db.compact().expect("compact");
    }
}

#[test]
fn bounds_are_typed_errors_that_leave_the_transaction_usable() {
    let db = stepped(&SimMachine::from_seed(10));
    let options = TransactionOptions {
        write_bytes_max: 8 << 10,
        read_set_bytes_max: 4 << 10,
        ..TransactionOptions::serializable()
    };
    let mut transaction = db.transaction_with(options).expect("good options");
    let refused = transaction.put(b"large", [0; 9 << 10]).expect_err("too large");
    assert!(matches!(refused, Error::TransactionTooLarge { option: "write_bytes_max", limit: 8192 }));
    let mut reads = 0u32;
    let refused = loop {
        match transaction.get(reads.to_be_bytes()) {
            Ok(_) => reads += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, Error::TransactionTooLarge { option: "read_set_bytes_max", limit: 4096 }));
    assert!(reads > 20);
    let mut entries = transaction.entries(Family::DEFAULT, Range::all(), Direction::Forward).expect("opens");
    db.put(b"k", b"v").expect("put");
    assert!(entries.next().is_some_and(|entry| entry.is_err()), "an iterator fails too, at its end as well");
    assert!(transaction.put([0; 70_000], b"").is_err(), "no such key");
    transaction.put(b"small", b"v").expect("small");
    transaction.commit().expect("commit");
    assert_eq!(db.get(b"small").expect("get"), found("v"));
}

#[test]
fn options_out_of_range_are_refused_by_name() {
    let db = stepped(&SimMachine::from_seed(11));
    let default = TransactionOptions::default;
    for (field, options) in [
        ("durability", TransactionOptions { durability: Durability::Derived, ..default() }),
        ("lock_wait_ms", TransactionOptions { lock_wait_ms: u64::MAX, ..default() }),
        ("write_bytes_max", TransactionOptions { write_bytes_max: 0, ..default() }),
        ("read_set_bytes_max", TransactionOptions { read_set_bytes_max: 1, ..default() }),
        ("retries_max", TransactionOptions { retries_max: 1001, ..default() }),
        ("retry_pause_ms_max", TransactionOptions { retry_pause_ms_max: 0, ..default() }),
    ] {
        let error = db.transaction_with(options).expect_err(field);
        assert!(matches!(&error, Error::InvalidArgument(message) if message.starts_with(field)), "{error}");
    }
}

#[test]
fn an_expiring_put_ends_also_within_the_transaction() {
    let machine = SimMachine::from_seed(12);
    let db = stepped(&machine);
    let now_ms = kontiki_env::clock::Clock::wall_ms(&machine.clock);
    let mut transaction = db.transaction();
    transaction.put_expiring(Family::DEFAULT, b"past", b"v", now_ms).expect("small");
    transaction.put_expiring(Family::DEFAULT, b"future", b"v", now_ms + 1000).expect("small");
    assert_eq!(dump(&transaction), [("future".to_string(), "v".to_string())]);
    transaction.commit().expect("commit");
    assert_eq!((db.get(b"past").expect("get"), db.get(b"future").expect("get")), (None, found("v")));
    machine.clock.set_wall_offset_ms(1000);
    assert_eq!(db.get(b"future").expect("get"), None);
}

#[test]
fn a_closed_database_refuses_the_commit_and_statistics_add_up() {
    let db = stepped(&SimMachine::from_seed(13));
    let start = db.put(b"k", b"v").map(|()| db.snapshot().sequence()).expect("put");
    let (mut first, second) = (db.transaction(), db.transaction());
    let stats = db.stats().transactions;
    assert_eq!((stats.started, stats.active, stats.oldest_start), (2, 2, Some(start)));
    second.commit().expect("it only reads");
    first.put(b"k", b"w").expect("small");
    db.clone().close().expect("close");
    assert!(matches!(first.commit(), Err(Error::Closed)));
    let stats = db.stats().transactions;
    assert_eq!((stats.active, stats.committed, stats.rolled_back, stats.oldest_start), (0, 1, 1, None));
    assert_eq!((stats.locks, stats.waiting), (0, 0));
}

#[test]
fn the_age_of_the_oldest_is_shown() {
    let machine = SimMachine::from_seed(14);
    let db = stepped(&machine);
    let pass = |ms| {
        let time = machine.clock.time();
        time.advance_to(time.now() + std::time::Duration::from_millis(ms));
    };
    let oldest = db.transaction();
    pass(500);
    let _younger = db.transaction();
    pass(250);
    assert_eq!(db.stats().transactions.oldest_age_ms, 750);
    drop(oldest);
    assert_eq!(db.stats().transactions.oldest_age_ms, 250);
}

#[test]
fn transact_tries_again_after_a_conflict_and_gives_up_at_its_bound() {
    let db = stepped(&SimMachine::from_seed(15));
    let mut tries = 0;
    let result = db.transact(|transaction| -> Result<_, Error> {
        tries += 1;
        if tries < 4 {
            db.put(b"k", b"another write")?;
        }
        let seen = transaction.get(b"k")?;
        // A write that slips in between the snapshot and the commit.
        if tries < 4 {
            db.put(b"k", b"again")?;
        }
        transaction.put(b"k", b"mine")?;
        Ok(seen)
    });
    assert_eq!((result.expect("the fourth try"), tries), (found("again"), 4));
    assert_eq!(db.stats().transactions.retries, 3);

    let mut tries = 0;
    let options = TransactionOptions { retries_max: 5, ..Default::default() };
    let refused = db.transact_with(&options, |transaction| {
        tries += 1;
        transaction.put(b"k", b"mine")?;
        db.put(b"k", b"theirs")
    });
    assert!(matches!(refused, Err(Error::Conflict { .. })));
    assert_eq!(tries, 6);

    let mut tries = 0;
    let failed: Result<(), Error> = db.transact(|transaction| {
        tries += 1;
        transaction.put(b"own error", b"v")?;
        Err(Error::InvalidArgument("the closure's own".into()))
    });
    assert!(matches!(failed, Err(Error::InvalidArgument(_))));
    assert_eq!((tries, db.get(b"own error").expect("get")), (1, None));
}

#[test]
fn thousands_may_be_open_at_once() {
    let db = stepped(&SimMachine::from_seed(16));
    let mut open = Vec::new();
    for i in 0..5000u32 {
        let mut transaction = db.transaction();
        transaction.put(i.to_be_bytes(), b"v").expect("small");
        open.push(transaction);
    }
    assert_eq!(db.stats().transactions.active, 5000);
    for transaction in open {
        transaction.commit().expect("they write different keys");
    }
    assert_eq!(dump_count(&db), 5000);
}

#[test]
fn a_range_delete_takes_effect_with_the_rest_and_conflicts_with_writes_inside() {
    for isolation in [Isolation::Snapshot, Isolation::Serializable] {
        let db = stepped(&SimMachine::from_seed(17));
        for key in ["a", "b", "c", "d"] {
            db.put(key.as_bytes(), b"v").expect("put");
        }
        let begin =
            || db.transaction_with(TransactionOptions { isolation, ..Default::default() }).expect("good options");
        let delete = |transaction: &mut kontiki_engine::Transaction| {
            transaction.delete_range(Family::DEFAULT, b"b"..b"d").expect("small");
            transaction.put(b"bb", b"own").expect("small");
        };
        // A key inside that was never read, an overwrite, a delete; and one outside.
        for (written, conflicts) in [("bx", true), ("b", true), ("c", true), ("d", false)] {
            let mut transaction = begin();
            delete(&mut transaction);
            db.put(written.as_bytes(), b"v").expect("put");
            let result = transaction.commit();
            assert_eq!(result.is_err(), conflicts, "{written}: {result:?}");
        }
        assert_eq!(
            dump(&begin()),
            [("a", "v"), ("bb", "own"), ("d", "v")].map(|(key, value)| (key.to_string(), value.to_string()))
        );
        // The other way round: a range delete is a write to every key in the range.
        for key in [b"b".as_slice(), b"bb", b"not there"] {
            let mut transaction = begin();
            transaction.put(key, b"w").expect("small");
            let mut other = begin();
            other.delete_range(Family::DEFAULT, b"b"..b"z").expect("small");
            other.commit().expect("first");
            db.compact().expect("compact");
            assert!(matches!(transaction.commit(), Err(Error::Conflict { .. })), "{key:?}");
        }
        let mut upside_down = begin();
        upside_down.delete_range(Family::DEFAULT, b"z"..b"a").expect("no keys");
        upside_down.delete_range(Family::DEFAULT, b"a"..b"a").expect("empty");
        upside_down.commit().expect("nothing to write");
    }
}

#[test]
fn an_expired_write_is_a_conflict_also_when_compaction_has_dropped_it() {
    let machine = SimMachine::from_seed(18);
    let db = stepped(&machine);
    db.put(b"k", b"v").expect("put");
    let mut transaction = db.transaction();
    let mut batch = kontiki_engine::WriteBatch::new();
    batch.put_expiring(Family::DEFAULT, b"k", b"w", 1);
    db.write(batch, Durability::Sync).expect("write");
    assert_eq!(db.get(b"k").expect("get"), None, "long gone");
    db.compact().expect("compact");
    transaction.put(b"k", b"mine").expect("small");
    assert!(matches!(transaction.commit(), Err(Error::Conflict { .. })));
}
