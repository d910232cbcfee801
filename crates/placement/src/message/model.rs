//! Stores, regions and peers as placement sees them.

/// How many times a region's peers and range have changed.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Epoch {
    /// Counts changes of membership.
    #[prost(uint64, tag = "1")]
    pub conf_ver: u64,
    /// Counts changes of range (splits and merges).
    #[prost(uint64, tag = "2")]
    pub version: u64,
}

impl Epoch {
    /// Whether `self` is behind `other` in either count.
    pub fn is_behind(&self, other: &Epoch) -> bool {
        self.conf_ver < other.conf_ver || self.version < other.version
    }
}

/// What a peer may do in its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum PeerRole {
    /// Votes and may lead.
    Voter = 0,
    /// Receives the log only.
    Learner = 1,
    /// Votes, and did not before the joint configuration.
    IncomingVoter = 2,
    /// Votes, and does not after the joint configuration.
    DemotingVoter = 3,
}

/// One replica of a region.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Peer {
    /// The peer's id, unique in the cluster.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// The store it lives on.
    #[prost(uint64, tag = "2")]
    pub store_id: u64,
    /// A [`PeerRole`].
    #[prost(enumeration = "PeerRole", tag = "3")]
    pub role: i32,
}

/// A range of keys and the peers that hold it.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Region {
    /// Its id, unique in the cluster and never 0.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// First key, inclusive; empty is the beginning.
    #[prost(bytes = "bytes", tag = "2")]
    pub start_key: bytes::Bytes,
    /// Last key, exclusive; empty is unbounded.
    #[prost(bytes = "bytes", tag = "3")]
    pub end_key: bytes::Bytes,
    /// The epoch; never absent in a region that placement gives out.
    #[prost(message, required, tag = "4")]
    pub epoch: Epoch,
    /// Its peers.
    #[prost(message, repeated, tag = "5")]
    pub peers: Vec<Peer>,
    /// The group of placement itself: it has no keys that a client can address and never answers a look-up by key.
    #[prost(bool, tag = "6")]
    pub system: bool,
}

impl Region {
    /// Whether the key lies in the range.
    pub fn contains(&self, key: &[u8]) -> bool {
        self.start_key.as_ref() <= key && (self.end_key.is_empty() || key < self.end_key.as_ref())
    }
}

/// A region with what its leader last reported. After a failover everything but `region` may be absent until the
/// next heartbeat.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RegionInfo {
    /// The descriptor.
    #[prost(message, required, tag = "1")]
    pub region: Region,
    /// The leader, if one has reported.
    #[prost(message, optional, tag = "2")]
    pub leader: Option<Peer>,
    /// The leader's raft term; 0 if none has reported.
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

/// What identifies a store; persisted.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Store {
    /// Its id, unique in the cluster and never 0.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// Where clients and other stores reach it: bare `host:port`.
    #[prost(string, tag = "2")]
    pub address: String,
    /// Where its HTTP status port listens: bare `host:port`, or empty.
    #[prost(string, tag = "3")]
    pub status_address: String,
    /// The version of its program.
    #[prost(string, tag = "4")]
    pub version: String,
}

/// What a store reports of itself; kept in memory only.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct StoreStats {
    /// Size of its volume, in bytes.
    #[prost(uint64, tag = "1")]
    pub capacity_bytes: u64,
    /// Bytes its files take.
    #[prost(uint64, tag = "2")]
    pub used_bytes: u64,
    /// Bytes free on its volume.
    #[prost(uint64, tag = "3")]
    pub available_bytes: u64,
    /// Regions that have a peer there.
    #[prost(uint64, tag = "4")]
    pub region_count: u64,
    /// Regions that it leads.
    #[prost(uint64, tag = "5")]
    pub leader_count: u64,
}

/// A store with its latest report.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct StoreInfo {
    /// What identifies it.
    #[prost(message, required, tag = "1")]
    pub store: Store,
    /// Its latest report; absent if this placement leader has not received one yet.
    #[prost(message, optional, tag = "2")]
    pub stats: Option<StoreStats>,
    /// Milliseconds since its latest report, or, if this placement leader has not received one yet, since this leader
    /// began. Absent in the answer of a leader of an older version that has not received one.
    #[prost(uint64, optional, tag = "3")]
    pub silent_ms: Option<u64>,
}

/// What holds the transaction safe point back.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct GcBarrier {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// The transaction safe point does not pass this timestamp.
    #[prost(uint64, tag = "2")]
    pub ts: u64,
    /// Seconds until it expires; [`crate::GC_BARRIER_TTL_FOREVER`]: never.
    #[prost(int64, tag = "3")]
    pub ttl_seconds: i64,
}
