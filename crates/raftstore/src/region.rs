//! Regions and the identifiers around them.

mod members;
mod merges;

#[cfg(test)]
pub(crate) use members::tests as members_test;
pub use members::{MemberChange, PeerRole, RoleChange};
pub(crate) use merges::Absorber;
pub use merges::{ABSORBED_MAX, Absorbed, Merges, Merging};

use bytes::Bytes;
use std::collections::BTreeMap;
use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

id! {
    /// Names a region, and the raft group that replicates it. Never reused; never 0.
    RegionId
}
id! {
    /// Names a store (a node's data directory). Never reused; never 0.
    StoreId
}
id! {
    /// Names a replica of a region on a store. Never reused; never 0.
    PeerId
}
id! {
    /// Chosen by the caller of a proposal or read barrier; comes back once with its [`crate::Answer`].
    Ticket
}

/// Versions of a region's descriptor: a request with another epoch was routed by an outdated descriptor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch {
    /// Grows with each change of the peers.
    pub conf_version: u64,
    /// Grows with each change of the key range (split, merge).
    pub version: u64,
}

/// A replica, and where it is. [`Region::role`] says whether it votes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Peer {
    /// Its identity in the raft group.
    pub id: PeerId,
    /// The store it lives on.
    pub store: StoreId,
}

/// What a region's key range is a range of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Space {
    /// All of family `placement`; clients cannot address it.
    System,
    /// The plain key order of each data family.
    Data,
}

/// A region's descriptor. The same on every replica at the same applied index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// Identity.
    pub id: RegionId,
    /// First key, inclusive; empty is the very first.
    pub start_key: Bytes,
    /// End key, exclusive; empty is unbounded.
    pub end_key: Bytes,
    /// Grows with each change of the range or of the peers.
    pub epoch: Epoch,
    /// The replicas, by ascending peer id.
    pub peers: Vec<Peer>,
    /// The roles of those that are not just voters.
    pub roles: BTreeMap<PeerId, PeerRole>,
    /// What the range is a range of.
    pub space: Space,
    /// Its part in merges.
    pub merges: Merges,
    /// Versions of its data that no read at or above this timestamp needs may be gone, on any replica, and no later
    /// command depends on them. What a version is, the layers above know. Never goes back; a split hands it on, and a
    /// merge keeps the higher one.
    pub gc_safe_point: u64,
}

impl Region {
    /// Whether `key` (of any family of the region's space) lies in the range.
    pub fn contains(&self, key: &[u8]) -> bool {
        self.start_key.as_ref() <= key && (self.end_key.is_empty() || key < self.end_key.as_ref())
    }

    /// Whether the ranges have a key in common: ranges of two spaces have none.
    pub fn overlaps(&self, other: &Region) -> bool {
        let starts_before_end = |a: &Region, b: &Region| b.end_key.is_empty() || a.start_key < b.end_key;
        self.space == other.space && starts_before_end(self, other) && starts_before_end(other, self)
    }

    /// The peer on a store.
    pub fn peer_on(&self, store: StoreId) -> Option<Peer> {
        self.peers.iter().copied().find(|peer| peer.store == store)
    }

    /// The peer of that identity.
    pub fn peer(&self, id: PeerId) -> Option<Peer> {
        self.peers.iter().copied().find(|peer| peer.id == id)
    }
}

/// Which cluster and which store a directory belongs to; written once, at bootstrap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreIdentity {
    /// The cluster; never 0.
    pub cluster: u64,
    /// The store.
    pub store: StoreId,
}
