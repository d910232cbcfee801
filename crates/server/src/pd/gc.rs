//! Safe points and barriers of garbage collection.
//!
//! There is one state for the whole cluster. Every keyspace shares it, so a scope in a request changes nothing, and the
//! answer names the null keyspace.

use super::{Pd, Result};
use crate::api::Node;
use crate::pd::PdError;
use kontiki_placement::{
    AdvanceSafePoint, Command, DeleteGcBarrier, GcBarrier, GcPoints, GcSafePoint, GcState, Outcome, UpdateGcSafePoint,
    UpdateServiceSafePoint,
};
use kontiki_proto::pdpb;

/// How clients name the whole cluster.
const NULL_KEYSPACE: u32 = u32::MAX;

impl<N: Node> Pd<N> {
    /// GetGCSafePoint.
    pub async fn get_gc_safe_point(
        &self,
        request: pdpb::GetGcSafePointRequest,
    ) -> Result<pdpb::GetGcSafePointResponse> {
        self.check(&request.header)?;
        let point = expect!(self.demand(Command::GcSafePoint(GcSafePoint {})).await?, SafePoint)?;
        Ok(pdpb::GetGcSafePointResponse { header: self.header(), safe_point: point.safe_point })
    }

    /// UpdateGCSafePoint: never backwards, and not past a barrier.
    pub async fn update_gc_safe_point(
        &self,
        request: pdpb::UpdateGcSafePointRequest,
    ) -> Result<pdpb::UpdateGcSafePointResponse> {
        self.check(&request.header)?;
        let update = UpdateGcSafePoint { safe_point: request.safe_point };
        let point = expect!(self.demand(Command::UpdateGcSafePoint(update)).await?, SafePoint)?;
        Ok(pdpb::UpdateGcSafePointResponse { header: self.header(), new_safe_point: point.safe_point })
    }

    /// UpdateServiceGCSafePoint.
    pub async fn update_service_gc_safe_point(
        &self,
        request: pdpb::UpdateServiceGcSafePointRequest,
    ) -> Result<pdpb::UpdateServiceGcSafePointResponse> {
        self.check(&request.header)?;
        let service = String::from_utf8(request.service_id.to_vec())
            .map_err(|_| PdError::Invalid("service_id is no UTF-8 text: send a name".into()))?;
        let (ttl_seconds, safe_point) = (request.ttl, request.safe_point);
        let update = UpdateServiceSafePoint { service, ttl_seconds, safe_point };
        let lowest = expect!(self.demand(Command::UpdateServiceSafePoint(update)).await?, ServiceSafePoint)?;
        Ok(pdpb::UpdateServiceGcSafePointResponse {
            header: self.header(),
            service_id: lowest.service.into_bytes().into(),
            ttl: lowest.ttl_seconds,
            min_safe_point: lowest.min_safe_point,
        })
    }

    /// GetGCState.
    pub async fn get_gc_state(&self, request: pdpb::GetGcStateRequest) -> Result<pdpb::GetGcStateResponse> {
        self.check(&request.header)?;
        let gc_state = Some(self.gc_state(request.exclude_gc_barriers).await?);
        Ok(pdpb::GetGcStateResponse { header: self.header(), gc_state })
    }

    /// GetAllKeyspacesGCStates.
    pub async fn get_all_keyspaces_gc_states(
        &self,
        request: pdpb::GetAllKeyspacesGcStatesRequest,
    ) -> Result<pdpb::GetAllKeyspacesGcStatesResponse> {
        self.check(&request.header)?;
        let gc_states = vec![self.gc_state(request.exclude_gc_barriers).await?];
        Ok(pdpb::GetAllKeyspacesGcStatesResponse { header: self.header(), gc_states })
    }

    async fn gc_state(&self, exclude_barriers: bool) -> Result<pdpb::GcState> {
        let points: GcPoints = expect!(self.demand(Command::GcState(GcState {})).await?, GcPoints)?;
        let barriers = if exclude_barriers { Vec::new() } else { points.barriers };
        Ok(pdpb::GcState {
            keyspace_scope: Some(pdpb::KeyspaceScope { keyspace_id: NULL_KEYSPACE }),
            is_keyspace_level_gc: false,
            txn_safe_point: points.txn_safe_point,
            gc_safe_point: points.gc_safe_point,
            gc_barriers: barriers.into_iter().map(wire_barrier).collect(),
        })
    }

    /// AdvanceTxnSafePoint.
    pub async fn advance_txn_safe_point(
        &self,
        request: pdpb::AdvanceTxnSafePointRequest,
    ) -> Result<pdpb::AdvanceTxnSafePointResponse> {
        self.check(&request.header)?;
        let advance = Command::AdvanceTxnSafePoint(AdvanceSafePoint { target: request.target });
        let moved = expect!(self.demand(advance).await?, SafePointMoved)?;
        Ok(pdpb::AdvanceTxnSafePointResponse {
            header: self.header(),
            old_txn_safe_point: moved.old,
            new_txn_safe_point: moved.new,
            blocker_description: moved.blocker,
        })
    }

    /// AdvanceGCSafePoint.
    pub async fn advance_gc_safe_point(
        &self,
        request: pdpb::AdvanceGcSafePointRequest,
    ) -> Result<pdpb::AdvanceGcSafePointResponse> {
        self.check(&request.header)?;
        let advance = Command::AdvanceGcSafePoint(AdvanceSafePoint { target: request.target });
        let moved = expect!(self.demand(advance).await?, SafePointMoved)?;
        Ok(pdpb::AdvanceGcSafePointResponse {
            header: self.header(),
            old_gc_safe_point: moved.old,
            new_gc_safe_point: moved.new,
        })
    }

    /// SetGCBarrier.
    pub async fn set_gc_barrier(&self, request: pdpb::SetGcBarrierRequest) -> Result<pdpb::SetGcBarrierResponse> {
        self.check(&request.header)?;
        let (name, ts, ttl_seconds) = (request.barrier_id, request.barrier_ts, request.ttl_seconds);
        let set = Command::SetGcBarrier(GcBarrier { name, ts, ttl_seconds });
        let changed = expect!(self.demand(set).await?, GcBarrier)?;
        let new_barrier_info = changed.barrier.map(wire_barrier);
        Ok(pdpb::SetGcBarrierResponse { header: self.header(), new_barrier_info })
    }

    /// DeleteGCBarrier.
    pub async fn delete_gc_barrier(
        &self,
        request: pdpb::DeleteGcBarrierRequest,
    ) -> Result<pdpb::DeleteGcBarrierResponse> {
        self.check(&request.header)?;
        let delete = Command::DeleteGcBarrier(DeleteGcBarrier { name: request.barrier_id });
        let changed = expect!(self.demand(delete).await?, GcBarrier)?;
        let deleted_barrier_info = changed.barrier.map(wire_barrier);
        Ok(pdpb::DeleteGcBarrierResponse { header: self.header(), deleted_barrier_info })
    }
}

fn wire_barrier(barrier: GcBarrier) -> pdpb::GcBarrierInfo {
    let GcBarrier { name, ts, ttl_seconds } = barrier;
    pdpb::GcBarrierInfo { barrier_id: name, barrier_ts: ts, ttl_seconds }
}
