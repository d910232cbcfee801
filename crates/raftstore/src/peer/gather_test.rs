use super::{BYTES_FULL, Gathering};
use std::time::Duration;

const NOW: Duration = Duration::from_secs(10);
const ROUND_MAX: Duration = Duration::from_millis(5);

#[test]
fn a_queue_waits_while_more_is_uncommitted() {
    let gathering = Gathering::default();
    assert!(!gathering.waits(1, 100, 0, ROUND_MAX), "nothing is in the log before it");
    assert!(!gathering.waits(1, 100, 1, ROUND_MAX), "two clients do not wait for each other");
    assert!(gathering.waits(1, 100, 2, ROUND_MAX));
    assert!(!gathering.waits(2, 100, 2, ROUND_MAX), "the half that gathered is as large");
    assert!(!gathering.waits(1, BYTES_FULL, 2, ROUND_MAX), "a large queue");
    assert!(!gathering.waits(1, 100, 2, Duration::ZERO), "switched off");
}

#[test]
fn nothing_waits_where_a_round_is_long() {
    let mut gathering = Gathering::default();
    gathering.appended(NOW, 7);
    gathering.appended(NOW + ROUND_MAX, 9);
    gathering.committed(NOW + ROUND_MAX, 6);
    assert!(gathering.waits(1, 100, 2, ROUND_MAX), "the group that is measured is not committed");
    gathering.committed(NOW + 2 * ROUND_MAX, 7);
    assert!(!gathering.waits(1, 100, 2, ROUND_MAX), "{gathering:?}");
    gathering.appended(NOW + 3 * ROUND_MAX, 12);
    gathering.committed(NOW + 4 * ROUND_MAX, 13);
    assert!(gathering.waits(1, 100, 2, ROUND_MAX), "short again: {gathering:?}");
}
