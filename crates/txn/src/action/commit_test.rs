use super::*;
use crate::keys::{TXN_LOCK, TXN_WRITE};
use crate::testing::{MapStore, error_of, prewrite, put};
use crate::{MutationOp, Write, WriteKind};

#[test]
fn committing_is_idempotent() {
    let mut store = MapStore::default();
    store.committed("a", "1", 5, 6);
    assert!(store.family(TXN_LOCK).is_empty());
    let before = store.family(TXN_WRITE);
    assert_eq!(store.commit(&["a"], 5, 6).unwrap(), TimeStamp(6));
    assert_eq!(store.family(TXN_WRITE), before);
}

#[test]
fn without_a_lock_there_is_nothing_to_commit() {
    let mut store = MapStore::default();
    store.prewrite(&prewrite(&[("a", put("1"))], "a", 5)).unwrap();
    let error = error_of(store.commit(&["a", "b"], 5, 6));
    assert_eq!(error, KeyError::TxnLockNotFound { start_ts: TimeStamp(5), commit_ts: TimeStamp(6), key: "b".into() });
    assert!(error.to_string().contains("TxnLockNotFound"), "clients look for this word");
    assert_eq!(store.family(TXN_LOCK).len(), 1, "nothing was committed");
    let error = error_of(store.commit(&["a"], 4, 6));
    assert!(matches!(error, KeyError::TxnLockNotFound { .. }), "another transaction's lock");
}

#[test]
fn all_kinds_of_locks_become_records() {
    let mut store = MapStore::default();
    let mutations = [("a", put("1")), ("b", MutationOp::Delete), ("c", MutationOp::Lock)];
    store.prewrite(&prewrite(&mutations, "a", 5)).unwrap();
    store.commit(&["a", "b", "c"], 5, 6).unwrap();
    let kinds: Vec<WriteKind> =
        store.family(TXN_WRITE).iter().map(|(_, bytes)| Write::decode(bytes).unwrap().kind).collect();
    assert_eq!(kinds, [WriteKind::Put, WriteKind::Delete, WriteKind::Lock]);
}

#[test]
fn a_commit_that_meets_a_rollback_at_its_timestamp_keeps_both() {
    let mut store = MapStore::default();
    store.prewrite(&prewrite(&[("a", put("1"))], "a", 5)).unwrap();
    store.rollback(&["a"], 8).unwrap();
    store.commit(&["a"], 5, 8).unwrap();
    assert_eq!(store.get_at("a", 8).unwrap().unwrap(), "1");
    assert!(matches!(error_of(store.commit(&["a"], 8, 9)), KeyError::TxnLockNotFound { .. }));
    let error = error_of(store.prewrite(&prewrite(&[("a", put("2"))], "a", 8)));
    assert!(matches!(error, KeyError::WriteConflict { reason: crate::ConflictReason::SelfRolledBack, .. }));
}

#[test]
fn a_rollback_that_meets_a_commit_at_its_timestamp_keeps_both() {
    let mut store = MapStore::default();
    store.committed("a", "1", 5, 8);
    store.rollback(&["a"], 8).unwrap();
    assert_eq!(store.get_at("a", 8).unwrap().unwrap(), "1");
    let error = error_of(store.prewrite(&prewrite(&[("a", put("2"))], "a", 8)));
    assert!(matches!(error, KeyError::WriteConflict { reason: crate::ConflictReason::SelfRolledBack, .. }));
    store.rollback(&["a"], 8).unwrap();
    assert_eq!(store.commit(&["a"], 5, 8).unwrap(), TimeStamp(8), "the first one is still committed");
}

#[test]
fn one_timestamp_never_commits_two_transactions() {
    let mut store = MapStore::default();
    store.committed("a", "1", 5, 8);
    store.prewrite(&prewrite(&[("a", put("2"))], "a", 9)).unwrap();
    // Only a client that invents timestamps gets here: 8 is below its own start.
    assert!(matches!(error_of(store.commit(&["a"], 9, 8)), KeyError::Abort(_)));
    assert_eq!(store.get_at("a", 8).unwrap().unwrap(), "1");
}
