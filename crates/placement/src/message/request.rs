//! Requests to placement.

use super::{
    CreateKeyspace, ExternalTimestamp, GcBarrier, KeyspaceByName, Keyspaces, Peer, Region, SetExternalTimestamp,
    SetKeyspaceState, Store, StoreStats,
};

/// A request. Build it from a command: `Request::from(Command::AllStores(AllStores {}))`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Request {
    /// What is asked; `None` only if the sender knows commands that we do not.
    #[prost(
        oneof = "Command",
        tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 20, 21, 22, 23, 24, 25, 30, 31, 32, 33, 34, 35"
    )]
    pub command: Option<Command>,
}

/// What can be asked.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Command {
    /// Timestamps of the oracle.
    #[prost(message, tag = "1")]
    Timestamps(Timestamps),
    /// Fresh ids.
    #[prost(message, tag = "2")]
    AllocateIds(AllocateIds),
    /// A store reports that it is alive.
    #[prost(message, tag = "3")]
    StoreHeartbeat(StoreHeartbeat),
    /// A region's leader reports the region.
    #[prost(message, tag = "4")]
    RegionHeartbeat(RegionHeartbeat),
    /// The region that holds a key.
    #[prost(message, tag = "5")]
    RegionByKey(RegionByKey),
    /// The region just before the one that holds a key.
    #[prost(message, tag = "6")]
    PreviousRegion(PreviousRegion),
    /// A region by its id.
    #[prost(message, tag = "7")]
    RegionById(RegionById),
    /// The regions of a range.
    #[prost(message, tag = "8")]
    ScanRegions(ScanRegions),
    /// A store by its id.
    #[prost(message, tag = "9")]
    StoreById(StoreById),
    /// Every store.
    #[prost(message, tag = "10")]
    AllStores(AllStores),
    /// The safe point of garbage collection.
    #[prost(message, tag = "11")]
    GcSafePoint(GcSafePoint),
    /// Moves the safe point of garbage collection forward.
    #[prost(message, tag = "12")]
    UpdateGcSafePoint(UpdateGcSafePoint),
    /// The cluster's id, the members of the placement group and its leader.
    #[prost(message, tag = "13")]
    Cluster(Cluster),
    /// A keyspace by its name.
    #[prost(message, tag = "20")]
    KeyspaceByName(KeyspaceByName),
    /// Keyspaces by ascending id.
    #[prost(message, tag = "21")]
    Keyspaces(Keyspaces),
    /// Creates a keyspace.
    #[prost(message, tag = "22")]
    CreateKeyspace(CreateKeyspace),
    /// Changes the state of a keyspace.
    #[prost(message, tag = "23")]
    SetKeyspaceState(SetKeyspaceState),
    /// The external timestamp: a number that applications agree on by way of placement.
    #[prost(message, tag = "24")]
    ExternalTimestamp(ExternalTimestamp),
    /// Moves the external timestamp forward.
    #[prost(message, tag = "25")]
    SetExternalTimestamp(SetExternalTimestamp),
    /// The safe points and barriers of garbage collection.
    #[prost(message, tag = "30")]
    GcState(GcState),
    /// Sets, moves or removes what holds the safe points back for a service.
    #[prost(message, tag = "31")]
    UpdateServiceSafePoint(UpdateServiceSafePoint),
    /// Moves the transaction safe point forward.
    #[prost(message, tag = "32")]
    AdvanceTxnSafePoint(AdvanceSafePoint),
    /// Moves the safe point of garbage collection up to the transaction safe point.
    #[prost(message, tag = "33")]
    AdvanceGcSafePoint(AdvanceSafePoint),
    /// Sets or moves a barrier.
    #[prost(message, tag = "34")]
    SetGcBarrier(GcBarrier),
    /// Removes a barrier.
    #[prost(message, tag = "35")]
    DeleteGcBarrier(DeleteGcBarrier),
}

impl From<Command> for Request {
    fn from(command: Command) -> Request {
        Request { command: Some(command) }
    }
}

/// See [`Command::Timestamps`]; answered by `TimestampsGranted`.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Timestamps {
    /// How many, 1 to [`crate::TIMESTAMP_COUNT_MAX`].
    #[prost(uint32, tag = "1")]
    pub count: u32,
}

/// See [`Command::AllocateIds`]; answered by `IdsGranted`.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct AllocateIds {
    /// How many, 1 to [`crate::ID_COUNT_MAX`].
    #[prost(uint32, tag = "1")]
    pub count: u32,
}

/// See [`Command::StoreHeartbeat`]; answered by `Accepted`, before a change of address is durable: the next
/// heartbeat repeats it.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct StoreHeartbeat {
    /// The store that reports.
    #[prost(message, required, tag = "1")]
    pub store: Store,
    /// What it reports.
    #[prost(message, required, tag = "2")]
    pub stats: StoreStats,
}

/// See [`Command::RegionHeartbeat`]; answered by `Accepted`, also when it is stale and ignored.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RegionHeartbeat {
    /// The region as its leader knows it.
    #[prost(message, required, tag = "1")]
    pub region: Region,
    /// The leader; one of the region's peers.
    #[prost(message, required, tag = "2")]
    pub leader: Peer,
    /// The leader's raft term.
    #[prost(uint64, tag = "3")]
    pub term: u64,
    /// Approximate size of the region's data, in bytes.
    #[prost(uint64, tag = "4")]
    pub approximate_bytes: u64,
    /// Approximate number of keys.
    #[prost(uint64, tag = "5")]
    pub approximate_keys: u64,
    /// Peers from which the leader has received nothing for a while.
    #[prost(message, repeated, tag = "6")]
    pub down_peers: Vec<Peer>,
    /// Peers that are still catching up.
    #[prost(message, repeated, tag = "7")]
    pub pending_peers: Vec<Peer>,
}

/// See [`Command::RegionByKey`]; answered by a region.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct RegionByKey {
    /// The key, compared byte by byte with region boundaries.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: bytes::Bytes,
}

/// See [`Command::PreviousRegion`]; answered by a region.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PreviousRegion {
    /// The key.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: bytes::Bytes,
}

/// See [`Command::RegionById`]; answered by a region. Finds the placement group too.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct RegionById {
    /// The region's id.
    #[prost(uint64, tag = "1")]
    pub id: u64,
}

/// See [`Command::ScanRegions`]; answered by `RegionList`, in key order.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ScanRegions {
    /// The first region is the one that holds this key, or the next one if none does.
    #[prost(bytes = "bytes", tag = "1")]
    pub start_key: bytes::Bytes,
    /// No region that starts at or after this key; empty is unbounded.
    #[prost(bytes = "bytes", tag = "2")]
    pub end_key: bytes::Bytes,
    /// The maximum number; 0 stands for [`crate::SCAN_REGIONS_MAX`], which also bounds larger limits.
    #[prost(uint32, tag = "3")]
    pub limit: u32,
}

/// See [`Command::StoreById`]; answered by a store.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct StoreById {
    /// The store's id.
    #[prost(uint64, tag = "1")]
    pub id: u64,
}

/// See [`Command::AllStores`]; answered by `StoreList`, by ascending id.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct AllStores {}

/// See [`Command::GcSafePoint`]; answered by `SafePoint`.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct GcSafePoint {}

/// See [`Command::UpdateGcSafePoint`]; answered by `SafePoint`, once that is durable: the greater of the old one, and
/// of what was asked for as far as no barrier holds it back.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct UpdateGcSafePoint {
    /// The new safe point, a timestamp.
    #[prost(uint64, tag = "1")]
    pub safe_point: u64,
}

/// See [`Command::Cluster`]; answered by `ClusterInfo`.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Cluster {}

/// See [`Command::GcState`]; answered by `GcPoints`.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct GcState {}

/// See [`Command::UpdateServiceSafePoint`]; answered by `ServiceSafePoint`, once the change is durable.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct UpdateServiceSafePoint {
    /// The service's name. [`crate::GC_WORKER`] moves the transaction safe point.
    #[prost(string, tag = "1")]
    pub service: String,
    /// For so many seconds; 0 or less removes it, [`crate::GC_BARRIER_TTL_FOREVER`] never expires.
    #[prost(int64, tag = "2")]
    pub ttl_seconds: i64,
    /// The oldest timestamp that the service still reads at. One below the transaction safe point changes nothing.
    #[prost(uint64, tag = "3")]
    pub safe_point: u64,
}

/// See [`Command::AdvanceTxnSafePoint`] and [`Command::AdvanceGcSafePoint`]; answered by `SafePointMoved`, once that is
/// durable.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct AdvanceSafePoint {
    /// Where it should be, a timestamp at or above where it is.
    #[prost(uint64, tag = "1")]
    pub target: u64,
}

/// See [`Command::DeleteGcBarrier`]; answered by `GcBarrier`, with what the barrier was if there was one.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct DeleteGcBarrier {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
}
