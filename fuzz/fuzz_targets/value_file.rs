//! Value files: no input panics, behind a good header or without one.
#![no_main]

use kontiki_engine::internals::{ValueRefs, summarize_value_file};
use kontiki_env::codec::{checksum32, put_u32, put_u64};
use libfuzzer_sys::fuzz_target;
use std::path::Path;

const NUMBER: u64 = 1;

fn header(kind: u32) -> Vec<u8> {
    let mut header = b"KTKVALUE".to_vec();
    put_u32(&mut header, 1);
    put_u64(&mut header, NUMBER);
    put_u32(&mut header, kind);
    put_u32(&mut header, 0);
    let checksum = checksum32(&[&header]);
    put_u32(&mut header, checksum);
    header
}

/// Makes the checksums right of the record header at `at` and of the trailer, so that the fuzzer gets past them.
fn mend(bytes: &mut [u8], at: usize) {
    let place = [NUMBER.to_le_bytes(), (at as u64).to_le_bytes()].concat();
    if let Some(record) = bytes.get_mut(at..at + 24) {
        record[15] = record[15] % 2 + 1;
        let checksum = checksum32(&[&place, &record[4..]]);
        record[..4].copy_from_slice(&checksum.to_le_bytes());
    }
    if let Some(start) = bytes.len().checked_sub(32) {
        let (covered, checksum) = bytes[start..].split_at_mut(28);
        checksum.copy_from_slice(&checksum32(&[&NUMBER.to_le_bytes(), covered]).to_le_bytes());
    }
}

fuzz_target!(|data: &[u8]| {
    let path = Path::new("000001.vlog");
    let _ = summarize_value_file(path, NUMBER, data);
    for kind in [1, 2] {
        let mut file = header(kind);
        file.extend_from_slice(data);
        let _ = summarize_value_file(path, NUMBER, &file);
        mend(&mut file, 32);
        let _ = summarize_value_file(path, NUMBER, &file);
    }
    let mut input = data;
    if let Ok(refs) = ValueRefs::decode(&mut input) {
        let mut again = Vec::new();
        refs.encode(&mut again);
        assert_eq!(ValueRefs::decode(&mut again.as_slice()), Ok(refs));
    }
});
