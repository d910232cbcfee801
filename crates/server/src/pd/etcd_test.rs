use super::super::tests::answering;
use super::*;
use crate::kv::fake::CLUSTER;
use etcdserverpb::{KeyValue, RangeRequest};
use kontiki_placement::{ClusterInfo, GcPoints, Store, StoreInfo};

fn points(txn_safe_point: u64) -> Outcome {
    Outcome::GcPoints(GcPoints { txn_safe_point, gc_safe_point: 0, barriers: Vec::new() })
}

async fn range(safe_point: u64, request: RangeRequest) -> etcdserverpb::RangeResponse {
    let (_, pd) = answering([points(safe_point)]);
    pd.etcd_range(request).await.unwrap()
}

fn key(key: &'static [u8]) -> RangeRequest {
    RangeRequest { key: Bytes::from_static(key), ..Default::default() }
}

#[tokio::test]
async fn the_safe_point_is_a_key_with_decimal_digits() {
    let answer = range(429_496_729_600, key(SAFE_POINT_KEY)).await;
    let header = answer.header.unwrap();
    assert_eq!((header.cluster_id, header.member_id), (CLUSTER, 1));
    let expected = KeyValue {
        key: Bytes::from_static(SAFE_POINT_KEY),
        create_revision: 1,
        mod_revision: 429_496_729_600,
        version: 1,
        value: "429496729600".into(),
    };
    assert_eq!((answer.kvs, answer.count, header.revision), (vec![expected], 1, 429_496_729_600));
}

#[tokio::test]
async fn a_safe_point_of_zero_is_an_absent_key_and_so_are_all_others() {
    for (safe_point, request) in [(0, key(SAFE_POINT_KEY)), (5, key(b"/tidb/store/gcworker")), (5, key(b"x"))] {
        let answer = range(safe_point, request).await;
        assert_eq!((answer.kvs, answer.count), (vec![], 0));
        assert!(answer.header.unwrap().revision >= 1);
    }
}

#[tokio::test]
async fn ranges_are_those_of_etcd() {
    let with_end = |start, end: &'static [u8]| RangeRequest { range_end: Bytes::from_static(end), ..key(start) };
    for (request, count) in [
        (with_end(b"/tidb/", b"/tidb0"), 1),
        (with_end(b"\0", b"\0"), 1),
        (with_end(b"/zzz", b"\0"), 0),
        (with_end(b"/a", SAFE_POINT_KEY), 0),
        (RangeRequest { count_only: true, ..key(SAFE_POINT_KEY) }, 1),
        (RangeRequest { keys_only: true, ..key(SAFE_POINT_KEY) }, 1),
    ] {
        let (count_only, keys_only) = (request.count_only, request.keys_only);
        let answer = range(5, request).await;
        assert_eq!((answer.count, answer.kvs.len() as i64), (count, if count_only { 0 } else { count }));
        assert!(answer.kvs.iter().all(|found| found.value.is_empty() == keys_only));
    }
    let (_, pd) = answering([points(5)]);
    let old = RangeRequest { revision: 4, ..key(SAFE_POINT_KEY) };
    assert!(matches!(pd.etcd_range(old).await, Err(PdError::Invalid(_))), "the past is not kept");
}

#[tokio::test]
async fn every_member_has_a_name_and_a_url() {
    let store = |id| Store { id, address: format!("host:{id}"), ..Default::default() };
    let info = |id| StoreInfo { store: store(id), stats: None, silent_ms: None };
    let cluster = ClusterInfo { members: vec![info(1), info(2)], ..Default::default() };
    let (_, pd) = answering([Outcome::Cluster(cluster), points(0)]);
    let answer = pd.etcd_members().await.unwrap();
    assert!(answer.header.is_some_and(|header| header.cluster_id != 0 && header.member_id != 0));
    let urls: Vec<_> = answer.members.iter().map(|member| member.client_ur_ls[0].as_str()).collect();
    assert_eq!(urls, ["http://host:1", "http://host:2"]);
    assert!(answer.members.iter().all(|member| !member.name.is_empty() && member.id != 0));
}
