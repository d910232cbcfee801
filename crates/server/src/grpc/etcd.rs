//! `etcdserverpb.KV` and `etcdserverpb.Cluster`, as far as clients of the placement service call them.

use super::RequestMetrics;
use super::pd::REQUEST_BYTES_MAX;
use crate::api::Node;
use crate::pd::Pd;
use kontiki_proto::etcdserverpb::cluster_server::{Cluster, ClusterServer};
use kontiki_proto::etcdserverpb::kv_server::{Kv, KvServer};
use kontiki_proto::etcdserverpb::{MemberListRequest, MemberListResponse, RangeRequest, RangeResponse};
use tonic::codec::CompressionEncoding;
use tonic::{Request, Response, Status};

/// The requests of clients of etcd.
pub(super) struct EtcdService<N: Node> {
    pd: Pd<N>,
    metrics: RequestMetrics,
}

impl<N: Node> EtcdService<N> {
    /// Serves `pd`.
    pub fn new(pd: Pd<N>, metrics: RequestMetrics) -> EtcdService<N> {
        EtcdService { pd, metrics }
    }

    /// The service of keys.
    pub fn into_kv_server(self) -> KvServer<EtcdService<N>> {
        KvServer::new(self).max_decoding_message_size(REQUEST_BYTES_MAX).accept_compressed(CompressionEncoding::Gzip)
    }

    /// The service of members.
    pub fn into_cluster_server(self) -> ClusterServer<EtcdService<N>> {
        ClusterServer::new(self)
            .max_decoding_message_size(REQUEST_BYTES_MAX)
            .accept_compressed(CompressionEncoding::Gzip)
    }
}

#[tonic::async_trait]
impl<N: Node> Kv for EtcdService<N> {
    async fn range(&self, request: Request<RangeRequest>) -> Result<Response<RangeResponse>, Status> {
        let answer = self.pd.etcd_range(request.into_inner());
        Ok(Response::new(self.metrics.time("etcd_range", answer).await?))
    }
}

#[tonic::async_trait]
impl<N: Node> Cluster for EtcdService<N> {
    async fn member_list(&self, _: Request<MemberListRequest>) -> Result<Response<MemberListResponse>, Status> {
        Ok(Response::new(self.metrics.time("etcd_member_list", self.pd.etcd_members()).await?))
    }
}
