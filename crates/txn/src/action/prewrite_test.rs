use super::*;
use crate::keys::{TXN_LOCK, TXN_WRITE};
use crate::testing::{MapStore, error_of, prewrite as command, put};
use crate::{ConflictReason, KeyError};
use kontiki_engine::View;

#[test]
fn short_values_live_in_the_lock_and_long_ones_beside_it() {
    let mut store = MapStore::default();
    let short = "s".repeat(SHORT_VALUE_BYTES_MAX);
    let long = "l".repeat(SHORT_VALUE_BYTES_MAX + 1);
    store.prewrite(&command(&[("a", put(&short)), ("b", put(&long))], "a", 5)).unwrap();
    let values = store.family(TXN_DEFAULT);
    assert_eq!(values, [(default_key(b"b", TimeStamp(5)).into(), long.clone().into())]);
    let locks = store.family(TXN_LOCK);
    assert_eq!(locks.len(), 2);
    assert_eq!(Lock::decode(&locks[0].1).unwrap().short_value.unwrap(), short.as_bytes());
    assert_eq!(Lock::decode(&locks[1].1).unwrap().short_value, None);
    store.commit(&["a", "b"], 5, 6).unwrap();
    assert_eq!(store.get_at("a", 6).unwrap().unwrap(), short);
    assert_eq!(store.get_at("b", 6).unwrap().unwrap(), long);
}

#[test]
fn repeating_it_changes_nothing() {
    let mut store = MapStore::default();
    let first = command(&[("a", put("1"))], "a", 5);
    store.prewrite(&first).unwrap();
    let (_, batch) = prewrite(&first, None, &store).unwrap();
    assert!(batch.is_empty());
    store.commit(&["a"], 5, 6).unwrap();
    let (_, batch) = prewrite(&first, None, &store).unwrap();
    assert!(batch.is_empty(), "a late repetition must not lock a committed key again");
}

#[test]
fn a_newer_commit_is_a_conflict() {
    let mut store = MapStore::default();
    store.committed("a", "1", 5, 8);
    let expected = |start: u64| KeyError::WriteConflict {
        start_ts: TimeStamp(start),
        conflict_start_ts: TimeStamp(5),
        conflict_commit_ts: TimeStamp(8),
        key: "a".into(),
        primary: "p".into(),
        reason: ConflictReason::Optimistic,
    };
    for start in [4, 6, 7] {
        assert_eq!(error_of(store.prewrite(&command(&[("a", put("2"))], "p", start))), expected(start));
    }
    store.prewrite(&command(&[("a", put("2"))], "p", 9)).unwrap();
}

#[test]
fn a_committed_lock_conflicts_but_a_later_rollback_does_not() {
    let mut store = MapStore::default();
    store.prewrite(&command(&[("a", MutationOp::Lock)], "a", 5)).unwrap();
    store.commit(&["a"], 5, 8).unwrap();
    let error = error_of(store.prewrite(&command(&[("a", put("2"))], "a", 7)));
    assert!(matches!(error, KeyError::WriteConflict { reason: ConflictReason::Optimistic, .. }));
    store.rollback(&["b"], 20).unwrap();
    store.prewrite(&command(&[("b", put("2"))], "b", 10)).unwrap();
}

#[test]
fn a_rolled_back_transaction_cannot_prewrite_any_more() {
    let mut store = MapStore::default();
    store.rollback(&["a"], 5).unwrap();
    store.rollback(&["a"], 9).unwrap();
    let error = error_of(store.prewrite(&command(&[("a", put("1"))], "a", 5)));
    assert!(matches!(error, KeyError::WriteConflict { reason: ConflictReason::SelfRolledBack, .. }), "{error:?}");
}

#[test]
fn all_locks_are_reported_and_nothing_is_written() {
    let mut store = MapStore::default();
    store.prewrite(&command(&[("a", put("1")), ("c", put("1"))], "a", 5)).unwrap();
    let failed = store.prewrite(&command(&[("a", put("2")), ("b", put("2")), ("c", put("2"))], "b", 7));
    let Err(Failure::Keys(errors)) = failed else { panic!("locked") };
    let keys: Vec<_> = errors
        .iter()
        .map(|error| match error {
            KeyError::Locked(lock) => (lock.key.clone(), lock.start_ts, lock.primary.clone(), lock.ttl_ms),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(keys, [("a".into(), TimeStamp(5), "a".into(), 3000), ("c".into(), TimeStamp(5), "a".into(), 3000)]);
    assert_eq!(store.family(TXN_LOCK).len(), 2, "b is not locked");
}

#[test]
fn another_error_stands_alone() {
    let mut store = MapStore::default();
    store.prewrite(&command(&[("a", put("1"))], "a", 5)).unwrap();
    store.committed("b", "1", 6, 8);
    let error = error_of(store.prewrite(&command(&[("a", put("2")), ("b", put("2"))], "a", 7)));
    assert!(matches!(error, KeyError::WriteConflict { .. }));
}

#[test]
fn inserts_and_checks_want_an_absent_key() {
    let mut store = MapStore::default();
    store.committed("a", "1", 5, 6);
    for op in [MutationOp::Insert("2".into()), MutationOp::CheckNotExists] {
        let error = error_of(store.prewrite(&command(&[("a", op)], "a", 7)));
        assert_eq!(error, KeyError::AlreadyExist { key: "a".into() });
    }
    store.prewrite(&command(&[("a", MutationOp::Delete)], "a", 7)).unwrap();
    store.commit(&["a"], 7, 8).unwrap();
    store.prewrite(&command(&[("b", MutationOp::CheckNotExists)], "b", 9)).unwrap();
    assert!(store.family(TXN_LOCK).is_empty(), "a check locks nothing");
    store.prewrite(&command(&[("a", MutationOp::Insert("2".into()))], "a", 9)).unwrap();
    store.commit(&["a"], 9, 10).unwrap();
    assert_eq!(store.get_at("a", 10).unwrap().unwrap(), "2");
}

#[test]
fn assertions_are_checked_unless_off() {
    let mut store = MapStore::default();
    store.committed("a", "1", 5, 6);
    for (key, assertion, holds) in [
        ("a", Assertion::Exist, true),
        ("a", Assertion::NotExist, false),
        ("b", Assertion::Exist, false),
        ("b", Assertion::NotExist, true),
    ] {
        for level in [AssertionLevel::Off, AssertionLevel::Fast, AssertionLevel::Strict] {
            let mut wanted = command(&[(key, put("2"))], key, 9);
            wanted.mutations[0].assertion = assertion;
            wanted.assertion_level = level;
            let result = prewrite(&wanted, None, &store);
            let fails =
                matches!(&result, Err(Failure::Keys(errors)) if matches!(errors[0], KeyError::AssertionFailed { .. }));
            assert_eq!(fails, !holds && level != AssertionLevel::Off, "{key} {assertion:?} {level:?}");
        }
    }
}

#[test]
fn async_and_one_phase_commit_are_declined() {
    let mut store = MapStore::default();
    let mut wanted = command(&[("a", put("1"))], "a", 5);
    wanted.use_async_commit = true;
    wanted.try_one_pc = true;
    wanted.min_commit_ts = TimeStamp(6);
    assert_eq!(store.prewrite(&wanted).unwrap(), Prewritten::default());
    let lock = Lock::decode(&store.get(TXN_LOCK, &lock_key(b"a")).unwrap().unwrap()).unwrap();
    assert!(!lock.use_async_commit && lock.secondaries.is_empty());
    assert!(store.family(TXN_WRITE).is_empty(), "nothing is committed yet");
}

#[test]
fn what_is_not_supported_is_said() {
    let mut store = MapStore::default();
    let mut early = command(&[("a", put("1"))], "a", 5);
    early.for_update_ts = TimeStamp(4);
    assert!(matches!(error_of(store.prewrite(&early)), KeyError::Abort(text) if text.contains("for-update")));
    let twice = command(&[("a", put("1")), ("a", put("2"))], "a", 5);
    assert!(matches!(error_of(store.prewrite(&twice)), KeyError::Abort(text) if text.contains("twice")));
}

#[test]
fn a_damaged_lock_is_corruption() {
    let mut store = MapStore::default();
    store.put_raw(TXN_LOCK, lock_key(b"a"), b"nonsense");
    let failed = store.prewrite(&command(&[("a", put("1"))], "a", 5));
    assert!(matches!(failed, Err(Failure::Corrupt { .. })));
}
