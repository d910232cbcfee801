use super::*;
use crate::ConcurrencyManager;
use crate::testing::lock_in_memory as lock;

#[test]
fn a_lock_in_memory_blocks_reads_that_could_see_its_commit() {
    let locks = MemoryLocks::default();
    let (ts, guard) = locks.enter(&["k".into()], || Some(lock(5, 9))).unwrap();
    assert_eq!(ts, TimeStamp(9));
    let at = |ts| locks.check_keys([&b"k"[..]], &ReadOptions::at(TimeStamp(ts)));
    assert!(matches!(&at(9).unwrap_err()[..], [KeyError::Locked(lock)] if lock.key == "k"));
    assert!(at(8).is_ok(), "it commits later");
    assert!(at(u64::MAX).is_err(), "a read of the newest version");
    assert!(locks.check_keys([&b"other"[..]], &ReadOptions::at(TimeStamp(9))).is_ok());
    let range = |start: &[u8], end: &[u8]| Range::region(&lock_key(start), &lock_key(end));
    assert!(!locks.permit_read(&range(b"a", b"z"), TimeStamp(9)));
    assert!(locks.permit_read(&range(b"l", b"z"), TimeStamp(9)), "outside");
    assert!(locks.permit_read(&range(b"z", b"a"), TimeStamp(9)), "an empty range");
    assert_eq!(locks.min_start_ts(), Some(TimeStamp(5)));
    let known = ReadOptions { resolved_locks: [TimeStamp(5)].into(), ..ReadOptions::at(TimeStamp(9)) };
    assert!(locks.check_keys([&b"k"[..]], &known).is_ok());
    drop(guard);
    assert!(at(9).is_ok() && locks.is_empty() && locks.min_start_ts().is_none());
}

#[test]
fn one_that_is_not_made_leaves_nothing() {
    let locks = MemoryLocks::default();
    assert!(locks.enter(&["k".into()], || None).is_none());
    assert!(locks.is_empty());
}

#[test]
fn a_read_is_below_the_commit_or_finds_the_lock() {
    let manager = ConcurrencyManager::new();
    manager.observe(TimeStamp(20));
    let (ts, _guard) = manager.memory_locks().enter(&["k".into()], || Some(lock(5, manager.max_ts().0 + 1))).unwrap();
    assert_eq!(ts, TimeStamp(21));
    manager.observe(TimeStamp(30));
    assert!(manager.memory_locks().check_keys([&b"k"[..]], &ReadOptions::at(TimeStamp(30))).is_err());
    assert!(manager.memory_locks().check_keys([&b"k"[..]], &ReadOptions::at(TimeStamp(20))).is_ok());
}
