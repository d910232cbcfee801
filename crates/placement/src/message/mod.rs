//! Messages between the node that receives a call and the node that leads placement.
//!
//! Protobuf, derived in code: the tags are the layout, an absent field reads as zero or empty, and a tag is never given
//! a second meaning. A command that this version does not know decodes as `None` and is refused as
//! [`RefusalCode::Unsupported`], so nodes of different versions can run together during an upgrade.

mod keyspace;
mod model;
mod request;
mod response;

pub use keyspace::{
    CreateKeyspace, ExternalTimestamp, ExternalTimestampSet, Keyspace, KeyspaceByName, KeyspaceList, KeyspaceState,
    Keyspaces, SetExternalTimestamp, SetKeyspaceState,
};
pub use model::{Epoch, GcBarrier, Peer, PeerRole, Region, RegionInfo, Store, StoreInfo, StoreStats};
pub use request::{
    AdvanceSafePoint, AllStores, AllocateIds, Cluster, Command, DeleteGcBarrier, GcSafePoint, GcState, PreviousRegion,
    RegionById, RegionByKey, RegionHeartbeat, Request, ScanRegions, StoreById, StoreHeartbeat, Timestamps,
    UpdateGcSafePoint, UpdateServiceSafePoint,
};
pub use response::{
    Accepted, ClusterInfo, GcBarrierChanged, GcPoints, IdsGranted, LOGICAL_BITS, Outcome, Refusal, RefusalCode,
    RegionList, Response, SafePoint, SafePointMoved, ServiceSafePoint, StoreList, TimestampsGranted,
};
