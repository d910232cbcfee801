//! The sizes of ranges, by tables.

use super::*;
use crate::{Error, Options, PartSize};

/// Key `number` of 1,000 keys with values of 100 bytes.
fn key(number: u32) -> String {
    format!("{number:04}")
}

fn filled(db: &Db) {
    for number in 0..1_000 {
        db.write(put(&key(number), &"v".repeat(100)), Durability::Buffered).expect("written");
    }
    db.flush().expect("flushed");
}

fn put(key: &str, value: &str) -> WriteBatch {
    let mut batch = WriteBatch::new();
    batch.put(Family::DEFAULT, key.as_bytes(), value.as_bytes());
    batch
}

fn of_bytes(bytes: u64) -> PartSize {
    PartSize { bytes, entries: u64::MAX }
}

fn size(db: &Db, range: impl Into<Range>) -> (u64, u64) {
    let parts = db.snapshot().range_parts(Family::DEFAULT, range, of_bytes(1)).expect("read");
    parts.iter().fold((0, 0), |(bytes, entries), part| (bytes + part.bytes, entries + part.entries))
}

#[test]
fn parts_of_a_range_have_its_size_and_are_in_order() {
    let machine = new_machine(1);
    let db = open(&machine);
    filled(&db);
    db.compact().expect("compacted");
    let files: u64 = db.stats().families[0].levels.iter().map(|level| level.bytes).sum();
    let (all, entries) = size(&db, ..);
    assert!(all.abs_diff(files) < files / 20, "{all} of {files}");
    assert!((980..=1_020).contains(&entries), "{entries}: rounded in each block");
    let (half, entries) = size(&db, "0250".."0750");
    assert!(half.abs_diff(all / 2) < all / 10 && entries.abs_diff(500) < 50, "{half} of {all}, {entries}");
    for part_bytes in [1, 1_000, 4_000, u64::MAX] {
        let parts = db.snapshot().range_parts(Family::DEFAULT, .., of_bytes(part_bytes)).expect("read");
        assert!(parts.is_sorted_by(|one, other| one.end < other.end), "{part_bytes}");
        let (last, others) = parts.split_last().expect("some");
        assert!(others.iter().all(|part| part.bytes >= part_bytes), "{part_bytes}: {parts:?}");
        assert!(last.end.as_ref() >= key(999).as_bytes());
        assert_eq!(parts.len() == 1, part_bytes == u64::MAX);
    }
    let of_entries = PartSize { bytes: u64::MAX, entries: 200 };
    let parts = db.snapshot().range_parts(Family::DEFAULT, .., of_entries).expect("read");
    assert!((3..=5).contains(&parts.len()), "parts of 200 entries, in blocks of some 30: {parts:?}");
}

#[test]
fn a_range_without_tables_has_no_parts_and_an_end_that_is_empty_is_no_end() {
    let machine = new_machine(2);
    let db = open(&machine);
    db.write(put("0500", "in memory"), Durability::Buffered).expect("written");
    assert_eq!(size(&db, ..), (0, 0), "only tables count");
    filled(&db);
    assert_eq!(size(&db, "2".."3"), (0, 0));
    assert_eq!(size(&db, "3".."2"), (0, 0));
    assert_eq!(size(&db, Range::region(b"", b"")), size(&db, ..));
    assert_eq!(size(&db, Range { start: None, end: Some(Bytes::new()) }), size(&db, ..));
    let unknown = db.snapshot().range_parts(Family(99), .., of_bytes(1));
    assert!(matches!(unknown, Err(Error::InvalidArgument(_))), "{unknown:?}");
}

#[test]
fn what_a_range_delete_hides_does_not_count() {
    let machine = new_machine(3);
    let db = open(&machine);
    filled(&db);
    let before = size(&db, ..).0;
    db.delete_range(Family::DEFAULT, .."0800").expect("deleted");
    db.flush().expect("flushed");
    let after = size(&db, ..).0;
    assert!(after < before * 3 / 10, "{after} of {before}");
}

#[test]
fn values_in_the_value_log_count() {
    fn separating() -> Options {
        let mut options = small_options();
        options.families[0].options.value_threshold_bytes = 100;
        options
    }
    open_with(separating);
    let machine = new_machine(4);
    let db = open(&machine);
    for number in 0..1_000 {
        db.write(put(&key(number), &"v".repeat(300)), Durability::Sync).expect("written");
    }
    db.flush().expect("flushed");
    let all = size(&db, ..).0;
    assert!((300_000..380_000).contains(&all), "{all}: values, their headers, and the tables");
    let half = size(&db, .."0500").0;
    assert!(half.abs_diff(all / 2) < all / 8, "{half} of {all}");
}
