use super::*;
use proptest::prelude::*;

#[test]
fn the_examples_of_the_wire_contract() {
    assert_eq!(encode(b""), [0, 0, 0, 0, 0, 0, 0, 0, 0xf7]);
    assert_eq!(encode(b"abc"), [b'a', b'b', b'c', 0, 0, 0, 0, 0, 0xfa]);
    assert_eq!(encode(b"abcdefgh"), *b"abcdefgh\xff\0\0\0\0\0\0\0\0\xf7");
}

#[test]
fn what_is_no_encoding_is_refused() {
    assert!(decode(b"").is_err(), "an empty input is not a key");
    assert!(decode(b"abcdefgh\xff").is_err(), "the last group is missing");
    assert!(decode(b"abcdefgh\xf6").is_err(), "marker below 0xf7");
    assert!(decode(b"abc\0\0\0\0\x01\xfa").is_err(), "padding must be zero");
    let mut long = encode(b"k");
    long.push(0);
    assert!(decode(&long).is_err(), "trailing bytes");
}

proptest! {
    #[test]
    fn round_trip_and_order(a in prop::collection::vec(0u8..3, 0..20), b in prop::collection::vec(0u8..3, 0..20)) {
        prop_assert_eq!(decode(&encode(&a)).unwrap(), a.clone());
        prop_assert_eq!(encode(&a).cmp(&encode(&b)), a.cmp(&b));
        if a != b {
            prop_assert!(!encode(&a).starts_with(&encode(&b)));
        }
    }

    #[test]
    fn a_suffix_never_changes_the_order_of_keys(a in prop::collection::vec(any::<u8>(), 0..20), b in prop::collection::vec(any::<u8>(), 0..20), s: [u8; 8], t: [u8; 8]) {
        prop_assume!(a != b);
        let with = |key: &[u8], suffix: &[u8]| [encode(key), suffix.to_vec()].concat();
        prop_assert_eq!(with(&a, &s).cmp(&with(&b, &t)), a.cmp(&b));
    }

    #[test]
    fn decoding_anything_never_panics_and_is_injective(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        if let Ok(key) = decode(&bytes) {
            prop_assert_eq!(encode(&key), bytes);
        }
    }

    #[test]
    fn a_boundary_near_a_cut_encoding_is_an_encoding_at_or_below_all_that_the_cut_begins(
        key in prop::collection::vec(0u8..3, 0..30), cut in 0usize..50, suffix: [u8; 8],
    ) {
        let stored = [encode(&key), suffix.to_vec()].concat();
        let cut = cut.min(stored.len());
        let boundary = boundary_near(&stored[..cut]);
        prop_assert!(decode(&boundary).is_ok());
        prop_assert!(boundary <= encode(&key));
        if cut >= encode(&key).len() {
            prop_assert_eq!(boundary, encode(&key), "a timestamp is left out");
        }
    }

    #[test]
    fn a_boundary_near_anything_is_an_encoding(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        prop_assert!(decode(&boundary_near(&bytes)).is_ok());
    }
}
