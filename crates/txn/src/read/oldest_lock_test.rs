use super::*;
use crate::MutationOp;
use crate::testing::{MapStore, prewrite};

fn oldest(store: &MapStore, range: Range, locks_max: usize) -> (Option<TimeStamp>, usize) {
    let mut search = OldestLock::new(range);
    let mut parts = 1;
    loop {
        match search.advance(store, locks_max).unwrap() {
            Some(oldest) => {
                assert!(search.locks_read() <= (parts * locks_max.max(1)) as u64);
                return (oldest, parts);
            }
            None => parts += 1,
        }
    }
}

#[test]
fn the_oldest_lock_of_the_range_is_found_in_any_number_of_parts() {
    let mut store = MapStore::default();
    store.committed("a", "1", 1, 2);
    assert_eq!(oldest(&store, Range::all(), 4), (None, 1));
    for (key, start_ts) in [("a", 30), ("c", 10), ("d", 20), ("e", 40)] {
        store.prewrite(&prewrite(&[(key, MutationOp::Put("v".into()))], key, start_ts)).unwrap();
    }
    for locks_max in 0..6 {
        assert_eq!(oldest(&store, Range::all(), locks_max).0, Some(TimeStamp(10)), "{locks_max}");
    }
    let behind = Range { start: Some(crate::lock_key(b"d").into()), end: None };
    assert_eq!(oldest(&store, behind.clone(), 1), (Some(TimeStamp(20)), 3));
    let empty = Range { end: behind.start.clone(), ..behind };
    assert_eq!(oldest(&store, empty, 1), (None, 1));
    store.commit(&["c"], 10, 50).unwrap();
    assert_eq!(oldest(&store, Range::all(), 1).0, Some(TimeStamp(20)), "what is committed is no lock");
}

#[test]
fn locks_that_leave_no_value_do_not_count() {
    let mut store = MapStore::default();
    store.prewrite(&prewrite(&[("a", MutationOp::Lock)], "a", 5)).unwrap();
    assert_eq!(oldest(&store, Range::all(), 1).0, None);
    store.prewrite(&prewrite(&[("b", MutationOp::Delete)], "b", 7)).unwrap();
    assert_eq!(oldest(&store, Range::all(), 1).0, Some(TimeStamp(7)), "a deletion is a change");
}
