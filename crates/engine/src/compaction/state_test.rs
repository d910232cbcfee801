use super::*;
use crate::types::LEVEL_COUNT;
use std::sync::atomic::{AtomicU64, Ordering};

#[test]
fn compactions_are_planned_again_when_an_exclusion_ends() {
    let (state, wakes) = (CompactionState::default(), Arc::new(AtomicU64::new(0)));
    let counted = wakes.clone();
    state.set_wake(Box::new(move || _ = counted.fetch_add(1, Ordering::Relaxed)));
    let claim = Claim {
        family: Family::DEFAULT,
        from: 0,
        to: LEVEL_COUNT - 1,
        smallest_key: Bytes::from_static(b"a"),
        largest_key: Bytes::from_static(b"z"),
    };
    // As an ingest does, with nothing else in flight: a job that looked meanwhile found everything claimed.
    let guard = state.claim(&mut state.in_flight.lock(), vec![claim]);
    assert_eq!(wakes.load(Ordering::Relaxed), 0);
    drop(guard);
    assert_eq!(wakes.load(Ordering::Relaxed), 1);
}
