use super::*;

const TIMEOUT: Duration = Duration::from_secs(1);
const TICKS: u64 = 10;

fn at(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// With a tick in each 100 ms.
fn silent(liveness: &mut Liveness, millis: u64) -> Vec<StoreId> {
    liveness.fallen_silent(at(millis), TIMEOUT, millis / 100, TICKS)
}

#[test]
fn a_store_is_alive_until_the_timeout_and_falls_silent_once() {
    let mut liveness = Liveness::default();
    assert!(!liveness.is_alive(StoreId(1), at(0), TIMEOUT), "never heard");
    assert!(!liveness.heard(StoreId(1), 7, at(0), 0));
    assert!(liveness.is_alive(StoreId(1), at(999), TIMEOUT));
    assert!(silent(&mut liveness, 999).is_empty());
    assert!(!liveness.is_alive(StoreId(1), at(1000), TIMEOUT));
    assert_eq!(silent(&mut liveness, 1000), [StoreId(1)]);
    assert!(silent(&mut liveness, 2000).is_empty(), "reported already");
    assert!(!liveness.heard(StoreId(1), 7, at(2000), 20), "the same process");
    assert_eq!(silent(&mut liveness, 3000), [StoreId(1)]);
}

#[test]
fn a_stall_of_this_process_is_not_the_silence_of_others() {
    let mut liveness = Liveness::default();
    liveness.heard(StoreId(1), 7, at(0), 0);
    // One tick for five seconds; then the messages of this time are handled.
    assert!(liveness.fallen_silent(at(5000), TIMEOUT, 1, TICKS).is_empty());
    liveness.heard(StoreId(1), 7, at(5000), 1);
    assert!(liveness.fallen_silent(at(5500), TIMEOUT, 6, TICKS).is_empty());
    assert_eq!(liveness.fallen_silent(at(6100), TIMEOUT, 12, TICKS), [StoreId(1)]);
}

#[test]
fn another_process_of_a_store_is_noticed() {
    let mut liveness = Liveness::default();
    assert!(!liveness.heard(StoreId(1), 7, Duration::ZERO, 0), "the first one");
    assert!(!liveness.heard(StoreId(2), 8, Duration::ZERO, 0));
    assert!(liveness.heard(StoreId(1), 9, Duration::ZERO, 0));
    assert!(!liveness.heard(StoreId(1), 9, Duration::ZERO, 0));
}
