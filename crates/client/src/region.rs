//! The region cache: the region that holds a key, and its leader, as far as this client knows.
//!
//! Entries may be stale at any time: servers check the epoch of every request, and their region errors correct the
//! cache. Entries never overlap; a newer one displaces every older one it overlaps.

use bytes::Bytes;
use kontiki_proto::metapb;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

/// A region as last reported.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Region {
    pub(crate) meta: metapb::Region,
    /// The peer that is asked first.
    pub(crate) leader: metapb::Peer,
    /// Peers that were tried without success since the placement driver was asked.
    tried: usize,
}

impl Region {
    /// `None` if the descriptor is incomplete.
    pub(crate) fn new(meta: metapb::Region, leader: Option<metapb::Peer>) -> Option<Region> {
        let leader = leader.filter(|peer| peer.store_id != 0).or_else(|| meta.peers.first().cloned())?;
        meta.region_epoch.as_ref()?;
        Some(Region { meta, leader, tried: 0 })
    }

    pub(crate) fn id(&self) -> u64 {
        self.meta.id
    }

    fn epoch(&self) -> (u64, u64) {
        self.meta.region_epoch.as_ref().map_or((0, 0), |epoch| (epoch.version, epoch.conf_ver))
    }

    /// Whether it holds the position.
    pub(crate) fn contains(&self, position: &[u8]) -> bool {
        self.meta.start_key <= position && (self.meta.end_key.is_empty() || position < self.meta.end_key)
    }

    /// Whether it holds the positions just below an exclusive bound (empty: unbounded).
    pub(crate) fn contains_below(&self, bound: &[u8]) -> bool {
        if bound.is_empty() {
            return self.meta.end_key.is_empty();
        }
        self.meta.start_key < bound && (self.meta.end_key.is_empty() || bound <= self.meta.end_key)
    }

    fn overlaps(&self, other: &Region) -> bool {
        let below = |end: &Bytes, start: &Bytes| !end.is_empty() && end <= start;
        !below(&self.meta.end_key, &other.meta.start_key) && !below(&other.meta.end_key, &self.meta.start_key)
    }
}

#[derive(Debug, Default)]
pub(crate) struct RegionCache {
    by_start: Mutex<BTreeMap<Bytes, Arc<Region>>>,
}

impl RegionCache {
    /// The region that holds the position.
    pub(crate) fn locate(&self, position: &[u8]) -> Option<Arc<Region>> {
        let regions = self.by_start.lock();
        let (_, region) = regions.range::<[u8], _>((Bound::Unbounded, Bound::Included(position))).next_back()?;
        region.contains(position).then(|| region.clone())
    }

    /// The region that holds the positions just below the bound (empty: unbounded).
    pub(crate) fn locate_below(&self, bound: &[u8]) -> Option<Arc<Region>> {
        let regions = self.by_start.lock();
        let upper = if bound.is_empty() { Bound::Unbounded } else { Bound::Excluded(bound) };
        let (_, region) = regions.range::<[u8], _>((Bound::Unbounded, upper)).next_back()?;
        region.contains_below(bound).then(|| region.clone())
    }

    /// Inserts a region, unless a newer version of it is known: that one may have another range, so a caller that looks
    /// for a key asks the cache again.
    pub(crate) fn insert(&self, region: Region) {
        let mut regions = self.by_start.lock();
        if regions.values().any(|known| known.id() == region.id() && known.epoch() > region.epoch()) {
            return;
        }
        regions.retain(|_, known| known.id() != region.id() && !known.overlaps(&region));
        regions.insert(region.meta.start_key.clone(), Arc::new(region));
    }

    /// Forgets a region.
    pub(crate) fn remove(&self, id: u64) {
        self.by_start.lock().retain(|_, known| known.id() != id);
    }

    /// Another peer leads the region: asked first from now on. Forgets the region if it does not know the peer.
    pub(crate) fn set_leader(&self, id: u64, leader: &metapb::Peer) {
        self.change(id, |region| match region.meta.peers.iter().any(|peer| peer.id == leader.id) {
            true => Some(Region { leader: *leader, ..region.clone() }),
            false => None,
        });
    }

    /// The peer did not answer, or does not lead and does not know the leader: the next peer is asked. After a whole
    /// round forgets the region, so that the placement driver is asked again.
    pub(crate) fn try_next_peer(&self, failed: &Region) {
        self.change(failed.id(), |region| {
            if region.leader != failed.leader {
                return Some(region.clone()); // Another task has updated it meanwhile.
            }
            let peers = &region.meta.peers;
            let at = peers.iter().position(|peer| peer.id == region.leader.id).map_or(0, |at| at + 1);
            let next = peers.get(at % peers.len().max(1))?;
            let tried = region.tried + 1;
            (tried < peers.len()).then(|| Region { leader: *next, tried, ..region.clone() })
        });
    }

    fn change(&self, id: u64, change: impl FnOnce(&Region) -> Option<Region>) {
        let mut regions = self.by_start.lock();
        let Some(region) = regions.values().find(|known| known.id() == id).cloned() else { return };
        match change(&region) {
            Some(changed) => regions.insert(region.meta.start_key.clone(), Arc::new(changed)),
            None => regions.remove(&region.meta.start_key),
        };
    }
}

#[cfg(test)]
#[path = "region_test.rs"]
mod tests;
