use super::*;
use proptest::prelude::*;

#[test]
fn the_sizes_of_ranges_are_differences() {
    let mut sizes = Sizes::default();
    [3, 0, 5, 7].into_iter().for_each(|bytes| sizes.push_back(bytes));
    assert_eq!((0..=4).map(|count| sizes.of_first(count)).collect::<Vec<_>>(), [0, 3, 3, 8, 15]);
    assert_eq!([0, 2, 3, 7, 8, 100].map(|bytes| sizes.fitting(bytes)), [0, 0, 2, 2, 3, 4]);
    sizes.pop_front();
    sizes.pop_back();
    assert_eq!((sizes.count(), sizes.total(), sizes.fitting(4)), (2, 5, 1));
}

proptest! {
    #[test]
    fn runs_know_the_term_of_each_entry(steps in prop::collection::vec(0u64..2, 1..60), dropped in 0u64..60) {
        let mut term = 1;
        let all = steps.iter().zip(1..).map(|(step, index)| {
            term += step;
            Position { index, term }
        });
        let all: Vec<Position> = all.collect();
        let mut terms = Terms::default();
        all.iter().for_each(|position| terms.push_back(*position));
        terms.drop_through(dropped);
        for position in all.iter().filter(|position| position.index > dropped) {
            prop_assert_eq!(terms.term(position.index), Some(position.term));
        }
        prop_assert_eq!(terms.term(all.len() as u64 + 1), None);
    }
}
