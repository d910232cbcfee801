//! Errors, separated by who must act: the client (region errors) or the operator (recovery, faults).

use crate::region::{Epoch, Peer, PeerId, Region, RegionId, StoreId};
use bytes::Bytes;
use std::fmt;

/// Why a request was refused. It had no effect and will have none: it may be sent again, to another store or later.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegionError {
    /// This replica does not lead; the leader is named if it is known.
    #[error("this replica of region {region} is not the leader; {}", Whereabouts(.leader))]
    NotLeader {
        /// The region.
        region: RegionId,
        /// Where to go instead.
        leader: Option<Peer>,
    },
    /// The region has no replica here.
    #[error("region {region} has no replica on this store")]
    RegionNotFound {
        /// The region.
        region: RegionId,
    },
    /// A key lies outside the region.
    #[error("a key lies outside region {region}")]
    KeyNotInRegion {
        /// The key.
        key: Bytes,
        /// The region.
        region: RegionId,
        /// Its first key.
        start_key: Bytes,
        /// Its end key; empty is unbounded.
        end_key: Bytes,
    },
    /// The request was routed by another version of the region table; the regions now in its place.
    #[error("the epoch does not match; {} region(s) are there now", current.len())]
    EpochNotMatch {
        /// What the region's range is now, in key order.
        current: Vec<Region>,
    },
    /// This replica does not know yet that it has everything which is committed at or below the requested timestamp.
    #[error("this replica of region {region} is safe to read up to {safe_ts} only; ask the leader, or later")]
    DataIsNotReady {
        /// The region.
        region: RegionId,
        /// The replica.
        peer: PeerId,
        /// Up to where it can be read; 0: it does not know.
        safe_ts: u64,
    },
    /// Another entry took the place of this proposal in the log: it will never be applied.
    #[error("the proposal was superseded")]
    StaleCommand,
    /// The request was meant for another store.
    #[error("meant for store {requested}, this is store {actual}")]
    StoreNotMatch {
        /// The store the request names.
        requested: StoreId,
        /// This store.
        actual: StoreId,
    },
    /// The encoded proposal is too large.
    #[error(
        "one write of {bytes} bytes to region {region}: at most {bytes_max} are accepted; write less at a time, or \
         raise raft-entry-bytes-max of `kontiki serve` on every node"
    )]
    EntryTooLarge {
        /// The region.
        region: RegionId,
        /// Encoded size.
        bytes: u64,
        /// The limit ([`crate::Config::proposal_bytes_max`]).
        bytes_max: u64,
    },
    /// The region as it is does not permit that.
    #[error("region {region} does not permit that: {why}")]
    Impossible {
        /// The region.
        region: RegionId,
        /// What it needs.
        why: &'static str,
    },
    /// Too much is proposed and not yet applied: try again later.
    #[error("region {region} is busy: {reason}")]
    ServerIsBusy {
        /// The region.
        region: RegionId,
        /// What is full, and its bound.
        reason: String,
    },
}

/// Where a region's leader is, in words.
struct Whereabouts<'a>(&'a Option<Peer>);

impl fmt::Display for Whereabouts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(peer) => write!(f, "the leader is peer {} on store {}", peer.id, peer.store),
            None => write!(f, "no leader is known"),
        }
    }
}

impl RegionError {
    /// [`RegionError::EpochNotMatch`] if the range may have changed since `epoch`. A change of the members moves no
    /// key, so a request that was routed before it is still valid.
    pub fn check_epoch(region: &Region, epoch: Epoch) -> Result<(), RegionError> {
        if region.epoch.version == epoch.version {
            return Ok(());
        }
        Err(RegionError::EpochNotMatch { current: vec![region.clone()] })
    }

    /// [`RegionError::KeyNotInRegion`] if the key lies outside the region.
    pub fn check_key(region: &Region, key: &[u8]) -> Result<(), RegionError> {
        if region.contains(key) { Ok(()) } else { Err(RegionError::key_not_in_region(region, key)) }
    }

    pub(crate) fn key_not_in_region(region: &Region, key: &[u8]) -> RegionError {
        RegionError::KeyNotInRegion {
            key: Bytes::copy_from_slice(key),
            region: region.id,
            start_key: region.start_key.clone(),
            end_key: region.end_key.clone(),
        }
    }
}

/// Why a store could not start from what its directory holds.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecoverError {
    /// The directory has no store identity: it was never bootstrapped.
    #[error("the directory holds no store identity; it was never bootstrapped")]
    NotBootstrapped,
    /// Reading failed.
    #[error(transparent)]
    Engine(#[from] kontiki_engine::Error),
    /// The data contradicts itself or cannot be decoded.
    #[error(
        "the replicated state is damaged: {0}; in a cluster, start this node with an empty directory \
         instead of the lost one (docs/guide/replace-a-disk.md)"
    )]
    Damaged(String),
}

/// A condition in which a store must stop, because going on could make replicas differ. The node stops taking part,
/// reports the reason, and leaves its directory unchanged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("region {region}: {what}")]
pub struct Fault {
    /// The region in which it was found.
    pub region: RegionId,
    /// What was found, and the remedy.
    pub what: String,
    /// Of which kind it is.
    pub kind: FaultKind,
}

/// The kind of a [`Fault`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// This version, or this directory as it is, cannot do what other replicas may be able to do.
    Unable,
    /// The data here are not those of the other replicas. The directory must not be used any more.
    Inconsistent,
}
