//! `pdpb.PD`.

use super::RequestMetrics;
use crate::api::Node;
use crate::pd::{Pd, PdError};
use futures::{Stream, StreamExt};
use kontiki_proto::pdpb;
use kontiki_proto::pdpb::pd_server::{Pd as PdTrait, PdServer};
use std::pin::Pin;
use tonic::codec::CompressionEncoding;
use tonic::{Request, Response, Status, Streaming};

impl From<PdError> for Status {
    fn from(error: PdError) -> Status {
        let text = error.to_string();
        match error {
            PdError::Unavailable(..) | PdError::NoLeader(_) => Status::unavailable(text),
            PdError::WrongCluster { .. } => Status::failed_precondition(text),
            PdError::Invalid(_) => Status::invalid_argument(text),
            PdError::Busy(_) => Status::resource_exhausted(text),
            PdError::Internal(_) => Status::internal(text),
        }
    }
}

/// The largest request holds one or two keys of at most 64 KiB.
const REQUEST_BYTES_MAX: usize = 1 << 20;

/// Placement requests of clients.
pub struct PdService<N: Node> {
    pd: Pd<N>,
    metrics: RequestMetrics,
}

impl<N: Node> PdService<N> {
    /// Serves `pd`.
    pub fn new(pd: Pd<N>, metrics: RequestMetrics) -> PdService<N> {
        PdService { pd, metrics }
    }

    /// The tonic service.
    pub fn into_server(self) -> PdServer<PdService<N>> {
        PdServer::new(self).max_decoding_message_size(REQUEST_BYTES_MAX).accept_compressed(CompressionEncoding::Gzip)
    }
}

/// One line per unary call: the service's method, `Pd`'s method, request, answer.
macro_rules! calls {
    ($($method:ident($request:ident) -> $answer:ident;)+) => {
        #[tonic::async_trait]
        impl<N: Node> PdTrait for PdService<N> {
            type TsoStream = Pin<Box<dyn Stream<Item = Result<pdpb::TsoResponse, Status>> + Send>>;

            /// One answer per request, in order. Returning at once sends the response headers, which clients wait for
            /// before they send anything. One request at a time: if answers overtook each other, timestamps would go
            /// back.
            async fn tso(
                &self,
                request: Request<Streaming<pdpb::TsoRequest>>,
            ) -> Result<Response<Self::TsoStream>, Status> {
                let (pd, metrics) = (self.pd.clone(), self.metrics.clone());
                let answers = request.into_inner().then(move |request| {
                    let (pd, metrics) = (pd.clone(), metrics.clone());
                    async move { Ok(metrics.time("tso", pd.tso(request?)).await?) }
                });
                Ok(Response::new(Box::pin(answers)))
            }

            async fn get_cluster_info(
                &self,
                _: Request<pdpb::GetClusterInfoRequest>,
            ) -> Result<Response<pdpb::GetClusterInfoResponse>, Status> {
                Ok(Response::new(self.pd.get_cluster_info()))
            }

            $(
                async fn $method(
                    &self,
                    request: Request<pdpb::$request>,
                ) -> Result<Response<pdpb::$answer>, Status> {
                    let answer = self.pd.$method(request.into_inner());
                    Ok(Response::new(self.metrics.time(stringify!($method), answer).await?))
                }
            )+
        }
    };
}

calls! {
    get_members(GetMembersRequest) -> GetMembersResponse;
    alloc_id(AllocIdRequest) -> AllocIdResponse;
    get_store(GetStoreRequest) -> GetStoreResponse;
    get_all_stores(GetAllStoresRequest) -> GetAllStoresResponse;
    get_region(GetRegionRequest) -> GetRegionResponse;
    get_prev_region(GetRegionRequest) -> GetRegionResponse;
    get_region_by_id(GetRegionByIdRequest) -> GetRegionResponse;
    scan_regions(ScanRegionsRequest) -> ScanRegionsResponse;
    get_gc_safe_point(GetGcSafePointRequest) -> GetGcSafePointResponse;
    update_gc_safe_point(UpdateGcSafePointRequest) -> UpdateGcSafePointResponse;
}
