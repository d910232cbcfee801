//! The limit that a request states for itself, and calls that their clients cancel.

use super::fake::*;
use crate::api::RetryBudget;
use crate::driver::NodeError;
use crate::kv::Kv;
use bytes::Bytes;
use kontiki_proto::kvrpcpb::*;
use std::sync::Arc;
use std::time::Duration;

fn limited(limit_ms: u64) -> Option<Context> {
    Some(Context { max_execution_duration_ms: limit_ms, ..context(LEFT).expect("a context") })
}

fn key(key: &'static str) -> Bytes {
    Bytes::from_static(key.as_bytes())
}

#[tokio::test]
async fn a_write_whose_time_is_over_is_not_proposed() {
    let node = FakeNode::new();
    let raw = RawPutRequest { context: limited(5), key: key("a"), value: key("1"), ..Default::default() };
    let mutation = Mutation { op: Op::Put as i32, key: key("a"), value: key("1"), ..Default::default() };
    let prewrite = PrewriteRequest {
        context: limited(5),
        mutations: vec![mutation],
        primary_lock: key("a"),
        start_version: 10,
        lock_ttl: 3000,
        ..Default::default()
    };
    // The first attempt is refused, and the wait for the second takes all of the time.
    node.state.lock().errors.push_back(NodeError::Busy("full"));
    let of_raw = node.kv().raw_put(raw.clone()).await.region_error;
    node.state.lock().errors.push_back(NodeError::Busy("full"));
    let of_prewrite = node.kv().prewrite(prewrite).await.region_error;
    for error in [of_raw, of_prewrite] {
        let error = error.expect("a region error");
        assert!(error.message.contains("deadline is exceeded"), "{error:?}");
        assert!(error.server_is_busy.is_some(), "it can be repeated: {error:?}");
    }
    assert_eq!(node.counts(), (2, 0), "two waits and no write");
    node.state.lock().errors.push_back(NodeError::Busy("full"));
    let in_time = RawPutRequest { context: limited(50), ..raw };
    assert_eq!(node.kv().raw_put(in_time).await, RawPutResponse::default());
}

fn lock(start_version: u64, wait_timeout: i64) -> PessimisticLockRequest {
    let mutation = Mutation { op: Op::PessimisticLock as i32, key: key("a"), ..Default::default() };
    PessimisticLockRequest {
        context: context(LEFT),
        mutations: vec![mutation],
        primary_lock: key("a"),
        start_version,
        lock_ttl: 3000,
        for_update_ts: start_version,
        wait_timeout,
        ..Default::default()
    }
}

/// A node on which no time passes: nothing but a cancellation ends a wait.
fn timeless() -> Kv<FakeNode> {
    let node = FakeNode::new();
    node.state.lock().oracle = 5;
    let forever = RetryBudget::new(Duration::from_millis(100), Arc::new(|_| Box::pin(std::future::pending())));
    Kv::new(node, forever, Arc::new(|future| drop(tokio::spawn(future))))
}

#[tokio::test]
async fn a_cancelled_call_leaves_no_waiter_and_no_latch() {
    let kv = timeless();
    assert!(kv.pessimistic_lock(lock(10, -1)).await.errors.is_empty());
    for _ in 0..3 {
        let waiting = tokio::spawn({
            let kv = kv.clone();
            async move { kv.pessimistic_lock(lock(20, 0)).await }
        });
        while kv.lock_waiters() == 0 {
            tokio::task::yield_now().await;
        }
        waiting.abort();
        assert!(waiting.await.is_err_and(|error| error.is_cancelled()));
        assert_eq!((kv.lock_waiters(), kv.commands_latched()), (0, 0));
    }
    // The one that gave up is not given the key: the next one gets it.
    let rollback = PessimisticRollbackRequest {
        context: context(LEFT),
        start_version: 10,
        for_update_ts: 10,
        keys: vec![key("a")],
    };
    assert!(kv.pessimistic_rollback(rollback).await.errors.is_empty());
    assert!(kv.pessimistic_lock(lock(30, -1)).await.errors.is_empty());
    let locks = ScanLockRequest { context: context(LEFT), max_version: 99, limit: 9, ..Default::default() };
    let owners: Vec<u64> = kv.scan_lock(locks).await.locks.iter().map(|lock| lock.lock_version).collect();
    assert_eq!(owners, [30]);
}

#[tokio::test]
async fn a_wait_for_a_lock_is_not_longer_than_the_request_may_take() {
    let node = FakeNode::new();
    node.state.lock().oracle = 5;
    let waits = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let seen = waits.clone();
    let pause = move |wait: Duration| -> futures::future::BoxFuture<'static, ()> {
        seen.lock().push(wait);
        Box::pin(std::future::ready(()))
    };
    let budget = RetryBudget::new(Duration::from_millis(100), Arc::new(pause));
    let kv = Kv::new(node, budget, Arc::new(|future| drop(tokio::spawn(future))));
    kv.pessimistic_lock(lock(10, -1)).await;
    let refused = kv.pessimistic_lock(PessimisticLockRequest { context: limited(30), ..lock(20, 900) }).await;
    assert!(refused.errors.first().is_some_and(|error| error.locked.is_some()), "{refused:?}");
    let waits = waits.lock();
    assert!(!waits.is_empty() && waits.iter().all(|wait| *wait <= Duration::from_millis(30)), "{waits:?}");
}
