use super::*;

#[test]
fn ids_start_above_the_computed_ones_and_wait_for_the_bound() {
    let mut ids = Ids::new(0);
    assert_eq!(ids.allocate(1), None);
    let bound = ids.bound_for(1, 9);
    assert_eq!(bound, FIRST_ID + 10);
    ids.raised(bound);
    assert_eq!(ids.allocate(1), Some(FIRST_ID));
    assert_eq!(ids.allocate(9), Some(FIRST_ID + 1));
    assert_eq!(ids.allocate(1), None, "the reserve is used up");
}

#[test]
fn a_call_that_does_not_fit_takes_nothing() {
    let mut ids = Ids::new(FIRST_ID);
    ids.raised(FIRST_ID + 5);
    assert_eq!(ids.allocate(6), None);
    assert_eq!(ids.allocate(5), Some(FIRST_ID));
}

#[test]
fn a_new_leader_skips_what_was_reserved() {
    let mut ids = Ids::new(FIRST_ID + 1_000);
    ids.raised(ids.bound_for(1, 0));
    assert_eq!(ids.allocate(1), Some(FIRST_ID + 1_000));
}
