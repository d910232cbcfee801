//! The messages between clients and nodes of a simulated cluster: those of the real protocol, with a number for the
//! method instead of gRPC's path.

use bytes::Bytes;
use kontiki_placement as placement;
use kontiki_proto::{errorpb, kvrpcpb, metapb};
use kontiki_raftstore::RegionId;
use prost::Message;

/// The prefix of every user key of the last region: the first bytes of the region's start, unchanged for raw keys and
/// before their encoding for transactional ones.
pub const TAIL_RAW: &[u8] = &[0xFF; 18];
/// See [`TAIL_RAW`].
pub const TAIL_TXN: &[u8] = &[0xFF; 16];

/// A request.
#[derive(Clone, PartialEq, Message)]
pub struct Request {
    /// The request of a method.
    #[prost(oneof = "Ask", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20")]
    pub ask: Option<Ask>,
}

/// The requests of all methods.
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
    /// RawBatchGet.
    #[prost(message, tag = "5")]
    RawBatchGet(kvrpcpb::RawBatchGetRequest),
    /// RawBatchPut.
    #[prost(message, tag = "6")]
    RawBatchPut(kvrpcpb::RawBatchPutRequest),
    /// RawBatchDelete.
    #[prost(message, tag = "7")]
    RawBatchDelete(kvrpcpb::RawBatchDeleteRequest),
    /// RawScan.
    #[prost(message, tag = "8")]
    RawScan(kvrpcpb::RawScanRequest),
    /// RawDeleteRange.
    #[prost(message, tag = "9")]
    RawDeleteRange(kvrpcpb::RawDeleteRangeRequest),
    /// KvGet.
    #[prost(message, tag = "10")]
    Get(kvrpcpb::GetRequest),
    /// KvBatchGet.
    #[prost(message, tag = "11")]
    BatchGet(kvrpcpb::BatchGetRequest),
    /// KvScan.
    #[prost(message, tag = "12")]
    Scan(kvrpcpb::ScanRequest),
    /// KvPrewrite.
    #[prost(message, tag = "13")]
    Prewrite(kvrpcpb::PrewriteRequest),
    /// KvCommit.
    #[prost(message, tag = "14")]
    Commit(kvrpcpb::CommitRequest),
    /// KvCheckTxnStatus.
    #[prost(message, tag = "15")]
    CheckTxnStatus(kvrpcpb::CheckTxnStatusRequest),
    /// KvResolveLock.
    #[prost(message, tag = "16")]
    ResolveLock(kvrpcpb::ResolveLockRequest),
    /// KvBatchRollback.
    #[prost(message, tag = "17")]
    BatchRollback(kvrpcpb::BatchRollbackRequest),
    /// KvCleanup.
    #[prost(message, tag = "18")]
    Cleanup(kvrpcpb::CleanupRequest),
    /// KvTxnHeartBeat.
    #[prost(message, tag = "19")]
    TxnHeartBeat(kvrpcpb::TxnHeartBeatRequest),
    /// KvScanLock.
    #[prost(message, tag = "20")]
    ScanLock(kvrpcpb::ScanLockRequest),
}

/// An answer.
#[derive(Clone, PartialEq, Message)]
pub struct Answer {
    /// The answer of the method.
    #[prost(oneof = "Response", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21")]
    pub response: Option<Response>,
}

/// The answers of all methods.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Response {
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
    /// RawBatchGet.
    #[prost(message, tag = "5")]
    RawBatchGet(kvrpcpb::RawBatchGetResponse),
    /// RawBatchPut.
    #[prost(message, tag = "6")]
    RawBatchPut(kvrpcpb::RawBatchPutResponse),
    /// RawBatchDelete.
    #[prost(message, tag = "7")]
    RawBatchDelete(kvrpcpb::RawBatchDeleteResponse),
    /// RawScan.
    #[prost(message, tag = "8")]
    RawScan(kvrpcpb::RawScanResponse),
    /// RawDeleteRange.
    #[prost(message, tag = "9")]
    RawDeleteRange(kvrpcpb::RawDeleteRangeResponse),
    /// KvGet.
    #[prost(message, tag = "10")]
    Get(kvrpcpb::GetResponse),
    /// KvBatchGet.
    #[prost(message, tag = "11")]
    BatchGet(kvrpcpb::BatchGetResponse),
    /// KvScan.
    #[prost(message, tag = "12")]
    Scan(kvrpcpb::ScanResponse),
    /// KvPrewrite.
    #[prost(message, tag = "13")]
    Prewrite(kvrpcpb::PrewriteResponse),
    /// KvCommit.
    #[prost(message, tag = "14")]
    Commit(kvrpcpb::CommitResponse),
    /// KvCheckTxnStatus.
    #[prost(message, tag = "15")]
    CheckTxnStatus(kvrpcpb::CheckTxnStatusResponse),
    /// KvResolveLock.
    #[prost(message, tag = "16")]
    ResolveLock(kvrpcpb::ResolveLockResponse),
    /// KvBatchRollback.
    #[prost(message, tag = "17")]
    BatchRollback(kvrpcpb::BatchRollbackResponse),
    /// KvCleanup.
    #[prost(message, tag = "18")]
    Cleanup(kvrpcpb::CleanupResponse),
    /// KvTxnHeartBeat.
    #[prost(message, tag = "19")]
    TxnHeartBeat(kvrpcpb::TxnHeartBeatResponse),
    /// KvScanLock.
    #[prost(message, tag = "20")]
    ScanLock(kvrpcpb::ScanLockResponse),
    /// Not an answer of the method, but an error that gRPC would return as a status.
    #[prost(string, tag = "21")]
    Status(String),
}

/// The region of a raw key. The first regions of a cluster never change here.
pub fn raw_region(key: &[u8]) -> RegionId {
    RegionId(if key.starts_with(TAIL_RAW) { 3 } else { 2 })
}

/// The region of a transactional key.
pub fn txn_region(key: &[u8]) -> RegionId {
    RegionId(if key.starts_with(TAIL_TXN) { 3 } else { 2 })
}

/// One arm for each method of the key-value service.
macro_rules! each_method {
    ($value:expr, $request:ident => $do:expr, $($other:tt)*) => {
        match $value {
            $($other)*
            Self::RawGet($request) => $do,
            Self::RawPut($request) => $do,
            Self::RawDelete($request) => $do,
            Self::RawBatchGet($request) => $do,
            Self::RawBatchPut($request) => $do,
            Self::RawBatchDelete($request) => $do,
            Self::RawScan($request) => $do,
            Self::RawDeleteRange($request) => $do,
            Self::Get($request) => $do,
            Self::BatchGet($request) => $do,
            Self::Scan($request) => $do,
            Self::Prewrite($request) => $do,
            Self::Commit($request) => $do,
            Self::CheckTxnStatus($request) => $do,
            Self::ResolveLock($request) => $do,
            Self::BatchRollback($request) => $do,
            Self::Cleanup($request) => $do,
            Self::TxnHeartBeat($request) => $do,
            Self::ScanLock($request) => $do,
        }
    };
}

impl Ask {
    /// The region that the request goes to: that of its first key. Placement calls go to the placement group.
    pub fn region(&self) -> RegionId {
        let first = |keys: &[Bytes]| keys.first().cloned().unwrap_or_default();
        match self {
            Ask::Placement(_) => RegionId(1),
            Ask::RawGet(request) => raw_region(&request.key),
            Ask::RawPut(request) => raw_region(&request.key),
            Ask::RawDelete(request) => raw_region(&request.key),
            Ask::RawBatchGet(request) => raw_region(&first(&request.keys)),
            Ask::RawBatchPut(request) => raw_region(request.pairs.first().map_or(b"", |pair| &pair.key)),
            Ask::RawBatchDelete(request) => raw_region(&first(&request.keys)),
            // Both of its bounds are keys of one region here.
            Ask::RawScan(request) => raw_region(&request.start_key),
            Ask::RawDeleteRange(request) => raw_region(&request.start_key),
            Ask::Get(request) => txn_region(&request.key),
            Ask::BatchGet(request) => txn_region(&first(&request.keys)),
            Ask::Scan(request) => txn_region(&request.start_key),
            Ask::Prewrite(request) => txn_region(request.mutations.first().map_or(b"", |mutation| &mutation.key)),
            Ask::Commit(request) => txn_region(&first(&request.keys)),
            Ask::CheckTxnStatus(request) => txn_region(&request.primary_key),
            Ask::ResolveLock(request) => txn_region(&first(&request.keys)),
            Ask::BatchRollback(request) => txn_region(&first(&request.keys)),
            Ask::Cleanup(request) => txn_region(&request.key),
            Ask::TxnHeartBeat(request) => txn_region(&request.primary_lock),
            Ask::ScanLock(request) => txn_region(&request.start_key),
        }
    }

    /// Addresses the request to the replica of `region` on `store`. The client's knowledge of locks in the context is
    /// kept.
    pub fn address(&mut self, region: RegionId, store: u64) {
        let address = |context: &mut Option<kvrpcpb::Context>| {
            let context = context.get_or_insert_default();
            context.region_id = region.0;
            context.region_epoch = Some(metapb::RegionEpoch { conf_ver: 1, version: 1 });
            context.peer = Some(metapb::Peer { id: region.0 * 1_000 + store, store_id: store, ..Default::default() });
        };
        each_method!(self, request => address(&mut request.context), Self::Placement(_) => {})
    }

    /// Whether it may be repeated although it may have been executed: raw writes may not (a second copy could undo
    /// another client's write in between), everything else is idempotent by design.
    pub fn may_repeat(&self) -> bool {
        !matches!(
            self,
            Ask::RawPut(_) | Ask::RawDelete(_) | Ask::RawBatchPut(_) | Ask::RawBatchDelete(_) | Ask::RawDeleteRange(_)
        )
    }

    /// The bytes of the request.
    pub fn into_bytes(self) -> Bytes {
        Request { ask: Some(self) }.encode_to_vec().into()
    }
}

impl Response {
    /// The region error of the answer: the request had no effect.
    pub fn region_error(&self) -> Option<&errorpb::Error> {
        each_method!(self, answer => answer.region_error.as_ref(), Self::Placement(_) | Self::Status(_) => None,)
    }

    /// The text of an answer that is neither a result nor a refusal: whether a write was executed is unknown.
    pub fn doubt(&self) -> Option<&str> {
        let text = match self {
            Response::Status(text) => return Some(text),
            Response::RawGet(answer) => &answer.error,
            Response::RawPut(answer) => &answer.error,
            Response::RawDelete(answer) => &answer.error,
            Response::RawBatchPut(answer) => &answer.error,
            Response::RawBatchDelete(answer) => &answer.error,
            Response::RawDeleteRange(answer) => &answer.error,
            // A refusal is in a pair.
            Response::RawBatchGet(answer) => return refused_pair(&answer.pairs),
            Response::RawScan(answer) => return refused_pair(&answer.kvs),
            _ => return None,
        };
        Some(text.as_str()).filter(|text| !text.is_empty())
    }

    /// The bytes of the answer.
    pub fn into_bytes(self) -> Bytes {
        Answer { response: Some(self) }.encode_to_vec().into()
    }
}

/// The text of an error that a read of several keys reports instead of a key.
fn refused_pair(pairs: &[kvrpcpb::KvPair]) -> Option<&str> {
    pairs.iter().find_map(|pair| pair.error.as_ref()).map(|error| error.abort.as_str())
}
