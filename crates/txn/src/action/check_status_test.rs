use super::*;
use crate::keys::TXN_WRITE;
use crate::testing::{MapStore, error_of, prewrite, put};

fn ts(physical_ms: u64) -> TimeStamp {
    TimeStamp::compose(physical_ms, 0)
}

fn ask(caller: TimeStamp, now: TimeStamp) -> CheckTxnStatus {
    CheckTxnStatus {
        primary: "p".into(),
        start_ts: ts(10),
        caller_start_ts: caller,
        current_ts: now,
        rollback_if_not_exist: false,
        force_sync_commit: false,
        resolving_pessimistic_lock: false,
        verify_is_primary: false,
    }
}

/// A store with a lock of transaction `ts(10)` on p, with a time to live of 3 s.
fn locked(min_commit_ts: TimeStamp) -> MapStore {
    let mut store = MapStore::default();
    let mut command = prewrite(&[("p", put("1"))], "p", ts(10).0);
    command.min_commit_ts = min_commit_ts;
    store.prewrite(&command).unwrap();
    store
}

fn write_lock(store: &mut MapStore, change: impl FnOnce(&mut Lock)) {
    let mut lock = MvccReader::new(store).lock(b"p").unwrap().unwrap();
    change(&mut lock);
    store.put_raw(TXN_LOCK, lock_key(b"p"), &lock.encode());
}

#[test]
fn a_live_lock_is_reported_whole() {
    let mut store = locked(TimeStamp::ZERO);
    let status = store.run(|view| check_txn_status(&ask(ts(20), ts(3010)), view)).unwrap();
    assert_eq!((status.commit_ts, status.lock_ttl_ms(), status.action), (TimeStamp::ZERO, 3000, StatusAction::None));
    let lock = status.lock.unwrap();
    assert_eq!((lock.primary.as_ref(), lock.key.as_ref(), lock.start_ts), (&b"p"[..], &b"p"[..], ts(10)));
}

#[test]
fn a_time_to_live_of_zero_still_looks_alive() {
    let mut store = locked(TimeStamp::ZERO);
    write_lock(&mut store, |lock| lock.ttl_ms = 0);
    let status = store.run(|view| check_txn_status(&ask(ts(10), ts(10)), view)).unwrap();
    assert!(status.lock_ttl_ms() > 0 && status.lock.is_some(), "clients take 0 for decided");
}

#[test]
fn an_expired_lock_is_rolled_back_for_good() {
    let mut store = locked(TimeStamp::ZERO);
    let status = store.run(|view| check_txn_status(&ask(ts(20), ts(3011)), view)).unwrap();
    assert_eq!(status, TxnStatus::decided(TimeStamp::ZERO, StatusAction::TtlExpireRollback));
    assert!(store.family(TXN_LOCK).is_empty());
    assert!(matches!(error_of(store.commit(&["p"], ts(10).0, ts(4000).0)), KeyError::TxnLockNotFound { .. }));
    let again = store.run(|view| check_txn_status(&ask(ts(20), ts(3011)), view)).unwrap();
    assert_eq!(again, TxnStatus::decided(TimeStamp::ZERO, StatusAction::None));
}

#[test]
fn the_end_of_time_expires_every_lock() {
    let mut store = locked(TimeStamp::ZERO);
    let status = store.run(|view| check_txn_status(&ask(ts(20), TimeStamp::MAX), view)).unwrap();
    assert_eq!(status.action, StatusAction::TtlExpireRollback);
}

#[test]
fn a_reader_pushes_the_minimum_and_the_commit_must_obey() {
    let mut store = locked(ts(10).next());
    let status = store.run(|view| check_txn_status(&ask(ts(20), ts(15)), view)).unwrap();
    assert_eq!(status.action, StatusAction::MinCommitTsPushed);
    assert_eq!(status.lock.unwrap().min_commit_ts, ts(20).next());
    assert!(matches!(
        error_of(store.commit(&["p"], ts(10).0, ts(20).0)),
        KeyError::CommitTsExpired { min_commit_ts, .. } if min_commit_ts == ts(20).next()
    ));
    assert_eq!(store.get_at("p", ts(20).0).unwrap(), None, "the pushed lock no longer blocks the reader");
    let later = store.run(|view| check_txn_status(&ask(ts(30), ts(40)), view)).unwrap();
    assert_eq!(later.lock.unwrap().min_commit_ts, ts(40), "up to now, so that the next reader need not push");
    let earlier = store.run(|view| check_txn_status(&ask(ts(25), ts(41)), view)).unwrap();
    assert_eq!(earlier.lock.unwrap().min_commit_ts, ts(40), "never back");
    assert_eq!(earlier.action, StatusAction::MinCommitTsPushed);
    store.commit(&["p"], ts(10).0, ts(40).0).unwrap();
}

#[test]
fn who_is_not_pushed() {
    let mut store = locked(ts(10).next());
    let status = store.run(|view| check_txn_status(&ask(TimeStamp::ZERO, ts(15)), view)).unwrap();
    assert_eq!((status.action, status.lock.unwrap().min_commit_ts), (StatusAction::None, ts(10).next()));
    let status = store.run(|view| check_txn_status(&ask(TimeStamp::MAX, ts(15)), view)).unwrap();
    assert_eq!((status.action, status.lock.unwrap().min_commit_ts), (StatusAction::MinCommitTsPushed, ts(10).next()));
    let mut unwilling = locked(TimeStamp::ZERO);
    let status = unwilling.run(|view| check_txn_status(&ask(ts(20), ts(15)), view)).unwrap();
    assert_eq!((status.action, status.lock.unwrap().min_commit_ts), (StatusAction::None, TimeStamp::ZERO));
}

#[test]
fn an_async_commit_lock_is_left_alone_unless_forced() {
    let mut store = locked(ts(10).next());
    write_lock(&mut store, |lock| {
        lock.use_async_commit = true;
        lock.secondaries = vec!["s".into()];
    });
    let late = ask(ts(20), TimeStamp::MAX);
    let status = store.run(|view| check_txn_status(&late, view)).unwrap();
    assert_eq!((status.action, status.lock.unwrap().secondaries), (StatusAction::None, vec![Bytes::from("s")]));
    let forced = CheckTxnStatus { force_sync_commit: true, ..late };
    assert_eq!(store.run(|view| check_txn_status(&forced, view)).unwrap().action, StatusAction::TtlExpireRollback);
}

#[test]
fn a_pessimistic_lock_is_dropped_without_a_record_when_asked_so() {
    let mut store = locked(TimeStamp::ZERO);
    write_lock(&mut store, |lock| {
        lock.kind = LockKind::Pessimistic;
        lock.short_value = None;
    });
    let command = CheckTxnStatus { resolving_pessimistic_lock: true, ..ask(ts(20), TimeStamp::MAX) };
    let status = store.run(|view| check_txn_status(&command, view)).unwrap();
    assert_eq!(status.action, StatusAction::TtlExpirePessimisticRollback);
    assert!(store.family(TXN_LOCK).is_empty() && store.family(TXN_WRITE).is_empty());
    let command = CheckTxnStatus { rollback_if_not_exist: true, ..command };
    let status = store.run(|view| check_txn_status(&command, view)).unwrap();
    assert_eq!(status.action, StatusAction::LockNotExistDoNothing);
    assert!(store.family(TXN_WRITE).is_empty());
}

#[test]
fn a_commit_is_reported_with_its_timestamp() {
    let mut store = locked(TimeStamp::ZERO);
    store.commit(&["p"], ts(10).0, ts(11).0).unwrap();
    let status = store.run(|view| check_txn_status(&ask(ts(20), TimeStamp::MAX), view)).unwrap();
    assert_eq!(status, TxnStatus::decided(ts(11), StatusAction::None));
}

#[test]
fn an_unknown_transaction_is_an_error_or_is_kept_from_coming() {
    let mut store = MapStore::default();
    let error = error_of(store.run(|view| check_txn_status(&ask(ts(20), ts(30)), view)));
    assert_eq!(error, KeyError::TxnNotFound { start_ts: ts(10), primary: "p".into() });
    let command = CheckTxnStatus { rollback_if_not_exist: true, ..ask(ts(20), ts(30)) };
    let status = store.run(|view| check_txn_status(&command, view)).unwrap();
    assert_eq!(status, TxnStatus::decided(TimeStamp::ZERO, StatusAction::LockNotExistRollback));
    assert!(store.prewrite(&prewrite(&[("p", put("1"))], "p", ts(10).0)).is_err());
}

#[test]
fn another_primary_is_noticed_when_asked() {
    let mut store = MapStore::default();
    store.prewrite(&prewrite(&[("p", put("1"))], "q", ts(10).0)).unwrap();
    let command = CheckTxnStatus { verify_is_primary: true, ..ask(ts(20), TimeStamp::MAX) };
    let error = error_of(store.run(|view| check_txn_status(&command, view)));
    assert!(matches!(error, KeyError::PrimaryMismatch(lock) if lock.primary == "q"));
    assert_eq!(store.family(TXN_LOCK).len(), 1);
}
