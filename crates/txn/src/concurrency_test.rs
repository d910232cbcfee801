use super::*;
use crate::testing::lock_in_memory;
use bytes::Bytes;

#[test]
fn the_newest_read_is_remembered_but_never_max() {
    let manager = ConcurrencyManager::new();
    manager.observe(TimeStamp(7));
    manager.observe(TimeStamp(5));
    manager.observe(TimeStamp::MAX);
    assert_eq!(manager.max_ts(), TimeStamp(7));
}

#[test]
fn a_round_is_above_what_was_computed_and_below_what_will_be() {
    let manager = ConcurrencyManager::new();
    assert_eq!(manager.begin_round(TimeStamp(20)), None);
    let lock = |start_ts| lock_in_memory(start_ts, manager.max_ts().0 + 1);
    let (commit_ts, guard) = manager.memory_locks().enter(&[Bytes::from("a")], || Some(lock(5))).expect("entered");
    assert_eq!(commit_ts, TimeStamp(21), "above the round");
    let (_, newer) = manager.memory_locks().enter(&[Bytes::from("b")], || Some(lock(9))).expect("entered");
    assert_eq!(manager.begin_round(TimeStamp(30)), Some(TimeStamp(5)), "it may commit at 21");
    drop(guard);
    assert_eq!(manager.begin_round(TimeStamp(40)), Some(TimeStamp(9)));
    drop(newer);
    assert_eq!(manager.begin_round(TimeStamp(50)), None);
    assert_eq!(manager.max_ts(), TimeStamp(50));
}
