//! A common interface of requests to stores: each has a context, and returns a region error or its result.

use kontiki_proto::tikvpb::tikv_client::TikvClient;
use kontiki_proto::{errorpb, kvrpcpb};
use std::future::Future;
use tonic::transport::Channel;
use tonic::{Request, Status};

/// The consequence if a request was sent and its answer is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doubt {
    /// None: the request changes nothing, or decides nothing.
    Harmless,
    /// The outcome of a transaction is unknown; the same request, sent again, finds it.
    AskAgain,
    /// It is unknown whether it took effect, and a repetition could undo a write that came in between.
    Stop,
}

/// A request of the key-value service.
pub(crate) trait KvRequest: Clone + Send + Sync + 'static {
    type Reply: Send + 'static;
    /// What a lost answer means.
    const DOUBT: Doubt;

    fn context(&mut self) -> &mut kvrpcpb::Context;
    fn send(
        request: Request<Self>,
        client: TikvClient<Channel>,
    ) -> impl Future<Output = Result<Self::Reply, Status>> + Send;
    fn region_error(reply: &mut Self::Reply) -> Option<errorpb::Error>;
}

macro_rules! kv_requests {
    ($($request:ident => $method:ident -> $reply:ident, $doubt:ident;)*) => {$(
        impl KvRequest for kvrpcpb::$request {
            type Reply = kvrpcpb::$reply;
            const DOUBT: Doubt = Doubt::$doubt;

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
    RawGetRequest => raw_get -> RawGetResponse, Harmless;
    RawBatchGetRequest => raw_batch_get -> RawBatchGetResponse, Harmless;
    RawScanRequest => raw_scan -> RawScanResponse, Harmless;
    RawPutRequest => raw_put -> RawPutResponse, Stop;
    RawBatchPutRequest => raw_batch_put -> RawBatchPutResponse, Stop;
    RawDeleteRequest => raw_delete -> RawDeleteResponse, Stop;
    RawBatchDeleteRequest => raw_batch_delete -> RawBatchDeleteResponse, Stop;
    RawDeleteRangeRequest => raw_delete_range -> RawDeleteRangeResponse, Stop;
    GetRequest => kv_get -> GetResponse, Harmless;
    BatchGetRequest => kv_batch_get -> BatchGetResponse, Harmless;
    ScanRequest => kv_scan -> ScanResponse, Harmless;
    // Records on the server make all of these safe to repeat, and only a commit decides the outcome.
    PrewriteRequest => kv_prewrite -> PrewriteResponse, Harmless;
    CommitRequest => kv_commit -> CommitResponse, AskAgain;
    BatchRollbackRequest => kv_batch_rollback -> BatchRollbackResponse, Harmless;
    CheckTxnStatusRequest => kv_check_txn_status -> CheckTxnStatusResponse, Harmless;
    ResolveLockRequest => kv_resolve_lock -> ResolveLockResponse, Harmless;
}
