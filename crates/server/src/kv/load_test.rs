use super::super::fake::{FakeNode, LEFT, context};
use super::*;
use futures::FutureExt;
use kontiki_proto::kvrpcpb;

fn raw(key: &str) -> Sample {
    Sample::raw(key.as_bytes(), key.as_bytes())
}

fn txn(one: &str, other: &str) -> Sample {
    Sample::encoded(&memcomparable_encode(one.as_bytes()), &memcomparable_encode(other.as_bytes()))
}

/// What the node was notified of since the last call: requests, bytes, and a sample of each request.
fn served(node: &FakeNode) -> Vec<(RegionId, u64, Vec<Sample>)> {
    std::mem::take(&mut node.state.lock().served)
}

fn run<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("the fake node answers at once")
}

#[test]
fn raw_requests_are_reported_with_their_keys_and_bytes() {
    let (node, left) = (FakeNode::new(), RegionId(LEFT));
    let kv = node.kv();
    let context = || context(LEFT);
    let pair = |key: &'static str| KvPair { key: key.into(), value: "four".into(), ..Default::default() };
    let pairs = vec![pair("a"), pair("b"), pair("c")];
    run(kv.raw_batch_put(kvrpcpb::RawBatchPutRequest { context: context(), pairs, ..Default::default() }));
    assert_eq!(served(&node), [(left, 15, vec![raw("a"), raw("b"), raw("c")])]);
    run(kv.raw_get(kvrpcpb::RawGetRequest { context: context(), key: "b".into(), ..Default::default() }));
    assert_eq!(served(&node), [(left, 5, vec![raw("b")])]);
    let keys = vec!["c".into(), "d".into()];
    run(kv.raw_batch_get(kvrpcpb::RawBatchGetRequest { context: context(), keys, ..Default::default() }));
    assert_eq!(served(&node), [(left, 5, vec![raw("c"), raw("d")])], "one that is not there, too");
    let scan = |reverse, limit| {
        let (start_key, end_key) = if reverse { ("c".into(), "a".into()) } else { ("a".into(), "c".into()) };
        kvrpcpb::RawScanRequest { context: context(), start_key, end_key, limit, reverse, ..Default::default() }
    };
    for reverse in [false, true] {
        run(kv.raw_scan(scan(reverse, 9)));
        assert_eq!(served(&node), [(left, 10, vec![Sample::raw(b"a", b"b")])], "what it found");
    }
    run(kv.raw_scan(scan(false, 0)));
    assert_eq!(served(&node), [(left, 0, vec![raw("a")])], "where it began");
}

#[test]
fn requests_that_are_refused_are_not_reported() {
    let node = FakeNode::new();
    let kv = node.kv();
    let outside = kvrpcpb::RawGetRequest { context: context(LEFT), key: "zz".into(), ..Default::default() };
    assert!(run(kv.raw_get(outside)).region_error.is_some());
    assert!(served(&node).is_empty());
}

#[test]
fn transactional_requests_are_reported_with_encoded_keys() {
    let (node, left) = (FakeNode::new(), RegionId(LEFT));
    let kv = node.kv();
    let mutation =
        |key: &'static str| kvrpcpb::Mutation { key: key.into(), value: "four".into(), ..Default::default() };
    let request = kvrpcpb::PrewriteRequest {
        context: context(LEFT),
        mutations: vec![mutation("a"), mutation("b")],
        primary_lock: "a".into(),
        start_version: 10,
        lock_ttl: 1_000,
        ..Default::default()
    };
    run(kv.prewrite(request));
    assert_eq!(served(&node), [(left, 10, vec![txn("a", "a"), txn("b", "b")])]);
    let (keys, context) = (vec!["a".into(), "b".into()], || context(LEFT));
    let request = kvrpcpb::CommitRequest { context: context(), keys, start_version: 10, commit_version: 20 };
    run(kv.commit(request));
    assert_eq!(served(&node), [(left, 2, vec![txn("a", "a"), txn("b", "b")])]);
    run(kv.get(kvrpcpb::GetRequest { context: context(), key: "b".into(), version: 30, ..Default::default() }));
    assert_eq!(served(&node), [(left, 5, vec![txn("b", "b")])]);
    let keys = vec!["a".into()];
    run(kv.batch_get(kvrpcpb::BatchGetRequest { context: context(), keys, version: 30 }));
    assert_eq!(served(&node), [(left, 5, vec![txn("a", "a")])]);
    run(kv.scan(kvrpcpb::ScanRequest { context: context(), limit: 9, version: 30, ..Default::default() }));
    assert_eq!(served(&node), [(left, 10, vec![txn("a", "b")])]);
}
