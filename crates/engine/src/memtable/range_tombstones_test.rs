use super::*;
use proptest::prelude::*;

proptest! {
    /// Against looking through all of them; enough of them that most are in the search tree.
    #[test]
    fn lookups_find_the_newest_tombstone_that_covers(
        tombstones in prop::collection::vec((0..3u32, 0..40u8, 1..20u8), 0..120),
        lookups in prop::collection::vec((0..4u32, 0..60u8, 0..130u64), 50),
    ) {
        let all = RangeTombstones::default();
        prop_assert!(all.is_empty());
        let mut model = Vec::new();
        for (i, (family, start, length)) in tombstones.into_iter().enumerate() {
            let tombstone = RangeTombstone {
                start: Bytes::copy_from_slice(&[start]),
                end: Bytes::copy_from_slice(&[start + length]),
                sequence: i as u64 + 1,
            };
            all.add(Family(family), tombstone.clone());
            model.push((Family(family), tombstone));
        }
        for (family, key, at) in lookups {
            let covers = |(of, tombstone): &&(Family, RangeTombstone)| {
                *of == Family(family) && tombstone.sequence <= at && tombstone.covers(&[key])
            };
            let expected = model.iter().filter(covers).map(|(_, tombstone)| tombstone.sequence).max();
            prop_assert_eq!(all.covering(Family(family), &[key], at), expected);
        }
        for family in 0..3 {
            let mut found = all.of(Family(family));
            found.sort_by_key(|tombstone| tombstone.sequence);
            let expected: Vec<_> = model.iter().filter(|(of, _)| of.0 == family).map(|(_, t)| t.clone()).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
