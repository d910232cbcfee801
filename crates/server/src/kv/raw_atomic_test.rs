//! Times to live, compare-and-swap, and other atomic writes of raw keys, over a node that is a map.

use super::fake::*;
use crate::driver::NodeError;
use bytes::Bytes;
use kontiki_proto::kvrpcpb::*;

fn b(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn put(key: &'static str, value: &'static str, ttl: u64) -> RawPutRequest {
    RawPutRequest { context: context(LEFT), key: b(key), value: b(value), ttl, ..Default::default() }
}

fn get(key: &'static str) -> RawGetRequest {
    RawGetRequest { context: context(LEFT), key: b(key), ..Default::default() }
}

fn ttl(key: &'static str) -> RawGetKeyTtlRequest {
    RawGetKeyTtlRequest { context: context(LEFT), key: b(key), ..Default::default() }
}

/// Sets `key` to `value` if it is `previous`; `None`: absent.
fn swap(key: &'static str, previous: Option<&'static str>, value: &'static str) -> RawCasRequest {
    RawCasRequest {
        context: context(LEFT),
        key: b(key),
        value: b(value),
        previous_not_exist: previous.is_none(),
        previous_value: b(previous.unwrap_or_default()),
        ..Default::default()
    }
}

fn swapped(previous: Option<&'static str>) -> RawCasResponse {
    RawCasResponse { succeed: true, ..refused(previous) }
}

fn refused(previous: Option<&'static str>) -> RawCasResponse {
    RawCasResponse {
        previous_not_exist: previous.is_none(),
        previous_value: b(previous.unwrap_or_default()),
        ..Default::default()
    }
}

#[tokio::test]
async fn an_expired_key_is_absent_from_every_read() {
    let node = FakeNode::new();
    let kv = node.kv();
    node.state.lock().wall_ms = 1_000;
    assert_eq!(kv.raw_put(put("a", "stays", 0)).await, RawPutResponse::default());
    assert_eq!(kv.raw_put(put("b", "goes", 10)).await, RawPutResponse::default());
    assert_eq!(kv.raw_get_key_ttl(ttl("a")).await, RawGetKeyTtlResponse::default(), "0: it does not expire");
    assert_eq!(kv.raw_get_key_ttl(ttl("b")).await.ttl, 10);
    assert!(kv.raw_get_key_ttl(ttl("c")).await.not_found);

    node.state.lock().wall_ms = 10_999;
    assert_eq!(kv.raw_get_key_ttl(ttl("b")).await.ttl, 1);
    assert_eq!(kv.raw_get(get("b")).await.value, b("goes"));
    let whole = RawChecksumRequest {
        context: context(LEFT),
        ranges: vec![KeyRange { start_key: b("a"), end_key: b("z") }],
        ..Default::default()
    };
    assert_eq!(kv.raw_checksum(whole.clone()).await.total_kvs, 2);

    node.state.lock().wall_ms = 11_000;
    assert!(kv.raw_get(get("b")).await.not_found);
    assert!(kv.raw_get_key_ttl(ttl("b")).await.not_found);
    let scan = RawScanRequest { context: context(LEFT), limit: 9, ..Default::default() };
    assert_eq!(kv.raw_scan(scan).await.kvs.len(), 1);
    let keys = vec![b("a"), b("b")];
    let batch = RawBatchGetRequest { context: context(LEFT), keys, ..Default::default() };
    assert_eq!(kv.raw_batch_get(batch).await.pairs.len(), 1);
    let sum = kv.raw_checksum(whole).await;
    assert_eq!((sum.total_kvs, sum.total_bytes), (1, 6));
    assert_eq!(kv.raw_compare_and_swap(swap("b", None, "new")).await, swapped(None));
}

#[tokio::test]
async fn a_batch_has_one_time_to_live_or_one_for_each_pair() {
    let node = FakeNode::new();
    let kv = node.kv();
    let pairs: Vec<_> = ["a", "b", "c"].map(|key| KvPair { key: b(key), ..Default::default() }).into();
    let lives = async |old: u64, ttls: &[u64]| {
        let (context, ttls) = (context(LEFT), ttls.to_vec());
        let request = RawBatchPutRequest { context, pairs: pairs.clone(), ttl: old, ttls, ..Default::default() };
        assert_eq!(kv.raw_batch_put(request).await, RawBatchPutResponse::default());
        let mut found = Vec::new();
        for key in ["a", "b", "c"] {
            found.push(kv.raw_get_key_ttl(ttl(key)).await.ttl);
        }
        found
    };
    assert_eq!(lives(0, &[]).await, [0, 0, 0]);
    assert_eq!(lives(7, &[]).await, [7, 7, 7], "as clients of before send it");
    assert_eq!(lives(7, &[9]).await, [9, 9, 9]);
    assert_eq!(lives(0, &[1, 0, 3]).await, [1, 0, 3]);
}

#[tokio::test]
async fn a_swap_happens_only_on_the_expected_value() {
    let node = FakeNode::new();
    let kv = node.kv();
    assert_eq!(kv.raw_compare_and_swap(swap("a", Some("x"), "1")).await, refused(None));
    assert_eq!(kv.raw_compare_and_swap(swap("a", None, "1")).await, swapped(None));
    assert_eq!(kv.raw_compare_and_swap(swap("a", None, "2")).await, refused(Some("1")));
    assert_eq!(kv.raw_compare_and_swap(swap("a", Some("x"), "2")).await, refused(Some("1")));
    assert_eq!(node.state.lock().writes, 1, "what is refused writes nothing");
    assert_eq!(kv.raw_compare_and_swap(swap("a", Some("1"), "")).await, swapped(Some("1")));
    assert_eq!(kv.raw_compare_and_swap(swap("a", None, "2")).await, refused(Some("")), "empty is not absent");
    let with_ttl = RawCasRequest { ttl: 5, ..swap("a", Some(""), "3") };
    assert_eq!(kv.raw_compare_and_swap(with_ttl).await, swapped(Some("")));
    assert_eq!(kv.raw_get_key_ttl(ttl("a")).await.ttl, 5);
    let delete = RawCasRequest { delete: true, ..swap("a", Some("3"), "") };
    assert_eq!(kv.raw_compare_and_swap(delete).await, swapped(Some("3")));
    assert!(kv.raw_get(get("a")).await.not_found);

    let endless = RawCasRequest { ttl: u64::MAX, ..swap("a", None, "1") };
    assert!(kv.raw_compare_and_swap(endless).await.error.contains("time to live"));
    let elsewhere = kv.raw_compare_and_swap(RawCasRequest { key: b("x"), ..swap("a", None, "1") }).await;
    assert!(elsewhere.region_error.unwrap().key_not_in_region.is_some());
}

/// The view is taken, and then the write's outcome is not known.
#[tokio::test]
async fn a_swap_with_an_unknown_outcome_is_a_stale_command_and_is_not_repeated() {
    let node = FakeNode::new();
    let kv = node.kv();
    node.state.lock().fail_writes.push_back(NodeError::Undetermined);
    let answer = kv.raw_compare_and_swap(swap("a", None, "1")).await;
    assert!(answer.region_error.as_ref().unwrap().stale_command.is_some(), "{answer:?}");
    assert_eq!((answer.succeed, answer.error), (false, String::new()));
    assert_eq!(node.counts(), (0, 0));
    assert_eq!(kv.commands_latched(), 0, "the latch is released when the write is settled");
}

#[tokio::test]
async fn a_swap_and_an_atomic_write_of_the_key_wait_for_each_other_and_not_for_ever() {
    let node = FakeNode::new();
    let kv = node.kv();
    assert_eq!(kv.raw_compare_and_swap(swap("a", None, "1")).await, swapped(None));
    let space = super::raw_space::RawSpace::of(&None, "").unwrap();
    let held = kv.scheduler.latches().acquire([space.latch(&b("a"))]).await;
    // In these tests time passes at each wait, up to the end of the budget.
    let busy = kv.raw_compare_and_swap(swap("a", Some("1"), "2")).await.region_error.unwrap();
    assert!(busy.server_is_busy.is_some(), "{busy:?}");
    let atomic = RawPutRequest { for_cas: true, ..put("a", "2", 0) };
    assert!(kv.raw_put(atomic.clone()).await.region_error.unwrap().server_is_busy.is_some());
    let keys = vec![b("a"), b("b")];
    let atomic_deletes = RawBatchDeleteRequest { context: context(LEFT), keys, for_cas: true, ..Default::default() };
    assert!(kv.raw_batch_delete(atomic_deletes.clone()).await.region_error.unwrap().server_is_busy.is_some());
    assert_eq!(kv.raw_compare_and_swap(swap("b", None, "1")).await, swapped(None), "another key");
    let in_other_family = RawCasRequest { cf: "lock".into(), ..swap("a", None, "1") };
    assert_eq!(kv.raw_compare_and_swap(in_other_family).await, swapped(None), "another key, too");
    assert_eq!(kv.raw_put(put("a", "3", 0)).await, RawPutResponse::default(), "what is not atomic does not wait");
    drop(held);
    assert_eq!(kv.raw_put(atomic).await, RawPutResponse::default());
    assert_eq!(kv.raw_compare_and_swap(swap("a", Some("2"), "4")).await, swapped(Some("2")));
    assert_eq!(kv.raw_batch_delete(atomic_deletes).await, RawBatchDeleteResponse::default());
    assert!(kv.raw_get(get("b")).await.not_found);
    assert_eq!(kv.commands_latched(), 0);
}
