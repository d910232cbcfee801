use super::*;
use crate::vlog::ValueStore;
use crate::vlog::format::{FILE_HEADER_BYTES, ValueRecordHeader};
use crate::vlog::record_scan::{RecordScan, find_records};
use kontiki_env::SimMachine;
use kontiki_env::fs::OpenMode;
use std::path::PathBuf;
use std::sync::Arc;

fn thresholds(default: u64, other: u64) -> ValueThresholds {
    let spec = |family, name: &str, bytes| {
        let mut spec = FamilySpec::new(family, name);
        spec.options.value_threshold_bytes = bytes;
        spec
    };
    ValueThresholds::new(&[spec(Family(0), "default", default), spec(Family(5), "other", other)])
}

fn appender() -> (SimMachine, Appender) {
    let machine = SimMachine::from_seed(1);
    let fs = machine.env().fs;
    fs.create_dir_all(&PathBuf::from("/vlog")).expect("created");
    (machine, Appender::new(Arc::new(ValueStore::new(fs, PathBuf::from("/vlog"))), 4 << 10))
}

#[test]
fn a_threshold_is_of_the_value_alone_and_of_its_family() {
    let some = thresholds(10, 0);
    let large = |family, kind, bytes: usize| some.large(Family(family), kind, &vec![1; bytes]).map(|it| it.value.len());
    assert_eq!((large(0, Kind::Put, 9), large(0, Kind::Put, 10)), (None, Some(10)));
    assert_eq!((large(0, Kind::PutExpiring, 17), large(0, Kind::PutExpiring, 18)), (None, Some(10)));
    assert_eq!(
        (large(5, Kind::Put, 1 << 20), large(9, Kind::Put, 4095), large(9, Kind::Put, 4096)),
        (None, None, Some(4096))
    );
    assert_eq!(large(0, Kind::Pointer, 20), None, "it has been moved already");
    assert!(ValueThresholds::off().large(Family(0), Kind::Put, &[1; 5000]).is_none());
}

#[test]
fn pointers_take_the_places_of_large_values_and_the_rest_stays() {
    let (_machine, appender) = appender();
    let separator = ValueSeparator::new(thresholds(10, 5));
    let mut batch = WriteBatch::new();
    batch.put(Family(0), b"small", b"123456789");
    batch.put(Family(0), b"large", b"1234567890");
    batch.delete(Family(0), b"gone");
    batch.delete_range(Family(5), b"a"..b"b");
    batch.put_expiring(Family(5), b"ends", b"54321", 77);
    let next = std::cell::Cell::new(0);
    let create_segment = |bytes| {
        next.set(next.get() + 1);
        appender.create(next.get(), bytes).map(|segment| appender.adopt(segment))
    };
    let (out, pin) = separator.separate(&appender, batch.clone(), create_segment).expect("a healthy disk");
    assert!(pin.is_some());
    let entries: Vec<BatchEntry<'_>> = out.entries().collect();
    let before: Vec<BatchEntry<'_>> = batch.entries().collect();
    assert_eq!((entries[0], entries[2], entries[3]), (before[0], before[2], before[3]));
    let first = ValuePointer { segment: 1, offset: 32, length: 10 };
    let second = ValuePointer { offset: 32 + record_stride(5, 10), length: 5, ..first };
    let mut stored = Vec::new();
    first.encode(&mut stored);
    let (family, key) = (Family(0), &b"large"[..]);
    assert_eq!(entries[1], BatchEntry::Version { family, key, kind: Kind::Pointer, stored: &stored });
    stored = 77u64.to_le_bytes().to_vec();
    second.encode(&mut stored);
    let (family, key) = (Family(5), &b"ends"[..]);
    assert_eq!(entries[4], BatchEntry::Version { family, key, kind: Kind::PointerExpiring, stored: &stored });
}

#[test]
fn a_batch_without_large_values_comes_back_and_makes_no_segment() {
    let (_machine, appender) = appender();
    let mut batch = WriteBatch::new();
    (0..100).for_each(|_| batch.put(Family(0), b"key", b"small"));
    let (out, pin) = ValueSeparator::new(thresholds(10, 10))
        .separate(&appender, batch.clone(), |_| panic!("no segment is needed"))
        .expect("nothing to do");
    assert!(pin.is_none() && out == batch);
}

#[test]
fn segments_fill_up_and_are_sealed_when_no_batch_refers_to_them() {
    let (_machine, appender) = appender();
    let separator = ValueSeparator::new(thresholds(10, 10));
    let next = std::cell::Cell::new(0);
    let create_segment = |bytes| {
        next.set(next.get() + 1);
        appender.create(next.get(), bytes).map(|segment| appender.adopt(segment))
    };
    let mut pins = Vec::new();
    for bytes in [1000, 1000, 1000, 1000, 9000, 1000] {
        let mut batch = WriteBatch::new();
        batch.put(Family(0), b"key", vec![7; bytes]);
        pins.push(separator.separate(&appender, batch, create_segment).expect("a healthy disk").1);
    }
    // Three in the first segment, one in the second, which has no space for the large one, that one alone, one more.
    assert_eq!(next.get(), 4);
    assert!(appender.retire(false).is_empty(), "all are referred to");
    pins.drain(..3);
    let idle = appender.retire(false);
    assert_eq!(idle.iter().map(|segment| segment.number).collect::<Vec<_>>(), [1]);
    let end = appender.finish(&idle[0]).expect("a healthy disk").expect("it holds values");
    appender.sealed(&idle[0]);
    assert!(appender.retire(false).is_empty());
    pins.clear();
    let numbers: Vec<u64> = appender.retire(true).iter().map(|segment| segment.number).collect();
    assert_eq!(numbers, [2, 3, 4]);
    let store = ValueStore::new(_machine.env().fs, PathBuf::from("/vlog"));
    let reader = store.reader(1).expect("a healthy disk");
    let found = find_records(&reader).expect("sound");
    assert_eq!((found.values.len(), found.end), (3, end));
    assert_eq!(reader.file_bytes().expect("sound"), end, "what is not used is given back");
}

/// A file system that breaks the promise of an allocation (as copy-on-write ones may): the file ends within the range
/// that was reserved, and the disk is full.
#[test]
fn what_did_not_fit_on_the_disk_is_skipped_and_the_next_value_goes_on() {
    let (machine, appender) = appender();
    let separator = ValueSeparator::new(thresholds(10, 10));
    appender.create(1, 0).map(|segment| appender.adopt(segment)).expect("a healthy disk");
    let put = |byte: u8| {
        let mut batch = WriteBatch::new();
        batch.put(Family(0), b"key", [byte; 500]);
        separator.separate(&appender, batch, |_| panic!("there is space"))
    };
    let first = put(1).expect("a healthy disk");
    let store = ValueStore::new(machine.env().fs, PathBuf::from("/vlog"));
    let file = machine.env().fs.open(&store.path(1), OpenMode::ReadWrite).expect("there");
    file.set_len(FILE_HEADER_BYTES + record_stride(3, 500) + 100).expect("cut");
    machine.fs.set_quota(Some(machine.fs.used_bytes()));
    let error = put(2).expect_err("a full disk");
    assert!(error.is_retryable(), "{error}");
    machine.fs.set_quota(None);
    let third = put(3).expect("there is space again");
    appender.sync().expect("nothing is wrong with it");
    let reader = store.reader(1).expect("readable");
    let end = FILE_HEADER_BYTES + 3 * record_stride(3, 500);
    let mut scan = RecordScan::new(&reader, end);
    let mut found = Vec::new();
    while let Some((offset, header)) = scan.next().expect("sound") {
        found.push((offset, matches!(header, ValueRecordHeader::Value(_))));
    }
    let at = |n: u64| FILE_HEADER_BYTES + n * record_stride(3, 500);
    assert_eq!(found, [(at(0), true), (at(1), false), (at(2), true)], "a skip between two values");
    drop((first, third));
}

#[test]
fn an_io_error_unlike_a_full_disk_is_final() {
    let (machine, appender) = appender();
    appender.create(1, 0).map(|segment| appender.adopt(segment)).expect("a healthy disk");
    machine.fs.fail_next(kontiki_env::fs::Op::Write, 1, |_| true);
    let reserved = appender.reserve(64).expect("running").expect("written");
    assert!(appender.write(&reserved, &[1; 64], reserved.offset).is_err());
    assert!(appender.reserve(64).is_err() && appender.sync().is_err());
}
