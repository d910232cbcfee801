//! `tinykvpb.TinyKv`.

use super::RequestMetrics;
use super::tikv::Running;
use crate::api::Node;
use crate::kv::Kv;
use kontiki_proto::tinykvpb::tiny_kv_server::{TinyKv, TinyKvServer};
use kontiki_proto::{kvrpcpb, tinykvpb};
use tokio::runtime::Handle;
use tonic::codec::CompressionEncoding;
use tonic::{Request, Response, Status};

/// Key-value requests of TinyKV's clients.
pub(super) struct TinyKvService<N: Node> {
    kv: Kv<N>,
    metrics: RequestMetrics,
    requests: Handle,
}

impl<N: Node> TinyKvService<N> {
    /// Serves `kv`. Requests run on `requests`, as those of TiKV's clients.
    pub fn new(kv: Kv<N>, metrics: RequestMetrics, requests: Handle) -> TinyKvService<N> {
        TinyKvService { kv, metrics, requests }
    }

    /// The tonic service.
    pub fn into_server(self, request_bytes_max: usize) -> TinyKvServer<TinyKvService<N>> {
        TinyKvServer::new(self)
            .max_decoding_message_size(request_bytes_max)
            .max_encoding_message_size(usize::MAX)
            .accept_compressed(CompressionEncoding::Gzip)
    }
}

macro_rules! serve {
    ($($function:ident, $handler:ident, $($request:ident)::+ => $($reply:ident)::+;)+) => {
        #[tonic::async_trait]
        impl<N: Node> TinyKv for TinyKvService<N> {
            /// Unlike the others it has an error besides its answer.
            async fn kv_check_txn_status(
                &self,
                request: Request<tinykvpb::CheckTxnStatusRequest>,
            ) -> Result<Response<tinykvpb::CheckTxnStatusResponse>, Status> {
                let (kv, request) = (self.kv.clone(), request.into_inner());
                let running =
                    Running::new(self.requests.spawn(async move { kv.tinykv_check_txn_status(request).await }));
                let answer = self.metrics.time("tinykv_check_txn_status", running.answer()).await?;
                answer.map(Response::new).map_err(|error| Status::invalid_argument(error.to_string()))
            }

            $(
                async fn $function(
                    &self,
                    request: Request<$($request)::+>,
                ) -> Result<Response<$($reply)::+>, Status> {
                    let (kv, request) = (self.kv.clone(), request.into_inner());
                    let running = Running::new(self.requests.spawn(async move { kv.$handler(request).await }));
                    self.metrics.time(stringify!($handler), running.answer()).await.map(Response::new)
                }
            )+
        }
    };
}

serve! {
    kv_get, tinykv_get, kvrpcpb::GetRequest => kvrpcpb::GetResponse;
    kv_scan, tinykv_scan, kvrpcpb::ScanRequest => kvrpcpb::ScanResponse;
    kv_prewrite, tinykv_prewrite, tinykvpb::PrewriteRequest => kvrpcpb::PrewriteResponse;
    kv_commit, tinykv_commit, kvrpcpb::CommitRequest => kvrpcpb::CommitResponse;
    kv_batch_rollback, tinykv_batch_rollback, kvrpcpb::BatchRollbackRequest => kvrpcpb::BatchRollbackResponse;
    kv_resolve_lock, tinykv_resolve_lock, kvrpcpb::ResolveLockRequest => kvrpcpb::ResolveLockResponse;
    raw_get, tinykv_raw_get, kvrpcpb::RawGetRequest => kvrpcpb::RawGetResponse;
    raw_put, tinykv_raw_put, kvrpcpb::RawPutRequest => kvrpcpb::RawPutResponse;
    raw_delete, tinykv_raw_delete, kvrpcpb::RawDeleteRequest => kvrpcpb::RawDeleteResponse;
    raw_scan, tinykv_raw_scan, tinykvpb::RawScanRequest => tinykvpb::RawScanResponse;
}
