use super::*;

const START_MS: u64 = 1_800_000_000_000;

fn at(elapsed_ms: u64, wall_ms: u64) -> Now {
    Now { monotonic: Duration::from_millis(7 + elapsed_ms), wall_ms }
}

/// An oracle that leads since `at(0, START_MS)`, with its first window open.
fn ready(bound_ms: u64) -> Oracle {
    let mut oracle = Oracle::new(&Config::new(1, 1), bound_ms, at(0, START_MS));
    open(&mut oracle, at(0, START_MS));
    oracle
}

fn open(oracle: &mut Oracle, now: Now) {
    let bound_ms = oracle.next_bound(now);
    oracle.raised(bound_ms);
}

#[test]
fn nothing_is_handed_out_before_a_bound_is_durable() {
    let mut oracle = Oracle::new(&Config::new(1, 1), 0, at(0, START_MS));
    assert_eq!(oracle.allocate(1, at(0, START_MS)), None);
    assert_eq!(oracle.allocate_late(1, at(0, START_MS)), None);
    open(&mut oracle, at(0, START_MS));
    let granted = oracle.allocate(3, at(0, START_MS)).unwrap();
    assert_eq!((granted.physical_ms, granted.logical, granted.count), (START_MS, 2, 3));
}

#[test]
fn a_reply_names_the_last_of_its_batch() {
    let mut oracle = ready(0);
    let first = oracle.allocate(5, at(0, START_MS)).unwrap();
    let second = oracle.allocate(1, at(0, START_MS)).unwrap();
    assert_eq!((first.logical, second.logical), (4, 5));
    assert_eq!(first.last() + 1, second.first());
    assert_eq!(first.first(), START_MS << LOGICAL_BITS);
}

#[test]
fn a_full_logical_part_moves_the_physical_part() {
    let mut oracle = ready(0);
    let now = at(0, START_MS);
    let full = oracle.allocate(TIMESTAMP_COUNT_MAX, now).unwrap();
    assert_eq!((full.physical_ms, full.logical), (START_MS, (1 << 18) - 2));
    let one = oracle.allocate(1, now).unwrap();
    assert_eq!((one.physical_ms, one.logical), (START_MS, (1 << 18) - 1));
    let next = oracle.allocate(1, now).unwrap();
    assert_eq!((next.physical_ms, next.logical), (START_MS + 1, 0));
}

#[test]
fn a_standing_clock_uses_up_the_window_and_then_waits() {
    let mut oracle = ready(0);
    let now = at(0, START_MS);
    let mut count = 0;
    let mut last = 0;
    while let Some(granted) = oracle.allocate(TIMESTAMP_COUNT_MAX, now) {
        assert!(granted.first() > last);
        last = granted.last();
        count += 1;
    }
    assert_eq!(count, 3_000, "one full batch for each millisecond below the bound");
    open(&mut oracle, now);
    assert!(oracle.allocate(TIMESTAMP_COUNT_MAX, now).unwrap().first() > last);
}

#[test]
fn a_new_leader_starts_at_the_old_bound_even_when_its_clock_is_behind() {
    let bound_ms = START_MS + 60_000;
    let mut oracle = ready(bound_ms);
    let granted = oracle.allocate(1, at(0, START_MS)).unwrap();
    assert_eq!((granted.physical_ms, granted.logical), (bound_ms, 0));
    let later = oracle.allocate(1, at(500, START_MS + 500)).unwrap();
    assert_eq!(later.physical_ms, bound_ms + 500, "time advances, so locks expire");
}

#[test]
fn a_jump_back_is_not_followed() {
    let mut oracle = ready(0);
    oracle.allocate(1, at(0, START_MS)).unwrap();
    let granted = oracle.allocate(1, at(1_000, START_MS - 3_600_000)).unwrap();
    assert_eq!(granted.physical_ms, START_MS + 1_000);
}

#[test]
fn a_small_step_back_stands_still_and_is_followed_after() {
    let mut oracle = ready(0);
    oracle.allocate(1, at(0, START_MS)).unwrap();
    let still = oracle.allocate(1, at(100, START_MS - 900)).unwrap();
    assert_eq!((still.physical_ms, still.logical), (START_MS, 1));
    let on = oracle.allocate(1, at(1_010, START_MS + 10)).unwrap();
    assert_eq!(on.physical_ms, START_MS + 10);
}

#[test]
fn a_jump_forward_is_not_followed_until_the_clock_is_back() {
    let mut oracle = ready(0);
    oracle.allocate(1, at(0, START_MS)).unwrap();
    let wild = oracle.allocate(1, at(1_000, START_MS + 86_400_000)).unwrap();
    assert_eq!(wild.physical_ms, START_MS + 1_000);
    assert_eq!(oracle.allocate(1, at(1_001, u64::MAX)).unwrap().physical_ms, START_MS + 1_001);
    let back = oracle.allocate(1, at(2_000, START_MS + 2_100)).unwrap();
    assert_eq!(back.physical_ms, START_MS + 2_100);
}

#[test]
fn a_small_step_forward_is_followed() {
    let mut oracle = ready(0);
    let granted = oracle.allocate(1, at(100, START_MS + 2_100)).unwrap();
    assert_eq!(granted.physical_ms, START_MS + 2_100);
}

#[test]
fn the_window_runs_low_at_half() {
    let mut oracle = ready(0);
    assert!(!oracle.runs_low(at(1_499, START_MS + 1_499)));
    assert!(oracle.runs_low(at(1_501, START_MS + 1_501)));
}

#[test]
fn with_writes_slower_than_the_window_those_who_waited_are_served_below_the_bound() {
    let mut oracle = ready(0);
    let late = at(9_000, START_MS + 9_000);
    assert_eq!(oracle.allocate(1, late), None, "a new call gets the current time or waits");
    let bound_ms = oracle.next_bound(late);
    let later = at(20_000, START_MS + 20_000);
    oracle.raised(bound_ms);
    assert_eq!(oracle.allocate(1, later), None);
    assert_eq!(oracle.allocate_late(1, later).unwrap().physical_ms, bound_ms - 1);
}

#[test]
fn a_bound_asked_for_is_never_undercut() {
    let mut oracle = ready(0);
    let asked = oracle.next_bound(at(5_000, START_MS + 5_000));
    assert!(oracle.next_bound(at(5_000, START_MS - 2_000)) >= asked);
}

#[test]
fn no_timestamp_is_zero_even_with_a_clock_at_the_epoch() {
    let mut oracle = Oracle::new(&Config::new(1, 1), 0, at(0, 0));
    open(&mut oracle, at(0, 0));
    assert!(oracle.allocate(1, at(0, 0)).unwrap().first() > 0);
}
