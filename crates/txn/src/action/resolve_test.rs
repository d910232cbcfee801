use super::*;
use crate::keys::{TXN_DEFAULT, TXN_LOCK, TXN_WRITE};
use crate::testing::{MapStore, error_of, prewrite, put};

fn txns(list: &[(u64, u64)]) -> BTreeMap<TimeStamp, TimeStamp> {
    list.iter().map(|(start, commit)| (TimeStamp(*start), TimeStamp(*commit))).collect()
}

fn keys(names: &[&'static str]) -> Vec<Bytes> {
    names.iter().map(|name| Bytes::from_static(name.as_bytes())).collect()
}

#[test]
fn several_transactions_at_once_each_get_their_outcome() {
    let mut store = MapStore::default();
    store.prewrite(&prewrite(&[("a", put("1"))], "a", 5)).unwrap();
    store.prewrite(&prewrite(&[("b", put("2"))], "b", 6)).unwrap();
    store.prewrite(&prewrite(&[("c", put("3"))], "c", 7)).unwrap();
    store
        .run(|view| resolve_keys(&txns(&[(5, 9), (6, 0)]), &keys(&["a", "b", "c", "d"]), TimeStamp::ZERO, view))
        .unwrap();
    assert_eq!(store.get_at("a", 9).unwrap().unwrap(), "1");
    assert_eq!(store.get_at("b", 9).unwrap(), None);
    assert!(store.get_at("c", 9).is_err(), "c is of a transaction not resolved");
    assert_eq!(store.family(TXN_LOCK).len(), 1);
}

#[test]
fn no_match_is_success_and_writes_nothing() {
    let (_, batch) = resolve_keys(&txns(&[(5, 0)]), &keys(&["a"]), TimeStamp::ZERO, &MapStore::default()).unwrap();
    assert!(batch.is_empty());
}

#[test]
fn a_commit_timestamp_below_the_start_is_refused() {
    let mut store = MapStore::default();
    store.prewrite(&prewrite(&[("a", put("1"))], "a", 5)).unwrap();
    for commit in [1, 5, u64::MAX] {
        let error =
            error_of(store.run(|view| resolve_keys(&txns(&[(5, commit)]), &keys(&["a"]), TimeStamp::ZERO, view)));
        assert!(matches!(error, KeyError::Abort(_)));
    }
    assert!(store.family(TXN_WRITE).is_empty());
}

/// The record of the commit at 5 must not be written anew: another replica may have dropped it, and what hides it.
#[test]
fn a_rollback_below_the_safe_point_leaves_no_record() {
    let mut store = MapStore::default();
    store.prewrite(&prewrite(&[("a", put("1"))], "a", 4)).unwrap();
    store.run(|view| resolve_keys(&txns(&[(4, 5)]), &keys(&["a"]), TimeStamp::ZERO, view)).unwrap();
    let long = "2".repeat(300);
    store.prewrite(&prewrite(&[("b", put(&long))], "b", 5)).unwrap();
    let records = store.family(TXN_WRITE).len();
    store.run(|view| resolve_keys(&txns(&[(5, 0)]), &keys(&["b"]), TimeStamp(6), view)).unwrap();
    assert_eq!((store.family(TXN_LOCK).len(), store.family(TXN_DEFAULT).len()), (0, 0), "the lock and its value");
    assert_eq!(store.family(TXN_WRITE).len(), records);
    store.prewrite(&prewrite(&[("b", put(&long))], "b", 6)).unwrap();
    store.run(|view| resolve_keys(&txns(&[(6, 0)]), &keys(&["b"]), TimeStamp(6), view)).unwrap();
    assert_eq!(store.family(TXN_WRITE).len(), records + 1, "at the safe point a prewrite may still come");
}
