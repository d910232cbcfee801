use super::*;

#[test]
fn the_monotonic_clock_goes_forward_and_counts_suspended_time() {
    let clock = RealClock::new();
    let first = clock.monotonic();
    assert!(first > Duration::ZERO && clock.monotonic() >= first);
    // CLOCK_MONOTONIC leaves out what CLOCK_BOOTTIME counts.
    let without_suspension = clock_gettime(ClockId::Monotonic);
    assert!(clock.monotonic() >= Duration::new(without_suspension.tv_sec as u64, 0));
}
