//! Segments of the log: no input panics, as a whole segment, or as a payload in a good frame.
#![no_main]

use kontiki_engine::internals::summarize_segment;
use kontiki_env::codec::{checksum32, put_u32, put_u64};
use libfuzzer_sys::fuzz_target;
use std::path::Path;

const NUMBER: u64 = 3;
const SEQUENCE: u64 = 9;
const PATH: &str = "wal/000003.wal";

/// A good segment header, and a good frame around `payload`, so that the fuzzer gets past the checksums.
fn segment(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = b"KTKWALOG".to_vec();
    put_u32(&mut bytes, 1);
    put_u64(&mut bytes, NUMBER);
    put_u64(&mut bytes, 4096);
    let checksum = checksum32(&[&bytes]);
    put_u32(&mut bytes, checksum);
    let offset = bytes.len() as u64;
    let mut covered = Vec::new();
    put_u32(&mut covered, checksum32(&[payload]));
    put_u32(&mut covered, payload.len() as u32);
    covered.push(kind);
    put_u32(&mut covered, 0);
    put_u64(&mut covered, SEQUENCE);
    put_u32(&mut bytes, checksum32(&[&NUMBER.to_le_bytes(), &offset.to_le_bytes(), &covered]));
    bytes.extend_from_slice(&covered);
    bytes.extend_from_slice(payload);
    bytes
}

fuzz_target!(
    init: {
        // If the frame above were not the format's, every payload would be refused unread.
        let empty = summarize_segment(Path::new(PATH), NUMBER, &segment(2, &[]));
        assert_eq!(empty.ok().map(|summary| summary.rewrites), Some(1), "a rewrite of nothing is whole");
    },
    |data: &[u8]| {
        let path = Path::new(PATH);
        let _ = summarize_segment(path, NUMBER, data);
        for kind in [1, 2] {
            let bytes = segment(kind, data);
            if let Ok(summary) = summarize_segment(path, NUMBER, &bytes) {
                assert_eq!((summary.commits + summary.rewrites, summary.end), (1, bytes.len() as u64));
            }
        }
    }
);
