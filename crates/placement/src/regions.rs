//! The catalogue of regions: which peers hold which range, from the heartbeats of the regions' leaders.
//!
//! It lives in memory only. The regions of the bootstrap, with which it begins, are persisted, so a new leader can
//! route from the start; later changes come with the next heartbeats, and a client that was routed by an outdated entry
//! is corrected by the store that it asks (epoch mismatch).
//!
//! Invariant: data regions in the catalogue do not overlap. Of two that claim a key the one with the newer version
//! wins, because a range changes only together with the version. Gaps are possible while only a part of a split is
//! reported.

use crate::{Peer, Refusal, RefusalCode, Region, RegionHeartbeat, RegionInfo, ScanRegions};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::ops::Bound;

/// The maximum number of regions in the catalogue: about 1 GiB of descriptors.
pub const REGIONS_MAX: usize = 1_000_000;

/// The maximum number of regions that one scan returns; at about 300 bytes each the answer stays below the usual
/// message limit of 4 MiB.
pub const SCAN_REGIONS_MAX: usize = 10_000;

/// How many regions a scan with this limit returns at most.
pub fn scan_limit(limit: u32) -> usize {
    match limit as usize {
        0 => SCAN_REGIONS_MAX,
        limit => limit.min(SCAN_REGIONS_MAX),
    }
}

/// The regions of the cluster.
#[derive(Debug, Default)]
pub(crate) struct Regions {
    by_id: BTreeMap<u64, RegionInfo>,
    /// Data regions by start key.
    by_start: BTreeMap<Bytes, u64>,
}

impl Regions {
    /// The state of a new leader.
    pub fn new(bootstrap: Vec<Region>) -> Regions {
        let mut regions = Regions::default();
        for region in bootstrap {
            let info = RegionInfo { region, ..RegionInfo::default() };
            regions.insert(info);
        }
        regions
    }

    /// Handles a leader's report; one that is older than the known state changes nothing.
    pub fn heartbeat(&mut self, heartbeat: RegionHeartbeat) -> Result<(), Refusal> {
        check(&heartbeat)?;
        let RegionHeartbeat { region, leader, term, approximate_bytes, approximate_keys, down_peers, pending_peers } =
            heartbeat;
        match self.by_id.get(&region.id) {
            Some(known) if region.epoch.is_behind(&known.region.epoch) || term < known.term => return Ok(()),
            None if self.by_id.len() >= REGIONS_MAX => {
                return Err(Refusal::new(RefusalCode::Busy, format!("a cluster has at most {REGIONS_MAX} regions")));
            }
            _ => {}
        }
        let newer = |other: &RegionInfo| other.region.epoch.version > region.epoch.version;
        let overlapping = self.overlapping(&region);
        if overlapping.iter().filter_map(|id| self.by_id.get(id)).any(newer) {
            return Ok(());
        }
        for id in overlapping {
            self.remove(id);
        }
        self.remove(region.id);
        let leader = Some(leader);
        let info = RegionInfo { region, leader, term, approximate_bytes, approximate_keys, down_peers, pending_peers };
        self.insert(info);
        Ok(())
    }

    /// The data region that holds the key.
    pub fn by_key(&self, key: &[u8]) -> Result<&RegionInfo, Refusal> {
        self.at_or_before(Bound::Included(key))
            .filter(|info| info.region.contains(key))
            .ok_or_else(|| Refusal::new(RefusalCode::UnknownRegion, "no region is known at that key at the moment"))
    }

    /// The data region that ends where the one that holds the key starts.
    pub fn previous(&self, key: &[u8]) -> Result<&RegionInfo, Refusal> {
        let start = &self.by_key(key)?.region.start_key;
        self.at_or_before(Bound::Excluded(start))
            .filter(|info| info.region.end_key == start)
            .ok_or_else(|| Refusal::new(RefusalCode::UnknownRegion, "no region is known before that key at the moment"))
    }

    /// Any region by its id.
    pub fn by_id(&self, id: u64) -> Result<&RegionInfo, Refusal> {
        let unknown = || Refusal::new(RefusalCode::UnknownRegion, format!("region {id} is not known"));
        self.by_id.get(&id).ok_or_else(unknown)
    }

    /// The data regions of a range, in order.
    pub fn scan(&self, scan: &ScanRegions) -> Vec<RegionInfo> {
        let limit = scan_limit(scan.limit);
        // Begins with the region that holds the start key, which may start before it.
        let start = self.by_key(&scan.start_key).map_or(&scan.start_key, |info| &info.region.start_key);
        self.by_start
            .range::<[u8], _>((Bound::Included(start.as_ref()), Bound::Unbounded))
            .take_while(|(start, _)| scan.end_key.is_empty() || **start < scan.end_key)
            .filter_map(|(_, id)| self.by_id.get(id))
            .take(limit)
            .cloned()
            .collect()
    }

    /// The peers of the placement group; empty if it is not known.
    pub fn system_peers(&self) -> &[Peer] {
        self.by_id.values().find(|info| info.region.system).map_or(&[], |info| &info.region.peers)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    fn at_or_before(&self, bound: Bound<&[u8]>) -> Option<&RegionInfo> {
        let (_, id) = self.by_start.range::<[u8], _>((Bound::Unbounded, bound)).next_back()?;
        self.by_id.get(id)
    }

    /// Data regions other than this one that share a key with it.
    fn overlapping(&self, region: &Region) -> Vec<u64> {
        if region.system {
            return Vec::new();
        }
        let end = if region.end_key.is_empty() { Bound::Unbounded } else { Bound::Excluded(region.end_key.as_ref()) };
        self.by_start
            .range::<[u8], _>((Bound::Unbounded, end))
            .rev()
            .map_while(|(_, id)| self.by_id.get(id))
            .take_while(|other| other.region.end_key.is_empty() || other.region.end_key > region.start_key)
            .map(|other| other.region.id)
            .filter(|id| *id != region.id)
            .collect()
    }

    fn insert(&mut self, info: RegionInfo) {
        if !info.region.system {
            let displaced = self.by_start.insert(info.region.start_key.clone(), info.region.id);
            assert!(displaced.is_none(), "the region that held that start key was removed before");
        }
        self.by_id.insert(info.region.id, info);
    }

    fn remove(&mut self, id: u64) {
        if let Some(info) = self.by_id.remove(&id)
            && !info.region.system
        {
            let removed = self.by_start.remove(&info.region.start_key);
            assert_eq!(removed, Some(id), "both indices hold the same regions");
        }
    }
}

/// Refuses a report that contradicts itself.
fn check(heartbeat: &RegionHeartbeat) -> Result<(), Refusal> {
    let region = &heartbeat.region;
    let what = if region.id == 0 {
        "a region id is 1 or greater, not 0".to_string()
    } else if !region.end_key.is_empty() && region.end_key <= region.start_key {
        format!("region {} ends before it starts", region.id)
    } else if !region.peers.iter().any(|p| p.id == heartbeat.leader.id && p.store_id == heartbeat.leader.store_id) {
        format!("region {} reports a leader that is not one of its peers", region.id)
    } else {
        return Ok(());
    };
    Err(Refusal::new(RefusalCode::Invalid, what))
}

#[cfg(test)]
#[path = "regions_test.rs"]
mod tests;
