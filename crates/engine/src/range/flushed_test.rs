use super::super::run::tests::{any_tombstone, newest, tombstone};
use super::*;
use proptest::prelude::*;

#[test]
fn the_newest_over_a_key_counts() {
    let tombstones = RangeTombstones::new(vec![tombstone(2, 8, 10), tombstone(4, 6, 20), tombstone(5, 12, 15)]);
    let covering = |key: u8| tombstones.covering(&[key]);
    assert_eq!((covering(1), covering(2), covering(3)), (None, Some(10), Some(10)));
    assert_eq!((covering(4), covering(5), covering(6)), (Some(20), Some(20), Some(15)));
    assert_eq!((covering(8), covering(11), covering(12)), (Some(15), Some(15), None));
    assert_eq!(tombstones.oldest(), Some(&tombstone(2, 4, 10)));
    assert!(
        tombstones.cover(&[2], &[11], 9) && !tombstones.cover(&[2], &[11], 10) && !tombstones.cover(&[2], &[12], 9)
    );
}

#[test]
fn one_that_lies_under_newer_ones_is_dropped() {
    let tombstones = RangeTombstones::new(vec![tombstone(4, 6, 5), tombstone(4, 7, 9), tombstone(3, 5, 4)]);
    assert_eq!(tombstones.iter().cloned().collect::<Vec<_>>(), [tombstone(3, 4, 4), tombstone(4, 7, 9)]);
}

#[test]
fn without_tombstones_nothing_is_hidden() {
    let none = RangeTombstones::default();
    assert_eq!(none.covering(b"x"), None);
    assert_eq!(none.span(b"x"), Span { start: None, end: None, sequence: 0 });
    assert!(!none.cover(b"a", b"b", 0) && none.is_empty() && none.oldest().is_none());
}

proptest! {
    #[test]
    fn every_answer_is_that_of_a_walk_over_the_list(list in prop::collection::vec(any_tombstone(), 0..14)) {
        let tombstones = RangeTombstones::new(list.clone());
        let expected = |key: u8| Some(newest(&list, key, u64::MAX)).filter(|sequence| *sequence > 0);
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
            let last = [largest];
            let above = tombstones.above(&[smallest], Some(&last), sequence);
            prop_assert_eq!(above.map(|(_, range)| range.sequence).max(), all.flatten().filter(|one| *one > sequence).max());
        }
        for (ordinal, range) in tombstones.above(&[0], None, 0) {
            prop_assert_eq!(tombstones.iter().nth(ordinal), Some(range));
        }
    }
}

fn wide(i: u32, length: u32, sequence: u64) -> RangeTombstone {
    let key = |i: u32| Bytes::copy_from_slice(&i.to_be_bytes());
    RangeTombstone { start: key(i), end: key(i + length), sequence }
}

proptest! {
    /// Over many chunks: what is added and removed bit by bit agrees with a plain list of keys.
    #[test]
    fn edits_come_to_the_same_as_the_whole(
        edits in prop::collection::vec(
            (any::<bool>(), prop::collection::vec((0u32..3000, 1u32..40, 1u64..50), 0..300), 0u32..3000, 0u32..3000),
            1..8,
        ),
    ) {
        let mut tombstones = RangeTombstones::default();
        let mut model = vec![0u64; 3100];
        for (adds, list, from, to) in edits {
            if adds {
                let list: Vec<_> = list.into_iter().map(|(start, length, sequence)| wide(start, length, sequence)).collect();
                for range in &list {
                    let bound = |key: &Bytes| u32::from_be_bytes(key[..].try_into().expect("4 bytes")) as usize;
                    for number in &mut model[bound(&range.start)..bound(&range.end)] {
                        *number = range.sequence.max(*number);
                    }
                }
                tombstones = tombstones.with(&super::super::Run::new(list).newest_only());
            } else if from != to {
                let (from, to) = (from.min(to), from.max(to));
                let spent = wide(from, to - from, 25);
                tombstones = tombstones.without(&[spent]);
                model[from as usize..to as usize].iter_mut().filter(|number| **number <= 25).for_each(|number| *number = 0);
            }
            for (key, expected) in model.iter().enumerate() {
                let found = tombstones.covering(&(key as u32).to_be_bytes()).unwrap_or(0);
                prop_assert_eq!(found, *expected, "key {}", key);
            }
            let ranges: Vec<_> = tombstones.iter().cloned().collect();
            prop_assert_eq!(ranges.len(), tombstones.len());
            prop_assert!(ranges.windows(2).all(|pair| pair[0].end <= pair[1].start));
            let most = 1 + 4 * ranges.len() / CHUNK_MAX;
            prop_assert!(tombstones.chunks.len() <= most, "{} chunks for {}", tombstones.chunks.len(), ranges.len());
        }
    }
}

#[test]
fn an_edit_copies_what_it_touches() {
    let many = RangeTombstones::new((0..100_000).map(|i| wide(i * 5, 2, u64::from(i) + 1)).collect());
    assert_eq!(many.len(), 100_000);
    let (steps, more) = work::during(|| many.with(&[wide(77, 1, 200_000)]));
    assert_eq!(more.len(), 100_001);
    assert!(steps < 4 * CHUNK_MAX as u64, "{steps} steps");
    let (steps, less) = work::during(|| more.without(&[wide(75, 10, 200_000)]));
    assert_eq!(less.len(), 99_998);
    assert!(steps < 4 * CHUNK_MAX as u64, "{steps} steps");
    let shared = less.chunks.iter().filter(|chunk| many.chunks.iter().any(|other| Arc::ptr_eq(chunk, other))).count();
    assert!(shared + 2 >= many.chunks.len(), "{shared} of {} chunks are shared", many.chunks.len());
    let (steps, found) = work::during(|| less.covering(&250_001u32.to_be_bytes()));
    assert!(found == Some(50_001) && steps < 40, "{found:?} after {steps} steps");
}
