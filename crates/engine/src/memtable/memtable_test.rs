use super::*;
use crate::Direction;
use crate::types::{Cursor, KeyRef};
use std::sync::Arc;

fn put(memtable: &Memtable, family: u32, key: &str, sequence: u64, value: &str) {
    memtable.insert(Family(family), key.as_bytes(), sequence, Kind::Put, value.as_bytes());
}

fn found(sequence: u64, kind: Kind, stored: &'static [u8]) -> Found {
    Found { sequence, kind, stored: Bytes::from_static(stored) }
}

fn walk(cursor: &mut dyn Cursor) -> Vec<(String, u64)> {
    let mut out = Vec::new();
    while cursor.valid() {
        out.push((String::from_utf8_lossy(cursor.key().user_key).into_owned(), cursor.key().sequence));
        cursor.advance().expect("memory");
    }
    out
}

#[test]
fn a_read_sees_the_newest_version_at_its_sequence_number() {
    let memtable = Memtable::new();
    put(&memtable, 0, "a", 3, "three");
    put(&memtable, 0, "a", 7, "seven");
    memtable.insert(Family(0), b"a", 9, Kind::Delete, b"");
    put(&memtable, 1, "a", 5, "other family");
    let get = |sequence| memtable.get(Family(0), b"a", sequence);
    assert_eq!(get(2), None);
    assert_eq!(get(3), Some(found(3, Kind::Put, b"three")));
    assert_eq!(get(8), Some(found(7, Kind::Put, b"seven")));
    assert_eq!(get(SEQUENCE_NUMBER_MAX), Some(found(9, Kind::Delete, b"")));
    assert_eq!(memtable.get(Family(0), b"", 9), None);
    assert_eq!(memtable.get(Family(2), b"a", 9), None);
    assert_eq!((memtable.smallest_sequence(), memtable.largest_sequence()), (Some(3), Some(9)));
    assert_eq!(memtable.families(), BTreeSet::from([Family(0), Family(1)]));
}

#[test]
fn the_last_operation_of_a_batch_on_a_key_wins() {
    let memtable = Memtable::new();
    let mut batch = WriteBatch::new();
    batch.put(Family(0), b"k", b"1");
    batch.delete(Family(0), b"k");
    batch.put(Family(0), b"k", b"3");
    batch.put(Family(3), b"", b"");
    memtable.apply(&batch, 4);
    assert_eq!(memtable.len(), 2);
    assert_eq!(memtable.get(Family(0), b"k", 4), Some(found(4, Kind::Put, b"3")));
    assert_eq!(memtable.get(Family(3), b"", 4), Some(found(4, Kind::Put, b"")));
}

#[test]
fn cursors_stay_in_their_family_in_both_directions() {
    let memtable = Arc::new(Memtable::new());
    for i in 0..300u64 {
        put(&memtable, (i % 3) as u32, &format!("{:03}", i / 6), i + 1, "v");
    }
    for family in [0, 1, 2, 3] {
        let mut forward = MemtableCursor::new(memtable.clone(), Family(family), Direction::Forward);
        let mut backward = MemtableCursor::new(memtable.clone(), Family(family), Direction::Backward);
        forward.seek_to_first().expect("memory");
        backward.seek_to_first().expect("memory");
        let ascending = walk(&mut forward);
        let mut descending = walk(&mut backward);
        descending.reverse();
        assert_eq!(ascending, descending);
        assert_eq!(ascending.len(), if family < 3 { 100 } else { 0 });
        assert!(
            ascending
                .windows(2)
                .all(|w| KeyRef::new(w[0].0.as_bytes(), w[0].1) < KeyRef::new(w[1].0.as_bytes(), w[1].1))
        );
    }
    let mut cursor = MemtableCursor::new(memtable.clone(), Family(1), Direction::Forward);
    cursor.seek(KeyRef::before_all(b"0105")).expect("memory");
    assert_eq!(cursor.key().user_key, b"011");
    let mut cursor = MemtableCursor::new(memtable, Family(1), Direction::Backward);
    cursor.seek(KeyRef::after_all(b"0105")).expect("memory");
    assert_eq!(cursor.key().user_key, b"010");
}

#[test]
fn a_run_never_reaches_the_limit() {
    let memtable = Arc::new(Memtable::new());
    (0..200u64).for_each(|i| put(&memtable, 0, &format!("{:03}", i / 2), i + 1, "v"));
    let mut runs = 0;
    for direction in [Direction::Forward, Direction::Backward] {
        for limit in ["000", "017", "050", "099", "1"] {
            let mut cursor = MemtableCursor::new(memtable.clone(), Family(0), direction);
            cursor.seek_to_first().expect("memory");
            let limit = KeyRef::before_all(limit.as_bytes());
            while cursor.valid() {
                for _ in 0..cursor.run_before(limit) {
                    cursor.advance().expect("memory");
                    assert!(if direction == Direction::Forward { cursor.key() < limit } else { cursor.key() > limit });
                    runs += 1;
                }
                cursor.advance().expect("memory");
            }
        }
    }
    assert!(runs > 300, "{runs}");
}

#[test]
fn readers_and_writers_share_it() {
    let memtable = Memtable::new();
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let memtable = &memtable;
            scope.spawn(move || {
                for i in 0..500u64 {
                    let key = format!("{thread}-{i}");
                    put(memtable, 0, &key, 1 + thread * 500 + i, "v");
                    assert!(memtable.get(Family(0), key.as_bytes(), SEQUENCE_NUMBER_MAX).is_some());
                }
            });
        }
    });
    assert_eq!(memtable.len(), 2000);
    assert_eq!((memtable.smallest_sequence(), memtable.largest_sequence()), (Some(1), Some(2000)));
}

#[test]
fn a_range_delete_hides_what_came_before_it_in_its_batch_and_nothing_after() {
    let memtable = Memtable::new();
    let mut batch = WriteBatch::new();
    batch.put(Family(0), b"b", b"before");
    batch.put(Family(0), b"z", b"outside");
    batch.delete_range(Family(0), b"a"..b"c");
    batch.put(Family(0), b"bb", b"after");
    batch.delete_range(Family(0), b"c"..b"c");
    memtable.apply(&batch, 4);
    assert_eq!(memtable.get(Family(0), b"b", 4), Some(found(4, Kind::Delete, b"")));
    assert_eq!(memtable.get(Family(0), b"bb", 4), Some(found(4, Kind::Put, b"after")));
    assert_eq!(memtable.get(Family(0), b"z", 4), Some(found(4, Kind::Put, b"outside")));
    assert_eq!(memtable.covering_sequence(Family(0), b"a", 4), Some(4));
    assert_eq!(memtable.covering_sequence(Family(0), b"a", 3), None);
    assert_eq!(memtable.covering_sequence(Family(0), b"c", 4), None);
    assert_eq!(memtable.covering_sequence(Family(1), b"a", 4), None);
    assert_eq!(memtable.range_tombstones(Family(0)).len(), 1, "an empty range is nothing");
}

#[test]
fn puts_and_range_deletes_of_one_batch_cost_a_logarithm_each() {
    let count = 2000u64;
    let mut batch = WriteBatch::new();
    (0..count).for_each(|i| batch.put(Family(0), i.to_be_bytes(), b""));
    for i in 0..count {
        // Half of them delete what the batch has put.
        batch.delete_range(Family(0), &(2 * i).to_be_bytes()..&(2 * i + 1).to_be_bytes());
        batch.put(Family(1), i.to_be_bytes(), b"");
    }
    let memtable = Memtable::new();
    let (steps, ()) = crate::range::work::during(|| memtable.apply(&batch, 7));
    assert!(steps < 50 * count, "{steps} steps");
    let kind = |key: u64| memtable.get(Family(0), &key.to_be_bytes(), 7).map(|found| found.kind);
    assert_eq!((kind(6), kind(7), kind(1998)), (Some(Kind::Delete), Some(Kind::Put), Some(Kind::Delete)));
    assert_eq!(memtable.covering_sequence(Family(0), &6u64.to_be_bytes(), 7), Some(7));
    assert_eq!(memtable.covering_sequence(Family(0), &7u64.to_be_bytes(), 7), None);
}
