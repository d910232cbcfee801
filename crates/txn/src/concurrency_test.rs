use super::*;
use crate::{Lock, LockKind};
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
    let lock = |start_ts: u64| Lock {
        kind: LockKind::Put,
        start_ts: TimeStamp(start_ts),
        primary: "p".into(),
        ttl_ms: 3000,
        short_value: None,
        for_update_ts: TimeStamp::ZERO,
        min_commit_ts: TimeStamp(manager.max_ts().0 + 1),
        txn_size: 1,
        use_async_commit: true,
        secondaries: Vec::new(),
    };
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
