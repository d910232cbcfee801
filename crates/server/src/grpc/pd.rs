//! `pdpb.PD`, and `schedulerpb.Scheduler`, which is TinyKV's name for a part of it.

use super::RequestMetrics;
use crate::api::Node;
use crate::pd::{Pd, PdError};
use crate::stopping::Stopping;
use futures::{Stream, StreamExt};
use kontiki_proto::pdpb;
use kontiki_proto::pdpb::pd_server::{Pd as PdTrait, PdServer};
use kontiki_proto::schedulerpb::scheduler_server::{Scheduler, SchedulerServer};
use std::pin::Pin;
use tonic::codec::CompressionEncoding;
use tonic::{Request, Response, Status, Streaming};

impl From<PdError> for Status {
    fn from(error: PdError) -> Status {
        let text = error.to_string();
        match error {
            PdError::Unavailable(..) | PdError::NoLeader(_) | PdError::Unreported => Status::unavailable(text),
            PdError::WrongCluster { .. } => Status::failed_precondition(text),
            PdError::Invalid(_) => Status::invalid_argument(text),
            PdError::Busy(_) => Status::resource_exhausted(text),
            PdError::Internal(_) => Status::internal(text),
        }
    }
}

/// The largest request holds some keys of at most 64 KiB.
pub(super) const REQUEST_BYTES_MAX: usize = 1 << 20;

type TsoStream = Pin<Box<dyn Stream<Item = Result<pdpb::TsoResponse, Status>> + Send>>;

/// Placement requests of clients.
pub struct PdService<N: Node> {
    pd: Pd<N>,
    metrics: RequestMetrics,
    stopping: Stopping,
}

impl<N: Node> PdService<N> {
    /// Serves `pd`.
    pub fn new(pd: Pd<N>, metrics: RequestMetrics, stopping: Stopping) -> PdService<N> {
        PdService { pd, metrics, stopping }
    }

    /// The tonic service.
    pub fn into_server(self) -> PdServer<PdService<N>> {
        PdServer::new(self).max_decoding_message_size(REQUEST_BYTES_MAX).accept_compressed(CompressionEncoding::Gzip)
    }

    /// The same for clients of TinyKV.
    pub fn into_scheduler_server(self) -> SchedulerServer<PdService<N>> {
        SchedulerServer::new(self)
            .max_decoding_message_size(REQUEST_BYTES_MAX)
            .accept_compressed(CompressionEncoding::Gzip)
    }

    /// One answer per request, in order. Returning at once sends the response headers, which clients wait for before
    /// they send anything. One request at a time: if answers overtook each other, timestamps would go back.
    fn timestamps(&self, requests: Streaming<pdpb::TsoRequest>) -> TsoStream {
        let (pd, metrics) = (self.pd.clone(), self.metrics.clone());
        Box::pin(self.stopping.messages(requests).then(move |request| {
            let (pd, metrics) = (pd.clone(), metrics.clone());
            async move { Ok(metrics.time("tso", pd.tso(request?)).await?) }
        }))
    }
}

/// The stream of timestamps, and a function per line of the table of calls.
macro_rules! serve {
    ($service:ident: $($function:ident, $handler:ident, $request:ident, $reply:ident;)+) => {
        #[tonic::async_trait]
        impl<N: Node> $service for PdService<N> {
            type TsoStream = TsoStream;

            async fn tso(&self, request: Request<Streaming<pdpb::TsoRequest>>) -> Result<Response<TsoStream>, Status> {
                Ok(Response::new(self.timestamps(request.into_inner())))
            }

            $(
                async fn $function(
                    &self,
                    request: Request<pdpb::$request>,
                ) -> Result<Response<pdpb::$reply>, Status> {
                    let answer = self.pd.$handler(request.into_inner());
                    Ok(Response::new(self.metrics.time(stringify!($function), answer).await?))
                }
            )+
        }
    };
}

macro_rules! serve_placement {
    ($($call:ident, $function:ident, $handler:ident, $request:ident, $reply:ident, $path:literal, $effect:ident,
       $($errors:ident)+;)+) => {
        serve! { PdTrait: $($function, $handler, $request, $reply;)+ }
    };
}

macro_rules! serve_scheduler {
    ($($call:ident, $function:ident, $handler:ident, $request:ident, $reply:ident, $path:literal, $effect:ident,
       $($errors:ident)+;)+) => {
        serve! { Scheduler: $($function, $handler, $request, $reply;)+ }
    };
}

kontiki_proto::for_each_placement_call!(serve_placement);
kontiki_proto::for_each_scheduler_call!(serve_scheduler);
