use super::*;
use crate::Family;
use crate::vlog::format::{ValueFileKind, encode_file_header, encode_record, record_stride};
use crate::vlog::{RecordScan, ValueReader};
use kontiki_env::SimMachine;
use kontiki_env::fs::Fs;
use std::path::PathBuf;

#[test]
fn a_hole_becomes_a_skip_and_the_file_can_be_walked() {
    let machine = SimMachine::from_seed(1);
    let path = PathBuf::from("/000003.vlog");
    let stride = record_stride(1, 10);
    let mut bytes = encode_file_header(3, ValueFileKind::Segment);
    for i in 0..4 {
        let at = bytes.len() as u64;
        encode_record(&mut bytes, 3, at, Family(0), &[i], &[i; 10]);
    }
    let end = bytes.len() as u64;
    bytes[32 + stride as usize..][..2 * stride as usize].fill(0);
    let file = machine.fs.open(&path, OpenMode::CreateNew).expect("created");
    file.write_at(&bytes, 0).expect("written");
    let reader = ValueReader::open(&machine.fs, path.clone(), 3).expect("sound");
    let found = find_records(&reader).expect("readable");
    assert_eq!(found.holes, [(32 + stride, 2 * stride)]);
    fill_hole(&*file, 3, found.holes[0].0, found.holes[0].1, &path).expect("written");
    let mut scan = RecordScan::new(&reader, end);
    let mut met = Vec::new();
    while let Some((offset, _)) = scan.next().expect("no place without a record") {
        met.push(offset);
    }
    assert_eq!(met, [32, 32 + stride, 32 + 3 * stride]);
    assert!(fill_hole(&*file, 3, 32, 16, &path).is_err(), "no write leaves so small a hole");
}
