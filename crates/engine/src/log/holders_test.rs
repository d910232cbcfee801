use super::*;

fn segment(number: u64, sequences: std::ops::Range<u64>) -> SegmentFacts {
    let (first_sequence, last_sequence) =
        if sequences.is_empty() { (0, 0) } else { (sequences.start, sequences.end - 1) };
    SegmentFacts { number, bytes: 100, first_sequence, last_sequence }
}

fn memtable(id: u64, segment: u64, last_sequence: u64) -> MemtablePin {
    MemtablePin { id, frozen: id == 1, segment, last_sequence, families: vec![Family(id as u32)] }
}

#[test]
fn each_segment_names_those_who_need_it() {
    let segments = [
        segment(1, 1..10),
        segment(2, 10..20),
        segment(3, 0..0),
        segment(4, 20..30),
        segment(5, 0..0),
        segment(6, 30..31),
    ];
    let streams = |number| if number == 5 { vec![(StreamId(7), 2)] } else { vec![] };
    let memtables = [memtable(1, 2, 25), memtable(2, 4, 30)];
    let readers = [(1, 1), (2, 2), (3, 6)];
    let holding = Holding { segments: &segments, memtables: &memtables, streams: &streams, feed: Some(&readers) };
    let held = |id: u64| LogHolder::Memtable { id, frozen: id == 1, families: vec![Family(id as u32)] };
    let holders: Vec<Vec<LogHolder>> = explain(&holding).into_iter().map(|(_, holders)| holders).collect();
    assert_eq!(holders[0], [LogHolder::ChangeFeed { subscribers: vec![1] }], "only for followers");
    assert_eq!(holders[1], [held(1)]);
    assert_eq!(holders[2], [LogHolder::Older { segment: 2 }], "no holder needs it");
    assert_eq!(holders[3], [held(1), held(2)]);
    assert_eq!(holders[4], [LogHolder::Stream { stream: StreamId(7), items: 2 }]);
    assert_eq!(holders[5], [LogHolder::Newest, held(2)]);
    // Without a feed, what no holder needs is about to be deleted.
    assert_eq!(explain(&Holding { feed: None, ..holding })[0].1, []);
    assert_eq!(pinned_bytes(&segments, Some(4)), 300);
    assert_eq!(pinned_bytes(&segments, None), 0);
    assert_eq!((feed_bytes(&segments, Some(2)), feed_bytes(&segments, None)), (100, 500));
}

#[test]
fn a_warning_comes_once_and_again_when_it_is_twice_as_bad() {
    let mut watchdog = Watchdog::default();
    let mut warns = |bytes| watchdog.warns(HolderKind::Streams, bytes, 100);
    let warned: Vec<bool> = [100, 101, 150, 202, 300, 403, 404, 80, 120].into_iter().map(&mut warns).collect();
    assert_eq!(warned, [false, true, false, true, false, false, true, false, true]);
    assert!(!watchdog.warns(HolderKind::Memtables, u64::MAX, 0), "0 is no bound");
}

#[test]
fn a_segment_is_held_from_when_it_was_full() {
    let mut watchdog = Watchdog::default();
    watchdog.see(&[segment(1, 1..2), segment(2, 2..3)], 50);
    watchdog.see(&[segment(1, 1..2), segment(2, 2..3), segment(3, 3..4)], 70);
    assert_eq!([1, 2, 3].map(|number| watchdog.full_since_ms(number)), [Some(50), Some(70), None]);
    watchdog.see(&[segment(3, 3..4)], 90);
    assert_eq!(watchdog.full_since_ms(2), None);
}
