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

/// With a tick in each 100 ms.
fn all_silent(liveness: &Liveness, millis: u64) -> Vec<u64> {
    liveness.silent(at(millis), TIMEOUT, millis / 100, TICKS).into_iter().map(|store| store.0).collect()
}

#[test]
fn a_store_is_silent_while_nothing_arrives_from_it() {
    let mut liveness = Liveness::default();
    assert!(all_silent(&liveness, 5000).is_empty(), "nothing was ever heard");
    liveness.heard(StoreId(1), 7, at(5000), 50);
    liveness.heard(StoreId(2), 8, at(5000), 50);
    assert!(all_silent(&liveness, 5900).is_empty());
    liveness.message_of(StoreId(2), at(5500), 55);
    assert_eq!(all_silent(&liveness, 6000), [1]);
    assert_eq!(all_silent(&liveness, 6500), [1, 2]);
    liveness.message_of(StoreId(1), at(6500), 65);
    assert_eq!(all_silent(&liveness, 6500), [2], "any message counts");
    let after_a_stall = liveness.silent(at(60_000), TIMEOUT, 66, TICKS);
    assert!(!after_a_stall.contains(&StoreId(1)), "what has arrived meanwhile may not have been handled");
}

/// It ended right after its start.
#[test]
fn a_store_that_said_something_and_gave_no_sign_of_life_is_silent_later() {
    let mut liveness = Liveness::default();
    liveness.message_of(StoreId(1), at(0), 0);
    assert!(!liveness.is_alive(StoreId(1), at(0), TIMEOUT), "only a sign of life says that");
    assert!(all_silent(&liveness, 900).is_empty());
    assert_eq!(all_silent(&liveness, 1000), [1]);
    assert!(silent(&mut liveness, 1000).is_empty(), "no sign of life is missed");
    assert!(!liveness.heard(StoreId(1), 7, at(1100), 11), "it is the first process that is heard");
    assert!(liveness.is_alive(StoreId(1), at(1200), TIMEOUT) && all_silent(&liveness, 1200).is_empty());
}

#[test]
fn a_store_is_silent_from_the_end_of_its_connection_until_something_arrives() {
    let mut liveness = Liveness::default();
    liveness.unreachable(StoreId(1));
    liveness.heard(StoreId(1), 7, at(0), 0);
    assert!(all_silent(&liveness, 1).is_empty());
    liveness.unreachable(StoreId(1));
    assert_eq!(all_silent(&liveness, 1), [1]);
    liveness.heard(StoreId(1), 7, at(2), 0);
    assert!(all_silent(&liveness, 2).is_empty());
    liveness.unreachable(StoreId(1));
    liveness.message_of(StoreId(1), at(3), 0);
    assert!(all_silent(&liveness, 3).is_empty());
}
