//! The short forms of the interface: families by name, iterators, expiry by duration, existence, kinds of errors.

use super::*;
use crate::{BatchOp, ChangesOptions, Error, ErrorKind};
use std::collections::BTreeSet;
use std::time::Duration;

const DAY: Duration = Duration::from_secs(86_400);

#[test]
fn a_family_is_opened_by_its_name_and_keeps_its_number() {
    let machine = SimMachine::from_seed(1);
    let db = open(&machine);
    let crew = db.open_family("crew").expect("created");
    assert_eq!(db.open_family("crew").expect("there"), crew);
    assert_ne!(db.open_family("logs").expect("created"), crew);
    db.put_in(crew, "thor", "captain").expect("written");
    assert_eq!(db.get("thor").expect("get"), None, "it is of another family");
    db.close().expect("closes");
    let db = open(&restarted(&machine, 2));
    assert_eq!(db.open_family("crew").expect("there"), crew);
    assert_eq!(db.get_in(crew, "thor").expect("get").as_deref(), Some(&b"captain"[..]));
    db.delete_in(crew, "thor").expect("written");
    assert!(!db.contains(crew, "thor").expect("get"));
    let reserved = db.open_family("kontiki.crew").expect_err("reserved");
    assert_eq!(reserved.kind(), ErrorKind::InvalidArgument);
    db.drop_family(crew).expect("there");
    assert_eq!(db.get_in(crew, "thor").expect_err("dropped").kind(), ErrorKind::NotFound);
    assert_ne!(db.open_family("crew").expect("created anew"), crew);
}

#[test]
fn ranges_are_iterators_that_end_after_an_error() {
    let machine = SimMachine::from_seed(3);
    let db = open(&machine);
    for key in ["a", "b", "c", "d"] {
        db.put(key, key.repeat(2)).expect("written");
    }
    let snapshot = db.snapshot();
    db.delete_range(Family::DEFAULT, "b"..="c").expect("written");
    let keys = |scan: crate::Scan| {
        scan.map(|entry| entry.map(|(key, _)| key)).collect::<crate::Result<Vec<_>>>().expect("readable")
    };
    assert_eq!(keys(db.range(..).expect("opens")), ["a", "d"]);
    assert_eq!(keys(snapshot.range("b"..).expect("opens")), ["b", "c", "d"]);
    assert_eq!(keys(snapshot.range("d".."b").expect("opens")), [] as [&str; 0], "reversed");
    assert_eq!(snapshot.get("b").expect("get").as_deref(), Some(&b"bb"[..]));

    let transaction = db.transaction();
    let mut entries = transaction.range("a"..).expect("opens");
    assert_eq!(entries.next().expect("one").expect("readable").0, "a");
    drop(transaction);
    assert!(matches!(entries.next(), Some(Err(Error::InvalidArgument(_)))), "the transaction has ended");
    assert!(entries.next().is_none(), "a loop over errors would never end");
}

#[test]
fn time_to_live_is_a_duration_of_the_wall_clock() {
    let machine = SimMachine::from_seed(4);
    let db = open(&machine);
    db.put_with_ttl(Family::DEFAULT, "short", "v", DAY).expect("written");
    db.transact(|transaction| transaction.put_with_ttl(Family::DEFAULT, "long", "v", 2 * DAY)).expect("written");
    let before = db.snapshot();
    assert!(db.contains(Family::DEFAULT, "short").expect("get") && db.contains(Family::DEFAULT, "long").expect("get"));
    let time = machine.clock.time();
    time.advance_to(time.now() + DAY);
    assert!(!db.contains(Family::DEFAULT, "short").expect("get"), "it has expired");
    assert!(before.contains(Family::DEFAULT, "short").expect("get"), "a snapshot does not change");
    assert_eq!(db.get("long").expect("get").as_deref(), Some(&b"v"[..]));
    assert_eq!(db.expires_at_ms(Duration::MAX), u64::MAX);
    assert_eq!(db.expires_at_ms(Duration::from_nanos(1)), db.expires_at_ms(Duration::from_millis(1)), "rounded up");
}

#[test]
fn seconds_in_place_of_milliseconds_are_refused() {
    let machine = SimMachine::from_seed(5);
    let db = open(&machine);
    let mut batch = WriteBatch::new();
    batch.put_expiring(Family::DEFAULT, "k", "v", 1_700_000_060);
    let refused = db.write(batch, Durability::Sync).expect_err("it would never be seen");
    assert!(matches!(&refused, Error::InvalidArgument(what) if what.contains("milliseconds")), "{refused}");
    let put = |at| db.transact(|transaction| transaction.put_expiring(Family::DEFAULT, "k", "v", at));
    assert_eq!(put(1_700_000_060).expect_err("the same").kind(), ErrorKind::InvalidArgument);
    put(db.expires_at_ms(Duration::from_secs(60))).expect("a minute");
    assert!(db.contains(Family::DEFAULT, "k").expect("get"));
    put(1).expect("long ago, and meant so");
    assert!(!db.contains(Family::DEFAULT, "k").expect("get"));
}

#[test]
fn existence_is_known_without_the_value() {
    let machine = new_machine(6);
    let db = Db::open_in(&machine.env(), Path::new(DIR), super::values::large_values()).expect("opens");
    let value = super::values::text(20_000, 1);
    let all = |db: &Db| {
        let snapshot = db.snapshot();
        let transaction = db.transaction();
        ["in a table", "deleted", "in memory", "never there"].map(|key| {
            let found = db.contains(Family::DEFAULT, key).expect("readable");
            assert_eq!(snapshot.contains(Family::DEFAULT, key).expect("readable"), found);
            assert_eq!(transaction.contains(Family::DEFAULT, key).expect("readable"), found);
            assert_eq!(db.get(key).expect("readable").is_some(), found);
            found
        })
    };
    db.put("in a table", &value).expect("written");
    db.put("deleted", &value).expect("written");
    db.flush().expect("written");
    db.delete("deleted").expect("written");
    db.put("in memory", &value).expect("written");
    assert_eq!(all(&db), [true, false, true, false]);
    let mut transaction = db.transaction();
    transaction.put("never there", "now").expect("small");
    transaction.delete("in memory").expect("small");
    assert!(transaction.contains(Family::DEFAULT, "never there").expect("readable"));
    assert!(!transaction.contains(Family::DEFAULT, "in memory").expect("readable"));
}

#[test]
fn the_feed_leaves_out_families() {
    let machine = SimMachine::from_seed(7);
    let db = open(&machine);
    let derived = db.open_family("derived").expect("created");
    let write = |families: &[Family]| {
        let mut batch = WriteBatch::new();
        families.iter().for_each(|family| batch.put(*family, "k", "v"));
        db.write(batch, Durability::Sync).expect("written")
    };
    let (first, _) = (write(&[Family::DEFAULT, derived]), write(&[derived]));
    let third = write(&[derived, Family::DEFAULT]);
    let last = write(&[derived]);
    let options = ChangesOptions { left_out: BTreeSet::from([derived]), ..ChangesOptions::from(0) };
    let mut changes = db.changes_with(options).expect("from the start");
    let mut found = Vec::new();
    while let Some(change) = changes.next().expect("readable") {
        assert!(change.batch.ops().all(|op: BatchOp<'_>| op.family() == Family::DEFAULT) && change.batch.len() == 1);
        found.push(change.sequence);
    }
    assert_eq!(found, [first, third]);
    assert_eq!(changes.position(), last, "what was left out is not read again");
}
