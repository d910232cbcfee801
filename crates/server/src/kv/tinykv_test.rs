//! TinyKV's calls over a node that is a map: what differs from TiKV's. The bytes of its messages are compared in
//! crates/proto.

use super::super::fake::*;
use super::*;
use crate::driver::NodeError;
use bytes::Bytes;

fn b(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn prewrite_of(op: i32, key: &'static str, start_version: u64) -> tinykvpb::PrewriteRequest {
    tinykvpb::PrewriteRequest {
        context: context(LEFT),
        mutations: vec![tinykvpb::Mutation { op, key: b(key), value: b("v") }],
        primary_lock: b(key),
        start_version,
        lock_ttl: 3000,
    }
}

fn put(key: &'static str, start_version: u64) -> tinykvpb::PrewriteRequest {
    prewrite_of(tinykvpb::Op::Put as i32, key, start_version)
}

fn commit(key: &'static str, start_version: u64, commit_version: u64) -> kvrpcpb::CommitRequest {
    kvrpcpb::CommitRequest { context: context(LEFT), start_version, keys: vec![b(key)], commit_version }
}

fn get(key: &'static str, version: u64) -> kvrpcpb::GetRequest {
    kvrpcpb::GetRequest { context: context(LEFT), key: b(key), version, ..Default::default() }
}

fn status(key: &'static str, lock_ts: u64, current_ts: u64) -> tinykvpb::CheckTxnStatusRequest {
    tinykvpb::CheckTxnStatusRequest { context: context(LEFT), primary_key: b(key), lock_ts, current_ts }
}

fn ts(ms: u64) -> u64 {
    ms << 18
}

#[tokio::test]
async fn a_transaction_is_written_read_and_scanned() {
    let kv = FakeNode::new().kv();
    assert_eq!(kv.tinykv_prewrite(put("a", 10)).await, Default::default());
    let locked = kv.tinykv_get(get("a", 12)).await.error.unwrap().locked.unwrap();
    assert_eq!((locked.lock_version, locked.key), (10, b("a")));
    assert_eq!(kv.tinykv_commit(commit("a", 10, 11)).await.error, None);
    assert_eq!(kv.tinykv_get(get("a", 12)).await.value, "v");
    let scan = kvrpcpb::ScanRequest { context: context(LEFT), limit: 9, version: 12, ..Default::default() };
    let pairs = kv.tinykv_scan(scan).await.pairs;
    assert_eq!((pairs.len(), &pairs[0].key, &pairs[0].value), (1, &b("a"), &b("v")));
}

/// The numbers 2 and 3 stand for each other's operation in TiKV.
#[tokio::test]
async fn operations_have_the_numbers_of_tinykv() {
    let kv = FakeNode::new().kv();
    assert_eq!(kv.tinykv_prewrite(prewrite_of(3, "a", 10)).await, Default::default());
    let locked = kv.get(get("a", 12)).await;
    assert!(locked.error.is_none() && locked.not_found, "a lock that writes nothing blocks no reader: {locked:?}");
    let locks = kvrpcpb::ScanLockRequest { context: context(LEFT), max_version: 50, limit: 9, ..Default::default() };
    assert_eq!(kv.scan_lock(locks).await.locks[0].lock_type, kvrpcpb::Op::Lock as i32);
    for unknown in [2, 4] {
        let refused = kv.tinykv_prewrite(prewrite_of(unknown, "b", 10)).await;
        assert!(refused.errors[0].abort.contains(&format!("kind {unknown}")), "{refused:?}");
    }
}

#[tokio::test]
async fn the_time_to_live_is_measured_by_the_fourth_field() {
    let kv = FakeNode::new().kv();
    kv.tinykv_prewrite(put("a", ts(1_000))).await;
    let alive = kv.tinykv_check_txn_status(status("a", ts(1_000), ts(3_999))).await.unwrap();
    assert_eq!((alive.lock_ttl, alive.action), (3000, 0));
    let expired = kv.tinykv_check_txn_status(status("a", ts(1_000), ts(4_001))).await.unwrap();
    assert_eq!((expired.lock_ttl, expired.commit_version, expired.action), (0, 0, 1));
    // Without a lock or a record it is rolled back, and stays so.
    let absent = kv.tinykv_check_txn_status(status("b", ts(1_000), ts(1_001))).await.unwrap();
    assert_eq!((absent.action, absent.region_error), (2, None));
    let late = kv.tinykv_prewrite(put("b", ts(1_000))).await;
    assert!(late.errors[0].conflict.is_some() || !late.errors[0].abort.is_empty(), "{late:?}");
    kv.tinykv_prewrite(put("c", 10)).await;
    kv.tinykv_commit(commit("c", 10, 11)).await;
    assert_eq!(kv.tinykv_check_txn_status(status("c", 10, 20)).await.unwrap().commit_version, 11);
}

/// Its clients know four kinds.
#[test]
fn errors_of_other_kinds_become_retryable_or_abort() {
    let none = kvrpcpb::KeyError::default;
    let retryable = [
        kvrpcpb::KeyError { commit_ts_expired: Some(Default::default()), ..none() },
        kvrpcpb::KeyError { txn_not_found: Some(Default::default()), ..none() },
        kvrpcpb::KeyError { txn_lock_not_found: Some(Default::default()), ..none() },
        kvrpcpb::KeyError { retryable: "again".into(), ..none() },
    ];
    for error in retryable {
        let found = key_error(error);
        assert_eq!(found, kvrpcpb::KeyError { retryable: found.retryable.clone(), ..none() });
        assert!(!found.retryable.is_empty());
    }
    let abort = [
        kvrpcpb::KeyError { already_exist: Some(Default::default()), ..none() },
        kvrpcpb::KeyError { deadlock: Some(Default::default()), ..none() },
        kvrpcpb::KeyError { assertion_failed: Some(Default::default()), ..none() },
        kvrpcpb::KeyError { primary_mismatch: Some(Default::default()), ..none() },
        kvrpcpb::KeyError { abort: "over".into(), ..none() },
    ];
    for error in abort {
        let found = key_error(error);
        assert_eq!(found, kvrpcpb::KeyError { abort: found.abort.clone(), ..none() });
        assert!(!found.abort.is_empty());
    }
    // TiKV says beside a conflict that it is retryable; there a client takes the first kind that it finds.
    let conflict = Some(kvrpcpb::WriteConflict { start_ts: 1, ..Default::default() });
    let error = kvrpcpb::KeyError { conflict: conflict.clone(), retryable: "again".into(), ..none() };
    assert_eq!(key_error(error), kvrpcpb::KeyError { conflict, ..none() });
}

#[tokio::test]
async fn a_commit_without_a_lock_can_be_repeated_as_a_new_transaction() {
    let kv = FakeNode::new().kv();
    let error = kv.tinykv_commit(commit("a", 10, 11)).await.error.unwrap();
    assert!(error.retryable.contains("TxnLockNotFound"), "applications match that text: {error:?}");
    assert!(error.txn_lock_not_found.is_none() && error.txn_not_found.is_none(), "{error:?}");
}

#[tokio::test]
async fn raw_calls_have_no_end_key_and_a_text_as_error() {
    let node = FakeNode::new();
    let kv = node.kv();
    for key in ["a", "b", "c"] {
        let put = kvrpcpb::RawPutRequest { context: context(LEFT), key: b(key), value: b("v"), ..Default::default() };
        assert_eq!(kv.tinykv_raw_put(put).await, Default::default());
    }
    let delete = kvrpcpb::RawDeleteRequest { context: context(LEFT), key: b("b"), ..Default::default() };
    assert_eq!(kv.tinykv_raw_delete(delete).await, Default::default());
    let scan =
        |cf: &str, limit| tinykvpb::RawScanRequest { context: context(LEFT), start_key: b("a"), limit, cf: cf.into() };
    let found = kv.tinykv_raw_scan(scan("", 9)).await;
    assert_eq!(found.kvs.iter().map(|pair| pair.key.clone()).collect::<Vec<_>>(), ["a", "c"]);
    assert_eq!((found.error.as_str(), found.region_error), ("", None));
    assert_eq!(kv.tinykv_raw_scan(scan("default", 1)).await.kvs.len(), 1);
    let refused = kv.tinykv_raw_scan(scan("unknown", 9)).await;
    assert!(refused.error.contains("unknown") && refused.kvs.is_empty(), "{refused:?}");
    let get = kvrpcpb::RawGetRequest { context: context(LEFT), key: b("b"), ..Default::default() };
    assert!(kv.tinykv_raw_get(get).await.not_found);

    node.state.lock().errors.extend((0..100).map(|_| NodeError::Busy("full")));
    let error = kv.tinykv_raw_scan(scan("", 9)).await.region_error.unwrap();
    assert!(error.server_is_busy.is_none() && error.message.contains("full"), "{error:?}");
}

/// Clients try again what is in the region error.
#[tokio::test]
async fn only_what_passes_is_a_region_error_of_a_status() {
    let node = FakeNode::new();
    let kv = node.kv();
    let mut request = status("a", 10, 20);
    request.context.as_mut().unwrap().api_version = 9;
    let Final(text) = kv.tinykv_check_txn_status(request).await.unwrap_err();
    assert!(text.contains("API version 9"), "{text}");
    let none = kvrpcpb::KeyError::default;
    let locked = kvrpcpb::KeyError { locked: Some(Default::default()), ..none() };
    assert!(passing(locked).unwrap().message.contains("locked"));
    let retryable = kvrpcpb::KeyError { retryable: "again".into(), ..none() };
    assert_eq!(passing(retryable).unwrap().message, "again");
    let last = kvrpcpb::KeyError { primary_mismatch: Some(Default::default()), ..none() };
    assert!(passing(last).is_err());
    node.state.lock().errors.extend((0..100).map(|_| NodeError::Busy("full")));
    let busy = kv.tinykv_check_txn_status(status("a", 10, 20)).await.unwrap();
    assert!(busy.region_error.unwrap().message.contains("full"));
}
