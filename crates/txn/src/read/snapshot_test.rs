use super::*;
use crate::keys::TXN_LOCK;
use crate::testing::{MapStore, error_of, prewrite, put, ready};
use crate::{Failure, MutationOp, NoYield};

fn value(store: &MapStore, key: &str, options: &ReadOptions) -> Result<Option<String>, ActionFailure> {
    let found = get(store, key.as_bytes(), options)?;
    Ok(found.map(|version| String::from_utf8(version.value.to_vec()).unwrap()))
}

fn locked_at(start: u64) -> MapStore {
    let mut store = MapStore::default();
    store.committed("k", "old", 2, 3);
    store.prewrite(&prewrite(&[("p", put("new")), ("k", put("new"))], "p", start)).unwrap();
    store
}

#[test]
fn the_newest_version_at_or_below_the_timestamp() {
    let mut store = MapStore::default();
    store.committed("k", "1", 5, 6);
    store.committed("k", "2", 7, 9);
    store.prewrite(&prewrite(&[("k", MutationOp::Delete)], "k", 11)).unwrap();
    store.commit(&["k"], 11, 12).unwrap();
    for (ts, expected) in [(5, None), (6, Some("1")), (8, Some("1")), (9, Some("2")), (11, Some("2")), (12, None)] {
        assert_eq!(store.get_at("k", ts).unwrap().as_deref(), expected, "at {ts}");
    }
    let version = get(&store, b"k", &ReadOptions::at(TimeStamp(8))).unwrap().unwrap();
    assert_eq!(version.commit_ts, TimeStamp(6));
    assert_eq!(store.get_at("k", u64::MAX).unwrap(), None);
}

#[test]
fn a_lock_stops_reads_at_or_above_its_start() {
    let store = locked_at(5);
    assert_eq!(store.get_at("k", 4).unwrap().unwrap(), "old");
    for ts in [5, 6, 100] {
        assert!(matches!(error_of(store.get_at("k", ts)), KeyError::Locked(lock) if lock.start_ts == TimeStamp(5)));
    }
}

#[test]
fn harmless_locks_are_passed_over() {
    let mut store = MapStore::default();
    store.committed("k", "old", 2, 3);
    store.prewrite(&prewrite(&[("k", MutationOp::Lock)], "k", 5)).unwrap();
    assert_eq!(store.get_at("k", 9).unwrap().unwrap(), "old", "a lock changes nothing");
    let mut store = MapStore::default();
    store.committed("k", "old", 2, 3);
    let mut pushed = prewrite(&[("k", put("new"))], "k", 5);
    pushed.min_commit_ts = TimeStamp(10);
    store.prewrite(&pushed).unwrap();
    assert_eq!(store.get_at("k", 9).unwrap().unwrap(), "old", "it can only commit above");
    assert!(store.get_at("k", 10).is_err());
}

#[test]
fn known_outcomes_of_locks() {
    let store = locked_at(5);
    let mut options = ReadOptions::at(TimeStamp(9));
    options.resolved_locks.insert(TimeStamp(5));
    assert_eq!(value(&store, "k", &options).unwrap().unwrap(), "old");
    let mut options = ReadOptions::at(TimeStamp(9));
    options.committed_locks.insert(TimeStamp(5));
    assert_eq!(value(&store, "k", &options).unwrap().unwrap(), "new", "the locked value");
    let mut store = MapStore::default();
    store.committed("k", "old", 2, 3);
    store.prewrite(&prewrite(&[("k", MutationOp::Delete)], "k", 5)).unwrap();
    assert_eq!(value(&store, "k", &options).unwrap(), None, "the locked delete");
    let long = "x".repeat(1000);
    let mut store = MapStore::default();
    store.prewrite(&prewrite(&[("k", put(&long))], "k", 5)).unwrap();
    assert_eq!(value(&store, "k", &options).unwrap().unwrap(), long);
}

#[test]
fn read_committed_is_never_stopped() {
    let store = locked_at(5);
    let options = ReadOptions { isolation: Isolation::ReadCommitted, ..ReadOptions::at(TimeStamp(9)) };
    assert_eq!(value(&store, "k", &options).unwrap().unwrap(), "old");
}

#[test]
fn reading_the_newest_passes_over_a_primary_lock_only() {
    let mut store = locked_at(5);
    let newest = ReadOptions::at(TimeStamp::MAX);
    assert_eq!(value(&store, "p", &newest).unwrap(), None, "p is its own primary");
    assert!(value(&store, "k", &newest).is_err(), "the primary of k may be committed already");
    let mut lock = MvccReader::new(&store).lock(b"p").unwrap().unwrap();
    lock.use_async_commit = true;
    store.put_raw(TXN_LOCK, crate::lock_key(b"p"), &lock.encode());
    assert!(value(&store, "p", &newest).is_err(), "its lock alone does not decide");
}

#[test]
fn a_batch_holds_found_and_locked_keys_in_the_order_asked() {
    let mut store = locked_at(5);
    store.committed("z", "1", 2, 3);
    let keys: Vec<Bytes> = ["z", "absent", "k", "p"].iter().map(|key| Bytes::from(*key)).collect();
    let pairs = ready(batch_get(&store, &keys, &ReadOptions::at(TimeStamp(9)), &mut NoYield)).unwrap();
    let seen: Vec<(&[u8], bool)> = pairs.iter().map(|pair| (pair.key.as_ref(), pair.outcome.is_ok())).collect();
    assert_eq!(seen, [(&b"z"[..], true), (b"k", false), (b"p", false)]);
}

#[test]
fn a_missing_long_value_is_corruption() {
    let mut store = MapStore::default();
    store.committed("k", &"x".repeat(1000), 5, 6);
    let mut batch = kontiki_engine::WriteBatch::new();
    batch.delete(crate::TXN_DEFAULT, crate::default_key(b"k", TimeStamp(5)));
    store.apply(&batch);
    assert!(matches!(store.get_at("k", 9), Err(Failure::Corrupt { .. })));
}
