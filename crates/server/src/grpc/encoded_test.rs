use super::*;
use crate::kv::fake::{FakeNode, LEFT, context};
use kontiki_proto::calls::{Call, RawGet, RawPut};
use kontiki_proto::kvrpcpb::{RawGetRequest, RawGetResponse, RawPutRequest, RawPutResponse};
use std::sync::Arc;
use tonic::Code;

fn calls() -> EncodedCalls<FakeNode> {
    let node = FakeNode::new();
    EncodedCalls::new(node.kv(), Pd::new(node.clone(), node.retry_budget(), Arc::new(|_| true)))
}

#[tokio::test]
async fn a_call_is_served_by_its_path() {
    let calls = calls();
    let put = RawPutRequest { context: context(LEFT), key: "a".into(), value: "1".into(), ..Default::default() };
    let reply = calls.serve(RawPut::PATH, put.encode_to_vec().into()).await.unwrap();
    assert_eq!(RawPutResponse::decode(reply).unwrap(), RawPutResponse::default());
    let get = RawGetRequest { context: context(LEFT), key: "a".into(), ..Default::default() };
    let reply = calls.serve(RawGet::PATH, get.encode_to_vec().into()).await.unwrap();
    assert_eq!(RawGetResponse::decode(reply).unwrap().value, "1");
}

#[tokio::test]
async fn placement_calls_and_the_stream_of_timestamps_are_served_and_fail_with_their_status() {
    let calls = calls();
    // Placement does not answer here.
    for path in ["/pdpb.PD/GetMembers", TSO_PATH] {
        assert_eq!(calls.serve(path, Bytes::new()).await.unwrap_err().code(), Code::Unavailable, "{path}");
    }
    assert!(calls.serve("/pdpb.PD/GetClusterInfo", Bytes::new()).await.is_ok());
}

#[tokio::test]
async fn a_path_that_is_not_in_the_table_is_unimplemented() {
    let status = calls().serve("/tikvpb.Tikv/KvImport", Bytes::new()).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unimplemented, "/tikvpb.Tikv/KvImport"));
}

#[tokio::test]
async fn a_request_that_cannot_be_decoded_is_an_internal_error() {
    let status = calls().serve(RawGet::PATH, Bytes::from_static(&[0xff])).await.unwrap_err();
    assert_eq!(status.code(), Code::Internal);
}
