use super::*;
use proptest::prelude::*;

pub(in crate::range) fn tombstone(start: u8, end: u8, sequence: u64) -> RangeTombstone {
    RangeTombstone { start: Bytes::copy_from_slice(&[start]), end: Bytes::copy_from_slice(&[end]), sequence }
}

/// What a walk over all of them finds.
pub(in crate::range) fn newest(list: &[RangeTombstone], key: u8, at: u64) -> u64 {
    let covers = |one: &&RangeTombstone| one.covers(&[key]) && one.sequence <= at;
    list.iter().filter(covers).map(|one| one.sequence).max().unwrap_or(0)
}

prop_compose! {
    pub(in crate::range) fn any_tombstone()(start in 0u8..40, length in 1u8..12, sequence in 1u64..30) -> RangeTombstone {
        tombstone(start, start + length, sequence)
    }
}

proptest! {
    #[test]
    fn every_answer_is_that_of_a_walk_over_all(
        list in prop::collection::vec(any_tombstone(), 0..100),
        since in 0u64..32,
        bounds in (0u8..60, 0u8..60),
    ) {
        let run = Run::new(list.clone());
        prop_assert_eq!(run.len(), list.len());
        for at in (0..32).chain([u64::MAX]) {
            for key in 0u8..60 {
                let expected = newest(&list, key, at);
                prop_assert_eq!(run.covering(&[key], at), expected, "{} at {}", key, at);
                let span = run.span(&[key], at);
                for mut near in (0..2 * run.len() + 3).step_by(13) {
                    assert_eq!(run.span_from(&[key], at, &mut near), span, "from any place");
                    assert_eq!(run.span_from(&[key], at, &mut near), span, "from its own");
                }
                prop_assert!(span.contains(&[key]) && span.sequence == expected);
                for inside in (0u8..60).filter(|inside| span.contains(&[*inside])) {
                    prop_assert_eq!(newest(&list, inside, at), expected, "a span has one answer");
                }
            }
        }
        let (start, end) = (bounds.0.min(bounds.1), bounds.0.max(bounds.1));
        let found = run.covered_since(&[start], Some(&[end]), since);
        let expected = (start..end).find(|key| newest(&list, *key, u64::MAX) > since);
        prop_assert_eq!(found.map(|key| key[0]), expected, "from {} to {} since {}", start, end, since);
        let only = run.newest_only();
        prop_assert!(only.windows(2).all(|pair| pair[0].end <= pair[1].start));
        for key in 0u8..60 {
            prop_assert_eq!(newest(&only, key, u64::MAX), newest(&list, key, u64::MAX));
        }
        let half = list.len() / 2;
        let parts = [&list[..half], &list[half..]].map(|part| Run::new(part.to_vec()).newest_only());
        prop_assert_eq!(super::super::newest_of_both(&parts[0], &parts[1]), only);
    }
}

#[test]
fn nested_ranges_cost_a_logarithm_each_and_each_lookup() {
    let key = |i: u32| Bytes::copy_from_slice(&i.to_be_bytes());
    let count = 4096;
    // Each lies in the one before, and is newer.
    let nested =
        (0..count).map(|i| RangeTombstone { start: key(i), end: key(2 * count - i), sequence: u64::from(i) + 1 });
    let nested: Vec<_> = nested.collect();
    let (steps, run) = work::during(|| Run::new(nested));
    assert!(steps < 20 * u64::from(count), "{steps} steps to build it");
    assert!(run.numbers.len() < 2 * 12 * count as usize, "{} nodes", run.numbers.len());
    for (i, at) in [(count - 1, u64::from(count)), (count - 1, 7), (2 * count - 10, 1)] {
        let (steps, found) = work::during(|| run.covering(&key(i), at));
        assert!(found > 0 && found <= at && steps < 60, "{found} after {steps} steps");
    }
}

#[test]
fn what_is_old_is_passed_over_in_blocks() {
    let key = |i: u32| Bytes::copy_from_slice(&i.to_be_bytes());
    let small = |i: u32| RangeTombstone { start: key(2 * i), end: key(2 * i + 1), sequence: u64::from(i % 7) + 1 };
    let mut list: Vec<_> = (0..10_000).map(small).collect();
    list.push(RangeTombstone { start: key(18_000), end: key(18_001), sequence: 100 });
    let run = Run::new(list);
    let (steps, found) = work::during(|| run.covered_since(&key(0), None, 50));
    assert_eq!(found, Some(key(18_000)));
    assert!(steps < 10_000 / BLOCK as u64 * 3, "{steps} steps");
}
