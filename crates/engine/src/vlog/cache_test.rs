use super::*;
use crate::cache::{Residents, Use, weight};
use crate::table::BlockCache;
use crate::table::block::Block;
use crate::table::block_writer::BlockWriter;
use crate::types::{KeyRef, Kind};

fn cache_of(bytes: u64) -> ValueCache {
    shared(bytes).0
}

fn shared(bytes: u64) -> (ValueCache, Arc<BlockCache>) {
    let budget = Arc::new(Budget::shared(bytes));
    let blocks = BlockCache::within(budget.clone(), Part::Blocks);
    (ValueCache::within(budget), blocks)
}

fn fill_with_values(cache: &ValueCache, offsets: std::ops::Range<u64>) {
    for offset in offsets {
        cache.insert(pointer(offset, 1000), Bytes::from(vec![0; 1000]));
    }
}

fn fill_with_blocks(slots: &Arc<Residents<Block>>, count: u32) {
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
            assert!(bytes().0 > TOTAL / 10 * 9, "no other values: {:?}", bytes());
            fill_with_blocks(&slots, 2000);
        } else {
            fill_with_blocks(&slots, 2000);
            assert!(bytes().1 > TOTAL / 10 * 9, "no other values: {:?}", bytes());
            fill_with_values(&values, 0..2000);
        }
        let (value_bytes, block_bytes) = bytes();
        assert!(value_bytes > TOTAL / 5 && value_bytes <= TOTAL / 4 + 2000, "a quarter: {:?}", bytes());
        assert!(block_bytes > TOTAL / 10 * 7, "the rest: {:?}", bytes());
        assert!(value_bytes + block_bytes <= TOTAL, "{:?}", bytes());
        drop(slots);
        fill_with_values(&values, 3000..5000);
        assert!(bytes().0 > TOTAL / 10 * 9, "the blocks were dropped with their table: {:?}", bytes());
    }
}

fn pointer(offset: u64, length: u32) -> ValuePointer {
    ValuePointer { segment: 3, offset, length }
}

#[test]
fn a_value_is_found_by_its_pointer_and_counted() {
    let cache = cache_of(1 << 20);
    assert!(cache.get(pointer(8, 5)).is_none());
    cache.insert(pointer(8, 5), Bytes::from_static(b"value"));
    assert_eq!(cache.get(pointer(8, 5)).as_deref(), Some(&b"value"[..]));
    assert!(cache.get(pointer(8, 4)).is_none(), "a pointer of another length is not this value's");
    assert!(cache.get(pointer(9, 5)).is_none());
    let stats = cache.stats();
    let bytes = weight(&CachedValue { pointer: pointer(8, 5), bytes: Bytes::from_static(b"value") });
    assert_eq!((stats.bytes, stats.hits, stats.misses, stats.evictions), (bytes, 1, 3, 0));
    assert_eq!(stats.capacity_bytes, 1 << 20);
}

#[test]
fn the_bound_holds() {
    let cache = cache_of(100 << 10);
    for offset in 0..1000 {
        cache.insert(pointer(offset, 2000), Bytes::from(vec![0; 2000]));
    }
    let stats = cache.stats();
    assert!(stats.bytes <= 100 << 10);
    assert!(stats.evictions > 900, "{stats:?}");
    assert!((0..1000).any(|offset| cache.get(pointer(offset, 2000)).is_some()));
    let none = cache_of(0);
    none.insert(pointer(1, 1), Bytes::from_static(b"x"));
    assert!(none.get(pointer(1, 1)).is_none());
}

#[test]
fn a_promoted_value_outlasts_a_flood_of_newcomers() {
    for promoted in [false, true] {
        let cache = cache_of(100 << 10);
        let insert = |offset| {
            cache.insert(pointer(offset, 1000), Bytes::from(vec![0; 1000]));
        };
        (0..200).for_each(insert);
        insert(7000);
        if promoted {
            cache.promote(pointer(7000, 1000));
        }
        (200..400).for_each(insert);
        assert_eq!(cache.get(pointer(7000, 1000)).is_some(), promoted);
    }
}

/// Every value is found or not, but never another one, whatever threads bring in and look up at the same time.
#[test]
fn threads_that_fill_the_same_buckets_find_their_own_values() {
    let (cache, _) = shared(64 << 10);
    let value = |offset: u64| Bytes::from(vec![offset as u8; 100 + offset as usize % 50]);
    let length = |offset: u64| value(offset).len() as u32;
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let cache = &cache;
            scope.spawn(move || {
                for step in 0..5000u64 {
                    let offset = (step * (thread + 3)) % 700;
                    let pointer = pointer(offset, length(offset));
                    cache.fetch_ahead(pointer, [Step::Bucket, Step::Entry, Step::Value][step as usize % 3]);
                    let found = cache.get(pointer).unwrap_or_else(|| cache.insert(pointer, value(offset)));
                    assert_eq!(&found[..], &value(offset)[..]);
                    assert_eq!(found.into_bytes(), value(offset), "kept beyond the cache");
                }
            });
        }
    });
    let stats = cache.stats();
    assert!(stats.bytes <= 64 << 10 && stats.hits > 0 && stats.evictions > 0, "{stats:?}");
}
