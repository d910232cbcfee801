//! Answers of placement.

use super::{ExternalTimestampSet, GcBarrier, Keyspace, KeyspaceList, RegionInfo, StoreInfo};
use std::fmt;

/// An answer.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Response {
    /// What came of the request; `None` only if the sender knows outcomes that we do not.
    #[prost(oneof = "Outcome", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 20, 21, 22, 30, 31, 32, 33")]
    pub outcome: Option<Outcome>,
}

impl Response {
    /// The outcome, with refusals as the error.
    pub fn into_result(self) -> Result<Outcome, Refusal> {
        match self.outcome {
            Some(Outcome::Refused(refusal)) => Err(refusal),
            Some(outcome) => Ok(outcome),
            None => Err(Refusal::new(RefusalCode::Unsupported, "the answer is of a kind this version does not know")),
        }
    }
}

impl From<Outcome> for Response {
    fn from(outcome: Outcome) -> Response {
        Response { outcome: Some(outcome) }
    }
}

impl From<Refusal> for Response {
    fn from(refusal: Refusal) -> Response {
        Outcome::Refused(refusal).into()
    }
}

/// What can come of a request.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Outcome {
    /// Nothing was done, and why.
    #[prost(message, tag = "1")]
    Refused(Refusal),
    /// To `Timestamps`.
    #[prost(message, tag = "2")]
    Timestamps(TimestampsGranted),
    /// To `AllocateIds`.
    #[prost(message, tag = "3")]
    Ids(IdsGranted),
    /// To both heartbeats.
    #[prost(message, tag = "4")]
    Accepted(Accepted),
    /// To `RegionByKey`, `PreviousRegion` and `RegionById`.
    #[prost(message, tag = "5")]
    Region(RegionInfo),
    /// To `ScanRegions`.
    #[prost(message, tag = "6")]
    Regions(RegionList),
    /// To `StoreById`.
    #[prost(message, tag = "7")]
    Store(StoreInfo),
    /// To `AllStores`.
    #[prost(message, tag = "8")]
    Stores(StoreList),
    /// To `GcSafePoint` and `UpdateGcSafePoint`.
    #[prost(message, tag = "9")]
    SafePoint(SafePoint),
    /// To `Cluster`.
    #[prost(message, tag = "10")]
    Cluster(ClusterInfo),
    /// To `KeyspaceByName`, `CreateKeyspace` and `SetKeyspaceState`.
    #[prost(message, tag = "20")]
    Keyspace(Keyspace),
    /// To `Keyspaces`.
    #[prost(message, tag = "21")]
    Keyspaces(KeyspaceList),
    /// To `ExternalTimestamp` and `SetExternalTimestamp`.
    #[prost(message, tag = "22")]
    ExternalTimestamp(ExternalTimestampSet),
    /// To `GcState`.
    #[prost(message, tag = "30")]
    GcPoints(GcPoints),
    /// To `AdvanceTxnSafePoint` and `AdvanceGcSafePoint`.
    #[prost(message, tag = "31")]
    SafePointMoved(SafePointMoved),
    /// To `UpdateServiceSafePoint`.
    #[prost(message, tag = "32")]
    ServiceSafePoint(ServiceSafePoint),
    /// To `SetGcBarrier` and `DeleteGcBarrier`.
    #[prost(message, tag = "33")]
    GcBarrier(GcBarrierChanged),
}

/// Why nothing was done, classified by what the caller can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum RefusalCode {
    /// A code that this version does not know, or a command or answer of a newer version.
    Unsupported = 0,
    /// This node does not lead placement, or ceased to while the call waited: ask the leader. The change that the call
    /// asked for may have happened anyway.
    NotLeader = 1,
    /// The cluster has not been given its first state.
    NotBootstrapped = 2,
    /// No such store.
    UnknownStore = 3,
    /// No such region, or none is known at that key at the moment.
    UnknownRegion = 4,
    /// An argument is outside its range; the text names both.
    Invalid = 5,
    /// Too many calls wait already, or a catalogue is full: try again later.
    Busy = 6,
    /// No such keyspace.
    UnknownKeyspace = 20,
    /// A keyspace has that name already.
    KeyspaceExists = 21,
}

/// A refusal: a code for programs and a text for operators.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Refusal {
    /// A [`RefusalCode`]; read it with `code()`.
    #[prost(enumeration = "RefusalCode", tag = "1")]
    pub code: i32,
    /// What was refused and why.
    #[prost(string, tag = "2")]
    pub message: String,
}

impl Refusal {
    /// A refusal.
    pub fn new(code: RefusalCode, message: impl Into<String>) -> Refusal {
        Refusal { code: code as i32, message: message.into() }
    }

    /// This node does not lead placement.
    pub fn not_leader() -> Refusal {
        Refusal::new(RefusalCode::NotLeader, "placement: this node is not leader of the placement group")
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Refusal {}

/// Bits of a timestamp's logical part.
pub const LOGICAL_BITS: u32 = 18;

/// A batch of timestamps: `logical - count + 1` to `logical`, all at `physical_ms`.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct TimestampsGranted {
    /// Milliseconds since the Unix epoch.
    #[prost(uint64, tag = "1")]
    pub physical_ms: u64,
    /// Logical part of the last timestamp of the batch, below 2^18.
    #[prost(uint64, tag = "2")]
    pub logical: u64,
    /// How many, as asked.
    #[prost(uint32, tag = "3")]
    pub count: u32,
}

impl TimestampsGranted {
    /// The last timestamp of the batch as one number: `physical_ms << 18 | logical`.
    pub fn last(&self) -> u64 {
        (self.physical_ms << LOGICAL_BITS) | self.logical
    }

    /// The first timestamp of the batch as one number.
    pub fn first(&self) -> u64 {
        self.last() - u64::from(self.count.saturating_sub(1))
    }
}

/// Fresh ids `first` to `first + count - 1`.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct IdsGranted {
    /// The first id.
    #[prost(uint64, tag = "1")]
    pub first: u64,
    /// How many, as asked.
    #[prost(uint32, tag = "2")]
    pub count: u32,
}

/// A heartbeat was accepted.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Accepted {}

/// Regions in key order.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RegionList {
    /// The regions.
    #[prost(message, repeated, tag = "1")]
    pub regions: Vec<RegionInfo>,
}

/// Stores by ascending id.
#[derive(Clone, PartialEq, prost::Message)]
pub struct StoreList {
    /// The stores.
    #[prost(message, repeated, tag = "1")]
    pub stores: Vec<StoreInfo>,
}

/// A safe point.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct SafePoint {
    /// A timestamp; 0 if none was ever set.
    #[prost(uint64, tag = "1")]
    pub safe_point: u64,
}

/// The cluster and the stores that run placement in it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ClusterInfo {
    /// The cluster's id, never 0.
    #[prost(uint64, tag = "1")]
    pub cluster_id: u64,
    /// The store that leads placement: the one that answered.
    #[prost(uint64, tag = "2")]
    pub leader_store_id: u64,
    /// The stores that hold a peer of the placement group, by ascending id.
    #[prost(message, repeated, tag = "3")]
    pub members: Vec<StoreInfo>,
    /// Number of regions in the catalogue, the placement group included.
    #[prost(uint64, tag = "4")]
    pub region_count: u64,
    /// Number of stores.
    #[prost(uint64, tag = "5")]
    pub store_count: u64,
}

/// The safe points of garbage collection and what holds them back.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct GcPoints {
    /// Versions that no read at or above it needs may be dropped; reads below it are refused.
    #[prost(uint64, tag = "1")]
    pub gc_safe_point: u64,
    /// Transactions that started below it may not go on; at or above the GC safe point.
    #[prost(uint64, tag = "2")]
    pub txn_safe_point: u64,
    /// What holds the transaction safe point back, service safe points included, in the order of their names.
    #[prost(message, repeated, tag = "3")]
    pub barriers: Vec<GcBarrier>,
}

/// A safe point was moved.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct SafePointMoved {
    /// Where it was.
    #[prost(uint64, tag = "1")]
    pub old: u64,
    /// Where it is.
    #[prost(uint64, tag = "2")]
    pub new: u64,
    /// What holds it back below the target, in words; empty if nothing does.
    #[prost(string, tag = "3")]
    pub blocker: String,
}

/// The lowest of all service safe points.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ServiceSafePoint {
    /// The service that has it.
    #[prost(string, tag = "1")]
    pub service: String,
    /// Seconds until that expires; [`crate::GC_BARRIER_TTL_FOREVER`]: never.
    #[prost(int64, tag = "2")]
    pub ttl_seconds: i64,
    /// The lowest one. Above what a service has asked for: it asked too late, and is not protected.
    #[prost(uint64, tag = "3")]
    pub min_safe_point: u64,
}

/// A barrier after it was set, or before it was removed.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct GcBarrierChanged {
    /// `None`: there was none.
    #[prost(message, optional, tag = "1")]
    pub barrier: Option<GcBarrier>,
}
