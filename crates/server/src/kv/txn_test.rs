//! Transactional calls over a node that is a map: the conversion of requests to commands, and of results to answers.
//! The protocol itself is tested in `txn`.

use super::fake::*;
use crate::driver::NodeError;
use crate::kv::Kv;
use bytes::Bytes;
use kontiki_proto::kvrpcpb::*;

fn b(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn prewrite(key: &'static str, value: &'static str, start_version: u64) -> PrewriteRequest {
    let mutation = Mutation { op: Op::Put as i32, key: b(key), value: b(value), ..Default::default() };
    PrewriteRequest {
        context: context(LEFT),
        mutations: vec![mutation],
        primary_lock: b(key),
        start_version,
        lock_ttl: 3000,
        txn_size: 1,
        ..Default::default()
    }
}

fn commit(key: &'static str, start_version: u64, commit_version: u64) -> CommitRequest {
    CommitRequest { context: context(LEFT), start_version, keys: vec![b(key)], commit_version }
}

fn get(key: &'static str, version: u64) -> GetRequest {
    GetRequest { context: context(LEFT), key: b(key), version, need_commit_ts: true }
}

/// A version committed at `ts + 1`.
async fn write(kv: &Kv<FakeNode>, key: &'static str, value: &'static str, ts: u64) {
    assert_eq!(kv.prewrite(prewrite(key, value, ts)).await, PrewriteResponse::default());
    let answer = kv.commit(commit(key, ts, ts + 1)).await;
    assert_eq!(answer, CommitResponse { commit_version: ts + 1, ..Default::default() });
}

#[tokio::test]
async fn a_committed_value_is_seen_from_its_commit_on() {
    let kv = FakeNode::new().kv();
    write(&kv, "a", "1", 10).await;
    let found = GetResponse { value: b("1"), commit_ts: 11, ..Default::default() };
    assert_eq!(kv.get(get("a", 11)).await, found);
    assert_eq!(kv.get(get("a", 10)).await, GetResponse { not_found: true, ..Default::default() });
}

#[tokio::test]
async fn a_lock_is_shown_whole() {
    let kv = FakeNode::new().kv();
    kv.prewrite(prewrite("a", "1", 10)).await;
    let locked = kv.get(get("a", 12)).await.error.unwrap().locked.unwrap();
    assert_eq!((locked.primary_lock, locked.key), (b("a"), b("a")));
    assert_eq!((locked.lock_version, locked.lock_ttl, locked.txn_size), (10, 3000, 1));
    assert_eq!(locked.lock_type, Op::Put as i32);

    // A scan shows it as a pair in its place, with its key.
    let scan = ScanRequest { context: context(LEFT), limit: 9, version: 12, ..Default::default() };
    let pairs = kv.scan(scan).await.pairs;
    assert_eq!((pairs.len(), &pairs[0].key), (1, &b("a")));
    assert!(pairs[0].error.as_ref().unwrap().locked.is_some());

    // A reader that knows its outcome is not blocked.
    let mut request = get("a", 12);
    request.context.as_mut().unwrap().resolved_locks = vec![10];
    assert!(kv.get(request).await.not_found);
    let mut request = get("a", 12);
    request.context.as_mut().unwrap().committed_locks = vec![10];
    assert_eq!(kv.get(request).await.value, b("1"));
    let mut request = get("a", 12);
    request.context.as_mut().unwrap().isolation_level = IsolationLevel::Rc as i32;
    assert!(kv.get(request).await.not_found);

    let locks = ScanLockRequest { context: context(LEFT), max_version: 50, limit: 9, ..Default::default() };
    assert_eq!(kv.scan_lock(locks).await.locks.len(), 1);
}

#[tokio::test]
async fn scans_go_both_ways_and_stay_in_the_region() {
    let kv = FakeNode::new().kv();
    for key in ["a", "b", "c"] {
        write(&kv, key, "v", 10).await;
    }
    let request = |start, end, reverse| ScanRequest {
        context: context(LEFT),
        start_key: b(start),
        end_key: b(end),
        limit: 9,
        version: 20,
        reverse,
        ..Default::default()
    };
    let keys = |answer: ScanResponse| answer.pairs.into_iter().map(|pair| pair.key).collect::<Vec<_>>();
    assert_eq!(keys(kv.scan(request("", "", false)).await), ["a", "b", "c"]);
    assert_eq!(keys(kv.scan(request("b", "z", false)).await), ["b", "c"]);
    assert_eq!(keys(kv.scan(request("z", "b", true)).await), ["c", "b"]);
    assert_eq!(keys(kv.scan(request("c", "", true)).await), ["b", "a"]);
    let elsewhere = ScanRequest { context: context(RIGHT), ..request("", "", false) };
    assert!(kv.scan(elsewhere).await.pairs.is_empty());
    let batch = BatchGetRequest { context: context(LEFT), keys: vec![b("c"), b("d"), b("a")], version: 20 };
    let pairs = kv.batch_get(batch).await.pairs;
    assert_eq!(
        pairs.into_iter().map(|pair| (pair.key, pair.value)).collect::<Vec<_>>(),
        [(b("c"), b("v")), (b("a"), b("v"))]
    );
}

#[tokio::test]
async fn a_conflict_names_both_sides_and_is_retryable() {
    let kv = FakeNode::new().kv();
    write(&kv, "a", "1", 10).await;
    let error = kv.prewrite(prewrite("a", "2", 5)).await.errors.remove(0);
    let conflict = error.conflict.unwrap();
    assert_eq!((conflict.start_ts, conflict.conflict_ts, conflict.conflict_commit_ts), (5, 10, 11));
    assert_eq!(conflict.reason, write_conflict::Reason::Optimistic as i32);
    assert!(error.retryable.contains("write conflict"));

    // Rolled back before it prewrites: its prewrite is refused.
    let rollback = BatchRollbackRequest { context: context(LEFT), start_version: 20, keys: vec![b("b")] };
    assert_eq!(kv.batch_rollback(rollback).await, BatchRollbackResponse::default());
    let error = kv.prewrite(prewrite("b", "2", 20)).await.errors.remove(0);
    assert_eq!(error.conflict.unwrap().reason, write_conflict::Reason::SelfRolledBack as i32);
}

#[tokio::test]
async fn a_commit_without_a_lock_says_so_in_the_words_applications_look_for() {
    let kv = FakeNode::new().kv();
    let error = kv.commit(commit("a", 10, 11)).await.error.unwrap();
    assert!(error.retryable.contains("TxnLockNotFound"));
    assert_eq!(error.txn_lock_not_found.unwrap().key, b("a"));
    assert!(kv.commit(commit("a", 10, 10)).await.error.unwrap().abort.contains("above start_version"));
}

#[tokio::test]
async fn the_status_of_a_transaction_and_its_resolution() {
    let kv = FakeNode::new().kv();
    let second = 1000u64 << 18;
    kv.prewrite(prewrite("a", "1", second)).await;
    let check = |current_ts| CheckTxnStatusRequest {
        context: context(LEFT),
        primary_key: b("a"),
        lock_ts: second,
        caller_start_ts: second + 1,
        current_ts,
        rollback_if_not_exist: true,
        ..Default::default()
    };
    let alive = kv.check_txn_status(check(second + 1)).await;
    assert_eq!((alive.lock_ttl, alive.commit_version), (3000, 0));
    assert!(alive.lock_info.is_some(), "a live lock always comes with its description");
    let beat = TxnHeartBeatRequest {
        context: context(LEFT),
        primary_lock: b("a"),
        start_version: second,
        advise_lock_ttl: 5000,
    };
    assert_eq!(kv.txn_heart_beat(beat).await.lock_ttl, 5000);

    let dead = kv.check_txn_status(check(9 * second)).await;
    assert_eq!((dead.lock_ttl, dead.commit_version), (0, 0));
    assert_eq!(dead.action, Action::TtlExpireRollback as i32);

    kv.prewrite(prewrite("b", "1", 10)).await;
    let resolve =
        ResolveLockRequest { context: context(LEFT), start_version: 10, commit_version: 12, ..Default::default() };
    assert_eq!(kv.resolve_lock(resolve).await, ResolveLockResponse::default());
    assert_eq!(kv.get(get("b", 12)).await.commit_ts, 12);

    kv.prewrite(prewrite("c", "1", 10)).await;
    let cleanup = CleanupRequest { context: context(LEFT), key: b("c"), start_version: 10, current_ts: 0 };
    assert_eq!(kv.cleanup(cleanup).await, CleanupResponse::default());
    assert!(kv.get(get("c", 12)).await.not_found);
}

#[tokio::test]
async fn keys_are_checked_in_their_encoding_and_unknown_outcomes_are_asked_again() {
    let node = FakeNode::new();
    let kv = node.kv();
    let error = kv.get(GetRequest { context: context(RIGHT), ..get("a", 5) }).await.region_error.unwrap();
    let error = error.key_not_in_region.unwrap();
    assert_eq!((error.key.len(), error.region_id), (9, RIGHT), "the encoded key, like the boundaries beside it");

    // The view succeeds, the outcome of the write is unknown.
    node.state.lock().errors.push_back(NodeError::Undetermined);
    let error = kv.prewrite(prewrite("a", "1", 10)).await.region_error.unwrap();
    assert!(error.stale_command.is_some());

    let mut v3 = get("a", 5);
    v3.context.as_mut().unwrap().api_version = ApiVersion::V3 as i32;
    assert!(kv.get(v3).await.error.unwrap().abort.contains("API version"));
}

fn stale_get(key: &'static str, version: u64) -> GetRequest {
    let context = context(LEFT).map(|context| Context { stale_read: true, ..context });
    GetRequest { context, ..get(key, version) }
}

/// This node follows: another store leads.
fn follow(node: &FakeNode) {
    for (_, leader) in node.state.lock().regions.values_mut() {
        *leader = leader.map(|peer| peer_of(peer.id.0 / 1000, 2));
    }
}

#[tokio::test]
async fn a_stale_read_needs_no_leader_and_passes_locks() {
    let node = FakeNode::new();
    let kv = node.kv();
    write(&kv, "a", "1", 10).await;
    kv.prewrite(prewrite("a", "2", 20)).await;
    follow(&node);
    node.state.lock().safe_ts = 30;
    assert!(kv.get(get("a", 30)).await.region_error.is_some(), "another read goes to the leader");
    // Its transaction commits above 30, or never.
    assert_eq!(kv.get(stale_get("a", 30)).await.value, b("1"));
    let context = stale_get("a", 30).context;
    let batch = BatchGetRequest { context: context.clone(), keys: vec![b("a")], version: 30 };
    assert_eq!(kv.batch_get(batch).await.pairs[0].value, b("1"));
    let scan = ScanRequest { context, limit: 9, version: 30, ..Default::default() };
    assert_eq!(kv.scan(scan.clone()).await.pairs[0].value, b("1"));
    assert_eq!(kv.scan(ScanRequest { reverse: true, ..scan }).await.pairs[0].value, b("1"));
    // Raw keys have no timestamps: the flag has no effect.
    let raw = RawGetRequest { context: stale_get("a", 30).context, key: b("a"), ..Default::default() };
    assert!(kv.raw_get(raw).await.region_error.unwrap().not_leader.is_some());
    let all = kv.store_safe_ts(&StoreSafeTsRequest::default());
    assert_eq!(all, StoreSafeTsResponse { safe_ts: 30 });
}

#[tokio::test]
async fn a_stale_read_ahead_is_refused_and_leaves_the_greatest_read_timestamp() {
    let node = FakeNode::new();
    let kv = node.kv();
    node.state.lock().safe_ts = 30;
    for leads in [true, false] {
        if !leads {
            follow(&node);
        }
        let error = kv.get(stale_get("a", 1 << 60)).await.region_error.expect("not ready");
        let not_ready = error.data_is_not_ready.expect("as the protocol says it");
        assert_eq!((not_ready.region_id, not_ready.peer_id, not_ready.safe_ts), (LEFT, LEFT * 1000 + 1, 30));
        assert!(error.message.contains("up to 30"), "{}", error.message);
        assert_eq!(node.counts().0, 0, "no request waits for it");
    }
    kv.get(stale_get("a", 30)).await;
    assert_eq!(kv.scheduler.concurrency().max_ts().0, 0, "nothing is remembered of them");
}
