use super::*;
use crate::testing::{MapStore, prewrite, put};

fn ask(store: &mut MapStore, keys: &[&'static str], start: u64) -> SecondaryStatus {
    let keys = keys.iter().map(|key| Bytes::from_static(key.as_bytes())).collect();
    let command = CheckSecondaryLocks { keys, start_ts: TimeStamp(start) };
    store.run(|view| check_secondary_locks(&command, view)).unwrap()
}

#[test]
fn all_locks_one_commit_or_a_rollback() {
    let mut store = MapStore::default();
    store.prewrite(&prewrite(&[("a", put("1")), ("b", put("1"))], "a", 5)).unwrap();
    assert!(matches!(ask(&mut store, &["a", "b"], 5), SecondaryStatus::Locked(locks) if locks.len() == 2));
    store.commit(&["b"], 5, 6).unwrap();
    assert_eq!(ask(&mut store, &["a", "b"], 5), SecondaryStatus::Committed(TimeStamp(6)));
    assert_eq!(ask(&mut store, &["c"], 5), SecondaryStatus::RolledBack);
    assert!(store.prewrite(&prewrite(&[("c", put("1"))], "a", 5)).is_err(), "decided: the prewrite is refused");
    assert_eq!(ask(&mut store, &["c"], 5), SecondaryStatus::RolledBack);
}
