//! The placement service's requests, from wire messages to the placement group and back. No gRPC here.
//!
//! Every node answers every call: the node's placement calls find the leader of the placement group by themselves.
//! Rules that clients rely on (some panic if they are violated):
//! 1. every answer has a header with the cluster's id, and `error` in it only on failure;
//! 2. `leader` among the members equals its entry in `members` byte for byte; client addresses carry a scheme there,
//!    store addresses never do;
//! 3. a region that does not exist is an absent region; an unknown store is an error in the header.
//!
//! Rules for regions are with their look-ups.

use crate::api::{Node, Reachability, RetryBudget};
use crate::driver::NodeError;
use kontiki_placement::{
    self as placement, AllStores, AllocateIds, ClusterInfo, Command, Outcome, Refusal, RefusalCode, StoreById,
    StoreInfo, Timestamps,
};
use kontiki_proto::{metapb, pdpb};
use kontiki_raftstore::StoreId;
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// The version that is reported to clients for a store: the TiKV version whose behaviour this service follows. No
/// client refuses other versions, but some read it.
const COMPATIBLE_VERSION: &str = "8.5.0";

/// Why a placement call has no answer. The texts are read by clients, too.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PdError {
    /// No node leads placement at the moment. Try again.
    #[error("server {0} is not leader of placement, and no leader answered in time: {1}")]
    Unavailable(u64, String),
    /// A region has no leader at the moment. Try again.
    #[error("region {0} has no leader at the moment, and none was elected in time")]
    NoLeader(u64),
    /// The leader of a region has not reported it since another node leads placement. Try again.
    #[error("the region of that key is not known at the moment, and its leader did not report it in time")]
    Unreported,
    /// The request names another cluster.
    #[error("mismatch cluster id: this is cluster {own}, not {asked}")]
    WrongCluster {
        /// This node's cluster.
        own: u64,
        /// The request's cluster.
        asked: u64,
    },
    /// An argument outside its range.
    #[error("{0}")]
    Invalid(String),
    /// Too many calls wait already.
    #[error("{0}")]
    Busy(String),
    /// An internal error: an answer of a wrong kind.
    #[error("{0}")]
    Internal(String),
}

/// Result with [`PdError`].
pub type Result<T> = std::result::Result<T, PdError>;

/// The placement requests of one node. Cheap to clone.
#[derive(Clone)]
pub struct Pd<N: Node> {
    node: N,
    retry_budget: RetryBudget,
    is_reachable: Reachability,
    scheme: &'static str,
    /// The places of pages of regions.
    region_pages: Arc<Semaphore>,
}

/// Takes the expected kind out of an outcome.
macro_rules! expect {
    ($outcome:expr, $kind:ident) => {
        match $outcome {
            Outcome::$kind(answer) => Ok(answer),
            other => {
                tracing::error!(?other, wanted = stringify!($kind), "placement returned an answer of a wrong kind");
                Err($crate::pd::PdError::Internal("placement returned an answer of a wrong kind; see the log".into()))
            }
        }
    };
}

mod etcd;
mod gc;
mod keyspaces;
mod pages;
mod regions;
mod timestamps;

pub use pages::PageError;

impl<N: Node> Pd<N> {
    /// Serves `node`. `is_reachable` reports unreachable stores before placement has noticed.
    pub fn new(node: N, retry_budget: RetryBudget, is_reachable: Reachability) -> Pd<N> {
        let region_pages = Arc::new(Semaphore::new(pages::REGION_PAGES_AT_ONCE_MAX));
        Pd { node, retry_budget, is_reachable, scheme: "http", region_pages }
    }

    /// The members' URLs say whether nodes use TLS.
    pub fn with_tls(self, tls: bool) -> Pd<N> {
        Pd { scheme: if tls { "https" } else { "http" }, ..self }
    }

    fn header(&self) -> Option<pdpb::ResponseHeader> {
        Some(pdpb::ResponseHeader { cluster_id: self.node.cluster_id(), error: None })
    }

    fn header_with(&self, kind: pdpb::ErrorType, message: String) -> Option<pdpb::ResponseHeader> {
        let error = Some(pdpb::Error { r#type: kind as i32, message });
        Some(pdpb::ResponseHeader { cluster_id: self.node.cluster_id(), error })
    }

    /// Refuses requests for other clusters; the first requests of a client name none.
    fn check(&self, header: &Option<pdpb::RequestHeader>) -> Result<()> {
        let own = self.node.cluster_id();
        match header.as_ref().map(|header| header.cluster_id) {
            Some(asked) if asked != 0 && asked != own => Err(PdError::WrongCluster { own, asked }),
            _ => Ok(()),
        }
    }

    /// Asks placement. The inner error is placement's own refusal, if that is an answer.
    async fn ask(&self, command: Command) -> Result<std::result::Result<Outcome, Refusal>> {
        let store = self.node.store_id().0;
        match self.node.placement(command.into()).await {
            Ok(response) => Ok(response.into_result()),
            Err(error @ NodeError::Busy(_)) => Err(PdError::Busy(error.to_string())),
            Err(error) => Err(PdError::Unavailable(store, error.to_string())),
        }
    }

    /// Asks placement for something that always exists.
    async fn demand(&self, command: Command) -> Result<Outcome> {
        self.ask(command).await?.map_err(|refusal| self.refused(&refusal))
    }

    fn refused(&self, refusal: &Refusal) -> PdError {
        let text = refusal.message.clone();
        match refusal.code() {
            RefusalCode::NotLeader | RefusalCode::NotBootstrapped => PdError::Unavailable(self.node.store_id().0, text),
            RefusalCode::Invalid => PdError::Invalid(text),
            RefusalCode::Busy => PdError::Busy(text),
            _ => PdError::Internal(text),
        }
    }

    /// GetClusterInfo.
    pub async fn get_cluster_info(&self, _: pdpb::GetClusterInfoRequest) -> Result<pdpb::GetClusterInfoResponse> {
        let service_modes = vec![pdpb::ServiceMode::PdSvcMode as i32];
        Ok(pdpb::GetClusterInfoResponse { header: self.header(), service_modes, tso_urls: Vec::new() })
    }

    /// GetClusterConfig. A region has a replica on each member.
    pub async fn get_cluster_config(
        &self,
        request: pdpb::GetClusterConfigRequest,
    ) -> Result<pdpb::GetClusterConfigResponse> {
        self.check(&request.header)?;
        let info = self.cluster_info().await?;
        let max_peer_count = u32::try_from(info.members.len()).unwrap_or(u32::MAX);
        let cluster = Some(metapb::Cluster { id: self.node.cluster_id(), max_peer_count });
        Ok(pdpb::GetClusterConfigResponse { header: self.header(), cluster })
    }

    /// GetMembers.
    pub async fn get_members(&self, request: pdpb::GetMembersRequest) -> Result<pdpb::GetMembersResponse> {
        self.check(&request.header)?;
        let ClusterInfo { leader_store_id, members, .. } = self.cluster_info().await?;
        let members: Vec<_> = members.iter().map(|info| member(self.scheme, info)).collect();
        let leader = members.iter().find(|member| member.member_id == leader_store_id).cloned();
        Ok(pdpb::GetMembersResponse { header: self.header(), members, etcd_leader: leader.clone(), leader })
    }

    /// One request of the Tso stream. The timestamp is the last of its batch.
    pub async fn tso(&self, request: pdpb::TsoRequest) -> Result<pdpb::TsoResponse> {
        self.check(&request.header)?;
        let (count, timestamp) = (request.count, Some(self.timestamps(request.count).await?));
        Ok(pdpb::TsoResponse { header: self.header(), count, timestamp })
    }

    /// The last of so many new timestamps.
    async fn timestamps(&self, count: u32) -> Result<pdpb::Timestamp> {
        let granted = expect!(self.demand(Command::Timestamps(Timestamps { count })).await?, Timestamps)?;
        let (physical, logical) = (granted.physical_ms as i64, granted.logical as i64);
        Ok(pdpb::Timestamp { physical, logical, suffix_bits: 0 })
    }

    async fn cluster_info(&self) -> Result<ClusterInfo> {
        expect!(self.demand(Command::Cluster(placement::Cluster {})).await?, Cluster)
    }

    /// AllocID: the last of `count` fresh ids.
    pub async fn alloc_id(&self, request: pdpb::AllocIdRequest) -> Result<pdpb::AllocIdResponse> {
        self.check(&request.header)?;
        let count = request.count.max(1);
        let ids = expect!(self.demand(Command::AllocateIds(AllocateIds { count })).await?, Ids)?;
        let id = ids.first + u64::from(ids.count.saturating_sub(1));
        Ok(pdpb::AllocIdResponse { header: self.header(), id, count: ids.count })
    }

    /// GetStore. An unknown id is an error in the header, whose text some clients match.
    pub async fn get_store(&self, request: pdpb::GetStoreRequest) -> Result<pdpb::GetStoreResponse> {
        self.check(&request.header)?;
        let id = request.store_id;
        match self.ask(Command::StoreById(StoreById { id })).await? {
            Ok(outcome) => {
                let store = Some(wire_store(&expect!(outcome, Store)?, &self.node.lost_stores()));
                Ok(pdpb::GetStoreResponse { header: self.header(), store })
            }
            Err(refusal) if refusal.code() == RefusalCode::UnknownStore => {
                let message = format!("invalid store ID {id}, not found");
                let header = self.header_with(pdpb::ErrorType::Unknown, message);
                Ok(pdpb::GetStoreResponse { header, store: None })
            }
            Err(refusal) => Err(self.refused(&refusal)),
        }
    }

    /// GetAllStores. No store is a tombstone yet.
    pub async fn get_all_stores(&self, request: pdpb::GetAllStoresRequest) -> Result<pdpb::GetAllStoresResponse> {
        self.check(&request.header)?;
        let list = expect!(self.demand(Command::AllStores(AllStores {})).await?, Stores)?;
        let lost = self.node.lost_stores();
        let stores = list.stores.iter().map(|store| wire_store(store, &lost)).collect();
        Ok(pdpb::GetAllStoresResponse { header: self.header(), stores })
    }
}

fn member(scheme: &str, info: &StoreInfo) -> pdpb::Member {
    let url = format!("{scheme}://{}", info.store.address);
    pdpb::Member {
        name: format!("kontiki-{}", info.store.id),
        member_id: info.store.id,
        peer_urls: vec![url.clone()],
        client_urls: vec![url],
    }
}

/// `lost`: what the last unsafe recovery has given up. A store that reports was replaced by another directory since.
fn wire_store(info: &StoreInfo, lost: &BTreeSet<StoreId>) -> metapb::Store {
    let store = &info.store;
    metapb::Store {
        id: store.id,
        address: store.address.clone(),
        state: metapb::StoreState::Up as i32,
        labels: Vec::new(),
        version: COMPATIBLE_VERSION.into(),
        peer_address: store.address.clone(),
        status_address: store.status_address.clone(),
        node_state: metapb::NodeState::Serving as i32,
        program_version: store.version.clone(),
        silent_ms: info.silent_ms.unwrap_or(0),
        lost: info.stats.is_none() && lost.contains(&StoreId(store.id)),
    }
}

#[cfg(test)]
#[path = "pd_test.rs"]
mod tests;
