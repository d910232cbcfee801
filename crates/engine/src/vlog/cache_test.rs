use super::*;

fn pointer(offset: u64, length: u32) -> ValuePointer {
    ValuePointer { segment: 3, offset, length }
}

#[test]
fn a_value_is_found_by_its_pointer_and_counted() {
    let cache = ValueCache::new(1 << 20);
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
    let cache = ValueCache::new(100 << 10);
    for offset in 0..1000 {
        cache.insert(pointer(offset, 2000), &Bytes::from(vec![0; 2000]));
    }
    let stats = cache.stats();
    assert!(stats.bytes <= 100 << 10);
    assert!(stats.evictions > 900, "{stats:?}");
    assert!((0..1000).any(|offset| cache.get(pointer(offset, 2000)).is_some()));
    let none = ValueCache::new(0);
    none.insert(pointer(1, 1), &Bytes::from_static(b"x"));
    assert_eq!(none.get(pointer(1, 1)), None);
}

#[test]
fn a_promoted_value_outlasts_a_flood_of_newcomers() {
    for promoted in [false, true] {
        let cache = ValueCache::new(100 << 10);
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
