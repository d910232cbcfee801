use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

proptest! {
    #[test]
    fn a_map_and_its_older_copies_are_those_of_the_model(
        steps in prop::collection::vec((0u32..400, 0u8..4, any::<u16>()), 1..600),
    ) {
        let mut map = FamilyMap::default();
        let mut model = BTreeMap::new();
        let mut copies = Vec::new();
        for (i, (family, what, value)) in steps.into_iter().enumerate() {
            let family = Family(family);
            match what {
                0 => prop_assert_eq!(map.remove(family), model.remove(&family)),
                1 => {
                    if let Some(there) = map.get_mut(family) {
                        *there = value;
                        model.insert(family, value);
                    }
                }
                _ => prop_assert_eq!(map.insert(family, value), model.insert(family, value)),
            }
            prop_assert_eq!(map.get(family), model.get(&family));
            if i % 97 == 0 {
                copies.push((map.clone(), model.clone()));
            }
        }
        copies.push((map, model));
        for (map, model) in copies {
            prop_assert_eq!(map.len(), model.len());
            prop_assert!(map.iter().eq(model.iter().map(|(family, value)| (*family, value))));
            prop_assert!((0..400).all(|family| map.contains_key(Family(family)) == model.contains_key(&Family(family))));
        }
    }
}

#[test]
fn families_that_come_one_by_one_fill_their_chunks_and_copies_share_them() {
    let mut map: FamilyMap<u32> = FamilyMap::default();
    for family in 0..6400 {
        map.insert(Family(family), family);
    }
    assert!(map.chunks.len() <= 101, "{} chunks", map.chunks.len());
    let before = map.clone();
    map.insert(Family(3000), 7);
    let shared = map.chunks.iter().zip(&before.chunks).filter(|(a, b)| Arc::ptr_eq(a, b)).count();
    assert_eq!(shared, map.chunks.len() - 1);
}
