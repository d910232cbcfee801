use super::super::run::tests::{any_tombstone, newest};
use super::*;
use proptest::prelude::*;

fn key(i: u64) -> Bytes {
    Bytes::copy_from_slice(&i.to_be_bytes())
}

fn small(i: u64) -> RangeTombstone {
    RangeTombstone { start: key(i * 5), end: key(i * 5 + 2), sequence: i + 1 }
}

proptest! {
    #[test]
    fn every_answer_is_that_of_a_walk_over_all(
        list in prop::collection::vec(any_tombstone(), 0..300),
        lookups in prop::collection::vec((0u8..60, 0u64..32), 0..40),
        since in 0u64..32,
        bounds in (0u8..60, 0u8..60),
    ) {
        let recent = Recent::default();
        prop_assert!(recent.is_empty() && recent.view().is_none());
        let mut lookups = lookups.into_iter().cycle();
        for (i, tombstone) in list.iter().enumerate() {
            recent.add(tombstone.clone());
            // Enough of them that runs are merged now and then.
            let Some((key, at)) = lookups.next() else { continue };
            let expected = newest(&list[..=i], key, at);
            prop_assert_eq!(recent.covering(&[key], at).unwrap_or(0), expected, "{} at {}", key, at);
            let view = recent.view().expect("there is one");
            let span = view.span(&[key], at);
            prop_assert!(span.contains(&[key]) && span.sequence == expected);
            for inside in (0u8..60).filter(|inside| span.contains(&[*inside])) {
                prop_assert_eq!(newest(&list[..=i], inside, at), expected, "a span has one answer");
            }
        }
        let Some(view) = recent.view() else { return Ok(()) };
        let (start, end) = (bounds.0.min(bounds.1), bounds.0.max(bounds.1));
        let found = view.covered_since(&[start], Some(&[end]), since);
        let covered = |key: u8| newest(&list, key, u64::MAX) > since;
        prop_assert_eq!(found.is_some(), (start..end).any(covered));
        prop_assert!(found.is_none_or(|key| (start..end).contains(&key[0]) && covered(key[0])));
        let mut all: Vec<_> = view.all().cloned().collect();
        let mut expected = list.clone();
        all.sort();
        expected.sort();
        prop_assert_eq!(all, expected);
        let only = view.newest_only();
        for key in 0u8..60 {
            prop_assert_eq!(newest(&only, key, u64::MAX), newest(&list, key, u64::MAX));
        }
    }
}

/// Steps per call, of the most expensive of some calls and of all together.
fn steps(calls: impl Iterator<Item = u64>) -> (u64, u64) {
    calls.fold((0, 0), |(most, sum), steps| (most.max(steps), sum + steps))
}

#[test]
fn lookups_take_a_logarithm_of_steps_however_many_there_are() {
    let recent = Recent::default();
    let count = 50_000;
    let (added, ()) = work::during(|| (0..count).for_each(|i| recent.add(small(i))));
    assert!(added < count * 40, "{added} steps for {count}: each is merged a logarithmic number of times");
    let lookup = |i: u64| {
        let at = (i * 7919) % count;
        let (steps, found) = work::during(|| recent.covering(&key(at * 5 + 1), count));
        assert_eq!(found, Some(at + 1));
        steps
    };
    let (most, _) = steps((0..100).map(lookup));
    assert!(most < 400, "{most} steps of a lookup right after");
    let (_, all) = steps((0..count).map(lookup));
    assert!(all < count * 60, "{all} steps of {count} lookups, with the merge that they have paid for");
    let (most, _) = steps((0..100).map(lookup));
    assert!(most < 60, "{most} steps of a lookup later on");
    let view = recent.view().expect("there are some");
    let (most, _) = steps((0..100).map(|i| work::during(|| view.span(&key(i * 2477), count)).0));
    assert!(most < 60, "{most} steps of a span");
}

#[test]
fn deletes_and_lookups_that_alternate_cost_a_logarithm_each() {
    let recent = Recent::default();
    let count = 30_000;
    let (steps, ()) = work::during(|| {
        for i in 0..count {
            recent.add(small(i));
            assert_eq!(recent.covering(&key(i * 5 + 1), i + 1), Some(i + 1));
        }
    });
    assert!(steps < count * 400, "{steps} steps for {count} of each");
}

#[test]
fn a_queue_that_is_trimmed_again_and_again_stays_cheap() {
    let recent = Recent::default();
    let count = 20_000;
    for i in 1..=count {
        recent.add(RangeTombstone { start: key(0), end: key(i), sequence: i });
    }
    let view = recent.view().expect("there are some");
    for at in [1, 77, count / 2, count] {
        let (steps, found) = work::during(|| view.covering(&key(0), at));
        assert!(found == at && steps < 400, "{found} at {at} after {steps} steps");
    }
    assert_eq!(view.newest_only().len(), 1, "the last covers all others");
}

#[test]
fn threads_that_add_and_look_up_at_once_find_all_that_was_added_before() {
    let recent = Recent::default();
    let count = 3000;
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let recent = &recent;
            scope.spawn(move || {
                for i in 0..count {
                    let i = thread * count + i;
                    recent.add(small(i));
                    assert_eq!(recent.covering(&key(i * 5), u64::MAX), Some(i + 1));
                    let before = thread * count + i / 2 % count;
                    if before < i {
                        let view = recent.view().expect("there are some");
                        assert_eq!(view.span(&key(before * 5 + 1), u64::MAX).sequence, before + 1);
                    }
                }
            });
        }
    });
    let view = recent.view().expect("there are some");
    assert_eq!(view.newest_only().len() as u64, 4 * count);
}
