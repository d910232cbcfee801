use super::Heads;
use proptest::collection::btree_set;
use proptest::prelude::*;

/// Few different bytes, zeros among them, and often a common beginning: so heads are equal, short and padded.
fn key() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![Just(0u8), Just(1), Just(255)];
    (any::<bool>(), proptest::collection::vec(byte, 0..12)).prop_map(|(begins, mut rest)| {
        let mut key = if begins { b"family/".to_vec() } else { Vec::new() };
        key.append(&mut rest);
        key
    })
}

proptest! {
    #[test]
    fn keys_before_the_equal_heads_are_less_and_those_behind_are_greater(
        keys in prop_oneof![btree_set(key(), 0..60), btree_set(key(), 1000..3000)],
        same_beginning in any::<bool>(),
        sought in proptest::collection::vec(key(), 1..20),
    ) {
        let begin = |key: Vec<u8>| if same_beginning { [&b"all/"[..], &key].concat() } else { key };
        let keys: Vec<Vec<u8>> = keys.into_iter().map(begin).collect();
        let heads = Heads::new(keys.iter().map(|key| &key[..]));
        for key in sought.into_iter().map(begin).chain(keys.clone()).chain([b"all".to_vec(), b"alm".to_vec()]) {
            let equal = heads.equal(&key);
            prop_assert!(keys[..equal.start].iter().all(|before| *before < key), "{key:?} {equal:?}");
            prop_assert!(keys[equal.end..].iter().all(|behind| *behind > key), "{key:?} {equal:?}");
            if heads.decide(&key) {
                prop_assert!(keys[equal.clone()].iter().all(|same| *same == key), "{key:?} {equal:?}");
            }
        }
    }
}

proptest! {
    #[test]
    fn heads_of_keys_of_one_length_decide(
        keys in btree_set(proptest::collection::vec(0u8..3, 6..=6), 1..200),
        sought in proptest::collection::vec(proptest::collection::vec(0u8..3, 5..=7), 1..20),
    ) {
        let keys: Vec<Vec<u8>> = keys.into_iter().map(|key| [&b"some table/"[..], &key].concat()).collect();
        let heads = Heads::new(keys.iter().map(|key| &key[..]));
        prop_assert!(heads.decide(&keys[0]), "all have one length");
        for key in sought.into_iter().map(|key| [&b"some table/"[..], &key].concat()).chain(keys.clone()) {
            prop_assert_eq!(heads.decide(&key), key.len() == keys[0].len());
            if heads.decide(&key) {
                prop_assert_eq!(heads.equal(&key).len(), usize::from(keys.contains(&key)));
            }
        }
    }
}
