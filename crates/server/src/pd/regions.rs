//! Look-ups of regions.
//!
//! A node that has just begun to lead placement knows the regions of the bootstrap; those that splits made are reported
//! by their leaders, which may have to be elected first. Until then its catalogue has gaps. Clients take an answer
//! without a region for a failure and repeat the look-up a few times without a pause; tikv-client 0.4.0 then sends
//! nothing and reports success (findings/tikv-client-commit-without-region.sh). Therefore:
//! 1. what placement does not know yet is answered from the replicas of this node, or waited for, or an error, which
//!    clients repeat. An absent region is one that does not exist: that before the first one, an unknown id;
//! 2. a region is returned with a leader, or not at all: one without a leader stays in a client's cache, where calls
//!    that cannot drop it (raw scans) fail permanently.

use super::{Pd, PdError, Result};
use crate::api::Node;
use crate::driver::placement_region;
use crate::kv::wire_peer;
use bytes::Bytes;
use kontiki_placement::{
    self as placement, Command, Outcome, PreviousRegion, RefusalCode, RegionById, RegionByKey, RegionInfo, ScanRegions,
    scan_limit,
};
use kontiki_proto::{metapb, pdpb};
use kontiki_raftstore::{Region, RegionId, Space, StoreId};
use std::collections::BTreeMap;
use std::ops::Bound;

/// The maximum number of ranges in one scan: each costs a call to placement.
const RANGES_MAX: usize = 1_024;

/// Which region a client looks for.
enum LookUp {
    /// The one that holds a key.
    Key(Bytes),
    /// The one before that.
    Before(Bytes),
    Id(u64),
}

/// What a look-up found.
enum Found {
    Region(Box<RegionInfo>),
    /// There is no such region.
    Absent,
    /// There is one, which no leader has reported yet.
    Unreported,
}

impl<N: Node> Pd<N> {
    /// GetRegion.
    pub async fn get_region(&self, request: pdpb::GetRegionRequest) -> Result<pdpb::GetRegionResponse> {
        self.check(&request.header)?;
        self.find_region(LookUp::Key(request.region_key)).await
    }

    /// GetPrevRegion.
    pub async fn get_prev_region(&self, request: pdpb::GetRegionRequest) -> Result<pdpb::GetRegionResponse> {
        self.check(&request.header)?;
        self.find_region(LookUp::Before(request.region_key)).await
    }

    /// GetRegionByID.
    pub async fn get_region_by_id(&self, request: pdpb::GetRegionByIdRequest) -> Result<pdpb::GetRegionResponse> {
        self.check(&request.header)?;
        self.find_region(LookUp::Id(request.region_id)).await
    }

    /// ScanRegions: in the old format and the new one.
    pub async fn scan_regions(&self, request: pdpb::ScanRegionsRequest) -> Result<pdpb::ScanRegionsResponse> {
        self.check(&request.header)?;
        let limit = u32::try_from(request.limit).unwrap_or(0);
        let scan = ScanRegions { start_key: request.start_key, end_key: request.end_key, limit };
        let found = self.find_regions(scan).await?.into_iter();
        let regions: Vec<_> = found.map(|info| self.with_leader(info)).collect();
        Ok(pdpb::ScanRegionsResponse {
            header: self.header(),
            region_metas: regions.iter().filter_map(|region| region.region.clone()).collect(),
            leaders: regions.iter().map(|region| region.leader.unwrap_or_default()).collect(),
            regions,
        })
    }

    /// BatchScanRegions: the regions of several ranges, each region once.
    pub async fn batch_scan_regions(
        &self,
        request: pdpb::BatchScanRegionsRequest,
    ) -> Result<pdpb::BatchScanRegionsResponse> {
        self.check(&request.header)?;
        check_ranges(&request.ranges)?;
        let limit = scan_limit(u32::try_from(request.limit).unwrap_or(0));
        let mut regions: Vec<pdpb::Region> = Vec::new();
        for pdpb::KeyRange { start_key, end_key } in request.ranges {
            let left = limit - regions.len();
            if left == 0 {
                break;
            }
            // One more: the first one may be the last of the range before.
            let scan = ScanRegions { start_key, end_key, limit: u32::try_from(left + 1).unwrap_or(0) };
            let last = regions.last().and_then(|region| region.region.as_ref()).map(|region| region.id);
            let found = self.find_regions(scan).await?.into_iter();
            let new = found.filter(|info| last != Some(info.region.id)).take(left);
            regions.extend(new.map(|info| self.with_leader(info)));
        }
        Ok(pdpb::BatchScanRegionsResponse { header: self.header(), regions })
    }

    fn with_leader(&self, info: RegionInfo) -> pdpb::Region {
        let leader = self.settled_leader(&info);
        let region = wire_region(info);
        pdpb::Region { leader: leader.or(region.leader), ..region }
    }

    /// Waits a short time for a region that its leader has not reported, or for its leader: clients that are sent to a
    /// dead node use up their few tries. If placement still names the same leader at the end, the connection problem
    /// may be that of this node.
    ///
    /// Placement is asked again only after a change of the leader is known here, or after a wait that is long compared
    /// with its answer, so that clients that wait for an election do not load the placement group.
    async fn find_region(&self, look_up: LookUp) -> Result<pdpb::GetRegionResponse> {
        let absent = pdpb::GetRegionResponse { header: self.header(), ..Default::default() };
        let mut waiting = self.retry_budget.begin(&self.node, 0);
        loop {
            let news = self.node.leader_news();
            let info = match self.look_up(&look_up).await? {
                // Clients cannot address the placement group.
                Found::Region(info) if info.region.system => return Ok(absent),
                Found::Region(info) => Some(info),
                Found::Absent => return Ok(absent),
                Found::Unreported => None,
            };
            let settled = info.as_ref().and_then(|info| self.settled_leader(info));
            if settled.is_none() && waiting.pause_for(news).await {
                continue;
            }
            let info = info.ok_or(PdError::Unreported)?;
            let leader = settled.or_else(|| info.leader.as_ref().map(wire_placement_peer));
            if leader.is_none() {
                return Err(PdError::NoLeader(info.region.id));
            }
            let pdpb::Region { region, down_peers, pending_peers, .. } = wire_region(*info);
            return Ok(pdpb::GetRegionResponse { header: self.header(), region, leader, down_peers, pending_peers });
        }
    }

    async fn look_up(&self, look_up: &LookUp) -> Result<Found> {
        let command = match look_up {
            LookUp::Key(key) => Command::RegionByKey(RegionByKey { key: key.clone() }),
            LookUp::Before(key) => Command::PreviousRegion(PreviousRegion { key: key.clone() }),
            LookUp::Id(id) => Command::RegionById(RegionById { id: *id }),
        };
        if let Some(info) = self.ask_for_region(command).await? {
            return Ok(Found::Region(Box::new(info)));
        }
        let (here, otherwise) = match look_up {
            LookUp::Key(key) => (self.regions_here(|region| region.contains(key)).next(), Found::Unreported),
            LookUp::Id(id) => (self.regions_here(|region| region.id.0 == *id).next(), Found::Absent),
            LookUp::Before(key) => match self.start_of_region(key).await? {
                Some(start) if start.is_empty() => (None, Found::Absent),
                Some(start) => (self.regions_here(move |region| region.end_key == start).next(), Found::Unreported),
                None => (None, Found::Unreported),
            },
        };
        Ok(here.map_or(otherwise, |info| Found::Region(Box::new(info))))
    }

    /// Where the region of a key starts.
    async fn start_of_region(&self, key: &Bytes) -> Result<Option<Bytes>> {
        let known = self.ask_for_region(Command::RegionByKey(RegionByKey { key: key.clone() })).await?;
        let known = known.or_else(|| self.regions_here(|region| region.contains(key)).next());
        Ok(known.map(|info| info.region.start_key))
    }

    /// A region according to placement; `None` if it knows none.
    pub(super) async fn ask_for_region(&self, command: Command) -> Result<Option<RegionInfo>> {
        match self.ask(command).await? {
            Ok(outcome) => expect!(outcome, Region).map(Some),
            Err(refusal) if refusal.code() == RefusalCode::UnknownRegion => Ok(None),
            Err(refusal) => Err(self.refused(&refusal)),
        }
    }

    /// The data regions with a replica here that are wanted.
    fn regions_here(&self, is_wanted: impl Fn(&Region) -> bool) -> impl Iterator<Item = RegionInfo> {
        let regions = self.node.regions().into_iter();
        let wanted = regions.filter(move |region| region.space == Space::Data && is_wanted(region));
        wanted.map(|region| RegionInfo { region: placement_region(&region), ..RegionInfo::default() })
    }

    /// The leader according to placement, unless the replica here knows of an election; otherwise according to the
    /// replica. `None` if that store is unreachable: its followers will notice and elect another.
    pub(super) fn settled_leader(&self, info: &RegionInfo) -> Option<metapb::Peer> {
        let here = self.node.region(RegionId(info.region.id));
        let leader = match (info.leader.as_ref(), here) {
            (Some(_), Some((_, None))) => None,
            (Some(leader), _) => Some(wire_placement_peer(leader)),
            (None, Some((_, leader))) => leader.map(wire_peer),
            (None, None) => None,
        };
        leader.filter(|leader| (self.is_reachable)(StoreId(leader.store_id)))
    }

    /// The regions of a range, without a gap: a client would skip the keys in it.
    pub(super) async fn find_regions(&self, scan: ScanRegions) -> Result<Vec<RegionInfo>> {
        let limit = scan_limit(scan.limit);
        let mut waiting = self.retry_budget.begin(&self.node, 0);
        loop {
            let news = self.node.leader_news();
            let mut found = expect!(self.demand(Command::ScanRegions(scan.clone())).await?, Regions)?.regions;
            if !is_covered(&scan, limit, &found) {
                found = fill_gaps(&scan, found, self.regions_here(|_| true));
                found.truncate(limit);
            }
            if is_covered(&scan, limit, &found) {
                return Ok(found);
            }
            if !waiting.pause_for(news).await {
                return Err(PdError::Unreported);
            }
        }
    }
}

/// Ranges of one request are in key order and apart: then a region that is in two of them is found twice in a row.
fn check_ranges(ranges: &[pdpb::KeyRange]) -> Result<()> {
    let invalid = |text: &str| Err(PdError::Invalid(format!("the ranges of a scan of regions {text}")));
    if ranges.is_empty() || ranges.len() > RANGES_MAX {
        return invalid(&format!("are 1 to {RANGES_MAX}, not {}", ranges.len()));
    }
    if ranges.iter().any(|range| !range.end_key.is_empty() && range.start_key > range.end_key) {
        return invalid("end behind their start");
    }
    let is_behind = |pair: &[pdpb::KeyRange]| matches!(pair, [before, after] if before.end_key.is_empty() || before.end_key > after.start_key);
    if ranges.windows(2).any(is_behind) {
        return invalid("are in key order and do not overlap");
    }
    Ok(())
}

/// Whether the regions, in key order, hold the whole range, or its first part if they are as many as the limit.
fn is_covered(scan: &ScanRegions, limit: usize, regions: &[RegionInfo]) -> bool {
    let mut covered_to = &scan.start_key;
    for RegionInfo { region, .. } in regions {
        if region.start_key > *covered_to {
            return false;
        }
        covered_to = &region.end_key;
        if covered_to.is_empty() {
            return true;
        }
    }
    regions.len() >= limit || (!scan.end_key.is_empty() && *covered_to >= scan.end_key)
}

/// The regions of a range, in key order, with those of `others` that overlap none of them.
fn fill_gaps(
    scan: &ScanRegions,
    regions: Vec<RegionInfo>,
    others: impl Iterator<Item = RegionInfo>,
) -> Vec<RegionInfo> {
    let mut by_start: BTreeMap<Bytes, RegionInfo> =
        regions.into_iter().map(|info| (info.region.start_key.clone(), info)).collect();
    let is_before = |end: &Bytes, start: &Bytes| !end.is_empty() && end <= start;
    for info in others {
        let placement::Region { start_key, end_key, .. } = &info.region;
        let before = by_start.range::<Bytes, _>(..start_key).next_back();
        let after = by_start.range::<Bytes, _>((Bound::Included(start_key), Bound::Unbounded)).next();
        let is_in_range = !is_before(end_key, &scan.start_key) && !is_before(&scan.end_key, start_key);
        let is_apart = before.is_none_or(|(_, info)| is_before(&info.region.end_key, start_key))
            && after.is_none_or(|(start, _)| is_before(end_key, start));
        if is_in_range && is_apart {
            by_start.insert(start_key.clone(), info);
        }
    }
    by_start.into_values().collect()
}

pub(super) fn wire_placement_peer(peer: &placement::Peer) -> metapb::Peer {
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
#[path = "regions_test.rs"]
mod tests;
