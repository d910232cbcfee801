use super::*;
use crate::keys::{TXN_DEFAULT, TXN_LOCK, TXN_WRITE};
use crate::testing::{MapStore, error_of, prewrite, put};

#[test]
fn a_rollback_leaves_a_record_and_nothing_else() {
    let mut store = MapStore::default();
    store.prewrite(&prewrite(&[("a", put(&"x".repeat(1000)))], "a", 5)).unwrap();
    store.rollback(&["a"], 5).unwrap();
    assert!(store.family(TXN_LOCK).is_empty() && store.family(TXN_DEFAULT).is_empty());
    assert_eq!(store.family(TXN_WRITE).len(), 1);
    store.rollback(&["a"], 5).unwrap();
    assert_eq!(store.family(TXN_WRITE).len(), 1);
}

#[test]
fn a_committed_transaction_is_not_rolled_back() {
    let mut store = MapStore::default();
    store.prewrite(&prewrite(&[("a", put("1")), ("b", put("1"))], "a", 5)).unwrap();
    store.commit(&["a"], 5, 6).unwrap();
    let error = error_of(store.rollback(&["b", "a"], 5));
    assert_eq!(error, KeyError::AlreadyCommitted { start_ts: TimeStamp(5), commit_ts: TimeStamp(6), key: "a".into() });
    assert_eq!(store.family(TXN_LOCK).len(), 1, "b keeps its lock: a failed command writes nothing");
}

#[test]
fn a_rollback_that_comes_before_the_prewrite_stops_it() {
    let mut store = MapStore::default();
    store.rollback(&["a"], 5).unwrap();
    assert!(store.prewrite(&prewrite(&[("a", put("1"))], "a", 5)).is_err());
}
