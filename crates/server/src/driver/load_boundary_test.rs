use super::*;
use kontiki_env::rng::Rng;
use kontiki_raftstore::{Epoch, RegionId, Space};
use kontiki_txn::memcomparable_encode;

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

fn txn(key: &[u8]) -> Sample {
    scan(key, key)
}

fn scan(one: &[u8], other: &[u8]) -> Sample {
    Sample::encoded(&memcomparable_encode(one), &memcomparable_encode(other))
}

fn numbered(number: u64) -> Vec<u8> {
    format!("key-{number:06}").into_bytes()
}

fn of(samples: &[Sample]) -> Choice {
    choose(&region(b"", b""), samples, Measure::Requests)
}

/// The numbers of requests on the left, on the right, and on both sides.
fn divided(samples: &[Sample], boundary: &Bytes) -> (usize, usize, usize) {
    let left = samples.iter().filter(|sample| sample.last < *boundary).count();
    let right = samples.iter().filter(|sample| sample.first >= *boundary).count();
    (left, right, samples.len() - left - right)
}

#[test]
fn a_uniform_load_is_divided_in_the_middle() {
    for seed in 0..50 {
        let mut rng = Rng::new(seed);
        let samples: Vec<_> = (0..200).map(|_| txn(&numbered(rng.below(10_000)))).collect();
        let Choice::At(boundary) = of(&samples) else { panic!("seed {seed}") };
        let (left, right, _) = divided(&samples, &boundary);
        assert!(left.abs_diff(right) < 10, "seed {seed}: {left} {right}");
        kontiki_txn::memcomparable_decode(&boundary).expect("clients decode it");
    }
}

#[test]
fn a_skewed_load_is_divided_where_the_load_is() {
    // Nine of ten requests are for the last hundredth of the keys.
    let mut rng = Rng::new(1);
    let key = |rng: &mut Rng| if rng.chance(9, 10) { 9_900 + rng.below(100) } else { rng.below(9_900) };
    let samples: Vec<_> = (0..200).map(|_| txn(&numbered(key(&mut rng)))).collect();
    let Choice::At(boundary) = of(&samples) else { panic!() };
    assert!(boundary > memcomparable_encode(&numbered(9_900)));
    let (left, right, _) = divided(&samples, &boundary);
    assert!(left.abs_diff(right) < 20, "{left} {right}");
}

#[test]
fn a_load_on_one_key_is_not_divided_and_the_key_is_named() {
    let mut samples: Vec<_> = (0..160).map(|_| txn(b"m-hot")).collect();
    samples.extend((0..20).map(|number| txn(&[b'a', number])));
    samples.extend((0..20).map(|number| txn(&[b'z', number])));
    let key = Bytes::from(memcomparable_encode(b"m-hot"));
    assert_eq!(of(&samples), Choice::OneKey { key, is_raw: false, percent: 80 });
}

#[test]
fn one_key_with_a_good_share_on_one_side_is_divided_from_the_others() {
    let mut samples: Vec<_> = (0..60).map(|_| txn(b"m-hot")).collect();
    samples.extend((0..40).map(|number| txn(&[b'a', number])));
    assert_eq!(of(&samples), Choice::At(memcomparable_encode(b"m-hot").into()));
}

#[test]
fn a_part_with_less_than_a_quarter_is_none() {
    let load = |left: u8| -> Vec<_> {
        let left = (0..left).map(|number| txn(&[b'a', number]));
        // The others cannot be divided from each other.
        left.chain((0..100).map(|_| txn(b"m"))).collect()
    };
    assert!(matches!(of(&load(34)), Choice::At(_)), "34 of 134");
    assert!(matches!(of(&load(33)), Choice::OneKey { .. }), "33 of 133");
}

#[test]
fn few_scans_may_cross_a_boundary() {
    let load = |crossing: usize| -> Vec<_> {
        let points = (0..100u64).map(|number| txn(&numbered(number)));
        points.chain((0..crossing).map(|_| scan(&numbered(0), &numbered(99)))).collect()
    };
    let Choice::At(boundary) = of(&load(11)) else { panic!() };
    assert_eq!(divided(&load(11), &boundary), (50, 50, 11));
    assert_eq!(of(&load(12)), Choice::Nowhere, "12 of 112");
}

#[test]
fn a_boundary_is_found_between_scans_of_separate_ranges() {
    let scans = |from: u64| (0..50).map(move |number| scan(&numbered(from + number % 5), &numbered(from + 50)));
    let samples: Vec<_> = scans(100).chain(scans(500)).collect();
    let Choice::At(boundary) = of(&samples) else { panic!() };
    assert_eq!(divided(&samples, &boundary), (50, 50, 0));
}

#[test]
fn raw_keys_are_divided_behind_their_first_eight_bytes() {
    let raw = |number: u64, tail: u64| {
        let key = format!("k{number:07}/{tail}");
        Sample::raw(key.as_bytes(), key.as_bytes())
    };
    let samples: Vec<_> = (0..200).map(|at| raw(at % 10, at)).collect();
    let Choice::At(boundary) = of(&samples) else { panic!() };
    assert_eq!(boundary, Bytes::from(boundary_behind(b"k0000004")));
    assert_eq!(divided(&samples, &boundary), (100, 100, 0));
    let together: Vec<_> = (0..200).map(|at| raw(7, at)).collect();
    assert_eq!(of(&together), Choice::Nowhere, "they share eight bytes");
}

#[test]
fn a_boundary_lies_within_the_region() {
    let samples: Vec<_> = (0..100).map(|number| txn(&numbered(number))).collect();
    let (start, end) = (memcomparable_encode(&numbered(70)), memcomparable_encode(&numbered(80)));
    let Choice::At(boundary) = choose(&region(&start, &end), &samples, Measure::Requests) else { panic!() };
    assert_eq!(boundary, Bytes::from(memcomparable_encode(&numbered(71))), "from 70 on, but not there");
    let end = memcomparable_encode(&numbered(71));
    assert_eq!(choose(&region(&start, &end), &samples, Measure::Requests), Choice::Nowhere);
}

#[test]
fn keys_that_are_too_long_are_no_boundaries() {
    let long = |number: u8| txn(&[number; SPLIT_KEY_BYTES_MAX]);
    assert_eq!(of(&(0..200).map(long).collect::<Vec<_>>()), Choice::Nowhere);
}

#[test]
fn bytes_are_divided_where_the_bytes_are() {
    let sample = |number: u64| Sample { bytes: if number < 20 { 400 } else { 100 }, ..txn(&numbered(number)) };
    let samples: Vec<_> = (0..100).map(sample).collect();
    let at = |number| Choice::At(memcomparable_encode(&numbered(number)).into());
    assert_eq!(choose(&region(b"", b""), &samples, Measure::Bytes), at(20));
    assert_eq!(choose(&region(b"", b""), &samples, Measure::Requests), at(50));
}

#[test]
fn nothing_follows_from_no_samples() {
    assert_eq!(of(&[]), Choice::Nowhere);
}
