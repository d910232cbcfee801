//! The placement driver: timestamps, ids, the catalogues of stores and regions, the safe point of garbage collection.
//!
//! A pure state machine at the leader of the placement group: calls, ticks and results of writes go in, replies and
//! write batches come out ([`Placement`]). It has no thread, clock, socket or random source, and the same inputs give
//! the same outputs. raftstore replicates the batches like any others, so followers need no placement code: a new
//! leader loads its state from the column family [`FAMILY`].
//!
//! Persisted, because no heartbeat reports them again: how far timestamps and ids may have been handed out, the safe
//! point, the stores and the first regions. Everything else comes with heartbeats. docs/internals/placement.md has the
//! reasons.
#![deny(missing_docs)]
#![forbid(unsafe_code)]

mod call;
mod config;
mod error;
mod gc;
mod gc_record;
mod growing;
mod ids;
mod keyspaces;
mod leader;
mod machine;
mod message;
mod oracle;
pub mod planted;
mod records;
mod regions;
mod state;
mod stores;

#[cfg(test)]
mod failover_test;
#[cfg(test)]
mod golden_test;
#[cfg(test)]
mod test_view;

pub use call::CallId;
pub use config::{Config, Now};
pub use error::{Error, Result};
pub use gc::{GC_BARRIER_NAME_BYTES_MAX, GC_BARRIERS_MAX, GC_WORKER};
pub use gc_record::GC_BARRIER_TTL_FOREVER;
pub use ids::{FIRST_ID, ID_COUNT_MAX};
pub use keyspaces::{KEYSPACE_DEFAULT, KEYSPACE_NAME_BYTES_MAX, KEYSPACES_MAX};
pub use leader::PENDING_CALLS_MAX;
pub use machine::{Output, Placement, WriteId};
pub use message::{
    Accepted, AdvanceSafePoint, AllStores, AllocateIds, Cluster, ClusterInfo, Command, CreateKeyspace, DeleteGcBarrier,
    Epoch, ExternalTimestamp, ExternalTimestampSet, GcBarrier, GcBarrierChanged, GcPoints, GcSafePoint, GcState,
    IdsGranted, Keyspace, KeyspaceByName, KeyspaceList, KeyspaceState, Keyspaces, LOGICAL_BITS, Outcome, Peer,
    PeerRole, PreviousRegion, Refusal, RefusalCode, Region, RegionById, RegionByKey, RegionHeartbeat, RegionInfo,
    RegionList, Request, Response, SafePoint, SafePointMoved, ScanRegions, ServiceSafePoint, SetExternalTimestamp,
    SetKeyspaceState, Store, StoreById, StoreHeartbeat, StoreInfo, StoreList, StoreStats, Timestamps,
    TimestampsGranted, UpdateGcSafePoint, UpdateServiceSafePoint,
};
pub use oracle::TIMESTAMP_COUNT_MAX;
pub use regions::{REGIONS_MAX, SCAN_REGIONS_MAX, scan_limit};
pub use state::{Bounds, FAMILY, bootstrap, bounds};
pub use stores::STORES_MAX;
