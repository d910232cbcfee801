//! Blocks, filters and properties of tables: no input panics.
#![no_main]

use bytes::Bytes;
use kontiki_engine::Direction;
use kontiki_engine::iterator::KeyRef;
use kontiki_engine::table::block_reader::{Block, BlockCursor};
use kontiki_engine::table::filter::Filter;
use kontiki_engine::table::format::decode_block;
use kontiki_engine::table::properties::Properties;
use kontiki_env::codec::checksum32;
use libfuzzer_sys::fuzz_target;

/// Even a malformed block cannot hold more entries than bytes.
fn walk(cursor: &mut BlockCursor, limit: usize) {
    for _ in 0..=limit {
        if !cursor.valid() {
            return;
        }
        let _ = (cursor.key().user_key.len(), cursor.kind(), cursor.stored());
        if cursor.advance().is_err() {
            assert!(!cursor.valid(), "after an error a cursor stands nowhere");
            return;
        }
    }
    panic!("a cursor goes round in circles");
}

fuzz_target!(|data: &[u8]| {
    // With a checksum that matches, so that the fuzzer gets to the payload.
    if let Some((kind, payload)) = data.split_first() {
        let mut stored = payload.to_vec();
        let checksum = checksum32(&[payload, &[*kind], &0u64.to_le_bytes()]);
        stored.push(*kind);
        stored.extend_from_slice(&checksum.to_le_bytes());
        let _ = decode_block(stored, 0);
    }
    if let Ok(filter) = Filter::new(Bytes::copy_from_slice(data)) {
        let _ = filter.may_contain(data);
    }
    if let Ok(properties) = Properties::decode(data) {
        assert_eq!(Properties::decode(&properties.encode()), Ok(properties));
    }
    let (target, block) = data.split_at(data.len().min(4));
    let Ok(block) = Block::new(Bytes::copy_from_slice(block)) else { return };
    for direction in [Direction::Forward, Direction::Backward] {
        let mut cursor = BlockCursor::new(block.clone(), direction);
        if cursor.seek_to_first().is_ok() {
            walk(&mut cursor, data.len());
        }
        if cursor.seek(KeyRef::new(target, 1)).is_ok() {
            walk(&mut cursor, data.len());
        }
    }
});
