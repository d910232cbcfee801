use super::{Passed, ReadSet};
use crate::{Error, Family, Range};
use bytes::Bytes;

const FAMILY: Family = Family(3);

fn through(start: &str, end: &str) -> Passed {
    Passed {
        start: Bytes::copy_from_slice(start.as_bytes()),
        end: Some(Bytes::copy_from_slice(end.as_bytes())),
        with_end: true,
    }
}

fn keys(reads: &ReadSet) -> Vec<Bytes> {
    reads.keys().map(|(_, key)| key.clone()).collect()
}

fn ranges(reads: &ReadSet) -> Vec<Range> {
    reads.ranges().map(|(_, range)| range).collect()
}

#[test]
fn a_range_counts_as_far_as_its_iterator_went() {
    let mut reads = ReadSet::new(1 << 20);
    let iterator = reads.open(FAMILY);
    for end in ["b", "c", "d"] {
        reads.pass(iterator, through("a", end)).expect("small");
    }
    reads.settle_all();
    assert_eq!(ranges(&reads), [Range { start: Some("a".into()), end: Some("d\0".into()) }]);
}

#[test]
fn pieces_of_one_scan_become_one_range_and_keys_inside_vanish() {
    let mut reads = ReadSet::new(1 << 20);
    reads.note_key(FAMILY, b"c").expect("small");
    reads.note_key(FAMILY, b"x").expect("small");
    for (start, end) in [("a", "b"), ("b\0", "d"), ("d\0", "f")] {
        let iterator = reads.open(FAMILY);
        reads.pass(iterator, through(start, end)).expect("small");
        reads.close(iterator);
    }
    reads.note_key(FAMILY, b"e").expect("small");
    assert_eq!(ranges(&reads), [Range { start: Some("a".into()), end: Some("f\0".into()) }]);
    assert_eq!(keys(&reads), ["x"]);
}

#[test]
fn a_jump_leaves_a_gap() {
    let mut reads = ReadSet::new(1 << 20);
    let iterator = reads.open(FAMILY);
    reads.pass(iterator, through("a", "b")).expect("small");
    reads.settle(iterator);
    reads.pass(iterator, Passed { start: "m".into(), end: None, with_end: false }).expect("small");
    reads.close(iterator);
    let expected =
        [Range { start: Some("a".into()), end: Some("b\0".into()) }, Range { start: Some("m".into()), end: None }];
    assert_eq!(ranges(&reads), expected);
}

#[test]
fn the_bound_names_its_option() {
    let mut reads = ReadSet::new(4096);
    let mut noted = 0u32;
    let error = loop {
        match reads.note_key(FAMILY, &noted.to_be_bytes()) {
            Ok(()) => noted += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::TransactionTooLarge { option: "read_set_bytes_max", limit: 4096 }));
    assert!(noted > 10 && keys(&reads).len() == noted as usize, "what was refused is not noted");
    reads.note_key(FAMILY, &0u32.to_be_bytes()).expect("known keys cost nothing");
    let iterator = reads.open(FAMILY);
    assert!(reads.pass(iterator, through("a", "b")).is_err());
    assert!(reads.bytes() <= 4096 && ranges(&reads).is_empty());
}
