//! The placement service's requests, from wire messages to the placement group and back. No gRPC here.
//!
//! Every node answers every call: the node's placement calls find the leader of the placement group by themselves.
//! Rules that clients rely on (some panic if they are violated):
//! 1. every answer has a header with the cluster's id, and `error` in it only on failure;
//! 2. `leader` among the members equals its entry in `members` byte for byte; client addresses carry a scheme there,
//!    store addresses never do;
//! 3. an unknown region is an absent region; an unknown store is an error in the header;
//! 4. a region is returned with a leader, or not at all: one without a leader stays in a client's cache, where calls
//!    that cannot drop it (raw scans) fail permanently.

use crate::api::{Node, Reachability, RetryBudget};
use crate::driver::{NodeError, placement_region};
use crate::kv::wire_peer;
use kontiki_placement::{
    self as placement, AllStores, AllocateIds, ClusterInfo, Command, GcSafePoint, Outcome, PreviousRegion, Refusal,
    RefusalCode, RegionById, RegionByKey, RegionInfo, ScanRegions, StoreById, StoreInfo, Timestamps, UpdateGcSafePoint,
};
use kontiki_proto::{metapb, pdpb};
use kontiki_raftstore::{RegionId, Space, StoreId};

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
}

/// Takes the expected kind out of an outcome.
macro_rules! expect {
    ($outcome:expr, $kind:ident) => {
        match $outcome {
            Outcome::$kind(answer) => Ok(answer),
            other => {
                tracing::error!(?other, wanted = stringify!($kind), "placement returned an answer of a wrong kind");
                Err(PdError::Internal("placement returned an answer of a wrong kind; see the log".into()))
            }
        }
    };
}

impl<N: Node> Pd<N> {
    /// Serves `node`. `is_reachable` reports unreachable stores before placement has noticed.
    pub fn new(node: N, retry_budget: RetryBudget, is_reachable: Reachability) -> Pd<N> {
        Pd { node, retry_budget, is_reachable }
    }

    fn header(&self) -> Option<pdpb::ResponseHeader> {
        Some(pdpb::ResponseHeader { cluster_id: self.node.cluster_id(), error: None })
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

    /// GetMembers.
    pub async fn get_members(&self, request: pdpb::GetMembersRequest) -> Result<pdpb::GetMembersResponse> {
        self.check(&request.header)?;
        let ClusterInfo { leader_store_id, members, .. } =
            expect!(self.demand(Command::Cluster(placement::Cluster {})).await?, Cluster)?;
        let members: Vec<_> = members.iter().map(member).collect();
        let leader = members.iter().find(|member| member.member_id == leader_store_id).cloned();
        Ok(pdpb::GetMembersResponse { header: self.header(), members, etcd_leader: leader.clone(), leader })
    }

    /// One request of the Tso stream. The timestamp is the last of its batch.
    pub async fn tso(&self, request: pdpb::TsoRequest) -> Result<pdpb::TsoResponse> {
        self.check(&request.header)?;
        let count = request.count;
        let granted = expect!(self.demand(Command::Timestamps(Timestamps { count })).await?, Timestamps)?;
        let timestamp =
            pdpb::Timestamp { physical: granted.physical_ms as i64, logical: granted.logical as i64, suffix_bits: 0 };
        Ok(pdpb::TsoResponse { header: self.header(), count, timestamp: Some(timestamp) })
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
                let store = Some(wire_store(&expect!(outcome, Store)?));
                Ok(pdpb::GetStoreResponse { header: self.header(), store })
            }
            Err(refusal) if refusal.code() == RefusalCode::UnknownStore => {
                let message = format!("invalid store ID {id}, not found");
                let error = Some(pdpb::Error { r#type: pdpb::ErrorType::Unknown as i32, message });
                let header = Some(pdpb::ResponseHeader { cluster_id: self.node.cluster_id(), error });
                Ok(pdpb::GetStoreResponse { header, store: None })
            }
            Err(refusal) => Err(self.refused(&refusal)),
        }
    }

    /// GetAllStores. No store is a tombstone yet.
    pub async fn get_all_stores(&self, request: pdpb::GetAllStoresRequest) -> Result<pdpb::GetAllStoresResponse> {
        self.check(&request.header)?;
        let list = expect!(self.demand(Command::AllStores(AllStores {})).await?, Stores)?;
        let stores = list.stores.iter().map(wire_store).collect();
        Ok(pdpb::GetAllStoresResponse { header: self.header(), stores })
    }

    /// GetRegion.
    pub async fn get_region(&self, request: pdpb::GetRegionRequest) -> Result<pdpb::GetRegionResponse> {
        self.check(&request.header)?;
        self.find_region(Command::RegionByKey(RegionByKey { key: request.region_key })).await
    }

    /// GetPrevRegion.
    pub async fn get_prev_region(&self, request: pdpb::GetRegionRequest) -> Result<pdpb::GetRegionResponse> {
        self.check(&request.header)?;
        self.find_region(Command::PreviousRegion(PreviousRegion { key: request.region_key })).await
    }

    /// GetRegionByID.
    pub async fn get_region_by_id(&self, request: pdpb::GetRegionByIdRequest) -> Result<pdpb::GetRegionResponse> {
        self.check(&request.header)?;
        self.find_region(Command::RegionById(RegionById { id: request.region_id })).await
    }

    /// Waits a short time for a region's leader: clients that are sent to a dead node use up their few tries. If
    /// placement still names the same leader at the end, the connection problem may be that of this node.
    ///
    /// Placement is asked again only after a change of the leader is known here, or after a wait that is long compared
    /// with its answer, so that clients that wait for an election do not load the placement group.
    async fn find_region(&self, command: Command) -> Result<pdpb::GetRegionResponse> {
        let unknown = pdpb::GetRegionResponse { header: self.header(), ..Default::default() };
        let mut waiting = self.retry_budget.begin(&self.node, 0);
        loop {
            let news = self.node.leader_news();
            let info = match self.ask(command.clone()).await? {
                Ok(outcome) => expect!(outcome, Region)?,
                Err(refusal) if refusal.code() == RefusalCode::UnknownRegion => match self.known_here(&command) {
                    Some(info) => info,
                    None => return Ok(unknown),
                },
                Err(refusal) => return Err(self.refused(&refusal)),
            };
            // Clients cannot address the placement group.
            if info.region.system {
                return Ok(unknown);
            }
            let settled = self.settled_leader(&info);
            if settled.is_none() && waiting.pause_for(news).await {
                continue;
            }
            let leader = settled.or_else(|| info.leader.as_ref().map(wire_placement_peer));
            if leader.is_none() {
                return Err(PdError::NoLeader(info.region.id));
            }
            let pdpb::Region { region, down_peers, pending_peers, .. } = wire_region(info);
            return Ok(pdpb::GetRegionResponse { header: self.header(), region, leader, down_peers, pending_peers });
        }
    }

    /// The region of a replica here. A placement leader that has just taken over does not know the regions that splits
    /// made until their leaders report them; clients take an answer without a region for an error, and one of them
    /// (tikv-client 0.4.0) takes it for success and sends nothing.
    fn known_here(&self, command: &Command) -> Option<RegionInfo> {
        let mut regions = self.node.regions().into_iter().filter(|region| region.space == Space::Data);
        let region = match command {
            Command::RegionByKey(RegionByKey { key }) => regions.find(|region| region.contains(key)),
            Command::RegionById(RegionById { id }) => regions.find(|region| region.id.0 == *id),
            _ => None,
        };
        Some(RegionInfo { region: placement_region(&*region?), ..RegionInfo::default() })
    }

    /// The leader according to placement, unless the replica here knows of an election; otherwise according to the
    /// replica. `None` if that store is unreachable: its followers will notice and elect another.
    fn settled_leader(&self, info: &RegionInfo) -> Option<metapb::Peer> {
        let here = self.node.region(RegionId(info.region.id));
        let leader = match (info.leader.as_ref(), here) {
            (Some(_), Some((_, None))) => None,
            (Some(leader), _) => Some(wire_placement_peer(leader)),
            (None, Some((_, leader))) => leader.map(wire_peer),
            (None, None) => None,
        };
        leader.filter(|leader| (self.is_reachable)(StoreId(leader.store_id)))
    }

    /// ScanRegions: in the old format and the new one.
    pub async fn scan_regions(&self, request: pdpb::ScanRegionsRequest) -> Result<pdpb::ScanRegionsResponse> {
        self.check(&request.header)?;
        let limit = u32::try_from(request.limit).unwrap_or(0);
        let scan = ScanRegions { start_key: request.start_key, end_key: request.end_key, limit };
        let list = expect!(self.demand(Command::ScanRegions(scan)).await?, Regions)?;
        let with_leader = |info: RegionInfo| {
            let leader = self.settled_leader(&info);
            let region = wire_region(info);
            pdpb::Region { leader: leader.or(region.leader), ..region }
        };
        let regions: Vec<_> = list.regions.into_iter().map(with_leader).collect();
        Ok(pdpb::ScanRegionsResponse {
            header: self.header(),
            region_metas: regions.iter().filter_map(|region| region.region.clone()).collect(),
            leaders: regions.iter().map(|region| region.leader.unwrap_or_default()).collect(),
            regions,
        })
    }

    /// GetGCSafePoint.
    pub async fn get_gc_safe_point(
        &self,
        request: pdpb::GetGcSafePointRequest,
    ) -> Result<pdpb::GetGcSafePointResponse> {
        self.check(&request.header)?;
        let point = expect!(self.demand(Command::GcSafePoint(GcSafePoint {})).await?, SafePoint)?;
        Ok(pdpb::GetGcSafePointResponse { header: self.header(), safe_point: point.safe_point })
    }

    /// UpdateGCSafePoint: never backwards.
    pub async fn update_gc_safe_point(
        &self,
        request: pdpb::UpdateGcSafePointRequest,
    ) -> Result<pdpb::UpdateGcSafePointResponse> {
        self.check(&request.header)?;
        let update = UpdateGcSafePoint { safe_point: request.safe_point };
        let point = expect!(self.demand(Command::UpdateGcSafePoint(update)).await?, SafePoint)?;
        Ok(pdpb::UpdateGcSafePointResponse { header: self.header(), new_safe_point: point.safe_point })
    }
}

fn member(info: &StoreInfo) -> pdpb::Member {
    let url = format!("http://{}", info.store.address);
    pdpb::Member {
        name: format!("kontiki-{}", info.store.id),
        member_id: info.store.id,
        peer_urls: vec![url.clone()],
        client_urls: vec![url],
    }
}

fn wire_store(info: &StoreInfo) -> metapb::Store {
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
    }
}

fn wire_placement_peer(peer: &placement::Peer) -> metapb::Peer {
    metapb::Peer { id: peer.id, store_id: peer.store_id, role: peer.role, ..Default::default() }
}

fn wire_region(info: RegionInfo) -> pdpb::Region {
    let region = info.region;
    let peers = region.peers.iter().map(wire_placement_peer).collect();
    let epoch = metapb::RegionEpoch { conf_ver: region.epoch.conf_ver, version: region.epoch.version };
    let down = |peer: &placement::Peer| pdpb::PeerStats { peer: Some(wire_placement_peer(peer)), down_seconds: 0 };
    pdpb::Region {
        region: Some(metapb::Region {
            id: region.id,
            start_key: region.start_key,
            end_key: region.end_key,
            region_epoch: Some(epoch),
            peers,
        }),
        leader: info.leader.as_ref().map(wire_placement_peer),
        down_peers: info.down_peers.iter().map(down).collect(),
        pending_peers: info.pending_peers.iter().map(wire_placement_peer).collect(),
    }
}

#[cfg(test)]
#[path = "pd_test.rs"]
mod tests;
