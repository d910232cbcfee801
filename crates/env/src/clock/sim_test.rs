use super::{SimClock, VirtualTime};
use crate::clock::Clock;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_clock_drifts_and_never_jumps_when_its_rate_changes() {
    let time = VirtualTime::default();
    let (exact, askew) = (SimClock::new(time.clone()), SimClock::new(time.clone()));
    askew.set_drift_ppm(300_000);
    time.advance_to(10 * SECOND);
    assert_eq!(exact.monotonic(), 10 * SECOND);
    assert_eq!(askew.monotonic(), 13 * SECOND);
    askew.set_drift_ppm(-500_000);
    assert_eq!(askew.monotonic(), 13 * SECOND);
    time.advance_to(20 * SECOND);
    assert_eq!(askew.monotonic(), 18 * SECOND);
    assert_eq!(askew.true_duration(SECOND), 2 * SECOND);
}

#[test]
fn only_the_wall_clock_jumps() {
    let time = VirtualTime::default();
    let clock = SimClock::new(time.clone());
    time.advance_to(SECOND);
    let before = clock.wall_ms();
    clock.set_wall_offset_ms(-5000);
    assert_eq!(clock.wall_ms(), before - 5000);
    assert_eq!(clock.monotonic(), SECOND);
    clock.set_wall_offset_ms(i64::MIN);
    assert_eq!(clock.wall_ms(), 0);
}

#[test]
#[should_panic(expected = "time never decreases")]
fn true_time_refuses_to_go_back() {
    let time = VirtualTime::default();
    time.advance_to(SECOND);
    time.advance_to(Duration::ZERO);
}

#[test]
fn monotonic_clocks_of_two_machines_have_nothing_in_common() {
    let time = VirtualTime::default();
    let (plain, shifted) = (SimClock::new(time.clone()), SimClock::with_origin(time.clone(), 500 * SECOND));
    time.advance_to(2 * SECOND);
    assert_eq!(shifted.monotonic(), 502 * SECOND);
    assert_eq!(shifted.wall_ms(), plain.wall_ms(), "the origin is the monotonic clock's alone");
}
