//! Records of backups: no input panics.
#![no_main]

use kontiki_engine::internals::decode_record;
use kontiki_env::codec::checksum32;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = decode_record(data);
    // With a header that matches, so that the fuzzer gets to the body.
    let mut whole = b"KTKBACKP\x01\0\0\0".to_vec();
    whole.extend_from_slice(&checksum32(&[data]).to_le_bytes());
    whole.extend_from_slice(data);
    let _ = decode_record(&whole);
});
