//! Async commit, one-phase commit and pessimistic locks over a node that is a map: the conversion of requests to
//! commands, and of results to answers. The protocol itself is tested in `txn`.

use super::fake::*;
use crate::api::RetryBudget;
use crate::kv::Kv;
use bytes::Bytes;
use kontiki_proto::kvrpcpb::prewrite_request::PessimisticAction;
use kontiki_proto::kvrpcpb::*;
use std::sync::Arc;
use std::time::Duration;

fn b(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn put(key: &'static str) -> Mutation {
    Mutation { op: Op::Put as i32, key: b(key), value: b("v"), ..Default::default() }
}

fn prewrite(keys: &[&'static str], start_version: u64) -> PrewriteRequest {
    PrewriteRequest {
        context: context(LEFT),
        mutations: keys.iter().map(|key| put(key)).collect(),
        primary_lock: b(keys[0]),
        start_version,
        lock_ttl: 3000,
        txn_size: keys.len() as u64,
        ..Default::default()
    }
}

fn lock(keys: &[&'static str], start_version: u64, for_update_ts: u64) -> PessimisticLockRequest {
    PessimisticLockRequest {
        context: context(LEFT),
        mutations: keys.iter().map(|key| Mutation { op: Op::PessimisticLock as i32, ..put(key) }).collect(),
        primary_lock: b(keys[0]),
        start_version,
        lock_ttl: 3000,
        for_update_ts,
        wait_timeout: -1,
        return_values: true,
        ..Default::default()
    }
}

async fn value_at(kv: &Kv<FakeNode>, key: &'static str, version: u64) -> Bytes {
    let request = GetRequest { context: context(LEFT), key: b(key), version, need_commit_ts: true };
    kv.get(request).await.value
}

fn node_with_oracle(ts: u64) -> FakeNode {
    let node = FakeNode::new();
    node.state.lock().oracle = ts;
    node
}

#[tokio::test]
async fn one_phase_commits_above_reads_and_what_the_oracle_said() {
    let kv = node_with_oracle(50).kv();
    let request = PrewriteRequest { try_one_pc: true, ..prewrite(&["a", "b"], 10) };
    let answer = kv.prewrite(request.clone()).await;
    assert_eq!(answer, PrewriteResponse { one_pc_commit_ts: 51, ..Default::default() });
    assert_eq!(kv.prewrite(request).await.one_pc_commit_ts, 51, "repeated");
    assert_eq!(value_at(&kv, "b", 51).await, "v");
    assert_eq!(value_at(&kv, "b", 50).await, "");

    value_at(&kv, "c", 70).await;
    let late = PrewriteRequest { try_one_pc: true, max_commit_ts: 70, ..prewrite(&["c"], 60) };
    assert_eq!(kv.prewrite(late).await, PrewriteResponse::default(), "declined: both are 0");
}

#[tokio::test]
async fn async_commit_lists_the_secondaries_and_leaves_the_decision_to_all_locks() {
    let kv = node_with_oracle(50).kv();
    let request = PrewriteRequest {
        use_async_commit: true,
        secondaries: vec![b("b")],
        min_commit_ts: 60,
        ..prewrite(&["a", "b"], 10)
    };
    assert_eq!(kv.prewrite(request).await, PrewriteResponse { min_commit_ts: 60, ..Default::default() });
    let check = CheckTxnStatusRequest {
        context: context(LEFT),
        primary_key: b("a"),
        lock_ts: 10,
        current_ts: u64::MAX,
        rollback_if_not_exist: true,
        ..Default::default()
    };
    let status = kv.check_txn_status(check).await;
    let primary = status.lock_info.expect("undecided, whatever the time");
    assert!(primary.use_async_commit && primary.secondaries == [b("b")] && primary.min_commit_ts == 60);
    let cleanup = CleanupRequest { context: context(LEFT), key: b("a"), start_version: 10, current_ts: 0 };
    assert!(kv.cleanup(cleanup).await.error.expect("it may be committed").locked.is_some());
    let ask = |keys| CheckSecondaryLocksRequest { context: context(LEFT), keys, start_version: 10 };
    let answer = kv.check_secondary_locks(ask(vec![b("b")])).await;
    assert_eq!((answer.locks.len(), answer.commit_ts), (1, 0));
    let resolve =
        ResolveLockRequest { context: context(LEFT), start_version: 10, commit_version: 60, ..Default::default() };
    kv.resolve_lock(resolve).await;
    assert_eq!(kv.check_secondary_locks(ask(vec![b("b")])).await.commit_ts, 60);
    assert_eq!(kv.check_secondary_locks(ask(vec![b("c")])).await, CheckSecondaryLocksResponse::default());
}

#[tokio::test]
async fn without_a_timestamp_the_leader_says_that_it_is_not_synchronised() {
    let kv = FakeNode::new().kv();
    for request in [
        PrewriteRequest { use_async_commit: true, ..prewrite(&["a"], 10) },
        PrewriteRequest { try_one_pc: true, ..prewrite(&["a"], 10) },
    ] {
        let error = kv.prewrite(request).await.region_error.expect("refused");
        assert!(error.max_timestamp_not_synced.is_some(), "{error:?}");
    }
    assert_eq!(kv.prewrite(prewrite(&["a"], 10)).await, PrewriteResponse::default(), "two phases need none");
}

#[tokio::test]
async fn pessimistic_locks_answer_in_the_order_of_the_keys() {
    let kv = node_with_oracle(5).kv();
    kv.prewrite(PrewriteRequest { try_one_pc: true, ..prewrite(&["b"], 10) }).await;
    let answer = kv.pessimistic_lock(lock(&["a", "b"], 20, 20)).await;
    assert_eq!((answer.values, answer.not_founds), (vec![b(""), b("v")], vec![true, false]));
    let existence = PessimisticLockRequest { return_values: false, check_existence: true, ..lock(&["a", "b"], 20, 20) };
    let answer = kv.pessimistic_lock(existence).await;
    assert_eq!((answer.values.len(), answer.not_founds), (0, vec![true, false]));
    let neither = PessimisticLockRequest { return_values: false, ..lock(&["a"], 20, 20) };
    assert_eq!(kv.pessimistic_lock(neither).await, PessimisticLockResponse::default());

    let error = kv.pessimistic_lock(lock(&["a"], 21, 21)).await.errors.remove(0);
    let held = error.locked.expect("the key is locked");
    assert_eq!((held.lock_type, held.lock_for_update_ts), (Op::PessimisticLock as i32, 20));
    let mut insert = lock(&["b"], 20, 20);
    insert.mutations[0].assertion = Assertion::NotExist as i32;
    assert!(kv.pessimistic_lock(insert).await.errors[0].already_exist.is_some());

    let held = PessimisticAction::DoPessimisticCheck as i32;
    let write = PrewriteRequest {
        for_update_ts: 20,
        pessimistic_actions: vec![held, held],
        try_one_pc: true,
        ..prewrite(&["a", "b"], 20)
    };
    assert_eq!(kv.prewrite(write).await.one_pc_commit_ts, 22, "above the lock that was refused at 21");
    let late = kv.pessimistic_lock(lock(&["a"], 15, 16)).await.errors.remove(0).conflict.expect("a conflict");
    assert_eq!((late.reason, late.conflict_commit_ts), (write_conflict::Reason::PessimisticRetry as i32, 22));
    let force = PessimisticLockRequest {
        wake_up_mode: PessimisticLockWakeUpMode::WakeUpModeForceLock as i32,
        ..lock(&["a"], 15, 16)
    };
    let result = kv.pessimistic_lock(force).await.results.remove(0);
    assert_eq!((result.locked_with_conflict_ts, result.value, result.existence), (22, b("v"), true));
    assert_eq!(result.r#type, PessimisticLockKeyResultType::LockResultLockedWithConflict as i32);
    let rollback = |for_update_ts| PessimisticRollbackRequest {
        context: context(LEFT),
        start_version: 15,
        for_update_ts,
        keys: vec![b("a")],
    };
    kv.pessimistic_rollback(rollback(20)).await;
    assert!(!kv.pessimistic_lock(lock(&["a"], 30, 30)).await.errors.is_empty(), "the lock is as of 22");
    assert_eq!(kv.pessimistic_rollback(rollback(22)).await, PessimisticRollbackResponse::default());
    assert!(kv.pessimistic_lock(lock(&["a"], 30, 30)).await.errors.is_empty());

    let lost = PrewriteRequest { for_update_ts: 16, pessimistic_actions: vec![held], ..prewrite(&["a"], 15) };
    assert!(kv.prewrite(lost).await.errors[0].abort.contains("PessimisticLockNotFound"));
}

#[tokio::test]
async fn a_circle_of_waits_is_a_deadlock_error() {
    // Time does not pass.
    let forever = RetryBudget::new(Duration::from_millis(100), Arc::new(|_| Box::pin(std::future::pending())));
    let kv = Kv::new(node_with_oracle(5), forever, Arc::new(|future| drop(tokio::spawn(future))));
    kv.pessimistic_lock(lock(&["a"], 10, 10)).await;
    kv.pessimistic_lock(lock(&["b"], 11, 11)).await;
    let wait = |key, start| PessimisticLockRequest { wait_timeout: 0, ..lock(&[key], start, start) };
    let waiting = tokio::spawn({
        let kv = kv.clone();
        async move { kv.pessimistic_lock(wait("b", 10)).await }
    });
    while kv.lock_waiters() == 0 {
        tokio::task::yield_now().await;
    }
    let refused = kv.pessimistic_lock(wait("a", 11)).await.errors.remove(0);
    let deadlock = refused.deadlock.expect("a deadlock");
    assert_eq!((deadlock.lock_ts, &deadlock.lock_key), (10, &b("a")));
    let chain: Vec<_> = deadlock.wait_chain.iter().map(|wait| (wait.txn, wait.wait_for_txn)).collect();
    assert_eq!(chain, [(10, 11)]);
    let rollback = BatchRollbackRequest { context: context(LEFT), start_version: 11, keys: vec![b("b")] };
    kv.batch_rollback(rollback).await;
    assert!(waiting.await.expect("it ends").errors.is_empty(), "the other one gets the key");
}
