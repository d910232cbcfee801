//! The rows of docs/guide/where-engines-differ.md: behaviours that surprise people who come from other engines, and
//! what Kontiki does instead. One test for each row.

use kontiki::{
    Db, Direction, Durability, Error, ErrorKind, Family, Options, ReadOptions, TransactionOptions, WriteBatch,
};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

const FAMILY: Family = Family::DEFAULT;

fn open(folder: &TempDir) -> Db {
    Db::open(folder.path(), Options::default()).expect("opens")
}

fn filled(keys: &[&str]) -> (TempDir, Db) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let db = open(&folder);
    for key in keys {
        db.put(key, "value").expect("written");
    }
    (folder, db)
}

fn keys(db: &Db) -> Vec<String> {
    let text = |key: kontiki::Bytes| String::from_utf8(key.to_vec()).expect("keys of the test are text");
    db.range(..).expect("opens").map(|entry| text(entry.expect("readable").0)).collect()
}

#[test]
fn a_loop_after_a_seek_that_found_nothing_ends() {
    let (_folder, db) = filled(&["a", "b", "c"]);
    for (direction, beyond) in [(Direction::Forward, "d"), (Direction::Backward, "A")] {
        let mut scan = db.scan(FAMILY, .., direction, ReadOptions::default()).expect("opens");
        scan.seek(beyond.as_bytes()).expect("readable");
        assert_eq!(scan.by_ref().count(), 0, "{direction:?}");
        assert_eq!(scan.count(), 0, "{direction:?}: and it stays at its end");
    }
}

#[test]
fn a_seek_to_an_absent_key_stands_on_the_next_key_of_the_direction() {
    let (_folder, db) = filled(&["a", "c"]);
    for (direction, found) in [(Direction::Forward, "c"), (Direction::Backward, "a")] {
        let mut scan = db.scan(FAMILY, .., direction, ReadOptions::default()).expect("opens");
        scan.seek(b"b").expect("readable");
        assert_eq!(scan.next().expect("one").expect("readable").0, found, "{direction:?}");
    }
}

#[test]
fn a_range_without_an_end_goes_to_the_end_in_every_call() {
    let (_folder, db) = filled(&["a", "b", "c"]);
    db.flush().expect("written");
    for _ in 0..2 {
        // What is deleted takes space until it is compacted.
        db.delete_range(FAMILY, "b"..).expect("written");
        db.compact_range(FAMILY, "b"..).expect("compacts");
        assert_eq!(keys(&db), ["a"]);
        assert_eq!(db.stats().families[0].range_tombstones, 0, "the range was compacted to its end");
        db.put("b", "again").expect("written");
        db.flush().expect("written");
    }
    db.delete_range(FAMILY, "b".."").expect("written");
    assert_eq!(keys(&db), ["a"], "an empty end is the end, too");
}

#[test]
fn a_range_is_read_and_deleted_with_the_same_bounds() {
    let (_folder, db) = filled(&["a", "b", "c", "d"]);
    let ranges: [kontiki::Range; 4] = [("b".."d").into(), ("b"..="c").into(), ("d".."b").into(), ("b".."b").into()];
    for range in ranges {
        let read = db.range(range.clone()).expect("opens").count();
        let before = keys(&db).len();
        let mut batch = WriteBatch::new();
        batch.delete_range(FAMILY, range.clone());
        db.write(batch, Durability::Buffered).expect("written");
        assert_eq!(before - keys(&db).len(), read, "{range:?}");
        for key in ["a", "b", "c", "d"] {
            db.put(key, "value").expect("written");
        }
    }
}

#[test]
fn a_range_delete_is_checked_for_conflicts() {
    let (_folder, db) = filled(&["a", "b"]);
    for written in ["b", "bb"] {
        let mut transaction = db.transaction();
        transaction.delete_range(FAMILY, "b".."c").expect("small");
        db.put(written, "by another").expect("written");
        let refused = transaction.commit().expect_err("a key of the range was written since the start");
        assert!(matches!(&refused, Error::Conflict { key, .. } if key == written), "{refused}");
        assert!(keys(&db).contains(&written.to_string()));
    }
}

#[test]
fn existence_and_length_are_reads_of_a_serializable_transaction() {
    let (_folder, db) = filled(&["a", "b"]);
    let reads: [fn(&kontiki::Transaction) -> bool; 3] = [
        |t| t.contains(FAMILY, "a").expect("readable"),
        |t| t.get("a").expect("readable").is_some_and(|value| !value.is_empty()),
        |t| t.multi_get(FAMILY, &["a"]).expect("readable")[0].is_some(),
    ];
    for (round, read) in reads.into_iter().enumerate() {
        let mut transaction = db.transaction_with(TransactionOptions::serializable()).expect("good options");
        assert!(read(&transaction));
        transaction.put("b", "by what was read").expect("small");
        db.put("a", format!("another value {round}")).expect("written");
        assert_eq!(transaction.commit().expect_err("what was read has changed").kind(), ErrorKind::Conflict);
    }
}

#[test]
fn a_dropped_family_refuses_reads_and_whole_batches() {
    let (_folder, db) = filled(&[]);
    let family = db.open_family("crew").expect("created");
    db.put_in(family, "thor", "captain").expect("written");
    let snapshot = db.snapshot();
    db.drop_family(family).expect("there");
    assert_eq!(db.get_in(family, "thor").expect_err("dropped").kind(), ErrorKind::NotFound);
    let mut batch = WriteBatch::new();
    batch.put(FAMILY, "first half", "v");
    batch.put(family, "second half", "v");
    assert!(matches!(db.write(batch, Durability::Sync), Err(Error::FamilyDropped { .. })));
    assert_eq!(keys(&db), [] as [&str; 0], "all of a batch or nothing");
    let before = snapshot.get_in(family, "thor").expect("a snapshot does not change");
    assert_eq!(before.as_deref(), Some(&b"captain"[..]));
}

/// The child ends by `exit` right after the call has returned, and so runs no destructor; the file survives a killed
/// process. That it survives power loss is simulated in crates/engine
/// (`power_loss_at_every_operation_loses_nothing_acknowledged`).
#[test]
fn a_put_is_durable_when_it_returns() {
    const FOLDER: &str = "KONTIKI_TEST_PUT_AND_EXIT";
    if let Some(folder) = std::env::var_os(FOLDER) {
        let db = Db::open(folder, Options::default()).expect("opens");
        db.put("k", "v").expect("written");
        std::process::exit(0);
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut again = Command::new(std::env::current_exe().expect("this program"));
    again.args(["--exact", "a_put_is_durable_when_it_returns"]).env(FOLDER, folder.path());
    assert!(again.output().expect("runs").status.success());
    assert_eq!(open(&folder).get("k").expect("readable").as_deref(), Some(&b"v"[..]));
}

#[test]
fn an_expired_entry_is_absent_from_every_new_read_before_any_compaction() {
    let (_folder, db) = filled(&[]);
    let before = db.snapshot();
    db.put_with_ttl(FAMILY, "k", "v", Duration::from_millis(1)).expect("written");
    let gone_at_ms = db.expires_at_ms(Duration::from_millis(1));
    while db.expires_at_ms(Duration::ZERO) <= gone_at_ms {
        std::thread::yield_now();
    }
    assert_eq!(db.get("k").expect("readable"), None);
    assert_eq!(keys(&db), [] as [&str; 0]);
    assert!(!db.snapshot().contains(FAMILY, "k").expect("readable"));
    assert!(!db.transaction().contains(FAMILY, "k").expect("readable"));
    assert!(!before.contains(FAMILY, "k").expect("readable"));
}

#[test]
fn a_closure_that_fails_or_panics_leaves_nothing_behind() {
    let (_folder, db) = filled(&["a"]);
    let failed: Result<(), Error> = db.transact(|transaction| {
        transaction.put("a", "changed")?;
        transaction.put("b", "new")?;
        Err(Error::InvalidArgument("the closure's own".into()))
    });
    assert!(failed.is_err());
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        db.transact(|transaction| -> kontiki::Result<()> {
            transaction.put("a", "changed")?;
            panic!("as tests do");
        })
    }));
    assert!(panicked.is_err());
    assert_eq!(db.get("a").expect("readable").as_deref(), Some(&b"value"[..]), "no cache has the value");
    assert_eq!(keys(&db), ["a"]);
    assert_eq!(db.stats().transactions.active, 0);
    db.put("a", "after").expect("no lock is left");
}

#[test]
fn a_rollback_takes_back_nothing_that_was_written_outside() {
    let (_folder, db) = filled(&[]);
    let mut transaction = db.transaction();
    db.put("plain", "before the first write of the transaction").expect("written");
    transaction.put("own", "v").expect("small");
    db.put("plain 2", "after it").expect("written");
    transaction.rollback();
    assert_eq!(keys(&db), ["plain", "plain 2"]);
}

#[test]
fn a_conflict_names_the_key_that_was_written() {
    let (_folder, db) = filled(&["a", "b", "c"]);
    let mut transaction = db.transaction_with(TransactionOptions::serializable()).expect("good options");
    assert_eq!(transaction.range("a".."d").expect("opens").count(), 3);
    transaction.put("z", "by what was read").expect("small");
    db.put("b", "changed").expect("written");
    let refused = transaction.commit().expect_err("a key of the range was written");
    assert!(matches!(&refused, Error::Conflict { family, key } if *family == FAMILY && key == "b"), "{refused}");
}
