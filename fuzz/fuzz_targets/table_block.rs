//! Blocks, filters and properties of tables: no input panics, and a block that is accepted is in order.
#![no_main]

use bytes::Bytes;
use kontiki_engine::internals::{Block, Filter, KeyRef, Properties, decode_block, filter_hash};
use kontiki_env::codec::checksum32;
use libfuzzer_sys::fuzz_target;

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
        let _ = filter.may_contain(filter_hash(data));
    }
    if let Ok(properties) = Properties::decode(data) {
        assert_eq!(Properties::decode(&properties.encode()), Ok(properties));
    }
    let (target, block) = data.split_at(data.len().min(4));
    let Ok(block) = Block::new(Bytes::copy_from_slice(block)) else { return };
    let mut before: Option<(Vec<u8>, u64)> = None;
    for at in 0..block.len() {
        let key = [block.shared_prefix(), block.suffix(at)].concat();
        let sequence = block.sequence(at);
        let position = KeyRef::new(&key, sequence);
        assert!(before.is_none_or(|(key, sequence)| KeyRef::new(&key, sequence) < position), "in order");
        assert_eq!(block.position(position), at, "found where it is");
        assert_eq!(block.stored(at), &block.stored_bytes(at)[..]);
        before = Some((key, sequence));
    }
    assert!(block.position(KeyRef::new(target, 1)) <= block.len());
});
