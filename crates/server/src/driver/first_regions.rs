//! The first regions of a cluster: the same on every node, by its configuration alone.

use super::PLACEMENT_REGION;
use crate::config::NodeConfig;
use bytes::Bytes;
use kontiki_raftstore::{Epoch, Peer, PeerId, Region, RegionId, Space, StoreId};

/// The stores that hold the first regions: the first few members.
pub(super) fn placement_stores(config: &NodeConfig) -> impl Iterator<Item = StoreId> {
    config.members.keys().take(config.replicas).map(|store| StoreId(*store))
}

/// The regions of a cluster's first state, the same on every node: the placement group (1), all keys but the last (2),
/// and the empty tail (3), which prevents clients from wrapping around at the end of a bounded scan.
pub fn first_regions(config: &NodeConfig) -> Vec<Region> {
    let tail = Bytes::from(kontiki_txn::memcomparable_encode(&[0xFF; 16]));
    let region = |id: u64, space, start_key: &Bytes, end_key: &Bytes| Region {
        id: RegionId(id),
        start_key: start_key.clone(),
        end_key: end_key.clone(),
        epoch: Epoch { conf_version: 1, version: 1 },
        peers: placement_stores(config).map(|store| Peer { id: PeerId(id * 1_000 + store.0), store }).collect(),
        roles: Default::default(),
        merges: Default::default(),
        gc_safe_point: 0,
        space,
    };
    vec![
        region(PLACEMENT_REGION.0, Space::System, &Bytes::new(), &Bytes::new()),
        region(2, Space::Data, &Bytes::new(), &tail),
        region(3, Space::Data, &tail, &Bytes::new()),
    ]
}
