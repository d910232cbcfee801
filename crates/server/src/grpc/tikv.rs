//! `tikvpb.Tikv`.

use super::RequestMetrics;
use super::batch::{Commands, answers};
use crate::api::Node;
use crate::kv::Kv;
use crate::stopping::Stopping;
use futures::Stream;
use kontiki_proto::kvrpcpb;
use kontiki_proto::tikvpb::tikv_server::{Tikv, TikvServer};
use kontiki_proto::tikvpb::{BatchCommandsRequest, BatchCommandsResponse};
use std::pin::Pin;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tonic::codec::CompressionEncoding;
use tonic::{Request, Response, Status, Streaming};

/// Key-value requests of clients.
pub struct TikvService<N: Node> {
    kv: Kv<N>,
    metrics: RequestMetrics,
    requests: Handle,
    stopping: Stopping,
}

impl<N: Node> TikvService<N> {
    /// Serves `kv`. Requests run on `requests` and not on the runtime of the connections: they may wait for the disk,
    /// and the same threads serve the messages between nodes.
    pub fn new(kv: Kv<N>, metrics: RequestMetrics, requests: Handle, stopping: Stopping) -> TikvService<N> {
        TikvService { kv, metrics, requests, stopping }
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
pub(super) struct Running<T>(JoinHandle<T>);

impl<T> Running<T> {
    pub(super) fn new(request: JoinHandle<T>) -> Running<T> {
        Running(request)
    }

    pub(super) async fn answer(mut self) -> Result<T, Status> {
        (&mut self.0).await.map_err(|error| Status::internal(format!("the request failed: {error}")))
    }
}

impl<T> Drop for Running<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The stream of batches, and a function per line of the table of calls. No call fails at this level: errors are in
/// answers.
macro_rules! serve {
    ($($call:ident, $function:ident, $handler:ident, $request:ident, $reply:ident, $path:literal, $effect:ident,
       $($errors:ident)+;)+) => {
        #[tonic::async_trait]
        impl<N: Node> Tikv for TikvService<N> {
            type BatchCommandsStream = Pin<Box<dyn Stream<Item = Result<BatchCommandsResponse, Status>> + Send>>;

            async fn batch_commands(
                &self,
                messages: Request<Streaming<BatchCommandsRequest>>,
            ) -> Result<Response<Self::BatchCommandsStream>, Status> {
                let (kv, metrics, requests) = (self.kv.clone(), self.metrics.clone(), self.requests.clone());
                let messages = self.stopping.messages(messages.into_inner());
                let answers = answers(Commands { kv, metrics, requests }, messages);
                Ok(Response::new(Box::pin(answers)))
            }

            async fn get_store_safe_ts(
                &self,
                request: Request<kvrpcpb::StoreSafeTsRequest>,
            ) -> Result<Response<kvrpcpb::StoreSafeTsResponse>, Status> {
                let answer = std::future::ready(self.kv.store_safe_ts(request.get_ref()));
                Ok(Response::new(self.metrics.time("get_store_safe_ts", answer).await))
            }

            $(
                async fn $function(
                    &self,
                    request: Request<kvrpcpb::$request>,
                ) -> Result<Response<kvrpcpb::$reply>, Status> {
                    let (kv, request) = (self.kv.clone(), request.into_inner());
                    let running = Running::new(self.requests.spawn(async move { kv.$handler(request).await }));
                    self.metrics.time(stringify!($function), running.answer()).await.map(Response::new)
                }
            )+
        }
    };
}

kontiki_proto::for_each_kv_call!(serve);
