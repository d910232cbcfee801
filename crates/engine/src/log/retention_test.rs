use super::*;
use proptest::prelude::*;

fn segment(number: u64, stream_items: u64) -> SegmentUse {
    SegmentUse { number, bytes: 100, stream_items, stream_bytes: stream_items * 10, feed_bytes: 150 }
}

fn input(segments: Vec<SegmentUse>, memtable_pin: Option<u64>) -> RetentionInput {
    RetentionInput {
        segments,
        memtable_pin,
        memtable_filled: true,
        flushed_for_streams_at: 0,
        budget_bytes: 250,
        feed_budget_bytes: 0,
    }
}

#[test]
fn an_unneeded_prefix_goes_and_the_newest_stays() {
    let free = input(vec![segment(4, 0), segment(5, 0), segment(6, 0)], None);
    assert_eq!(plan_retention(&free), (vec![4, 5], Retention::Rest));
    let middle = input(vec![segment(4, 0), segment(5, 1), segment(6, 0)], None);
    assert_eq!(plan_retention(&middle), (vec![4], Retention::Rest));
    assert_eq!(plan_retention(&input(vec![segment(9, 0)], None)), (vec![], Retention::Rest));
    assert_eq!(plan_retention(&input(vec![], None)), (vec![], Retention::Rest));
}

#[test]
fn over_the_budget_the_holder_of_the_oldest_moves() {
    let by_memtable = input(vec![segment(1, 1), segment(2, 0), segment(3, 0)], Some(1));
    assert_eq!(plan_retention(&by_memtable), (vec![], Retention::Flush));
    let by_streams = input(vec![segment(1, 1), segment(2, 0), segment(3, 0)], Some(2));
    assert_eq!(plan_retention(&by_streams), (vec![], Retention::Rewrite(1)));
    let roomy = RetentionInput { budget_bytes: 300, ..by_streams };
    assert_eq!(plan_retention(&roomy), (vec![], Retention::Rest));
}

#[test]
fn rewriting_rests_while_streams_really_keep_the_log_alive() {
    let busy = input(vec![segment(1, 9), segment(2, 9), segment(3, 9)], None);
    assert_eq!(plan_retention(&busy), (vec![], Retention::FlushForStreams));
    let requested = RetentionInput { flushed_for_streams_at: 3, ..busy.clone() };
    assert_eq!(plan_retention(&requested), (vec![], Retention::Rest), "once for each new segment");
    let empty = RetentionInput { memtable_filled: false, ..busy };
    assert_eq!(plan_retention(&empty), (vec![], Retention::Rest));
}

#[test]
fn the_newest_of_what_may_go_stays_for_the_feed_within_its_budget() {
    let free = input((4..10).map(|number| segment(number, 0)).collect(), None);
    let with = |feed_budget_bytes| plan_retention(&RetentionInput { feed_budget_bytes, ..free.clone() }).0;
    assert_eq!(with(0), [4, 5, 6, 7, 8]);
    assert_eq!(with(149), [4, 5, 6, 7, 8]);
    assert_eq!(with(300), [4, 5, 6]);
    assert_eq!(with(10_000), [0; 0]);
    // The one that does not fit ends it: the log has no gaps.
    let mut uneven = free.clone();
    uneven.segments[3].feed_bytes = 1000;
    assert_eq!(plan_retention(&RetentionInput { feed_budget_bytes: 900, ..uneven }).0, [4, 5, 6, 7]);
}

proptest! {
    #[test]
    fn nothing_that_is_needed_ever_goes(
        items in prop::collection::vec(0u64..3, 0..12),
        pin in prop::option::of(0u64..14),
        filled: bool,
        requested in 0u64..14,
        budget_bytes in 0u64..1500,
        feed_budget in 0u64..1500,
    ) {
        let segments: Vec<SegmentUse> = items.iter().zip(1..).map(|(items, number)| segment(number, *items)).collect();
        let input = RetentionInput { segments, memtable_pin: pin, memtable_filled: filled, flushed_for_streams_at: requested, budget_bytes, feed_budget_bytes: 0 };
        let (delete, next) = plan_retention(&input);
        let following = RetentionInput { feed_budget_bytes: feed_budget, ..input.clone() };
        let (fewer, same) = plan_retention(&following);
        prop_assert_eq!(same, next, "what stays for the feed starts no work");
        prop_assert_eq!(&fewer[..], &delete[..fewer.len()]);
        let for_feed = (delete.len() - fewer.len()) as u64;
        prop_assert_eq!(for_feed, (feed_budget / 150).min(delete.len() as u64));
        prop_assert!(delete.iter().zip(1u64..).all(|(number, expected)| *number == expected), "a prefix, in order");
        for number in &delete {
            prop_assert!(input.segments[*number as usize - 1].stream_items == 0, "no stream needs {}", number);
            prop_assert!(pin.is_none_or(|pin| *number < pin), "no memtable needs {}", number);
            prop_assert!((*number as usize) < input.segments.len(), "not the newest");
        }
        // Nothing deletable is left behind.
        if let Some(kept) = input.segments.get(delete.len()) && delete.len() + 1 < input.segments.len() {
            prop_assert!(kept.stream_items > 0 || pin.is_some_and(|pin| pin <= kept.number));
        }
        let left = &input.segments[delete.len().min(input.segments.len())..];
        let bytes: u64 = left.iter().map(|s| s.bytes).sum();
        match next {
            Retention::Rest => {}
            Retention::Rewrite(number) => {
                prop_assert_eq!(Some(number), left.first().map(|s| s.number));
                prop_assert!(bytes > budget_bytes);
            }
            Retention::Flush => prop_assert!(pin.is_some() && bytes > budget_bytes),
            Retention::FlushForStreams => prop_assert!(filled && bytes > budget_bytes),
        }
        if bytes > budget_bytes && left.len() > 1 && pin.is_some_and(|pin| pin <= left[0].number) {
            prop_assert_eq!(next, Retention::Flush);
        }
    }
}
