//! A split: the region keeps its beginning, and each child takes the part from its own start key to the next one's.
//!
//! *Rejected:* the region keeps its end (a choice without consequences for correctness; keeping the start key means
//! that the key by which caches find a region stays the same).

use super::decide::{Change, Refusal};
use super::{SPLIT_CHILDREN_MAX, SPLIT_KEY_BYTES_MAX, SplitChild};
use crate::region::{Epoch, Merges, Peer, Region, Space};
use std::collections::BTreeSet;

pub(super) fn decide(region: &Region, children: &[SplitChild]) -> Result<Change, Refusal> {
    check(region, children).map_err(Refusal::Impossible)?;
    let version = region.epoch.version + children.len() as u64;
    let epoch = Epoch { version, ..region.epoch };
    let ends = children.iter().skip(1).map(|child| &child.start_key).chain([&region.end_key]);
    let made = children.iter().zip(ends).map(|(child, end_key)| {
        let stores = region.peers.iter().map(|peer| peer.store);
        let mut peers: Vec<Peer> = child.peers.iter().zip(stores).map(|(id, store)| Peer { id: *id, store }).collect();
        peers.sort_by_key(|peer| peer.id);
        let roles = region.roles_of(&child.peers);
        Region {
            id: child.id,
            start_key: child.start_key.clone(),
            end_key: end_key.clone(),
            epoch,
            peers,
            roles,
            space: region.space,
            merges: Merges::default(),
            gc_safe_point: region.gc_safe_point,
        }
    });
    let made = made.collect();
    let region = Region { end_key: children[0].start_key.clone(), epoch, ..region.clone() };
    Ok(Change::Split { region, children: made })
}

fn check(region: &Region, children: &[SplitChild]) -> Result<(), &'static str> {
    if region.space == Space::System {
        return Err("the region of the placement group is not split");
    }
    if region.is_joint() {
        return Err("a region is not split in a joint configuration");
    }
    if children.is_empty() || children.len() > SPLIT_CHILDREN_MAX {
        return Err("a split makes at least one region, and a limited number");
    }
    let keys = || children.iter().map(|child| &child.start_key);
    if !keys().is_sorted_by(|a, b| a < b) {
        return Err("split keys ascend");
    }
    if keys().any(|key| *key <= region.start_key || !region.contains(key) || key.len() > SPLIT_KEY_BYTES_MAX) {
        return Err("a split key lies within the region and has a limited length");
    }
    let regions: BTreeSet<_> = children.iter().map(|child| child.id).chain([region.id]).collect();
    let peers = children.iter().flat_map(|child| child.peers.iter().copied());
    let peers: BTreeSet<_> = peers.chain(region.peers.iter().map(|peer| peer.id)).collect();
    let has_peers = children.iter().all(|child| child.peers.len() == region.peers.len());
    if !has_peers || peers.len() != region.peers.len() * (children.len() + 1) || peers.iter().any(|id| id.0 == 0) {
        return Err("each new region has new replicas, one for each of the region's");
    }
    if regions.len() != children.len() + 1 || regions.iter().any(|id| id.0 == 0) {
        return Err("each new region has a new identity");
    }
    Ok(())
}
