use super::super::format::{encode_record, encode_segment_header};
use super::*;

/// Of a record.
const HEADER: usize = crate::log::RECORD_HEADER_BYTES as usize;
/// Of the first record of the samples, five bytes long.
const RECORD: usize = HEADER + 5;

fn segment(payloads: &[&[u8]], sealed: bool) -> Vec<u8> {
    let mut bytes = encode_segment_header(7, 4096);
    for payload in payloads {
        let offset = bytes.len() as u64;
        encode_record(&mut bytes, 7, offset, RecordKind::Commit, 32, 9, payload);
    }
    if sealed {
        let offset = bytes.len() as u64;
        encode_record(&mut bytes, 7, offset, RecordKind::Seal, offset, 0, &[]);
        let offset = bytes.len() as u64;
        encode_record(&mut bytes, 7, offset, RecordKind::Commit, 32, 9, b"cut off by a recovery");
    }
    bytes.resize(4096, 0);
    bytes
}

fn payloads<'a>(found: &WholeRecords<'a>) -> Vec<&'a [u8]> {
    found.records.iter().map(|record| record.payload).collect()
}

#[test]
fn records_behind_damage_are_found_and_those_behind_the_seal_are_not() {
    let mut bytes = segment(&[b"first", b"second", b"third"], true);
    let path = Path::new("000007.wal");
    let found = whole_records(path, 7, &bytes);
    assert_eq!(payloads(&found), [&b"first"[..], b"second", b"third"]);
    assert!(found.problems.is_empty());

    let second = 32 + RECORD;
    bytes[second + HEADER] ^= 1;
    let found = whole_records(path, 7, &bytes);
    assert_eq!(payloads(&found), [&b"first"[..], b"third"]);
    let [Error::Corruption { offset, .. }] = &found.problems[..] else { panic!("one place is damaged") };
    assert_eq!(*offset, second as u64);
    assert!(payloads(&whole_records(path, 8, &bytes)).is_empty(), "another segment's records do not count");
}

#[test]
fn a_torn_tail_is_no_damage_and_a_bad_header_is() {
    let mut bytes = segment(&[b"first", b"second"], false);
    bytes[32 + RECORD + HEADER] ^= 1;
    let found = whole_records(Path::new("w"), 7, &bytes);
    assert_eq!((payloads(&found).len(), found.problems.len()), (1, 0));
    bytes[9] ^= 1;
    let found = whole_records(Path::new("w"), 7, &bytes);
    assert_eq!((payloads(&found).len(), found.problems.len()), (1, 1));
}

#[test]
fn a_segment_that_is_shorter_than_it_was_allocated_and_has_no_seal_has_lost_something() {
    let path = Path::new("w");
    let sealed = segment(&[b"first", b"second"], true);
    let end = 32 + RECORD + HEADER + 6;
    let cut_behind_the_seal = &sealed[..end + HEADER];
    assert!(whole_records(path, 7, cut_behind_the_seal).problems.is_empty());
    for length in [end + HEADER - 1, end, 32 + RECORD + 3, 32] {
        let found = whole_records(path, 7, &sealed[..length]);
        let [Error::Corruption { offset, .. }] = &found.problems[..] else { panic!("cut to {length}") };
        assert!(*offset <= length as u64 && payloads(&found).len() <= 2);
    }
}
