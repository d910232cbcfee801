//! Anomalies by name: each must appear where it is allowed, and must not where it is not.

use super::support::*;
use bytes::Bytes;
use kontiki_engine::{Db, Direction, Entries, Error, Family, Isolation, Range, Transaction, TransactionOptions};
use kontiki_env::SimMachine;

const FAMILY: Family = Family::DEFAULT;

fn begin(db: &Db, isolation: Isolation) -> Transaction {
    db.transaction_with(TransactionOptions { isolation, ..Default::default() }).expect("good options")
}

fn range(start: &'static str, end: &'static str) -> Range {
    Range { start: Some(Bytes::from(start)), end: Some(Bytes::from(end)) }
}

/// Runs both with interleaved operations and says whether both have committed.
fn both_commit(
    db: &Db,
    isolation: Isolation,
    first: impl Fn(&mut Transaction),
    second: impl Fn(&mut Transaction),
) -> bool {
    let (mut one, mut other) = (begin(db, isolation), begin(db, isolation));
    first(&mut one);
    second(&mut other);
    one.commit().expect("the first to commit");
    match other.commit() {
        Ok(_) => true,
        Err(Error::Conflict { .. }) => false,
        Err(error) => panic!("{error}"),
    }
}

/// Two doctors on call; each leaves if the other is there.
#[test]
fn write_skew_appears_under_snapshot_isolation_and_not_under_serializable() {
    for (isolation, possible) in [(Isolation::Snapshot, true), (Isolation::Serializable, false)] {
        let db = stepped(&SimMachine::from_seed(1));
        db.put(b"alice", b"on").expect("put");
        db.put(b"bob", b"on").expect("put");
        let leave = |me: &'static [u8], other: &'static [u8]| {
            move |transaction: &mut Transaction| {
                if transaction.get(other).expect("get").as_deref() == Some(b"on") {
                    transaction.put(me, b"off").expect("small");
                }
            }
        };
        assert_eq!(both_commit(&db, isolation, leave(b"alice", b"bob"), leave(b"bob", b"alice")), possible);
        let on_call = |name: &[u8]| usize::from(db.get(name).expect("get").as_deref() == Some(b"on"));
        assert_eq!(on_call(b"alice") + on_call(b"bob"), usize::from(!possible));
    }
}

/// Each counts a range and inserts into it: what the other inserted was not there when it counted.
#[test]
fn phantoms_appear_under_snapshot_isolation_and_not_under_serializable() {
    for direction in [Direction::Forward, Direction::Backward] {
        for (isolation, possible) in [(Isolation::Snapshot, true), (Isolation::Serializable, false)] {
            let db = stepped(&SimMachine::from_seed(2));
            db.put(b"seat 5", b"booked").expect("put");
            let book = |key: &'static [u8]| {
                move |transaction: &mut Transaction| {
                    let mut entries = transaction.entries(FAMILY, range("seat", "seats"), direction).expect("opens");
                    assert_eq!(rest(&mut entries).len(), 1);
                    transaction.put(key, b"booked").expect("small");
                }
            };
            assert_eq!(both_commit(&db, isolation, book(b"seat 3"), book(b"seat 7")), possible, "{direction:?}");
        }
    }
}

#[test]
fn an_absent_key_that_was_read_is_protected_too() {
    for (isolation, possible) in [(Isolation::Snapshot, true), (Isolation::Serializable, false)] {
        let db = stepped(&SimMachine::from_seed(3));
        let first = |transaction: &mut Transaction| transaction.put(b"a", b"1").expect("small");
        let second = |transaction: &mut Transaction| {
            assert_eq!(transaction.get(b"a").expect("get"), None);
            transaction.put(b"b", b"1").expect("small");
        };
        assert_eq!(both_commit(&db, isolation, first, second), possible);
    }
}

#[test]
fn a_lost_update_appears_under_neither() {
    for isolation in [Isolation::Snapshot, Isolation::Serializable] {
        let db = stepped(&SimMachine::from_seed(4));
        let increment = |transaction: &mut Transaction| {
            let value = transaction.get(b"n").expect("get").map_or(0, |value| value[0]);
            transaction.put(b"n", [value + 1]).expect("small");
        };
        assert!(!both_commit(&db, isolation, increment, increment));
    }
}

/// A range counts as far as the iterator has read, no further: up to the last key it returned, or to its end.
#[test]
fn a_range_is_read_as_far_as_the_iterator_went() {
    // What the iterator does, a key that is written meanwhile, and whether that is a conflict.
    type Case = (Direction, usize, &'static str, bool);
    let cases: [Case; 14] = [
        (Direction::Forward, 2, "b", true),
        (Direction::Forward, 2, "c", true),
        (Direction::Forward, 2, "d", true),
        (Direction::Forward, 2, "d0", false),
        (Direction::Forward, 2, "f", false),
        (Direction::Forward, 0, "b", false),
        (Direction::Forward, 9, "g", true),
        (Direction::Forward, 9, "h", false),
        (Direction::Backward, 2, "g", true),
        (Direction::Backward, 2, "d", true),
        (Direction::Backward, 2, "c0", false),
        (Direction::Backward, 2, "b", false),
        (Direction::Backward, 9, "a0", true),
        (Direction::Backward, 9, "a", false),
    ];
    for (direction, steps, written, conflicts) in cases {
        let db = stepped(&SimMachine::from_seed(5));
        for key in ["b", "d", "f"] {
            db.put(key.as_bytes(), b"v").expect("put");
        }
        let mut transaction = begin(&db, Isolation::Serializable);
        let mut entries = transaction.entries(FAMILY, range("a0", "h"), direction).expect("opens");
        for _ in 0..steps {
            entries.next().transpose().expect("next");
        }
        transaction.put(b"result", b"v").expect("small");
        db.put(written.as_bytes(), b"new").expect("put");
        // The iterator still lives: what it has passed counts all the same.
        let result = transaction.commit();
        assert_eq!(result.is_err(), conflicts, "{direction:?}, {steps} steps, {written}: {result:?}");
        drop(entries);
    }
}

#[test]
fn a_seek_leaves_a_gap_and_each_side_counts() {
    for (written, conflicts) in [("a5", true), ("c", false), ("e", true), ("z", false)] {
        let db = stepped(&SimMachine::from_seed(6));
        for key in ["a", "b", "c", "d", "e", "f"] {
            db.put(key.as_bytes(), b"v").expect("put");
        }
        let mut transaction = begin(&db, Isolation::Serializable);
        {
            let mut entries = transaction.entries(FAMILY, Range::all(), Direction::Forward).expect("opens");
            assert_eq!(entries.next().transpose().expect("next").expect("a").0, "a");
            assert_eq!(entries.next().transpose().expect("next").expect("b").0, "b");
            entries.seek(b"d").expect("seek");
            assert_eq!(entries.next().transpose().expect("next").expect("d").0, "d");
            assert_eq!(entries.next().transpose().expect("next").expect("e").0, "e");
        }
        transaction.put(b"result", b"v").expect("small");
        db.put(written.as_bytes(), b"new").expect("put");
        assert_eq!(transaction.commit().is_err(), conflicts, "{written}");
    }
}

#[test]
fn what_a_transaction_reads_of_its_own_is_no_dependency() {
    let db = stepped(&SimMachine::from_seed(7));
    let mut transaction = begin(&db, Isolation::Serializable);
    transaction.put(b"own", b"1").expect("small");
    transaction.get(b"own").expect("get");
    transaction.put(b"other", b"1").expect("small");
    db.put(b"unrelated", b"v").expect("put");
    transaction.commit().expect("nothing that it read has changed");
}

/// The read-only anomaly of snapshot isolation (Fekete, O'Neil, O'Neil 2004): with a reader in the right place two
/// transactions that would be serializable are not any more.
#[test]
fn the_read_only_anomaly_appears_under_snapshot_isolation_and_not_under_serializable() {
    for (isolation, possible) in [(Isolation::Snapshot, true), (Isolation::Serializable, false)] {
        let db = stepped(&SimMachine::from_seed(8));
        // Both are empty; 100 stands for nothing, since amounts may fall below it.
        db.put(b"checking", [100]).expect("put");
        db.put(b"savings", [100]).expect("put");
        let balance = |transaction: &Transaction, key: &[u8]| transaction.get(key).expect("get").expect("there")[0];
        // Withdraws 10 from checking, with a penalty of 1 if both together do not cover it.
        let mut withdraw = begin(&db, isolation);
        let penalty = balance(&withdraw, b"checking") + balance(&withdraw, b"savings") < 210;
        let mut deposit = begin(&db, isolation);
        deposit.put(b"savings", [120]).expect("small");
        deposit.commit().expect("first");
        // Sees the deposit and not the withdrawal, so the withdrawal comes after the deposit, without a penalty.
        let report = begin(&db, isolation);
        assert_eq!((balance(&report, b"checking"), balance(&report, b"savings")), (100, 120));
        report.commit().expect("it only reads");
        withdraw.put(b"checking", [if penalty { 100 - 11 } else { 100 - 10 }]).expect("small");
        assert_eq!((withdraw.commit().is_ok(), penalty), (possible, true));
    }
}

/// Whatever a transaction learns of a key is a read: also that it is absent, only that it is there, or only its name.
#[test]
fn every_way_to_read_counts_under_serializable() {
    type Read = fn(&Transaction);
    let reads: [(&str, Read); 6] = [
        ("get of an absent key", |t| assert_eq!(t.get("absent").expect("get"), None)),
        ("existence", |t| assert!(t.contains(FAMILY, "present").expect("get"))),
        ("absence", |t| assert!(!t.contains(FAMILY, "absent").expect("get"))),
        ("many at once", |t| assert_eq!(t.multi_get(FAMILY, &["absent", "present"]).expect("get").len(), 2)),
        ("a range", |t| assert_eq!(t.range("a".."b").expect("opens").count(), 0)),
        ("keys only", |t| {
            let options = kontiki_engine::ReadOptions::key_only();
            let keys = t.entries_with(FAMILY, "a".."q", Direction::Forward, options).expect("opens");
            assert_eq!(keys.count(), 1);
        }),
    ];
    for (name, read) in reads {
        for isolation in [Isolation::Snapshot, Isolation::Serializable] {
            for changed in ["absent", "present"] {
                let db = stepped(&SimMachine::from_seed(7));
                db.put("present", "before").expect("put");
                let mut reader = begin(&db, isolation);
                read(&reader);
                reader.put("unrelated", "v").expect("small");
                db.put(changed, "after").expect("put");
                let saw = match name {
                    "existence" => changed == "present",
                    "many at once" | "keys only" => true,
                    _ => changed == "absent",
                };
                let conflicts = isolation == Isolation::Serializable && saw;
                match reader.commit() {
                    Ok(_) => assert!(!conflicts, "{name}, {isolation:?}, {changed}"),
                    Err(Error::Conflict { key, .. }) => {
                        assert!(conflicts, "{name}, {isolation:?}, {changed}");
                        assert_eq!(key, changed, "the error names the key that was written");
                    }
                    Err(error) => panic!("{name}: {error}"),
                }
            }
        }
    }
}
