//! One test for each transaction defect that an earlier implementation had (docs/internals/testing.md). The number in a
//! comment is that of its row.

use crate::keys::{TXN_DEFAULT, TXN_LOCK, TXN_WRITE, default_key, write_key};
use crate::testing::{MapStore, error_of, prewrite, put, ready};
use crate::{
    CheckTxnStatus, KeyError, MutationOp, NoYield, ReadOptions, Scan, StatusAction, TimeStamp, Write, action, read,
    user_range,
};
use kontiki_engine::Range;

/// 20: reads began at the start of the database and stopped at a larger key of another family.
#[test]
fn committed_writes_stay_visible_whatever_lies_around_them() {
    let mut store = MapStore::default();
    store.put_raw(TXN_DEFAULT, default_key(b"zzz", TimeStamp(1)), b"orphan of a larger key");
    store.put_raw(TXN_DEFAULT, default_key(b"a", TimeStamp(1)), b"orphan of a smaller key");
    store.committed("k", "1", 5, 6);
    store.committed("k2", "other", 5, 9);
    assert_eq!(store.get_at("k", 6).unwrap().unwrap(), "1");
    let error = error_of(store.prewrite(&prewrite(&[("k", put("2"))], "k", 4)));
    assert!(matches!(error, KeyError::WriteConflict { .. }), "the conflict is seen");
    store.prewrite(&prewrite(&[("k", put("2"))], "k", 7)).expect("k2's commit at 9 is no conflict for k");
}

/// 21: a rollback or lock record hid the committed value below it.
#[test]
fn rollbacks_and_locks_never_hide_an_older_value() {
    let mut store = MapStore::default();
    store.committed("k", "1", 5, 6);
    store.rollback(&["k"], 8).unwrap();
    store.prewrite(&prewrite(&[("k", MutationOp::Lock)], "k", 9)).unwrap();
    store.commit(&["k"], 9, 10).unwrap();
    assert_eq!(store.get_at("k", 20).unwrap().unwrap(), "1");
    for reverse in [false, true] {
        let scan = Scan { range: Range::all(), limit: 10, key_only: false, reverse };
        let pairs = ready(read::scan(&store, &scan, &ReadOptions::at(TimeStamp(20)), &mut NoYield)).unwrap();
        assert_eq!(pairs.len(), 1);
        assert_eq!(pairs[0].outcome.as_ref().unwrap().value, "1");
    }
}

/// 21: committing a rolled-back transaction succeeded.
#[test]
fn a_rolled_back_transaction_cannot_commit() {
    let mut store = MapStore::default();
    store.prewrite(&prewrite(&[("k", put("1"))], "k", 5)).unwrap();
    store.rollback(&["k"], 5).unwrap();
    assert!(matches!(error_of(store.commit(&["k"], 5, 6)), KeyError::TxnLockNotFound { .. }));
}

/// 21: a rollback deleted another transaction's lock.
#[test]
fn a_rollback_leaves_the_locks_of_others() {
    let mut store = MapStore::default();
    store.prewrite(&prewrite(&[("k", put("1"))], "k", 7)).unwrap();
    store.rollback(&["k"], 5).unwrap();
    assert_eq!(store.family(TXN_LOCK).len(), 1);
    store.commit(&["k"], 7, 8).unwrap();
    assert_eq!(store.get_at("k", 8).unwrap().unwrap(), "1");
    assert!(store.prewrite(&prewrite(&[("k", put("1"))], "k", 5)).is_err(), "and 5 stays rolled back");
}

/// 21: a commit timestamp at or below the start timestamp was accepted.
#[test]
fn a_commit_timestamp_lies_above_the_start() {
    let mut store = MapStore::default();
    store.prewrite(&prewrite(&[("k", put("1"))], "k", 5)).unwrap();
    for commit_ts in [0, 4, 5, u64::MAX] {
        assert!(matches!(error_of(store.commit(&["k"], 5, commit_ts)), KeyError::Abort(_)), "{commit_ts}");
    }
    store.commit(&["k"], 5, 6).unwrap();
}

/// 21: the minimum commit timestamp was not enforced.
#[test]
fn the_least_commit_timestamp_is_enforced() {
    let mut store = MapStore::default();
    let mut command = prewrite(&[("k", put("1"))], "k", 5);
    command.min_commit_ts = TimeStamp(9);
    store.prewrite(&command).unwrap();
    assert!(matches!(error_of(store.commit(&["k"], 5, 8)), KeyError::CommitTsExpired { .. }));
    store.commit(&["k"], 5, 9).unwrap();
}

/// 22: the time to live ran in timestamp units, and 0 never ended.
#[test]
fn the_time_to_live_is_compared_in_physical_time() {
    let start = TimeStamp::compose(1_000, 0);
    let ask = |current_ts| CheckTxnStatus {
        primary: "k".into(),
        start_ts: start,
        caller_start_ts: TimeStamp::ZERO,
        current_ts,
        rollback_if_not_exist: true,
        force_sync_commit: false,
        resolving_pessimistic_lock: false,
        verify_is_primary: false,
    };
    let mut store = MapStore::default();
    store.prewrite(&prewrite(&[("k", put("1"))], "k", start.0)).unwrap();
    let soon = TimeStamp(start.0 + 3001);
    let status = store.run(|view| action::check_txn_status(&ask(soon), view)).unwrap();
    assert!(status.lock.is_some(), "3001 logical ticks are no time at all");
    let mut impatient = prewrite(&[("k0", put("1"))], "k0", start.0);
    impatient.ttl_ms = 0;
    store.prewrite(&impatient).unwrap();
    let asked = CheckTxnStatus { primary: "k0".into(), ..ask(TimeStamp::compose(1_001, 0)) };
    let status = store.run(|view| action::check_txn_status(&asked, view)).unwrap();
    assert_eq!(status.action, StatusAction::TtlExpireRollback);
}

/// 23: a commit timestamp taken before the prewrite breaks snapshots. The order is the client's; the server refuses
/// what it can see: a commit below a read that pushed the lock.
#[test]
fn a_commit_never_slips_below_a_served_read() {
    let mut store = MapStore::default();
    let mut command = prewrite(&[("k", put("1"))], "k", 5);
    command.min_commit_ts = TimeStamp(6);
    store.prewrite(&command).unwrap();
    let pushed = CheckTxnStatus {
        primary: "k".into(),
        start_ts: TimeStamp(5),
        caller_start_ts: TimeStamp(20),
        current_ts: TimeStamp(20),
        rollback_if_not_exist: true,
        force_sync_commit: false,
        resolving_pessimistic_lock: false,
        verify_is_primary: false,
    };
    let status = store.run(|view| action::check_txn_status(&pushed, view)).unwrap();
    assert_eq!(status.action, StatusAction::MinCommitTsPushed);
    assert_eq!(store.get_at("k", 20).unwrap(), None, "served");
    assert!(matches!(error_of(store.commit(&["k"], 5, 10)), KeyError::CommitTsExpired { .. }));
    assert_eq!(store.get_at("k", 20).unwrap(), None, "and still true");
}

/// 24: a scan skipped locks, and keys that extend the last one.
#[test]
fn a_scan_reports_locks_and_keys_that_extend_others() {
    let mut store = MapStore::default();
    for key in ["k", "k\0", "k\u{1}", "ka"] {
        store.committed(key, "1", 5, 6);
    }
    store.prewrite(&prewrite(&[("k\u{1}", put("2"))], "k\u{1}", 7)).unwrap();
    let scan = Scan { range: user_range(&Range::all(), b"k", b""), limit: 10, key_only: false, reverse: false };
    let pairs = ready(read::scan(&store, &scan, &ReadOptions::at(TimeStamp(9)), &mut NoYield)).unwrap();
    let seen: Vec<(&[u8], bool)> = pairs.iter().map(|pair| (pair.key.as_ref(), pair.outcome.is_ok())).collect();
    assert_eq!(seen, [(&b"k"[..], true), (b"k\0", true), (b"k\x01", false), (b"ka", true)]);
}

/// 24: a failed prewrite left locks behind.
#[test]
fn a_failed_prewrite_writes_nothing() {
    let mut store = MapStore::default();
    store.committed("b", "1", 6, 8);
    let before = (store.family(TXN_LOCK), store.family(TXN_WRITE), store.family(TXN_DEFAULT));
    let long = "x".repeat(1000);
    store.prewrite(&prewrite(&[("a", put(&long)), ("b", put("2"))], "a", 7)).unwrap_err();
    assert_eq!(before, (store.family(TXN_LOCK), store.family(TXN_WRITE), store.family(TXN_DEFAULT)));
}

/// A lock goes away only together with its record: the pairing that all of the above rests on.
#[test]
fn a_lock_and_its_record_change_places_in_one_batch() {
    let mut store = MapStore::default();
    store.prewrite(&prewrite(&[("k", put("1"))], "k", 5)).unwrap();
    store.commit(&["k"], 5, 6).unwrap();
    let records = store.family(TXN_WRITE);
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].0, write_key(b"k", TimeStamp(6)));
    assert_eq!(Write::decode(&records[0].1).unwrap().start_ts, TimeStamp(5));
    assert!(store.family(TXN_LOCK).is_empty());
}
