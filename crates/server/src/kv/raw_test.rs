//! Raw calls and routing over a node that is a map.

use super::fake::*;
use crate::driver::NodeError;
use bytes::Bytes;
use kontiki_proto::kvrpcpb::*;
use kontiki_proto::{errorpb, metapb};
use kontiki_raftstore::{RegionError, RegionId};

fn b(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn put(key: &'static str, value: &'static str) -> RawPutRequest {
    let region = if key.as_bytes() < SPLIT { LEFT } else { RIGHT };
    RawPutRequest { context: context(region), key: b(key), value: b(value), ..Default::default() }
}

fn scan(region: u64, start: &'static str, end: &'static str, limit: u32) -> RawScanRequest {
    RawScanRequest { context: context(region), start_key: b(start), end_key: b(end), limit, ..Default::default() }
}

fn keys(kvs: &[KvPair]) -> Vec<&str> {
    kvs.iter().map(|pair| std::str::from_utf8(&pair.key).unwrap()).collect()
}

#[tokio::test]
async fn what_is_put_is_read_until_it_is_deleted() {
    let kv = FakeNode::new().kv();
    assert_eq!(kv.raw_put(put("a", "1")).await, RawPutResponse::default());
    assert_eq!(kv.raw_put(put("empty", "")).await, RawPutResponse::default());
    let get = |key| RawGetRequest { context: context(LEFT), key: b(key), ..Default::default() };
    assert_eq!(kv.raw_get(get("a")).await, RawGetResponse { value: b("1"), ..Default::default() });
    assert_eq!(kv.raw_get(get("empty")).await, RawGetResponse::default(), "found, and empty");
    assert!(kv.raw_get(get("b")).await.not_found);

    let delete = RawDeleteRequest { context: context(LEFT), key: b("a"), ..Default::default() };
    assert_eq!(kv.raw_delete(delete).await, RawDeleteResponse::default());
    assert!(kv.raw_get(get("a")).await.not_found);
}

#[tokio::test]
async fn batches_are_one_write_and_gets_answer_what_was_found() {
    let node = FakeNode::new();
    let kv = node.kv();
    let pair = |key, value| KvPair { key: b(key), value: b(value), ..Default::default() };
    let pairs = vec![pair("a", "1"), pair("b", "2"), pair("c", "3")];
    let request = RawBatchPutRequest { context: context(LEFT), pairs: pairs.clone(), ..Default::default() };
    assert_eq!(kv.raw_batch_put(request).await, RawBatchPutResponse::default());
    assert_eq!(node.state.lock().writes, 1);

    let request =
        RawBatchGetRequest { context: context(LEFT), keys: vec![b("c"), b("x"), b("a")], ..Default::default() };
    // "x" is in the other region.
    assert!(kv.raw_batch_get(request).await.region_error.unwrap().key_not_in_region.is_some());
    let request =
        RawBatchGetRequest { context: context(LEFT), keys: vec![b("c"), b("d"), b("a")], ..Default::default() };
    assert_eq!(kv.raw_batch_get(request).await.pairs, [pairs[2].clone(), pairs[0].clone()]);

    let request = RawBatchDeleteRequest { context: context(LEFT), keys: vec![b("a"), b("c")], ..Default::default() };
    assert_eq!(kv.raw_batch_delete(request).await, RawBatchDeleteResponse::default());
    assert_eq!(keys(&kv.raw_scan(scan(LEFT, "", "", 9)).await.kvs), ["b"]);
}

#[tokio::test]
async fn scans_are_clipped_to_the_region_in_both_directions() {
    let kv = FakeNode::new().kv();
    for key in ["a", "b", "c", "x", "y", "z"] {
        kv.raw_put(put(key, "v")).await;
    }
    assert_eq!(keys(&kv.raw_scan(scan(LEFT, "", "", 9)).await.kvs), ["a", "b", "c"]);
    assert_eq!(keys(&kv.raw_scan(scan(LEFT, "b", "y", 9)).await.kvs), ["b", "c"]);
    assert_eq!(keys(&kv.raw_scan(scan(RIGHT, "b", "y", 9)).await.kvs), ["x"]);
    assert_eq!(keys(&kv.raw_scan(scan(RIGHT, "", "", 2)).await.kvs), ["x", "y"]);
    assert_eq!(keys(&kv.raw_scan(scan(LEFT, "x", "", 9)).await.kvs), [""; 0]);
    assert_eq!(keys(&kv.raw_scan(scan(LEFT, "c", "b", 9)).await.kvs), [""; 0]);
    assert_eq!(keys(&kv.raw_scan(scan(LEFT, "", "", 0)).await.kvs), [""; 0]);

    // In reverse the start is the exclusive upper bound and the end the inclusive lower one.
    let reverse = |region, start, end| RawScanRequest { reverse: true, ..scan(region, start, end, 9) };
    assert_eq!(keys(&kv.raw_scan(reverse(RIGHT, "", "")).await.kvs), ["z", "y", "x"]);
    assert_eq!(keys(&kv.raw_scan(reverse(RIGHT, "z", "a")).await.kvs), ["y", "x"]);
    assert_eq!(keys(&kv.raw_scan(reverse(LEFT, "z", "b")).await.kvs), ["c", "b"]);

    let key_only = RawScanRequest { key_only: true, ..scan(LEFT, "", "", 1) };
    assert!(kv.raw_scan(key_only).await.kvs[0].value.is_empty());
    let range = |start, end| KeyRange { start_key: b(start), end_key: b(end) };
    let request = RawBatchScanRequest {
        context: context(LEFT),
        ranges: vec![range("a", "b"), range("b", "")],
        each_limit: 1,
        ..Default::default()
    };
    assert_eq!(keys(&kv.raw_batch_scan(request).await.kvs), ["a", "b"]);
}

#[tokio::test]
async fn a_range_delete_takes_what_lies_in_range_and_region() {
    let node = FakeNode::new();
    let kv = node.kv();
    for key in ["a", "b", "c", "x"] {
        kv.raw_put(put(key, "v")).await;
    }
    let request =
        RawDeleteRangeRequest { context: context(LEFT), start_key: b("b"), end_key: b("z"), ..Default::default() };
    assert_eq!(kv.raw_delete_range(request).await, RawDeleteRangeResponse::default());
    assert_eq!(keys(&kv.raw_scan(scan(LEFT, "", "", 9)).await.kvs), ["a"]);
    assert_eq!(keys(&kv.raw_scan(scan(RIGHT, "", "", 9)).await.kvs), ["x"]);
}

#[tokio::test]
async fn a_large_range_delete_is_one_small_write() {
    let node = FakeNode::new();
    let kv = node.kv();
    let pair = |i: u32| KvPair { key: Bytes::from(format!("a{i:0>1000}")), ..Default::default() };
    let request =
        RawBatchPutRequest { context: context(LEFT), pairs: (0..600).map(pair).collect(), ..Default::default() };
    assert_eq!(kv.raw_batch_put(request).await, RawBatchPutResponse::default());
    let request = RawDeleteRangeRequest { context: context(LEFT), ..Default::default() };
    assert_eq!(kv.raw_delete_range(request).await, RawDeleteRangeResponse::default());
    assert!(kv.raw_scan(scan(LEFT, "", "", 1)).await.kvs.is_empty());
    assert_eq!(node.state.lock().writes, 1 + 1);
    // A range without keys is none of the region's business.
    let request =
        RawDeleteRangeRequest { context: context(LEFT), start_key: b("x"), end_key: b("z"), ..Default::default() };
    assert_eq!(kv.raw_delete_range(request).await, RawDeleteRangeResponse::default());
    assert_eq!(node.state.lock().writes, 1 + 1);
}

async fn region_error_of(change: impl FnOnce(&mut Context)) -> errorpb::Error {
    let mut request = put("a", "1");
    change(request.context.as_mut().unwrap());
    let answer = FakeNode::new().kv().raw_put(request).await;
    assert_eq!(answer.error, "", "a region error has no other fields beside it");
    answer.region_error.unwrap()
}

#[tokio::test]
async fn the_first_wrong_thing_is_the_answer() {
    // Each case also has everything wrong that is checked later.
    fn stale_epoch(context: &mut Context) {
        context.region_epoch = Some(metapb::RegionEpoch { conf_ver: 1, version: 4 });
    }
    let error = region_error_of(|context| {
        context.cluster_id = 5;
        context.peer.as_mut().unwrap().store_id = 9;
    });
    assert!(error.await.message.contains("mismatch cluster id"));
    let error = region_error_of(|context| {
        context.peer.as_mut().unwrap().store_id = 9;
        context.region_id = 99;
    });
    let expected = errorpb::StoreNotMatch { request_store_id: 9, actual_store_id: 1 };
    assert_eq!(error.await.store_not_match, Some(expected));
    let error = region_error_of(|context| {
        context.region_id = 99;
        stale_epoch(context);
    });
    assert_eq!(error.await.region_not_found.unwrap().region_id, 99);
    // Clients cannot address the placement group.
    assert!(region_error_of(|context| context.region_id = 1).await.region_not_found.is_some());

    let error = region_error_of(stale_epoch).await.epoch_not_match.unwrap();
    // The region, and the next one: it may have taken a part of the range.
    assert_eq!(error.current_regions.len(), 2);
    assert_eq!(error.current_regions[0].region_epoch.unwrap().version, 5);
    assert_eq!(error.current_regions[0].peers.len(), 3);

    let error = region_error_of(|context| context.region_id = RIGHT).await.key_not_in_region.unwrap();
    assert_eq!((error.key, error.region_id), (b("a"), RIGHT));
}

#[tokio::test]
async fn another_leader_is_named_at_once() {
    let node = FakeNode::new();
    node.state.lock().regions.get_mut(&RegionId(LEFT)).unwrap().1 = Some(peer_of(LEFT, 3));
    let mut request = put("a", "1");
    request.context.as_mut().unwrap().region_epoch = None;
    let error = node.kv().raw_put(request).await.region_error.unwrap();
    let leader = error.not_leader.unwrap().leader.unwrap();
    assert_eq!((leader.id, leader.store_id), (LEFT * 1000 + 3, 3));
    assert_eq!(node.state.lock().pauses, 0);
}

#[tokio::test]
async fn a_request_waits_for_a_leader_and_then_goes_on() {
    let node = FakeNode::new();
    {
        let mut state = node.state.lock();
        state.regions.get_mut(&RegionId(LEFT)).unwrap().1 = None;
        state.on_pause = Some(|state| {
            if state.pauses == 3 {
                state.regions.get_mut(&RegionId(LEFT)).unwrap().1 = Some(peer_of(LEFT, 1));
            }
        });
    }
    assert_eq!(node.kv().raw_put(put("a", "1")).await, RawPutResponse::default());
    assert_eq!(node.state.lock().pauses, 3);
}

#[tokio::test]
async fn patience_ends() {
    let node = FakeNode::new();
    node.state.lock().regions.get_mut(&RegionId(LEFT)).unwrap().1 = None;
    let error = node.kv().raw_put(put("a", "1")).await.region_error.unwrap();
    assert_eq!(error.not_leader.unwrap().leader, None);
    assert_eq!(node.state.lock().pauses, 10, "100 ms in steps of 10");
    // A client that asks for less waits less.
    let mut request = put("a", "1");
    request.context.as_mut().unwrap().max_execution_duration_ms = 25;
    node.kv().raw_put(request).await;
    assert_eq!(node.state.lock().pauses, 10 + 3);
}

#[tokio::test]
async fn refusals_that_pass_are_tried_again_and_unknown_outcomes_never() {
    let node = FakeNode::new();
    let busy = RegionError::ServerIsBusy { region: RegionId(LEFT), reason: "full".into() };
    node.state.lock().errors.extend([NodeError::Busy("full"), busy.into()]);
    assert_eq!(node.kv().raw_put(put("a", "1")).await, RawPutResponse::default());
    assert_eq!(node.counts(), (2, 1));

    node.state.lock().errors.push_back(NodeError::Undetermined);
    let answer = node.kv().raw_put(put("a", "2")).await;
    let error = answer.region_error.unwrap();
    assert!(error.stale_command.is_some() && error.message.contains("unknown"), "{error:?}");
    assert_eq!(answer.error, "");
    assert_eq!(node.counts(), (2, 1));

    node.state.lock().errors.push_back(NodeError::DiskFull);
    assert!(node.kv().raw_put(put("a", "2")).await.region_error.unwrap().disk_full.is_some());
    node.state.lock().errors.push_back(NodeError::Stopped("bye".into()));
    let error = node.kv().raw_put(put("a", "2")).await.region_error.unwrap();
    assert_eq!(error, errorpb::Error { message: error.message.clone(), ..Default::default() });
}

#[tokio::test]
async fn what_is_not_served_is_refused_before_anything_is_written() {
    let node = FakeNode::new();
    let kv = node.kv();
    let ttl = RawPutRequest { ttl: u64::MAX, ..put("a", "1") };
    assert!(kv.raw_put(ttl).await.error.contains("18446744073709551615 s"));
    let batch = RawBatchPutRequest {
        context: context(LEFT),
        pairs: vec![KvPair { key: b("a"), ..Default::default() }],
        ttls: vec![0, 7],
        ..Default::default()
    };
    assert!(kv.raw_batch_put(batch).await.error.contains("2 times to live for 1 pairs"));
    let family = RawPutRequest { cf: "raft".into(), ..put("a", "1") };
    assert!(kv.raw_put(family).await.error.contains("`raft`"));
    let family = RawScanRequest { cf: "logs".into(), ..scan(LEFT, "", "", 1) };
    let refused = kv.raw_scan(family).await;
    assert!(refused.region_error.is_none(), "clients would try again for seconds");
    assert!(refused.kvs[0].error.as_ref().unwrap().abort.contains("`logs`"), "{refused:?}");
    let family = RawBatchGetRequest { cf: "logs".into(), context: context(LEFT), ..Default::default() };
    assert!(kv.raw_batch_get(family).await.pairs[0].error.as_ref().unwrap().abort.contains("`logs`"));
    let mut v2 = put("a", "1");
    v2.context.as_mut().unwrap().api_version = ApiVersion::V2 as i32;
    assert!(kv.raw_put(v2).await.error.contains("API version 2"));
    let mut v3 = put("a", "1");
    v3.context.as_mut().unwrap().api_version = ApiVersion::V3 as i32;
    assert!(kv.raw_put(v3).await.error.contains("API version 3"));
    let coprocessor = RawCoprocessorRequest { context: context(LEFT), copr_name: "sum".into(), ..Default::default() };
    assert!(kv.raw_coprocessor(coprocessor).await.error.contains("`sum`"));
    let checksum = RawChecksumRequest { context: context(LEFT), algorithm: 7, ..Default::default() };
    assert!(kv.raw_checksum(checksum).await.error.contains("algorithm 7"));
    let huge = RawPutRequest { key: vec![b'a'; 70_000].into(), ..put("a", "1") };
    assert!(kv.raw_put(huge).await.error.contains("65536"));
    let nowhere = RawPutRequest { context: None, ..put("a", "1") };
    assert!(kv.raw_put(nowhere).await.error.contains("context"));
    assert_eq!(node.state.lock().writes, 0);
}

/// A hint at this node itself would bring the client back at once, and use up its tries.
#[tokio::test]
async fn who_leads_and_does_not_serve_yet_names_nobody() {
    let node = FakeNode::new();
    let error = RegionError::NotLeader { region: RegionId(LEFT), leader: Some(peer_of(LEFT, 1)) };
    node.state.lock().errors.push_back(error.clone().into());
    assert_eq!(node.kv().raw_put(put("a", "1")).await, RawPutResponse::default());
    assert_eq!(node.counts(), (1, 1));
    node.state.lock().errors.extend((0..100).map(|_| NodeError::from(error.clone())));
    let refused = node.kv().raw_put(put("a", "2")).await.region_error.unwrap().not_leader.unwrap();
    assert_eq!((refused.region_id, refused.leader), (LEFT, None));
}

/// 40 values of 2 MiB: more than one answer may hold. A truncated answer would mean that there are no more.
#[tokio::test]
async fn an_answer_beyond_its_bound_is_refused_and_fewer_keys_are_answered() {
    let kv = FakeNode::new().kv();
    let name = |i: u32| Bytes::from(format!("k{i:02}"));
    for i in 0..40 {
        let value = Bytes::from(vec![0; 2 << 20]);
        let request = RawPutRequest { context: context(LEFT), key: name(i), value, ..Default::default() };
        assert_eq!(kv.raw_put(request).await, RawPutResponse::default());
    }
    let too_large = |pairs: &[KvPair]| match pairs {
        [KvPair { error: Some(error), .. }] => error.abort.starts_with(kontiki_proto::ANSWER_TOO_LARGE),
        _ => false,
    };
    assert!(too_large(&kv.raw_scan(scan(LEFT, "", "", 1_000)).await.kvs));
    let ranges = (0..4).map(|i| KeyRange { start_key: name(10 * i), end_key: name(10 * (i + 1)) }).collect();
    let request = RawBatchScanRequest { context: context(LEFT), ranges, each_limit: 20, ..Default::default() };
    assert!(too_large(&kv.raw_batch_scan(request).await.kvs));
    let request =
        RawBatchGetRequest { context: context(LEFT), keys: (0..40).map(name).collect(), ..Default::default() };
    assert!(too_large(&kv.raw_batch_get(request).await.pairs));

    assert_eq!(kv.raw_scan(scan(LEFT, "", "", 20)).await.kvs.len(), 20);
    assert_eq!(kv.raw_scan(RawScanRequest { key_only: true, ..scan(LEFT, "", "", 1_000) }).await.kvs.len(), 40);
}
