use super::*;
use proptest::prelude::*;

fn tombstone(start: u8, end: u8, sequence: u64) -> RangeTombstone {
    RangeTombstone { start: Bytes::copy_from_slice(&[start]), end: Bytes::copy_from_slice(&[end]), sequence }
}

#[test]
fn the_newest_over_a_key_counts() {
    let tombstones = RangeTombstones::new(vec![tombstone(2, 8, 10), tombstone(4, 6, 20), tombstone(5, 12, 15)]);
    let covering = |key: u8| tombstones.covering(&[key]);
    assert_eq!((covering(1), covering(2), covering(3)), (None, Some(10), Some(10)));
    assert_eq!((covering(4), covering(5), covering(6)), (Some(20), Some(20), Some(15)));
    assert_eq!((covering(8), covering(11), covering(12)), (Some(15), Some(15), None));
    assert_eq!(tombstones.newest_within(&[7], &[40]), Some(15));
    assert!(
        tombstones.cover(&[2], &[11], 9) && !tombstones.cover(&[2], &[11], 10) && !tombstones.cover(&[2], &[12], 9)
    );
}

#[test]
fn one_that_lies_in_a_newer_one_is_superfluous() {
    let old = tombstone(4, 6, 5);
    let tombstones = RangeTombstones::new(vec![old.clone(), tombstone(4, 7, 9), tombstone(3, 5, 4)]);
    assert_eq!(tombstones.replaced().collect::<Vec<_>>(), [&old]);
}

#[test]
fn without_tombstones_nothing_is_hidden() {
    let none = RangeTombstones::default();
    assert_eq!(none.covering(b"x"), None);
    assert_eq!(none.span(b"x"), Span { start: None, end: None, sequence: 0 });
    assert!(!none.cover(b"a", b"b", 0));
}

proptest! {
    #[test]
    fn every_answer_is_that_of_a_walk_over_the_list(
        list in prop::collection::vec((0u8..40, 1u8..12, 1u64..30), 0..14),
    ) {
        let list: Vec<_> = list.iter().map(|&(start, length, sequence)| tombstone(start, start + length, sequence)).collect();
        let tombstones = RangeTombstones::new(list.clone());
        let expected = |key: u8| {
            list.iter().filter(|one| one.start <= [key][..] && one.end > [key][..]).map(|one| one.sequence).max()
        };
        let mut spans = Vec::new();
        for key in 0u8..60 {
            prop_assert_eq!(tombstones.covering(&[key]), expected(key));
            let span = tombstones.span(&[key]);
            prop_assert!(span.contains(&[key]));
            prop_assert_eq!((span.sequence > 0).then_some(span.sequence), expected(key));
            for inside in (0u8..60).filter(|inside| span.contains(&[*inside])) {
                prop_assert_eq!(expected(inside), expected(key), "a span has one answer");
            }
            if spans.last() != Some(&span) {
                spans.push(span);
            }
        }
        for pair in spans.windows(2) {
            prop_assert_eq!(pair[0].end, pair[1].start, "spans follow each other");
        }
        for (smallest, largest, sequence) in [(3u8, 9u8, 5u64), (10, 10, 1), (0, 50, 0), (20, 25, 12)] {
            let all = (smallest..=largest).map(expected);
            // Whole bytes only: a range between two of them has no other keys in this test.
            prop_assert_eq!(tombstones.cover(&[smallest], &[largest], sequence), all.clone().all(|one| one > Some(sequence)));
            prop_assert_eq!(tombstones.newest_within(&[smallest], &[largest]), all.flatten().max());
        }
        let replaced: Vec<_> = tombstones.replaced().cloned().collect();
        let rest = RangeTombstones::new(list.iter().filter(|one| !replaced.contains(one)).cloned().collect());
        prop_assert_eq!(&rest.fragments, &tombstones.fragments, "what is superfluous changes no answer");
    }
}
