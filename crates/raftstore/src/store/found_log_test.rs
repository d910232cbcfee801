use super::*;
use crate::consensus::entry_to_wire;
use proptest::prelude::*;

const REGION: RegionId = RegionId(7);

fn entry(index: u64, term: u64) -> Entry {
    Entry { index, term, data: vec![b'd'; (index % 5) as usize].into(), ..Entry::default() }
}

fn bytes(index: u64, term: u64) -> Vec<u8> {
    entry_to_wire(&entry(index, term)).encode_to_vec()
}

/// A log with entries 11 to `last_index`, of which those above `kept_above` are kept.
fn log(last_index: u64, kept_above: u64) -> FoundLog {
    let mut log = FoundLog::new(REGION, StreamHead { truncated_through: 10, last_index, ..StreamHead::default() });
    log.keep_above(kept_above);
    log
}

fn error(found: Result<FoundEntries, RecoverError>) -> String {
    found.expect_err("damaged").to_string()
}

proptest! {
    /// What was rewritten comes after what is newer, and may come twice.
    #[test]
    fn entries_come_in_any_order(
        order in Just((11..=30).collect::<Vec<u64>>()).prop_shuffle(),
        again in prop::collection::vec(11_u64..=30, 0..5),
        kept_above in 0_u64..40,
    ) {
        let mut log = log(30, kept_above);
        for index in order.into_iter().chain(again) {
            log.take(index, &bytes(index, index / 8)).expect("whole");
        }
        prop_assert_eq!(log.last(), Some((30, 3)));
        let (kept_above, found) = (kept_above.clamp(10, 30), log.into_entries().expect("whole"));
        let evicted = (11..=kept_above).map(|index| (index / 8, entry_bytes(&entry(index, 0))));
        prop_assert_eq!(found.evicted, evicted.collect::<Vec<_>>());
        prop_assert_eq!(found.entries, (kept_above + 1..=30).map(|index| entry(index, index / 8)).collect::<Vec<_>>());
    }
}

#[test]
fn what_is_missing_or_does_not_fit_is_named() {
    let mut gap = log(13, 12);
    gap.take(11, &bytes(11, 1)).expect("whole");
    gap.take(13, &bytes(13, 1)).expect("whole");
    assert!(error(gap.into_entries()).contains("region 7: entry 12 is missing"));
    let mut falling = log(12, 12);
    falling.take(12, &bytes(12, 1)).expect("whole");
    falling.take(11, &bytes(11, 2)).expect("whole");
    assert!(error(falling.into_entries()).contains("region 7: entry 12 says it is of term 1, after one of term 2"));
    let other = log(12, 12).take(11, &bytes(12, 1)).expect_err("another entry").to_string();
    assert!(other.contains("region 7: entry 11 says it is 12"), "{other}");
    let garbage = log(12, 12).take(11, b"\xff\xff").expect_err("garbage").to_string();
    assert!(garbage.contains("region 7: entry 11: it cannot be decoded"), "{garbage}");
    assert!(error(log(11, 0).into_entries()).contains("entry 11 is missing"));
    assert!(log(10, 0).into_entries().is_ok_and(|found| found.entries.is_empty() && found.evicted.is_empty()));
}

#[test]
fn entries_that_are_needed_after_all_are_kept() {
    let mut log = log(20, 18);
    for index in 11..=20 {
        log.take(index, &bytes(index, 1)).expect("whole");
    }
    assert_eq!(log.lacks(18), None);
    assert_eq!(log.lacks(30), None);
    assert_eq!(log.lacks(3), Some(11..19), "what is truncated is not there");
    assert_eq!(log.lacks(15), Some(16..19));
    let too_few = log.keep(16..19, &[bytes(16, 1).into()]).expect_err("two are missing").to_string();
    assert!(too_few.contains("region 7: 1 of the entries 16 to 18 are there"), "{too_few}");
    let entries: Vec<Bytes> = (16..19).map(|index| bytes(index, 1).into()).collect();
    log.keep(16..19, &entries).expect("whole");
    assert_eq!(log.kept().map(|entry| entry.index).collect::<Vec<_>>(), [16, 17, 18, 19, 20]);
    let found = log.into_entries().expect("whole");
    assert_eq!((found.evicted.len(), found.entries.len()), (5, 5));
}

#[test]
fn what_is_outside_of_the_log_is_ignored() {
    let mut log = log(12, 0);
    for index in 9..=14 {
        log.take(index, &bytes(index, 1)).expect("whole");
    }
    let found = log.into_entries().expect("whole");
    assert_eq!(found.entries, [entry(11, 1), entry(12, 1)]);
}
