//! `tikvpb.Tikv`.

use super::RequestMetrics;
use crate::api::Node;
use crate::kv::Kv;
use kontiki_proto::kvrpcpb;
use kontiki_proto::tikvpb::tikv_server::{Tikv, TikvServer};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tonic::codec::CompressionEncoding;
use tonic::{Request, Response, Status};

/// Key-value requests of clients.
pub struct TikvService<N: Node> {
    kv: Kv<N>,
    metrics: RequestMetrics,
    requests: Handle,
}

impl<N: Node> TikvService<N> {
    /// Serves `kv`. Requests run on `requests` and not on the runtime of the connections: they may wait for the disk,
    /// and the same threads serve the messages between nodes.
    pub fn new(kv: Kv<N>, metrics: RequestMetrics, requests: Handle) -> TikvService<N> {
        TikvService { kv, metrics, requests }
    }

    /// The tonic service with its limits: a request that is larger, also after decompression, is not read beyond the
    /// limit.
    pub fn into_server(self, request_bytes_max: usize) -> TikvServer<TikvService<N>> {
        TikvServer::new(self)
            .max_decoding_message_size(request_bytes_max)
            .max_encoding_message_size(usize::MAX)
            .accept_compressed(CompressionEncoding::Gzip)
    }
}

/// A request that runs on another runtime; it is aborted when the client's call is dropped.
struct Running<T>(JoinHandle<T>);

impl<T> Running<T> {
    async fn answer(mut self) -> Result<T, Status> {
        (&mut self.0).await.map_err(|error| Status::internal(format!("the request failed: {error}")))
    }
}

impl<T> Drop for Running<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// One line per call: the service's method, `Kv`'s method, request, answer. No call fails at this level: errors are in
/// answers.
macro_rules! calls {
    ($($method:ident => $kv:ident($request:ident) -> $answer:ident;)+) => {
        #[tonic::async_trait]
        impl<N: Node> Tikv for TikvService<N> {
            $(
                async fn $method(
                    &self,
                    request: Request<kvrpcpb::$request>,
                ) -> Result<Response<kvrpcpb::$answer>, Status> {
                    let (kv, request) = (self.kv.clone(), request.into_inner());
                    let running = Running(self.requests.spawn(async move { kv.$kv(request).await }));
                    self.metrics.time(stringify!($method), running.answer()).await.map(Response::new)
                }
            )+
        }
    };
}

calls! {
    kv_get => get(GetRequest) -> GetResponse;
    kv_batch_get => batch_get(BatchGetRequest) -> BatchGetResponse;
    kv_scan => scan(ScanRequest) -> ScanResponse;
    kv_prewrite => prewrite(PrewriteRequest) -> PrewriteResponse;
    kv_commit => commit(CommitRequest) -> CommitResponse;
    kv_batch_rollback => batch_rollback(BatchRollbackRequest) -> BatchRollbackResponse;
    kv_cleanup => cleanup(CleanupRequest) -> CleanupResponse;
    kv_check_txn_status => check_txn_status(CheckTxnStatusRequest) -> CheckTxnStatusResponse;
    kv_txn_heart_beat => txn_heart_beat(TxnHeartBeatRequest) -> TxnHeartBeatResponse;
    kv_resolve_lock => resolve_lock(ResolveLockRequest) -> ResolveLockResponse;
    kv_scan_lock => scan_lock(ScanLockRequest) -> ScanLockResponse;
    raw_get => raw_get(RawGetRequest) -> RawGetResponse;
    raw_batch_get => raw_batch_get(RawBatchGetRequest) -> RawBatchGetResponse;
    raw_put => raw_put(RawPutRequest) -> RawPutResponse;
    raw_batch_put => raw_batch_put(RawBatchPutRequest) -> RawBatchPutResponse;
    raw_delete => raw_delete(RawDeleteRequest) -> RawDeleteResponse;
    raw_batch_delete => raw_batch_delete(RawBatchDeleteRequest) -> RawBatchDeleteResponse;
    raw_scan => raw_scan(RawScanRequest) -> RawScanResponse;
    raw_batch_scan => raw_batch_scan(RawBatchScanRequest) -> RawBatchScanResponse;
    raw_delete_range => raw_delete_range(RawDeleteRangeRequest) -> RawDeleteRangeResponse;
}
