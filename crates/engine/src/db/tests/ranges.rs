//! What a range means, wherever one is taken: without an end it extends to the end of the family, upside down it has no
//! keys.

use super::*;
use crate::Entries;
use crate::{BatchOp, Error, KEY_BYTES_MAX, ReadOptions, SequenceNumber, Unchanged};
use kontiki_env::fs::CrashMode;

/// The greatest key that there can be.
fn greatest() -> Vec<u8> {
    vec![u8::MAX; KEY_BYTES_MAX]
}

fn range(start: &str, end: Option<&str>) -> Range {
    let bound = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    Range { start: Some(bound(start)), end: end.map(bound) }
}

fn keys(entries: &mut dyn Entries) -> Vec<Bytes> {
    std::iter::from_fn(|| entries.next().transpose().expect("readable")).map(|(key, _)| key).collect()
}

/// What a scan, a snapshot's iterator and a transaction's give, forward; each also backward.
fn read(db: &Db, range: &Range) -> Vec<Bytes> {
    let transaction = db.transaction();
    let mut found = Vec::new();
    for direction in [Direction::Forward, Direction::Backward] {
        let options = ReadOptions::default();
        let mut scan = db.scan(Family::DEFAULT, range.clone(), direction, options).expect("no range is refused");
        let mut entries = db.snapshot().entries(Family::DEFAULT, range.clone(), direction).expect("likewise");
        let mut own = transaction.entries(Family::DEFAULT, range.clone(), direction).expect("likewise");
        let mut all = [keys(&mut scan), keys(entries.as_mut()), keys(&mut own)];
        if direction == Direction::Backward {
            all.iter_mut().for_each(|keys| keys.reverse());
        }
        found.extend(all);
    }
    let first = found[0].clone();
    assert!(found.iter().all(|keys| *keys == first), "{range:?}: {found:?}");
    assert!(first.iter().all(|key| range.contains(key)), "{range:?}");
    first
}

fn written_since(db: &Db, range: &Range, since: SequenceNumber) -> bool {
    let unchanged = vec![Unchanged::Range { family: Family::DEFAULT, range: range.clone(), since }];
    match db.commit(Commit { unchanged, ..Commit::new(WriteBatch::new(), Durability::Buffered) }) {
        Ok(_) => false,
        Err(Error::Conflict { key, .. }) => {
            assert!(range.contains(&key), "a conflict names the key that was written: {key:?}");
            true
        }
        Err(error) => panic!("{range:?}: {error}"),
    }
}

fn delete_range(family: Family, start: &[u8], end: &[u8]) -> WriteBatch {
    let mut batch = WriteBatch::new();
    batch.delete_range(family, start..end);
    batch
}

#[test]
fn every_call_means_the_same_by_a_range() {
    for flushed in [false, true] {
        let machine = SimMachine::from_seed(1);
        let db = open(&machine);
        for key in ["a", "b", "c"] {
            db.write(put(key, "v"), Durability::Buffered).expect("written");
        }
        let greatest = greatest();
        let mut batch = WriteBatch::new();
        batch.put(Family::DEFAULT, &greatest, b"v");
        let last = db.write(batch, Durability::Buffered).expect("written");
        if flushed {
            db.compact().expect("written");
        }
        for (range, expected) in [
            (range("b", None), 3),
            (range("b", Some("")), 3),
            (range("", Some("")), 4),
            (range("b", Some("b")), 0),
            (range("c", Some("a")), 0),
            (range("b", Some("c")), 1),
        ] {
            assert_eq!(read(&db, &range).len(), expected, "{range:?}");
            assert_eq!(written_since(&db, &range, 0), expected > 0, "{range:?}");
            assert!(!written_since(&db, &range, last), "{range:?}");
            db.compact_range(Family::DEFAULT, range.clone()).expect("no range is refused");
            assert_eq!(range.is_empty(), expected == 0, "{range:?}");
        }
        // Deletes, by a batch and by a transaction.
        for by_transaction in [false, true] {
            for (start, end, left) in [("c", "a", 4), ("b", "b", 4), ("b", "c", 3), ("c", "", 1), ("", "", 0)] {
                if by_transaction {
                    let mut transaction = db.transaction();
                    transaction.delete_range(Family::DEFAULT, start.as_bytes()..end.as_bytes()).expect("small");
                    let seen = keys(
                        &mut transaction.entries(Family::DEFAULT, Range::all(), Direction::Forward).expect("readable"),
                    );
                    assert_eq!(seen.len(), left, "{start}..{end}: a transaction reads its own deletes");
                    transaction.commit().expect("alone");
                } else {
                    let batch = delete_range(Family::DEFAULT, start.as_bytes(), end.as_bytes());
                    db.write(batch, Durability::Buffered).expect("no range is refused");
                }
                assert_eq!(read(&db, &Range::all()).len(), left, "{start}..{end}, by a transaction: {by_transaction}");
            }
            for key in [&b"a"[..], b"b", b"c", &greatest] {
                db.put(key, b"again").expect("written");
            }
        }
    }
}

#[test]
fn a_delete_to_the_end_of_a_family_stays_through_flush_compaction_restart_and_copies() {
    let machine = SimMachine::from_seed(2);
    let db = open(&machine);
    let greatest = greatest();
    for key in [&b"a"[..], b"b", &greatest] {
        db.put(key, b"v").expect("written");
    }
    db.flush().expect("written");
    let older = db.snapshot();
    db.write(delete_range(Family::DEFAULT, b"b", b""), Durability::Sync).expect("written");
    db.write(put("c", "later"), Durability::Sync).expect("written");
    let expected = [&b"a"[..], b"c"].map(Bytes::from_static);
    let check = |db: &Db, what: &str| assert_eq!(read(db, &Range::all()), expected, "{what}");
    check(&db, "in memory");
    assert_eq!(dump(&older, Family::DEFAULT).len(), 3, "an older snapshot does not change");

    machine.fs.crash(CrashMode::LoseUnsynced);
    drop((db, older));
    let machine = restarted(&machine, 3);
    let db = open(&machine);
    check(&db, "from the log");
    // An open transaction holds the tombstone in the manifest.
    let transaction = db.transaction();
    db.flush().expect("written");
    check(&db, "in the manifest");
    db.checkpoint(Path::new("/copy")).expect("written");
    let copy = Db::open_in(&machine.env(), Path::new("/copy"), small_options()).expect("opens");
    check(&copy, "in a checkpoint");
    drop((transaction, copy));

    machine.fs.crash(CrashMode::LoseUnsynced);
    drop(db);
    let machine = restarted(&machine, 4);
    let db = open(&machine);
    check(&db, "from the manifest");
    db.compact().expect("written");
    check(&db, "compacted");
    assert_eq!(db.snapshot().state.version.range_tombstone_count(), 0, "nothing is left under it");
}

#[test]
fn deletes_to_the_end_and_others_answer_as_a_map_does() {
    for seed in 0..10 {
        let mut machine = SimMachine::from_seed(seed);
        let mut rng = Rng::new(seed);
        let mut db = open(&machine);
        let mut model = std::collections::BTreeSet::new();
        let name = |rng: &mut Rng| format!("{:02}", rng.below(20));
        for _ in 0..200 {
            let (start, end) = (name(&mut rng), name(&mut rng));
            match rng.below(12) {
                0 => {
                    let batch = delete_range(Family::DEFAULT, start.as_bytes(), b"");
                    db.write(batch, Durability::Sync).expect("written");
                    model.retain(|key| *key < start);
                }
                1 => {
                    let batch = delete_range(Family::DEFAULT, start.as_bytes(), end.as_bytes());
                    db.write(batch, Durability::Sync).expect("written");
                    model.retain(|key| *key < start || *key >= end);
                }
                2 => db.flush().expect("written"),
                3 => db.compact().expect("written"),
                4 if rng.chance(1, 4) => {
                    machine.fs.crash(CrashMode::LoseUnsynced);
                    drop(db);
                    machine = restarted(&machine, rng.below(1_000));
                    db = open(&machine);
                }
                _ => {
                    db.write(put(&start, "v"), Durability::Sync).expect("written");
                    model.insert(start);
                }
            }
            let found: Vec<String> = dump(&db.snapshot(), Family::DEFAULT).into_iter().map(|(key, _)| key).collect();
            assert_eq!(found, model.iter().cloned().collect::<Vec<_>>(), "seed {seed}");
        }
    }
}

#[test]
fn a_subscriber_receives_a_delete_to_the_end() {
    let machine = SimMachine::from_seed(5);
    let db = open(&machine);
    db.write(put("a", "v"), Durability::Sync).expect("written");
    db.write(delete_range(OTHER, b"b", b""), Durability::Sync).expect("written");
    let mut changes = db.changes(0).expect("from the first");
    let mut batches = Vec::new();
    while let Some(change) = changes.next().expect("readable") {
        batches.push(change.batch);
    }
    let received: Vec<BatchOp<'_>> = batches.iter().flat_map(WriteBatch::ops).collect();
    assert_eq!(received[1], BatchOp::DeleteRange { family: OTHER, start: b"b", end: b"" });
}
