use super::*;
use crate::keys::TXN_LOCK;
use crate::testing::{MapStore, error_of, prewrite, put};

fn cleanup_of(key: &'static str, start: TimeStamp, now: TimeStamp) -> Cleanup {
    Cleanup { key: key.into(), start_ts: start, current_ts: now }
}

#[test]
fn a_live_lock_is_respected_and_an_expired_one_is_not() {
    let start = TimeStamp::compose(10, 0);
    let mut store = MapStore::default();
    store.prewrite(&prewrite(&[("a", put("1")), ("b", put("1"))], "a", start.0)).unwrap();
    let error = error_of(store.run(|view| cleanup(&cleanup_of("a", start, TimeStamp::compose(20, 0)), view)));
    assert!(matches!(error, KeyError::Locked(_)));
    let late = cleanup_of("a", start, TimeStamp::compose(4000, 0));
    assert_eq!(store.run(|view| cleanup(&late, view)).unwrap(), TimeStamp::ZERO);
    let at_once = cleanup_of("b", start, TimeStamp::ZERO);
    assert_eq!(store.run(|view| cleanup(&at_once, view)).unwrap(), TimeStamp::ZERO);
    assert!(store.family(TXN_LOCK).is_empty());
}

#[test]
fn a_commit_is_answered_not_undone() {
    let mut store = MapStore::default();
    store.committed("a", "1", 5, 6);
    let asked = cleanup_of("a", TimeStamp(5), TimeStamp::ZERO);
    assert_eq!(store.run(|view| cleanup(&asked, view)).unwrap(), TimeStamp(6));
}

#[test]
fn an_unknown_transaction_is_kept_from_coming() {
    let mut store = MapStore::default();
    let asked = cleanup_of("a", TimeStamp(5), TimeStamp::ZERO);
    assert_eq!(store.run(|view| cleanup(&asked, view)).unwrap(), TimeStamp::ZERO);
    assert!(store.prewrite(&prewrite(&[("a", put("1"))], "a", 5)).is_err());
}

#[test]
fn a_heartbeat_prolongs_and_never_shortens() {
    use super::super::{TxnHeartBeat, txn_heart_beat};
    let mut store = MapStore::default();
    store.prewrite(&prewrite(&[("a", put("1"))], "a", 5)).unwrap();
    let mut beat = |advise_ttl_ms, start| {
        let command = TxnHeartBeat { primary: "a".into(), start_ts: TimeStamp(start), advise_ttl_ms };
        store.run(|view| txn_heart_beat(&command, view))
    };
    assert_eq!(beat(5000, 5).unwrap(), 5000);
    assert_eq!(beat(1000, 5).unwrap(), 5000);
    assert!(matches!(error_of(beat(9000, 4)), KeyError::TxnNotFound { .. }));
}
