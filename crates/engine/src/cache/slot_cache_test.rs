use super::slot_cache::weight;
use super::{Residents, Use};
use crate::table::BlockCache;
use crate::table::block::Block;
use crate::table::block_writer::BlockWriter;
use crate::types::{KeyRef, Kind};
use std::sync::Arc;

fn block(bytes: usize) -> Block {
    let mut writer = BlockWriter::new();
    writer.add(KeyRef::new(b"key", 1), Kind::Put, &vec![7; bytes]);
    Block::new(writer.finish().to_vec().into()).expect("well made")
}

/// Capacity for so many blocks of 1,000 bytes, in one shard.
fn cache(blocks: u64) -> Arc<BlockCache> {
    Arc::new(BlockCache::new(blocks * weight(&block(1000))))
}

/// Looks a block up, and brings it in if it is missing; whether it was there.
fn read(slots: &Arc<Residents<Block>>, index: u32, purpose: Use) -> bool {
    let there = slots.get(index, purpose).is_some();
    if !there {
        slots.insert(index, block(1000), purpose);
    }
    there
}

fn read_all(slots: &Arc<Residents<Block>>, blocks: std::ops::Range<u32>, purpose: Use) {
    for index in blocks {
        read(slots, index, purpose);
    }
}

#[test]
fn it_stays_within_its_bytes_and_counts() {
    let cache = cache(10);
    let slots = Residents::new(1, 100, cache.clone());
    for index in 0..100 {
        assert!(!read(&slots, index, Use::Point));
        assert!(cache.used_bytes() <= 10 * weight(&block(1000)));
    }
    assert_eq!((0..100).filter(|index| slots.get(*index, Use::Point).is_some()).count(), 10);
    assert_eq!((cache.hits(), cache.misses()), (10, 190));
    assert_eq!(cache.used_bytes(), 10 * weight(&block(1000)));
}

#[test]
fn what_does_not_fit_is_returned_and_not_kept() {
    for capacity_bytes in [0, 500] {
        let cache = Arc::new(BlockCache::new(capacity_bytes));
        let slots = Residents::new(1, 1, cache.clone());
        assert_eq!(slots.insert(0, block(1000), Use::Point).stored(0).len(), 1000);
        assert!(slots.get(0, Use::Point).is_none());
        assert_eq!(cache.used_bytes(), 0);
    }
}

#[test]
fn a_scan_does_not_displace_what_is_used() {
    let cache = cache(20);
    let (hot, cold) = (Residents::new(1, 10, cache.clone()), Residents::new(2, 1000, cache.clone()));
    for _ in 0..3 {
        read_all(&hot, 0..10, Use::Point);
    }
    for index in 0..1000 {
        assert!(!read(&cold, index, Use::Scan));
        assert!(read(&cold, index, Use::Scan), "for a while");
    }
    let stayed = (0..10).filter(|index| hot.get(*index, Use::Point).is_some()).count();
    assert_eq!(stayed, 10, "hot blocks outlive a hundred times the cache");
}

#[test]
fn what_a_compaction_reads_is_not_kept() {
    let cache = cache(20);
    let slots = Residents::new(1, 10, cache.clone());
    assert!(!read(&slots, 0, Use::Once));
    assert!(!read(&slots, 0, Use::Point), "still missing");
    assert!(read(&slots, 0, Use::Once));
}

#[test]
fn a_block_that_comes_back_soon_enters_the_main_queue() {
    let cache = cache(10);
    let slots = Residents::new(1, 200, cache.clone());
    read_all(&slots, 0..30, Use::Scan);
    assert!(!read(&slots, 0, Use::Scan), "it was thrown out");
    read_all(&slots, 100..109, Use::Scan);
    read_all(&slots, 109..130, Use::Scan);
    assert!(slots.get(0, Use::Scan).is_some(), "the short queue flows past it");
    assert!(slots.get(100, Use::Scan).is_none());
}

#[test]
fn blocks_leave_with_their_table_and_with_it_its_queue_entries() {
    let cache = cache(1000);
    for table in 0..50 {
        let slots = Residents::new(table, 100, cache.clone());
        read_all(&slots, 0..100, Use::Point);
        let kept = slots.get(3, Use::Point).expect("there");
        assert_eq!(cache.used_bytes(), 100 * weight(&block(1000)));
        drop(slots);
        assert_eq!(cache.used_bytes(), 0);
        assert_eq!(kept.stored(0).len(), 1000, "a held block stays valid");
    }
    let entries = cache.queue_entries();
    assert!(entries <= 200, "{entries} entries of dropped tables");
}

#[test]
fn threads_that_miss_at_once_share_one_block() {
    let cache = cache(50);
    let tables: Vec<_> = (0..4).map(|table| Residents::new(table, 100, cache.clone())).collect();
    std::thread::scope(|scope| {
        for thread in 0..4u32 {
            let (cache, tables) = (&cache, &tables);
            scope.spawn(move || {
                for step in 0..2000u32 {
                    let index = (step * (thread + 3)) % 100;
                    read(&tables[(step % 4) as usize], index, Use::Point);
                    // Tables come and go meanwhile.
                    let passing = Residents::new(u64::from(100 + thread * 10_000 + step), 2, cache.clone());
                    read(&passing, 1, Use::Point);
                }
            });
        }
    });
    let held: u64 = tables
        .iter()
        .flat_map(|slots| (0..100).filter_map(|index| slots.get(index, Use::Scan)))
        .map(|held| weight(&*held))
        .sum();
    assert_eq!(cache.used_bytes(), held, "what the cache counts is what the slots hold");
    assert!(held <= 50 * weight(&block(1000)));
}

#[test]
fn a_hot_block_need_not_prove_itself() {
    for (purpose, stays) in [(Use::Point, false), (Use::Hot, true)] {
        let cache = cache(20);
        let (one, flood) = (Residents::new(1, 1, cache.clone()), Residents::new(2, 1000, cache.clone()));
        read(&one, 0, purpose);
        read_all(&flood, 0..40, Use::Point);
        assert_eq!(one.get(0, Use::Scan).is_some(), stays, "{purpose:?}");
        assert!(cache.used_bytes() <= 20 * weight(&block(1000)));
    }
}
