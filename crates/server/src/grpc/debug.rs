//! `debugpb.Debug`: what tools ask a node.

use crate::api::{Node, RaftLogs};
use crate::driver::{Lagging, NodeError};
use kontiki_proto::debugpb::debug_server::{Debug as DebugTrait, DebugServer};
use kontiki_proto::debugpb::{
    FollowerLog, RaftLogsRequest, RaftLogsResponse, RegionConsistencyCheckRequest, RegionConsistencyCheckResponse,
    ReplicaLog,
};
use kontiki_raftstore::{CheckOutcome, FollowerLag, RegionError, RegionId, ReplicaLag, StoreId};
use tonic::codec::CompressionEncoding;
use tonic::{Request, Response, Status};

/// A request is a few bytes.
const REQUEST_BYTES_MAX: usize = 1 << 10;

/// The requests of tools.
pub struct DebugService<N: Node> {
    node: N,
}

impl<N: Node> DebugService<N> {
    /// Serves `node`.
    pub fn new(node: N) -> DebugService<N> {
        DebugService { node }
    }

    /// The stores with a replica of the region to which there is no connection, and why.
    fn silent_members(&self, region: RegionId) -> Vec<(StoreId, String)> {
        let Some((region, _)) = self.node.region(region) else { return Vec::new() };
        let failures = self.node.peer_failures();
        failures.into_iter().filter(|(store, _)| region.peer_on(*store).is_some()).collect()
    }

    /// The tonic service.
    pub fn into_server(self) -> DebugServer<DebugService<N>> {
        DebugServer::new(self).max_decoding_message_size(REQUEST_BYTES_MAX).accept_compressed(CompressionEncoding::Gzip)
    }
}

#[tonic::async_trait]
impl<N: Node> DebugTrait for DebugService<N> {
    async fn region_consistency_check(
        &self,
        request: Request<RegionConsistencyCheckRequest>,
    ) -> Result<Response<RegionConsistencyCheckResponse>, Status> {
        let region = RegionId(request.into_inner().region_id);
        let compared = self.node.compare_replicas(region).await;
        let outcome = compared.map_err(|error| refused(error, &self.silent_members(region)))?;
        check_equal(&outcome)?;
        Ok(Response::new(RegionConsistencyCheckResponse {}))
    }

    async fn raft_logs(&self, request: Request<RaftLogsRequest>) -> Result<Response<RaftLogsResponse>, Status> {
        let replica = match RegionId(request.into_inner().region_id) {
            RegionId(0) => None,
            region => match self.node.replica_lag(region).await {
                Ok(lag) => Some(replica_log(&lag)),
                Err(NodeError::Region(RegionError::RegionNotFound { .. })) => None,
                Err(error) => return Err(refused(error, &[])),
            },
        };
        let (node, store_id) = (self.node.clone(), self.node.store_id().0);
        // The engine's statistics are behind locks.
        let read = tokio::task::spawn_blocking(move || node.raft_logs()).await;
        let logs = read.map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(RaftLogsResponse { store_id, replica, ..describe_logs(&logs) }))
    }
}

fn describe_logs(RaftLogs { lag, bytes, replay_bytes }: &RaftLogs) -> RaftLogsResponse {
    let lagging = lag
        .lagging
        .iter()
        .map(|Lagging { follower, since }| FollowerLog { seconds: since.as_secs(), ..follower_log(follower) });
    RaftLogsResponse {
        entries: lag.all.log_entries,
        bytes: *bytes,
        unapplied_entries: lag.all.unapplied_entries,
        unflushed_entries: lag.all.unflushed_entries,
        replay_bytes: *replay_bytes,
        replay_bytes_max: lag.replay_bytes_max,
        followers_lagging: lag.lagging_count,
        lagging: lagging.collect(),
        ..RaftLogsResponse::default()
    }
}

fn replica_log(lag: &ReplicaLag) -> ReplicaLog {
    ReplicaLog {
        region_id: lag.region.0,
        leads: lag.leads,
        entries: lag.log_entries,
        bytes: lag.log_bytes,
        unapplied_entries: lag.unapplied_entries,
        unflushed_entries: lag.unflushed_entries,
        followers: lag.followers.iter().map(follower_log).collect(),
    }
}

fn follower_log(lag: &FollowerLag) -> FollowerLog {
    FollowerLog {
        region_id: lag.region.0,
        store_id: lag.store.0,
        entries: lag.entries,
        bytes: lag.bytes,
        needs_snapshot: lag.needs_snapshot,
        seconds: 0,
    }
}

/// `silent`: the stores that do not answer, and why.
fn refused(error: NodeError, silent: &[(StoreId, String)]) -> Status {
    let text = error.to_string();
    match error {
        NodeError::Region(RegionError::RegionNotFound { .. }) => Status::not_found(text),
        NodeError::Region(RegionError::NotLeader { .. } | RegionError::StaleCommand) => {
            Status::failed_precondition(text)
        }
        NodeError::Region(RegionError::ServerIsBusy { .. }) => Status::resource_exhausted(text),
        // A replica does not answer; raftstore does not know the addresses.
        NodeError::Region(RegionError::Impossible { why, .. }) => {
            let of = |(store, why): &(StoreId, String)| format!("store {store} does not answer ({why})");
            let named: Vec<String> = silent.iter().map(of).collect();
            Status::unavailable(match named.is_empty() {
                true => format!("not compared: {why}"),
                false => format!("not compared: {}; start that node, or replace it", named.join(", ")),
            })
        }
        _ => Status::unavailable(text),
    }
}

/// An error, unless all replicas were compared and are equal.
fn check_equal(outcome: &CheckOutcome) -> Result<(), Status> {
    let CheckOutcome { checksum, agreeing, differing, missing } = outcome;
    let stores = |stores: &[StoreId]| stores.iter().map(StoreId::to_string).collect::<Vec<_>>().join(", ");
    let (agree, differ, lack) = (stores(agreeing), stores(differing), stores(missing));
    match (checksum, differing.is_empty(), missing.is_empty()) {
        (Some(_), true, true) => Ok(()),
        (Some(_), false, _) => Err(Status::data_loss(format!(
            "the replica of store {differ} differs from those of stores {agree}: that node stops; see \
             docs/guide/replace-a-disk.md"
        ))),
        (None, false, _) => Err(Status::data_loss(format!(
            "the replicas of stores {differ} differ, and no majority agrees: it is not known which of them is right"
        ))),
        (_, true, _) => {
            let rest = if agreeing.is_empty() { String::new() } else { format!("; those of {agree} are equal") };
            Err(Status::unavailable(format!(
                "not all replicas were compared: store {lack} gave no result (is its node running?){rest}"
            )))
        }
    }
}

#[cfg(test)]
#[path = "debug_test.rs"]
mod tests;
