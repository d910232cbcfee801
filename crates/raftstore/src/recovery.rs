//! Unsafe recovery: a person states that stores are lost for good, with so many replicas of regions that those have no
//! quorum any more. Two things follow, both by pure functions of a descriptor and the statement:
//!
//! 1. *Until a region is recovered*, only its replicas on the other stores count ([`Recovery::counted`]), if those are
//!    no majority. With them the group elects a leader, which commits what is in its log, as any new leader does.
//! 2. *A region is recovered* by a command in its log (`Action::Recover`, [`Recovery::recovered`]). From then on its
//!    descriptor names only the replicas that are left, and everything is as usual.
//!
//! The statement is recorded in each directory ([`crate::meta::put_recovery`]) and is the same on all stores that are
//! left. Recoveries are numbered, and the number is the upper half of the conf_version of every region that was
//! recovered: higher than any that a lost replica can have. The lower half counts changes of the members as before.
//!
//! Configurations that are one command apart overlap here, too. If both count all replicas, or both only those that are
//! left, they differ by one replica. If one of them is a majority that is left of `n` replicas, and what is left after
//! the next change is none, then that majority had no replica to spare: all of it is its only quorum, and the next one
//! consists of these replicas. This relies on lost replicas not voting, as the whole recovery does. A recovery changes
//! nothing of what counts.
//!
//! The design, with the rejected alternatives, is in docs/internals/unsafe-recovery.md.

use crate::region::{Epoch, Peer, PeerRole, Region, StoreId};
use std::borrow::Cow;
use std::collections::BTreeSet;

/// A conf_version is the number of the last recovery, and this many bits that count changes of the members.
const CHANGES_BITS: u32 = 32;
/// Numbers of recoveries fit in the upper half.
const NUMBER_MAX: u64 = u64::MAX >> CHANGES_BITS;

/// What is stated of lost stores. By default: nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Counts the unsafe recoveries of the cluster; 0 if there was none.
    pub number: u64,
    /// The stores whose replicas are lost.
    pub lost: BTreeSet<StoreId>,
}

impl Recovery {
    /// Whether the region's descriptor is from before this recovery.
    pub fn is_due(&self, region: &Region) -> bool {
        self.precedes(region.epoch.conf_version)
    }

    fn precedes(&self, conf_version: u64) -> bool {
        conf_version >> CHANGES_BITS < self.number
    }

    /// Whether a message from this store, whose replica has this conf_version, is that of a lost replica. A store whose
    /// lost directory was replaced has only replicas that were added after the recovery.
    pub fn is_lost(&self, store: StoreId, conf_version: u64) -> bool {
        self.lost.contains(&store) && self.precedes(conf_version)
    }

    /// Whether the voters that are left are no quorum, and this can be remedied. A region of which no voter is left is
    /// none that is recovered, nor is one in a joint configuration.
    pub fn loses_quorum(&self, region: &Region) -> bool {
        let is_left = |id| region.peer(id).is_some_and(|peer| !self.lost.contains(&peer.store));
        let has_voter = region.peers.iter().any(|peer| is_left(peer.id) && region.role(peer.id) == PeerRole::Voter);
        has_voter && !region.is_joint() && !region.is_quorum(is_left)
    }

    /// Whether lost replicas of the region do not count.
    pub(crate) fn leaves_out_lost(&self, region: &Region) -> bool {
        self.is_due(region) && self.loses_quorum(region)
    }

    /// The region with the replicas whose votes and acknowledgements count.
    pub(crate) fn counted<'a>(&self, region: &'a Region) -> Cow<'a, Region> {
        if self.leaves_out_lost(region) { Cow::Owned(self.without_lost(region)) } else { Cow::Borrowed(region) }
    }

    /// The descriptor after the recovery, or why it cannot be made. A region that has its majority keeps all replicas;
    /// those that are lost are replaced in the usual way.
    pub fn recovered(&self, region: &Region) -> Result<Region, &'static str> {
        if !self.is_due(region) {
            return Err("the region is recovered already");
        }
        if self.number > NUMBER_MAX {
            return Err("too many recoveries");
        }
        if region.is_joint() {
            return Err("the region is in a joint configuration");
        }
        let is_lost = |peer: &Peer| self.lost.contains(&peer.store);
        if region.peers.iter().all(|peer| is_lost(peer) || region.role(peer.id) == PeerRole::Learner) {
            return Err("no voter of the region is left");
        }
        let counted = if self.loses_quorum(region) { self.without_lost(region) } else { region.clone() };
        let changes = (region.epoch.conf_version & NUMBER_MAX).saturating_add(1).min(NUMBER_MAX);
        let conf_version = self.number << CHANGES_BITS | changes;
        assert!(conf_version > region.epoch.conf_version, "a conf_version only grows");
        Ok(Region { epoch: Epoch { conf_version, ..region.epoch }, ..counted })
    }

    fn without_lost(&self, region: &Region) -> Region {
        let mut left = region.clone();
        left.peers.retain(|peer| !self.lost.contains(&peer.store));
        left.roles.retain(|id, _| left.peers.iter().any(|peer| peer.id == *id));
        left
    }
}

#[cfg(test)]
#[path = "recovery_test.rs"]
mod tests;
