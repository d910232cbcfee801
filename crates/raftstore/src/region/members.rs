//! The replicas of a region: which of them vote, and how that changes. The design is in docs/internals/membership.md.

use super::{Peer, PeerId, Region};
use std::collections::BTreeMap;

/// Whether a replica votes, now and after a joint change. The numbers are those of the protocol (`metapb.PeerRole`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PeerRole {
    /// It votes.
    #[default]
    Voter = 0,
    /// It gets the log and the data, and counts for no quorum.
    Learner = 1,
    /// In a joint configuration: a voter of the new half only.
    IncomingVoter = 2,
    /// In a joint configuration: a voter of the old half only, and then a learner.
    DemotingVoter = 3,
}

impl PeerRole {
    /// The role with this number.
    pub fn from_number(number: u32) -> Option<PeerRole> {
        use PeerRole::*;
        [Voter, Learner, IncomingVoter, DemotingVoter].into_iter().find(|role| *role as u32 == number)
    }

    /// Whether it votes in the old half of a joint configuration, or in one that is not joint.
    pub fn votes_before(self) -> bool {
        matches!(self, PeerRole::Voter | PeerRole::DemotingVoter)
    }

    /// Whether it votes in the new half of a joint configuration, or in one that is not joint.
    pub fn votes_after(self) -> bool {
        matches!(self, PeerRole::Voter | PeerRole::IncomingVoter)
    }

    fn is_joint(self) -> bool {
        matches!(self, PeerRole::IncomingVoter | PeerRole::DemotingVoter)
    }
}

/// A change of a region's replicas. Changes happen one after another, each in its own log entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberChange {
    /// A new voter, which gets its data from a snapshot. No replica has its identity or its store yet.
    Add(Peer),
    /// A new learner, likewise.
    AddLearner(Peer),
    /// A replica is one no longer.
    Remove(PeerId),
    /// A learner becomes a voter.
    Promote(PeerId),
    /// A voter becomes a learner.
    Demote(PeerId),
    /// Several roles change at once: a joint configuration begins, in which both the old and the new voters decide.
    Jointly(Vec<RoleChange>),
    /// The joint configuration ends.
    LeaveJoint,
}

/// A part of a joint change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoleChange {
    /// A learner becomes a voter.
    Promote(PeerId),
    /// A voter becomes a learner.
    Demote(PeerId),
}

impl RoleChange {
    /// The replica.
    pub fn peer(self) -> PeerId {
        match self {
            RoleChange::Promote(id) | RoleChange::Demote(id) => id,
        }
    }
}

impl MemberChange {
    /// The replicas that it makes voters.
    pub fn promoted(&self) -> Vec<PeerId> {
        let of = |change: &RoleChange| matches!(change, RoleChange::Promote(_)).then(|| change.peer());
        match self {
            MemberChange::Promote(id) => vec![*id],
            MemberChange::Jointly(changes) => changes.iter().filter_map(of).collect(),
            _ => Vec::new(),
        }
    }

    /// Whether a replica votes no more after it, if it did.
    pub fn ends_vote_of(&self, id: PeerId) -> bool {
        match self {
            MemberChange::Remove(removed) => *removed == id,
            MemberChange::Demote(demoted) => *demoted == id,
            MemberChange::Jointly(changes) => changes.contains(&RoleChange::Demote(id)),
            _ => false,
        }
    }
}

impl Region {
    /// The role of a replica.
    pub fn role(&self, id: PeerId) -> PeerRole {
        self.roles.get(&id).copied().unwrap_or_default()
    }

    /// Whether the configuration is a joint one.
    pub fn is_joint(&self) -> bool {
        self.roles.values().any(|role| role.is_joint())
    }

    /// Whether a replica votes when no joint configuration is left.
    pub fn is_lasting_voter(&self, id: PeerId) -> bool {
        self.peer(id).is_some() && self.role(id).votes_after()
    }

    /// The number of replicas that vote.
    pub fn voter_count(&self) -> usize {
        self.peers.iter().filter(|peer| self.role(peer.id) != PeerRole::Learner).count()
    }

    /// Whether these replicas are a quorum: more than half of the voters; in a joint configuration of the old ones and
    /// of the new ones.
    pub fn is_quorum(&self, is_in: impl Fn(PeerId) -> bool) -> bool {
        let is_majority = |votes: fn(PeerRole) -> bool| {
            let voters = || self.peers.iter().filter(|peer| votes(self.role(peer.id)));
            2 * voters().filter(|peer| is_in(peer.id)).count() > voters().count()
        };
        is_majority(PeerRole::votes_before) && is_majority(PeerRole::votes_after)
    }

    /// The descriptor after a change, or why it cannot be made.
    pub fn changed(&self, change: &MemberChange) -> Result<Region, &'static str> {
        if self.is_joint() != (*change == MemberChange::LeaveJoint) {
            return Err("a joint configuration ends before anything else changes, and only that can end");
        }
        let mut region = self.clone();
        match change {
            MemberChange::Add(peer) => region.add(*peer)?,
            MemberChange::AddLearner(peer) => {
                region.add(*peer)?;
                region.roles.insert(peer.id, PeerRole::Learner);
            }
            MemberChange::Remove(id) => {
                if self.peer(*id).is_none() {
                    return Err("there is no such replica");
                }
                region.peers.retain(|peer| peer.id != *id);
                region.roles.remove(id);
            }
            MemberChange::Promote(id) => region.change_role(*id, PeerRole::Learner, PeerRole::Voter)?,
            MemberChange::Demote(id) => region.change_role(*id, PeerRole::Voter, PeerRole::Learner)?,
            MemberChange::Jointly(changes) => region.join(changes)?,
            MemberChange::LeaveJoint => {
                let roles = self.roles.iter().filter(|(_, role)| !role.votes_after());
                region.roles = roles.map(|(id, _)| (*id, PeerRole::Learner)).collect();
            }
        }
        if !region.peers.iter().any(|peer| region.is_lasting_voter(peer.id)) {
            return Err("the last voter cannot be removed or demoted");
        }
        region.epoch.conf_version += 1;
        Ok(region)
    }

    fn add(&mut self, peer: Peer) -> Result<(), &'static str> {
        if peer.id.0 == 0 || peer.store.0 == 0 {
            return Err("a replica has an identity and a store that are not 0");
        }
        if self.peer(peer.id).is_some() || self.peer_on(peer.store).is_some() {
            return Err("the store has a replica already");
        }
        let at = self.peers.partition_point(|other| other.id < peer.id);
        self.peers.insert(at, peer);
        Ok(())
    }

    fn change_role(&mut self, id: PeerId, from: PeerRole, to: PeerRole) -> Result<(), &'static str> {
        if self.peer(id).is_none() {
            return Err("there is no such replica");
        }
        if self.role(id) != from {
            return Err("only a learner is promoted, and only a voter demoted");
        }
        match to {
            PeerRole::Voter => self.roles.remove(&id),
            role => self.roles.insert(id, role),
        };
        Ok(())
    }

    fn join(&mut self, changes: &[RoleChange]) -> Result<(), &'static str> {
        if changes.is_empty() {
            return Err("a joint change changes at least one role");
        }
        changes.iter().try_for_each(|change| match change {
            RoleChange::Promote(id) => self.change_role(*id, PeerRole::Learner, PeerRole::IncomingVoter),
            RoleChange::Demote(id) => self.change_role(*id, PeerRole::Voter, PeerRole::DemotingVoter),
        })
    }

    /// The roles of other replicas, in the same order as these.
    pub(crate) fn roles_of(&self, others: &[PeerId]) -> BTreeMap<PeerId, PeerRole> {
        let pairs = self.peers.iter().zip(others);
        pairs.filter_map(|(peer, other)| self.roles.get(&peer.id).map(|role| (*other, *role))).collect()
    }
}

#[cfg(test)]
#[path = "members_test.rs"]
pub(crate) mod tests;
