use super::*;

fn memory() -> Memory {
    Memory::new(Bounds {
        log_bytes_max: 3200,
        evict_percent: 75,
        applying_bytes_max: 100,
        reading_bytes_max: 200,
        stored_bytes_max: 10_000,
    })
}

#[test]
fn eviction_begins_above_its_share_and_goes_well_below_it() {
    let (mut memory, mut share) = (memory(), Share::default());
    memory.replace(&mut share, Share { bytes: 2400, evictable: 2000, stored: 2400 });
    assert!(!memory.must_evict());
    memory.replace(&mut share, Share { bytes: 2401, evictable: 99, stored: 2401 });
    assert!(!memory.must_evict(), "it is not worth it");
    memory.replace(&mut share, Share { bytes: 2401, evictable: 100, stored: 2401 });
    assert!(memory.must_evict());
    assert_eq!(memory.eviction_bytes(), 2401 - 1600);
}

#[test]
fn reads_count_and_one_may_always_begin() {
    let (mut memory, mut share) = (memory(), Share::default());
    memory.replace(&mut share, Share { bytes: 3300, evictable: 0, stored: 3300 });
    assert!(memory.may_read(), "the first");
    memory.read_begins(150);
    assert!(!memory.may_read(), "the budget is used up");
    memory.replace(&mut share, Share { bytes: 3000, evictable: 0, stored: 3000 });
    assert!(memory.may_read());
    memory.read_begins(50);
    assert!(!memory.may_read(), "enough is being read");
    assert_eq!(memory.status().log_bytes, 3200);
    memory.read_ended(150);
    assert_eq!(memory.status().reading_bytes, 50);
}

#[test]
fn the_bound_of_what_is_stored_is_apart_from_memory() {
    let (mut memory, mut share) = (memory(), Share::default());
    memory.replace(&mut share, Share { bytes: 10, evictable: 0, stored: 10_001 });
    assert!(memory.is_disk_tight() && !memory.is_tight());
}
