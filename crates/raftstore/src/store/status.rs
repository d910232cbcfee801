//! A store's status, for metrics, status pages and tests.

use super::Store;
use crate::peer::LeaseStatus;
use crate::region::{Peer, PeerId, Region};
use std::sync::Arc;

/// One region's replica, at this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionStatus {
    /// The descriptor.
    pub region: Arc<Region>,
    /// The leader this replica knows of.
    pub leader: Option<Peer>,
    /// Whether that is this replica.
    pub leads: bool,
    /// Raft term.
    pub term: u64,
    /// The peer that this replica voted for in this term, if it voted.
    pub vote: Option<PeerId>,
    /// Whether it hibernates: it gets no ticks until something happens.
    pub hibernates: bool,
    /// The lease, if this replica leads and a quorum has confirmed it at any time.
    pub lease: Option<LeaseStatus>,
    /// Last index of the log that is durable here.
    pub durable_index: u64,
    /// Last index of the log.
    pub last_index: u64,
    /// The log holds an entry of this term, so it holds everything that its leader needs to commit.
    pub has_first_of_term: bool,
    /// Highest index known to be committed.
    pub committed_index: u64,
    /// Highest index visible to readers here.
    pub applied_index: u64,
    /// Entries through here are truncated.
    pub truncated_index: u64,
    /// Bytes of the log, in memory or not.
    pub log_bytes: usize,
    /// Bytes of the log in memory.
    pub memory_bytes: usize,
    /// Those of its entries that are not applied.
    pub unapplied_bytes: usize,
}

impl Store {
    /// Whether a replica that was here has been removed. Of the same region there may be another one since.
    pub fn has_lost_members(&self) -> bool {
        !self.creation.tombstones.is_empty()
    }

    /// Replicas that hibernate or have nothing to do, and those that wait for their turn to wake up.
    pub fn resting(&self) -> (usize, usize) {
        (self.peers.len().saturating_sub(self.ticking.len()), self.hibernation.waking())
    }

    /// The state of every region, by ascending id.
    pub fn status(&self) -> Vec<RegionStatus> {
        let status = |peer: &crate::peer::Peer| RegionStatus {
            region: peer.region().clone(),
            leader: peer.leader(),
            leads: peer.leads(),
            term: peer.group().term(),
            vote: Some(PeerId(peer.group().vote())).filter(|vote| vote.0 != 0),
            hibernates: peer.hibernates(),
            lease: peer.lease_status(self.out.now),
            durable_index: peer.group().durable_index(),
            last_index: peer.group().last_index(),
            has_first_of_term: !peer.group().lacks_first_of_term(),
            committed_index: peer.group().committed(),
            applied_index: peer.applied().index,
            truncated_index: peer.group().truncated().index,
            log_bytes: peer.group().log_bytes(),
            memory_bytes: peer.group().memory_bytes(),
            unapplied_bytes: peer.group().unapplied_log_bytes(),
        };
        self.peers.values().filter(|peer| !peer.is_removed()).map(status).collect()
    }
}
