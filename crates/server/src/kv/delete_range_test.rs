use crate::driver::NodeError;
use crate::kv::Kv;
use crate::kv::fake::*;
use bytes::Bytes;
use kontiki_proto::kvrpcpb::*;
use kontiki_raftstore::{RegionError, RegionId};

fn b(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn region_of(key: &str) -> u64 {
    if key.as_bytes() < SPLIT { LEFT } else { RIGHT }
}

/// A committed value of each key, a lock on "lock" in each region, and the same keys as raw ones.
async fn fill(kv: &Kv<FakeNode>, keys: &[&'static str]) {
    for &key in keys {
        let mutation =
            Mutation { op: Op::Put as i32, key: b(key), value: Bytes::from(vec![7; 300]), ..Default::default() };
        let prewrite = PrewriteRequest {
            context: context(region_of(key)),
            mutations: vec![mutation],
            primary_lock: b(key),
            start_version: 10,
            lock_ttl: 3_000,
            ..Default::default()
        };
        assert!(kv.prewrite(prewrite).await.errors.is_empty());
        if !key.ends_with("lock") {
            let commit = CommitRequest {
                context: context(region_of(key)),
                start_version: 10,
                keys: vec![b(key)],
                commit_version: 20,
            };
            assert_eq!(kv.commit(commit).await.error, None);
        }
        let raw = RawPutRequest { context: context(region_of(key)), key: b(key), ..Default::default() };
        assert_eq!(kv.raw_put(raw).await, RawPutResponse::default());
    }
}

/// The stored keys, of all families.
fn count(node: &FakeNode) -> usize {
    node.state.lock().data.len()
}

async fn finds(kv: &Kv<FakeNode>, key: &'static str) -> bool {
    let get = GetRequest { context: context(region_of(key)), key: b(key), version: 30, ..Default::default() };
    let answer = kv.get(get).await;
    !answer.not_found || answer.error.is_some()
}

#[tokio::test]
async fn a_range_delete_takes_all_versions_and_locks_in_range_and_region_and_no_raw_key() {
    let node = FakeNode::new();
    let kv = node.kv();
    fill(&kv, &["a", "b", "b lock", "c", "x"]).await;
    let before = node.state.lock().writes;
    let request =
        DeleteRangeRequest { context: context(LEFT), start_key: b("b"), end_key: b("y"), ..Default::default() };
    let notify = DeleteRangeRequest { notify_only: true, ..request.clone() };
    assert_eq!(kv.delete_range(notify).await, DeleteRangeResponse::default());
    assert!(finds(&kv, "b").await);
    assert_eq!(kv.delete_range(request).await, DeleteRangeResponse::default());
    assert_eq!(node.state.lock().writes, before + 1);
    for (key, is_there) in [("a", true), ("b", false), ("b lock", false), ("c", false), ("x", true)] {
        assert_eq!(finds(&kv, key).await, is_there, "{key}");
    }
    // Of "a" and "x" value and record, and five raw keys.
    assert_eq!(count(&node), 2 * 2 + 5);
    let v2 = context(LEFT).map(|context| Context { api_version: ApiVersion::V2 as i32, ..context });
    let wrong = DeleteRangeRequest { context: v2, start_key: b("b"), end_key: b("y"), ..Default::default() };
    assert!(kv.delete_range(wrong).await.error.contains("begins with `x`"));
}

fn destroy(start: &'static str, end: &'static str) -> UnsafeDestroyRangeRequest {
    // As clients send it: without a region.
    UnsafeDestroyRangeRequest { context: Some(Context::default()), start_key: b(start), end_key: b(end) }
}

#[tokio::test]
async fn a_destroyed_range_is_gone_from_all_regions_that_are_led_here() {
    let node = FakeNode::new();
    let kv = node.kv();
    fill(&kv, &["a", "b", "x", "y"]).await;
    assert_eq!(kv.unsafe_destroy_range(destroy("b", "y")).await, UnsafeDestroyRangeResponse::default());
    assert_eq!(count(&node), 2 * 3 + 2, "two versions and a raw key of `a` and `y`, and the raw keys between");
    assert_eq!(kv.unsafe_destroy_range(destroy("y", "b")).await, UnsafeDestroyRangeResponse::default(), "no keys");
    assert_eq!(count(&node), 2 * 3 + 2);
    node.state.lock().regions.get_mut(&RegionId(LEFT)).unwrap().1 = Some(peer_of(LEFT, 3));
    assert_eq!(kv.unsafe_destroy_range(destroy("", "")).await, UnsafeDestroyRangeResponse::default());
    assert_eq!(count(&node), 2 + 4, "the store that leads the other region gets the request, too");
    let foreign = Some(Context { cluster_id: 5, ..Default::default() });
    let answer = kv.unsafe_destroy_range(UnsafeDestroyRangeRequest { context: foreign, ..destroy("", "") }).await;
    assert!(answer.error.contains("mismatch cluster id"), "{answer:?}");
}

#[tokio::test]
async fn a_region_whose_leader_moves_meanwhile_is_an_error() {
    let node = FakeNode::new();
    let kv = node.kv();
    fill(&kv, &["a"]).await;
    let moved = RegionError::NotLeader { region: RegionId(LEFT), leader: Some(peer_of(LEFT, 3)) };
    node.state.lock().errors.push_back(moved.clone().into());
    node.state.lock().on_pause = Some(|state| {
        state.regions.get_mut(&RegionId(LEFT)).unwrap().1 = Some(peer_of(LEFT, 3));
    });
    let error = kv.unsafe_destroy_range(destroy("", "")).await.error;
    assert!(error.contains("repeat") && error.contains(" 2 "), "{error}");
    assert!(count(&node) > 0);
    // The leader comes back, or the outcome was unknown: to delete it again does no harm.
    node.state.lock().regions.get_mut(&RegionId(LEFT)).unwrap().1 = Some(peer_of(LEFT, 1));
    node.state.lock().on_pause = None;
    node.state.lock().errors.extend([moved.into(), NodeError::Undetermined]);
    assert_eq!(kv.unsafe_destroy_range(destroy("", "")).await, UnsafeDestroyRangeResponse::default());
    assert_eq!(count(&node), 1, "a raw key is another application's");
    node.state.lock().errors.push_back(NodeError::DiskFull);
    assert!(!kv.unsafe_destroy_range(destroy("", "")).await.error.is_empty());
}

#[tokio::test]
async fn a_keyspace_is_destroyed_alone() {
    let node = FakeNode::new();
    let kv = node.kv();
    fill(&kv, &["x\0\0\x01k", "x\0\0\x02k"]).await;
    let v2 = Some(Context { api_version: ApiVersion::V2 as i32, ..Default::default() });
    let request = UnsafeDestroyRangeRequest { context: v2.clone(), ..destroy("x\0\0\x01", "x\0\0\x02") };
    assert_eq!(kv.unsafe_destroy_range(request).await, UnsafeDestroyRangeResponse::default());
    assert!(!finds(&kv, "x\0\0\x01k").await && finds(&kv, "x\0\0\x02k").await);
    assert_eq!(count(&node), 2 + 2, "raw keys of version 1 are not of the keyspace");
    let wrong = UnsafeDestroyRangeRequest { context: v2, ..destroy("", "") };
    assert!(kv.unsafe_destroy_range(wrong).await.error.contains("API version 2"));
}
