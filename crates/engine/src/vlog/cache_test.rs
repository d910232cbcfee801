use super::*;
use crate::cache::residents::{Residents, Use};
use crate::iterator::KeyRef;
use crate::kind::Kind;
use crate::table::block::Block;
use crate::table::block_writer::BlockWriter;

fn cache_of(bytes: u64) -> ValueCache {
    shared(bytes).0
}

fn shared(bytes: u64) -> (ValueCache, Arc<BlockCache>) {
    let budget = Arc::new(Budget::shared(bytes));
    let blocks = Arc::new(BlockCache::within(budget.clone()));
    (ValueCache::within(budget, blocks.clone()), blocks)
}

fn fill_with_values(cache: &ValueCache, offsets: std::ops::Range<u64>) {
    for offset in offsets {
        cache.insert(pointer(offset, 1000), &Bytes::from(vec![0; 1000]));
    }
}

fn fill_with_blocks(slots: &Arc<Residents>, count: u32) {
    for index in 0..count {
        let mut writer = BlockWriter::new();
        writer.add(KeyRef::new(b"key", 1), Kind::Put, &[7; 1000]);
        slots.insert(index, Block::new(writer.finish().to_vec().into()).expect("well made"), Use::Point);
    }
}

#[test]
fn blocks_and_values_take_what_the_other_leaves_and_give_it_back() {
    const TOTAL: u64 = 1 << 20;
    for values_first in [true, false] {
        let (values, blocks) = shared(TOTAL);
        let slots = Residents::new(1, 2000, blocks.clone());
        let bytes = || (values.stats().bytes, blocks.used_bytes());
        if values_first {
            fill_with_values(&values, 0..2000);
            assert!(bytes().0 > TOTAL / 10 * 9, "nobody else is there: {:?}", bytes());
            fill_with_blocks(&slots, 2000);
        } else {
            fill_with_blocks(&slots, 2000);
            assert!(bytes().1 > TOTAL / 10 * 9, "nobody else is there: {:?}", bytes());
            fill_with_values(&values, 0..2000);
        }
        let (value_bytes, block_bytes) = bytes();
        assert!(value_bytes > TOTAL / 5 && value_bytes <= TOTAL / 4, "a quarter: {:?}", bytes());
        assert!(block_bytes > TOTAL / 10 * 7, "the rest: {:?}", bytes());
        // Between two notes, that many values are not known yet.
        let unknown = 2 * INSERTS_BETWEEN_NOTES * (1000 + ENTRY_OVERHEAD_BYTES);
        assert!(value_bytes + block_bytes <= TOTAL + unknown, "{:?}", bytes());
        drop(slots);
        fill_with_values(&values, 3000..5000);
        assert!(bytes().0 > TOTAL / 10 * 9, "the blocks have gone with their table: {:?}", bytes());
    }
}

fn pointer(offset: u64, length: u32) -> ValuePointer {
    ValuePointer { segment: 3, offset, length }
}

#[test]
fn a_value_is_found_by_its_pointer_and_counted() {
    let cache = cache_of(1 << 20);
    assert_eq!(cache.get(pointer(8, 5)), None);
    cache.insert(pointer(8, 5), &Bytes::from_static(b"value"));
    assert_eq!(cache.get(pointer(8, 5)).as_deref(), Some(&b"value"[..]));
    assert_eq!(cache.get(pointer(8, 4)), None, "a pointer of another length is not this value's");
    assert_eq!(cache.get(pointer(9, 5)), None);
    let stats = cache.stats();
    assert_eq!((stats.bytes, stats.hits, stats.misses, stats.evictions), (125, 1, 3, 0));
    assert_eq!(stats.capacity_bytes, 1 << 20);
}

#[test]
fn the_bound_holds() {
    let cache = cache_of(100 << 10);
    for offset in 0..1000 {
        cache.insert(pointer(offset, 2000), &Bytes::from(vec![0; 2000]));
    }
    let stats = cache.stats();
    assert!(stats.bytes <= 100 << 10);
    assert!(stats.evictions > 900, "{stats:?}");
    assert!((0..1000).any(|offset| cache.get(pointer(offset, 2000)).is_some()));
    let none = cache_of(0);
    none.insert(pointer(1, 1), &Bytes::from_static(b"x"));
    assert_eq!(none.get(pointer(1, 1)), None);
}

#[test]
fn a_promoted_value_outlasts_a_flood_of_newcomers() {
    for promoted in [false, true] {
        let cache = cache_of(100 << 10);
        let insert = |offset| cache.insert(pointer(offset, 1000), &Bytes::from(vec![0; 1000]));
        (0..200).for_each(insert);
        insert(7000);
        if promoted {
            cache.promote(pointer(7000, 1000));
        }
        (200..400).for_each(insert);
        assert_eq!(cache.get(pointer(7000, 1000)).is_some(), promoted);
    }
}
