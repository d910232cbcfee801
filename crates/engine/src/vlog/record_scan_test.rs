use super::*;
use crate::Family;
use crate::vlog::format::{ValueFileKind, encode_file_header, encode_header, encode_record};
use kontiki_env::SimMachine;
use kontiki_env::fs::{Fs, OpenMode};
use kontiki_env::rng::Rng;
use std::path::PathBuf;

const NUMBER: u64 = 4;

fn reader(bytes: &[u8]) -> ValueReader {
    let machine = SimMachine::from_seed(1);
    let path = PathBuf::from("/000004.vlog");
    machine.fs.open(&path, OpenMode::CreateNew).and_then(|file| file.write_at(bytes, 0)).expect("written");
    ValueReader::open(&machine.fs, path, NUMBER).expect("it has a header")
}

/// A file of `count` values; returns it with the places of its records and its end.
fn sample(count: usize) -> (Vec<u8>, Vec<u64>) {
    let mut bytes = encode_file_header(NUMBER, ValueFileKind::Segment);
    let mut places = Vec::new();
    for i in 0..count {
        let at = bytes.len() as u64;
        places.push(at);
        encode_record(&mut bytes, NUMBER, at, Family(1), format!("key {i}").as_bytes(), &vec![i as u8; i * 37]);
    }
    (bytes, places)
}

#[test]
fn a_scan_meets_every_record_with_its_content() {
    let (mut bytes, places) = sample(30);
    let at = bytes.len() as u64;
    encode_header(&mut bytes, NUMBER, at, ValueRecordHeader::Skip { bytes: 16 });
    bytes.extend_from_slice(&[7; 16]);
    let end = bytes.len() as u64;
    bytes.extend_from_slice(&[0; 500]);
    let reader = reader(&bytes);
    let mut scan = RecordScan::new(&reader, end);
    let mut found = Vec::new();
    while let Some((offset, header)) = scan.next().expect("sound") {
        let record = scan.record(offset, header).expect("sound").to_vec();
        assert_eq!(record, bytes[offset as usize..][..record.len()]);
        if matches!(header, ValueRecordHeader::Value(_)) {
            found.push(offset);
        }
    }
    assert_eq!(found, places);
    let mut beyond = RecordScan::new(&reader, end + 8);
    let error = std::iter::from_fn(|| beyond.next().transpose()).find_map(Result::err).expect("zeros are no record");
    assert!(matches!(error, Error::Corruption { offset, .. } if offset == end), "{error}");
}

#[test]
fn records_are_found_around_holes() {
    let (mut bytes, places) = sample(12);
    let sound = bytes.clone();
    bytes.extend_from_slice(&[0; 3000]);
    // Two records that follow each other are torn, and the last one; of another the value alone.
    for torn in [3, 4, 11] {
        bytes[places[torn] as usize + 9] ^= 1;
    }
    bytes[places[7] as usize + 30] ^= 1;
    // Of this one value and key: it is as good as torn.
    let both = places[9] as usize;
    bytes[both + 30] ^= 1;
    bytes[both + 24 + 9 * 37] ^= 1;
    let found = find_records(&reader(&bytes)).expect("readable");
    let whole: Vec<u64> =
        places.iter().enumerate().filter(|(i, _)| ![3, 4, 9, 11].contains(i)).map(|(_, at)| *at).collect();
    assert_eq!(found.values, whole);
    assert_eq!(found.holes, [(places[3], places[5] - places[3]), (places[9], places[10] - places[9])]);
    assert_eq!(found.end, places[11], "nothing is behind the last whole record");
    let all = find_records(&reader(&sound)).expect("readable");
    assert_eq!((all.end, all.holes.len(), all.values), (sound.len() as u64, 0, places));
}

#[test]
fn no_bytes_behind_a_header_lead_astray() {
    let mut rng = Rng::new(3);
    for _ in 0..200 {
        let mut bytes = encode_file_header(NUMBER, ValueFileKind::Segment);
        bytes.extend((0..rng.below(400)).map(|_| rng.next_u64() as u8));
        let found = find_records(&reader(&bytes)).expect("readable");
        assert_eq!(found, FoundRecords { end: FILE_HEADER_BYTES, ..FoundRecords::default() });
    }
    assert_eq!(find_records(&reader(&encode_file_header(NUMBER, ValueFileKind::Segment))).expect("readable").end, 32);
}
