//! The mock's placement calls.

use super::service::Node;
use futures::{Stream, StreamExt};
use kontiki_proto::metapb;
use kontiki_proto::pdpb::{self, pd_server::Pd, *};
use std::pin::Pin;
use tonic::{Request, Response, Status, Streaming};

fn header() -> Option<ResponseHeader> {
    Some(ResponseHeader { cluster_id: 7, error: None })
}

impl Node {
    fn store_meta(&self, id: u64) -> Option<metapb::Store> {
        let address = self.state.lock().addresses.get(id as usize - 1).cloned()?;
        let zone = self.state.lock().zones.get(&id).cloned();
        let label = |value| metapb::StoreLabel { key: "zone".into(), value };
        Some(metapb::Store { id, address, labels: zone.map(label).into_iter().collect(), ..Default::default() })
    }

    fn region(&self, fits: impl Fn(&super::MockRegion) -> bool) -> GetRegionResponse {
        let mut state = self.state.lock();
        let reported = state.reported_regions.pop_front();
        let found = reported.as_ref().unwrap_or(&state.regions).iter().find(|region| fits(region));
        GetRegionResponse {
            header: header(),
            region: found.map(super::MockRegion::meta),
            leader: found.map(|region| region.peer(state.reported_leader.unwrap_or(region.leader))),
            ..Default::default()
        }
    }
}

fn unimplemented<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("not mocked"))
}

#[tonic::async_trait]
impl Pd for Node {
    type TsoStream = Pin<Box<dyn Stream<Item = Result<TsoResponse, Status>> + Send>>;

    async fn tso(&self, request: Request<Streaming<TsoRequest>>) -> Result<Response<Self::TsoStream>, Status> {
        let state = self.state.clone();
        let answers = request.into_inner().map(move |request| {
            let count = request?.count;
            let mut state = state.lock();
            state.calls.push(("Tso", 0));
            if state.take_fault("Tso", |_| true).is_some() {
                return Err(Status::unavailable("planned"));
            }
            let ts = state.timestamp() + u64::from(count);
            state.clock = ts;
            let timestamp = Timestamp { physical: (ts >> 18) as i64, logical: (ts & 0x3ffff) as i64, suffix_bits: 0 };
            Ok(TsoResponse { header: header(), count, timestamp: Some(timestamp) })
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn get_members(&self, _: Request<GetMembersRequest>) -> Result<Response<GetMembersResponse>, Status> {
        let addresses = self.state.lock().addresses.clone();
        let members = addresses.iter().enumerate().map(|(at, address)| Member {
            name: format!("node-{at}"),
            member_id: at as u64 + 1,
            client_urls: vec![format!("http://{address}")],
            ..Default::default()
        });
        let members: Vec<Member> = members.collect();
        let leader = members.first().cloned();
        Ok(Response::new(GetMembersResponse { header: header(), members, leader, ..Default::default() }))
    }

    async fn get_store(&self, request: Request<GetStoreRequest>) -> Result<Response<GetStoreResponse>, Status> {
        let store = self.store_meta(request.into_inner().store_id);
        Ok(Response::new(GetStoreResponse { header: header(), store }))
    }

    async fn get_all_stores(&self, _: Request<GetAllStoresRequest>) -> Result<Response<GetAllStoresResponse>, Status> {
        let stores = (1..=super::STORES).filter_map(|id| self.store_meta(id)).collect();
        Ok(Response::new(GetAllStoresResponse { header: header(), stores }))
    }

    async fn get_region(&self, request: Request<GetRegionRequest>) -> Result<Response<GetRegionResponse>, Status> {
        self.state.lock().calls.push(("GetRegion", self.store));
        let key = request.into_inner().region_key;
        Ok(Response::new(self.region(|region| region.contains(&key))))
    }

    async fn get_prev_region(&self, request: Request<GetRegionRequest>) -> Result<Response<GetRegionResponse>, Status> {
        let key = request.into_inner().region_key;
        let start = self.state.lock().regions.iter().find(|region| region.contains(&key)).unwrap().start.clone();
        Ok(Response::new(self.region(|region| !start.is_empty() && region.end == start)))
    }

    async fn scan_regions(&self, _: Request<ScanRegionsRequest>) -> Result<Response<ScanRegionsResponse>, Status> {
        let mut regions = self.state.lock().regions.clone();
        regions.sort_by(|a, b| a.start.cmp(&b.start));
        let regions = regions.iter().map(|region| pdpb::Region {
            region: Some(region.meta()),
            leader: Some(region.peer(region.leader)),
            ..Default::default()
        });
        Ok(Response::new(ScanRegionsResponse { header: header(), regions: regions.collect(), ..Default::default() }))
    }

    async fn get_cluster_info(
        &self,
        _: Request<GetClusterInfoRequest>,
    ) -> Result<Response<GetClusterInfoResponse>, Status> {
        unimplemented()
    }

    async fn alloc_id(&self, _: Request<AllocIdRequest>) -> Result<Response<AllocIdResponse>, Status> {
        unimplemented()
    }

    async fn get_region_by_id(&self, _: Request<GetRegionByIdRequest>) -> Result<Response<GetRegionResponse>, Status> {
        unimplemented()
    }

    async fn get_gc_safe_point(
        &self,
        _: Request<GetGcSafePointRequest>,
    ) -> Result<Response<GetGcSafePointResponse>, Status> {
        unimplemented()
    }

    async fn update_gc_safe_point(
        &self,
        _: Request<UpdateGcSafePointRequest>,
    ) -> Result<Response<UpdateGcSafePointResponse>, Status> {
        unimplemented()
    }

    async fn batch_scan_regions(
        &self,
        _: Request<BatchScanRegionsRequest>,
    ) -> Result<Response<BatchScanRegionsResponse>, Status> {
        unimplemented()
    }

    async fn get_min_ts(&self, _: Request<GetMinTsRequest>) -> Result<Response<GetMinTsResponse>, Status> {
        unimplemented()
    }

    async fn get_cluster_config(
        &self,
        _: Request<GetClusterConfigRequest>,
    ) -> Result<Response<GetClusterConfigResponse>, Status> {
        unimplemented()
    }

    async fn get_external_timestamp(
        &self,
        _: Request<GetExternalTimestampRequest>,
    ) -> Result<Response<GetExternalTimestampResponse>, Status> {
        unimplemented()
    }

    async fn set_external_timestamp(
        &self,
        _: Request<SetExternalTimestampRequest>,
    ) -> Result<Response<SetExternalTimestampResponse>, Status> {
        unimplemented()
    }

    async fn update_service_gc_safe_point(
        &self,
        _: Request<UpdateServiceGcSafePointRequest>,
    ) -> Result<Response<UpdateServiceGcSafePointResponse>, Status> {
        unimplemented()
    }

    async fn get_gc_state(&self, _: Request<GetGcStateRequest>) -> Result<Response<GetGcStateResponse>, Status> {
        unimplemented()
    }

    async fn get_all_keyspaces_gc_states(
        &self,
        _: Request<GetAllKeyspacesGcStatesRequest>,
    ) -> Result<Response<GetAllKeyspacesGcStatesResponse>, Status> {
        unimplemented()
    }

    async fn advance_txn_safe_point(
        &self,
        _: Request<AdvanceTxnSafePointRequest>,
    ) -> Result<Response<AdvanceTxnSafePointResponse>, Status> {
        unimplemented()
    }

    async fn advance_gc_safe_point(
        &self,
        _: Request<AdvanceGcSafePointRequest>,
    ) -> Result<Response<AdvanceGcSafePointResponse>, Status> {
        unimplemented()
    }

    async fn set_gc_barrier(&self, _: Request<SetGcBarrierRequest>) -> Result<Response<SetGcBarrierResponse>, Status> {
        unimplemented()
    }

    async fn delete_gc_barrier(
        &self,
        _: Request<DeleteGcBarrierRequest>,
    ) -> Result<Response<DeleteGcBarrierResponse>, Status> {
        unimplemented()
    }
}
