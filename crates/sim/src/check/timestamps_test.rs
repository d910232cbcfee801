use super::{Grant, check, check_rising};

fn grant(invoked: u64, completed: u64, first: u64, count: u64) -> Grant {
    Grant { client: 1, invoked, completed, first, count }
}

#[test]
fn growing_timestamps_pass_and_concurrent_ones_may_cross() {
    assert!(check(&[]).is_ok());
    assert!(check(&[grant(1, 2, 10, 5), grant(3, 4, 15, 1)]).is_ok());
    assert!(check(&[grant(1, 4, 15, 1), grant(2, 3, 10, 5)]).is_ok());
}

#[test]
fn a_duplicate_is_found_even_inside_a_batch() {
    let violation = check(&[grant(1, 3, 10, 5), grant(2, 4, 14, 1)]).unwrap_err();
    assert_eq!(violation.what, "a timestamp was granted twice");
    assert_eq!(violation.evidence.len(), 2);
}

#[test]
fn going_back_in_real_time_is_found() {
    let violation = check(&[grant(1, 2, 10, 1), grant(3, 6, 11, 1), grant(4, 5, 9, 1)]).unwrap_err();
    assert_eq!(violation.what, "timestamps went back");
}

#[test]
fn numbers_that_only_rise_may_be_told_again() {
    assert!(check_rising(&[grant(1, 2, 7, 1), grant(3, 4, 7, 1)]).is_ok());
    assert!(check_rising(&[grant(1, 2, 7, 1), grant(3, 4, 6, 1)]).is_err());
}
