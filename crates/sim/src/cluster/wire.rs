//! What clients of a simulated cluster say to a node: the real wire's messages, with a number for the method in place
//! of gRPC's path.

use bytes::Bytes;
use kontiki_placement as placement;
use kontiki_proto::{errorpb, kvrpcpb, metapb};
use prost::Message;

/// A request.
#[derive(Clone, PartialEq, Message)]
pub struct Request {
    /// What is asked.
    #[prost(oneof = "Ask", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10")]
    pub ask: Option<Ask>,
}

/// What can be asked.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Ask {
    /// A placement call.
    #[prost(message, tag = "1")]
    Placement(placement::Request),
    /// RawGet.
    #[prost(message, tag = "2")]
    RawGet(kvrpcpb::RawGetRequest),
    /// RawPut.
    #[prost(message, tag = "3")]
    RawPut(kvrpcpb::RawPutRequest),
    /// RawDelete.
    #[prost(message, tag = "4")]
    RawDelete(kvrpcpb::RawDeleteRequest),
    /// KvGet.
    #[prost(message, tag = "5")]
    Get(kvrpcpb::GetRequest),
    /// KvPrewrite.
    #[prost(message, tag = "6")]
    Prewrite(kvrpcpb::PrewriteRequest),
    /// KvCommit.
    #[prost(message, tag = "7")]
    Commit(kvrpcpb::CommitRequest),
    /// KvCheckTxnStatus.
    #[prost(message, tag = "8")]
    CheckTxnStatus(kvrpcpb::CheckTxnStatusRequest),
    /// KvResolveLock.
    #[prost(message, tag = "9")]
    ResolveLock(kvrpcpb::ResolveLockRequest),
    /// KvBatchRollback.
    #[prost(message, tag = "10")]
    BatchRollback(kvrpcpb::BatchRollbackRequest),
}

/// An answer.
#[derive(Clone, PartialEq, Message)]
pub struct Answer {
    /// What came of it.
    #[prost(oneof = "Told", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11")]
    pub told: Option<Told>,
}

/// What can come of a request: the answer of its method.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Told {
    /// A placement call.
    #[prost(message, tag = "1")]
    Placement(placement::Response),
    /// RawGet.
    #[prost(message, tag = "2")]
    RawGet(kvrpcpb::RawGetResponse),
    /// RawPut.
    #[prost(message, tag = "3")]
    RawPut(kvrpcpb::RawPutResponse),
    /// RawDelete.
    #[prost(message, tag = "4")]
    RawDelete(kvrpcpb::RawDeleteResponse),
    /// KvGet.
    #[prost(message, tag = "5")]
    Get(kvrpcpb::GetResponse),
    /// KvPrewrite.
    #[prost(message, tag = "6")]
    Prewrite(kvrpcpb::PrewriteResponse),
    /// KvCommit.
    #[prost(message, tag = "7")]
    Commit(kvrpcpb::CommitResponse),
    /// KvCheckTxnStatus.
    #[prost(message, tag = "8")]
    CheckTxnStatus(kvrpcpb::CheckTxnStatusResponse),
    /// KvResolveLock.
    #[prost(message, tag = "9")]
    ResolveLock(kvrpcpb::ResolveLockResponse),
    /// KvBatchRollback.
    #[prost(message, tag = "10")]
    BatchRollback(kvrpcpb::BatchRollbackResponse),
    /// No answer of the method's own: what gRPC would say with a status.
    #[prost(string, tag = "11")]
    Status(String),
}

impl Ask {
    /// Addresses the request to the replica of region 2 on `store`. The first regions of a cluster never change here,
    /// and no key of any workload lies in the empty tail.
    pub fn address(&mut self, store: u64) {
        let context = Some(kvrpcpb::Context {
            region_id: 2,
            region_epoch: Some(metapb::RegionEpoch { conf_ver: 1, version: 1 }),
            peer: Some(metapb::Peer { id: 2_000 + store, store_id: store, ..Default::default() }),
            ..Default::default()
        });
        match self {
            Ask::Placement(_) => {}
            Ask::RawGet(request) => request.context = context,
            Ask::RawPut(request) => request.context = context,
            Ask::RawDelete(request) => request.context = context,
            Ask::Get(request) => request.context = context,
            Ask::Prewrite(request) => request.context = context,
            Ask::Commit(request) => request.context = context,
            Ask::CheckTxnStatus(request) => request.context = context,
            Ask::ResolveLock(request) => request.context = context,
            Ask::BatchRollback(request) => request.context = context,
        }
    }

    /// Whether it may be asked again although it may have been done: raw writes may not (a second copy could undo
    /// another client's write in between), everything else is idempotent by design.
    pub fn may_repeat(&self) -> bool {
        !matches!(self, Ask::RawPut(_) | Ask::RawDelete(_))
    }

    /// The bytes of the request.
    pub fn into_bytes(self) -> Bytes {
        Request { ask: Some(self) }.encode_to_vec().into()
    }
}

impl Told {
    /// The region error of the answer: nothing was done.
    pub fn region_error(&self) -> Option<&errorpb::Error> {
        match self {
            Told::Placement(_) | Told::Status(_) => None,
            Told::RawGet(answer) => answer.region_error.as_ref(),
            Told::RawPut(answer) => answer.region_error.as_ref(),
            Told::RawDelete(answer) => answer.region_error.as_ref(),
            Told::Get(answer) => answer.region_error.as_ref(),
            Told::Prewrite(answer) => answer.region_error.as_ref(),
            Told::Commit(answer) => answer.region_error.as_ref(),
            Told::CheckTxnStatus(answer) => answer.region_error.as_ref(),
            Told::ResolveLock(answer) => answer.region_error.as_ref(),
            Told::BatchRollback(answer) => answer.region_error.as_ref(),
        }
    }

    /// The text of an answer that is neither a result nor a refusal: of a write, nobody knows whether it was done.
    pub fn doubt(&self) -> Option<&str> {
        let text = match self {
            Told::Status(text) => return Some(text),
            Told::RawGet(answer) => &answer.error,
            Told::RawPut(answer) => &answer.error,
            Told::RawDelete(answer) => &answer.error,
            _ => return None,
        };
        Some(text.as_str()).filter(|text| !text.is_empty())
    }

    /// The bytes of the answer.
    pub fn into_bytes(self) -> Bytes {
        Answer { told: Some(self) }.encode_to_vec().into()
    }
}
