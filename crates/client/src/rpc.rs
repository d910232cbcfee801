//! Requests to stores, made alike: each carries a context and answers a region error or its result.

use kontiki_proto::tikvpb::tikv_client::TikvClient;
use kontiki_proto::{errorpb, kvrpcpb};
use std::future::Future;
use tonic::transport::Channel;
use tonic::{Request, Status};

/// A request of the key-value service.
pub(crate) trait KvRequest: Clone + Send + Sync + 'static {
    type Reply: Send + 'static;
    /// Whether a lost answer leaves an outcome unknown.
    const WRITES: bool;

    fn context(&mut self) -> &mut kvrpcpb::Context;
    fn send(
        request: Request<Self>,
        client: TikvClient<Channel>,
    ) -> impl Future<Output = Result<Self::Reply, Status>> + Send;
    fn region_error(reply: &mut Self::Reply) -> Option<errorpb::Error>;
}

macro_rules! kv_requests {
    ($($request:ident => $method:ident -> $reply:ident, writes $writes:literal;)*) => {$(
        impl KvRequest for kvrpcpb::$request {
            type Reply = kvrpcpb::$reply;
            const WRITES: bool = $writes;

            fn context(&mut self) -> &mut kvrpcpb::Context {
                self.context.get_or_insert_default()
            }

            async fn send(request: Request<Self>, mut client: TikvClient<Channel>) -> Result<Self::Reply, Status> {
                client.$method(request).await.map(tonic::Response::into_inner)
            }

            fn region_error(reply: &mut Self::Reply) -> Option<errorpb::Error> {
                reply.region_error.take()
            }
        }
    )*};
}

kv_requests! {
    RawGetRequest => raw_get -> RawGetResponse, writes false;
    RawBatchGetRequest => raw_batch_get -> RawBatchGetResponse, writes false;
    RawScanRequest => raw_scan -> RawScanResponse, writes false;
    RawPutRequest => raw_put -> RawPutResponse, writes true;
    RawBatchPutRequest => raw_batch_put -> RawBatchPutResponse, writes true;
    RawDeleteRequest => raw_delete -> RawDeleteResponse, writes true;
    RawBatchDeleteRequest => raw_batch_delete -> RawBatchDeleteResponse, writes true;
    RawDeleteRangeRequest => raw_delete_range -> RawDeleteRangeResponse, writes true;
    GetRequest => kv_get -> GetResponse, writes false;
    BatchGetRequest => kv_batch_get -> BatchGetResponse, writes false;
    ScanRequest => kv_scan -> ScanResponse, writes false;
    // A prewrite decides nothing, so a lost answer is no unknown outcome of the transaction.
    PrewriteRequest => kv_prewrite -> PrewriteResponse, writes false;
    CommitRequest => kv_commit -> CommitResponse, writes true;
    BatchRollbackRequest => kv_batch_rollback -> BatchRollbackResponse, writes false;
    CheckTxnStatusRequest => kv_check_txn_status -> CheckTxnStatusResponse, writes false;
    ResolveLockRequest => kv_resolve_lock -> ResolveLockResponse, writes false;
}
