use super::*;
use kontiki_engine::{Db, Durability, Options, WriteBatch};
use kontiki_env::SimMachine;
use kontiki_env::rng::Rng;
use kontiki_raftstore::{Epoch, RegionId, Space};
use kontiki_txn::{memcomparable_decode, memcomparable_encode};
use std::path::Path;

const TXN_WRITE: Family = crate::families::TXN_WRITE;

fn region(start_key: &[u8], end_key: &[u8]) -> Region {
    Region {
        id: RegionId(2),
        start_key: Bytes::copy_from_slice(start_key),
        end_key: Bytes::copy_from_slice(end_key),
        epoch: Epoch { conf_version: 1, version: 1 },
        peers: Vec::new(),
        roles: Default::default(),
        merges: Default::default(),
        gc_safe_point: 0,
        space: Space::Data,
    }
}

fn part(key: &[u8], bytes: u64, keys: u64) -> Part {
    Part { boundary: memcomparable_encode(key).into(), size: RegionSize { bytes, keys } }
}

fn divided(region: &Region, parts: &[Part], limits: SizeLimits) -> Vec<Bytes> {
    let sum = |of: fn(&Part) -> u64| parts.iter().map(of).sum();
    let size = RegionSize { bytes: sum(|part| part.size.bytes), keys: sum(|part| part.size.keys) };
    boundaries(region, parts, size, limits)
}

#[test]
fn a_region_within_its_limits_is_not_divided() {
    let limits = SizeLimits { bytes_max: 100, keys_max: 10 };
    let parts = [part(b"a", 50, 5), part(b"b", 50, 5)];
    assert!(divided(&region(b"", b""), &parts, limits).is_empty());
    assert_eq!(divided(&region(b"", b""), &parts, SizeLimits { bytes_max: 99, keys_max: 0 }).len(), 1);
    assert_eq!(divided(&region(b"", b""), &parts, SizeLimits { bytes_max: 0, keys_max: 9 }).len(), 1);
    assert!(divided(&region(b"", b""), &parts, SizeLimits { bytes_max: 0, keys_max: 0 }).is_empty(), "0: never");
}

#[test]
fn random_parts_are_divided_into_parts_of_half_the_limit() {
    for seed in 0..300 {
        let mut rng = Rng::new(seed);
        let count = rng.below(200) as u16 + 2;
        let parts: Vec<Part> = (0..count).map(|at| part(&at.to_be_bytes(), rng.below(10) + 1, rng.below(3))).collect();
        let (low, high) = (count / 8, count - count / 8);
        let region = region(&memcomparable_encode(&low.to_be_bytes()), &memcomparable_encode(&high.to_be_bytes()));
        let inside: Vec<Part> = parts[usize::from(low)..usize::from(high)].to_vec();
        let limits = SizeLimits { bytes_max: rng.below(200) + 40, keys_max: 0 };
        let chosen = divided(&region, &inside, limits);
        let bytes: u64 = inside.iter().map(|part| part.size.bytes).sum();
        assert_eq!(chosen.is_empty(), bytes <= limits.bytes_max, "seed {seed}");
        if chosen.is_empty() {
            continue;
        }
        let mut start = region.start_key.clone();
        for end in chosen.iter().chain([&region.end_key]) {
            assert!(start < *end, "seed {seed}: ascending, and inside of the region");
            let between = inside.iter().filter(|part| start < part.boundary && part.boundary <= *end);
            let piece: u64 = between.map(|part| part.size.bytes).sum();
            // A part holds 10 bytes at most, which is how far a piece may miss its size.
            assert!(piece <= limits.bytes_max / 2 + 20, "seed {seed}: {piece} of {limits:?}");
            start = end.clone();
        }
    }
}

#[test]
fn a_huge_region_becomes_as_many_as_a_split_makes() {
    let parts: Vec<Part> = (0..2_000u16).map(|at| part(&at.to_be_bytes(), 10, 1)).collect();
    let chosen = divided(&region(b"", b""), &parts, SizeLimits { bytes_max: 40, keys_max: 0 });
    assert_eq!(chosen.len(), SPLIT_CHILDREN_MAX);
}

#[test]
fn what_follows_a_part_that_cannot_be_divided_is_divided_as_usual() {
    // As a survey finds raw keys that share eight bytes: many parts that end at one boundary.
    let parts = std::iter::repeat_n(part(b"a", 5, 1), 200);
    let parts: Vec<Part> = parts.chain((0..40u8).map(|at| part(&[b'b', at], 5, 1))).collect();
    let limits = SizeLimits { bytes_max: 100, keys_max: 0 };
    let chosen = divided(&region(b"", b""), &parts, limits);
    let expected = [&parts[0], &parts[209], &parts[219], &parts[229]].map(|part| part.boundary.clone());
    assert_eq!(chosen, expected, "1,000 bytes that stay together, and 200 in parts of 50");
}

#[test]
fn a_region_is_divided_by_the_number_of_its_keys() {
    let machine = SimMachine::from_seed(3);
    let db = open(&machine);
    put_raw(&db, 4_000, "", 10);
    let limits = SizeLimits { bytes_max: 0, keys_max: 2_000 };
    let (size, chosen) = survey(&StateView::new(db.snapshot()), &region(b"", b""), limits).expect("read");
    assert!((3..=4).contains(&chosen.len()), "{size:?} in parts of 1,000: {chosen:?}");
    db.close().expect("closed");
}

#[test]
fn what_cannot_be_a_boundary_is_passed_over() {
    let long = vec![7; SPLIT_KEY_BYTES_MAX];
    let limits = SizeLimits { bytes_max: 10, keys_max: 0 };
    let region = region(&memcomparable_encode(b"b"), &memcomparable_encode(b"y"));
    assert!(divided(&region, &[part(&long, 50, 1), part(b"z", 50, 1)], limits).is_empty(), "too long, and outside");
    let parts = [part(b"b", 90, 1), part(b"x", 5, 1), part(b"xx", 5, 1)];
    let chosen = divided(&region, &parts, limits);
    assert_eq!(chosen, [parts[1].boundary.clone()], "not at the start, and not behind everything");
}

fn open(machine: &SimMachine) -> Db {
    let families = crate::families::served_families();
    let mut options = Options { families, memtable_bytes: 64 << 10, ..Options::default() };
    options.compaction.table_bytes = 32 << 10;
    Db::open_in(&machine.env(), Path::new("/db"), options).expect("opened")
}

/// Tables with so many raw keys.
fn put_raw(db: &Db, count: u32, prefix: &str, value_bytes: usize) {
    for number in 0..count {
        let mut batch = WriteBatch::new();
        batch.put(DEFAULT, format!("{prefix}{number:06}").as_bytes(), vec![1; value_bytes]);
        db.write(batch, Durability::Buffered).expect("written");
    }
    db.flush().expect("flushed");
}

#[test]
fn raw_and_transactional_data_are_measured_and_divided_at_encoded_user_keys() {
    let machine = SimMachine::from_seed(1);
    let db = open(&machine);
    for number in 0..2_000u32 {
        let mut batch = WriteBatch::new();
        let key = format!("{number:06}");
        batch.put(DEFAULT, key.as_bytes(), [1; 100]);
        // Two versions, with timestamps.
        for timestamp in [7u64, 9] {
            let stored = [memcomparable_encode(key.as_bytes()), (!timestamp).to_be_bytes().to_vec()].concat();
            batch.put(TXN_WRITE, stored, [2; 50]);
        }
        db.write(batch, Durability::Buffered).expect("written");
    }
    db.flush().expect("flushed");
    let limits = SizeLimits { bytes_max: 32 << 10, keys_max: 0 };
    let (size, chosen) = survey(&StateView::new(db.snapshot()), &region(b"", b""), limits).expect("read");
    let keys = size.keys as f64 / 6_000.0;
    assert!((0.98..1.02).contains(&keys), "{size:?}: three versions for each of 2,000 keys");
    assert!(chosen.len() >= 3, "{size:?} in parts of half of 32 KiB: {}", chosen.len());
    let mut sum = 0;
    let mut start = Bytes::new();
    for end in chosen.iter().cloned().chain([Bytes::new()]) {
        let part = region(&start, &end);
        let (size, again) = survey(&StateView::new(db.snapshot()), &part, limits).expect("read");
        assert!(again.is_empty(), "{part:?} with {size:?} would be split again");
        assert!(size.bytes > 0);
        sum += size.bytes;
        start = end;
    }
    for boundary in &chosen {
        let key = memcomparable_decode(boundary).expect("clients decode it");
        assert!(key.len() <= 6, "no timestamp is part of {key:?}");
    }
    let ratio = sum as f64 / size.bytes as f64;
    assert!((1.0..1.5).contains(&ratio), "blocks at boundaries count for both sides: {ratio}");
    db.close().expect("closed");
}

#[test]
fn each_kind_of_raw_data_is_divided_at_encoded_keys() {
    for (at, family) in
        [crate::families::RAW_LOCK, crate::families::RAW_WRITE, crate::families::RAW_V2].iter().enumerate()
    {
        let machine = SimMachine::from_seed(3 + at as u64);
        let db = open(&machine);
        let stored = |number: u32| match *family {
            crate::families::RAW_V2 => memcomparable_encode(format!("r\0\0\x01{number:06}").as_bytes()),
            _ => format!("{number:06}").into_bytes(),
        };
        for number in 0..1_000u32 {
            let mut batch = WriteBatch::new();
            batch.put(*family, stored(number), [1; 100]);
            db.write(batch, Durability::Buffered).expect("written");
        }
        db.flush().expect("flushed");
        let limits = SizeLimits { bytes_max: 0, keys_max: 400 };
        let (_, chosen) = survey(&StateView::new(db.snapshot()), &region(b"", b""), limits).expect("read");
        assert!(chosen.len() >= 3, "{family:?}: {chosen:?}");
        for boundary in chosen {
            assert!(stored(0) < boundary.to_vec() && boundary.to_vec() < stored(999), "{family:?}");
            memcomparable_decode(&boundary).expect("clients decode it");
        }
        db.close().expect("closed");
    }
}

#[test]
fn raw_keys_that_share_eight_bytes_stay_together() {
    let machine = SimMachine::from_seed(2);
    let db = open(&machine);
    put_raw(&db, 1_000, "the same", 100);
    let limits = SizeLimits { bytes_max: 10 << 10, keys_max: 0 };
    let (size, chosen) = survey(&StateView::new(db.snapshot()), &region(b"", b""), limits).expect("read");
    assert!(size.keys > 900, "{size:?}");
    assert!(chosen.len() <= 1, "at most behind all of them: {chosen:?}");
    let behind = Bytes::from(boundary_behind(b"the same"));
    let (size, chosen) = survey(&StateView::new(db.snapshot()), &region(b"the same", &behind), limits).expect("read");
    assert!(size.keys > 900 && chosen.is_empty(), "{size:?} {chosen:?}");
}
