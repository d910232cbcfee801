use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

proptest! {
    #[test]
    fn every_set_is_that_of_the_model_and_stays_so(
        steps in prop::collection::vec((1u64..200, any::<bool>()), 1..120),
    ) {
        let mut numbers = Numbers::default();
        let mut history = vec![(Set::EMPTY, BTreeSet::new())];
        for (number, add) in steps {
            let (set, mut model) = history.last().expect("not empty").clone();
            let next = match (add, model.contains(&number)) {
                (true, _) => {
                    model.insert(number);
                    numbers.with(set, number)
                }
                (false, true) => {
                    model.remove(&number);
                    numbers.without(set, number)
                }
                (false, false) => continue,
            };
            history.push((next, model));
        }
        for (set, model) in &history {
            prop_assert_eq!(set.is_empty(), model.is_empty());
            for at in [0, 1, 2, 63, 64, 65, 100, 127, 128, 199, 200, SEQUENCE_NUMBER_MAX] {
                let expected = model.range(..=at).next_back().copied().unwrap_or(0);
                prop_assert_eq!(numbers.newest(*set, at), expected, "at {}", at);
            }
        }
    }
}

#[test]
fn a_thousand_sets_of_up_to_a_thousand_numbers_share_their_nodes() {
    let mut numbers = Numbers::default();
    let mut set = Set::EMPTY;
    for number in 1..=1000 {
        set = numbers.with(set, number);
    }
    for number in 1..=1000 {
        assert_eq!(numbers.newest(set, 1000), 1000);
        set = numbers.without(set, number);
    }
    assert!(set.is_empty());
    assert!(numbers.len() <= 2 * 1000 * 10, "{} nodes: at most one for each bit of each change", numbers.len());
}
