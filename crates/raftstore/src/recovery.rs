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
//! *A joint configuration* stays one: of each half those count that are left, and both halves decide. The configuration
//! before it is its old half and the one after it its new half, and any two majorities of the same voters that are left
//! overlap, whether they are majorities of all or only of these. If all voters that are left counted together, new ones
//! could decide alone, whom a replica that has not seen the change does not know. A half of which nothing
//! is left decides nothing: no replica can be elected by that half alone, before or after.
//!
//! *Learners* do not count: several at different places of the log could elect several leaders. If only learners are
//! left, a person names the store whose replica the region goes on from, and no other one counts, wherever in the log
//! it is.
//!
//! The design, with the rejected alternatives, is in docs/internals/unsafe-recovery.md.

use crate::region::{Epoch, Peer, PeerId, PeerRole, Region, RegionId, StoreId};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

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
    /// Regions that go on from one replica alone, whatever its role, and its store, which is not lost.
    pub learners: BTreeMap<RegionId, StoreId>,
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

    fn is_left(&self, peer: &Peer) -> bool {
        !self.lost.contains(&peer.store)
    }

    /// The replica that a person has named to go on from.
    fn named(&self, region: &Region) -> Option<PeerId> {
        self.learners.get(&region.id).and_then(|store| region.peer_on(*store)).map(|peer| peer.id)
    }

    /// The replicas that are left, if they are all learners and none of them was named.
    pub fn only_learners(&self, region: &Region) -> Vec<Peer> {
        let left: Vec<Peer> = region.peers.iter().filter(|peer| self.is_left(peer)).copied().collect();
        let are_learners = left.iter().all(|peer| region.role(peer.id) == PeerRole::Learner);
        if are_learners && self.named(region).is_none() { left } else { Vec::new() }
    }

    /// Whether the voters that are left are no quorum, and this can be remedied: a region of which no voter is left is
    /// not recovered, unless one of its learners was named.
    pub fn loses_quorum(&self, region: &Region) -> bool {
        let is_left = |id| region.peer(id).is_some_and(|peer| self.is_left(&peer));
        let has_voter = region.peers.iter().any(|peer| is_left(peer.id) && region.role(peer.id) != PeerRole::Learner);
        self.named(region).is_some() || has_voter && !region.is_quorum(is_left)
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
        let is_lost_or_learns = |peer: &Peer| !self.is_left(peer) || region.role(peer.id) == PeerRole::Learner;
        if self.named(region).is_none() && region.peers.iter().all(is_lost_or_learns) {
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
        left.peers.retain(|peer| self.is_left(peer));
        left.roles.retain(|id, _| left.peers.iter().any(|peer| peer.id == *id));
        if let Some(named) = self.named(region) {
            let others = left.peers.iter().filter(|peer| peer.id != named);
            left.roles = others.map(|peer| (peer.id, PeerRole::Learner)).collect();
        }
        let has = |votes: fn(PeerRole) -> bool| left.peers.iter().any(|peer| votes(left.role(peer.id)));
        if !has(PeerRole::votes_before) || !has(PeerRole::votes_after) {
            // The other half alone: its voters are voters.
            left.roles.retain(|_, role| *role == PeerRole::Learner);
        }
        left
    }
}

#[cfg(test)]
#[path = "recovery_test.rs"]
mod tests;
