//! Raw keys of all column families and API versions beside each other and beside transactions, over a node that is a
//! map.

use super::fake::*;
use crate::families::{DEFAULT, RAW_LOCK, RAW_V2, RAW_WRITE};
use bytes::Bytes;
use kontiki_proto::kvrpcpb::*;
use kontiki_txn::memcomparable_encode;

fn b(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn v2(region: u64) -> Option<Context> {
    context(region).map(|context| Context { api_version: ApiVersion::V2 as i32, ..context })
}

fn put(family: &str, value: &'static str) -> RawPutRequest {
    RawPutRequest { context: context(LEFT), key: b("k"), value: b(value), cf: family.into(), ..Default::default() }
}

#[tokio::test]
async fn column_families_are_spaces_of_their_own() {
    let node = FakeNode::new();
    let kv = node.kv();
    for (family, value) in [("", "1"), ("lock", "2"), ("write", "3")] {
        assert_eq!(kv.raw_put(put(family, value)).await, RawPutResponse::default());
    }
    let get = async |family: &str| {
        let request = RawGetRequest { context: context(LEFT), key: b("k"), cf: family.into() };
        let answer = kv.raw_get(request).await;
        (!answer.not_found).then_some(answer.value)
    };
    assert_eq!([get("default").await, get("lock").await, get("write").await], ["1", "2", "3"].map(|v| Some(b(v))));
    let places: Vec<_> = node.state.lock().data.keys().map(|(family, key)| (*family, key.clone())).collect();
    assert_eq!(places, [(DEFAULT, b("k")), (RAW_LOCK, b("k")), (RAW_WRITE, b("k"))]);

    let scan = RawScanRequest { context: context(LEFT), limit: 9, cf: "write".into(), ..Default::default() };
    assert_eq!(kv.raw_scan(scan).await.kvs[0].value, b("3"));
    let delete = RawDeleteRangeRequest { context: context(LEFT), cf: "lock".into(), ..Default::default() };
    assert_eq!(kv.raw_delete_range(delete).await, RawDeleteRangeResponse::default());
    assert_eq!([get("").await, get("lock").await, get("write").await], [Some(b("1")), None, Some(b("3"))]);
}

/// Region boundaries of the fake lie at the encoding of "m": keys of raw keyspaces are behind it.
#[tokio::test]
async fn keys_of_version_2_are_compared_in_their_encoding_and_do_not_meet_those_of_version_1() {
    let node = FakeNode::new();
    let kv = node.kv();
    let keys = ["r\0\0\x01a", "r\0\0\x01b", "r\0\0\x01c", "r\0\0\x02a"];
    for key in keys {
        let request = RawPutRequest { context: v2(RIGHT), key: b(key), value: b("2"), ..Default::default() };
        assert_eq!(kv.raw_put(request).await, RawPutResponse::default());
    }
    let one = RawPutRequest { context: context(RIGHT), key: b(keys[0]), value: b("1"), ..Default::default() };
    assert_eq!(kv.raw_put(one).await, RawPutResponse::default());
    let stored: Vec<_> = node.state.lock().data.keys().map(|(family, key)| (*family, key.clone())).collect();
    assert_eq!(stored[0], (DEFAULT, b(keys[0])));
    assert_eq!(stored[1], (RAW_V2, memcomparable_encode(keys[0].as_bytes()).into()));

    let get = RawGetRequest { context: v2(RIGHT), key: b(keys[0]), ..Default::default() };
    assert_eq!(kv.raw_get(get.clone()).await.value, b("2"));
    let elsewhere = kv.raw_get(RawGetRequest { context: v2(LEFT), ..get.clone() }).await.region_error.unwrap();
    assert_eq!(elsewhere.key_not_in_region.unwrap().key, memcomparable_encode(keys[0].as_bytes()));
    let all = RawScanRequest {
        context: v2(RIGHT),
        start_key: b("r\0\0\x01"),
        end_key: b("r\0\0\x02"),
        limit: 9,
        ..Default::default()
    };
    let found: Vec<_> = kv.raw_scan(all.clone()).await.kvs.into_iter().map(|pair| pair.key).collect();
    assert_eq!(found, [b(keys[0]), b(keys[1]), b(keys[2])]);
    let reverse =
        RawScanRequest { start_key: b("r\0\0\x01c"), end_key: b("r\0\0\x01"), reverse: true, limit: 1, ..all.clone() };
    assert_eq!(kv.raw_scan(reverse).await.kvs[0].key, b(keys[1]));
    assert!(kv.raw_scan(RawScanRequest { context: v2(LEFT), ..all.clone() }).await.kvs.is_empty());
    let batch = RawBatchGetRequest { context: v2(RIGHT), keys: vec![b(keys[3]), b(keys[1])], ..Default::default() };
    let found: Vec<_> = kv.raw_batch_get(batch).await.pairs.into_iter().map(|pair| pair.key).collect();
    assert_eq!(found, [b(keys[3]), b(keys[1])]);

    let ranges = vec![KeyRange { start_key: all.start_key.clone(), end_key: all.end_key.clone() }];
    let sum = kv.raw_checksum(RawChecksumRequest { context: v2(RIGHT), ranges, ..Default::default() }).await;
    assert_eq!((sum.total_kvs, sum.total_bytes), (3, 3 * (5 + 1)), "keys count with their prefix");
    let expected = keys[..3].iter().fold(0, |sum, key| sum ^ super::crc64::crc64(&[key.as_bytes(), b"2"]));
    assert_eq!(sum.checksum, expected);

    let delete = RawDeleteRangeRequest {
        context: v2(RIGHT),
        start_key: all.start_key.clone(),
        end_key: all.end_key.clone(),
        ..Default::default()
    };
    assert_eq!(kv.raw_delete_range(delete).await, RawDeleteRangeResponse::default());
    assert!(kv.raw_get(get.clone()).await.not_found);
    assert!(!kv.raw_get(RawGetRequest { context: context(RIGHT), ..get }).await.not_found, "that of version 1");
}

#[tokio::test]
async fn keys_of_another_mode_are_refused() {
    let node = FakeNode::new();
    let kv = node.kv();
    for wrong in ["k", "x\0\0\x01k", "r\0"] {
        let put = RawPutRequest { context: v2(RIGHT), key: b(wrong), ..Default::default() };
        assert!(kv.raw_put(put).await.error.contains("begins with `r`"), "{wrong}");
        let swap = RawCasRequest { context: v2(RIGHT), key: b(wrong), previous_not_exist: true, ..Default::default() };
        assert!(kv.raw_compare_and_swap(swap).await.error.contains("begins with `r`"));
    }
    let unbounded = RawDeleteRangeRequest { context: v2(RIGHT), start_key: b("r\0\0\x01"), ..Default::default() };
    assert!(kv.raw_delete_range(unbounded).await.error.contains("end"), "it would reach other keyspaces");
    let scan = RawScanRequest { context: v2(RIGHT), limit: 1, ..Default::default() };
    assert!(kv.raw_scan(scan).await.kvs[0].error.as_ref().unwrap().abort.contains("start"));
    // Transactions, the other way round. Region errors come first.
    let get = GetRequest { context: v2(RIGHT), key: b("r\0\0\x01k"), version: 5, ..Default::default() };
    assert!(kv.get(get.clone()).await.error.unwrap().abort.contains("begins with `x`"));
    let get = GetRequest { key: b("x\0\0\x01k"), ..get };
    assert!(kv.get(get).await.not_found);
    let scan =
        ScanRequest { context: v2(RIGHT), start_key: b("x\0\0\x01"), limit: 1, version: 5, ..Default::default() };
    assert!(kv.scan(scan.clone()).await.error.unwrap().abort.contains("end"));
    let scan = ScanRequest { end_key: b("x\0\0\x02"), ..scan };
    assert!(kv.scan(scan).await.error.is_none());
    let locks = ScanLockRequest { context: v2(RIGHT), start_key: b("k"), ..Default::default() };
    assert!(kv.scan_lock(locks).await.error.unwrap().abort.contains("start"));
    let all = ScanLockRequest { context: v2(RIGHT), ..Default::default() };
    assert_eq!(kv.scan_lock(all).await.error, None, "garbage collection");
    assert_eq!(node.state.lock().writes, 0);
}

#[tokio::test]
async fn boundaries_of_raw_keys_of_version_2_are_their_encodings() {
    let kv = FakeNode::new().kv();
    let split = |context: Option<Context>, key: &'static str| {
        kv.split_region(SplitRegionRequest { context, split_keys: vec![b(key)], is_raw_kv: true, ..Default::default() })
    };
    let regions = split(v2(RIGHT), "r\0\0\x01a key of some length").await.regions;
    assert_eq!(regions[1].start_key, memcomparable_encode(b"r\0\0\x01a key of some length"));
    let regions = split(context(LEFT), "a key of some length").await.regions;
    assert_eq!(regions[1].start_key, memcomparable_encode(b"a key of"));
}
